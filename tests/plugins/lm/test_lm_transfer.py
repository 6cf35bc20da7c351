from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData, Transfers
from mmrec_bench.types import Catalog, Example, Vocabulary
from mmrec_plugins.models.lm.presets import LanguageModelConfig
from mmrec_plugins.models.lm.recommender import LanguageModelRecommender
from tests.plugins.lm.tiny import TITLES, Shop, training_data

pytestmark = pytest.mark.usefixtures("one_thread")


def make(backbone: Path) -> LanguageModelRecommender:
    options = {"max_length": 400, "pre_seq_len": 4, "learning_rate": 0.1, "max_steps": 4}
    return LanguageModelRecommender(
        LanguageModelConfig.model_validate({"backbone": str(backbone), **options})
    )


def other_shop(scratch: Path) -> TrainingData:
    """The same things under other numbers: another catalog."""
    turned = TITLES[::-1]
    catalog = Catalog(Vocabulary([f"other-{n}" for n in range(len(turned))]), turned)
    return replace(training_data(scratch), catalog=catalog, n_examples=0, examples=nothing)


def nothing(epoch: int) -> Iterator[Example]:
    del epoch
    raise AssertionError("a transfer learns nothing from the target")


def test_a_tuned_model_ranks_another_catalog_with_the_same_adapter(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    model = make(tiny_backbone)
    assert isinstance(model, Transfers)
    model.fit(training_data(tmp_path / "source"), seed=1)
    queries, _ = Shop().queries(5)
    at_home = model.score(queries).values
    model.transfer(other_shop(tmp_path / "target"))
    abroad = model.score(queries).values
    assert not np.allclose(abroad, at_home)
    assert queries.candidates is not None
    turned = replace(
        queries,
        history=replace(queries.history, values=19 - queries.history.values),
        candidates=(19 - queries.candidates).astype(np.int32),
    )
    np.testing.assert_array_equal(model.score(turned).values, at_home)


def test_restored_and_transferred_it_scores_as_fitted_and_transferred(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    source, target = training_data(tmp_path / "source"), other_shop(tmp_path / "target")
    queries, _ = Shop().queries(5)
    model, again = make(tiny_backbone), make(tiny_backbone)
    model.fit(source, seed=1)
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model")
    again.restore(tmp_path / "model", source)
    for one in (model, again):
        one.transfer(target)
    np.testing.assert_array_equal(again.score(queries).values, model.score(queries).values)


def test_a_model_that_learned_nothing_cannot_transfer(tiny_backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither fitted nor restored"):
        make(tiny_backbone).transfer(training_data(tmp_path))
