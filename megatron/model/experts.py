"""The experts of a layer, and the layer's MLP that is a mixture of them.

Experts are stacked, one tensor for all matrices of a kind: [inner, experts, hidden] on the way in, [hidden,
experts, inner] on the way out. Ranks share the experts along one axis, and each expert's inner width along
another one; what is left of ranks has the same part, and may share its rows. These come first, so that there
are enough of them for any number of ranks.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.model.architecture import Architecture
from megatron.model.balance import attach, balancing_losses
from megatron.model.context import Context
from megatron.model.mlp import ACTIVATIONS, MLP
from megatron.model.router import Router, Routing
from megatron.parallel.collectives import all_gather, copy_to, exchange, gather_along, sum_and_part, sum_from
from megatron.parallel.deferred import Deferred
from megatron.parallel.dispatch import from_experts, to_experts, way_to_experts
from megatron.parallel.grouped import counts_of, grouped_linear, groups_of, has_kernel
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import add_expert_parameter, add_parameter


class MixtureOfExperts(nn.Module):
    """Σ gate_e(x) · expert_e(x) over the experts that the router chooses, and a shared expert where there is
    one."""

    down_bias: nn.Parameter | None

    def __init__(self, architecture: Architecture, layer: int, mesh: Mesh = ONE_RANK):
        super().__init__()
        assert architecture.mixture is not None
        self.mixture, self.layer, self.mesh = architecture.mixture, layer, mesh
        self.router = Router(architecture, layer, mesh)
        self.experts = Experts(architecture, mesh)
        self.register_parameter("down_bias", None)
        if architecture.linear_bias:  # of the experts, whole on every rank
            shape = (self.mixture.experts, architecture.hidden_size)
            add_parameter(self, "down_bias", shape, sum_over=mesh.sum_over)
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
        axis, alike = self.mesh.expert_tensor, self.mesh.same_tokens
        x_ND, gates_Nk = x_BTD.flatten(0, 1), routing.gates.to(x_BTD.dtype).flatten(0, 1)
        experts_Nk, most = routing.experts.flatten(0, 1), routing.most
        if alike:
            x_ND, gates_Nk = copy_to(x_ND, axis), copy_to(gates_Nk, axis)
        else:
            x_ND, gates_Nk = gather_along(x_ND, axis, 0), gather_along(gates_Nk, axis, 0)
            experts_Nk, most = all_gather(experts_Nk, axis), most and most * axis.size
        y_ND = self.experts(x_ND, experts_Nk, gates_Nk, most)
        y_BTD = (sum_from(y_ND, axis) if alike else sum_and_part(y_ND, axis, 0)).view_as(x_BTD)
        if self.down_bias is None:
            return y_BTD
        return y_BTD + _output_biases(self.down_bias.to(y_BTD.dtype), routing)


class Experts(nn.Module):
    """MLPs as in mlp.py, stacked: `up`, `gate` [inner, experts, hidden], `down` [hidden, experts, inner],
    biases on the way in [experts, inner]. Those on the way out are not here: they come behind the sum of the
    parts of an expert."""

    up: nn.Parameter
    gate: nn.Parameter | None
    down: nn.Parameter
    up_bias: nn.Parameter | None
    gate_bias: nn.Parameter | None
    deferred: Deferred | None = None

    def __init__(self, architecture: Architecture, mesh: Mesh = ONE_RANK):
        super().__init__()
        mixture = architecture.mixture
        assert mixture is not None
        self.axis, self.count, self.padded = mesh.expert, mixture.experts, mixture.padded
        self.gathers = mixture.gathers_tokens and not mixture.padded
        inner, hidden, part = mixture.inner, architecture.hidden_size, mesh.expert_tensor
        std, count = architecture.init_method_std, mixture.experts
        for name in ("up", "gate"):
            self.register_parameter(name, None)
            self.register_parameter(f"{name}_bias", None)
        for name in ("up", "gate") if architecture.gated else ("up",):
            add_expert_parameter(self, name, (inner, count, hidden), {0: part, 1: self.axis}, std)
            if architecture.linear_bias:
                add_expert_parameter(self, f"{name}_bias", (count, inner), {0: self.axis, 1: part})
        out_std = std / math.sqrt(2 * architecture.num_layers)
        add_expert_parameter(self, "down", (hidden, count, inner), {1: self.axis, 2: part}, out_std)
        self.activation = ACTIVATIONS[architecture.activation]

    @property
    def held(self) -> int:
        """Experts of this rank."""
        return self.up.shape[1]

    def forward(self, x_ND: Tensor, experts_Nk: Tensor, gates_Nk: Tensor, most: int | None = None) -> Tensor:
        """The weighted sum of each token's experts, without the bias of their outputs; of a part of the inner
        width, its part. With `most`, how many outputs there are at most, numbers past the last expert give
        none."""
        if self.padded and most is not None:
            return self._padded(x_ND, experts_Nk, gates_Nk, min(most // self.count, len(x_ND)))
        if self.axis.size == 1:
            return self._weighted(x_ND, experts_Nk, gates_Nk, most)
        if not self.gathers:
            return self._exchanged(x_ND, experts_Nk, gates_Nk)
        x_ND, gates_Nk = gather_along(x_ND, self.axis, 0), gather_along(gates_Nk, self.axis, 0)
        here = all_gather(experts_Nk, self.axis) - self.axis.rank * self.held
        inside = (here >= 0) & (here < self.held)
        here, gates_Nk = torch.where(inside, here, self.held), torch.where(inside, gates_Nk, 0)
        return sum_and_part(self._weighted(x_ND, here, gates_Nk, int(inside.sum())), self.axis, 0)

    def _weighted(self, x_ND: Tensor, experts_Nk: Tensor, gates_Nk: Tensor, most: int | None) -> Tensor:
        """By the experts of this rank."""
        chosen, few = experts_Nk.flatten(), experts_Nk.shape[1]
        order = torch.argsort(chosen, stable=True)[:most]
        rows = x_ND.index_select(0, order // few)
        return _sum(self._outputs(rows, chosen.index_select(0, order), most is None), order, gates_Nk)

    def _exchanged(self, x_ND: Tensor, experts_Nk: Tensor, gates_Nk: Tensor) -> Tensor:
        """By the experts of all ranks of the axis, each of which computes the tokens of all."""
        chosen, few = experts_Nk.flatten(), experts_Nk.shape[1]
        way = way_to_experts(counts_of(chosen, self.count), self.axis)
        order = torch.argsort(chosen, stable=True)[: sum(way.send)]
        rows = to_experts(x_ND.index_select(0, order // few), way)
        return _sum(from_experts(self._outputs(rows, way.numbers, True), way), order, gates_Nk)

    def _padded(self, x_ND: Tensor, experts_Nk: Tensor, gates_Nk: Tensor, room: int) -> Tensor:
        """By the experts of all ranks of the axis, of which each gets so many rows of every rank: all sizes
        are known, and no rank asks for them. What stands for a row that is not there is read by nobody."""
        chosen, few = experts_Nk.flatten(), experts_Nk.shape[1]
        order = torch.argsort(chosen, stable=True)
        of, counts = chosen.index_select(0, order), counts_of(chosen, self.count)
        first = F.pad(counts.cumsum(0), (1, 0)).index_select(0, of)
        slots = of * room + torch.arange(len(of), device=of.device) - first
        slots = slots.clamp(max=self.count * room)  # behind all experts for what is dropped
        rows = x_ND.new_zeros((self.count * room + 1, x_ND.shape[1]))
        rows = rows.index_copy(0, slots, x_ND.index_select(0, order // few))[:-1]
        outputs = self._of_equal_loads(rows, room)
        place = torch.zeros_like(chosen).scatter(0, order, slots.clamp(max=self.count * room - 1))
        return (outputs.index_select(0, place).unflatten(0, gates_Nk.shape) * gates_Nk[..., None]).sum(1)

    def _of_equal_loads(self, rows: Tensor, room: int) -> Tensor:
        """Outputs of rows, so many for each of all experts."""
        ranks, equal = self.axis.size, [self.held * room] * self.axis.size
        came = exchange(rows, equal, equal, self.axis).unflatten(0, (ranks, self.held, room))
        of = torch.arange(self.held, device=rows.device).repeat_interleave(
            ranks * room, output_size=self.held * ranks * room
        )
        y = self._outputs(came.transpose(0, 1).flatten(0, 2), of, True)
        back = y.unflatten(0, (self.held, ranks, room)).transpose(0, 1).flatten(0, 2)
        return exchange(back, equal, equal, self.axis)

    def _outputs(self, rows: Tensor, of: Tensor, all_computed: bool) -> Tensor:
        """Of rows sorted by the experts' numbers `of`; 0 where that is past the last of this rank."""
        groups = groups_of(of, self.held, all_computed, has_kernel(self.up, rows.dtype))

        def into(weight: nn.Parameter, bias: nn.Parameter | None) -> Tensor:
            return grouped_linear(rows, weight, bias, groups, self.deferred)

        inside = into(self.up, self.up_bias)
        if self.gate is None:
            inside = self.activation(inside)
        else:
            inside = self.activation(into(self.gate, self.gate_bias)) * inside
        return grouped_linear(inside, self.down, None, groups, self.deferred)


