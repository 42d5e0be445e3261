"""Normalisation before attention and MLP."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.base.apex import find_apex
from megatron.model.architecture import Architecture
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import add_parameter


class LayerNorm(nn.Module):
    """Mean 0, variance 1, then weight and bias."""

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int, epsilon: float, sum_over: tuple[str, ...], apex: bool = False):
        super().__init__()
        add_parameter(self, "weight", (width,), value=1.0, sum_over=sum_over)
        add_parameter(self, "bias", (width,), sum_over=sum_over)
        self.epsilon = epsilon
        self.kernel = find_apex().layer_norm if apex else _layer_norm

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return self.kernel(x, weight, bias, self.weight.shape, self.epsilon)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, shape: torch.Size, epsilon: float) -> Tensor:
    return F.layer_norm(x, shape, weight, bias, epsilon)


class RMSNorm(nn.Module):
    """Root mean square 1, then weight; PyTorch's own is one kernel."""

    weight: Tensor

    def __init__(self, width: int, epsilon: float, sum_over: tuple[str, ...], apex: bool = False):
        super().__init__()
        add_parameter(self, "weight", (width,), value=1.0, sum_over=sum_over)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.epsilon)


NORMS = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}


def make_norm(architecture: Architecture, mesh: Mesh = ONE_RANK) -> nn.Module:
    """The normalisation over the hidden size, of the tokens that a rank holds."""
    width, epsilon = architecture.hidden_size, architecture.norm_epsilon
    return NORMS[architecture.normalization](width, epsilon, mesh.sum_over, architecture.apex)
