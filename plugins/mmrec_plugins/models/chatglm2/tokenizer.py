"""The original ChatGLM2 / ChatGLM3 tokenizer: sentencepiece, with special tokens behind its pieces.

The sentencepiece library itself does the work: it is exact by construction and was the fastest of
the ways tried (a rebuilt `tokenizers` BPE is exact only with `split_special_tokens=True`, and
transformers' `LlamaTokenizer` gives other ids on the same file).

Published description: https://github.com/THUDM/ChatGLM2-6B and
https://github.com/THUDM/ChatGLM3/blob/main/PROMPT_en.md (the chat form of version 3).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2.original import Version, detect_version, read_config

TOKENIZER_FILE = "tokenizer.model"

_SPECIALS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
_ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
# UTF-8 has no place for half a surrogate pair, which broken JSON files do contain.
_SURROGATES = re.compile("[\ud800-\udfff]")


class ChatGLMTokenizer:
    """Ids of the original tokenizer; implements `mmrec_plugins.models.lm.tokenizing.TextTokenizer`.

    Special tokens take the ids from the number of pieces on: [MASK] [gMASK] [sMASK] sop eop, and
    for version 3 <|system|> <|user|> <|assistant|> <|observation|>. They are reached by id alone:
    the same characters in a text are text.
    """

    def __init__(self, model_file: Path, version: Version = 2) -> None:
        """Read a `tokenizer.model`.

        Args:
            model_file: a sentencepiece model whose unknown, start and end pieces are 0, 1 and 2.
            version: 2 or 3: which special tokens and which chat form.

        Raises:
            ModelError: missing, broken, or with other ids for these pieces.
        """
        path = Path(model_file)
        try:
            self._pieces = SentencePieceProcessor(model_proto=path.read_bytes())
        except FileNotFoundError as error:
            raise ModelError(
                f"{path} is missing; it belongs to the checkpoint, download it again"
            ) from error
        except (OSError, RuntimeError) as error:
            raise ModelError(f"{path} is not a sentencepiece model: {error}") from error
        found = (self._pieces.unk_id(), self._pieces.bos_id(), self._pieces.eos_id())
        if found != (0, 1, 2):
            raise ModelError(
                f"{path}: unknown, start and end pieces are {found}, expected (0, 1, 2)"
            )
        self.version: Version = version
        self.n_pieces = int(self._pieces.vocab_size())
        names = _SPECIALS + (_ROLE_TOKENS if version == 3 else ())
        self.special_ids = {name: self.n_pieces + at for at, name in enumerate(names)}

    @classmethod
    def from_folder(cls, folder: Path, *, version: Version | None = None) -> "ChatGLMTokenizer":
        """Read the tokenizer of a checkpoint in the original layout.

        Args:
            folder: with `tokenizer.model` and `config.json`.
            version: 2 or 3 where the checkpoint does not say (see `detect_version`).

        Raises:
            ModelError: as the constructor, or more ids than the model has embeddings.
        """
        config = read_config(folder)
        found = detect_version(config, folder, override=version)
        tokenizer = cls(Path(folder) / TOKENIZER_FILE, found)
        if tokenizer.vocab_size > config.padded_vocab_size:
            raise ModelError(
                f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, but the model only "
                f"padded_vocab_size {config.padded_vocab_size}"
            )
        return tokenizer

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """[gMASK] sop, which every input starts with."""
        return (self.special_ids["[gMASK]"], self.special_ids["sop"])

    @property
    def eos_id(self) -> int:
        """The end piece, 2."""
        return 2

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The end piece; for version 3 also the roles whose turn would come next."""
        if self.version == 2:
            return (self.eos_id,)
        return (self.eos_id, self.special_ids["<|user|>"], self.special_ids["<|observation|>"])

    @property
    def pad_id(self) -> int:
        """The unknown piece, 0, as the original pads; tell padding by the mask."""
        return 0

    @property
    def vocab_size(self) -> int:
        """Pieces and special tokens; the model's embeddings have more rows, which are unused."""
        return self.n_pieces + len(self.special_ids)

    def encode(self, text: str) -> list[int]:
        """Return the pieces' ids of a text, without [gMASK] sop; "</s>" in it is text."""
        ids: list[int] = self._pieces.encode(_without_surrogates(text))
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text; threads share the work."""
        ids: list[list[int]] = self._pieces.encode([_without_surrogates(text) for text in texts])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; special, padding and unused ids are left out, as in the original."""
        kept = [int(token) for token in ids if 2 < token < self.n_pieces]
        text: str = self._pieces.decode(kept)
        return text

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        r"""Return the ids of a conversation up to where the model answers, [gMASK] sop included.

        Version 2 writes rounds of `[Round 1]\n\n问：...\n\n答：...` and knows no system message:
        its text goes before the next question, on lines of its own. Version 3 gives each message
        its role token and an empty line for metadata, and ends with <|assistant|>.

        Args:
            messages: `{"role": "system" | "user" | "assistant", "content": text}`; the last is a
                user's.

        Raises:
            ModelError: another role, or no user message at the end.
        """
        [ids] = self._pieces_of_chat(messages, gap=None)
        return ids

    def chat_prompt(self, text: str) -> list[int]:
        """Return the ids of one user message up to where the answer's text starts.

        For version 3 that is after the line of (empty) metadata behind <|assistant|>, which the
        model would write itself.
        """
        return self.chat_around([{"role": "user", "content": text}], None)[0]

    def chat_around(
        self, messages: Sequence[Mapping[str, str]], gap: str | None
    ) -> list[list[int]]:
        """See `TextTokenizer`; each piece between gaps is encoded apart."""
        pieces = self._pieces_of_chat(messages, gap=gap)
        if self.version != 2 and len(messages) == 1:
            pieces[-1] += self.encode("\n")
        return pieces

    def _pieces_of_chat(
        self, messages: Sequence[Mapping[str, str]], *, gap: str | None
    ) -> list[list[int]]:
        roles = [message["role"] for message in messages]
        unknown = sorted(set(roles) - {"system", "user", "assistant"})
        if unknown:
            raise ModelError(f"unknown chat role {unknown[0]!r}; known: system, user, assistant")
        if not roles or roles[-1] != "user":
            raise ModelError("a conversation must end with a user message to be answered")
        if self.version == 2:
            first, *rest = _split(rounds_text(messages), gap)
            return [[*self.prefix_ids, *self.encode(first)], *map(self.encode, rest)]
        pieces = [list(self.prefix_ids)]
        for message in messages:
            pieces[-1].append(self.special_ids[f"<|{message['role']}|>"])
            first, *rest = _split(message["content"], gap)
            pieces[-1] += self.encode("\n") + self.encode(first)
            pieces += [self.encode(piece) for piece in rest]
        pieces[-1].append(self.special_ids["<|assistant|>"])
        return pieces


def rounds_text(messages: Sequence[Mapping[str, str]]) -> str:
    """Return a conversation as ChatGLM2 writes it, up to where the next answer starts."""
    text, question, number = "", "", 1
    for message in messages:
        if message["role"] == "assistant":
            text += f"[Round {number}]\n\n问：{question}\n\n答：{message['content']}\n\n"
            question, number = "", number + 1
        else:
            question += ("\n" if question else "") + message["content"]
    return f"{text}[Round {number}]\n\n问：{question}\n\n答："


def _split(text: str, gap: str | None) -> list[str]:
    return [text] if gap is None else text.split(gap)


def _without_surrogates(text: str) -> str:
    return _SURROGATES.sub("\ufffd", text)
