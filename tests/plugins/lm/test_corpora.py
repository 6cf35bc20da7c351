import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrec_bench.config import build_config, identity
from mmrec_bench.errors import ConfigError, DataFormatError, ModelError
from mmrec_bench.types import HeldOut, Image, Interactions, Text, Vocabulary
from mmrec_plugins.instructions.corpus import CorpusEntry, Part, Turn
from mmrec_plugins.models.lm import corpora
from mmrec_plugins.models.lm.presets import LanguageModelConfig
from mmrec_plugins.models.lm.recommender import LanguageModelRecommender
from tests.plugins.lm.entries import ANSWERS, entries, entry, shop_data, write
from tests.plugins.lm.tiny import catalog


def config(path: Path, **options: object) -> LanguageModelConfig:
    return LanguageModelConfig.model_validate({"corpus": path, **options})


def kept(tmp_path: Path, rows: list[CorpusEntry], **options: object) -> corpora.Corpus:
    return corpora.load(config(write(tmp_path, rows), **options), shop_data(tmp_path))


def test_without_a_corpus_there_is_no_mix() -> None:
    assert corpora.resolve_mix(LanguageModelConfig()) is None


def test_without_weights_most_is_ranking_and_the_kinds_that_are_there_share_the_rest(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, entries(("profile", "few-shot")))
    assert corpora.resolve_mix(config(path)) == {
        "ranking": 0.8,
        "profile": pytest.approx(0.1),
        "few-shot": pytest.approx(0.1),
    }


def test_weights_are_kept_as_given_in_one_order_and_without_zeros(tmp_path: Path) -> None:
    mix = {"few-shot": 1, "profile": 0, "ranking": 3}
    weights = corpora.resolve_mix(config(write(tmp_path), mix=mix))
    assert weights is not None
    assert list(weights.items()) == [("ranking", 3.0), ("few-shot", 1.0)]


def test_resolving_a_mix_twice_changes_nothing(tiny_backbone: Path, tmp_path: Path) -> None:
    asked = config(write(tmp_path), backbone=str(tiny_backbone))
    once, _ = LanguageModelRecommender.resolve(asked, device="cpu")
    twice, _ = LanguageModelRecommender.resolve(once, device="cpu")
    assert once.mix is not None
    assert twice == once


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": {"ranking": 1, "attributes": 0.1}}, r"attributes the weight 0\.1.*profile: 12"),
        ({"mix": {"ranking": 0}}, "no kind a weight above 0"),
        ({"adapter": "none"}, r"model\.adapter=none tunes nothing"),
    ],
)
def test_a_mix_that_cannot_be_is_one_clear_line(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        corpora.resolve_mix(config(write(tmp_path, entries(("profile",))), **options))


def test_weights_without_a_corpus_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"ranking, profile, but there is no model\.corpus"):
        corpora.resolve_mix(LanguageModelConfig(mix={"ranking": 1, "profile": 1}))
    assert corpora.resolve_mix(LanguageModelConfig(mix={"ranking": 1})) is None


@pytest.mark.parametrize("mix", [{"profiles": 1.0}, {"profile": -1.0}])
def test_unknown_kinds_and_weights_below_zero_are_refused(mix: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"model\.mix"):
        build_config(LanguageModelConfig, {"mix": mix}, "model")


