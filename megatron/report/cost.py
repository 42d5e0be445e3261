"""How long a step of a layout would take, by a model of few numbers.

A rank computes its FLOPs at a share of its peak. It waits for every byte that it sends over the tensor,
context and pipeline axes, to experts, and for sums of gradients: nothing overlaps. Bytes of a group inside a
machine go at one speed and those of a group across machines at another, as of a ring. Ranks wait in the
pipeline's bubble. Latency, kernels of memory speed, loading and saving are left out.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from megatron.model.share import Share
from megatron.model.traffic import axis_ranks, wire_bytes
from megatron.parallel.layout import Layout
from megatron.tasks.prices import RankPrice


@dataclass(frozen=True)
class Machines:
    """`peak`: FLOP/s of a device, and the share of it that is reached; bytes a second and device inside a
    machine and between machines; devices of a machine."""

    peak: float
    efficiency: float
    inside: float
    between: float
    ranks_a_node: int


class Cost(NamedTuple):
    """Seconds of a step: computing, sending by what for, and waiting in the pipeline."""

    compute: float
    tensor: float
    context: float
    pipeline: float
    experts: float
    gradients: float
    bubble: float

    @property
    def seconds(self) -> float:
        return sum(self)


def step_cost(
    share: Share, price: RankPrice, hardware_flops: float, bubble: float, machines: Machines
) -> Cost:
    """Of the rank with this price; `hardware_flops`: of the whole step; `bubble`: share of the time."""
    layout = share.layout
    spent = dict.fromkeys(("tensor", "context", "pipeline", "experts"), 0.0)
    gradients = 0.0
    for (axis, kind), size in price.traffic.items():
        ranks = axis_ranks(share, axis)
        seconds = wire_bytes(kind, size, ranks) / speed(layout, axis, machines)
        if axis in ("expert", "expert_tensor"):
            spent["experts"] += seconds
        elif (axis in spent and kind != "all_reduce") or axis == "tensor":
            spent[axis] += seconds
        else:
            gradients += seconds
    compute = hardware_flops / layout.ranks / (machines.peak * machines.efficiency)
    waiting = (compute + sum(spent.values())) * bubble / (1 - bubble)
    return Cost(compute, **spent, gradients=gradients, bubble=waiting)


def speed(layout: Layout, axis: str, machines: Machines) -> float:
    """Bytes a second along an axis, or several joined by "+"."""
    names = ("pipeline",) if axis == "embedding" else layout.order if axis == "world" else axis.split("+")
    return machines.between if _crosses(layout, tuple(names), machines.ranks_a_node) else machines.inside


@cache
def _crosses(layout: Layout, axes: tuple[str, ...], ranks_a_node: int) -> bool:
    """Whether any group along these axes is on several machines."""
    nodes = layout.groups(axes) // ranks_a_node
    return bool((nodes[:, 0] != nodes[:, -1]).any())
