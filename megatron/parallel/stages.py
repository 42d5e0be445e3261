"""Which layers lie on which stage of a pipeline, and what a stage of any model has in common."""

import itertools
from typing import NamedTuple

import torch
from torch import nn

from megatron.config.model import ModelConfig
from megatron.config.parallel import ParallelConfig, stage_texts
from megatron.config.pipeline_layout import EMBEDDING, HEAD, LAYER
from megatron.parallel.mesh import Mesh
from megatron.parallel.slices import slices_of
from megatron.parallel.tally import Tally


class Stage(NamedTuple):
    """A run of layers of a model, which may be empty beside the embedding, before the first of all, or the
    head, behind the last."""

    layers: range
    first: bool = True
    last: bool = True


def stages_of(parallel: ParallelConfig, model: ModelConfig) -> list[Stage]:
    """The stages of a pipeline in its order, as the flags share the layers."""
    texts = stage_texts(parallel, model)
    ends = list(itertools.accumulate(text.count(LAYER) for text in texts))
    return [
        Stage(range(start, end), EMBEDDING in text, HEAD in text)
        for text, start, end in zip(texts, [0, *ends], ends)
    ]


class StageModule(nn.Module):
    """A model, or a stage of one. `dtype`: precision of hidden states where it is not that of the weights;
    `entrances`: methods beside `forward` that compute with the weights; `tally`: what its layers add up
    beside the loss; `behind_layers`: modules whose weights are read behind the layers alone, of which the
    first one is called before others are read."""

    layers: nn.ModuleDict
    kernels_draw: bool
    entrances: tuple[str, ...] = ()
    behind_layers: tuple[str, ...] = ()

    def __init__(self, mesh: Mesh, stage: Stage, hidden_size: int, dtype: torch.dtype | None):
        super().__init__()
        self.mesh, self.slices, self.stage = mesh, slices_of(mesh), stage
        self.hidden_size, self.dtype = hidden_size, dtype
        self.tally = Tally({}, mesh.device)

    @property
    def precision(self) -> torch.dtype:
        """Of hidden states."""
        return self.dtype or next(self.parameters()).dtype

    def received_shape(self, rows: int, length: int) -> tuple[int, ...]:
        """Shape of the hidden states that one stage sends to the next."""
        return (rows, length // self.slices.both.size, self.hidden_size)
