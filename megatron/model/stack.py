"""The layers of a model, some of which drop tokens."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.config.model import EXPLICIT
from megatron.model.architecture import Architecture
from megatron.model.block import Block
from megatron.model.context import Context
from megatron.model.random_ltd import through_kept
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh
from megatron.parallel.slices import Moves, slices_of


class Stack(nn.ModuleDict):
    """Layers by their number in the whole model, all or those of a stage. `dropping`: the numbers of those
    under random-LTD."""

    def __init__(
        self,
        architecture: Architecture,
        dropping: tuple[int, ...],
        mesh: Mesh = ONE_RANK,
        layers: range | None = None,
    ):
        layers = range(architecture.num_layers) if layers is None else layers
        super().__init__({str(layer): Block(architecture, layer, mesh) for layer in layers})
        self.slices = slices_of(mesh)
        self.row = {layer: row for row, layer in enumerate(dropping)}
        self.runs = runs_of(layers, architecture.recomputed_layers, architecture.recompute_run)
        self.kernels_draw = draws_in_kernels(architecture)

    def forward(
        self,
        x_BTD: Tensor,
        context: Context,
        kept_LBR: Tensor | None = None,
        moves: tuple[Moves, ...] | None = None,
    ) -> Tensor:
        """`kept_LBR`: the positions that each dropping layer keeps of each row, or None where nothing is
        dropped; `moves`: how they come to the ranks that compute them, where a sequence is shared."""

        def run(numbers: list[int], x_BTD: Tensor) -> Tensor:
            for number in numbers:
                row, layer = self.row.get(number), self[str(number)]
                if kept_LBR is None or row is None:
                    x_BTD = layer(x_BTD, context)
                else:
                    move = moves[row] if moves else None
                    x_BTD = through_kept(layer, x_BTD, context, kept_LBR[row], move, self.slices)
            return x_BTD

        for numbers, again in self.runs:
            if again and self.training:
                draw = self.kernels_draw
                x_BTD = checkpoint(run, numbers, x_BTD, use_reentrant=False, preserve_rng_state=draw)
            else:
                x_BTD = run(numbers, x_BTD)
        return x_BTD


def compile_layers(layers: nn.ModuleDict, backend: str | Callable[..., Any] = "inductor") -> None:
    """From now on compute each layer by torch.compile, as one graph without a break. Layers of the same kind
    share a graph; a second one is made when lengths change, and that is of any length."""
    for layer in layers.values():
        layer.forward = torch.compile(layer.forward, fullgraph=True, backend=backend)


def runs_of(layers: Iterable[int], again: Collection[int], together: int) -> list[tuple[list[int], bool]]:
    """Layers in runs, and whether a run is computed again in the backward pass: so many of these layers
    together, and each of the others alone."""
    runs: list[tuple[list[int], bool]] = []
    for layer in layers:
        joins = runs and runs[-1][1] and layer in again and len(runs[-1][0]) < together
        if joins:
            runs[-1][0].append(layer)
        else:
            runs.append(([layer], layer in again))
    return runs


def draws_in_kernels(architecture: Architecture) -> bool:
    """Whether attention's kernels drop probabilities by a generator of the device, instead of keyed bits."""
    explicit = architecture.attention_backend in (*EXPLICIT, "auto")
    return architecture.attention_dropout > 0 and not explicit
