"""Sparse upcycling (arXiv 2212.05055): every tensor of a mixture of experts from those of a dense model.

An expert is a copy of the dense MLP, or of a piece of its inner width (arXiv 2410.07524). Expert `e` has
piece `e % pieces`, so that neighbours make up a whole MLP. They have one row of the router between them, and
a token that chooses one of them chooses all. The first channels are those of the shared expert, where there
is one.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from megatron.base.keys import key
from megatron.base.random import normal
from megatron.model.architecture import Architecture, Mixture
from megatron.model.context import Context
from megatron.model.router import Router
from megatron.parallel.initialization import initialize_weights
from megatron.parallel.placement import Placement

TOKENS = 4096
"""Made-up tokens from which the sum of their experts' weights is known."""
PART = 1 << 24
"""Elements of experts that are made at once."""
EQUAL = 1e-9
"""How far such sums in double precision may be apart and still be one."""


class Upcycling(NamedTuple):
    """How a dense MLP becomes experts. `pieces`: of its inner width, which the experts have by turns;
    `gates`: what the weights of a token's experts sum to; `equal`: whether they do so for every token, and
    not only on average; `noise`: deviation of what is added to the experts' matrices, in deviations of the
    dense matrix; `seed`: of that, and of the routers."""

    mixture: Mixture
    pieces: int
    gates: float
    equal: bool
    noise: float = 0.0
    seed: int = 0


def upcycling(architecture: Architecture, noise: float = 0.0, seed: int = 0) -> Upcycling:
    """How the dense model of the same shape becomes this one, whose experts' widths divide what a shared
    expert leaves of the dense MLP's."""
    mixture = architecture.mixture
    assert mixture is not None
    pieces = (architecture.ffn_hidden_size - mixture.shared) // mixture.inner
    sums = gate_sums(architecture, pieces)
    mean = float(sums.mean())
    gates = mixture.factor if math.isclose(mean, mixture.factor, rel_tol=EQUAL) else mean
    return Upcycling(mixture, pieces, gates, float((sums / mean - 1).abs().max()) < EQUAL, noise, seed)


@torch.no_grad()
def gate_sums(architecture: Architecture, pieces: int) -> Tensor:
    """What the weights of each token's experts sum to, by a new router whose inputs are normalised; float64
    [TOKENS]."""
    mixture = architecture.mixture
    assert mixture is not None
    shape = (TOKENS, mixture.experts // pieces)
    scores = torch.from_numpy(normal(key("scores of a new router"), shape, (0, 0), shape))
    scores *= architecture.init_method_std * math.sqrt(architecture.hidden_size)
    router = Router(dataclasses.replace(architecture, hidden_size=mixture.experts), 0).double().eval()
    nn.init.eye_(router.weight)  # so that what goes in are the scores
    routing = router(scores.repeat_interleave(pieces, 1)[None], Context(length=TOKENS))
    sums: Tensor = routing.gates[0].sum(-1)
    return sums


def source_of(name: str) -> str | None:
    """The dense tensor that a tensor of the mixture is made of; None where it is new."""
    layer, _, rest = name.partition(".mlp.")
    kind, _, of = rest.partition(".")
    if kind in ("experts", "down_bias"):
        matrix, _, bias = (of or kind).partition("_")
        return f"{layer}.mlp.{matrix}.{bias or 'weight'}"
    if kind == "shared":
        return f"{layer}.mlp.{of}"
    return None if kind == "router" else name


def upcycled(
    name: str, placement: Placement, read: Callable[[str], Tensor], how: Upcycling
) -> Iterator[Tensor]:
    """A tensor of the mixture by its global name, in parts that follow each other along its first dimension.
    `read`: a dense tensor by its name; `placement`: that of the tensor, whose first values a new one has."""
    source = source_of(name)
    if source is None:
        yield _new(name, placement, how)
    elif ".mlp.experts." in name or name.endswith(".mlp.down_bias"):
        yield from _experts(name, placement.global_shape, read(source), how)
    elif ".mlp.shared." in name:
        yield _channels(source, read(source), how.mixture.shared)
    else:
        yield read(source)


def _new(name: str, placement: Placement, how: Upcycling) -> Tensor:
    """A router's tensor as a new model has it; experts that make up one MLP have the first one's row."""
    tensor = nn.Parameter(torch.empty(placement.global_shape))
    initialize_weights({name: tensor}, {name: placement}, how.seed)
    return tensor.detach()[:: how.pieces].repeat_interleave(how.pieces, 0)


def _experts(name: str, shape: tuple[int, ...], dense: Tensor, how: Upcycling) -> Iterator[Tensor]:
    """A few rows at a time of all experts, with their noise and their scale."""
    factor, row = _factor(name, how), 0
    spread = how.noise * float(dense.std(correction=0)) if how.noise and dense.dim() == 2 else 0.0
    for part in _copied(name, dense, how):
        if spread:
            rows, experts, columns = shape
            drawn = normal(
                key(how.seed, "noise", name),
                (experts, rows, columns),  # so that an expert's does not depend on how many there are
                (0, row, 0),
                (experts, len(part), columns),
            )
            part = (part.double() + spread * torch.from_numpy(drawn).transpose(0, 1)).to(dense.dtype)
        row += len(part)
        yield part if factor == 1 else (part.double() * factor).to(dense.dtype)


def _copied(name: str, dense: Tensor, how: Upcycling) -> Iterator[Tensor]:
    """Every expert's piece: of matrices [rows, experts, columns], of biases [experts, channels]."""
    mixture = how.mixture
    copies = mixture.experts // how.pieces
    if name.endswith(".down_bias"):
        yield dense.repeat(mixture.experts, 1)
        return
    side = 1 if name.endswith(".down") else 0
    pieces = dense.narrow(side, mixture.shared, how.pieces * mixture.inner)
    pieces = pieces.unflatten(side, (how.pieces, mixture.inner))
    if name.endswith("bias"):
        yield pieces.repeat(copies, 1)
        return
    pieces = pieces if side else pieces.transpose(0, 1)
    rows = max(PART // (mixture.experts * pieces.shape[2]), 1)
    for part in pieces.split(rows):
        yield part.repeat(1, copies, 1)


def _factor(name: str, how: Upcycling) -> float:
    """Of a token's pieces each counts `gates / pieces`, and its biases of outputs `gates` together. A shared
    expert has that bias alone."""
    if name.endswith(".down_bias"):
        return 0.0 if how.mixture.shared else 1 / how.gates
    return how.pieces / how.gates if name.endswith(".down") else 1.0


def _channels(source: str, dense: Tensor, count: int) -> Tensor:
    """The first channels of the inner width; the bias of outputs has none, and is whole."""
    if source.endswith(".down.bias"):
        return dense
    return dense.narrow(1 if source.endswith(".down.weight") else 0, 0, count)
