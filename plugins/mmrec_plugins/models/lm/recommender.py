"""A language model that reads instructions and ranks candidates: tuned, or as it is."""

import hashlib
import json
import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from mmrec_bench.errors import ModelError
from mmrec_bench.files import atomic_write
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Example, Queries, Scores
from mmrec_plugins.models.chatglm2.prefix_import import import_prefix
from mmrec_plugins.models.chatglm2.shards import weight_files
from mmrec_plugins.models.lm import adapters, backbones, locating
from mmrec_plugins.models.lm.answering import Answering
from mmrec_plugins.models.lm.encoding import (
    PromptEncoder,
    R,
    steps_per_epoch,
    training_steps,
)
from mmrec_plugins.models.lm.losses import Choice, answer_loss, ranking_loss
from mmrec_plugins.models.lm.presets import LanguageModelConfig, Situation, fill
from mmrec_plugins.models.lm.scoring import AnswerTree
from mmrec_plugins.models.lm.tuning import History, TuningSettings, tune

log = logging.getLogger("mmrec_bench")

SETTINGS_FILE = "recommender.json"

_KEPT_BY_ADAPTER = ("backbone", "adapter", "pre_seq_len", "lora_r", "lora_alpha")
"""Options that a saved adapter must have been tuned with to be restored."""

# Padded tokens in one training pass: activations of a GPU's memory, or a CPU's caches.
_TOKEN_BUDGET = {"cpu": 8192, "cuda": 16384}


