"""Wordings as data: YAML files of `id: text with {placeholders}`, checked when they are read.

Ids are words joined by dots, e.g. `form.ranking.2`; what stands before the last dot is the family.
All wordings of a family say the same with the same placeholders, so any may stand for any other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Literal

import yaml

from mmrec_bench.errors import ConfigError, DataFormatError, did_you_mean
from mmrec_bench.types import Image

Language = Literal["en", "zh"]
Value = str | Sequence[str | Image]
"""What fills a placeholder: a text, or texts and pictures in order."""


@dataclass(frozen=True, slots=True)
class Slots:
    """The placeholders of a family of wordings.

    Attributes:
        required: each wording has them all.
        optional: a wording may have them.
    """

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()

    @classmethod
    def of(cls, *required: str, optional: Sequence[str] = ()) -> "Slots":
        """Build from names."""
        return cls(frozenset(required), frozenset(optional))


class Templates(Mapping[str, str]):
    """Wordings by id, in the order of their file."""

    def __init__(self, texts: Mapping[str, str], source: str) -> None:
        self._texts = dict(texts)
        self.source = source

    def __getitem__(self, name: str) -> str:
        if name not in self._texts:
            raise ConfigError(f"{self.source}: no wording {name!r}{did_you_mean(name, self)}")
        return self._texts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def family(self, name: str) -> tuple[str, ...]:
        """Return the ids of a family, in the order of the file.

        Raises:
            ConfigError: there is none; lists the families.
        """
        found = tuple(key for key in self if key.rpartition(".")[0] == name)
        if not found:
            families = {key.rpartition(".")[0] for key in self}
            raise ConfigError(f"{self.source}: no wordings {name!r}{did_you_mean(name, families)}")
        return found

    def fill(self, name: str, **values: str) -> str:
        """Return a wording with its placeholders filled; values are never read for placeholders.

        Raises:
            ConfigError: no such wording.
            KeyError: a placeholder has no value.
        """
        return "".join(str(piece) for piece in self.pieces(name, **values))

    def pieces(self, name: str, **values: Value) -> list[str | Image]:
        """Return a wording as texts and pictures in order; errors as `fill`."""
        pieces: list[str | Image] = []
        for literal, field, _, _ in Formatter().parse(self[name]):
            pieces.append(literal)
            if field is not None:
                value = values[field]
                pieces += [value] if isinstance(value, str) else value
        return pieces


@cache
def _read(stem: str) -> tuple[tuple[str, str], ...]:
    """Read a file of the package's `templates` folder: pairs as written, duplicates and all."""
    name = f"templates/{stem}.yaml"
    try:
        text = files("mmrec_plugins.instructions").joinpath(name).read_text(encoding="utf-8")
        node = yaml.compose(text, yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataFormatError(f"{name}: {' '.join(str(error).split())}") from None
    return parse_pairs(node, name)


def parse_pairs(node: yaml.Node | None, source: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of a YAML mapping of texts; a plain load would drop repeated keys.

    Raises:
        DataFormatError: something else than a mapping of texts; names the line.
    """
    if not isinstance(node, yaml.MappingNode):
        raise DataFormatError(f"{source}: expected a mapping of id to text")
    for key, value in node.value:
        if not (isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            raise DataFormatError(f"{source}, line {line}: expected `id: text`")
    return tuple((key.value, value.value.strip()) for key, value in node.value)


def load_templates(stem: str, slots: Mapping[str, Slots]) -> Templates:
    """Read and check the wordings of `templates/<stem>.yaml`.

    Args:
        stem: of the file in this package, e.g. "en" or "teacher_zh".
        slots: placeholders by family, or by what families begin with: `form` holds for
            `form.ranking` too; the longest match counts.

    Raises:
        DataFormatError: an id or a text that stands there twice, an unknown family, a placeholder
            that is unknown or missing; names the file and the id.
    """
    return check_templates(_read(stem), slots, f"templates/{stem}.yaml")


def check_templates(
    pairs: Sequence[tuple[str, str]], slots: Mapping[str, Slots], source: str
) -> Templates:
    """Check wordings; see `load_templates`."""
    texts: dict[str, str] = {}
    said: dict[tuple[str, str], str] = {}
    for name, text in pairs:
        if name in texts:
            raise DataFormatError(f"{source}: the id {name!r} stands there twice")
        family = name.rpartition(".")[0]
        twin = said.setdefault((family, " ".join(text.split())), name)
        if twin != name:
            raise DataFormatError(f"{source}: {name!r} says the same as {twin!r}")
        _check_placeholders(name, text, _slots_of(name, slots, source), source)
        texts[name] = text
    for family in slots:
        if not any(name == family or name.startswith(family + ".") for name in texts):
            raise DataFormatError(f"{source}: no wording of {family!r}")
    return Templates(texts, source)


def _slots_of(name: str, slots: Mapping[str, Slots], source: str) -> Slots:
    prefix = name
    while prefix not in slots:
        prefix, dot, _ = prefix.rpartition(".")
        if not dot:
            raise DataFormatError(
                f"{source}: unknown family of {name!r}{did_you_mean(name, slots)}"
            )
    return slots[prefix]


def _check_placeholders(name: str, text: str, slots: Slots, source: str) -> None:
    if not text:
        raise DataFormatError(f"{source}: {name!r} is empty")
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise DataFormatError(f"{source}: {name!r}: {error}; write {{{{ for a brace") from None
    found = {field for _, field, _, _ in parsed if field is not None}
    plain = all(not spec and conversion is None for _, _, spec, conversion in parsed)
    known = slots.required | slots.optional
    if not plain or found - known:
        strange = ", ".join(sorted(found - known)) or "a format or a conversion"
        raise DataFormatError(
            f"{source}: {name!r} has the placeholder {strange!r}{did_you_mean(strange, known)}"
        )
    if lacking := slots.required - found:
        raise DataFormatError(f"{source}: {name!r} lacks the placeholder {min(lacking)!r}")
