"""Instructions as token ids, and training examples as batches of similar length.

Prompt and answer are tokenised apart, so that one prompt serves every candidate and an answer has
the same ids whether it is trained on or scored.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import ExampleSource, InstructionBuilder
from mmrec_bench.types import Catalog, Example, Image, Instruction, Message, Query, Text
from mmrec_plugins.models.lm.presets import Answer
from mmrec_plugins.models.lm.tokenizing import TextTokenizer, unused_characters
from mmrec_plugins.models.lm.visual import PictureIds

log = logging.getLogger("mmrec_bench")

IGNORED = -100
"""Label of a position that carries no loss."""

NO_EXAMPLES = (
    "there are no training examples under this protocol: users need at least two train "
    "interactions; lower protocol.k_core or take a larger data set"
)

# Steps whose examples are tokenised and sorted by length together.
_WINDOW_STEPS = 32


@dataclass(frozen=True, slots=True)
class Encoded:
    """A query as a model reads it.

    Attributes:
        prompt_ids: tokens up to where the answer starts; negative ones are pictures.
        instruction: what they say.
        dropped: items of the shown history that were left out to fit.
        blank_ids: the same prompt without any history; () where nobody needs it.
        answer_ids: what names each candidate, see `PromptEncoder.answers`; () for written answers.
    """

    prompt_ids: list[int]
    instruction: Instruction
    dropped: int
    blank_ids: Sequence[int] = ()
    answer_ids: Sequence[list[int]] = ()


class Row(Protocol):
    """A training example as tokens, whatever the loss."""

    @property
    def kind(self) -> str:
        """Which kind of instruction; a step's loss is a mean by kind before kinds are weighed."""
        ...

    @property
    def n_terms(self) -> int:
        """Terms that it adds to the loss, which is their mean."""
        ...

    @property
    def shortened(self) -> bool:
        """Whether history was left out of the prompt to fit."""
        ...

    def __len__(self) -> int:
        """Return the tokens that are read."""
        ...


