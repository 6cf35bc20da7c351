"""Recommenders that also learn from vectors of the items: pictures, texts, sound."""
