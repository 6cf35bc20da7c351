"""What items are called: the ID schemes of P5 and of Hua et al. (SIGIR-AP 2023, arXiv 2305.06569).

Numbers in order of appearance are the published scheme, and a leaky one where they are given over
whole sequences: neighbours in a sequence get neighbouring numbers, the test item too. A model here
sees train interactions only, so `sequential` numbers what appears there, user by user; items that
do not appear come last. `numbering=catalog` takes the run's own numbers instead. Under
`protocol.permute_ids=false` these are the data set's, e.g. those of the S3-Rec / P5 Beauty file,
which were given over all interactions: this is the published figure with its leak. Under permuted
ids they tell nothing.

Letters: N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Int64Array
from mmrec_plugins.models.p5.collaborative import cluster_paths
from mmrec_plugins.models.p5.options import P5Config
from mmrec_plugins.models.p5.tokens import Tokens

_UNTITLED = "untitled"


@dataclass(frozen=True, slots=True)
class Names:
    """What each item is called, before it is tokens.

    Attributes:
        words: of each item, its words.
        new: words that become one new token each; () = all are words of the tokenizer.
    """

    words: tuple[tuple[str, ...], ...]
    new: tuple[str, ...] = ()


def name_items(config: P5Config, data: TrainingData, *, seed: int) -> Names:
    """Name all items of a catalog by the scheme of the options."""
    n_items = data.n_items
    if config.ids == "sequential":
        by_train = config.numbering == "train"
        numbers = order_of_appearance(data) if by_train else np.arange(n_items)
        return _numbered(numbers)
    if config.ids == "random":
        return _numbered(np.random.default_rng([seed, n_items]).permutation(n_items))
    if config.ids == "independent":
        new = tuple(f"<item_{item}>" for item in range(n_items))
        return Names(tuple((name,) for name in new), new)
    if config.ids == "collaborative":
        paths = cluster_paths(
            data.interactions,
            data.n_users,
            n_items,
            n_clusters=config.n_clusters,
            cluster_size=config.cluster_size,
            seed=seed,
        )
        words = tuple(tuple(_cluster_words(path)) for path in paths)
        return Names(words, tuple(sorted({word for name in words for word in name})))
    titles = (tuple(title.split()) for title in data.catalog.title)
    return Names(tuple(title or (_UNTITLED,) for title in titles))


def order_of_appearance(data: TrainingData) -> Int64Array:
    """Return (N,) int64: numbers by first appearance in train, user by user; the rest last."""
    n_items = data.n_items
    items, first = np.unique(data.interactions.item, return_index=True)
    place = np.full(n_items, len(data.interactions), np.int64)
    place[items] = first
    numbers = np.empty(n_items, np.int64)
    numbers[np.argsort(place, kind="stable")] = np.arange(n_items)
    return numbers


def codes_of(names: Names, tokens: Tokens, *, longest: int | None = None) -> list[list[int]]:
    """Return the token ids of each item, all different; adds the new tokens to the tokenizer.

    Args:
        names: of the items.
        tokens: of the model.
        longest: names are cut to so many tokens; None = never. What is the same then is told apart
            by a number behind it, given in the order of the items.
    """
    known = dict(zip(names.new, tokens.add(names.new), strict=True)) if names.new else {}
    if known:
        return [[known[word] for word in name] for name in names.words]
    flat = tokens.words([word for name in names.words for word in name])
    codes, at = [], 0
    for name in names.words:
        code = [token for word in flat[at : at + len(name)] for token in word]
        codes.append(code[:longest] if longest else code)
        at += len(name)
    return _told_apart(codes, tokens)


def _told_apart(codes: Sequence[list[int]], tokens: Tokens) -> list[list[int]]:
    taken: set[tuple[int, ...]] = {tuple(code) for code in codes}
    seen: dict[tuple[int, ...], int] = {}
    distinct = []
    for code in codes:
        key = tuple(code)
        seen[key] = count = seen.get(key, 0) + 1
        while count > 1:
            numbered = (*key, *tokens.number(count))
            if numbered not in taken:
                taken.add(numbered)
                seen[key] = count
                key = numbered
                break
            count += 1
        distinct.append(list(key))
    return distinct


def _numbered(numbers: Int64Array) -> Names:
    return Names(tuple((str(number),) for number in numbers.tolist()))


def _cluster_words(path: Sequence[int]) -> list[str]:
    """Return a token a level; the same names below different parents, and own ones for leaves."""
    *clusters, leaf = path
    return [*(f"<c{level}_{cluster}>" for level, cluster in enumerate(clusters)), f"<i_{leaf}>"]
