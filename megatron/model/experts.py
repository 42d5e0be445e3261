"""The experts of a layer, and the layer's MLP that is a mixture of them.

Experts are stacked: one tensor [experts, out, in] for all matrices of a kind, of which a rank has a box. Over
the tensor axis each expert is split by its inner width, as a dense MLP is. Every rank computes the tokens
that it holds, or where the tensor axis shares the tokens, those of the axis.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from megatron.model.architecture import Architecture
from megatron.model.balance import attach, balancing_losses
from megatron.model.context import Context
from megatron.model.mlp import ACTIVATIONS, MLP
from megatron.model.router import Router, Routing
from megatron.parallel.collectives import all_gather
from megatron.parallel.layers import ONE_RANK, enter, leave
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import add_parameter

ALIGNED = 16
"""Bytes of which rows are a multiple, as F.grouped_mm asks for."""


class MixtureOfExperts(nn.Module):
    """Σ gate_e(x) · expert_e(x) over the experts that the router chooses, and a shared expert where there is
    one."""

    def __init__(self, architecture: Architecture, layer: int, mesh: Mesh = ONE_RANK):
        super().__init__()
        assert architecture.mixture is not None
        self.mixture, self.layer, self.mesh = architecture.mixture, layer, mesh
        self.router = Router(architecture, layer, mesh)
        self.experts = Experts(architecture, mesh)
        inner = self.mixture.shared
        self.shared = MLP(architecture, mesh, inner) if inner else None

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        routing = self.router(x_BTD, context)
        y_BTD = self._routed(x_BTD, routing)
        if self.shared is not None:
            y_BTD = y_BTD + self.shared(x_BTD)
        if context.beside is None:
            return y_BTD
        losses = balancing_losses(routing, self.router, context.length)
        return attach(y_BTD, losses, routing.loads, self.layer, self.mixture, context.beside, self.mesh)

    def _routed(self, x_BTD: Tensor, routing: Routing) -> Tensor:
        """What the experts give; a weight reaches all parts of an expert, as its token does."""
        whole = enter(x_BTD, self.mesh)
        gates = enter(routing.gates.to(x_BTD.dtype), self.mesh)
        experts = all_gather(routing.experts, self.mesh.tokens, 1)
        flat = [one.flatten(0, 1) for one in (whole, experts, gates)]
        y_BTD = leave(self.experts(*flat, routing.most).view_as(whole), self.mesh)
        bias = self.experts.down_bias
        return y_BTD if bias is None else y_BTD + _output_biases(bias.to(y_BTD.dtype), routing)


class Experts(nn.Module):
    """MLPs as in mlp.py, stacked: `up`, `gate` [experts, inner, hidden], `down` [experts, hidden, inner]."""

    up: nn.Parameter
    gate: nn.Parameter | None
    down: nn.Parameter
    up_bias: nn.Parameter | None
    gate_bias: nn.Parameter | None
    down_bias: nn.Parameter | None

    def __init__(self, architecture: Architecture, mesh: Mesh = ONE_RANK):
        super().__init__()
        mixture = architecture.mixture
        assert mixture is not None
        count, inner, hidden = mixture.experts, mixture.inner, architecture.hidden_size
        std, axis = architecture.init_method_std, mesh.tensor
        out_std = std / math.sqrt(2 * architecture.num_layers)
        for name in ("up", "gate"):
            self.register_parameter(name, None)
            self.register_parameter(f"{name}_bias", None)
        for name in ("up", "gate") if architecture.gated else ("up",):
            add_parameter(self, name, (count, inner, hidden), split=1, axis=axis, std=std)
            if architecture.linear_bias:
                add_parameter(self, f"{name}_bias", (count, inner), split=1, axis=axis)
        add_parameter(self, "down", (count, hidden, inner), split=2, axis=axis, std=out_std)
        self.register_parameter("down_bias", None)
        if architecture.linear_bias:
            add_parameter(self, "down_bias", (count, hidden), sum_over=mesh.sum_over)
        self.activation = ACTIVATIONS[architecture.activation]

    def forward(self, x_ND: Tensor, experts_Nk: Tensor, gates_Nk: Tensor, most: int | None = None) -> Tensor:
        """The weighted sum of each token's experts, without the bias of their outputs; of a part of the inner
        width, its part. With `most`, how many outputs there are at most, numbers past the last expert give
        none."""
        chosen, few = experts_Nk.flatten(), experts_Nk.shape[1]
        order = torch.argsort(chosen, stable=True)[:most]
        ends, all_computed = _ends(chosen, len(self.up)), most is None
        rows = x_ND.index_select(0, order // few)
        of = chosen.index_select(0, order).clamp(max=len(self.up) - 1)
        y = grouped_product(self._inner(rows, ends, of, all_computed), self.down, ends, all_computed)
        place = torch.zeros_like(chosen).scatter(0, order, torch.arange(len(order), device=order.device))
        outputs = y.index_select(0, place).unflatten(0, (-1, few))
        return (outputs * gates_Nk[..., None]).sum(1)

    def _inner(self, rows: Tensor, ends: Tensor, of: Tensor, all_computed: bool) -> Tensor:
        """The activations between an expert's matrices."""

        def into(weight: Tensor, bias: Tensor | None) -> Tensor:
            y = grouped_product(rows, weight, ends, all_computed)
            return y if bias is None else y + bias.to(y.dtype).index_select(0, of)

        up = into(self.up, self.up_bias)
        if self.gate is None:
            return self.activation(up)
        return self.activation(into(self.gate, self.gate_bias)) * up