def test_the_contents_are_in_the_identity_and_the_paths_are_not(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    rows = entries()
    write(tmp_path / "a", rows)
    write(tmp_path / "b", rows[:10]).rename(tmp_path / "b" / "z.jsonl")
    write(tmp_path / "b", rows[10:])
    whole = config(tmp_path / "a", backbone=str(tiny_backbone))
    parts = config(tmp_path / "b", backbone=str(tiny_backbone))
    (tmp_path / "c").mkdir()
    moved = whole.model_copy(update={"corpus": (write(tmp_path / "c", rows),)})
    mark = LanguageModelRecommender.fingerprint
    assert mark(whole) == mark(moved)
    assert mark(whole) != mark(parts)
    assert mark(whole).startswith(mark(whole.model_copy(update={"corpus": ()})))
    assert identity(whole) == identity(moved)


def test_runs_without_a_corpus_keep_the_identity_that_they_had() -> None:
    assert not {"corpus", "mix", "other_corpus"} & identity(LanguageModelConfig()).keys()
    assert identity(LanguageModelConfig(mix={"profile": 1}))["mix"] == {"profile": 1.0}


@pytest.mark.parametrize("name", ["nothing.jsonl", "empty"])
def test_a_corpus_that_is_not_there_is_one_clear_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFormatError, match=r"instructions build, or correct model\.corpus"):
        corpora.corpus_files([tmp_path / name])


def test_a_folder_stands_for_its_kinds_files_whatever_lies_beside_them(tmp_path: Path) -> None:
    write(tmp_path).rename(tmp_path / "profile.jsonl")
    (tmp_path / "answers.jsonl").write_text("{}\n")
    assert corpora.corpus_files([tmp_path]) == [tmp_path / "profile.jsonl"]


def test_a_line_that_is_no_entry_names_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + '{"kind": "poem"}\n')
    with pytest.raises(DataFormatError, match=r"corpus\.jsonl, line 65: kind"):
        corpora.resolve_mix(config(path))


