"""The router of a mixture of experts: which experts compute a token, and how much each of them counts
(arXiv 1701.06538, 2101.03961).

A router computes in fp32 at least. Experts are balanced, and have a capacity, over groups of consecutive
samples of the global batch, and inside of a group tokens follow each other by sample and place. So neither
depends on which rank computes a token.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.model.architecture import Architecture, Mixture
from megatron.model.context import Context
from megatron.model.dropout import jitter, salt
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh, sum_over
from megatron.parallel.placement import add_constants, add_parameter, add_states
from megatron.parallel.slices import slices_of, whole_rows

SINKHORN_ROUNDS = 20


class Routing(NamedTuple):
    """Of tokens [B, T held]. `experts`, `gates` [B, T, k]: a token's experts, the best first, and the weights
    of their outputs; where an expert was full, the number of experts and 0. `logits` [B, T, E]; `loads`
    [B, E], int64: how many tokens of every whole row chose an expert; `most`: how many outputs experts give
    to a micro-batch at most, None where all are given."""

    experts: Tensor
    gates: Tensor
    logits: Tensor
    loads: Tensor
    most: int | None = None


class Router(nn.Module):
    """Scores experts by a matrix [experts, hidden], which every rank has whole, for the tokens held here.
    `expert_bias` [experts]: added to scores where the best are chosen; `past_load`: how many tokens chose an
    expert in the step before. Both are there where balancing needs them."""

    exact = True  # whoever casts a layer's weights leaves these as they are
    weight: nn.Parameter
    site: Tensor
    expert_bias: Tensor
    past_load: Tensor

    def __init__(self, architecture: Architecture, layer: int, mesh: Mesh = ONE_RANK):
        super().__init__()
        assert architecture.mixture is not None
        self.mixture, self.layer, self.slices = architecture.mixture, layer, slices_of(mesh)
        shape = (self.mixture.experts, architecture.hidden_size)
        add_parameter(self, "weight", shape, sum_over=mesh.sum_over, std=architecture.init_method_std)
        kept = {
            "expert_bias": self.mixture.bias_rate > 0,
            "past_load": self.mixture.balance == "global_aux_loss",
        }
        names = tuple(name for name, there in kept.items() if there)

        def constants() -> dict[str, Tensor]:
            zeros = {name: torch.zeros(self.mixture.experts) for name in names}
            return {"site": salt("router input", layer)} | zeros

        add_constants(self, constants)
        add_states(self, names)

    def forward(self, x_BTD: Tensor, context: Context) -> Routing:
        """A token's choice. In evaluation there is neither noise, nor capacity, nor sinkhorn."""
        mixture, length = self.mixture, context.length
        dtype = torch.promote_types(x_BTD.dtype, mixture.precision)
        x_BTD = x_BTD.to(dtype)
        if self.training:
            x_BTD = jitter(x_BTD, mixture.jitter, context.held_keys, self.site)
        logits = F.linear(x_BTD, self.weight.to(dtype))
        if mixture.balance == "sinkhorn":
            experts, gates = self._evenly(logits, length)
        else:
            bias = self.expert_bias if mixture.bias_rate else None
            experts, gates = choose(logits, mixture, bias)
        if mixture.factor != 1:
            gates = gates * mixture.factor
        loads = sum_over(loads_of(experts, mixture.experts), self.slices.both)
        routing = Routing(experts, gates, logits, loads)
        return self._limited(routing, length) if mixture.capacity and self.training else routing

    def _evenly(self, logits: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Megatron's sinkhorn: a balanced assignment says which experts, their own scores how much."""
        mixture, liked = self.mixture, logits.detach()
        if self.training:
            rows = whole_rows(liked, length, self.slices)
            even = balanced(rows.unflatten(0, (mixture.batch_groups, -1)).flatten(1, 2))
            liked = even.view_as(rows)
            if self.slices.both.size > 1:
                liked = liked[:, self.slices.held(length, liked.device)]
        experts = best(liked, mixture.top)
        scores = logits.sigmoid() if mixture.top == 1 or not mixture.softmax else logits.softmax(-1)
        return experts, scores.gather(-1, experts)

    def _limited(self, routing: Routing, length: int) -> Routing:
        """The same without what experts have no room for."""
        mixture, groups = self.mixture, self.mixture.batch_groups
        experts = whole_rows(routing.experts, length, self.slices)
        by_weight = mixture.drop_policy == "probs"
        weights = whole_rows(routing.gates.detach(), length, self.slices) if by_weight else None
        tokens = len(experts) // groups * length
        room = capacity(mixture, tokens)
        by_group = weights.reshape(groups, -1) if weights is not None else None
        kept = has_room(experts.reshape(groups, -1), by_group, mixture.experts, room).view(experts.shape)
        if self.slices.both.size > 1:
            kept = kept[:, self.slices.held(length, kept.device)]
        return routing._replace(
            experts=torch.where(kept, routing.experts, mixture.experts),
            gates=torch.where(kept, routing.gates, 0),
            most=groups * mixture.experts * room,
        )

    @torch.no_grad()
    def settle(self, load_E: Tensor) -> None:
        """Behind a step in which so many tokens of the global batch chose each expert: loads are kept for the
        next one, and biases follow them (arXiv 2408.15664)."""
        if self.mixture.balance == "global_aux_loss":
            self.past_load.copy_(load_E)
        if self.mixture.bias_rate:
            towards = torch.sign(load_E.mean() - load_E)
            self.expert_bias.add_(towards.to(self.expert_bias.dtype), alpha=self.mixture.bias_rate)


def choose(logits: Tensor, mixture: Mixture, bias_E: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The experts [..., k] of tokens, the best first, and their weights."""
    late = mixture.softmax and not mixture.before
    if late and bias_E is None:
        scores = logits
    else:
        scores = logits.softmax(-1) if mixture.softmax else logits.sigmoid()
    liked = scores.detach()
    if bias_E is not None:
        liked = liked + bias_E.to(liked.dtype)
    if mixture.groups > 1:
        liked = in_best_groups(liked, mixture)
    experts = best(liked, mixture.top)
    if late:
        return experts, logits.gather(-1, experts).softmax(-1)
    gates = scores.gather(-1, experts)
    if not mixture.softmax and mixture.top > 1:
        gates = gates / (gates.sum(-1, keepdim=True) + 1e-20)
    return experts, gates


def best(liked: Tensor, count: int) -> Tensor:
    """The numbers of the largest values along the last dimension, the first of equal ones."""
    return liked.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def in_best_groups(liked: Tensor, mixture: Mixture) -> Tensor:
    """-inf outside of the best groups of neighbouring experts; a group is as good as its best experts are
    together, as many as a token has in it."""
    grouped = liked.unflatten(-1, (mixture.groups, -1))
    inside = grouped.sort(dim=-1, descending=True).values[..., : mixture.top // mixture.top_groups].sum(-1)
    chosen = torch.zeros_like(inside, dtype=torch.bool).scatter(-1, best(inside, mixture.top_groups), True)
    return grouped.masked_fill(~chosen[..., None], -math.inf).flatten(-2)


def balanced(logits_GNE: Tensor) -> Tensor:
    """Logarithms of a matrix whose rows each sum to 1/N and columns to 1/E, by turns (Sinkhorn and Knopp),
    for each of G groups of N tokens."""
    tokens, experts = logits_GNE.shape[1:]
    for _ in range(SINKHORN_ROUNDS):
        logits_GNE = logits_GNE - logits_GNE.logsumexp(2, keepdim=True) - math.log(tokens)
        logits_GNE = logits_GNE - logits_GNE.logsumexp(1, keepdim=True) - math.log(experts)
    return logits_GNE


def loads_of(experts_BTk: Tensor, count: int) -> Tensor:
    """How many tokens of each row chose each expert, int64 [B, experts]."""
    chosen = experts_BTk.flatten(1)
    ones = torch.ones_like(chosen)
    return torch.zeros((len(chosen), count), dtype=torch.int64, device=chosen.device).scatter_add(
        1, chosen, ones
    )


def capacity(mixture: Mixture, tokens: int) -> int:
    """Outputs that an expert gives at most for a group of so many tokens; the factor is the decimal number
    that was written."""
    share = Fraction(str(mixture.capacity)) * mixture.top * tokens / mixture.experts
    return math.ceil(share)


def has_room(experts_GN: Tensor, weights_GN: Tensor | None, count: int, room: int) -> Tensor:
    """Whether an expert has room for each of those that chose it, in their order, or the heaviest first."""
    order = torch.argsort(experts_GN, dim=1, stable=True)
    if weights_GN is not None:
        heaviest = torch.argsort(weights_GN, dim=1, descending=True, stable=True)
        order = heaviest.gather(1, torch.argsort(experts_GN.gather(1, heaviest), dim=1, stable=True))
    sizes = loads_of(experts_GN[..., None], count)
    first = (sizes.cumsum(1) - sizes).gather(1, experts_GN.gather(1, order))
    place = torch.arange(order.shape[1], device=order.device) - first
    return torch.empty_like(order, dtype=torch.bool).scatter(1, order, place < room)