def _output_biases(bias_ED: Tensor, routing: Routing) -> Tensor:
    """Of each token's experts, weighted: once, behind the sum of the parts."""
    some = F.pad(bias_ED, (0, 0, 0, 1))[routing.experts]
    return (some * routing.gates.to(bias_ED.dtype)[..., None]).sum(2)


def _ends(chosen: Tensor, experts: int) -> Tensor:
    """Where the rows of every expert end, when rows are sorted by expert, int32."""
    counts = torch.zeros(experts + 1, dtype=torch.int64, device=chosen.device)
    return counts.scatter_add(0, chosen, torch.ones_like(chosen))[:experts].cumsum(0).to(torch.int32)


def grouped_product(x_MI: Tensor, weight_EOI: Tensor, ends_E: Tensor, all_computed: bool = False) -> Tensor:
    """x·Wᵀ of sorted rows, each with the matrix of its expert, in the precision of x; 0 behind the last
    expert's rows, unless there are none."""
    weight = weight_EOI.to(x_MI.dtype)
    if isinstance(ends_E, FakeTensor):  # has a shape and no content: all rows are as good as one expert's
        return x_MI @ weight[0].T
    if not _fits(weight):
        return _one_by_one(x_MI, weight, ends_E)
    if all_computed:
        return F.grouped_mm(x_MI, weight.transpose(1, 2), offs=ends_E)
    computed = (torch.arange(len(x_MI), device=x_MI.device) < ends_E[-1])[:, None]
    x_MI = torch.where(computed, x_MI, 0)  # what is left out has no defined result, and no defined gradient
    product = F.grouped_mm(x_MI, weight.transpose(1, 2), offs=ends_E)
    return torch.where(computed, product, 0)


def _fits(weight_EOI: Tensor) -> bool:
    """Whether the kernel takes matrices of this precision and these widths."""
    size = weight_EOI.element_size()
    aligned = all(width * size % ALIGNED == 0 for width in weight_EOI.shape[1:])
    return aligned and weight_EOI.dtype != torch.float64 and hasattr(F, "grouped_mm")


def _one_by_one(x_MI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """The same as a loop over the experts, for which a GPU is waited for."""
    ends = ends_E.tolist()
    parts = [x_MI[start:end] @ one.T for start, end, one in zip([0, *ends], ends, weight_EOI)]
    return torch.cat([*parts, x_MI.new_zeros((len(x_MI) - ends[-1], weight_EOI.shape[1]))])


def inactive_parameters(model: nn.Module) -> int:
    """Parameters of experts that do not compute a token."""
    mixtures = [one for one in model.modules() if isinstance(one, MixtureOfExperts)]
    return sum(
        parameter.numel() * (one.mixture.experts - one.mixture.top) // one.mixture.experts
        for one in mixtures
        for parameter in one.experts.parameters()
    )
