"""Sequences shared among ranks: equal parts, and kept tokens that come to the ranks that compute them and go
back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from megatron.parallel.collectives import all_gather
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Axis, Mesh
from megatron.parallel.slices import (
    Slices,
    heads_for_places,
    in_order,
    places_for_heads,
    plan_moves,
    put_kept,
    slices_of,
    take_kept,
)
from tests.support.ranks import run_layout

ROWS, LENGTH, KEPT, WIDTH = 3, 24, 16, 5
SHARED = [Layout(context=2), Layout(tensor=2, sequence_parallel=True)]
SHARED += [Layout(context=2, tensor=2, sequence_parallel=True), Layout(context=4)]


def test_zigzag_gives_a_rank_an_early_and_a_late_chunk() -> None:
    first, second = (Slices(Axis(rank, 2)) for rank in range(2))
    assert first.seen(8).tolist() == [0, 1, 6, 7] and second.seen(8).tolist() == [2, 3, 4, 5]
    assert first.queries(8) == [(0, 2), (6, 2)] and second.queries(8) == [(2, 2), (4, 2)]
    assert Slices(Axis(1, 2), way="a2a").queries(8) == [(0, 8)]
    shared = Slices(Axis(0, 2), Axis(1, 2))
    assert shared.seen(8).tolist() == [0, 1, 6, 7] and shared.held(8).tolist() == [6, 7]
    assert Slices().seen(5).tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2), (3, 2)]), st.integers(0, 99))
def test_every_kept_token_goes_once_where_it_is_computed(sizes: tuple[int, int], seed: int) -> None:
    context, tokens = sizes
    ranks = context * tokens
    generator = np.random.default_rng(seed)
    kept = np.sort(np.stack([generator.permutation(LENGTH)[:12] for _ in range(2)]), 1)
    moves = []
    for rank in range(ranks):
        place = divmod(rank, tokens)
        one = Slices(Axis(place[0], context), Axis(place[1], tokens), Axis(rank, ranks))
        moves.append(plan_moves(kept, LENGTH, one))
    for rank, one in enumerate(moves):
        slots = torch.cat([one.stay_to, one.come_to]).sort().values
        assert slots.tolist() == list(range(2 * 12 // ranks)), "every slot is filled once"
        assert one.send == [other.receive[rank] for other in moves], "what is sent is received"
        assert one.send[rank] == 0 and sum(one.send) == len(one.leave)


def whole(rows: int = ROWS, length: int = LENGTH) -> Tensor:
    return torch.randn(rows, length, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def places_kept() -> Tensor:
    order = torch.rand(ROWS, LENGTH, generator=torch.Generator().manual_seed(5)).argsort(1)[:, :KEPT]
    return order.sort(1).values


def gathered(part: Tensor, slices: Slices, length: int) -> Tensor:
    """The parts of all ranks in the order of their places."""
    places = all_gather(slices.held(length), slices.both)
    return all_gather(part.transpose(0, 1), slices.both).transpose(0, 1)[:, places.argsort()]


def there_and_back(mesh: Mesh) -> tuple[Tensor, Tensor, Tensor]:
    """The kept tokens as they are computed, the sequence with three times them, and gradients."""
    slices, kept = slices_of(mesh), places_kept()
    moves = plan_moves(kept.numpy(), LENGTH, slices)
    x = whole()[:, slices.held(LENGTH)].requires_grad_()
    taken = take_kept(x, moves, slices)
    back = put_kept(x, 3 * taken, moves, slices)
    weights = torch.arange(LENGTH)[slices.held(LENGTH), None] + 1.0
    (back * weights).sum().backward()
    assert x.grad is not None
    parts = ((taken.detach(), KEPT), (back.detach(), LENGTH), (x.grad, LENGTH))
    taken, back, grad = (gathered(part, slices, length) for part, length in parts)
    return taken, back, grad


@pytest.mark.parametrize("layout", SHARED, ids=str)
def test_kept_tokens_go_there_and_back(layout: Layout) -> None:
    index = places_kept()[..., None].expand(-1, -1, WIDTH)
    x = whole()
    wanted = x.scatter(1, index, 3 * x.gather(1, index))
    factors = torch.ones_like(x).scatter(1, index, 3.0) * (torch.arange(LENGTH)[:, None] + 1.0)
    for taken, back, grad in run_layout(layout, there_and_back):
        assert torch.equal(taken, x.gather(1, index))
        assert torch.equal(back, wanted)
        assert torch.equal(grad, factors)


def heads_there_and_back(mesh: Mesh) -> tuple[Tensor, Tensor]:
    slices = slices_of(mesh)
    heads = whole(2, 16).unflatten(-1, (1, WIDTH)).transpose(1, 2).repeat(1, 4, 1, 1)
    heads = heads * torch.arange(1.0, 5)[:, None, None]
    mine = heads[:, :, slices.seen(16)]
    places = heads_for_places(mine, mesh.context)
    assert torch.equal(places, heads.chunk(mesh.context.size, 1)[mesh.context.rank])
    assert torch.equal(places_for_heads(places, mesh.context), mine)
    return in_order(all_gather(mine, mesh.context, 2), mesh.context.size), heads


@pytest.mark.parametrize("ranks", [2, 4])
def test_heads_are_exchanged_for_places_and_chunks_put_in_order(ranks: int) -> None:
    for found, wanted in run_layout(Layout(context=ranks), heads_there_and_back):
        assert torch.equal(found, wanted)
