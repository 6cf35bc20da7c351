"""Tests of a `Dataset`."""

from pathlib import Path

import pytest

from mmrec_bench.contract import datasets
from mmrec_bench.interfaces import Dataset
from mmrec_bench.testing.components import ComponentTests, keep
from mmrec_bench.types import RecData


class DatasetTests(ComponentTests):
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
        keep(datasets.check_missing, subject)

    def test_interactions_are_sorted_and_in_range(self, subject: datasets.DatasetSubject) -> None:
        """(user, timestamp) order, numbers inside the vocabularies."""
        keep(datasets.check_columns, subject)

    def test_version_follows_the_content(self, subject: datasets.DatasetSubject) -> None:
        """The same files give the same version."""
        keep(datasets.check_version, subject)

    def test_card_names_source_and_licence(self, subject: datasets.DatasetSubject) -> None:
        """A reader learns where the data came from."""
        keep(datasets.check_card, subject)

    def test_the_name_is_fit_for_a_folder(self, subject: datasets.DatasetSubject) -> None:
        """Records lie in a folder of this name."""
        keep(datasets.check_name, subject)
