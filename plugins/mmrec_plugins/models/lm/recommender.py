"""A language model that reads instructions and ranks candidates: tuned, or as it is."""

import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from peft import PeftModel
from torch import nn

from mmrec_bench.errors import ModelError
from mmrec_bench.files import atomic_write
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Catalog, FloatArray, Queries, Scores
from mmrec_plugins.models.chatglm2.prefix_import import import_prefix
from mmrec_plugins.models.chatglm2.shards import weight_files
from mmrec_plugins.models.lm import adapters, backbones, corpora, locating, memorisation
from mmrec_plugins.models.lm.alignment import align
from mmrec_plugins.models.lm.answering import Answering
from mmrec_plugins.models.lm.encoding import PromptEncoder
from mmrec_plugins.models.lm.fitting import Fitting
from mmrec_plugins.models.lm.prefill import visual_tokens
from mmrec_plugins.models.lm.presets import LanguageModelConfig, Situation, fill
from mmrec_plugins.models.lm.tuning import History
from mmrec_plugins.models.lm.visual import (
    VISUAL_FILE,
    VisualTokens,
    attach_visual,
    load_visual,
    picture_ids,
    save_visual,
)

log = logging.getLogger("mmrec_bench")

SETTINGS_FILE = "recommender.json"

_KEPT_BY_ADAPTER = (
    *("backbone", "adapter", "pre_seq_len", "lora_r", "lora_alpha"),
    *("visual_tokens", "visual_hidden"),
)
"""Options that a saved adapter must have been tuned with to be restored."""


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
        self._fitting_facts: dict[str, str | int | float] = {}

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
        config = config.model_copy(update={"mix": corpora.resolve_mix(config)})
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
        """Return a hash of the backbone's files, an imported prefix and the corpus.

        A hub id is downloaded where it is not here.
        """
        marks = [locating.fingerprint(locating.locate(config.backbone))]
        if (prefix := config.import_prefix) is not None:
            files = [prefix] if prefix.is_file() else weight_files(prefix)
            marks += [locating.hash_file(path)[:16] for path in files]
        if config.corpus:
            marks.append(corpora.fingerprint(config.corpus)[:16])
        return "-".join(marks)

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
        corpus = corpora.load(self.config, data) if self.config.corpus else None
        self._load(data)
        if self.config.adapter != "none":
            self._attach(data, seed)
        visual, carried_over = self._see(data, seed), None
        if visual is not None:
            n_steps = self.config.visual_alignment_steps or 0
            carried_over = align(visual, data.examples, n_steps=n_steps, seed=seed)
        if self.config.adapter == "none" and visual is None:
            return
        fitting = Fitting(self.config, self._backbone, self._answering, data, seed, corpus)
        self._history = fitting.run(self._ready())
        self._fitting_facts = fitting.facts(self._history)
        if carried_over is not None:
            self._fitting_facts["visual_alignment_auc"] = carried_over
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

    def transfer(self, data: TrainingData) -> None:
        """Rank the items of another catalog with the backbone and the adapter as they are.

        Raises:
            ModelError: neither fitted nor restored.
        """
        visual = visual_tokens(self._ready())
        if visual is not None:
            visual.show(_vectors_of(data))
        self._bind(data)

    def probe_memory(self, catalog: Catalog, *, seed: int) -> dict[str, float]:
        """Return how well the backbone, its adapter disabled, completes titles of the catalog.

        Raises:
            ModelError: neither fitted nor restored.
        """
        model = self._ready()
        with model.disable_adapter() if isinstance(model, PeftModel) else nullcontext():
            return memorisation.probe(
                model,
                self._backbone.tokenizer,
                catalog,
                n_items=self.config.probe_items,
                seed=seed,
            )

    def save(self, folder: Path) -> None:
        """Write the adapter as safetensors (none of the backbone's weights) and the settings."""
        if isinstance(self._model, PeftModel):
            adapters.save_adapter(self._model, folder, backbone=self._backbone.name)
        if (visual := visual_tokens(self._ready())) is not None:
            save_visual(visual, folder)
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
        if (folder / VISUAL_FILE).exists():
            vectors = _vectors_of(data)
            if (visual := self._see(data, seed=0, fresh=False)) is not None:
                load_visual(visual, folder, vectors)

    def facts(self) -> dict[str, str | int | float]:
        """Return backbone, sizes, and how the tuning went, as flat values."""
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
        return facts | self._fitting_facts

    def _load(self, data: TrainingData) -> None:
        """Resolve what is still open, load the backbone, and bind the instruction builder."""
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
        self._bind(data)

    def _bind(self, data: TrainingData) -> None:
        """Ask with the builder of `data` about the items of its catalog from here on."""
        config = self.config
        if data.builder is None:
            raise ModelError("a language model needs an instruction builder, and there is none")
        self._encoder = PromptEncoder(
            self._backbone.tokenizer,
            data.builder,
            data.catalog,
            max_length=config.max_length or 2048,
            answer=config.answer,
            max_new_tokens=config.max_new_tokens,
            pictures=picture_ids(config.visual_tokens, data.item_vectors),
            foretell=config.objective == "ranking",
        )
        self._answering = Answering(self._encoder, config)

    def _see(self, data: TrainingData, seed: int, *, fresh: bool = True) -> VisualTokens | None:
        """Give the model a projector for the catalog's pictures, where it shall see them."""
        config, vectors = self.config, data.item_vectors
        if not config.visual_tokens:
            return None
        if vectors is None or not np.isfinite(vectors).all(axis=1).any():
            log.warning(
                "model.visual_tokens=%d, but there is no picture's vector: the model reads text "
                "only; vectors come from e.g. -o vectors.name=efficientnet",
                config.visual_tokens,
            )
            return None
        return attach_visual(
            self._backbone.model,
            vectors,
            n_tokens=config.visual_tokens,
            code_size=config.visual_hidden or 1,
            dropout=config.visual_dropout or 0.0,
            seed=seed,
            prompt_ids=self._first_prompt(data) if fresh else (),
        )

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
        if example is None:
            return []
        # Pictures have no embeddings before their projector is there.
        return [token for token in self._encoder.encode(example.query).prompt_ids if token >= 0]

    def _ready(self) -> Any:  # noqa: ANN401 - a transformers or a PEFT model, both untyped
        if self._model is None:
            raise ModelError("the recommender was neither fitted nor restored")
        return self._model

    def _n_tuned(self) -> int:
        return sum(value.numel() for value in adapters.trainable(self._ready()).values())


def _vectors_of(data: TrainingData) -> FloatArray:
    """Return the catalog's vectors.

    Raises:
        ModelError: there are none, but the model was tuned to see pictures.
    """
    if data.item_vectors is None:
        raise ModelError(
            "the model was tuned to see pictures and needs their vectors; use e.g. -o "
            "vectors.name=efficientnet, or tune anew with --fresh"
        )
    return data.item_vectors
