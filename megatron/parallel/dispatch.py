"""How tokens come to the ranks that have their experts, and what these make of them comes back (arXiv
2006.16668). Every rank tells the others how many rows they get, and one uneven all-to-all moves the rows."""

from typing import NamedTuple

import torch
from torch import Tensor

from megatron.parallel.collectives import all_to_all, exchange
from megatron.parallel.mesh import Axis


class Way(NamedTuple):
    """`send`, `receive`: how many rows go to and come from every rank. `order`: of what comes, sorted by
    expert, and `numbers` [rows], the experts' among those of this rank."""

    axis: Axis
    send: list[int]
    receive: list[int]
    order: Tensor
    numbers: Tensor


def way_to_experts(counts_E: Tensor, axis: Axis) -> Way:
    """The way of rows sorted by expert, so many for each of all experts, int64; ranks of the axis have equal
    runs of them. A GPU is waited for: how much is sent must be known."""
    here = counts_E.view(axis.size, -1)
    there = all_to_all(here, [1] * axis.size, [1] * axis.size, axis)
    send, receive = torch.stack([here.sum(1), there.sum(1)]).tolist()
    experts = torch.arange(there.shape[1], device=there.device).repeat(axis.size)
    came = experts.repeat_interleave(there.flatten(), output_size=sum(receive))
    order = torch.argsort(came, stable=True)
    return Way(axis, send, receive, order, came.index_select(0, order))


def to_experts(rows: Tensor, way: Way) -> Tensor:
    """The rows of all ranks for the experts of this one, sorted by expert."""
    return exchange(rows, way.send, way.receive, way.axis).index_select(0, way.order)


def from_experts(rows: Tensor, way: Way) -> Tensor:
    """What has become of the rows that were sent, in their order."""
    back = torch.empty_like(way.order)
    back[way.order] = torch.arange(len(back), device=back.device)
    return exchange(rows.index_select(0, back), way.receive, way.send, way.axis)
