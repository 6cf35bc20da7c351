from mmrec_bench.interfaces import Recommender
from mmrec_bench.testing import RecommenderTests
from tests.plugins.sequential.toys import bert4rec, gru4rec, sasrec


class TestSASRec(RecommenderTests):
    def make(self) -> Recommender:
        return sasrec()


class TestSASRecWithCrossEntropy(RecommenderTests):
    def make(self) -> Recommender:
        return sasrec(loss="ce", norm="post", activation="gelu", inner=4)


class TestGRU4Rec(RecommenderTests):
    def make(self) -> Recommender:
        return gru4rec()


class TestGRU4RecWithBPRMax(RecommenderTests):
    def make(self) -> Recommender:
        return gru4rec(loss="bpr-max", n_layers=2)


class TestGRU4RecWithOneNegative(RecommenderTests):
    def make(self) -> Recommender:
        return gru4rec(loss="bce")


class TestBERT4Rec(RecommenderTests):
    def make(self) -> Recommender:
        return bert4rec()
