"""ZeRO-1: ranks with the same weights share the optimizer's states and its work. Each has a run of rows of
every parameter: it gets the sums of their gradients, updates them, and sends them to the others.

A run of rows is a box of the global tensor, so checkpoints move between layouts as those of whole parameters
do. Sums over other axes than those of the sharing ranks are made before, as without it.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.parallel.collectives import all_gather, scatter_sums
from megatron.parallel.data_parallel import BUCKET_ELEMENTS, GradientBuckets, start_sums
from megatron.parallel.mesh import SHARING, Axis, Mesh
from megatron.parallel.placement import Placement

UNDERWAY = 2
"""Buckets that are summed at once, as each of them is there twice meanwhile."""


class ShardedBuckets(GradientBuckets):
    """Gradient buckets of which every rank gets the sums of its own rows alone. They take the place of the
    bucket's first gradients, which are of no use behind the sum."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        table: dict[str, Placement],
        mesh: Mesh,
        bucket_elements: int = BUCKET_ELEMENTS,
        sent_as: torch.dtype | None = None,
    ):
        self.axis = mesh.shard
        own = {name: placement_of_rows(table[name], len(one), mesh) for name, one in parameters.items()}
        super().__init__(parameters, own, mesh, bucket_elements, sent_as)
        self.held_placements = table
        self._packed: dict[int, Tensor] = {}
        self.sums = [flat[: sum(self._widths(bucket))] for bucket, flat in enumerate(self.flats)]
        slices = {name: part for bucket in range(len(self.flats)) for name, part in self._slices(bucket)}
        self.parameters = {name: slices[name] for name in parameters}

    def _widths(self, bucket: int) -> list[int]:
        """Elements that a rank has of every parameter, by the first ranks."""
        return [width(one, self.axis.size) for one in self.groups[bucket].values()]

    def _slices(self, bucket: int) -> list[tuple[str, nn.Parameter]]:
        """This rank's rows of a bucket's parameters, in the same memory; their sums are the gradients."""
        found = []
        parts = self.sums[bucket].split(self._widths(bucket))
        for (name, parameter), part in zip(self.groups[bucket].items(), parts):
            mine = nn.Parameter(parameter.detach()[rows_of(len(parameter), self.axis)])
            mine.grad = part[: mine.numel()].view_as(mine)
            found.append((name, mine))
        return found

    def _sum(self, bucket: int) -> dist.Work | None:
        """Sum a bucket over its other axes, then give every rank the sums of its rows, and sum these over the
        ranks that have the same."""
        if bucket >= UNDERWAY:
            self._finish(bucket - UNDERWAY)
        replica = [axis for axis in self._axes[bucket] if axis is self.mesh.replica]
        others = [axis for axis in self._axes[bucket] if axis is not self.mesh.replica]
        sent = self._sent[bucket] = self._as_sent(self.flats[bucket])
        if (work := start_sums(sent, others)) is not None:
            work.wait()
        self._take(bucket, self.flats[bucket])
        gradients = [one.grad for one in self.groups[bucket].values() if one.grad is not None]
        packed = self._packed[bucket] = self._as_sent(pack(gradients, self.axis.size).view(-1))
        mine = self._sent[bucket] = self.sums[bucket].to(packed.dtype)
        work = scatter_sums(mine, packed, self.axis, async_op=True)
        if not replica:
            return work
        if work is not None:
            work.wait()
        return start_sums(mine, replica)

    def _finish(self, bucket: int) -> None:
        super()._finish(bucket)
        self._packed.pop(bucket, None)

    @torch.no_grad()
    def share_weights(self) -> None:
        """Put the rows that every rank has updated into the parameters of all. The buckets do not depend on
        each other, so a forward pass could wait for those of its own layer alone."""
        for bucket in range(len(self.groups)):
            self._share(bucket)

    def _share(self, bucket: int) -> None:
        widths, group = self._widths(bucket), self.groups[bucket]
        mine = [padded(self.parameters[name], size) for name, size in zip(group, widths)]
        rows = all_gather(torch.cat(mine)[None], self.axis)
        for parameter, part in zip(group.values(), rows.split(widths, 1)):
            parameter.copy_(part.reshape(-1)[: parameter.numel()].view_as(parameter))


def rows_of(rows: int, axis: Axis) -> slice:
    """This rank's of so many rows: as many on every rank, but fewer or none on the last ones."""
    each = -(-rows // axis.size)
    return slice(min(axis.rank * each, rows), min((axis.rank + 1) * each, rows))


def placement_of_rows(whole: Placement, rows: int, mesh: Mesh) -> Placement:
    """Where this rank's rows of a parameter lie: no other rank of its shares holds them."""
    again = ("replica",) if mesh.replica.size > 1 else ()
    return whole._replace(
        offset=(whole.offset[0] + rows_of(rows, mesh.shard).start, *whole.offset[1:]),
        sum_over=(*(name for name in whole.sum_over if name not in SHARING), *again),
        copies_over=(*(name for name in whole.copies_over if name not in SHARING), *again),
    )


def width(tensor: Tensor, ranks: int) -> int:
    """Elements of the rows that the first of so many ranks has."""
    return -(-len(tensor) // ranks) * (tensor.numel() // len(tensor))


def padded(tensor: Tensor, size: int) -> Tensor:
    """A tensor made flat, with zeros behind it where it is smaller."""
    flat = tensor.reshape(-1)
    return flat if len(flat) == size else F.pad(flat, (0, size - len(flat)))


def pack(tensors: list[Tensor], ranks: int) -> Tensor:
    """[ranks, N]: the rows that each rank has of every tensor, one behind another."""
    widths = [width(one, ranks) for one in tensors]
    return torch.cat([padded(one, ranks * size).view(ranks, size) for one, size in zip(tensors, widths)], 1)
