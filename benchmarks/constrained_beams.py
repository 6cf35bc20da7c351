"""Beam search over the items' token trie: ours against `generate` of transformers.

    python benchmarks/constrained_beams.py                            # made-up items, one thread
    python benchmarks/constrained_beams.py --sequences Beauty.txt     # real items and histories
    python benchmarks/constrained_beams.py --threads 2 --end --source-tokens 64

A T5 of T5-small's shape with random weights, batches of 16 sources, 20 beams, 12,101 items (Amazon
Beauty's number). Nothing is downloaded.

* Made-up: random items of 4 codes each, random sources without padding. Their default length is
  the median of padded batches of the real prompts, as `--sequences` prints it; 64 and 128 beside.
* `--sequences FILE`, lines of "user item item ...": items are named by their numbers as `p5` names
  them (two or three tokens and an end token by the tokenizer of its random backbones, digits in
  pairs as in T5's own vocabulary), sources are p5's default prompt with the newest 20 items of all
  but the last. A batch is 16 users in a row of the file, padded to its longest, so `generate` and
  ours read the same padded rows; each repeat takes another batch, evenly spread over the padded
  lengths. `--by-length` puts users of like lengths into a batch, as `p5` does itself. Whole-word
  embeddings are left out on both sides.

The ways:

* generate: `generate(num_beams=20, num_return_sequences=20, prefix_allowed_tokens_fn=...)`, the
  callback a dict look-up a beam;
* ours: `encode_sources` and `beam_search`, with the layers as they are and within `packed_linears`
  (packing, once a model, is timed on its own; what one batch that pays for it gains is shown);
* products alone: the arithmetic of ours (the warm-up's batch, counted by torch) at the speed of one
  packed layer of the decoder, and nothing else: the least that float32 takes here;
* under both normalisations: of the whole vocabulary, which is what `generate` sums, and of the
  allowed tokens, which is `generate(renormalize_logits=True)`.

The ways take turns, under `torch.inference_mode()`. Times are CPU seconds of the process, so a
neighbour on the machine takes little from them; a ratio is the median over repeats of the ratios
within a repeat. Items and scores are compared in every repeat, and the script fails where an item
differs. Real sources can give two items scores that are equal bit for bit, whose order `generate`
leaves to its sort: there, and only there, the order of such two may differ, and how often it did is
printed. With `--memory` also what the peak resident size grows by, over the loaded model's, in a
process of its own that runs one way once (Linux; made-up items).
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before numpy and torch read it
    _threads = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv else "1"
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = _threads

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from mmrec_plugins.models.p5.decoding import beam_search, encode_sources
from mmrec_plugins.models.p5.ids import Names, codes_of
from mmrec_plugins.models.p5.likelihood import Normalise
from mmrec_plugins.models.p5.packing import packed_linears
from mmrec_plugins.models.p5.prompts import (
    NO,
    NOTHING,
    YES,
    Writer,
    next_item_prompts,
    read_prompts,
)
from mmrec_plugins.models.p5.tokens import make_tokens
from mmrec_plugins.models.p5.trie import ItemTrie

N_ITEMS, N_CODES, N_VALUES, VOCABULARY = 12_101, 4, 256, 32_128
FIRST_CODE = 20_000
BATCH, BEAMS, HISTORY = 16, 20, 20
REAL_LENGTH = 51
"""Median length of padded batches of 16 users in a row of Amazon Beauty, by `--sequences`."""
MEGABYTE = 2**20

Found = tuple[list[list[list[int]]], Tensor]
"""Tokens of (B, K) items, and (B, K) scores."""


@dataclass(frozen=True)
class Task:
    """What every way is asked: the model, the items, one batch of sources."""

    model: Any
    codes: list[list[int]]
    end: int | None
    ids: Tensor
    mask: Tensor
    normalise: Normalise
    real: bool = False


def make_model() -> Any:  # noqa: ANN401
    """Return a random T5 of T5-small's shape, by seed."""
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0))


