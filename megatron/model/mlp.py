"""The MLP of a layer, plain or gated."""

import functools
import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from megatron.model.architecture import Architecture
from megatron.model.context import Context
from megatron.parallel.layers import ONE_RANK, Linear, enter
from megatron.parallel.mesh import Mesh

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "squared_relu": lambda x: F.relu(x).square(),  # arXiv 2109.08668
}


class MLP(nn.Module):
    """down(activation(up(x))), or gated: down(activation(gate(x)) · up(x)); with SiLU that is SwiGLU.
    `inner`: width between, where it is not that of the architecture."""

    def __init__(self, architecture: Architecture, mesh: Mesh = ONE_RANK, inner: int | None = None):
        super().__init__()
        hidden, inner = architecture.hidden_size, inner or architecture.ffn_hidden_size
        std, bias = architecture.init_method_std, architecture.linear_bias
        out_std, self.mesh = std / math.sqrt(2 * architecture.num_layers), mesh

        def inwards() -> Linear:
            return Linear(hidden, inner, std=std, bias=bias, split="outputs", mesh=mesh)

        self.up = inwards()
        self.gate = inwards() if architecture.gated else None
        self.down = Linear(inner, hidden, std=out_std, bias=bias, split="inputs", mesh=mesh)
        self.activation = ACTIVATIONS[architecture.activation]

    def forward(self, x_BTD: Tensor, context: Context | None = None) -> Tensor:
        x_BTD = enter(x_BTD, self.mesh)
        if self.gate is not None:
            return self.down(self.activation(self.gate(x_BTD)) * self.up(x_BTD))
        return self.down(self.activation(self.up(x_BTD)))
