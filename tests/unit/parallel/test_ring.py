"""Ring attention against plain causal attention, gradients too; documents and dropout are in the parity of
layouts."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Mesh
from megatron.parallel.ring import Block, blocks, ring_attention
from megatron.parallel.slices import slices_of
from tests.support.ranks import run_layout

LENGTH = 24


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(2, 3, LENGTH, 8, dtype=torch.float64, generator=generator) for _ in range(4)]


def round_the_ring(mesh: Mesh) -> list[Tensor]:
    """This rank's places, its results and its gradients."""
    places = slices_of(mesh).seen(LENGTH)
    query, keys, value, grad = (one[:, :, places] for one in inputs())
    given = [one.clone().requires_grad_() for one in (query, keys, value)]
    chunk = LENGTH // (2 * mesh.context.size)
    triangle = torch.ones(chunk, chunk, dtype=torch.bool).tril()

    def allowed(block: Block) -> Tensor | None:
        return triangle if block.diagonal else None

    found = ring_attention(*given, mesh.context, allowed)
    found.backward(grad)
    return [places, found.detach(), *(one.grad for one in given if one.grad is not None)]


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_a_ring_equals_plain_attention(ranks: int) -> None:
    *given, grad = inputs()
    given = [one.requires_grad_() for one in given]
    wanted = F.scaled_dot_product_attention(*given, is_causal=True)
    wanted.backward(grad)
    for places, found, *grads in run_layout(Layout(context=ranks), round_the_ring):
        torch.testing.assert_close(found, wanted[:, :, places], rtol=1e-12, atol=1e-13)
        for one, whole in zip(grads, given, strict=True):
            assert whole.grad is not None
            torch.testing.assert_close(one, whole.grad[:, :, places], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_every_pair_of_chunks_meets_once_and_all_ranks_work_alike(ranks: int) -> None:
    met = [
        [(one.first_query, one.first_key) for source in range(ranks) for one in blocks(rank, source, ranks)]
        for rank in range(ranks)
    ]
    wanted = {(query, key) for query in range(2 * ranks) for key in range(query + 1)}
    assert sorted(pair for one in met for pair in one) == sorted(wanted)
    assert len({len(one) for one in met}) == 1
