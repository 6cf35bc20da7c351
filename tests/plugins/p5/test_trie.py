"""The trie of item tokens, against dicts of starts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.p5.trie import ItemTrie
from tests.plugins.p5.plain_decoding import END, FIXED, VARIABLE

code_sets = st.lists(
    st.lists(st.integers(2, 6), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=30,
    unique=True,
)


def children(trie: ItemTrie, node: int) -> dict[int, int]:
    """Return token -> node of a node's children."""
    nodes = range(int(trie.first[node]), int(trie.first[node + 1]))
    return {int(trie.token[child]): child for child in nodes}


def follow(trie: ItemTrie, tokens: list[int]) -> int:
    node = 0
    for token in tokens:
        node = children(trie, node)[token]
    return node


def test_a_trie_worked_by_hand() -> None:
    trie = ItemTrie.build([[5, 6], [5, 7], [4]], end=1)
    # root; 4, 5; 4-1, 5-6, 5-7; 5-6-1, 5-7-1
    assert trie.token.tolist() == [-1, 4, 5, 1, 6, 7, 1, 1]
    assert trie.first.tolist() == [1, 3, 4, 6, 6, 7, 8, 8, 8]
    assert trie.item.tolist() == [-1, -1, -1, 2, -1, -1, 0, 1]
    assert trie.below.tolist() == [3, 1, 2, 1, 1, 1, 1, 1]
    assert trie.path.tolist() == [[2, 4, 6], [2, 5, 7], [1, 3, -1]]
    assert trie.order.tolist() == [2, 0, 1]
    assert trie.sizes == ((2, 0), (3, 1), (2, 2))
    assert trie.widest == (2, 2, 1)
    assert [tokens.tolist() for tokens in trie.level_tokens] == [[4, 5], [1, 6, 7], [1]]
    assert (trie.n_items, trie.n_nodes, trie.depth) == (3, 8, 3)


@given(codes=code_sets)
@settings(deadline=None)
def test_every_sequence_leads_to_its_item_and_nothing_else_is_allowed(
    codes: list[tuple[int, ...]],
) -> None:
    trie = ItemTrie.build(codes, end=END)
    starts: dict[tuple[int, ...], set[int]] = {}
    for item, code in enumerate(codes):
        tokens = (*code, END)
        assert int(trie.item[follow(trie, list(tokens))]) == item
        for n in range(len(tokens)):
            starts.setdefault(tokens[:n], set()).add(tokens[n])
    for start, allowed in starts.items():
        assert set(children(trie, follow(trie, list(start)))) == allowed
    assert trie.n_nodes - trie.n_items == len(starts)
    assert int((trie.item >= 0).sum()) == len(codes)


@given(codes=code_sets)
@settings(deadline=None)
def test_slots_and_level_tokens_name_the_token_of_each_node(codes: list[tuple[int, ...]]) -> None:
    trie = ItemTrie.build(codes, end=END)
    start = 1
    for tokens, (size, ends), widest in zip(
        trie.level_tokens, trie.sizes, trie.widest, strict=True
    ):
        level = slice(start, start + size)
        assert tokens[trie.slot[level]].tolist() == trie.token[level].tolist()
        assert int((trie.item[level] >= 0).sum()) == ends
        families = [children(trie, node).values() for node in range(start)]
        assert max(sum(start <= child for child in family) for family in families) == widest
        start += size
    assert start == trie.n_nodes


@given(codes=code_sets, data=st.data())
@settings(deadline=None)
def test_a_node_is_closed_where_all_items_below_it_are_excluded(
    codes: list[tuple[int, ...]], data: st.DataObject
) -> None:
    trie = ItemTrie.build(codes, end=END)
    items = st.integers(-1, len(codes) - 1)
    rows = data.draw(st.lists(st.lists(items, min_size=3, max_size=3), min_size=1, max_size=3))
    expected = []
    for source, row in enumerate(rows):
        for node in range(1, trie.n_nodes):
            below = {i for i in range(len(codes)) if node in trie.path[i].tolist()}
            if below <= set(row):
                expected.append(source * trie.n_nodes + node)
    assert trie.closed(torch.tensor(rows)).tolist() == expected


def test_sequences_of_one_length_need_no_end_token() -> None:
    trie = ItemTrie.build(FIXED)
    assert trie.depth == 3
    assert trie.end is None
    assert trie.sizes[-1] == (20, 20)


def test_the_trie_moves_to_a_device_whole() -> None:
    moved = ItemTrie.build(VARIABLE, END).to("meta")
    assert moved.first.is_meta
    assert moved.order.is_meta
    assert all(tokens.is_meta for tokens in moved.level_tokens)
    assert (moved.widest, moved.end) == (ItemTrie.build(VARIABLE, END).widest, END)


def test_no_items_are_refused() -> None:
    with pytest.raises(ModelError, match="at least one item"):
        ItemTrie.build([])


def test_an_item_without_tokens_is_named() -> None:
    with pytest.raises(ModelError, match="item 1 has no tokens"):
        ItemTrie.build([[3], []])


def test_two_items_of_the_same_tokens_are_named() -> None:
    with pytest.raises(ModelError, match=r"items 0 and 2 have the same tokens, \[3, 4\]"):
        ItemTrie.build([[3, 4], [5], [3, 4]])


def test_a_start_of_another_item_asks_for_an_end_token() -> None:
    with pytest.raises(ModelError, match=r"item 1, \[3\], start those of item 0; give the trie an"):
        ItemTrie.build([[3, 4], [3]])
    assert ItemTrie.build([[3, 4], [3]], end=1).n_items == 2


@pytest.mark.parametrize(("token", "end"), [(-1, None), (-3, 1), (1, 1)])
def test_a_token_that_cannot_be_in_a_sequence_is_named(token: int, end: int | None) -> None:
    with pytest.raises(ModelError, match=f"token {token} at place 1 of item 1"):
        ItemTrie.build([[3, 4], [5, token]], end)


def test_an_excluded_item_that_does_not_exist_is_named() -> None:
    with pytest.raises(ModelError, match="item 20 is excluded, but the trie holds 20 items"):
        ItemTrie.build(FIXED).closed(torch.tensor([[3, 20]]))
