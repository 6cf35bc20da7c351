"""P5: recommendation as language, on a T5.

Geng, Liu, Fu, Ge and Zhang, Recommendation as Language Processing (RLP): A Unified Pretrain,
Personalized Prompt & Predict Paradigm (P5), RecSys 2022.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from mmrec_bench.config import identity
from mmrec_bench.errors import ConfigError, StorageError
from mmrec_bench.files import atomic_write, read_arrays, write_arrays
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import FloatArray, Queries, Ragged, Scores
from mmrec_plugins.devices import pick_device
from mmrec_plugins.models.p5 import backbone
from mmrec_plugins.models.p5.decoding import beam_search, encode_sources
from mmrec_plugins.models.p5.examples import OF_REVIEWS, Examples, Task, usable_families
from mmrec_plugins.models.p5.ids import codes_of, name_items
from mmrec_plugins.models.p5.likelihood import score_candidates, score_catalog
from mmrec_plugins.models.p5.network import P5Network, Sources, pad_targets
from mmrec_plugins.models.p5.options import P5Config
from mmrec_plugins.models.p5.packing import packed_linears
from mmrec_plugins.models.p5.prompts import (
    NO,
    NOTHING,
    YES,
    Source,
    Writer,
    next_item_prompts,
    read_prompts,
)
from mmrec_plugins.models.p5.tokens import Tokens
from mmrec_plugins.models.p5.trie import ItemTrie
from mmrec_plugins.models.tensors import read_tensors
from mmrec_plugins.models.training import History, seeded, train

WEIGHTS, CODES, SETTINGS = "weights.safetensors", "items.npz", "t5.json"
_BUCKET = 32
"""Batches whose examples are sorted by length together."""

Batch = tuple[Sources, Tensor]


class P5:
    """Trains a T5 on prompts about users and items, and names the next item token by token.

    Families of prompts (sequential, direct, rating, review, explanation; `prompts.yaml`) are mixed
    by share, the last two where the data has reviews; every train interaction is one example an
    epoch. Items are named by one of the schemes of `ids`, and ranked
    by log p(name | prompt), the sum over the tokens of the name and the end token: of a whole
    catalog those that a beam search over the tree of all names finds (section 4.4; the others are
    left out), of given candidates all of them, exactly, with a prompt that does not list them.

    It reads no instruction builder of the run: which wordings it was trained on, and how ids become
    tokens with whole-word embeddings, is part of the model, as another model's features are.

    Departures from the paper: our own wordings; every prefix of a train sequence is an example
    where the paper draws one a user; the shared loop's Adam with a constant learning rate (theirs:
    AdamW, warm-up, linear decay); names without the word `item_` in front; an explanation is the
    first sentence of a review, where theirs is the sentence around a mined feature word.
    """

    Config: ClassVar[type[P5Config]] = P5Config
    reads_instructions: ClassVar[bool] = False

    def __init__(self, config: P5Config) -> None:
        self.config = config
        self._history = History()

    module: nn.Module
    device: torch.device

    @classmethod
    def fingerprint(cls, config: P5Config) -> str:
        """Return a hash of the backbone's files; "" for random weights."""
        return backbone.weights_fingerprint(config)

    def fit(self, data: TrainingData, *, seed: int) -> None:
        """Name the items, build the network and train it; a killed fit goes on from its checkpoint.

        Raises:
            ModelError: the backbone cannot be used, or there is nothing to learn from.
        """
        self.device = pick_device(data.device)
        names = name_items(self.config, data, seed=seed)
        asked = [prompt.ask for prompt in read_prompts() if prompt.family not in OF_REVIEWS]
        texts = [*asked, NOTHING, YES, NO]
        if self.config.ids == "title":
            texts += [" ".join(words) for words in names.words]
        texts += self._written(data)
        self._tokens = backbone.load_tokens(self.config, texts)
        longest = self.config.title_tokens if self.config.ids == "title" else None
        codes = codes_of(names, self._tokens, longest=longest)
        self._take(codes, data)
        self._examples = Examples(data, self.config)
        with seeded(seed, 0, device=torch.device("cpu")):
            t5 = backbone.build_t5(self.config, self._tokens)
            self._network = self._wrap(t5, data).to(self.device)
        self.module = self._network
        self._history = train(
            self,
            self.config,
            _validated_on(data, self.config.validation_cases),
            seed=seed,
            fingerprint=self._fingerprint(data, seed),
            title=f"training {type(self).__name__}",
        )

    def _written(self, data: TrainingData) -> list[str]:
        """Return all that is asked or answered of reviews, for a vocabulary."""
        shares, _ = usable_families(self.config, data)
        if data.interactions.review is None or not OF_REVIEWS & shares.keys():
            return []
        asked = [prompt.ask for prompt in read_prompts() if prompt.family in OF_REVIEWS]
        return asked + [text for one in data.interactions.review if one for text in one]

    def _wrap(self, t5: Any, data: TrainingData) -> P5Network:  # noqa: ANN401, ARG002
        """Return the network around a T5."""
        return P5Network(t5, whole_words=self.config.whole_words)

    def _pictures(self, data: TrainingData) -> tuple[list[bool], int]:  # noqa: ARG002
        """Return which items have a picture, and the visual tokens of one that has."""
        return [], 0

    def _take(self, codes: Sequence[Sequence[int]], data: TrainingData) -> None:
        """Keep what reading and naming items needs."""
        prompts = next_item_prompts()
        if self.config.ranking_prompt >= len(prompts):
            raise ConfigError(
                f"model.ranking_prompt={self.config.ranking_prompt}: there are {len(prompts)} "
                "wordings that ask for the next item, counted from 0"
            )
        self._codes = [list(code) for code in codes]
        pictured, n_visual = self._pictures(data)
        longest = self.config.review_tokens
        self._writer = Writer(self._tokens, self._codes, pictured, n_visual, longest)
        self._trie = ItemTrie.build(self._codes, self._tokens.end).to(self.device)
        self._prompt = prompts[self.config.ranking_prompt]
        self._seen = data.interactions.histories(data.n_users)
        self._exclude_seen = self.config.exclude_seen and data.mask_seen
        self._n_items = data.n_items

    def n_batches(self) -> int:
        """Return the steps of one epoch."""
        return -(-len(self._examples) // self.config.batch_size)

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield one epoch's batches, of sources of like length, in random order."""
        size = self.config.batch_size
        for tasks in self._examples.draw(rng, _BUCKET * size):
            sources = [
                self._writer.write(task.prompt, task.user, task.items, task.texts) for task in tasks
            ]
            targets = [self._answer(task) for task in tasks]
            order = np.argsort([len(source.ids) for source in sources], kind="stable")
            starts = np.arange(0, len(order), size)
            for start in rng.permutation(starts).tolist():
                rows = order[start : start + size].tolist()
                yield (
                    self._padded([sources[row] for row in rows]),
                    pad_targets([targets[row] for row in rows], self.device),
                )

    def _answer(self, task: Task) -> list[int]:
        if task.prompt.answer == "target":
            return [*self._codes[task.target], self._tokens.end]
        if task.prompt.answer == "verdict":
            return [*self._tokens.word(YES if task.verdict else NO), self._tokens.end]
        if task.prompt.answer == "summary":
            return self._writer.answer(task.review.summary if task.review else "")
        if task.prompt.answer == "explanation":
            return self._writer.answer(task.explanation)
        return [*self._tokens.word(f"{task.rating:g}"), self._tokens.end]

    def _padded(self, sources: Sequence[Source]) -> Sources:
        return Sources.pad(sources, self._tokens.pad, self.device)

    def loss(self, batch: Batch) -> Tensor:
        """Return the () mean cross-entropy over the batch's target tokens."""
        loss: Tensor = self._network(*batch)
        return loss

    def weights_changed(self) -> None:
        """Nothing is kept that was computed from the weights."""

    def score(self, queries: Queries) -> Scores:
        """Return (B, C) log-likelihoods; (B, N) for the whole catalog, NaN = in no beam."""
        self.module.eval()
        width = self._n_items if queries.candidates is None else queries.candidates.shape[1]
        values = np.full((len(queries), width), np.nan, np.float32)
        sources = [
            self._writer.write(self._prompt, int(query.user), {"history": self._newest(query)})
            for query in queries
        ]
        # Sources of like length together: little padding.
        order = np.argsort([len(source.ids) for source in sources], kind="stable")
        with packed_linears(self._network), torch.inference_mode():
            for start in range(0, len(order), self.config.score_batch):
                rows = order[start : start + self.config.score_batch]
                padded = self._padded([sources[row] for row in rows.tolist()])
                values[rows] = self._rank(padded, queries.take(rows))
        return Scores(values)

    def _newest(self, query: Any) -> list[int]:  # noqa: ANN401 - a Query
        newest: list[int] = query.history[-self.config.history_length :].tolist()
        return newest

    def _rank(self, padded: Sources, queries: Queries) -> FloatArray:
        """Return (b, C), or (b, N) with NaN for what no beam found."""
        read = encode_sources(
            self._network.t5,
            attention_mask=padded.mask,
            inputs_embeds=self._network.embed(padded),
        )
        share = self.config.normalise
        if queries.candidates is not None:
            candidates = torch.from_numpy(queries.candidates).to(self.device, torch.int64)
            return _to_numpy(score_candidates(read, self._trie, candidates, normalise=share))
        if self.config.ranking == "exact":
            return _to_numpy(score_catalog(read, self._trie, normalise=share))
        excluded = self._excluded(queries) if self._exclude_seen else None
        beams = min(self.config.beams, self._n_items)
        found = beam_search(read, self._trie, beams=beams, excluded=excluded, normalise=share)
        values = np.full((len(queries), self._n_items), np.nan, np.float32)
        items, scores = found.items.cpu().numpy(), _to_numpy(found.scores)
        row, place = np.nonzero(items >= 0)
        values[row, items[row, place]] = scores[row, place]
        return values

    def _excluded(self, queries: Queries) -> Tensor:
        """Return (b, E) int64 items of each user's train interactions and history; -1 = none."""
        rows = []
        for columns in (self._seen.take(queries.user.astype(np.int64)), queries.history):
            width = int(columns.lengths.max(initial=0))
            block = np.full((len(queries), width), -1, np.int64)
            block[np.arange(width) < columns.lengths[:, None]] = columns.values
            rows.append(block)
        return torch.from_numpy(np.concatenate(rows, axis=1)).to(self.device)

    def save(self, folder: Path) -> None:
        """Write weights, items' codes, vocabulary and T5's settings."""
        weights = {name: value.detach().cpu() for name, value in _own(self.module).items()}
        atomic_write(folder / WEIGHTS, to_bytes({k: v.contiguous() for k, v in weights.items()}))
        codes = Ragged.from_rows(self._codes)
        write_arrays(folder / CODES, {"values": codes.values, "offsets": codes.offsets})
        atomic_write(folder / SETTINGS, backbone.shape_of(self._network.t5).encode())
        self._tokens.save(folder)

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Read what `save` wrote.

        Raises:
            ModelError: missing, torn, or of other options.
            StorageError: the codes are missing or of another catalog.
        """
        self.device = pick_device(data.device)
        self._tokens = Tokens.load(folder)
        found = read_arrays(folder / CODES)
        if set(found) != {"values", "offsets"} or len(found["offsets"]) != data.n_items + 1:
            raise StorageError(
                f"{folder / CODES} holds no codes of {data.n_items} items; fit again"
            )
        codes = Ragged(found["values"].astype(np.int32), found["offsets"].astype(np.int64))
        self._take([code.tolist() for code in codes], data)
        try:
            settings = (folder / SETTINGS).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"cannot read {folder / SETTINGS}: {error}; fit again") from None
        with seeded(0, device=torch.device("cpu")):  # weights are drawn, and overwritten at once
            network = self._wrap(backbone.rebuild_t5(settings), data)
        own = _own(network)
        state = read_tensors(folder / WEIGHTS, own, f"weights of {type(self).__name__}")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])
        self._network = network.to(self.device).eval()
        self.module = self._network

    def facts(self) -> dict[str, str | int | float]:
        """Return the backbone, the scheme of ids, sizes, and how the fit went."""
        own = list(self.module.parameters())
        lengths = [len(code) for code in self._codes]
        return {
            "backbone": f"{Path(self.config.backbone).name}, {self._scheme()} ids",
            "n_parameters": sum(value.numel() for value in own),
            "n_tuned_parameters": sum(value.numel() for value in own if value.requires_grad),
            "vocabulary_size": len(self._tokens),
            "item_tokens_mean": float(np.mean(lengths)),
            **self._history.facts(),
        }

    def _scheme(self) -> str:
        own = self.config.ids == "sequential" and self.config.numbering == "catalog"
        return "the catalog's" if own else self.config.ids

    def _fingerprint(self, data: TrainingData, seed: int) -> str:
        """Name what a fit depends on, so that it never goes on from another's checkpoint."""
        rows = data.interactions
        content = hashlib.sha256()
        codes = Ragged.from_rows(self._codes)
        for array in (rows.user, rows.item, rows.rating, codes.values, codes.offsets):
            content.update(array.tobytes())
        for name in sorted(data.modalities):
            content.update(data.modalities[name].tobytes())
        content.update(json.dumps(self._written(data)).encode())
        content.update(json.dumps([[p.ask, p.answer] for p in read_prompts()]).encode())
        parts = {
            "model": type(self).__qualname__,
            "config": identity(self.config),
            "weights": backbone.weights_fingerprint(self.config),
            "content": content.hexdigest(),
            "seed": seed,
            "torch": str(torch.__version__),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _validated_on(data: TrainingData, n_cases: int | None) -> TrainingData:
    """Return the data with its validation cut to the first cases."""
    if n_cases is None or n_cases >= len(data.validation):
        return data
    shown = data.validation[:n_cases]
    return replace(data, validation=shown, validate_by=lambda score: data.validate(score(shown)))


def _own(module: nn.Module) -> dict[str, Tensor]:
    """Return the module's weights, each once: T5 names its shared embedding four times."""
    return dict(module.named_parameters())


def _to_numpy(values: Tensor) -> FloatArray:
    found: FloatArray = values.float().cpu().numpy()
    return found
