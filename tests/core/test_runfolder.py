from pathlib import Path

import pytest

from mmrec_bench.config import RunConfig
from mmrec_bench.errors import StorageError
from mmrec_bench.files import atomic_write
from mmrec_bench.records import record_path
from mmrec_bench.runfolder import RunFolder
from tests.core.test_records import make_spec

CONFIG = RunConfig.parse({"model": "popularity", "dataset": "toy"})


def test_a_folder_of_another_spec_is_refused_and_cleared_by_fresh(tmp_path: Path) -> None:
    spec, other = make_spec(), make_spec(seed=1)
    folder = RunFolder(tmp_path, spec).path
    atomic_write(folder / "spec.json", other.model_dump_json().encode())
    with (
        pytest.raises(StorageError, match=r"belongs to another run.*use --fresh"),
        RunFolder.claim(tmp_path, spec, CONFIG, tmp_path),
    ):
        pass
    (folder / "predictions").mkdir()
    with RunFolder.claim(tmp_path, spec, CONFIG, tmp_path, fresh=True):
        assert not (folder / "predictions").exists()
    with RunFolder.claim(tmp_path, spec, CONFIG, tmp_path):
        pass


def test_half_written_files_beside_the_record_are_swept_and_those_of_others_are_not(
    tmp_path: Path,
) -> None:
    spec, other = make_spec(), make_spec(seed=1)
    folder = record_path(tmp_path, spec).parent
    folder.mkdir(parents=True)
    for one in (spec, other):
        for ending in ("json", "cases.npz"):
            (folder / f".{one.run_id}.{ending}.123.tmp").write_text("half")
    with RunFolder.claim(tmp_path, spec, CONFIG, tmp_path):
        pass
    left = {path.name for path in folder.iterdir()}
    assert left == {f".{other.run_id}.{ending}.123.tmp" for ending in ("json", "cases.npz")}