R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A training example as tokens.

    Attributes:
        ids: prompt, answer, one after the other.
        n_answer: tokens of the answer, which alone carry loss.
        shortened: history was left out of the prompt to fit.
        kind: of instruction; "ranking" = the run's own.
    """

    ids: list[int]
    n_answer: int
    shortened: bool = False
    kind: str = "ranking"

    def __len__(self) -> int:
        """Return the tokens of prompt and answer."""
        return len(self.ids)

    @property
    def n_terms(self) -> int:
        """Tokens that carry loss."""
        return self.n_answer


class PromptEncoder:
    """Asks queries with an instruction builder and tokenises them, within a length.

    A prompt that is too long is asked again with ever fewer items of history, the oldest left out
    first, until prompt and longest answer fit; candidates are never left out.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        builder: InstructionBuilder,
        catalog: Catalog,
        *,
        max_length: int,
        answer: Answer,
        max_new_tokens: int,
        pictures: PictureIds | None = None,
        foretell: bool = False,
    ) -> None:
        """Bind what every query shares.

        Args:
            tokenizer: of the backbone.
            builder: asks.
            catalog: items by number.
            max_length: tokens of prompt and answer, virtual tokens not counted.
            answer: what follows the prompt: an answer text, a label, or written text.
            max_new_tokens: room for a written answer.
            pictures: which pictures the model sees; None = it reads text only.
            foretell: where candidates are not listed, their pictures are part of the answers.
        """
        self.tokenizer = tokenizer
        self.builder = builder
        self.catalog = catalog
        self.max_length = max_length
        self.answer: Answer = answer
        self.max_new_tokens = max_new_tokens
        self.pictures = pictures
        self.foretell = foretell and pictures is not None and answer == "likelihood"
        self._warned: set[str] = set()
        self._answers: dict[str, list[int]] = {}

    def encode(self, query: Query) -> Encoded:
        """Ask one query.

        Raises:
            ModelError: no candidates, none listed for a letter, or too long without history.
        """
        if query.candidates is None:
            raise ModelError(
                "a language model reads its candidates in the prompt, but the protocol ranks the "
                "whole catalog; use -o protocol.candidates=uniform"
            )
        instruction = self.builder.build(query, self.catalog)
        if self.answer != "likelihood" and not instruction.labels:
            raise ModelError(
                f"model.answer={self.answer} names a candidate of the prompt, but this instruction "
                "lists none; use --instructions ranking"
            )
        prompt_ids = self._tokens(instruction)
        room = self.max_length - self._reserve(instruction)
        encoded = Encoded(prompt_ids, instruction, 0)
        if len(prompt_ids) > room:
            encoded = self._shorten(query, len(prompt_ids), room)
        if self.answer == "generate":
            return encoded
        items = query.candidates.tolist()
        return replace(encoded, answer_ids=self.answers(encoded.instruction, items))

    def encode_with_blank(self, query: Query) -> Encoded:
        """Ask one query, and the same without history; Raises as `encode`."""
        encoded = self.encode(query)
        blank = self._tokens(self.builder.build(query.with_history(0), self.catalog))
        return replace(encoded, blank_ids=blank)

    def answers(self, instruction: Instruction, items: Sequence[int] = ()) -> list[list[int]]:
        """Return the tokens that name each candidate.

        The end token is behind texts, and behind labels where one begins another (A and AA).

        Args:
            instruction: names the candidates.
            items: the candidates, where their pictures are to be foretold with their texts; each
                answer then begins with a negative id.
        """
        if self.answer == "letter":
            labels = [self._text(name) for name in instruction.labels]
            if _one_begins_another(labels):
                return [[*ids, self.tokenizer.eos_id] for ids in labels]
            return labels
        texts = [[*self._text(text), self.tokenizer.eos_id] for text in instruction.answers]
        if not (self.foretell and self.pictures and len(items)) or instruction.labels:
            return texts
        first = map(self.pictures.foretold, items)
        return [[picture, *text] for picture, text in zip(first, texts, strict=True)]

    def example(self, example: Example) -> Tokens:
        """Return prompt and target's answer of a training example."""
        encoded = self.encode(example.query)
        answer = self.answers(encoded.instruction)[example.target]
        return Tokens([*encoded.prompt_ids, *answer], len(answer), encoded.dropped > 0)

    def written(self, messages: Sequence[Message], answer: str, kind: str) -> Tokens:
        """Return a conversation and the answer that follows it as a training example."""
        ids = [*self.tokenizer.encode(answer), self.tokenizer.eos_id]
        return Tokens([*self.tokens_of_messages(messages), *ids], len(ids), kind=kind)

    def tokens_of_messages(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a conversation up to where the next answer starts."""
        images = [part.item for m in messages for part in m.parts if isinstance(part, Image)]
        if images and self.pictures is not None:
            return self._tokens_around(messages, images, self.pictures)
        if images and "pictures" not in self._warned:
            self._warned.add("pictures")
            log.warning(
                "the instructions show pictures, but this model reads text only: they are left "
                "out; use -o model.visual_tokens=1 -o vectors.name=efficientnet, or -o "
                "instructions.pictures=words"
            )
        turns = [{"role": m.role, "content": m.text} for m in messages]
        if len(turns) == 1 and turns[0]["role"] == "user":
            return self.tokenizer.chat_prompt(turns[0]["content"])
        return self.tokenizer.chat(turns)

    def _tokens_around(
        self, messages: Sequence[Message], images: Sequence[int], pictures: PictureIds
    ) -> list[int]:
        """Encode the texts between pictures apart; an item without a vector leaves no seam."""
        [gap] = unused_characters("".join(m.text for m in messages), 1)
        turns = [
            {
                "role": message.role,
                "content": "".join(
                    part.text if isinstance(part, Text) else gap * bool(pictures.seen[part.item])
                    for part in message.parts
                ),
            }
            for message in messages
        ]
        seen = [item for item in images if pictures.seen[item]]
        first, *rest = self.tokenizer.chat_around(turns, gap if seen else None)
        ids = list(first)
        for item, piece in zip(seen, rest, strict=True):
            ids += pictures.shown(item) + piece
        return ids

    def _shorten(self, query: Query, length: int, room: int) -> Encoded:
        """Leave out the oldest items; a bisection, since longer histories give longer prompts."""
        fits, fails = -1, len(query.history)
        best: tuple[list[int], Instruction] | None = None
        while fails - fits > 1:
            keep = (fits + fails) // 2
            instruction = self.builder.build(query.with_history(keep), self.catalog)
            prompt_ids = self._tokens(instruction)
            if len(prompt_ids) <= room:
                fits, best = keep, (prompt_ids, instruction)
            else:
                fails = keep
        if best is None:
            raise ModelError(
                f"a prompt has {length} tokens, and even without history it does not fit into "
                f"{room} (model.max_length {self.max_length} less the answer); raise "
                "model.max_length, or lower protocol.n_candidates or instructions.title_words"
            )
        if "length" not in self._warned:
            self._warned.add("length")
            log.warning(
                "a prompt of %d tokens does not fit into %d (model.max_length %d less the answer): "
                "the oldest history is left out of it, and of others like it",
                length,
                room,
                self.max_length,
            )
        return Encoded(best[0], best[1], len(query.history) - fits)

    def _reserve(self, instruction: Instruction) -> int:
        if self.answer == "generate":
            return self.max_new_tokens
        return max(len(ids) for ids in self.answers(instruction))

    def _tokens(self, instruction: Instruction) -> list[int]:
        return self.tokens_of_messages(instruction.messages)

    def _text(self, text: str) -> list[int]:
        ids = self._answers.get(text)
        if ids is None:
            ids = self._answers[text] = self.tokenizer.encode(text)
            if not ids:
                raise ModelError(f"the answer {text!r} has no tokens")
        return ids


def _one_begins_another(rows: Sequence[list[int]]) -> bool:
    ordered = sorted(rows)
    return any(b[: len(a)] == a for a, b in pairwise(ordered))


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the left, so that all answers end in the last column.

    Attributes:
        input_ids: (B, T) int64; an answer's last token predicts nothing and is not in it.
        attention_mask: (B, T) int64, 0 = padding.
        position_ids: (B, T) int64, counted over real tokens.
        labels: (B, A) int64, what the last A positions shall predict; IGNORED before an answer.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor


def pad_left(rows: Sequence[Tokens], pad_id: int) -> Batch:
    """Put examples into one batch."""
    longest = max(len(row.ids) for row in rows) - 1
    answer = max(row.n_answer for row in rows)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    labels = np.full((len(rows), answer), IGNORED, np.int64)
    for i, row in enumerate(rows):
        ids[i, longest - len(row.ids) + 1 :] = row.ids[:-1]
        mask[i, longest - len(row.ids) + 1 :] = 1
        labels[i, answer - row.n_answer :] = row.ids[len(row.ids) - row.n_answer :]
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    return Batch(*(torch.from_numpy(array) for array in (ids, mask, positions, labels)))


def micro_batches(rows: Sequence[R], *, batch_size: int, token_budget: int) -> list[list[R]]:
    """Divide one step's examples, sorted by length, into parts within a size and a token budget.

    A part holds at least one example, however long.
    """
    batches: list[list[R]] = [[]]
    for row in sorted(rows, key=len):
        full = len(batches[-1]) == batch_size
        if batches[-1] and (full or (len(batches[-1]) + 1) * len(row) > token_budget):
            batches.append([])
        batches[-1].append(row)
    return batches


def training_steps(
    source: ExampleSource,
    encode: Callable[[Example], R],
    *,
    step_size: int,
    limit: int | None,
    seed: int,
    skip: int = 0,
) -> Iterator[list[R]]:
    """Yield the examples of each optimiser step, epoch after epoch, without end.

    Examples are taken in windows, sorted by length within a window and cut into steps, and the
    window's steps are shuffled: a step pads little, and few examples are held as tokens. All of it
    depends on the source, the seed and the epoch alone, so that a resumed fit goes on where it was.

    Args:
        source: draws examples by epoch, in random order.
        encode: tokenises one.
        step_size: examples a step.
        limit: examples an epoch at most.
        seed: of the order of steps.
        skip: steps that are done already.

    Raises:
        ModelError: an epoch without examples.
    """
    epoch = 0
    while True:
        stream = islice(source(epoch), limit)
        rng = np.random.default_rng((seed, epoch))
        n_windows = 0
        while window := list(islice(stream, step_size * _WINDOW_STEPS)):
            n_windows += 1
            turns = rng.permutation(-(-len(window) // step_size))
            if skip < len(turns):
                rows = sorted(map(encode, window), key=len)
                for turn in turns[skip:]:
                    yield rows[turn * step_size : (turn + 1) * step_size]
            skip = max(0, skip - len(turns))
        if not n_windows:
            raise ModelError(NO_EXAMPLES)
        epoch += 1


def steps_per_epoch(n_examples: int, step_size: int, limit: int | None) -> int:
    """Return how many steps `training_steps` takes for an epoch of `n_examples`."""
    return -(-min(n_examples, limit or n_examples) // step_size)
