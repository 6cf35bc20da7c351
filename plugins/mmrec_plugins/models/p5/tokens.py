"""P5's tokens: a T5 checkpoint's, or a small vocabulary made here; and new ones for items."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.lm.tokenizing import HFTokenizer

FILE = "tokenizer.json"
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
_CONTINUED = "##"


class Tokens:
    """Words to token ids, one word at a time; nothing written in a word is a special token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._text = HFTokenizer(tokenizer)
        self._known: dict[str, list[int]] = {}
        self.pad = int(tokenizer.pad_token_id)
        self.end = int(tokenizer.eos_token_id)

    def __len__(self) -> int:
        """Return one more than the largest id."""
        return len(self.tokenizer)

    def word(self, word: str) -> list[int]:
        """Return the ids of one word."""
        return self.words([word])[0]

    def words(self, words: Sequence[str]) -> list[list[int]]:
        """Return the ids of each word."""
        new = sorted({word for word in words if word not in self._known})
        self._known.update(zip(new, self._text.encode_batch(new), strict=True))
        return [self._known[word] for word in words]

    def number(self, number: int) -> list[int]:
        """Return the ids of a number behind other signs of its word, as 12 is in user_12."""
        return self.word(str(number))

    def add(self, names: Sequence[str]) -> list[int]:
        """Add one new token for each name; return their ids."""
        tokens = [AddedToken(name, normalized=False, special=True) for name in names]
        self.tokenizer.add_tokens(tokens, special_tokens=True)
        ids = [int(at) for at in self.tokenizer.convert_tokens_to_ids(list(names))]
        if len(set(ids)) != len(names):
            raise ModelError("new item tokens have names that the tokenizer has already")
        return ids

    def save(self, folder: Path) -> None:
        """Write the vocabulary as `tokenizer.json`."""
        self.tokenizer.backend_tokenizer.save(str(folder / FILE))

    @classmethod
    def load(cls, folder: Path) -> "Tokens":
        """Read what `save` wrote.

        Raises:
            ModelError: missing or damaged.
        """
        path = folder / FILE
        try:
            backend = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:
            # tokenizers raises bare exceptions of its own
            if not isinstance(error, OSError | UnicodeDecodeError) and type(error) is not Exception:
                raise
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from None
        return cls(_wrapped(backend))


def make_tokens(texts: Iterable[str], *, size: int = 16_384) -> Tokens:
    """Make a WordPiece vocabulary of the words in `texts`: the same texts give the same one.

    Words and marks of the texts are pieces (the most frequent ones where there are too many), and
    so are all their letters and all numbers of one or two digits: anything else is spelt. Numbers
    come in pairs of digits, as they often do in T5's own vocabulary.

    Args:
        texts: what will be written: wordings and titles.
        size: pieces at most.
    """
    backend = Tokenizer(WordPiece({}, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    counts: Counter[str] = Counter()
    for text in texts:
        normal = backend.normalizer.normalize_str(text)
        counts.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    digits = [str(n) for n in range(10)] + [f"{n:02d}" for n in range(100)]
    letters = sorted({letter for word in counts for letter in word})
    words = sorted((w for w in counts if not w.isdigit()), key=lambda w: (-counts[w], w))
    starts = dict.fromkeys([PAD, END, UNKNOWN, *digits, *letters])
    pieces = dict.fromkeys([*starts, *(_CONTINUED + piece for piece in (*digits, *letters))])
    pieces.update(dict.fromkeys(words[: max(0, size - len(pieces))]))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend.model = WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=200)
    return Tokens(_wrapped(backend))


def _wrapped(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=END, unk_token=UNKNOWN
    )
