"""What a language model recommender needs of a tokenizer; transformers' tokenizers behind it."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from transformers import PreTrainedTokenizerBase

from mmrec_bench.errors import ModelError


@runtime_checkable
class TextTokenizer(Protocol):
    """Text to token ids and back.

    A prompt is `chat_prompt(text)`, or `prefix_ids + encode(text)` without a chat form; an answer
    is `encode(answer)` put behind it, then `eos_id`. Prompt and answer are always encoded apart, so
    one prompt's ids serve every candidate. Nothing written in a text ever becomes a special token.
    """

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Ids that every input starts with; already in `chat_prompt`, not in `encode`."""

    @property
    def eos_id(self) -> int:
        """Id that ends an answer."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at any of which generation stops; `eos_id` is among them."""

    @property
    def pad_id(self) -> int:
        """Id for padding; may be a real token's, so padding is told by the attention mask alone."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id that this tokenizer gives."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; special tokens and ids outside the vocabulary are left out."""

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the ids of a conversation up to where the next answer starts.

        Args:
            messages: `{"role": "system" | "user" | "assistant", "content": text}`, the last one a
                user's.
        """

    def chat_prompt(self, text: str) -> list[int]:
        """Return the ids of one user message up to the answer, `prefix_ids` included."""

    def chat_around(
        self, messages: Sequence[Mapping[str, str]], gap: str | None
    ) -> list[list[int]]:
        """Return the ids of a conversation in pieces, cut where something else shall stand.

        Args:
            messages: as for `chat`.
            gap: a string that stands in contents where something shall be put in; None = nowhere.

        Returns:
            One piece more than there are gaps; without a gap, the ids of `chat`, or of
            `chat_prompt` for one user message.
        """


class HFTokenizer:
    """A `TextTokenizer` around a transformers tokenizer, with its chat template where it has one.

    Without a template the messages' texts are joined by blank lines, and no roles are marked.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: loaded by the caller; not changed.

        Raises:
            ModelError: it has no end token.
        """
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"the tokenizer {tokenizer.name_or_path!r} has no end token, which an answer needs"
            )
        self._tokenizer = tokenizer
        self._eos_id = int(tokenizer.eos_token_id)
        pad = tokenizer.pad_token_id
        self._pad_id = self._eos_id if pad is None else int(pad)
        plain = self.encode("a")
        wrapped = [int(token) for token in tokenizer("a").input_ids]
        start = next(
            (at for at in range(len(wrapped)) if wrapped[at : at + len(plain)] == plain), 0
        )
        self._prefix_ids = tuple(wrapped[:start])
        self._specials = sorted(
            {str(token) for token in tokenizer.get_added_vocab()}
            | {str(token) for token in tokenizer.all_special_tokens},
            key=lambda token: (-len(token), token),
        )

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """See `TextTokenizer`: the beginning-of-text token, for tokenizers that add one."""
        return self._prefix_ids

    @property
    def eos_id(self) -> int:
        """See `TextTokenizer`."""
        return self._eos_id

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """See `TextTokenizer`."""
        return (self._eos_id,)

    @property
    def pad_id(self) -> int:
        """See `TextTokenizer`: the end token where there is no padding token."""
        return self._pad_id

    @property
    def vocab_size(self) -> int:
        """See `TextTokenizer`."""
        return len(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """See `TextTokenizer`."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See `TextTokenizer`."""
        if not texts:
            return []
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        return [[int(token) for token in ids] for ids in encoded.input_ids]

    def decode(self, ids: Sequence[int]) -> str:
        """See `TextTokenizer`."""
        known = [token for token in ids if 0 <= token < len(self._tokenizer)]
        return str(
            self._tokenizer.decode(
                known, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """See `TextTokenizer`."""
        return self.chat_around(messages, None)[0]

    def chat_prompt(self, text: str) -> list[int]:
        """See `TextTokenizer`."""
        return self.chat([{"role": "user", "content": text}])

    def chat_around(
        self, messages: Sequence[Mapping[str, str]], gap: str | None
    ) -> list[list[int]]:
        """See `TextTokenizer`; each piece between gaps is encoded apart."""
        if self._tokenizer.chat_template is None:
            text = "\n\n".join(message["content"] for message in messages)
            first, *rest = map(self.encode, split_at(text, gap))
            return [[*self._prefix_ids, *first], *rest]
        if not any(
            special in message["content"] for message in messages for special in self._specials
        ):
            return [self._encode_template(piece) for piece in split_at(self._render(messages), gap)]
        return self._chat_around_contents(messages, gap)

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        )

    def _encode_template(self, text: str) -> list[int]:
        """Encode what the template wrote, where special tokens are meant."""
        if not text:
            return []
        ids = self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return [int(token) for token in ids]

    def _chat_around_contents(
        self, messages: Sequence[Mapping[str, str]], gap: str | None
    ) -> list[list[int]]:
        """Encode contents that spell special tokens apart from the template around them.

        A title such as "<|im_end|>" must stay a text. Encoding in pieces may split a word at the
        seam otherwise than encoding at once, so this way is taken only where it is needed.
        """
        everything = "".join(message["content"] for message in messages) + (gap or "")
        marks = unused_characters(everything, len(messages))
        rendered = self._render(
            [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)]
        )
        pieces: list[list[int]] = [[]]
        for mark, message in zip(marks, messages, strict=True):
            before, found, rendered = rendered.partition(mark)
            if not found:
                raise ModelError("the chat template leaves out or reorders messages")
            first, *rest = map(self.encode, split_at(message["content"], gap))
            pieces[-1] += self._encode_template(before) + first
            pieces += rest
        pieces[-1] += self._encode_template(rendered)
        return pieces


def unused_characters(text: str, n: int) -> list[str]:
    """Return n private-use characters that a text does not contain."""
    marks: list[str] = []
    code = 0xE000
    while len(marks) < n:
        if chr(code) not in text:
            marks.append(chr(code))
        code += 1
    return marks


def split_at(text: str, gap: str | None) -> list[str]:
    """Return a text's pieces between gaps; the text itself where there is none to look for."""
    return [text] if gap is None else text.split(gap)
