"""P5 and VIP5 as recommenders: the contract, what they rank, what learns and what leaks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrec_bench.config import ProtocolConfig
from mmrec_bench.errors import ConfigError, ModelError, StorageError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.protocol import make_split
from mmrec_bench.testing import (
    RecommenderTests,
    toy_data,
    toy_split,
    toy_training_data,
    toy_vectors,
)
from mmrec_bench.types import Interactions, Queries, Ragged, RecData, Review
from mmrec_plugins.models.p5.network import Adapter, VIP5Network
from mmrec_plugins.models.p5.recommender import P5
from mmrec_plugins.models.p5.vip5 import VIP5

TINY: dict[str, Any] = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
QUICK: dict[str, Any] = {**TINY, "epochs": 1, "dropout_rate": 0.0}


def p5(**options: Any) -> P5:  # noqa: ANN401
    return P5(P5.Config(**{**QUICK, **options}))


def toy(tmp_path: Path, **changes: Any) -> TrainingData:  # noqa: ANN401
    tmp_path.mkdir(parents=True, exist_ok=True)
    return replace(toy_training_data(toy_split(), tmp_path), **changes)


def whole(queries: Queries) -> Queries:
    return Queries(queries.user, queries.history)


class TestP5(RecommenderTests):
    def make(self) -> P5:
        return p5(ranking="exact")


class TestP5ByTitles(RecommenderTests):
    def make(self) -> P5:
        return p5(ranking="exact", ids="title")


class TestVIP5(RecommenderTests):
    def make(self) -> VIP5:
        return VIP5(VIP5.Config(**QUICK, ranking="exact", ids="collaborative", cluster_size=4))


@pytest.mark.parametrize("ids", ["sequential", "random", "collaborative", "independent", "title"])
def test_enough_beams_find_every_item_with_its_exact_likelihood(ids: str, tmp_path: Path) -> None:
    data = toy(tmp_path)
    options = {"ids": ids, "cluster_size": 4, "n_clusters": 3}
    recommender = p5(**options, beams=24, exclude_seen=False)
    recommender.fit(data, seed=0)
    queries = whole(data.validation)
    found = recommender.score(queries).values
    exact = p5(**options, ranking="exact")
    (tmp_path / "saved").mkdir()
    recommender.save(tmp_path / "saved")
    exact.restore(tmp_path / "saved", data)
    np.testing.assert_allclose(found, exact.score(queries).values, rtol=1e-4)


def test_reviews_are_learnt_from_and_their_words_are_known_again(tmp_path: Path) -> None:
    data = toy(tmp_path)
    rows = data.interactions
    review = np.full(len(rows), None, np.object_)
    for n, item in enumerate(rows.item.tolist()):
        review[n] = Review(f"about {'abcdefgh'[item % 8]}", "Splendid stuff. Never again.")
    written = replace(data, interactions=replace(rows, review=review))
    families = {"sequential": 1.0, "review": 1.0, "explanation": 1.0}
    recommender = p5(families=families, epochs=6, learning_rate=0.01, patience=0)
    recommender.fit(written, seed=0)
    facts = recommender.facts()
    assert float(facts["training_loss_0006"]) < 0.8 * float(facts["training_loss_0001"])
    assert len(recommender._tokens.word("splendid")) == 1
    (tmp_path / "saved").mkdir()
    recommender.save(tmp_path / "saved")
    again = p5(families=families)
    again.restore(tmp_path / "saved", written)
    queries = whole(data.validation)
    np.testing.assert_array_equal(again.score(queries).values, recommender.score(queries).values)


def test_beams_rank_as_many_items_as_there_are_beams_and_none_that_was_seen(
    tmp_path: Path,
) -> None:
    data = toy(tmp_path)
    recommender = p5(beams=5)
    recommender.fit(data, seed=0)
    queries = whole(data.validation)
    ranked = ~np.isnan(recommender.score(queries).values)
    assert set(ranked.sum(axis=1)) == {5}
    seen = data.interactions.histories(data.n_users)
    assert not any(ranked[i][seen[int(user)]].any() for i, user in enumerate(queries.user))


def test_the_items_of_a_history_are_left_out_for_a_user_without_train_interactions(
    tmp_path: Path,
) -> None:
    data = toy(tmp_path)
    data = replace(data, n_users=data.n_users + 1)
    recommender = p5(beams=24)
    recommender.fit(data, seed=0)
    queries = Queries(np.array([data.n_users - 1], np.int32), Ragged.from_rows([[3, 7]]))
    (left_out,) = np.isnan(recommender.score(queries).values).nonzero()[1:]
    assert left_out.tolist() == [3, 7]


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    recommender = p5(epochs=8, evaluate_every=1, learning_rate=1e-2, patience=0)
    recommender.fit(toy(tmp_path), seed=0)
    facts = recommender.facts()
    assert float(facts["training_loss_0008"]) < 0.8 * float(facts["training_loss_0001"])


def test_a_killed_fit_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 3, "checkpoint_seconds": 0.0, "dropout_rate": 0.1}
    straight = p5(**options)
    straight.fit(toy(tmp_path / "a"), seed=0)

    data = toy(tmp_path / "b")
    killed = p5(**options)
    whole_loss, calls = P5.loss, 0

    def dies(self: P5, batch: Any) -> torch.Tensor:  # noqa: ANN401
        nonlocal calls
        calls += 1
        if calls > 2 * self.n_batches():
            raise KeyboardInterrupt
        return whole_loss(self, batch)

    monkeypatch.setattr(P5, "loss", dies)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(data, seed=0)
    monkeypatch.setattr(P5, "loss", whole_loss)
    resumed = p5(**options)
    resumed.fit(data, seed=0)
    for name, value in straight.module.state_dict().items():
        torch.testing.assert_close(resumed.module.state_dict()[name], value, rtol=0, atol=0)


def test_validation_is_on_the_first_cases_where_they_are_bounded(tmp_path: Path) -> None:
    data = toy(tmp_path)
    bounded = p5(validation_cases=7, ranking="exact")
    bounded.fit(data, seed=0)
    expected = data.validate(bounded.score(data.validation[:7]))
    assert bounded.facts()["training_ndcg_0001"] == pytest.approx(expected)


def test_an_unseen_wording_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are 4 wordings"):
        p5(ranking_prompt=9).fit(toy(tmp_path), seed=0)


def test_codes_of_another_catalog_are_refused(tmp_path: Path) -> None:
    data = toy(tmp_path)
    recommender = p5()
    recommender.fit(data, seed=0)
    recommender.save(tmp_path)
    smaller = replace(data, catalog=data.catalog.take(np.arange(5)))
    with pytest.raises(StorageError, match="no codes of 5 items"):
        p5().restore(tmp_path, smaller)


class TestVisualTokens:
    @pytest.fixture
    def data(self, tmp_path: Path) -> TrainingData:
        split = toy_split()
        return toy(tmp_path, modalities={"image": toy_vectors(split.catalog)})

    def fitted(self, data: TrainingData, **options: Any) -> VIP5:  # noqa: ANN401
        recommender = VIP5(VIP5.Config(**{**QUICK, **options}))
        recommender.fit(data, seed=0)
        return recommender

    def test_a_picture_of_the_history_changes_the_scores(self, data: TrainingData) -> None:
        recommender = self.fitted(data)
        network = recommender.module
        assert isinstance(network, VIP5Network)
        candidates = np.arange(data.n_items, dtype=np.int32)[None]
        query = Queries(np.array([0], np.int32), Ragged.from_rows([[1, 2]]), candidates)
        before = recommender.score(query).values
        network.vectors[3] += 1.0
        np.testing.assert_array_equal(recommender.score(query).values, before)
        network.vectors[2] += 1.0
        assert np.abs(recommender.score(query).values - before).max() > 1e-4

    def test_the_places_of_a_picture_hold_its_tokens_in_order(self, data: TrainingData) -> None:
        recommender = self.fitted(data, whole_words=False)
        network = recommender.module
        assert isinstance(network, VIP5Network)
        source = recommender._writer.write(recommender._prompt, 0, {"history": [2, 1, 2]})
        padded = recommender._padded([source])
        with torch.no_grad():
            embedded = network.embed(padded)[0]
            for item in (1, 2):
                tokens = network.mapping(network.vectors[item]).view(2, -1)
                wanted = tokens + network.categories.weight[1]
                places = np.flatnonzero(np.array(source.pictures) == item).reshape(-1, 2)
                assert len(places) == (1 if item == 1 else 2)
                for pair in places:
                    torch.testing.assert_close(embedded[pair.tolist()], wanted)

    def test_an_item_without_a_picture_has_no_visual_token(self, data: TrainingData) -> None:
        recommender = self.fitted(data)
        assert np.isnan(data.modalities["image"][8]).all()
        write, prompt = recommender._writer.write, recommender._prompt
        with_picture = write(prompt, 0, {"history": [7]})
        without = write(prompt, 0, {"history": [8]})
        assert with_picture.pictures.count(7) == 2
        assert set(without.pictures) == {-1}

    def test_only_adapters_pictures_and_words_learn_where_asked(self, data: TrainingData) -> None:
        recommender = self.fitted(data, tune="adapters", tune_embeddings=False, tune_norms=False)
        learning = {n for n, v in recommender.module.named_parameters() if v.requires_grad}
        kinds = ("down.", "up.", "mapping.", "words.", "categories.")
        assert all(any(kind in name for kind in kinds) for name in learning)
        assert all(any(kind in name for name in learning) for kind in kinds)
        facts = recommender.facts()
        assert float(facts["n_tuned_parameters"]) < float(facts["n_parameters"])

    def test_frozen_weights_stay_as_they_were_drawn(self, data: TrainingData) -> None:
        options = {"tune": "adapters", "tune_embeddings": False, "tune_norms": False}
        short = self.fitted(data, **options)
        long = self.fitted(data, **options, epochs=2, evaluate_every=2)
        first, second = (dict(one.module.named_parameters()) for one in (short, long))
        frozen = {name for name, value in first.items() if not value.requires_grad}
        assert all(torch.equal(first[name], second[name]) for name in frozen)
        assert not all(torch.equal(first[name], second[name]) for name in set(first) - frozen)

    def test_all_learns_from_random_weights(self, data: TrainingData) -> None:
        recommender = self.fitted(data)
        assert all(value.requires_grad for value in recommender.module.parameters())

    def test_no_vectors_are_one_clear_line(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"vectors\.name"):
            VIP5(VIP5.Config(**QUICK)).fit(toy(tmp_path), seed=0)


def test_an_adapter_is_nothing_before_training_and_a_bottleneck_after() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(6, 8, bias=False)
    adapter = Adapter(linear, 4)
    states = torch.randn(3, 6)
    torch.testing.assert_close(adapter(states), linear(states))
    torch.nn.init.normal_(adapter.up.weight)
    found = linear(states)
    hidden = torch.nn.functional.gelu(found @ adapter.down.weight.T + adapter.down.bias)
    assert hidden.shape == (3, 2)
    wanted = found + hidden @ adapter.up.weight.T + adapter.up.bias
    torch.testing.assert_close(adapter(states), wanted)


def numbers_by_id(data: RecData, folder: Path, *, permute_ids: bool) -> dict[str, str]:
    """Return what each item is called with the catalog's own numbers."""
    config = ProtocolConfig(k_core=2, n_candidates=6, permute_ids=permute_ids)
    folder.mkdir()
    training = toy_training_data(make_split(data, config), folder, config=config)
    recommender = p5(numbering="catalog")
    recommender.fit(training, seed=0)
    decode = recommender._tokens.tokenizer.decode
    names = [str(decode(code)) for code in recommender._codes]
    return dict(zip(training.catalog.items.ids, names, strict=True))


def renumbered(data: RecData) -> RecData:
    """Return the same users, items and interactions from a file in another order."""
    rng = np.random.default_rng(5)
    users, items = rng.permutation(len(data.users)), rng.permutation(len(data.catalog))
    rows = data.interactions
    return replace(
        data,
        users=data.users.take(users),
        catalog=data.catalog.take(items),
        interactions=Interactions.build(
            np.argsort(users)[rows.user], np.argsort(items)[rows.item], rows.timestamp, rows.rating
        ),
    )


def test_permuted_numbers_do_not_depend_on_the_files_own(tmp_path: Path) -> None:
    data = toy_data()
    found = numbers_by_id(data, tmp_path / "one", permute_ids=True)
    assert found == numbers_by_id(renumbered(data), tmp_path / "other", permute_ids=True)
    # The numbers of the file itself do.
    own = numbers_by_id(data, tmp_path / "own", permute_ids=False)
    assert own != numbers_by_id(renumbered(data), tmp_path / "again", permute_ids=False)
    assert list(own.values()) == [str(item) for item in range(len(own))]
