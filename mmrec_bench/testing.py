"""The contract of each plugin kind as tests to inherit, and toy data to run them on.

For plugin authors::

    from mmrec_bench.testing import RecommenderTests

    class TestMyBaseline(RecommenderTests):
        def make(self):
            return MyBaseline(MyBaseline.Config())

Needs pytest (`pip install pytest`). `mmrec-bench check-plugin NAME` runs the same checks on what is
installed, without pytest.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mmrec_bench.contract import (
    common,
    datasets,
    encoders,
    instructions,
    metrics,
    recommenders,
)
from mmrec_bench.contract.common import check_light_import
from mmrec_bench.contract.findings import DoesNotApplyError
from mmrec_bench.contract.subjects import RecommenderSubject, toy_modalities
from mmrec_bench.contract.toys import (
    toy_context,
    toy_data,
    toy_items,
    toy_outcomes,
    toy_split,
    toy_training_data,
    toy_vectors,
)
from mmrec_bench.interfaces import (
    Dataset,
    InstructionBuilder,
    Metric,
    Recommender,
    TrainingData,
)
from mmrec_bench.types import Item, Outcomes, RecData, Split

__all__ = [
    "DatasetTests",
    "EncoderTests",
    "InstructionBuilderTests",
    "MetricTests",
    "RecommenderTests",
    "check_config_round_trip",
    "check_light_import",
    "toy_context",
    "toy_data",
    "toy_items",
    "toy_outcomes",
    "toy_split",
    "toy_training_data",
    "toy_vectors",
]

S = TypeVar("S")


def check_config_round_trip(component: Any) -> None:  # noqa: ANN401 - any component
    """Check that a component's Config is strict and survives JSON.

    Options without a default are taken from the component: from its `config`, or from its attribute
    of the option's name.
    """
    cls = type(component).Config
    required = [name for name, field in cls.model_fields.items() if field.is_required()]
    source = getattr(component, "config", component)
    common.check_config(cls(**{name: getattr(source, name) for name in required}))


def _keep(check: Callable[[S], None], subject: S) -> None:
    """Run a check as a test: skipped where it does not apply."""
    try:
        check(subject)
    except DoesNotApplyError as reason:
        pytest.skip(str(reason))


def _asked_by(metric: Metric) -> str:
    """Return the name that a metric is asked for by: with the cutoff of its Config, if it has one.

    "" where it keeps neither its `config` nor its `k`, so that no one knows.
    """
    family = str(metric.name).partition("@")[0]
    if "k" not in type(metric).Config.model_fields:  # type: ignore[attr-defined]
        return family
    k = getattr(getattr(metric, "config", metric), "k", None)
    return "" if k is None else f"{family}@{k}"


class _ComponentTests:
    """What every component keeps."""

    def make(self) -> Any:  # noqa: ANN401 - of any kind
        """Return a new component."""
        raise NotImplementedError

    def test_config_is_strict_and_survives_json(self) -> None:
        """Unknown keys are refused, values round-trip."""
        check_config_round_trip(self.make())

    def test_every_option_is_described(self) -> None:
        """`mmrec-bench list` shows what each option does."""
        common.check_options(type(self.make()).Config)


class RecommenderTests(_ComponentTests):
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
        _keep(recommenders.check_scores, subject)

    def test_scores_do_not_depend_on_the_batch(self, subject: RecommenderSubject) -> None:
        """A query's score is the same alone and among others."""
        _keep(recommenders.check_batch, subject)

    def test_scores_do_not_depend_on_the_order_of_candidates(
        self, subject: RecommenderSubject
    ) -> None:
        """Reversing the candidates reverses the scores; prompts that list them are exempt."""
        _keep(recommenders.check_order, subject)

    def test_same_seed_gives_the_same_scores(self, subject: RecommenderSubject) -> None:
        """Nothing depends on global random state, or changes it."""
        _keep(recommenders.check_seed, subject)

    def test_restored_model_scores_alike(self, subject: RecommenderSubject) -> None:
        """`save` and `restore` bring back the same scores."""
        _keep(recommenders.check_restore, subject)

    def test_what_is_saved_holds_no_pickle(self, subject: RecommenderSubject) -> None:
        """Loading a model runs no code of its file."""
        _keep(recommenders.check_no_pickles, subject)

    def test_empty_history_and_single_candidate_are_scored(
        self, subject: RecommenderSubject
    ) -> None:
        """A cold user and a list of one are legal."""
        _keep(recommenders.check_cold, subject)

    def test_users_and_items_that_train_never_saw_are_scored(
        self, subject: RecommenderSubject
    ) -> None:
        """In the history and among the candidates."""
        _keep(recommenders.check_unseen, subject)

    def test_whole_catalog_is_scored(self, subject: RecommenderSubject) -> None:
        """Candidates None means one score for each item; prompts that list them are exempt."""
        _keep(recommenders.check_catalog, subject)

    def test_what_is_given_is_not_changed(self, subject: RecommenderSubject) -> None:
        """Other models of a call read the same arrays."""
        _keep(recommenders.check_given, subject)

    def test_the_held_out_truth_changes_nothing(self, subject: RecommenderSubject) -> None:
        """Another truth behind the same queries gives the same scores."""
        _keep(recommenders.check_truth, subject)


