"""Linear and embedding layers over boxes of global tensors. Weights are kept in their own precision and
computed in that of the activations, so gradients gather in the weights' precision whatever the forward
pass uses.

A layer is told by which of its sides it is split over the tensor axis. Tokens come in by `enter`, once for
all layers that read them, and a layer that is split by its inputs adds the parts and lets them out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.parallel.collectives import copy_to, gather_along, sum_and_part, sum_from
from megatron.parallel.deferred import Deferred, deferred_linear
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import add_parameter, share

ONE_RANK = Mesh()
SIDES = {"outputs": 0, "inputs": 1}


def enter(x_BTD: Tensor, mesh: Mesh) -> Tensor:
    """Tokens on their way into layers that are split by their outputs: where the tensor axis shares them,
    all of them are gathered."""
    return gather_along(x_BTD, mesh.tokens, 1) if mesh.sequence_parallel else copy_to(x_BTD, mesh.tensor)


def leave(x_BTD: Tensor, mesh: Mesh) -> Tensor:
    """The sum of what the ranks of the tensor axis have computed; where they share the tokens, of this rank's
    tokens."""
    return sum_and_part(x_BTD, mesh.tokens, 1) if mesh.sequence_parallel else sum_from(x_BTD, mesh.tensor)


class Linear(nn.Module):
    """y = x·Wᵀ + b with W [out, in], split over the tensor axis by its "outputs" or its "inputs". `rows`:
    W is whole on every rank, and these of its rows are computed here."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    deferred: Deferred | None = None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        std: float,
        bias: bool,
        split: str | None = None,
        rows: slice | None = None,
        mesh: Mesh = ONE_RANK,
    ):
        super().__init__()
        self.mesh, self.rows, self.adds_parts = mesh, rows, split == "inputs"
        own = ("data", "context") if rows is None else ("data", "context", "tensor")
        side = SIDES.get(split) if split else None
        add_parameter(self, "weight", (outputs, inputs), split=side, axis=mesh.tensor, sum_over=own, std=std)
        if bias and self.adds_parts:
            add_parameter(self, "bias", (outputs,), sum_over=mesh.sum_over)
        elif bias:
            add_parameter(self, "bias", (outputs,), split=side, axis=mesh.tensor, sum_over=own)
        else:
            self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        adds = self.adds_parts and self.mesh.tensor.size > 1
        deferred = self.deferred if self.rows is None and x.requires_grad else None
        if deferred is not None:  # of pixels nobody waits for gradients, and nothing is deferred
            y = deferred_linear(x, self.weight, None if adds else self.bias, deferred)
        else:
            bias = self._here(self.bias, x) if self.bias is not None and not adds else None
            y = F.linear(x, self._here(self.weight, x), bias)
        if not adds:
            return y
        y = leave(y, self.mesh)
        return y if self.bias is None else y + self.bias.to(y.dtype)  # once, behind the sum of the parts

    def _here(self, parameter: Tensor, x: Tensor) -> Tensor:
        """The rows of a weight or bias that are computed here, in the precision of x."""
        return (parameter if self.rows is None else parameter[self.rows]).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)} of {self.placements['weight'].global_shape}"  # type: ignore


class Embedding(nn.Module):
    """Rows of a table [entries, width] for tokens of this rank."""

    weight: Tensor

    def __init__(self, entries: int, width: int, *, std: float, mesh: Mesh = ONE_RANK):
        super().__init__()
        add_parameter(self, "weight", (entries, width), sum_over=mesh.sum_over, std=std)

    def forward(self, index: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return F.embedding(index, self.weight).to(dtype or self.weight.dtype)


class VocabularyEmbedding(nn.Module):
    """Rows of a table [vocabulary, width] that is split over the tensor axis by its entries. `shared`:
    another stage has the same table."""

    weight: Tensor

    def __init__(
        self,
        entries: int,
        width: int,
        *,
        std: float,
        mesh: Mesh = ONE_RANK,
        shared: bool = False,
    ):
        super().__init__()
        own = ("data", "context", "embedding") if shared else ("data", "context")
        copies = ("embedding",) if shared else ()
        add_parameter(
            self, "weight", (entries, width), split=0, axis=mesh.tensor, sum_over=own, copies=copies, std=std
        )
        self.mesh, self.first = mesh, share(entries, mesh.tensor)[0]

    def forward(self, index_BT: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """[B, T] of all tokens that attention sees here, to [B, T held, D]."""
        dtype = dtype or self.weight.dtype
        if self.mesh.tensor.size == 1:
            return F.embedding(index_BT, self.weight).to(dtype)
        entries = len(self.weight)
        place = index_BT - self.first
        inside = (place >= 0) & (place < entries)
        found = F.embedding(place.clamp(0, entries - 1), self.weight) * inside[..., None]
        return leave(found.to(dtype), self.mesh)
