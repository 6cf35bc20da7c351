"""Wordings, tokens, and the examples drawn for training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.testing import toy_split, toy_training_data
from mmrec_bench.types import HeldOut, Interactions, Review
from mmrec_plugins.models.p5.examples import Examples, Task
from mmrec_plugins.models.p5.options import FAMILIES, P5Config
from mmrec_plugins.models.p5.prompts import Prompt, Writer, next_item_prompts, read_prompts
from mmrec_plugins.models.p5.tokens import Tokens, make_tokens


@pytest.fixture
def tokens() -> Tokens:
    return make_tokens(["user_ took what next ?", "nothing"])


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    return toy_training_data(toy_split(), tmp_path)


def text(tokens: Tokens, ids: list[int]) -> list[str]:
    return list(tokens.tokenizer.convert_ids_to_tokens(ids))


class TestTokens:
    def test_numbers_are_pairs_of_digits(self, tokens: Tokens) -> None:
        assert text(tokens, tokens.number(12345)) == ["12", "##34", "##5"]

    def test_what_is_not_known_is_spelt(self, tokens: Tokens) -> None:
        assert text(tokens, tokens.word("tow")) == ["t", "##o", "##w"]

    def test_a_letter_that_was_never_seen_is_unknown(self, tokens: Tokens) -> None:
        assert text(tokens, tokens.word("ß")) == ["<unk>"]

    def test_the_same_texts_give_the_same_vocabulary(self) -> None:
        first, second = (make_tokens(["b a", "a c"]) for _ in range(2))
        assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()

    def test_the_most_frequent_words_are_kept_where_there_are_too_many(self) -> None:
        known = make_tokens(["aa bb", "bb"], size=3 + 2 * 112 + 1).tokenizer.get_vocab()
        assert "bb" in known
        assert "aa" not in known

    def test_saved_tokens_come_back(self, tokens: Tokens, tmp_path: Path) -> None:
        (new,) = tokens.add(["<item_0>"])
        tokens.save(tmp_path)
        again = Tokens.load(tmp_path)
        assert again.word("user_12") == tokens.word("user_12")
        assert again.tokenizer.convert_tokens_to_ids("<item_0>") == new
        assert (again.pad, again.end, len(again)) == (tokens.pad, tokens.end, len(tokens))

    def test_a_torn_file_is_one_clear_line(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{")
        with pytest.raises(ModelError, match="cannot be read as a tokenizer"):
            Tokens.load(tmp_path)


class TestWriter:
    prompt = Prompt("sequential", "user_{user} took {history} what next ?", "target")

    def test_an_item_is_one_word_whatever_its_tokens(self, tokens: Tokens) -> None:
        codes = [tokens.number(7), tokens.number(1234)]
        source = Writer(tokens, codes).write(self.prompt, 5, {"history": [1, 0]})
        wanted = ["user", "_", "5", "took", "12", "##34", "7", "what", "next", "?", "</s>"]
        assert text(tokens, source.ids) == wanted
        assert source.words == [1, 1, 1, 2, 3, 3, 4, 5, 6, 7, 0]

    def test_an_empty_history_says_nothing(self, tokens: Tokens) -> None:
        source = Writer(tokens, [[9]]).write(self.prompt, 5, {"history": []})
        assert text(tokens, source.ids)[3:6] == ["took", "nothing", "what"]
        assert source.words == [1, 1, 1, 2, 3, 4, 5, 6, 0]

    def test_a_slot_after_a_space_is_a_word_of_its_own(self, tokens: Tokens) -> None:
        prompt = Prompt("direct", "what {user} took", "target")
        source = Writer(tokens, []).write(prompt, 312, {})
        assert text(tokens, source.ids) == ["what", "31", "##2", "took", "</s>"]
        assert source.words == [1, 2, 2, 3, 0]

    def test_visual_tokens_stand_behind_their_item_in_its_word(self, tokens: Tokens) -> None:
        codes = [tokens.number(7), tokens.number(1234)]
        writer = Writer(tokens, codes, [True, False], 2)
        source = writer.write(self.prompt, 5, {"history": [0, 1]})
        assert source.pictures == [-1] * 4 + [-1, 0, 0] + [-1, -1] + [-1] * 4
        assert source.words == [1, 1, 1, 2, 3, 3, 3, 4, 4, 5, 6, 7, 0]

    def test_each_word_of_a_review_is_a_word(self, tokens: Tokens) -> None:
        prompt = Prompt("review", "user_{user} took {written} ?", "stars")
        source = Writer(tokens, []).write(prompt, 5, {}, {"written": "what next"})
        assert text(tokens, source.ids) == ["user", "_", "5", "took", "what", "next", "?", "</s>"]
        assert source.words == [1, 1, 1, 2, 3, 4, 5, 0]

    def test_a_text_is_cut_to_whole_words_and_a_long_first_word_to_tokens(
        self, tokens: Tokens
    ) -> None:
        writer = Writer(tokens, [], longest=3)
        assert text(tokens, writer.answer("took no next")) == ["took", "n", "##o", "</s>"]
        assert text(tokens, writer.answer("took next own")) == ["took", "next", "</s>"]
        assert text(tokens, writer.answer("owns next")) == ["o", "##w", "##n", "</s>"]
        assert text(tokens, writer.answer("")) == ["</s>"]


def test_every_family_has_several_wordings_and_next_items_come_without_a_list() -> None:
    prompts = read_prompts()
    for family in FAMILIES:
        assert sum(prompt.family == family for prompt in prompts) >= 3
    assert len(next_item_prompts()) >= 3
    assert all(prompt.slots <= {"user", "history"} for prompt in next_item_prompts())


class TestExamples:
    def tasks(self, data: TrainingData, **options: Any) -> list[Task]:  # noqa: ANN401
        examples = Examples(data, P5Config(n_candidates=4, **options))
        drawn = [task for block in examples.draw(np.random.default_rng(0), 16) for task in block]
        assert len(drawn) == len(examples)
        return drawn

    def test_every_train_interaction_is_asked_for_once(self, data: TrainingData) -> None:
        rows = data.interactions
        asked = sorted((task.user, task.target) for task in self.tasks(data))
        assert asked == sorted(zip(rows.user.tolist(), rows.item.tolist(), strict=True))

    def test_histories_are_what_came_before_and_no_more(self, data: TrainingData) -> None:
        taken = data.interactions.histories(data.n_users)
        for task in self.tasks(data, history_length=3):
            row = taken[task.user].tolist()
            before = row[: row.index(task.target)][-3:]
            assert task.items.get("history", before) == before

    def test_first_interactions_are_left_out_where_all_families_need_a_history(
        self, data: TrainingData
    ) -> None:
        tasks = self.tasks(data, families={"sequential": 1.0})
        assert len(tasks) == len(data.interactions) - len(np.unique(data.interactions.user))
        assert all(task.items["history"] for task in tasks)

    def test_candidates_hold_the_target_and_items_that_were_not_taken(
        self, data: TrainingData
    ) -> None:
        taken = data.interactions.histories(data.n_users)
        tasks = [task for task in self.tasks(data) if "candidates" in task.items]
        assert tasks
        places = set()
        for task in tasks:
            listed = task.items["candidates"]
            places.add(listed.index(task.target))
            assert len(set(listed)) == 4
            assert not set(listed) - {task.target} & set(taken[task.user].tolist())
        assert places == {0, 1, 2, 3}

    def test_the_judged_item_is_the_target_where_the_verdict_is_yes(
        self, data: TrainingData
    ) -> None:
        judged = [task for task in self.tasks(data) if "judged" in task.items]
        assert {task.verdict for task in judged} == {True, False}
        assert all((task.items["judged"] == [task.target]) == task.verdict for task in judged)

    def test_held_out_items_are_no_negatives(self, data: TrainingData) -> None:
        kept = np.unique(data.interactions.item)[:12]
        out = np.setdiff1d(np.arange(data.n_items), kept).astype(np.int32)
        rows = data.interactions.take(np.isin(data.interactions.item, kept))
        held_out = HeldOut(np.zeros(0, np.int32), out, "x")
        for task in self.tasks(replace(data, interactions=rows, held_out=held_out)):
            assert not set(out.tolist()) & {i for items in task.items.values() for i in items}

    def test_shares_decide_how_often_a_family_is_asked(self, data: TrainingData) -> None:
        tasks = self.tasks(data, families={"sequential": 3.0, "direct": 1.0})
        later = [t for t in tasks if "history" in t.items or t.prompt.family == "direct"]
        share = np.mean([task.prompt.family == "sequential" for task in later])
        # Three of four, but for users' first interactions, which are always asked directly.
        n, users = len(data.interactions), len(np.unique(data.interactions.user))
        assert share == pytest.approx(0.75 * (n - users) / n, abs=0.1)

    def test_ratings_are_asked_for_where_there_are_some(
        self, data: TrainingData, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", logger="mmrec_bench")
        assert not [t for t in self.tasks(data) if t.prompt.family == "rating"]
        assert "the data set has no ratings" in caplog.text
        assert "family review is left out: the data set has no reviews" in caplog.text
        assert "family explanation is left out" in caplog.text
        rows = data.interactions
        stars = (1 + np.arange(len(rows)) % 5).astype(np.float32)
        rated = replace(
            data, interactions=Interactions(rows.user, rows.item, rows.timestamp, stars)
        )
        tasks = [t for t in self.tasks(rated) if t.prompt.family == "rating"]
        assert {task.rating for task in tasks} == {1.0, 2.0, 3.0, 4.0, 5.0}

    def test_reviews_are_asked_for_where_there_are_some(self, data: TrainingData) -> None:
        rows = data.interactions
        review = np.full(len(rows), None, np.object_)
        for n in range(0, len(rows), 2):
            review[n] = Review(f"title {n}", f"Good {n}. More.")
        written = replace(data, interactions=replace(rows, review=review))
        families = {"review": 1.0, "explanation": 1.0}
        tasks = self.tasks(written, families=families)
        assert len(tasks) == len(review[::2])
        place = {(u, i): n for n, (u, i) in enumerate(zip(rows.user, rows.item, strict=True))}
        for task in tasks:
            n = place[task.user, task.target]
            assert task.review == Review(f"title {n}", f"Good {n}. More.")
            assert task.texts["written"] == f"Good {n}. More."
            assert task.explanation == f"Good {n}."
        assert {task.prompt.family for task in tasks} == set(families)

    def test_interactions_without_a_review_are_asked_in_other_families(
        self, data: TrainingData
    ) -> None:
        rows = data.interactions
        review = np.full(len(rows), None, np.object_)
        review[0] = Review("title", "text")
        review[1] = Review("", "no title")
        written = replace(data, interactions=replace(rows, review=review))
        tasks = self.tasks(written, families={"direct": 1.0, "review": 1e6})
        assert len(tasks) == len(rows)
        assert sum(task.prompt.family == "review" for task in tasks) == 1

    def test_nothing_to_ask_is_one_clear_line(self, data: TrainingData) -> None:
        with pytest.raises(ModelError, match="nothing to learn from"):
            Examples(data, P5Config(families={"rating": 1.0}))

    def test_an_unknown_family_is_named(self) -> None:
        with pytest.raises(ValueError, match="did you mean 'direct'"):
            P5Config(families={"driect": 1.0})