class DatasetTests(_ComponentTests):
    """What every `Dataset` must keep; inherit and override `make` and `load`."""

    def load(self, tmp_path: Path) -> RecData:
        """Write small raw files below `tmp_path` and load them."""
        raise NotImplementedError

    def make(self) -> Dataset:
        """Return the data set plugin with its default options."""
        raise NotImplementedError

    @pytest.fixture
    def subject(self, tmp_path: Path) -> datasets.DatasetSubject:
        """Return what the checks look at."""
        return datasets.DatasetSubject(self.make, self.load, tmp_path)

    def test_missing_files_are_told_with_their_place(
        self, subject: datasets.DatasetSubject
    ) -> None:
        """DataMissingError says where to put them."""
        _keep(datasets.check_missing, subject)

    def test_interactions_are_sorted_and_in_range(self, subject: datasets.DatasetSubject) -> None:
        """(user, timestamp) order, numbers inside the vocabularies."""
        _keep(datasets.check_columns, subject)

    def test_version_follows_the_content(self, subject: datasets.DatasetSubject) -> None:
        """The same files give the same version."""
        _keep(datasets.check_version, subject)

    def test_card_names_source_and_licence(self, subject: datasets.DatasetSubject) -> None:
        """A reader learns where the data came from."""
        _keep(datasets.check_card, subject)

    def test_the_name_is_fit_for_a_folder(self, subject: datasets.DatasetSubject) -> None:
        """Records lie in a folder of this name."""
        _keep(datasets.check_name, subject)


