"""A layer whose experts two ranks share, at the ends of what can happen to an expert, against one rank that
has all of them: outputs and gradients in double precision."""

import pytest
import torch

from megatron.model.context import make_context
from megatron.model.experts import MixtureOfExperts
from megatron.parallel.dispatch import from_experts, to_experts, way_to_experts
from megatron.parallel.initialization import initialize
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import placements
from megatron.tasks.architecture import gpt_architecture
from tests.support.configurations import make_config
from tests.support.ranks import run_layout

SHAPE = (
    "--train-iters 1 --hidden-size 32 --num-attention-heads 4 --init-method-std 0.5 --moe-group-size 1 "
    "--num-experts 4 "
)
ONE = "--moe-router-topk 1 --moe-router-pre-softmax "
CASES = {
    "plain": ("", 12),
    "gated, shared": ("--swiglu --disable-bias-linear --moe-shared-expert-intermediate-size 8", 12),
    "all to one expert": (ONE, 12),
    "more experts than tokens": ("--num-experts 64 --moe-router-topk 3", 5),
    "less than a token": ("--moe-expert-capacity-factor 1e-3", 12),
    "dropping the last": ("--moe-expert-capacity-factor 0.5 --moe-token-drop-policy position", 12),
    "one token": (ONE, 1),
    "padded": ("--moe-expert-capacity-factor 0.5 --moe-pad-expert-input-to-capacity", 12),
    "padded beyond all tokens": ("--moe-expert-capacity-factor 9 --moe-pad-expert-input-to-capacity", 5),
}
WAYS = {
    "alltoall": Layout(data=2, expert=2),
    "allgather": Layout(data=2, expert=2),
    "expert tensor": Layout(data=2, expert_tensor=2),
}
Found = tuple[torch.Tensor, dict[str, torch.Tensor]]


def computed(mesh: Mesh, case: str, more: str, rows: int) -> Found:
    """Outputs and gradients of so many of four rows, in micro-batches of two, and this rank's gradients of
    the weights in tensors of their global shapes."""
    flags, length = CASES[case]
    layer = (
        MixtureOfExperts(gpt_architecture(make_config(SHAPE + flags + more), 10), 0, mesh).double().train()
    )
    initialize(layer, 3)
    for name, parameter in layer.named_parameters():
        parameter.data += 0.1 * name.endswith("bias")  # which is 0 at first
    if case == "all to one expert":  # of equal scores the first is taken
        layer.router.weight.data.zero_()
    generator = torch.Generator().manual_seed(4)
    x, direction = torch.randn(2, 4, length, 32, dtype=torch.float64, generator=generator)
    first, found = mesh.data.rank * rows, []
    for start in range(first, first + rows, 2):
        inputs = x[start : start + 2].clone().requires_grad_()
        y = layer(inputs, make_context(length, x.device))
        (y * direction[start : start + 2]).sum().backward()
        assert inputs.grad is not None
        found.append(torch.stack([y.detach(), inputs.grad]))
    return torch.cat(found, 1), {name: in_place(layer, name) for name, _ in layer.named_parameters()}


def in_place(layer: MixtureOfExperts, name: str) -> torch.Tensor:
    """The gradient of this rank's part of a weight, and zeros around it."""
    placement, mine = placements(layer)[name], layer.get_parameter(name)
    whole = torch.zeros(placement.global_shape, dtype=torch.float64)
    box = tuple(slice(low, low + size) for low, size in zip(placement.offset, mine.shape))
    whole[box] = 0 if mine.grad is None else mine.grad
    return whole


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_ranks_that_share_experts_compute_what_one_does(case: str, way: str) -> None:
    more = f" --moe-token-dispatcher-type {way}" if way != "expert tensor" else ""
    results = run_layout(WAYS[way], computed, case, more, 2)
    ((outputs, gradients),) = run_layout(Layout(), computed, case, more, 4)
    found = torch.cat([one for one, _ in results], 1)
    torch.testing.assert_close(found, outputs, rtol=0, atol=1e-12)
    for name, wanted in gradients.items():
        torch.testing.assert_close(sum(mine[name] for _, mine in results), wanted, rtol=0, atol=1e-11)


def there_and_back(mesh: Mesh) -> bool:
    """Whether rows come to their experts in order, and back to where they were."""
    counts = torch.tensor([[3, 0, 1, 2, 0, 4], [0] * 6, [0, 5, 0, 0, 0, 0]])[mesh.expert.rank]
    numbers = torch.arange(6).repeat_interleave(counts)
    rows = torch.stack([numbers, torch.arange(len(numbers)) + 100 * mesh.expert.rank], 1)
    way = way_to_experts(counts, mesh.expert)
    came = to_experts(rows, way)
    own = torch.equal(came[:, 0], way.numbers + 2 * mesh.expert.rank)
    ordered = bool((came[:, 0].diff() >= 0).all())
    return own and ordered and torch.equal(from_experts(came, way), rows)


def test_rows_go_to_their_experts_and_come_back() -> None:
    """Of three ranks one sends nothing."""
    assert all(run_layout(Layout(data=3, expert=3), there_and_back))
