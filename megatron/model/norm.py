"""Normalisation before attention and MLP."""

import torch.nn.functional as F
from torch import Tensor, nn

from megatron.config.config import ModelConfig
from megatron.parallel.placement import new_parameter


class LayerNorm(nn.Module):
    """Mean 0, variance 1, then weight and bias."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = new_parameter((width,), value=1.0)
        self.bias = new_parameter((width,))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(
            x, self.weight.shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.epsilon
        )


class RMSNorm(nn.Module):
    """Root mean square 1, then weight."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = new_parameter((width,), value=1.0)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.epsilon)


NORMS = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}


def make_norm(config: ModelConfig) -> nn.Module:
    """The configured normalisation over the hidden size."""
    return NORMS[config.normalization](config.hidden_size, config.norm_epsilon)
