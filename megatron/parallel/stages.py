"""Which layers lie on which stage of a pipeline, and what a stage of any model has in common."""

from typing import NamedTuple

import torch
from torch import nn

from megatron.parallel.mesh import Mesh
from megatron.parallel.slices import slices_of


class Stage(NamedTuple):
    """A run of layers of a model, with the embedding before the first of all and the head behind the last."""

    layers: range
    first: bool = True
    last: bool = True


def even_stages(layers: int, stages: int) -> list[Stage]:
    """As many layers on every stage."""
    each = layers // stages
    return [
        Stage(range(number * each, (number + 1) * each), number == 0, number == stages - 1)
        for number in range(stages)
    ]


class StageModule(nn.Module):
    """A model, or a stage of one. `dtype`: precision of hidden states where it is not that of the weights."""

    layers: nn.ModuleDict
    kernels_draw: bool

    def __init__(self, mesh: Mesh, stage: Stage, hidden_size: int, dtype: torch.dtype | None):
        super().__init__()
        self.mesh, self.slices, self.stage = mesh, slices_of(mesh), stage
        self.hidden_size, self.dtype = hidden_size, dtype

    @property
    def precision(self) -> torch.dtype:
        """Of hidden states."""
        return self.dtype or next(self.layers.parameters()).dtype

    def received_shape(self, rows: int, length: int) -> tuple[int, ...]:
        """Shape of the hidden states that one stage sends to the next."""
        return (rows, length // self.slices.both.size, self.hidden_size)