class LanguageModelRecommender:
    """Ranks the candidates of an instruction with a causal language model.

    A candidate's score is the log-likelihood of the answer text that names it (or of its letter),
    given the prompt; or the model writes its answer, which the instruction builder reads. With
    normalise=lift the log-likelihood under the same prompt without history is taken off: what is
    left is how much the history speaks for the candidate, not how likely its text is anyway (domain
    conditional PMI: Holtzman et al., EMNLP 2021; for letters, contextual calibration: Zhao et al.,
    ICML 2021). Tuned with P-tuning v2 (Liu et al., ACL 2022) or LoRA (Hu et al., ICLR 2022) on
    train interactions, the best adapter chosen by validation ndcg@10.
    """

    reads_instructions: ClassVar[bool] = True
    Config = LanguageModelConfig

    def __init__(self, config: LanguageModelConfig) -> None:
        self.config = config
        self._model: nn.Module | None = None
        self._history = History()

    @classmethod
    def resolve(
        cls, config: LanguageModelConfig, *, device: str
    ) -> tuple[LanguageModelConfig, list[str]]:
        """Name the backbone that `auto` means here and fill every open option; loads no weights.

        Returns:
            The resolved options, and lines that tell the user what was chosen and how to get
            another.
        """
        notices: list[str] = []
        if config.backbone == "auto":
            choice = backbones.resolve_auto(device)
            config = config.model_copy(update={"backbone": choice.name})
            notices.append(choice.notice)
        target = backbones.pick_device(device)
        situation = Situation(
            family=backbones.family_of(config.backbone),
            adapter=config.adapter,
            cuda=target.type == "cuda",
            dtype=str(backbones.pick_dtype("auto", target)).removeprefix("torch."),
        )
        if config.import_prefix is not None and config.adapter != "prefix":
            raise ModelError(
                f"model.import_prefix goes with model.adapter=prefix, not {config.adapter}"
            )
        if config.import_prefix is not None and config.pre_seq_len is not None:
            raise ModelError(
                "model.import_prefix brings its own number of virtual tokens; leave out "
                f"model.pre_seq_len={config.pre_seq_len}"
            )
        return fill(config, situation), notices

    @classmethod
    def choose_instructions(cls, config: LanguageModelConfig) -> str:
        """Return `next-item` for the micro backbone's likelihoods, else `ranking`.

        The micro model copies lines of a list that it is shown, whatever the history says.
        """
        micro = backbones.family_of(config.backbone) == locating.MICRO
        return "next-item" if micro and config.answer == "likelihood" else "ranking"

    @classmethod
    def fingerprint(cls, config: LanguageModelConfig) -> str:
        """Return a hash of the backbone's files; a hub id is downloaded where it is not here."""
        mark = locating.fingerprint(locating.locate(config.backbone))
        prefix = config.import_prefix
        if prefix is None:
            return mark
        files = [prefix] if prefix.is_file() else weight_files(prefix)
        return "-".join([mark, *(locating.hash_file(path)[:16] for path in files)])

    @classmethod
    def search(cls, root: Path) -> dict[str, str]:  # noqa: ARG003 - weights are not below the data
        """Return where each backbone was looked for and what was found, for `doctor`."""
        return backbones.search_report()

    def fit(self, data: TrainingData, *, seed: int) -> None:
        """Load the backbone and, unless adapter=none, tune an adapter on `data.examples`.

        Raises:
            ModelError: no candidates in the protocol, a backbone or checkpoint that cannot be used,
                a loss that is not finite, too little GPU memory.
        """
        self._load(data)
        if self.config.adapter == "none":
            return
        self._attach(data, seed)
        if self.config.objective == "ranking":
            self._history = self._tune(data, seed, self._choice, ranking_loss)
        else:
            self._history = self._tune(data, seed, self._encoder.example, answer_loss)
        log.info(
            "tuned for %d steps; kept the adapter of step %d (validation ndcg@10 %.4f)",
            self._history.step,
            self._history.best_step,
            self._history.best_ndcg,
        )

    def score(self, queries: Queries) -> Scores:
        """Score queries; see the class.

        Returns:
            (B, C) float32: log-likelihoods (natural logarithm), or with answer=generate minus the
            place in the written answer, NaN for candidates that it does not name.

        Raises:
            ModelError: the protocol gives no candidates, or a prompt does not fit.
        """
        if queries.candidates is not None and not len(queries):
            return Scores(np.zeros(queries.candidates.shape, np.float32))
        return self._answering.score(self._ready(), self._answering.encode(queries))

    def save(self, folder: Path) -> None:
        """Write the adapter as safetensors (none of the backbone's weights) and the settings."""
        if isinstance(self._model, PeftModel):
            adapters.save_adapter(self._model, folder, backbone=self._backbone.name)
        stored = {"config": self.config.model_dump(mode="json"), "facts": self.facts()}
        text = json.dumps(stored, indent=2, sort_keys=True)
        atomic_write(folder / SETTINGS_FILE, (text + "\n").encode())

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Load the backbone and the adapter that `save` wrote.

        Raises:
            ModelError: files are missing or torn, or belong to other options.
        """
        path = folder / SETTINGS_FILE
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            saved = LanguageModelConfig(**stored["config"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is not a saved language model: {error}") from error
        self._load(data)
        for name in _KEPT_BY_ADAPTER:
            old, new = getattr(saved, name), getattr(self.config, name)
            if old != new:
                raise ModelError(
                    f"{folder} was saved with model.{name}={old}, but {new} is asked for now; "
                    "use --fresh to tune anew"
                )
        if self.config.adapter != "none":
            adapters.load_adapter(self._attach(data, seed=0, fresh=False, folder=folder), folder)

    def facts(self) -> dict[str, str | int | float]:
        """Return backbone, sizes, and how the tuning went, as flat values."""
        history = self._history
        facts: dict[str, str | int | float] = {
            "backbone": self._backbone.name,
            "backbone_source": self._backbone.source,
            "n_parameters": self._backbone.n_parameters,
            "n_tuned_parameters": self._n_tuned(),
            "adapter": self.config.adapter,
            "answer": self.config.answer,
            "dtype": self.config.dtype or "",
            "device": str(next(self._backbone.model.parameters()).device),
        }
        if self.config.adapter == "none" or not history.step:
            return facts
        facts |= {
            "tuning_steps": history.step,
            "tuning_best_step": history.best_step,
            "tuning_tokens": history.n_tokens,
            "tuning_shortened_prompts": history.n_shortened,
        }
        for step, loss, ndcg in history.validations:
            facts[f"tuning_loss_{step:05d}"] = loss
            if not math.isnan(ndcg):
                facts[f"tuning_ndcg_{step:05d}"] = ndcg
        return facts

    def _load(self, data: TrainingData) -> None:
        """Resolve what is still open, load the backbone, and bind the instruction builder."""
        if data.builder is None:
            raise ModelError("a language model needs an instruction builder, and there is none")
        self.config, notices = self.resolve(self.config, device=data.device)
        for notice in notices:
            log.info("%s", notice)
        config = self.config
        if data.validation.candidates is None:
            raise ModelError(
                "a language model reads its candidates in the prompt, but the protocol ranks the "
                "whole catalog; use -o protocol.candidates=uniform"
            )
        self._backbone = backbones.load_backbone(
            config.backbone,
            device=data.device,
            dtype=config.dtype or "float32",
            attention=config.attention or "sdpa",
        )
        self._model = self._backbone.model.eval().requires_grad_(False)
        self._encoder = PromptEncoder(
            self._backbone.tokenizer,
            data.builder,
            data.catalog,
            max_length=config.max_length or 2048,
            answer=config.answer,
            max_new_tokens=config.max_new_tokens,
        )
        self._answering = Answering(self._encoder, config)

    def _tune(
        self,
        data: TrainingData,
        seed: int,
        encode: Callable[[Example], R],
        loss: Callable[..., Tensor],
    ) -> History:
        config = self.config
        step_size = (config.batch_size or 1) * (config.accumulation or 1)
        return tune(
            self._ready(),
            lambda skip: training_steps(
                data.examples,
                encode,
                step_size=step_size,
                limit=config.examples,
                seed=seed,
                skip=skip,
            ),
            self._tuning_settings(data, step_size),
            loss=partial(loss, pad_id=self._backbone.tokenizer.pad_id),
            validate=self._validation(data),
            scratch=data.scratch,
            seed=seed,
            fingerprint=self._fingerprint(data, seed),
        )

    def _choice(self, example: Example) -> Choice:
        """Encode an example for the ranking loss."""
        if self.config.answer == "generate":
            raise ModelError("model.objective=ranking needs scores: it excludes answer=generate")
        [encoded] = self._answering.encode([example.query])
        answers = self._encoder.answers(encoded.instruction)
        tree = AnswerTree()
        for number in sorted(range(len(answers)), key=answers.__getitem__):
            tree.add(number, answers[number])
        [offsets] = self._answering.blank_scores(self._ready(), [encoded], [answers])
        return Choice(encoded.prompt_ids, tree, example.target, offsets, encoded.dropped > 0)

    def _attach(
        self, data: TrainingData, seed: int, *, fresh: bool = True, folder: Path | None = None
    ) -> PeftModel:
        """Put the adapter onto the backbone; with `fresh` False its values are about to be read."""
        config, base = self.config, self._backbone.model
        model: PeftModel
        if config.adapter == "lora":
            model = adapters.attach_lora(
                base,
                rank=config.lora_r or 8,
                alpha=config.lora_alpha or 32.0,
                dropout=config.lora_dropout or 0.0,
                seed=seed,
            )
        elif config.import_prefix is not None and fresh:
            model = import_prefix(base, config.import_prefix)
            adapters.prepare_prefix(model, dropout=config.prefix_dropout or 0.0)
        else:
            length = config.pre_seq_len or 1
            if config.import_prefix is not None and folder is not None:
                length = adapters.saved_prefix_length(folder)
            init = config.prefix_init or "normal"
            model = adapters.attach_prefix(
                base,
                length=length,
                dropout=config.prefix_dropout or 0.0,
                seed=seed,
                init=init if fresh else "zero",
                prompt_ids=self._first_prompt(data) if fresh and init == "prompt" else None,
            )
        self._model = model.eval()
        return model

    def _first_prompt(self, data: TrainingData) -> list[int]:
        example = next(iter(data.examples(0)), None)
        return [] if example is None else self._encoder.encode(example.query).prompt_ids

    def _tuning_settings(self, data: TrainingData, step_size: int) -> TuningSettings:
        config = self.config
        limits = [] if config.max_steps is None else [config.max_steps]
        if config.epochs is not None:
            limits.append(
                config.epochs * steps_per_epoch(data.n_examples, step_size, config.examples)
            )
        device = next(self._backbone.model.parameters()).device
        return TuningSettings(
            n_steps=min(limits),
            learning_rate=config.learning_rate or 1e-3,
            batch_size=config.batch_size or 1,
            warmup_ratio=config.warmup_ratio or 0.0,
            max_grad_norm=config.max_grad_norm or 1.0,
            weight_decay=config.weight_decay or 0.0,
            evaluate_every=config.evaluate_every or 1,
            patience=config.patience or 1,
            gradient_checkpointing=bool(config.gradient_checkpointing),
            token_budget=_TOKEN_BUDGET.get(device.type, _TOKEN_BUDGET["cpu"]),
        )

    def _validation(self, data: TrainingData) -> Callable[[], float]:
        """Return what computes validation ndcg@10 of the model as it is then."""
        chosen = data.validation[: self.config.validation_cases]
        encoded = self._answering.encode(chosen)
        if not encoded:
            log.warning("no validation cases: tuning runs to its end and keeps its last adapter")
            return lambda: float("nan")
        blanks = None
        if self.config.objective == "ranking":  # they do not change with the adapter
            answers = [self._encoder.answers(one.instruction) for one in encoded]
            blanks = self._answering.blank_scores(self._ready(), encoded, answers)
        return lambda: data.validate(self._answering.score(self._ready(), encoded, blanks))

    def _ready(self) -> Any:  # noqa: ANN401 - a transformers or a PEFT model, both untyped
        if self._model is None:
            raise ModelError("the recommender was neither fitted nor restored")
        return self._model

    def _n_tuned(self) -> int:
        if not isinstance(self._model, PeftModel):
            return 0
        return sum(value.numel() for value in adapters.trainable(self._model).values())

    def _fingerprint(self, data: TrainingData, seed: int) -> str:
        """Name what a fit depends on, so that it never goes on from another's checkpoint."""
        parts = {
            "config": self.config.model_dump(mode="json"),
            "backbone": [self._backbone.source, self._backbone.n_parameters],
            "data": [data.n_users, data.n_items, len(data.interactions), data.n_examples],
            "seed": seed,
            "torch": str(torch.__version__),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