def test_an_entry_in_two_files_counts_once(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    paths = (write(tmp_path), write(tmp_path / "other"))
    corpus = corpora.load(LanguageModelConfig(corpus=paths), shop_data(tmp_path))
    assert {kind: len(rows) for kind, rows in corpus.train.items()} == dict.fromkeys(ANSWERS, 12)
    assert {kind: len(rows) for kind, rows in corpus.validation.items()} == dict.fromkeys(
        ANSWERS, 4
    )


def test_what_is_asked_in_train_and_validation_stays_in_train_alone(tmp_path: Path) -> None:
    twins = [entry("profile", 1, split=split) for split in ("validation", "train")]
    corpus = kept(tmp_path, twins)
    assert corpus.train["profile"] == [twins[1]]
    assert not corpus.validation


def test_entries_within_the_train_interactions_are_all_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert kept(tmp_path, entries()).n_refused == 0
    assert not caplog.records


@pytest.mark.parametrize(
    ("leak", "reason"),
    [
        (entry("profile", 1, items=("i0", "i7")), "1 show or target items that are no train"),
        (entry("zero-shot", 1, target="i7"), "1 show or target items that are no train"),
        (entry("profile", 1, user="u9"), "1 are of users that this run does not train on"),
        (entry("attributes", 1, items=("i7",)), "1 describe items without train interactions"),
        (entry("few-shot", 1, demonstrated=("i7",)), "1 demonstrate items without train"),
        (entry("profile", 1, items=("i0", "gone")), "1 show or target items that are no train"),
    ],
)
def test_an_entry_that_shows_more_than_train_is_left_out_and_told(
    leak: CorpusEntry, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = kept(tmp_path, [*entries(), leak.model_copy(update={"answer": "a leak"})])
    assert corpus.n_refused == 1
    assert reason in caplog.text
    rows = [*corpus.train[leak.kind], *corpus.validation[leak.kind]]
    assert "a leak" not in {row.answer for row in rows}


def test_candidates_may_be_anything(tmp_path: Path) -> None:
    row = entry("zero-shot", 1, candidates=("i1", "i7", "i9"))
    assert kept(tmp_path, [row]).train["zero-shot"] == [row]


def test_entries_that_list_items_which_the_run_holds_out_are_left_out(tmp_path: Path) -> None:
    seven = np.array([7], np.int32)
    data = replace(shop_data(tmp_path), held_out=HeldOut(seven[:0], seven, "hash"))
    check = corpora.LeakCheck(data)
    assert check.admits(entry("zero-shot", 1, candidates=("i1", "i9")))
    assert not check.admits(entry("zero-shot", 1, candidates=("i1", "i7", "i9")))


def test_a_corpus_of_another_split_that_leaves_nothing_of_a_kind_is_an_error(
    tmp_path: Path,
) -> None:
    data = shop_data(tmp_path)
    fewer = Interactions.build(np.zeros(1, np.int32), np.zeros(1, np.int32))
    path = write(tmp_path, entries(("zero-shot",)))
    with pytest.raises(ConfigError, match="no usable train entry of that kind"):
        corpora.load(config(path), replace(data, interactions=fewer))


@pytest.mark.parametrize("changes", [{"dataset": "mall"}, {"dataset_version": "v2"}])
def test_a_corpus_of_another_data_set_or_version_is_refused_unless_allowed(
    changes: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row.model_copy(update=changes) for row in entries()]
    name = changes.get("dataset", "shop")
    with pytest.raises(ModelError, match=rf"built from {name} v.*this run tunes on shop v1"):
        kept(tmp_path, rows)
    assert kept(tmp_path, rows, other_corpus=True).n_refused == 0
    assert f"built from {name}" in caplog.text


def test_a_corpus_of_the_data_set_that_is_tested_on_after_tuning_elsewhere_is_refused(
    tmp_path: Path,
) -> None:
    rows = [row.model_copy(update={"dataset": "mall"}) for row in entries()]
    data = replace(shop_data(tmp_path), tested_on="mall")
    with pytest.raises(ModelError, match="entries of mall, which this run is tested on"):
        corpora.load(config(write(tmp_path, rows), other_corpus=True), data)


def test_another_version_of_this_data_set_is_still_checked_for_leaks(tmp_path: Path) -> None:
    rows = [row.model_copy(update={"dataset_version": "v2"}) for row in entries()]
    rows.append(rows[1].model_copy(update={"user": "u9"}))
    assert kept(tmp_path, rows, other_corpus=True).n_refused == 1


def test_another_data_sets_users_are_others(tmp_path: Path) -> None:
    rows = [
        row.model_copy(update={"dataset": "mall", "user": "u9", "items": ("x1",)})
        for row in entries()
    ]
    assert kept(tmp_path, rows, other_corpus=True).n_refused == 0


def test_turns_become_messages_with_the_pictures_that_are_here() -> None:
    shop = catalog()
    shop = replace(shop, images=[(Path(f"{n}.jpg"),) if n < 2 else () for n in range(len(shop))])
    parts = (Part(text="See "), Part(image="i1"), Part(image="i5"), Part(image="gone"))
    turns = (
        Turn(role="user", parts=(*parts, Part(text="this."))),
        Turn(role="assistant", parts=(Part(text="I do."),)),
    )
    first, second = corpora.messages_of(turns, shop, pictures=True)
    assert first.parts == (Text("See "), Image(Path("1.jpg"), 1), Text("this."))
    assert first.text == "See this."
    assert (second.role, second.text) == ("assistant", "I do.")
    [blind, _] = corpora.messages_of(turns, shop, pictures=False)
    assert blind.parts == (Text("See "), Text("this."))


def test_users_are_told_by_the_data_sets_own_ids(tmp_path: Path) -> None:
    data = shop_data(tmp_path)
    two = replace(
        data,
        n_users=2,
        users=Vocabulary(["u7", "u0"]),
        interactions=Interactions.build(
            np.array([0, 1, 1, 1], np.int32), np.array([9, 0, 1, 2], np.int32)
        ),
    )
    check = corpora.LeakCheck(two)
    assert check.admits(entry("profile", user="u0", items=("i0", "i2")))
    assert check.admits(entry("profile", user="u7", items=("i9",)))
    assert not check.admits(entry("profile", user="u7", items=("i0",)))


def test_a_single_path_is_accepted_and_survives_json(tmp_path: Path) -> None:
    asked = build_config(LanguageModelConfig, {"corpus": str(tmp_path)}, "model")
    assert asked.corpus == (tmp_path,)
    assert LanguageModelConfig(**json.loads(asked.model_dump_json())) == asked
