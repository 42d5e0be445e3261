"""Which rank sits where: plain numbers, before any rank meets another."""

import math
from dataclasses import dataclass

import numpy as np

from megatron.config.parallel import ParallelConfig, ranks_of_model

AXES = ("tensor", "context", "data", "pipeline")
"""Megatron's order of ranks: neighbours along the first axis have neighbouring numbers."""
OF_TOKENS = ("tensor", "context", "data")
"""Ranks along these axes compute the same layers, for which they may share experts in another way."""


@dataclass(frozen=True)
class Layout:
    """How many ranks work together along every axis. `sequence_parallel`: between matrices, ranks of the
    tensor axis share the tokens; `context_way`: how attention joins the parts of a sequence (allgather, p2p,
    a2a); `order`: the axes, of which the first has neighbouring ranks; `instances`: how many times ranks with
    the same weights share what they share, neighbours each time."""

    tensor: int = 1
    context: int = 1
    data: int = 1
    pipeline: int = 1
    sequence_parallel: bool = False
    context_way: str = "allgather"
    order: tuple[str, ...] = AXES
    instances: int = 1
    expert: int = 1
    expert_tensor: int | None = None

    @property
    def ranks(self) -> int:
        return math.prod(self.sizes)

    @property
    def sharing(self) -> int:
        """Ranks that share what those with the same weights would hold alike."""
        return self.data * self.context // self.instances

    @property
    def sharing_experts(self) -> int:
        """The same of ranks that have the same experts."""
        return self.expert_data // self.instances

    @property
    def sizes(self) -> tuple[int, ...]:
        """Ranks along each axis, in the layout's order."""
        return tuple(getattr(self, axis) for axis in self.order)

    def place(self, rank: int) -> dict[str, int]:
        """Where a rank sits on every axis."""
        return dict(zip(self.order, map(int, np.unravel_index(rank, self.sizes, order="F"))))

    @property
    def expert_data(self) -> int:
        """Ranks that have the same part of the same experts."""
        ranks = math.prod(getattr(self, axis) for axis in OF_TOKENS)
        return ranks // (self.expert * self.expert_matrices)

    @property
    def expert_matrices(self) -> int:
        """Ranks that share every matrix of an expert."""
        return self.expert_tensor or self.tensor

    def groups(self, axes: tuple[str, ...]) -> np.ndarray:
        """The ranks [groups, size] that differ along these axes alone, ascending in a group and by the first
        of each. What a mesh has beside its axes is known, too, by one name."""
        if len(axes) == 1 and axes[0] not in AXES:
            return self._others(axes[0])
        grid = np.arange(self.ranks).reshape(self.sizes, order="F")
        last = [place for place, axis in enumerate(self.order) if axis in axes]
        size = math.prod(self.sizes[place] for place in last)
        rows = np.moveaxis(grid, last, range(-len(last), 0)).reshape(-1, size)
        rows = np.sort(rows, axis=1)
        return rows[rows[:, 0].argsort()]

    def _others(self, name: str) -> np.ndarray:
        """Groups of ranks that share weights, and of those that share experts: among all that compute the
        same layers neighbours share a matrix first, and then experts."""
        if name in ("shard", "replica"):
            grid = self.groups(("data", "context"))
            grid = grid.reshape(-1, self.instances, self.data * self.context // self.instances)
            axis = ("replica", "shard").index(name)
        else:
            grid = self.groups(OF_TOKENS).reshape(-1, self.expert_data, self.expert, self.expert_matrices)
            if name in ("expert_shard", "expert_replica"):
                grid = grid.reshape(-1, self.instances, self.expert_data // self.instances, *grid.shape[2:])
                axis = ("expert_replica", "expert_shard").index(name)
            else:
                axis = ("expert_data", "expert", "expert_tensor").index(name)
        rows = np.moveaxis(grid, axis + 1, -1)
        rows = rows.reshape(-1, rows.shape[-1])
        return rows[rows[:, 0].argsort()]

    def members(self, rank: int, axes: tuple[str, ...]) -> list[int]:
        """The ranks that differ from this one along these axes alone, ascending."""
        rows = self.groups(axes)
        (mine,) = np.flatnonzero((rows == rank).any(1))
        return [int(one) for one in rows[mine]]


ONE = Layout()


def layout_of(flags: ParallelConfig, ranks: int) -> Layout:
    """How the flags share a run among so many ranks."""
    return Layout(
        tensor=flags.tensor_model_parallel_size,
        context=flags.context_parallel_size,
        data=ranks // ranks_of_model(flags),
        pipeline=flags.pipeline_model_parallel_size,
        sequence_parallel=flags.sequence_parallel,
        context_way=flags.cp_comm_type[0],
        order=("tensor", "context", "pipeline", "data") if flags.use_tp_pp_dp_mapping else AXES,
        instances=flags.num_distributed_optimizer_instances,
        expert=flags.expert_model_parallel_size,
        expert_tensor=flags.expert_tensor_parallel_size,
    )