def _sum(y_MD: Tensor, order_M: Tensor, gates_Nk: Tensor) -> Tensor:
    """Each token's sum of outputs times weights; `order_M`: which of all choices [N·k] the outputs belong
    to, and of the others the weight is 0."""
    place = torch.zeros(gates_Nk.numel(), dtype=order_M.dtype, device=order_M.device)
    place = place.scatter(0, order_M, torch.arange(len(order_M), device=order_M.device))
    y_MD = y_MD if len(y_MD) else F.pad(y_MD, (0, 0, 0, 1))
    outputs = y_MD.index_select(0, place).unflatten(0, gates_Nk.shape)
    return (outputs * gates_Nk[..., None]).sum(1)


def _output_biases(bias_ED: Tensor, routing: Routing) -> Tensor:
    """Of each token's experts, weighted: once, behind the sum of the parts."""
    gates_BTk = routing.gates.to(bias_ED.dtype)
    gates_BTE = gates_BTk.new_zeros((*gates_BTk.shape[:2], len(bias_ED) + 1))
    return gates_BTE.scatter(-1, routing.experts, gates_BTk)[..., :-1] @ bias_ED


def inactive_parameters(model: nn.Module) -> int:
    """Parameters of experts that do not compute a token, of a whole model."""
    mixtures = [one for one in model.modules() if isinstance(one, MixtureOfExperts)]
    found = 0
    for one in mixtures:
        own = [parameter.numel() for parameter in one.experts.parameters()]
        own += [one.down_bias.numel()] if one.down_bias is not None else []
        found += sum(own) * (one.mixture.experts - one.mixture.top) // one.mixture.experts
    return found
