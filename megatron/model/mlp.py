"""The MLP of a layer: GELU, or gated by SiLU (SwiGLU)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from megatron.config.config import ModelConfig
from megatron.parallel.layers import Linear


class MLP(nn.Module):
    """down(activation(up(x))), or down(silu(gate(x)) · up(x))."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        hidden, inner, bias = config.hidden_size, config.ffn_hidden_size or 0, not config.disable_bias_linear
        self.up = Linear(hidden, inner, std=config.init_method_std, bias=bias)
        self.gate = Linear(hidden, inner, std=config.init_method_std, bias=bias) if config.swiglu else None
        self.down = Linear(
            inner, hidden, std=config.init_method_std / math.sqrt(2 * config.num_layers), bias=bias
        )
        self.approximate = "tanh" if config.openai_gelu else "none"

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.gate is not None:
            return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))
        return self.down(F.gelu(self.up(x_BTD), approximate=self.approximate))
