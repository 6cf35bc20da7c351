import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pytest

from mmrec_bench.terminal import Heading, Table, align, folds, plain, printable
from tests.core.test_cli import TINY, mmrec, run_popularity

SHOWN = Table(
    ["model", "ndcg@10", "s"], [["a", "0.5", "1"], ["bb", "0.25", "10"]], {(0, 1): "best"}
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(
    *arguments: str | Path, columns: int = 100, env: dict[str, str] | None = None
) -> tuple[str, str]:
    """Run Python on a terminal of its own; return what stdout and stderr showed, escapes kept."""
    ends = [pty.openpty() for _ in range(2)]
    for _, slave in ends:
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=ends[0][1],
        stderr=ends[1][1],
        env={**clean, "TERM": "xterm-256color", **(env or {})},
    )
    for _, slave in ends:
        os.close(slave)
    shown = {master: b"" for master, _ in ends}
    left = set(shown)
    deadline = time.monotonic() + 120
    while left and time.monotonic() < deadline:
        for master in select.select(list(left), [], [], 1)[0]:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                part = b""
            shown[master] += part
            if not part:
                left.discard(master)
    assert process.wait(10) == 0, shown
    out, err = (shown[master].decode().replace("\r\n", "\n") for master, _ in ends)
    for master, _ in ends:
        os.close(master)
    return out, err


def bare(text: str) -> str:
    return ESCAPES.sub("", text)


def showing(table: str) -> list[str]:
    return ["-c", f"from mmrec_bench.terminal import *\nshow([Heading('title'), {table}])"]


def test_plain_text_is_aligned_and_as_wide_as_it_needs_to_be() -> None:
    assert plain([Heading("title"), "", SHOWN, "", "end"]).splitlines() == [
        "title",
        "",
        "model  ndcg@10   s",
        "-----  -------  --",
        "a          0.5   1",
        "bb        0.25  10",
        "",
        "end",
    ]
    assert align(["x", "y"], [["1", "2"]], n_left=2, headed=False) == ["1  2"]
    assert align(["x"], [], headed=False) == []


def test_a_terminal_shows_the_best_in_bold_and_a_pipe_shows_no_escapes() -> None:
    out, _ = on_a_terminal(*showing(repr(SHOWN)))
    assert "\x1b[1;32m0.5" in out.replace("\x1b[1;32m    ", "\x1b[1;32m")
    assert [line.split() for line in bare(out).splitlines()][-2:] == [
        ["a", "0.5", "1"],
        ["bb", "0.25", "10"],
    ]
    done = subprocess.run([sys.executable, *showing(repr(SHOWN))], capture_output=True, check=True)
    assert done.stdout.decode() == plain([Heading("title"), SHOWN]) + "\n"


def test_no_color_is_respected() -> None:
    out, _ = on_a_terminal(*showing(repr(SHOWN)), env={"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", out)
    assert "ndcg@10" in out


def test_a_table_that_is_too_wide_is_folded_and_loses_no_number() -> None:
    header = ["model", *(f"metric@{i}" for i in range(9))]
    rows = [["a model with a long name " * 3, *(f"0.{i}{i}{i}{i}" for i in range(9))]]
    out, _ = on_a_terminal(*showing(repr(Table(header, rows))), columns=50)
    assert max(map(len, bare(out).splitlines())) <= 50
    assert all(name in bare(out) for name in header)
    assert all(cell in bare(out) for cell in rows[0][1:])
    assert "a model with" in bare(out)
    assert "…" in bare(out)


def test_folding_repeats_the_first_column() -> None:
    assert folds([10, 10, 10], 30) == [[0, 1, 2]]
    assert folds([10, 10, 10, 10], 25) == [[0, 1], [0, 2], [0, 3]]
    assert folds([10, 90, 5], 25) == [[0, 1], [0, 2]]


def test_what_a_terminal_would_obey_is_not_sent_to_it() -> None:
    assert printable("a\x1b[2Jb\x07 [red]é\u202e") == "a�[2Jb� [red]é�"
    out, _ = on_a_terminal(*showing(repr(Table(["m"], [["\x1b]0;owned\x07[bold]x"]]))))
    assert "�]0;owned�[bold]x" in bare(out)


def test_rich_is_imported_on_a_terminal_alone() -> None:
    code = (
        "import sys\nfrom mmrec_bench.terminal import *\nshow([])\nassert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_list_wraps_its_last_column_at_a_narrow_width() -> None:
    out, _ = on_a_terminal("-m", "mmrec_bench", "list", "metrics", columns=60)
    lines = bare(out).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0].split() == ["name", "distribution", "summary"]
    plain_names = [line.split()[0] for line in mmrec("list", "metrics").stdout.splitlines()]
    assert set(plain_names) <= {line.split(" ")[0] for line in lines[2:]}


@pytest.fixture
def results(root: Path, tmp_path: Path) -> Path:
    run_popularity(root, tmp_path / "results")
    return tmp_path / "results"


def test_leaderboard_and_show_lay_out_tables_on_a_terminal(results: Path) -> None:
    out, _ = on_a_terminal("-m", "mmrec_bench", "leaderboard", results)
    assert "toy: 30 cases" in bare(out)
    assert "toy.csv: 1 rows" in bare(out).replace("\n", "")
    assert mmrec("leaderboard", results).stdout.count("\n") == 1
    out, _ = on_a_terminal("-m", "mmrec_bench", "show", "popularity", "--results", results)
    assert "spec.protocol.n_candidates" in bare(out)
    assert mmrec("show", "popularity", "--results", results).stdout.startswith("# popularity\n")


def test_a_run_on_a_terminal_shows_bars_and_with_json_or_quiet_none(
    root: Path, tmp_path: Path
) -> None:
    arguments: list[str | Path] = [
        "run",
        "-m",
        "popularity",
        *TINY,
        "--data-root",
        root,
        "--results",
        tmp_path / "r",
    ]
    out, err = on_a_terminal("-m", "mmrec_bench", *arguments)
    assert "\x1b[?25l" in err  # a bar hides the cursor
    assert "scoring with popularity: 30/30 cases" in bare(err)
    assert "30 cases, leave-one-out" in bare(out)
    for more in (["--json"], []):
        before = [] if more else ["-q"]
        out, err = on_a_terminal("-m", "mmrec_bench", *before, *arguments, *more)
        assert "\x1b" not in err
        assert not more or out.startswith("[\n")
    assert err == ""
