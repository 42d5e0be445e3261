"""Data parallelism: gradients live in flat buckets and are summed over the ranks while the backward pass
still runs.

Buckets are laid out once, in the reverse order of the parameters, and reduced in that order whatever
finishes first, so the sums are the same bits in every step and after every restart. Every reduction is a
sum: the loss is divided by the global number of tokens beforehand.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron.parallel.mesh import Axis, Mesh
from megatron.parallel.placement import Placement, copies

BUCKET_ELEMENTS = 1 << 24
NORM_ELEMENTS = 1 << 14
Kind = tuple[tuple[str, ...], tuple[str, ...], str]
NEVER = 1 << 62
"""Gradients that stages share are summed behind the step: a stage that waited for another one in its backward
pass would keep it waiting, too."""


class GradientBuckets:
    """Owns the gradients of the parameters, as views of flat tensors. What the optimizer updates on this rank
    is in `parameters`, where that lies in `placements`, and its gradients in `sums`, flat ones by bucket. All
    that it holds of the weights between steps lies in `held_placements`. `sent_as`: the precision in which
    gradients are sent and summed, where it is not their own."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        table: dict[str, Placement],
        mesh: Mesh,
        bucket_elements: int = BUCKET_ELEMENTS,
        sent_as: torch.dtype | None = None,
    ):
        self.sent_as, self._sent = sent_as, dict[int, Tensor]()
        self.parameters, self.placements, self.mesh = parameters, table, mesh
        self._held, self.held_placements = parameters, table
        self.groups = group_alike(parameters, table, bucket_elements)
        self.flats = [_flat_gradients(group) for group in self.groups]
        self.sums = self.flats
        kinds = [table[next(iter(group))] for group in self.groups]
        self._axes = [[axis for axis in _axes(kind, mesh) if axis.group is not None] for kind in kinds]
        self._shared = ["embedding" in kind.sum_over for kind in kinds]
        self._counted = [copies(kind.copies_over, mesh)[0] == 0 for kind in kinds]
        self._missing: list[int] = []
        self._works: list[dist.Work | None] = []
        self._reducing = False
        self._bucket_of: dict[int, int] = {}
        for bucket, group in enumerate(self.groups):
            for parameter in group.values():
                self._bucket_of[id(parameter)] = bucket
                parameter.register_post_accumulate_grad_hook(lambda _, bucket=bucket: self._ready(bucket))

    @property
    def held(self) -> dict[str, nn.Parameter]:
        """All that this rank holds of the weights, once it is there."""
        self.gather_weights()
        return self._held

    def zero(self) -> None:
        """Forget the gradients of the last step."""
        for flat in self.flats:
            flat.zero_()

    def begin(self, micro_batches: int) -> None:
        """So many backward passes follow: sum every bucket over the ranks once it has all gradients."""
        self._reducing = self.mesh.world.size > 1
        self._missing = [
            NEVER if shared else len(group) * micro_batches
            for group, shared in zip(self.groups, self._shared)
        ]
        self._works = []

    def ready(self, parameter: nn.Parameter) -> None:
        """A parameter's gradient has grown without the backward pass."""
        self._ready(self._bucket_of[id(parameter)])

    def _ready(self, bucket: int) -> None:
        if self._reducing:
            self._missing[bucket] -= 1
            while len(self._works) < len(self.flats) and self._missing[len(self._works)] <= 0:
                self._works.append(self._sum(len(self._works)))

    def _sum(self, bucket: int) -> dist.Work | None:
        """Sum a bucket over its axes; only the last is waited for later. What is sent nowhere stays exact."""
        axes, flat = self._axes[bucket], self.flats[bucket]
        sent = self._sent[bucket] = self._as_sent(flat) if axes else flat
        return start_sums(sent, axes)

    def _as_sent(self, gradients: Tensor) -> Tensor:
        return gradients if self.sent_as is None else gradients.to(self.sent_as)

    def _take(self, bucket: int, into: Tensor) -> None:
        """Keep what has come, in the gradients' own precision."""
        sent = self._sent.pop(bucket)
        if self.sent_as is not None:
            into.copy_(sent)

    def wait(self) -> None:
        """Until all sums are there; a bucket with a parameter that got no gradient is summed now."""
        while self._reducing and len(self._works) < len(self.flats):
            self._works.append(self._sum(len(self._works)))
        for bucket in range(len(self._works)):
            self._finish(bucket)
        self._works = []
        self._reducing = False

    def _finish(self, bucket: int) -> None:
        """Until the sums of a bucket are there."""
        if (work := self._works[bucket]) is not None:
            work.wait()
        if bucket in self._sent:
            self._take(bucket, self.sums[bucket])
        self._works[bucket] = None

    def square(self) -> Tensor:
        """The squared norm over the gradients that this rank counts, a float64 scalar: summed over all ranks
        every element is counted once."""
        norms = [_norms(flat) for flat, counted in zip(self.sums, self._counted) if counted]
        if not norms:
            return torch.zeros((), dtype=torch.float64, device=self.flats[0].device)
        return torch.cat(norms).square().sum()

    def scale(self, factor: Tensor | float) -> None:
        """Multiply all sums."""
        for flat in self.sums:
            flat.mul_(factor)

    def share_weights(self) -> None:
        """Begin to give the other ranks what the optimizer has updated here: nothing, where each updates
        all."""

    def gather_weights(self) -> None:
        """Until what the other ranks have updated is here."""