def made_up(source_tokens: int, end: bool, normalise: Normalise, ragged: bool) -> Task:
    """Make random codes and random sources by seed."""
    model = make_model().eval()
    rng = random.Random(0)
    codes: set[tuple[int, ...]] = set()
    while len(codes) < N_ITEMS:
        values = [rng.randrange(N_VALUES) for _ in range(N_CODES)]
        codes.add(tuple(FIRST_CODE + N_VALUES * i + value for i, value in enumerate(values)))
    ids = torch.randint(2, FIRST_CODE, (BATCH, source_tokens))
    lengths = torch.randint(source_tokens // 4, source_tokens + 1, (BATCH, 1))
    lengths[0] = source_tokens
    mask = torch.arange(source_tokens) < (lengths if ragged else source_tokens)
    rows = [list(code) for code in sorted(codes)]
    return Task(model, rows, 1 if end else None, ids, mask.long().expand(BATCH, -1), normalise)


def real(path: Path, n_batches: int, by_length: bool, normalise: Normalise) -> list[Task]:
    """Read histories, and make batches of the prompts that p5 would write of them."""
    rows = [[int(value) for value in line.split()] for line in path.read_text().splitlines()]
    n_items = max(item for _, *items in rows for item in items)
    tokens = make_tokens([*(prompt.ask for prompt in read_prompts()), NOTHING, YES, NO])
    names = Names(tuple((str(item),) for item in range(1, n_items + 1)))
    codes = codes_of(names, tokens)
    writer, prompt = Writer(tokens, codes), next_item_prompts()[0]
    sources = [
        writer.write(prompt, user, {"history": [item - 1 for item in items[:-1][-HISTORY:]]}).ids
        for user, *items in rows
    ]
    if by_length:
        sources.sort(key=len)
    batches = [sources[i : i + BATCH] for i in range(0, len(sources) - BATCH + 1, BATCH)]
    batches.sort(key=lambda batch: max(map(len, batch)))
    widths = [max(map(len, batch)) for batch in batches]
    share = sum(map(len, sources)) / (BATCH * sum(widths))
    median, long = (widths[int(q * len(widths))] for q in (0.5, 0.9))
    print(f"{n_items} items of {len(rows)} users; {len(batches)} batches of {BATCH}: padded length")
    print(f"{median} (median), {long} (90 %); {share:.0%} of the places hold a token", flush=True)
    model = make_model().eval()
    tasks = []
    for n in range(n_batches):
        batch = batches[int((n + 0.5) / n_batches * len(batches))]
        padded = [torch.tensor(source) for source in batch]
        ids = torch.nn.utils.rnn.pad_sequence(padded, batch_first=True, padding_value=tokens.pad)
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(source) for source in batch])[:, None]
        tasks.append(Task(model, codes, tokens.end, ids, mask.long(), normalise, real=True))
    return tasks


def theirs(task: Task) -> Callable[[], Found]:
    """Return `generate` under a callback over a dict of starts."""
    table: dict[tuple[int, ...], set[int]] = {}
    for code in task.codes:
        tokens = [*code, *([] if task.end is None else [task.end])]
        for n, token in enumerate(tokens):
            table.setdefault(tuple(tokens[:n]), set()).add(token)
    allowed = {start: sorted(tokens) for start, tokens in table.items()}

    def run() -> Found:
        found = task.model.generate(
            input_ids=task.ids,
            attention_mask=task.mask,
            num_beams=BEAMS,
            num_return_sequences=BEAMS,
            prefix_allowed_tokens_fn=lambda _, row: allowed.get(tuple(row.tolist()[1:]), [1]),
            max_new_tokens=max(map(len, allowed)) + 1,
            length_penalty=0.0,
            renormalize_logits=task.normalise == "allowed",
            return_dict_in_generate=True,
            output_scores=True,
        )
        names = [until(row, task.end) for row in found.sequences[:, 1:].tolist()]
        rows = [names[i : i + BEAMS] for i in range(0, len(names), BEAMS)]
        return rows, found.sequences_scores.view(-1, BEAMS)

    return run


