"""Linear and embedding layers over boxes of global tensors. Weights are kept in their own precision and
computed in that of the activations, so gradients gather in the weights' precision whatever the forward
pass uses."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.parallel.placement import add_parameter


class Linear(nn.Module):
    """y = x·Wᵀ + b with W [out, in]."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, *, std: float, bias: bool):
        super().__init__()
        add_parameter(self, "weight", (outputs, inputs), std=std)
        if bias:
            add_parameter(self, "bias", (outputs,))
        else:
            self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias.to(x.dtype) if self.bias is not None else None
        return F.linear(x, self.weight.to(x.dtype), bias)


class Embedding(nn.Module):
    """Rows of a table [entries, width]."""

    weight: Tensor

    def __init__(self, entries: int, width: int, *, std: float):
        super().__init__()
        add_parameter(self, "weight", (entries, width), std=std)

    def forward(self, index: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return F.embedding(index, self.weight).to(dtype or self.weight.dtype)
