"""ZeRO-1: ranks with the same weights share the optimizer's states and its work. Each has a run of rows of
every parameter: it gets the sums of their gradients, updates them, and sends them to the others while the
next forward pass already runs.

A run of rows is a box of the global tensor, so checkpoints move between layouts as those of whole parameters
do. Sums over other axes than those of the sharing ranks are made before, as without it.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.parallel.collectives import gather_parts, scatter_sums
from megatron.parallel.data_parallel import BUCKET_ELEMENTS, GradientBuckets, replica_of, start_sums
from megatron.parallel.mesh import SHARING, Axis, Mesh
from megatron.parallel.placement import Placement
from megatron.parallel.stages import StageModule

UNDERWAY = 2
"""Buckets that are summed, or gathered, at once, as each of them is there twice meanwhile."""


class ShardedBuckets(GradientBuckets):
    """Gradient buckets of which every rank gets the sums of its own rows alone. They take the place of the
    bucket's first gradients, which are of no use behind the sum. A bucket of which no other rank has the same
    is as without ZeRO."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        table: dict[str, Placement],
        mesh: Mesh,
        bucket_elements: int = BUCKET_ELEMENTS,
        sent_as: torch.dtype | None = None,
    ):
        own = {name: placement_of_rows(table[name], len(one), mesh) for name, one in parameters.items()}
        super().__init__(parameters, own, mesh, bucket_elements, sent_as)
        kinds = [own[next(iter(group))] for group in self.groups]
        self.shards = [mesh.axis(kind.shard) for kind in kinds]
        self._replicas = [mesh.axis(replica_of(kind)) for kind in kinds]
        self.held_placements = table
        self._packed: dict[int, Tensor] = {}
        self.sums = [flat[: sum(self._widths(bucket))] for bucket, flat in enumerate(self.flats)]
        slices = {name: part for bucket in range(len(self.flats)) for name, part in self._slices(bucket)}
        self.parameters = {name: slices[name] for name in parameters}
        turns = turns_of(self.groups, list(parameters))
        self._turns = [bucket for bucket in turns if self.shards[bucket].size > 1]
        self._gathered = len(self._turns)
        self._arriving: deque[tuple[dist.Work | None, Tensor, Tensor]] = deque()

    def _widths(self, bucket: int) -> list[int]:
        """Elements that a rank has of every parameter, by the first ranks."""
        return [width(one, self.shards[bucket].size) for one in self.groups[bucket].values()]

    def _slices(self, bucket: int) -> list[tuple[str, nn.Parameter]]:
        """This rank's rows of a bucket's parameters, in the same memory; their sums are the gradients."""
        found = []
        parts = self.sums[bucket].split(self._widths(bucket))
        for (name, parameter), part in zip(self.groups[bucket].items(), parts):
            mine = nn.Parameter(parameter.detach()[rows_of(len(parameter), self.shards[bucket])])
            mine.grad = part[: mine.numel()].view_as(mine)
            found.append((name, mine))
        return found

    def _sum(self, bucket: int) -> dist.Work | None:
        """Sum a bucket over its other axes, then give every rank the sums of its rows, and sum these over the
        ranks that have the same."""
        if bucket >= UNDERWAY:
            self._finish(bucket - UNDERWAY)
        axis = self.shards[bucket]
        if axis.size == 1:
            return super()._sum(bucket)
        replica = [one for one in self._axes[bucket] if one is self._replicas[bucket]]
        others = [one for one in self._axes[bucket] if one is not self._replicas[bucket]]
        if others:
            self._sum_whole(bucket, others)
        gradients = [one.grad for one in self.groups[bucket].values() if one.grad is not None]
        sent = [self._as_sent(one) for one in gradients]
        packed = self._packed[bucket] = pack(sent, axis.size).view(-1)
        mine = self._sent[bucket] = self.sums[bucket].to(packed.dtype)
        work = scatter_sums(mine, packed, axis, async_op=True)
        if not replica:
            return work
        if work is not None:
            work.wait()
        return start_sums(mine, replica)

    def _sum_whole(self, bucket: int, axes: list[Axis]) -> None:
        """Sum all gradients of a bucket over axes, in place."""
        sent = self._sent[bucket] = self._as_sent(self.flats[bucket])
        if (work := start_sums(sent, axes)) is not None:
            work.wait()
        self._take(bucket, self.flats[bucket])

    def _finish(self, bucket: int) -> None:
        super()._finish(bucket)
        self._packed.pop(bucket, None)

    def wait(self) -> None:
        """Also for weights that no forward pass has waited for: they are updated next."""
        self.gather_weights()
        super().wait()

    def share_weights(self) -> None:
        """Begin to put the rows that every rank has updated into the parameters of all."""
        self._gathered = 0
        for turn in range(min(UNDERWAY, len(self._turns))):
            self._send(turn)

    @torch.no_grad()
    def gather_weights(self, turns: int | None = None) -> None:
        """Until so many buckets are here, else all, in the order in which a forward pass needs them."""
        while self._gathered < (len(self._turns) if turns is None else turns):
            self._receive(self._gathered)
            self._gathered += 1
            if self._gathered + len(self._arriving) < len(self._turns):
                self._send(self._gathered + len(self._arriving))

    @torch.no_grad()
    def _send(self, turn: int) -> None:
        bucket = self._turns[turn]
        mine = [
            padded(self.parameters[name], size)
            for name, size in zip(self.groups[bucket], self._widths(bucket))
        ]
        sent, axis = torch.cat(mine), self.shards[bucket]
        rows = sent.new_empty((axis.size, len(sent)))
        self._arriving.append((gather_parts(rows.view(-1), sent, axis, async_op=True), sent, rows))

    def _receive(self, turn: int) -> None:
        bucket, (work, _, rows) = self._turns[turn], self._arriving.popleft()
        if work is not None:
            work.wait()
        for parameter, part in zip(self.groups[bucket].values(), rows.split(self._widths(bucket), 1)):
            parameter.copy_(part.reshape(-1)[: parameter.numel()].view_as(parameter))

    def wait_in(self, stage: StageModule) -> None:
        """Let whatever computes with a stage's weights wait for them: a layer for its own, what is behind the
        layers for theirs, and the stage for all others before it begins."""
        layers = list(stage.layers.values())
        late = [one for name in stage.behind_layers if (one := getattr(stage, name)) is not None]
        inside = {id(one) for module in (*layers, *late) for one in module.parameters()}
        turns = self._turns_until(one for one in stage.parameters() if id(one) not in inside)
        self._wait_before(stage, turns)
        for name in stage.entrances:
            setattr(stage, name, _after(lambda: self.gather_weights(turns), getattr(stage, name)))
        for layer in layers:
            self._wait_before(layer, self._turns_until(layer.parameters()))
        for first in late[:1]:
            self._wait_before(first, self._turns_until(p for one in late for p in one.parameters()))

    def _turns_until(self, parameters: Iterable[nn.Parameter]) -> int:
        """How many buckets must be here before these are."""
        turns = {bucket: turn + 1 for turn, bucket in enumerate(self._turns)}
        return max((turns.get(self._bucket_of[id(one)], 0) for one in parameters), default=0)

    def _wait_before(self, module: nn.Module, turns: int) -> None:
        module.register_forward_pre_hook(lambda *_: self.gather_weights(turns))


