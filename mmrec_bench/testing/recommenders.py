"""Tests of a `Recommender`."""

from pathlib import Path

import pytest

from mmrec_bench.contract import recommenders
from mmrec_bench.contract.subjects import RecommenderSubject, toy_modalities
from mmrec_bench.contract.toys import toy_split, toy_training_data
from mmrec_bench.interfaces import InstructionBuilder, Recommender, TrainingData
from mmrec_bench.testing.components import ComponentTests, keep
from mmrec_bench.types import Split


class RecommenderTests(ComponentTests):
    """What every `Recommender` must keep; inherit and override `make`."""

    def make(self) -> Recommender:
        """Return a new, unfitted recommender, small enough to fit in a second."""
        raise NotImplementedError

    def builder(self) -> InstructionBuilder | None:
        """Return the builder for models that read instructions."""
        return None

    @pytest.fixture
    def split(self) -> Split:
        """Return the toy split."""
        return toy_split()

    @pytest.fixture
    def data(self, split: Split, tmp_path: Path) -> TrainingData:
        """Return training data of the toy split."""
        modalities = toy_modalities(type(self.make()), split)
        scratch = tmp_path / "scratch"
        return toy_training_data(split, scratch, builder=self.builder(), modalities=modalities)

    @pytest.fixture
    def fitted(self, data: TrainingData) -> Recommender:
        """Return a fitted recommender."""
        data.scratch.mkdir(parents=True, exist_ok=True)
        recommender = self.make()
        recommender.fit(data, seed=0)
        return recommender

    @pytest.fixture
    def subject(
        self, split: Split, data: TrainingData, tmp_path: Path, request: pytest.FixtureRequest
    ) -> RecommenderSubject:
        """Return what the checks look at."""
        subject = RecommenderSubject(self.make, split, data, tmp_path / "contract")
        # Fitted only now: a fit that writes into the data is seen by comparison with before.
        subject.given = request.getfixturevalue("fitted")
        return subject

    def test_scores_have_the_shape_of_the_candidates(self, subject: RecommenderSubject) -> None:
        """(B, C) float32, and something is ranked."""
        keep(recommenders.check_scores, subject)

    def test_scores_do_not_depend_on_the_batch(self, subject: RecommenderSubject) -> None:
        """A query's score is the same alone and among others."""
        keep(recommenders.check_batch, subject)

    def test_scores_do_not_depend_on_the_order_of_candidates(
        self, subject: RecommenderSubject
    ) -> None:
        """Reversing the candidates reverses the scores; prompts that list them are exempt."""
        keep(recommenders.check_order, subject)

    def test_same_seed_gives_the_same_scores(self, subject: RecommenderSubject) -> None:
        """Nothing depends on global random state, or changes it."""
        keep(recommenders.check_seed, subject)

    def test_restored_model_scores_alike(self, subject: RecommenderSubject) -> None:
        """`save` and `restore` bring back the same scores."""
        keep(recommenders.check_restore, subject)

    def test_what_is_saved_holds_no_pickle(self, subject: RecommenderSubject) -> None:
        """Loading a model runs no code of its file."""
        keep(recommenders.check_no_pickles, subject)

    def test_empty_history_and_single_candidate_are_scored(
        self, subject: RecommenderSubject
    ) -> None:
        """A cold user and a list of one are legal."""
        keep(recommenders.check_cold, subject)

    def test_users_and_items_that_train_never_saw_are_scored(
        self, subject: RecommenderSubject
    ) -> None:
        """In the history and among the candidates."""
        keep(recommenders.check_unseen, subject)

    def test_whole_catalog_is_scored(self, subject: RecommenderSubject) -> None:
        """Candidates None means one score for each item; prompts that list them are exempt."""
        keep(recommenders.check_catalog, subject)

    def test_what_is_given_is_not_changed(self, subject: RecommenderSubject) -> None:
        """Other models of a call read the same arrays."""
        keep(recommenders.check_given, subject)

    def test_the_held_out_truth_changes_nothing(self, subject: RecommenderSubject) -> None:
        """Another truth behind the same queries gives the same scores."""
        keep(recommenders.check_truth, subject)