def until(tokens: list[int], end: int | None) -> list[int]:
    """Return the tokens before the end token."""
    return tokens[: tokens.index(end)] if end in tokens else tokens


def ours(task: Task) -> Callable[[], Found]:
    """Return our beams."""
    trie = ItemTrie.build(task.codes, task.end)

    def run() -> Found:
        read = encode_sources(task.model, task.ids, task.mask)
        found = beam_search(read, trie, beams=BEAMS, normalise=task.normalise)
        return [[task.codes[i] for i in row] for row in found.items.tolist()], found.scores

    return run


WAYS: dict[str, tuple[Callable[[Task], Callable[[], Found]], bool]] = {
    "generate": (theirs, False),
    "ours": (ours, False),
    "ours, packed": (ours, True),
}
"""Name -> what makes it, whether it runs within `packed_linears`."""


def timed(run: Callable[[], Found]) -> tuple[float, float, Found]:
    """Return CPU seconds, wall seconds and what was found."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = run()
    return time.process_time() - cpu, time.perf_counter() - wall, found


def product_rate() -> float:
    """Return the floating-point operations a CPU second of a packed layer of the decoder's size."""
    layer, states = torch.nn.Linear(512, 2048, bias=False), torch.randn(BATCH * BEAMS, 512)
    with packed_linears(layer):
        start = time.process_time()
        for _ in range(30):
            layer(states)
        seconds = time.process_time() - start
    return 30 * 2 * states.numel() * 2048 / seconds


