from typing import Any

import pytest

from mmrec_bench.errors import ConfigError
from mmrec_plugins.instructions.building.jobs import Made, Rejected, work
from mmrec_plugins.instructions.corpus import Kind
from tests.plugins.instructions.building.making import Saying, make_data, make_workshop


def run(
    kind: Kind,
    teacher: Saying | None = None,
    **options: Any,  # noqa: ANN401 - options of several types
) -> list[Made | Rejected]:
    workshop = make_workshop(make_data(), teacher, **options)
    jobs = workshop.jobs(kind)
    return work(jobs, workshop.teacher.write, at_once=5, on_done=lambda: None)


@pytest.mark.parametrize("kind", ["zero-shot", "few-shot"])
def test_the_answer_names_the_true_next_item_by_label_and_title(kind: Kind) -> None:
    teacher = Saying(lambda _: "")
    for made in run(kind, teacher):
        assert isinstance(made, Made)
        entry = made.entry
        assert entry.target is not None
        place = entry.candidates.index(entry.target)
        label, _, title = entry.answer.partition(". ")
        assert label == "ABCDE"[place]
        assert f"{label}. {title}" in made.source
        assert "Answer with its label and title." in made.source
        assert entry.teacher == "interactions"
    assert not teacher.asked


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("answer", ["label", "title", "both"])
def test_demonstrations_answer_as_the_question_asks(answer: str, language: str) -> None:
    for made in run("few-shot", answer=answer, language=language):
        assert isinstance(made, Made)
        turns = made.entry.turns
        assert [turn.role for turn in turns] == ["user", "assistant"] * 4 + ["user"]
        for question, reply in zip(turns[:-1:2], turns[1::2], strict=True):
            text = "".join(part.text or "" for part in question.parts)
            said = reply.parts[0].text or ""
            assert ("Zyx" in said) == (answer != "label")
            assert said in text
            assert text.rsplit("\n", 1)[-1] == made.source.rsplit("\n", 1)[-1]
        assert ("Zyx" in made.entry.answer) == (answer != "label")


def test_demonstrations_are_of_other_users_and_their_items_are_named() -> None:
    for made in run("few-shot"):
        assert isinstance(made, Made)
        assert made.entry.demonstrated
        assert len(made.entry.turns) > 1


def test_wordings_and_intentions_differ_between_users() -> None:
    templates = {made.entry.template for made in run("zero-shot") if isinstance(made, Made)}
    assert len(templates) >= 4
    assert any("vague" in name for name in templates)
    assert any("specific" in name for name in templates)


def test_a_distilled_ranking_puts_the_true_item_first_and_counts_agreement() -> None:
    results = run("zero-shot", Saying(lambda _: "B, A, D"), distil=True, per_user=9)
    made = [one for one in results if isinstance(one, Made)]
    assert made
    for one in made:
        entry = one.entry
        assert entry.value["ranking"][0] == entry.target
        labels = entry.answer.split(", ")
        assert [entry.candidates["ABCDE".index(label)] for label in labels] == entry.value[
            "ranking"
        ]
        second = entry.candidates[1]
        assert entry.value["teacher_agrees"] == (entry.target == second)
        assert entry.teacher == "test"
    assert 0 < sum(one.entry.value["teacher_agrees"] for one in made) < len(made)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("", "empty"), ("the nicest one", "no candidate named"), ("I'm sorry, no.", "refused")],
)
def test_a_ranking_that_names_nothing_is_rejected(answer: str, reason: str) -> None:
    results = run("zero-shot", Saying(lambda _: answer), distil=True)
    assert {one.reason for one in results if isinstance(one, Rejected)} == {reason}


def test_two_candidates_are_compared_where_asked_for() -> None:
    for made in run("zero-shot", instructions={"form": "pairwise"}):
        assert isinstance(made, Made)
        assert len(made.entry.candidates) == 2


def test_a_form_whose_answer_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"instructions\.form=ranking with building\.distil"):
        run("zero-shot", instructions={"form": "ranking"})