def turns_of(groups: list[dict[str, nn.Parameter]], names: list[str]) -> list[int]:
    """The buckets in the order in which a forward pass needs them: by the first parameter of each."""
    place = {name: number for number, name in enumerate(names)}
    return sorted(range(len(groups)), key=lambda bucket: min(place[name] for name in groups[bucket]))


def _after(before: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function before which another one is called."""

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        before()
        return function(*arguments, **named)

    return call


def rows_of(rows: int, axis: Axis) -> slice:
    """This rank's of so many rows: as many on every rank, but fewer or none on the last ones."""
    each = -(-rows // axis.size)
    return slice(min(axis.rank * each, rows), min((axis.rank + 1) * each, rows))


def placement_of_rows(whole: Placement, rows: int, mesh: Mesh) -> Placement:
    """Where this rank's rows of a parameter lie: no other rank of its shares holds them."""
    axis, replica = mesh.axis(whole.shard), replica_of(whole)
    if axis.size == 1:
        return whole
    again = (replica,) if mesh.axis(replica).size > 1 else ()
    gone = (*SHARING, "expert_data")
    return whole._replace(
        offset=(whole.offset[0] + rows_of(rows, axis).start, *whole.offset[1:]),
        sum_over=(*(name for name in whole.sum_over if name not in gone), *again),
        copies_over=(*(name for name in whole.copies_over if name not in gone), *again),
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
