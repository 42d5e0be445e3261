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
    """Mean 0, variance 1, then weight and, where it has one, bias."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, architecture: Architecture, sum_over: tuple[str, ...]):
        super().__init__()
        width, has_bias = (architecture.hidden_size,), architecture.norm_bias
        add_parameter(self, "weight", width, value=1.0, sum_over=sum_over)
        if has_bias:
            add_parameter(self, "bias", width, sum_over=sum_over)
        else:
            self.bias = None
        self.epsilon = architecture.norm_epsilon
        self.kernel = find_apex().layer_norm if architecture.apex and has_bias else _layer_norm

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype)
        return self.kernel(x, weight, bias, self.weight.shape, self.epsilon)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, shape: torch.Size, epsilon: float) -> Tensor:
    return F.layer_norm(x, shape, weight, bias, epsilon)


class RMSNorm(nn.Module):
    """Root mean square 1, then weight; PyTorch's own is one kernel."""

    weight: Tensor

    def __init__(self, architecture: Architecture, sum_over: tuple[str, ...]):
        super().__init__()
        add_parameter(self, "weight", (architecture.hidden_size,), value=1.0, sum_over=sum_over)
        self.epsilon = architecture.norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.epsilon)


NORMS = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}


def make_norm(
    architecture: Architecture, mesh: Mesh = ONE_RANK, sum_over: tuple[str, ...] | None = None
) -> nn.Module:
    """The normalisation over the hidden size, of the tokens that a rank holds. `sum_over`: axes over which
    its gradients are summed, where these are others."""
    return NORMS[architecture.normalization](architecture, sum_over or mesh.sum_over)
