"""Models that read a history in its order: SASRec, GRU4Rec, BERT4Rec."""
