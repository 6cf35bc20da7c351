"""A profile by rules: which attributes a history has more often than the catalog has them."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmrec_bench.types import Catalog
from mmrec_plugins.instructions.building.config import Language
from mmrec_plugins.instructions.building.prompts import wording
from mmrec_plugins.instructions.building.rules import Source, attributes_of
from mmrec_plugins.instructions.building.schemas import load_schemas

_MIN_COUNT = 2
_MIN_SCORE = 1.5  # standard deviations over what the catalog would give by chance
_MOST = 4


@dataclass(frozen=True, slots=True)
class Trait:
    """One value of one attribute, as a taste can be for.

    Attributes:
        field: name in the schema.
        value: one word or name.
        source: where it stands: the text or the picture.
        said: how a profile says it, in the language of the build.
    """

    field: str
    value: str
    source: Source
    said: str


class Tastes:
    """Counts traits of histories against the catalog."""

    def __init__(self, catalog: Catalog, language: Language) -> None:
        self.language = language
        self._say = wording("summary", language)
        self._traits = [self._of(catalog, index) for index in range(len(catalog))]
        self._share: Counter[Trait] = Counter(t for traits in self._traits for t in traits)
        self._n_items = max(1, len(catalog))

    def draft(self, liked: Sequence[int], disliked: Sequence[int]) -> str:
        """Return a profile as JSON from item numbers: those liked and those rated low."""
        ranked = self._ranked(liked)
        texts = [trait for trait in ranked if trait.source == "text"][:_MOST]
        looks = [trait for trait in ranked if trait.source == "image"][:_MOST]
        against = [
            trait for trait in self._ranked(disliked) if trait not in ranked and len(disliked) > 1
        ][:_MOST]
        value = {
            "summary": self._summary(texts, looks, against),
            "likes": [trait.said for trait in (*looks[:2], *texts)],
            "dislikes": [trait.said for trait in against],
            "visual_taste": [trait.value for trait in looks],
        }
        return json.dumps(value, ensure_ascii=False)

    def _of(self, catalog: Catalog, index: int) -> frozenset[Trait]:
        item = catalog[index]
        schema = load_schemas().schema_of(item)
        traits = set()
        for name, found in attributes_of(item, schema).items():
            like: Mapping[Language, str] = schema.fields[name].like
            for value in _pieces(found.value):
                shown = value.casefold() if schema.fields[name].attribute == "category" else value
                said = like.get(self.language, "{value}").format(value=shown)
                traits.add(Trait(name, value, found.source, said))
        return frozenset(traits)

    def _ranked(self, items: Sequence[int]) -> list[Trait]:
        """Return traits that are more frequent in `items` than chance would have it, best first."""
        counts = Counter(trait for item in items for trait in self._traits[item])
        scored = []
        for trait, n in counts.items():
            share = self._share[trait] / self._n_items
            expected = share * len(items)
            spread = math.sqrt(max(expected * (1 - share), 1e-9))
            if n >= _MIN_COUNT and share < 1 and (n - expected) / spread >= _MIN_SCORE:
                scored.append(((n - expected) / spread, trait))
        scored.sort(key=lambda pair: (-pair[0], pair[1].field, pair[1].value))
        return [trait for _, trait in scored]

    def _summary(
        self, texts: Sequence[Trait], looks: Sequence[Trait], against: Sequence[Trait]
    ) -> str:
        parts = []
        liked = [trait.said for trait in (*texts, *looks[:2])][:_MOST]
        parts.append(
            self._say["taste"].format(likes=self._list(liked)) if liked else self._say["none"]
        )
        if looks:
            parts.append(self._say["looks"].format(looks=self._list([t.value for t in looks])))
        if against:
            parts.append(
                self._say["dislikes"].format(dislikes=self._list([t.said for t in against]))
            )
        return ("" if self.language == "zh" else " ").join(parts)

    def _list(self, words: Sequence[str]) -> str:
        if len(words) < 2:
            return "".join(words)
        return self._say["comma"].join(words[:-1]) + self._say["and"] + words[-1]


def _pieces(value: str) -> list[str]:
    return [part for piece in value.split(", ") for part in piece.split(" and ") if part]
