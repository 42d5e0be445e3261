"""Communication inside a model: what goes one way forward goes the other way backward."""

import torch
from torch import Tensor

from megatron.parallel.collectives import copy_to, exchange, gather_along, sum_and_part, sum_from
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import ALONE, Mesh
from tests.support.ranks import run_layout

RANKS = 3


def part_of(rank: int, rows: int = 2) -> Tensor:
    return torch.arange(rows * 6.0, dtype=torch.float64).view(rows, 6) + 100 * rank


def forward_and_back(mesh: Mesh) -> list[tuple[Tensor, Tensor]]:
    """Of every function the result, and the gradient where the result's is its own number of rank."""
    axis, found = mesh.tensor, []
    for function in (
        lambda x: copy_to(x, axis),
        lambda x: sum_from(x, axis),
        lambda x: gather_along(x, axis, 1),
        lambda x: sum_and_part(x, axis, 1),
    ):
        x = part_of(axis.rank).requires_grad_()
        y = function(x)
        y.backward(torch.full_like(y, axis.rank + 1.0))
        assert x.grad is not None
        found.append((y.detach(), x.grad))
    return found


def test_forward_and_backward() -> None:
    parts = [part_of(rank) for rank in range(RANKS)]
    total, ones = sum(parts), torch.ones(2, 6, dtype=torch.float64)
    for rank, found in enumerate(run_layout(Layout(tensor=RANKS), forward_and_back)):
        (copied, copied_grad), (summed, summed_grad), (joined, joined_grad), (mine, mine_grad) = found
        assert torch.equal(copied, parts[rank]) and torch.equal(copied_grad, 6 * ones)
        assert torch.equal(summed, total) and torch.equal(summed_grad, (rank + 1) * ones)
        assert torch.equal(joined, torch.cat(parts, 1)) and torch.equal(joined_grad, 6 * ones)
        assert torch.equal(mine, total.chunk(RANKS, 1)[rank])
        assert mine_grad[0].tolist() == [1, 1, 2, 2, 3, 3]


def exchanged(mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Rank r sends r + s rows to rank s."""
    axis = mesh.context
    send = [axis.rank + other for other in range(axis.size)]
    x = part_of(axis.rank, sum(send)).requires_grad_()
    y = exchange(x, send, send, axis)  # as many come from s as go there
    (y * (axis.rank + 1)).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


def test_uneven_exchange() -> None:
    results = run_layout(Layout(context=RANKS), exchanged)
    sent = [part_of(rank, sum(rank + other for other in range(RANKS))) for rank in range(RANKS)]
    pieces = [one.split([rank + other for other in range(RANKS)]) for rank, one in enumerate(sent)]
    for rank, (found, grad) in enumerate(results):
        assert torch.equal(found, torch.cat([pieces[other][rank] for other in range(RANKS)]))
        wanted = [float(other + 1) for other in range(RANKS) for _ in range(rank + other)]
        assert grad[:, 0].tolist() == wanted


def test_one_rank_is_left_alone() -> None:
    x = part_of(1)
    for found in (
        copy_to(x, ALONE),
        sum_from(x, ALONE),
        gather_along(x, ALONE, 1),
        sum_and_part(x, ALONE, 1),
    ):
        assert found is x
    assert exchange(x, [2], [2], ALONE) is x
