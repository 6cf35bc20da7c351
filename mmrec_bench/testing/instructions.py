"""Tests of an `InstructionBuilder`."""

import pytest

from mmrec_bench.contract import instructions
from mmrec_bench.contract.toys import toy_split
from mmrec_bench.interfaces import InstructionBuilder
from mmrec_bench.testing.components import ComponentTests, keep
from mmrec_bench.types import Split


class InstructionBuilderTests(ComponentTests):
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
        keep(instructions.check_labels, subject)

    def test_answers_are_in_the_order_of_the_candidates(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """Reversing the candidates reverses the answers."""
        keep(instructions.check_order, subject)

    def test_every_label_and_answer_is_read_back(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """`parse` understands what `build` offers."""
        keep(instructions.check_read_back, subject)

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
        keep(instructions.check_positions, subject)

    def test_the_prompt_does_not_depend_on_the_target(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """The same query gives the same instruction, whatever the truth is."""
        keep(instructions.check_repeats, subject)

    def test_the_prompt_does_not_depend_on_what_was_asked_before(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """A run that goes on after a crash asks the rest alone."""
        keep(instructions.check_turns, subject)

    def test_queries_are_not_changed(self, subject: instructions.InstructionSubject) -> None:
        """Others read them too."""
        keep(instructions.check_given, subject)

    def test_an_empty_history_and_a_single_candidate_are_asked(
        self, subject: instructions.InstructionSubject
    ) -> None:
        """A cold user and a list of one are legal."""
        keep(instructions.check_cold, subject)
