"""Losses that keep experts balanced and routers' logits small. A layer attaches them to its hidden states, so
they need no way of their own through recomputation, token dropping or a pipeline.

Each is a mean over the rows of the global batch. A rank computes the part of its rows and tokens, and all
parts are added up.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.config.experts import Z_LOSS
from megatron.model.architecture import Mixture
from megatron.model.context import Beside
from megatron.model.router import Router, Routing
from megatron.parallel.mesh import Mesh

LOAD = "load of layer "


def load_name(layer: int) -> str:
    """What a layer's loads are called in a tally."""
    return f"{LOAD}{layer}"


def settle(layers: Iterable[nn.Module], totals: Mapping[str, Tensor]) -> None:
    """Behind a step of all ranks with these totals: what routers keep of it."""
    for router in (one for layer in layers for one in layer.modules() if isinstance(one, Router)):
        router.settle(totals[load_name(router.layer)])


def loads_by_layer(totals: Mapping[str, Tensor]) -> dict[int, list[float]]:
    """How many tokens of the step chose each expert, by layer."""
    layers = {name.removeprefix(LOAD): part for name, part in totals.items() if name.startswith(LOAD)}
    return {int(layer): part.tolist() for layer, part in layers.items()}


def tally_sizes(mixture: Mixture) -> dict[str, int]:
    """What layers with experts add up in a step: losses, and by layer how many tokens chose an expert."""
    return {name: 1 for name, _ in mixture.losses} | {
        load_name(layer): mixture.experts for layer in mixture.layers
    }


def balancing_losses(routing: Routing, router: Router, length: int) -> Tensor:
    """Sums over the rows of a micro-batch of the losses that a layer adds, by the order of their names: what
    the tokens [B, T held] of this rank add to them."""
    mixture, found = router.mixture, []
    for name, _ in mixture.losses:
        if name == Z_LOSS:  # arXiv 2202.08906
            found.append(routing.logits.logsumexp(-1).square().sum() / length)
        else:
            found.append(_load_loss(routing, router, length))
    return torch.stack(found) if found else routing.logits.new_zeros(0)


def _load_loss(routing: Routing, router: Router, length: int) -> Tensor:
    """E · Σ share of choices · mean score, over the experts (arXiv 2101.03961, eq. 4), of each group times
    its rows; 1 where all is even."""
    mixture, rows = router.mixture, len(routing.logits)
    scores = routing.logits.softmax(-1)
    if not mixture.softmax:
        scores = F.logsigmoid(routing.logits).softmax(-1)  # shares of the sigmoids, however small these are
    groups = mixture.batch_groups if mixture.balance == "aux_loss" else rows
    scores_GE = scores.unflatten(0, (groups, -1)).sum((1, 2)) / length
    if mixture.balance == "global_aux_loss":
        load = router.past_load.to(scores.dtype)
        share = torch.where(load.sum() > 0, load / load.sum().clamp(min=1), 1 / mixture.experts)
    else:
        loads = routing.loads.unflatten(0, (groups, -1)).sum(1).to(scores.dtype)
        share = loads / loads.sum(-1, keepdim=True)
    return mixture.experts * (share * scores_GE).sum()


def attach(
    y_BTD: Tensor,
    losses: Tensor,
    loads_BE: Tensor,
    layer: int,
    mixture: Mixture,
    beside: Beside,
    mesh: Mesh,
) -> Tensor:
    """`y_BTD`, whose backward pass gives the losses their gradients, and adds their values and the loads to
    the step's tally: once, however often the layer is computed."""
    names = [name for name, _ in mixture.losses]
    scales = [factor * beside.scales.get(name, 1.0) for name, factor in mixture.losses]
    values, counts = losses.detach(), loads_BE.sum(0)
    copy = mesh.tensor.rank > 0 and mesh.tokens.size == 1  # of another rank's tokens
    again = copy or (mesh.tokens.rank > 0 or mesh.context.rank > 0)  # loads are of whole rows

    def tell() -> None:
        if not copy:
            beside.tally.add(dict(zip(names, values[:, None])))
        if not again:
            beside.tally.add({load_name(layer): counts})

    y: Tensor = _Attach.apply(y_BTD, losses, tuple(scales), tell)
    return y


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, losses: Tensor, scales: tuple[float, ...], tell: Callable[[], None]
    ) -> Tensor:
        ctx.gradient, ctx.tell = losses.new_tensor(scales), tell
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        ctx.tell()
        return gradient, ctx.gradient, None, None
