"""Beam search over the items' token trie: ours against `generate` of transformers.

    python benchmarks/constrained_beams.py                  # one thread
    python benchmarks/constrained_beams.py --threads 2 --source-tokens 64 128 --end

A T5 of T5-small's shape with random weights, a trie of 12,101 items (Amazon Beauty's number) of 4
codes each, batches of 16 sources, 20 beams. Nothing is downloaded.

* generate: `generate(num_beams=20, num_return_sequences=20, prefix_allowed_tokens_fn=...)`, the
  callback a dict look-up a beam;
* ours: `encode_sources` and `beam_search`, with the layers as they are and within `packed_linears`
  (packing, once a model, is timed on its own);
* under both normalisations: of the whole vocabulary, which is what `generate` sums, and of the
  allowed tokens, which is `generate(renormalize_logits=True)`.

The ways take turns. Times are CPU seconds of the process, so a neighbour on the machine takes
little from them; a ratio is the median over repeats of the ratios within a repeat. Items and scores
are compared in every repeat, and the script fails where an item differs. Memory is what
the peak resident size grows by, over the loaded model's, in a process of its own that runs one way
once (Linux).
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
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before numpy and torch read it
    _threads = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv else "1"
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = _threads

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from mmrec_plugins.models.p5.decoding import Normalise, beam_search, encode_sources
from mmrec_plugins.models.p5.packing import packed_linears
from mmrec_plugins.models.p5.trie import ItemTrie

N_ITEMS, N_CODES, N_VALUES, VOCABULARY = 12_101, 4, 256, 32_128
FIRST_CODE = 20_000
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
    beams: int
    normalise: Normalise

    @property
    def depth(self) -> int:
        return N_CODES + (self.end is not None)


def make_task(source_tokens: int, end: bool, normalise: Normalise, ragged: bool) -> Task:
    """Make a random model, random codes and random sources, all by seed."""
    torch.manual_seed(0)
    config = T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    rng = random.Random(0)
    codes: set[tuple[int, ...]] = set()
    while len(codes) < N_ITEMS:
        values = [rng.randrange(N_VALUES) for _ in range(N_CODES)]
        codes.add(tuple(FIRST_CODE + N_VALUES * i + value for i, value in enumerate(values)))
    ids = torch.randint(2, FIRST_CODE, (16, source_tokens))
    lengths = torch.randint(source_tokens // 4, source_tokens + 1, (16, 1))
    lengths[0] = source_tokens
    mask = torch.arange(source_tokens) < (lengths if ragged else source_tokens)
    rows = [list(code) for code in sorted(codes)]
    return Task(model, rows, 1 if end else None, ids, mask.long().expand(16, -1), 20, normalise)


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
            num_beams=task.beams,
            num_return_sequences=task.beams,
            prefix_allowed_tokens_fn=lambda _, row: allowed.get(tuple(row.tolist()[1:]), [1]),
            max_new_tokens=task.depth,
            length_penalty=0.0,
            renormalize_logits=task.normalise == "allowed",
            return_dict_in_generate=True,
            output_scores=True,
        )
        shape = (len(task.ids), task.beams)
        tokens = found.sequences[:, 1 : 1 + N_CODES].view(*shape, N_CODES)
        return tokens.tolist(), found.sequences_scores.view(shape)

    return run


def ours(task: Task) -> Callable[[], Found]:
    """Return our beams."""
    trie = ItemTrie.build(task.codes, task.end)

    def run() -> Found:
        read = encode_sources(task.model, task.ids, task.mask)
        found = beam_search(read, trie, beams=task.beams, normalise=task.normalise)
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


def measure(task: Task, label: str, repeats: int, memory: dict[str, float]) -> None:
    """Let the ways take turns and print a row for each."""
    cpu: dict[str, list[float]] = {name: [] for name in WAYS}
    wall: dict[str, list[float]] = {name: [] for name in WAYS}
    differs = dict.fromkeys(WAYS, 0.0)
    runs = {name: make(task) for name, (make, _) in WAYS.items()}
    packing = 0.0
    for repeat in range(repeats + 1):  # the first warms up
        items: list[list[list[int]]] | None = None
        scores = torch.empty(0)
        for name, (_, packed) in WAYS.items():
            with ExitStack() as stack:
                if packed:
                    start = time.process_time()
                    stack.enter_context(packed_linears(task.model))
                    packing = time.process_time() - start
                    if not repeat:
                        runs[name]()
                seconds, elapsed, found = timed(runs[name])
            if items is None:
                items, scores = found
            if found[0] != items:
                raise SystemExit(f"{name} found other items than generate, or another order")
            differs[name] = max(differs[name], float((found[1] - scores).abs().max()))
            if repeat:
                cpu[name].append(seconds)
                wall[name].append(elapsed)
    print(f"\n{label}; median of {repeats}; identical items; packing once a model {packing:.2f} s")
    print(f"{'':<16}{'CPU s':>8}{'wall s':>8}{'faster':>9}{'differs':>10}{'peak MB':>9}")
    for name, times in cpu.items():
        ratio = statistics.median(a / b for a, b in zip(cpu["generate"], times, strict=True))
        middle, elapsed = statistics.median(times), statistics.median(wall[name])
        row = f"{name:<16}{middle:>8.2f}{elapsed:>8.2f}{ratio:>8.2f}x{differs[name]:>10.1e}"
        print(f"{row}{memory[name]:>9.0f}", flush=True)


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
    task = make_task(length, options.end, normalise, options.ragged)
    run = make(task)
    before = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    with ExitStack() as stack:
        if packed:
            stack.enter_context(packed_linears(task.model))
        run()
    print((memory_bytes("VmHWM") - before) / MEGABYTE)


def memory_bytes(field: str) -> int:
    """Return a size that Linux keeps of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source-tokens", type=int, nargs="+", default=[64])
    parser.add_argument("--normalise", nargs="+", default=["vocabulary", "allowed"])
    parser.add_argument("--end", action="store_true", help="an end token behind each item's codes")
    parser.add_argument("--ragged", action="store_true", help="sources of a quarter to full length")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    if options.only is not None:
        run_only(options)
        return
    for length in options.source_tokens:
        for normalise in options.normalise:
            memory = {name: peak(options, name, length, normalise) for name in WAYS}
            task = make_task(length, options.end, normalise, options.ragged)
            label = f"{length} source tokens{' at most' if options.ragged else ''}, {N_CODES} codes"
            label += f"{' and an end' if options.end else ''}, share of the {normalise}"
            label += f", {options.threads} thread{'s' if options.threads > 1 else ''}"
            measure(task, label, options.repeats, memory)


if __name__ == "__main__":
    main()
