"""Gradient buckets on several ranks: exact sums, a fixed order, and tolerance of unused parameters."""

import pytest
import torch

from megatron.base.errors import UserError
from megatron.model.inputs import GPTInputs
from megatron.parallel.data_parallel import GradientBuckets
from megatron.parallel.mesh import Mesh, agree, sum_over
from megatron.parallel.placement import Placement, placements
from megatron.parallel.zero import ShardedBuckets
from tests.support.models import loss_of, make_model, random_batch
from tests.support.ranks import run_ranks


def gradients(mesh: Mesh, bucket_elements: int, accumulate: int) -> tuple[list[torch.Tensor], float]:
    """Gradients of the summed loss over six rows, shared among the ranks in `accumulate` pieces each."""
    model = make_model("")
    parameters = dict(model.named_parameters())
    buckets = GradientBuckets(parameters, placements(model), mesh, bucket_elements)
    rows = torch.arange(6).view(accumulate, mesh.data.size, -1)[:, mesh.data.rank]
    batch = random_batch(6)
    buckets.zero()
    buckets.begin(accumulate)
    for part in rows:
        loss_of(model, GPTInputs(batch.tokens[part], batch.labels[part], part)).backward()
    buckets.wait()
    return [parameter.grad.clone() for parameter in parameters.values()], float(
        sum_over(buckets.square(), mesh.world).sqrt()
    )


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (3, 2), (2, 3)])
def test_sums_equal_one_rank(ranks, accumulate):
    (wanted, norm), *_ = run_ranks(1, gradients, 1 << 24, 1)
    for found, other_norm in run_ranks(ranks, gradients, 3000, accumulate):
        for a, b in zip(found, wanted):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        assert abs(other_norm - norm) < 1e-10 * norm


def test_every_rank_holds_the_same_bits():
    first, second, third = run_ranks(3, gradients, 2000, 2)
    for a, b, c in zip(first[0], second[0], third[0]):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def shared_update(mesh: Mesh, bucket_elements: int) -> tuple[list[torch.Tensor], float]:
    """Weights behind `w -= sum of gradients`, in which every rank updates its rows, and the sums' norm."""
    model = make_model("")
    parameters = dict(model.named_parameters())
    buckets = ShardedBuckets(parameters, placements(model), mesh, bucket_elements)
    batch, rows = random_batch(6), torch.arange(6).view(mesh.data.size, -1)[mesh.data.rank]
    for _ in range(2):  # what the first sums have left must not be in the second ones
        buckets.zero()
        buckets.begin(1)
        loss_of(model, GPTInputs(batch.tokens[rows], batch.labels[rows], rows)).backward()
        buckets.wait()
    norm = float(sum_over(buckets.square(), mesh.world).sqrt())
    buckets.scale(0.5)
    with torch.no_grad():
        for one in buckets.parameters.values():
            one -= 2 * one.grad
    buckets.share_weights()
    return [one.detach() for one in buckets.held.values()], norm


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_that_share_an_update_make_that_of_one(ranks):
    """3 ranks do not divide the rows of all parameters."""
    ((wanted, norm),) = run_ranks(1, gradients, 1 << 24, 1)
    first = [one.detach() for one in make_model("").parameters()]
    assert any(len(one) % 3 for one in first)
    for found, other_norm in run_ranks(ranks, shared_update, 3000):
        for after, before, gradient in zip(found, first, wanted):
            torch.testing.assert_close(after, before - gradient, rtol=1e-10, atol=1e-12)
        assert abs(other_norm - norm) < 1e-10 * norm


def unused(mesh: Mesh) -> list[float]:
    used, idle = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    table = {name: Placement((2,), (0,)) for name in ("used", "idle")}
    buckets = GradientBuckets({"used": used, "idle": idle}, table, mesh, 2)
    for _ in range(2):
        buckets.zero()
        buckets.begin(1)
        (used * (mesh.world.rank + 1)).sum().backward()
        buckets.wait()
    return [float(used.grad[0]), float(idle.grad[0])]


def test_a_parameter_without_gradient_does_not_block():
    assert run_ranks(2, unused) == [[3.0, 0.0], [3.0, 0.0]]


def test_ranks_that_disagree_are_stopped():
    def disagree(mesh: Mesh) -> str:
        agree("the seed", 5, mesh)
        try:
            agree("the plan", mesh.world.rank, mesh)
        except UserError as error:
            return str(error)
        return ""

    assert all("disagree on the plan" in message for message in run_ranks(2, disagree))