class InstructionBuilderTests(_ComponentTests):
    """What every `InstructionBuilder` must keep; inherit and override `make`."""

    def make(self) -> InstructionBuilder:
        """Return the builder with its default options, prepared where it draws on train data."""
        raise NotImplementedError

    @pytest.fixture
    def split(self) -> Split:
        """Return the toy split."""
        return toy_split()

    @pytest.fixture
    def subject(self, split: Split) -> instructions.InstructionSubject:
        """Return what the checks look at."""
        return instructions.InstructionSubject(self.make, split)

    def test_every_candidate_has_a_label_and_an_answer(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """C labels, all different, and C answers."""
        _keep(instructions.check_labels, subject)

    def test_answers_are_in_the_order_of_the_candidates(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """Reversing the candidates reverses the answers."""
        _keep(instructions.check_order, subject)

    def test_every_label_and_answer_is_read_back(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """`parse` understands what `build` offers."""
        _keep(instructions.check_read_back, subject)

    @pytest.mark.parametrize("junk", instructions.JUNK)
    def test_junk_reads_as_nothing(
        self, junk: str, subject: instructions.InstructionSubject
    ) -> None:
        """What names no candidate gives no candidate."""
        instructions.check_junk(subject, junk)

    def test_parsed_positions_are_in_range_and_unique(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """A repeated name counts once."""
        _keep(instructions.check_positions, subject)

    def test_the_prompt_does_not_depend_on_the_target(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """The same query gives the same instruction, whatever the truth is."""
        _keep(instructions.check_repeats, subject)

    def test_the_prompt_does_not_depend_on_what_was_asked_before(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """A run that goes on after a crash asks the rest alone."""
        _keep(instructions.check_turns, subject)

    def test_queries_are_not_changed(self, subject: instructions.InstructionSubject) -> None:
        """Others read them too."""
        _keep(instructions.check_given, subject)

    def test_an_empty_history_and_a_single_candidate_are_asked(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """A cold user and a list of one are legal."""
        _keep(instructions.check_cold, subject)


class EncoderTests(_ComponentTests):
    """What every `Encoder` or `Describer` must keep; inherit and override `make`."""

    def make(self) -> Any:  # noqa: ANN401 - Encoder, Describer or both
        """Return a new encoder."""
        raise NotImplementedError

    @pytest.fixture
    def items(self, tmp_path: Path) -> Sequence[Item]:
        """Return toy items; the last three have no usable picture."""
        return toy_items(tmp_path / "pictures")

    @pytest.fixture
    def subject(self, items: Sequence[Item]) -> encoders.EncoderSubject:
        """Return what the checks look at."""
        return encoders.EncoderSubject(self.make, items)

    def test_it_encodes_or_describes_under_a_fingerprint(
        self, subject: encoders.EncoderSubject
    ) -> None:
        """Caches are kept by the fingerprint."""
        _keep(encoders.check_offers, subject)

    def test_vectors_are_finite_or_all_nan(self, subject: encoders.EncoderSubject) -> None:
        """(n, D), a row of NaN for an item that has nothing to encode."""
        _keep(encoders.check_vectors, subject)

    def test_a_row_depends_on_its_item_alone(self, subject: encoders.EncoderSubject) -> None:
        """Rows are cached one by one."""
        _keep(encoders.check_batch, subject)

    def test_items_without_a_usable_picture_have_nothing(
        self, subject: encoders.EncoderSubject, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No picture, a missing file, a torn one."""
        with caplog.at_level(logging.ERROR):
            _keep(encoders.check_without, subject)

    def test_a_row_depends_on_what_encodes_says(self, subject: encoders.EncoderSubject) -> None:
        """The same picture, or the same words, of another item."""
        _keep(encoders.check_reads, subject)

    def test_items_are_not_changed(self, subject: encoders.EncoderSubject) -> None:
        """Others read them too."""
        _keep(encoders.check_given, subject)

    def test_words_are_a_tuple_an_item(self, subject: encoders.EncoderSubject) -> None:
        """The same words whatever the neighbours."""
        _keep(encoders.check_words, subject)


class MetricTests(_ComponentTests):
    """What every `Metric` must keep; inherit and override `make`."""

    def make(self) -> Metric:
        """Return the metric."""
        raise NotImplementedError

    def outcomes(self, scores: Sequence[Sequence[float]]) -> Outcomes:
        """Rank toy scores (B, C) and return what a metric sees."""
        return toy_outcomes(scores)

    @pytest.fixture
    def subject(self) -> metrics.MetricSubject:
        """Return what the checks look at."""
        return metrics.MetricSubject(self.make, self.outcomes, _asked_by(self.make()))

    def test_it_says_its_name_and_which_way_is_better(self, subject: metrics.MetricSubject) -> None:
        """Tables sort by it."""
        _keep(metrics.check_says, subject)

    def test_value_is_the_mean_of_the_defined_cases(self, subject: metrics.MetricSubject) -> None:
        """The number in the table follows from the per-case values."""
        _keep(metrics.check_value, subject)

    def test_a_case_does_not_depend_on_others(self, subject: metrics.MetricSubject) -> None:
        """Intervals resample cases."""
        _keep(metrics.check_alone, subject)

    def test_expected_ties_lie_between_the_bounds(self, subject: metrics.MetricSubject) -> None:
        """The best and the worst order of equal scores."""
        _keep(metrics.check_ties, subject)

    def test_a_target_that_was_left_out_is_a_miss(self, subject: metrics.MetricSubject) -> None:
        """Leaving out what is hard raises no mean."""
        _keep(metrics.check_left_out, subject)

    def test_no_case_is_undefined(self, subject: metrics.MetricSubject) -> None:
        """NaN, never 0."""
        _keep(metrics.check_nothing, subject)

    def test_outcomes_are_not_changed(self, subject: metrics.MetricSubject) -> None:
        """A metric reads."""
        _keep(metrics.check_given, subject)

    def test_the_same_outcomes_have_the_same_value(self, subject: metrics.MetricSubject) -> None:
        """Nothing is drawn anew."""
        _keep(metrics.check_repeats, subject)
