import logging
import re

import pytest

from mmrec_bench.progress import Report, listening, progress, set_mode
from tests.core.test_terminal import bare, on_a_terminal

NESTED = """
import logging, sys, time
from mmrec_bench.progress import Notices, progress, set_mode
logging.basicConfig(format="%(message)s", level=logging.INFO, handlers=[Notices()])
set_mode()
with progress("outer [red]", total=4, unit="steps", done=1) as outer:
    for i in range(3):
        with progress("inner", total=2, unit="items") as inner:
            inner.advance(1)
            time.sleep(0.15)
            inner.advance(1, loss=0.25)
        outer.advance(1, ndcg=0.5)
        logging.info("a notice %d", i)
        time.sleep(0.15)
"""


def test_nested_bars_share_one_display_and_notices_stand_above_it() -> None:
    _, err = on_a_terminal("-c", NESTED, columns=120)
    assert err.count("\x1b[?25l") == 1  # one display began, and gave the cursor back
    assert err.count("\x1b[?25h") == 1
    lines = bare(err).replace("\r", "\n").splitlines()
    both = [i for i, line in enumerate(lines) if line.startswith("inner ") and "/2" in line]
    assert any(lines[i - 1].startswith("outer [red]") for i in both)
    for whole in ("a notice 0", "a notice 2", "a notice 1"):
        assert whole in lines
    told = [line for line in lines if re.match(r"inner: 2/2 items \(.*/s, 0:00\)  loss 0.25", line)]
    assert len(told) == 3
    assert any(line.startswith("outer [red]: 4/4 steps") for line in lines)


def test_a_bar_shows_rate_remaining_time_and_facts_and_fits_a_narrow_terminal() -> None:
    for columns in (120, 60):
        _, err = on_a_terminal("-c", NESTED, columns=columns)
        lines = bare(err).replace("\r", "\n").splitlines()
        assert max(map(len, lines)) <= columns
    _, err = on_a_terminal("-c", NESTED, columns=120)
    (shown, *_) = [one for one in bare(err).replace("\r", "\n").splitlines() if "3/4" in one]
    assert re.search(r"outer \[red\] .* 3/4 [\d.]+ steps/s \d:\d\d:\d\d .*ndcg 0.5", shown)


def test_what_was_done_before_does_not_count_in_the_rate(caplog: pytest.LogCaptureFixture) -> None:
    set_mode("lines")
    with (
        caplog.at_level(logging.INFO, "mmrec_bench"),
        progress("fit", total=10**9, unit="steps", done=10**9 - 1) as bar,
    ):
        bar.advance(1)
    set_mode("quiet")
    found = re.fullmatch(r"fit: (\d+)/1000000000 steps \((.*)/s, 0:00\)", caplog.messages[-1])
    assert found is not None
    assert float(found[2].replace(",", "")) < 10**8


def test_listeners_hear_every_step_whatever_is_shown() -> None:
    heard: list[Report] = []
    set_mode("quiet")
    with listening(heard.append):
        with progress("fit", total=3, unit="steps", done=1) as bar:
            bar.advance(1, loss=0.5, backbone="small", best=None)  # type: ignore[arg-type]
            bar.advance(1)
        with progress("other") as bar:
            bar.advance(2, ndcg=1)
    with progress("nobody hears") as bar:
        bar.advance(1, loss=1.0)
    assert heard == [
        Report("fit", 2, 3, "steps", {"loss": 0.5}),
        Report("fit", 3, 3, "steps", {}),
        Report("other", 2, None, "items", {"ndcg": 1.0}),
    ]
