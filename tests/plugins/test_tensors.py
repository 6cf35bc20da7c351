"""Tests of rows taken from a tensor."""

import torch

from mmrec_plugins.models.tensors import take_rows


def _gradients(table: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    leaf = table.clone().requires_grad_()
    (found,) = torch.autograd.grad((take_rows(leaf, index) * weight).sum(), leaf)
    return found


class TestTakeRows:
    def test_rows_and_gradients_are_those_of_indexing(self) -> None:
        rng = torch.Generator().manual_seed(0)
        for shape in [(5,), (5, 3), (5, 2, 3)]:
            table = torch.randn(shape, generator=rng, dtype=torch.float64)
            index = torch.tensor([[4, 0, 4], [1, 4, 0]])
            weight = torch.randn(2, 3, *shape[1:], generator=rng, dtype=torch.float64)
            assert torch.equal(take_rows(table, index), table[index])
            plain = table.clone().requires_grad_()
            (wanted,) = torch.autograd.grad((plain[index] * weight).sum(), plain)
            torch.testing.assert_close(_gradients(table, index, weight), wanted)

    def test_an_empty_table_gives_no_rows(self) -> None:
        assert take_rows(torch.zeros(0, 2, 3), torch.zeros(0, dtype=torch.int64)).shape == (0, 2, 3)

    def test_gradients_of_rows_taken_often_repeat_bit_for_bit_on_four_threads(self) -> None:
        rng = torch.Generator().manual_seed(0)
        table = torch.randn(4, 64, generator=rng)
        index = torch.randint(4, (20_000,), generator=rng)
        weight = torch.randn(20_000, 64, generator=rng)
        before = torch.get_num_threads()
        torch.set_num_threads(4)
        try:
            first = _gradients(table, index, weight)
            assert all(torch.equal(_gradients(table, index, weight), first) for _ in range(5))
        finally:
            torch.set_num_threads(before)