def group_alike(
    parameters: dict[str, nn.Parameter], table: dict[str, Placement], most: int
) -> list[dict[str, nn.Parameter]]:
    """Parameters whose gradients are summed and counted alike, so many elements of them at most, from the
    last to the first, as the backward pass meets them. Other kinds may lie between those of a group. Groups
    stand in the order in which the backward pass is through with them."""
    groups: list[dict[str, nn.Parameter]] = []
    growing: dict[Kind, dict[str, nn.Parameter]] = {}
    for name, parameter in reversed(parameters.items()):
        kind = _kind(table[name])
        size = sum(one.numel() for one in growing.get(kind, {}).values())
        if kind not in growing or size + parameter.numel() > most:
            growing[kind] = {}
            groups.append(growing[kind])
        growing[kind][name] = parameter
    place = {name: number for number, name in enumerate(reversed(parameters))}
    return sorted(groups, key=lambda group: place[next(reversed(group))])


def _flat_gradients(group: dict[str, nn.Parameter]) -> Tensor:
    """A flat tensor of which the gradients of the group are views."""
    sizes = [parameter.numel() for parameter in group.values()]
    first = next(iter(group.values()))
    flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
    for parameter, part in zip(group.values(), flat.split(sizes)):
        parameter.grad = part.view_as(parameter)
    return flat


def _kind(placement: Placement) -> Kind:
    """Along which axes a gradient is summed, counted and shared."""
    return placement.sum_over, placement.copies_over, placement.shard


def replica_of(placement: Placement) -> str:
    """The axis whose ranks have the same share of a parameter's rows."""
    return placement.shard.replace("shard", "replica")


def _axes(placement: Placement, mesh: Mesh) -> list[Axis]:
    """Where a gradient is summed: between the stages that share it, then over all others at once, and at last
    between ranks with the same share."""
    apart = ("embedding", replica_of(placement))
    first, last = ([mesh.axis(name)] if name in placement.sum_over else [] for name in apart)
    return [*first, mesh.axis(*(name for name in placement.sum_over if name not in apart)), *last]


def start_sums(tensor: Tensor, axes: list[Axis]) -> dist.Work | None:
    """Sum a tensor over axes, one after another; the last sum is on its way."""
    work = None
    for axis in axes:
        if work is not None:
            work.wait()
        work = dist.all_reduce(tensor, group=axis.group, async_op=True)
    return work


def _norms(flat: Tensor) -> Tensor:
    """Norms of pieces of a flat tensor, in float64. Pieces in their own precision are ten times faster on
    a CPU than summing all squares in float64, and short enough to lose nothing that matters."""
    whole = len(flat) // NORM_ELEMENTS * NORM_ELEMENTS
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, NORM_ELEMENTS), dim=1)
    return torch.cat([rows, torch.linalg.vector_norm(flat[whole:])[None]]).double()
