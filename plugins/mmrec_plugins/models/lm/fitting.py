"""One fit of an adapter: what is learnt from, which loss, what is validated, what it leaves.

`tuning` is the loop and knows none of this.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mmrec_bench.config import identity
from mmrec_bench.errors import ConfigError, ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Example, FloatArray
from mmrec_plugins.instructions.corpus import KINDS, CorpusEntry, Kind
from mmrec_plugins.models.lm import corpora
from mmrec_plugins.models.lm.answering import Answering
from mmrec_plugins.models.lm.backbones import Backbone
from mmrec_plugins.models.lm.corpora import Corpus
from mmrec_plugins.models.lm.encoding import (
    Tokens,
    micro_batches,
    steps_per_epoch,
    training_steps,
)
from mmrec_plugins.models.lm.losses import Choice, answer_loss, ranking_loss
from mmrec_plugins.models.lm.mixing import EntryStream, ExampleStream, Schedule, Stream, mixed_steps
from mmrec_plugins.models.lm.prefill import inference
from mmrec_plugins.models.lm.presets import LanguageModelConfig
from mmrec_plugins.models.lm.scoring import AnswerTree
from mmrec_plugins.models.lm.tuning import History, TuningSettings, tune

log = logging.getLogger("mmrec_bench")

Facts = dict[str, str | int | float]
AnyRow = Tokens | Choice

# Padded tokens in one training pass: activations of a GPU's memory, or a CPU's caches.
_TOKEN_BUDGET = {"cpu": 8192, "cuda": 16384}


class Fitting:
    """Tunes an adapter on the run's ranking examples, or on their mix with a corpus's entries."""

    def __init__(
        self,
        config: LanguageModelConfig,
        backbone: Backbone,
        answering: Answering,
        data: TrainingData,
        seed: int,
        corpus: Corpus | None = None,
    ) -> None:
        """Bind what the fit depends on.

        Args:
            config: resolved.
            backbone: it loads; its adapter comes with `run`.
            answering: asks and scores.
            data: ranking examples and validation queries.
            seed: of dropout and of every draw.
            corpus: entries to mix in; None = ranking examples alone.

        Raises:
            ConfigError: a kind of the mix whose entries are all too long.
            ModelError: objective=ranking with answer=generate.
        """
        if config.objective == "ranking" and config.answer == "generate":
            raise ModelError("model.objective=ranking needs scores: it excludes answer=generate")
        self.config, self.backbone, self.answering = config, backbone, answering
        self.data, self.seed, self.corpus = data, seed, corpus
        self.encoder = answering.encoder
        self.step_size = (config.batch_size or 1) * (config.accumulation or 1)
        self.n_too_long = 0
        self.entries: dict[Kind, list[CorpusEntry]] = {}
        self.observed: dict[Kind, list[Tokens]] = {}
        self.schedule: Schedule | None = None
        if corpus is not None:
            self.entries = self._usable(corpus)
            self.observed = self._sample(corpus)
            self.schedule = Schedule(corpus.weights, self.step_size, seed=seed)

    def run(self, model: nn.Module) -> History:
        """Tune; the best adapter on validation is left in the model.

        Raises:
            ModelError: as `tuning.tune`, or no training examples.
        """
        return tune(
            model,
            partial(self._steps, model),
            self._settings(),
            loss=partial(_loss, pad_id=self.backbone.tokenizer.pad_id),
            validate=self._validation(model),
            observe=partial(self._observe, model) if self.observed else None,
            scratch=self.data.scratch,
            seed=self.seed,
            fingerprint=self._fingerprint(),
        )

    def facts(self, history: History) -> Facts:
        """Return how the fit went, as flat values; {} where no step was done."""
        if not history.step:
            return {}
        facts: Facts = {
            "tuning_steps": history.step,
            "tuning_best_step": history.best_step,
            "tuning_tokens": history.n_tokens,
            "tuning_shortened_prompts": history.n_shortened,
        }
        for step, loss, ndcg in history.validations:
            facts[f"tuning_loss_{step:05d}"] = loss
            if not math.isnan(ndcg):
                facts[f"tuning_ndcg_{step:05d}"] = ndcg
        return facts | self._mix_facts(history)

    def _mix_facts(self, history: History) -> Facts:
        """Say what was mixed, and how well each kind's validation entries are foretold."""
        if self.corpus is None or self.schedule is None:
            return {}
        facts: Facts = {
            "corpus_left_out_leaks": self.corpus.n_refused,
            "corpus_left_out_too_long": self.n_too_long,
        }
        for kind, drawn in self.schedule.drawn(history.step).items():
            facts[f"tuning_examples_{kind}"] = drawn
        for kind, entries in self.entries.items():
            facts[f"corpus_entries_{kind}"] = len(entries)
        for kind, rows in self.observed.items():
            facts[f"validation_entries_{kind}"] = len(rows)
        for suffix, step in (("", history.best_step), ("_untuned", 0)):
            for name, loss in history.observed.get(step, {}).items():
                facts[f"validation_loss_{name}{suffix}"] = loss
        return facts

    def _steps(self, model: nn.Module, skip: int) -> Iterator[list[AnyRow]]:
        """Yield the examples of each step, from step `skip` on."""
        encode = partial(self._encode_example, model)
        if self.schedule is None:
            return training_steps(
                self.data.examples,
                encode,
                step_size=self.step_size,
                limit=self.config.examples,
                seed=self.seed,
                skip=skip,
            )
        streams: dict[str, Stream[AnyRow]] = {}
        for kind in self.schedule.kinds:
            if kind == corpora.RANKING:
                per_epoch = min(self.data.n_examples, self.config.examples or self.data.n_examples)
                streams[kind] = ExampleStream(self.data.examples, encode, per_epoch=per_epoch)
        for number, (kind, entries) in enumerate(self.entries.items()):
            streams[kind] = EntryStream(entries, self._encode_entry, seed=(self.seed, number))
        return mixed_steps(streams, self.schedule, seed=self.seed, skip=skip)

    def _encode_example(self, model: nn.Module, example: Example) -> AnyRow:
        if self.config.objective != "ranking":
            return self.encoder.example(example)
        [encoded] = self.answering.encode([example.query])
        answers = encoded.answer_ids
        tree = AnswerTree()
        for number in sorted(range(len(answers)), key=answers.__getitem__):
            tree.add(number, answers[number])
        [offsets] = self.answering.blank_scores(model, [encoded])
        return Choice(encoded.prompt_ids, tree, example.target, offsets, encoded.dropped > 0)

    def _encode_entry(self, entry: CorpusEntry) -> Tokens:
        # another data set's item ids may happen to be this one's
        own = entry.dataset == self.data.dataset
        sees = own and self.encoder.pictures is not None
        messages = corpora.messages_of(entry.turns, self.data.catalog, pictures=sees)
        return self.encoder.written(messages, entry.answer, entry.kind)

    def _usable(self, corpus: Corpus) -> dict[Kind, list[CorpusEntry]]:
        """Return the entries to tune on, without those that do not fit: none is cut."""
        usable: dict[Kind, list[CorpusEntry]] = {}
        for kind in KINDS:
            if kind not in corpus.weights:
                continue
            entries = corpus.train[kind]
            usable[kind] = [entry for entry in entries if self._fits(self._encode_entry(entry))]
            self.n_too_long += len(entries) - len(usable[kind])
            if not usable[kind]:
                raise ConfigError(
                    f"none of the {len(entries)} {kind} entries of model.corpus fits into "
                    f"model.max_length {self.encoder.max_length}; raise it, or leave {kind} out "
                    "of model.mix"
                )
        if self.n_too_long:
            log.warning(
                "%d corpus entries are left out, longer than model.max_length %d",
                self.n_too_long,
                self.encoder.max_length,
            )
        return usable

    def _sample(self, corpus: Corpus) -> dict[Kind, list[Tokens]]:
        """Return the validation entries that are looked at, shared equally by the kinds.

        Entries are in the order of their hashes, so the first ones are a sample without a seed:
        fits with other seeds are measured on the same.
        """
        kinds = [kind for kind in self.entries if corpus.validation.get(kind)]
        limit = max(1, (self.config.validation_cases or 1) // max(1, len(kinds)))
        sample: dict[Kind, list[Tokens]] = {}
        for kind in kinds:
            rows = map(self._encode_entry, corpus.validation[kind])
            if chosen := [row for row in rows if self._fits(row)][:limit]:
                sample[kind] = chosen
        if missing := [kind for kind in self.entries if kind not in sample]:
            log.warning(
                "the corpus has no validation entries of %s: no validation loss of these kinds",
                ", ".join(missing),
            )
        return sample

    def _fits(self, row: Tokens) -> bool:
        return len(row) <= self.encoder.max_length

    def _observe(self, model: nn.Module) -> dict[str, float]:
        """Return each kind's validation loss of the model as it is now, nats per answer token."""
        device = next(model.parameters()).device
        pad_id, budget = self.backbone.tokenizer.pad_id, _token_budget(device)
        losses = {}
        with inference(model):
            for kind, rows in self.observed.items():
                batches = micro_batches(rows, batch_size=len(rows), token_budget=budget)
                total = sum(
                    float(answer_loss(model, batch, device, pad_id=pad_id)) for batch in batches
                )
                losses[str(kind)] = total / sum(row.n_terms for row in rows)
        return losses

    def _settings(self) -> TuningSettings:
        config = self.config
        limits = [] if config.max_steps is None else [config.max_steps]
        if config.epochs is not None:
            limits.append(config.epochs * self._epoch_steps())
        return TuningSettings(
            n_steps=min(limits),
            learning_rate=config.learning_rate or 1e-3,
            visual_learning_rate=config.visual_learning_rate,
            batch_size=config.batch_size or 1,
            warmup_ratio=config.warmup_ratio or 0.0,
            max_grad_norm=config.max_grad_norm or 1.0,
            weight_decay=config.weight_decay or 0.0,
            evaluate_every=config.evaluate_every or 1,
            patience=config.patience or 1,
            gradient_checkpointing=bool(config.gradient_checkpointing),
            token_budget=_token_budget(next(self.backbone.model.parameters()).device),
        )

    def _epoch_steps(self) -> int:
        """Return the steps in which the ranking examples, or without them all entries, pass."""
        if self.corpus is None:
            return steps_per_epoch(self.data.n_examples, self.step_size, self.config.examples)
        weights: Mapping[str, float] = self.corpus.weights
        if corpora.RANKING not in weights:
            return -(-sum(map(len, self.entries.values())) // self.step_size)
        n_examples = min(self.data.n_examples, self.config.examples or self.data.n_examples)
        share = weights[corpora.RANKING] / sum(weights.values())
        return math.ceil(n_examples / (share * self.step_size))

    def _validation(self, model: nn.Module) -> Callable[[], float]:
        """Return what computes validation ndcg@10 of the model as it is then."""
        data, answering = self.data, self.answering
        encoded = answering.encode(data.validation[: self.config.validation_cases])
        if not encoded:
            log.warning("no validation cases: tuning runs to its end and keeps its last adapter")
            return lambda: float("nan")
        blanks = None
        if self.config.objective == "ranking":  # they do not change with the adapter
            blanks = answering.blank_scores(model, encoded)
        return lambda: data.validate(answering.score(model, encoded, blanks))

    def _fingerprint(self) -> str:
        """Name what a fit depends on, so that it never goes on from another's checkpoint."""
        data = self.data
        parts = {
            "config": identity(self.config),
            "backbone": [self.backbone.source, self.backbone.n_parameters],
            "data": [data.n_users, data.n_items, len(data.interactions), data.n_examples],
            "seed": self.seed,
            "torch": str(torch.__version__),
            "pictures": _hash_of(data.item_vectors) if self.config.visual_tokens else "",
            "corpus": corpora.fingerprint(self.config.corpus) if self.config.corpus else "",
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash_of(vectors: FloatArray | None) -> str:
    return "" if vectors is None else hashlib.sha256(vectors.tobytes()).hexdigest()


def _token_budget(device: torch.device) -> int:
    return _TOKEN_BUDGET.get(device.type, _TOKEN_BUDGET["cpu"])


def _loss(model: nn.Module, rows: Sequence[AnyRow], device: torch.device, *, pad_id: int) -> Tensor:
    """Return the summed loss of examples of one kind: choices or written answers."""
    choices = [row for row in rows if isinstance(row, Choice)]
    if choices:
        return ranking_loss(model, choices, device, pad_id=pad_id)
    answers = [row for row in rows if isinstance(row, Tokens)]
    return answer_loss(model, answers, device, pad_id=pad_id)
