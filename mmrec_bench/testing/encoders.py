"""Tests of an `Encoder` or `Describer`."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.contract import encoders
from mmrec_bench.contract.toys import toy_items
from mmrec_bench.testing.components import ComponentTests, keep
from mmrec_bench.types import Item


class EncoderTests(ComponentTests):
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
        keep(encoders.check_offers, subject)

    def test_vectors_are_finite_or_all_nan(self, subject: encoders.EncoderSubject) -> None:
        """(n, D), a row of NaN for an item that has nothing to encode."""
        keep(encoders.check_vectors, subject)

    def test_a_row_depends_on_its_item_alone(self, subject: encoders.EncoderSubject) -> None:
        """Rows are cached one by one."""
        keep(encoders.check_batch, subject)

    def test_items_without_a_usable_picture_have_nothing(
        self, subject: encoders.EncoderSubject, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No picture, a missing file, a torn one."""
        with caplog.at_level(logging.ERROR):
            keep(encoders.check_without, subject)

    def test_a_row_depends_on_what_encodes_says(self, subject: encoders.EncoderSubject) -> None:
        """The same picture, or the same words, of another item."""
        keep(encoders.check_reads, subject)

    def test_items_are_not_changed(self, subject: encoders.EncoderSubject) -> None:
        """Others read them too."""
        keep(encoders.check_given, subject)

    def test_words_are_a_tuple_an_item(self, subject: encoders.EncoderSubject) -> None:
        """The same words whatever the neighbours."""
        keep(encoders.check_words, subject)