@dataclass
class Times:
    """Of one way, a value a repeat; and the arithmetic of the warm-up, swaps of all turns."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    packing: list[float] = field(default_factory=list)
    gflop: float = 0.0
    swapped: int = 0
    differs: float = 0.0


def swapped(found: Found, first: Found, name: str) -> int:
    """Return at how many places an item stands whose score is equal to the first way's there.

    Scores are compared as `generate` gave them, bit for bit. Anything else that differs ends the
    script.
    """
    count = 0
    for items, expected, scores in zip(found[0], first[0], first[1].tolist(), strict=True):
        for place, (item, other) in enumerate(zip(items, expected, strict=True)):
            if item == other:
                continue
            tied = item in expected and scores[expected.index(item)] == scores[place]
            if not tied or items.count(item) > 1:
                raise SystemExit(f"{name} found other items than generate, or another order")
            count += 1
    return count


def take_turn(task: Task, times: dict[str, Times], keep: bool) -> None:
    """Run each way once on one batch and compare what they found."""
    first: Found | None = None
    for name, (make, packed) in WAYS.items():
        run, kept = make(task), times[name]
        if not keep:
            with FlopCounterMode(display=False) as counter:
                run()
            kept.gflop = counter.get_total_flops() / 1e9
        start = time.process_time()
        with packed_linears(task.model) if packed else nullcontext(), torch.inference_mode():
            packing = time.process_time() - start
            seconds, elapsed, found = timed(run)
        first = first or found
        changed = swapped(found, first, name)
        if changed and not task.real:
            raise SystemExit(f"{name} found {changed} items in another order than generate")
        kept.swapped += changed
        kept.differs = max(kept.differs, float((found[1] - first[1]).abs().max()))
        if keep:
            kept.cpu.append(seconds)
            kept.wall.append(elapsed)
            kept.packing.append(packing)


def measure(tasks: list[Task], label: str, repeats: int, memory: dict[str, float]) -> None:
    """Let the ways take turns and print a row for each."""
    times = {name: Times() for name in WAYS}
    take_turn(tasks[len(tasks) // 2], times, keep=False)
    rates = []
    for repeat in range(repeats):
        take_turn(tasks[repeat % len(tasks)], times, keep=True)
        rates.append(product_rate())

    def ratio(seconds: list[float]) -> float:
        theirs = times["generate"].cpu
        return statistics.median(a / b for a, b in zip(theirs, seconds, strict=True))

    places = (repeats + 1) * BATCH * BEAMS
    ties = max(kept.swapped for kept in times.values())
    print(f"\n{label}; median of {repeats}")
    print("items identical" + (f", but for {ties} of {places} of equal scores" if ties else ""))
    columns = f"{'':<16}{'CPU s':>8}{'wall s':>8}{'faster':>9}{'differs':>10}{'GFLOP':>8}"
    print(columns + (f"{'peak MB':>9}" if memory else ""))
    for name, kept in times.items():
        cells = f"{name:<16}{statistics.median(kept.cpu):>8.2f}{statistics.median(kept.wall):>8.2f}"
        cells += f"{ratio(kept.cpu):>8.2f}x{kept.differs:>10.1e}"
        cells += f"{kept.gflop:>8.0f}" if kept.gflop else f"{'':>8}"
        print(cells + (f"{memory[name]:>9.0f}" if memory else ""), flush=True)
    packed, rate = times["ours, packed"], statistics.median(rates)
    least = times["ours"].gflop * 1e9 / rate
    bound = statistics.median(times["generate"].cpu) / least
    print(f"{'products alone':<16}{least:>8.2f}{'':>8}{bound:>8.2f}x  at {rate / 1e9:.0f} GFLOP/s")
    paid = ratio([a + b for a, b in zip(packed.cpu, packed.packing, strict=True)])
    print(
        f"one batch that pays for packing, {statistics.median(packed.packing):.2f} s: {paid:.2f}x"
    )


def peak(options: argparse.Namespace, name: str, length: int, normalise: str) -> float:
    """Return the growth of the peak resident size, in MB, of a process that runs one way once."""
    arguments = [sys.executable, __file__, "--only", name, "--source-tokens", str(length)]
    arguments += ["--normalise", normalise, "--threads", str(options.threads)]
    arguments += [flag for flag in ("--end", "--ragged") if getattr(options, flag[2:])]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return float(done.stdout)


def run_only(options: argparse.Namespace) -> None:
    """Run one way once and print how far the peak resident size grew over the model's own."""
    make, packed = WAYS[options.only]
    length, normalise = options.source_tokens[0], options.normalise[0]
    task = made_up(length, options.end, normalise, options.ragged)
    run = make(task)
    before = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    with packed_linears(task.model) if packed else nullcontext(), torch.inference_mode():
        run()
    print((memory_bytes("VmHWM") - before) / MEGABYTE)


def memory_bytes(field: str) -> int:
    """Return a size that Linux keeps of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source-tokens", type=int, nargs="+", default=[REAL_LENGTH, 64, 128])
    parser.add_argument("--sequences", type=Path, help="real items and histories from this file")
    parser.add_argument("--by-length", action="store_true", help="users of like lengths in a batch")
    parser.add_argument("--normalise", nargs="+", default=["vocabulary", "allowed"])
    parser.add_argument("--end", action="store_true", help="an end token behind each item's codes")
    parser.add_argument("--ragged", action="store_true", help="sources of a quarter to full length")
    parser.add_argument("--memory", action="store_true", help="peak memory of each way too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    if options.only is not None:
        run_only(options)
        return
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    for normalise in options.normalise:
        share = f"share of the {normalise}, {threads}"
        if options.sequences is not None:
            tasks = real(options.sequences, options.repeats, options.by_length, normalise)
            lengths = "like lengths" if options.by_length else "the file's order"
            measure(tasks, f"real items, sources in {lengths}, {share}", options.repeats, {})
            continue
        for length in options.source_tokens:
            names = WAYS if options.memory else ()
            memory = {name: peak(options, name, length, normalise) for name in names}
            task = made_up(length, options.end, normalise, options.ragged)
            label = f"{length} source tokens{' at most' if options.ragged else ''}, {N_CODES} codes"
            label += f"{' and an end' if options.end else ''}, {share}"
            measure([task], label, options.repeats, memory)


if __name__ == "__main__":
    main()
