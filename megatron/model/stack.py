"""The layers of a model, some of which drop tokens."""

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.model.architecture import Architecture
from megatron.model.attention import EXPLICIT
from megatron.model.block import Block
from megatron.model.context import Context
from megatron.model.random_ltd import through_kept


class Stack(nn.ModuleDict):
    """Layers by their number in the whole model. `dropping`: the numbers of those under random-LTD."""

    def __init__(self, architecture: Architecture, dropping: tuple[int, ...]):
        super().__init__({str(layer): Block(architecture, layer) for layer in range(architecture.num_layers)})
        self.row = {layer: row for row, layer in enumerate(dropping)}
        self.recompute = architecture.recompute
        self.kernels_draw = draws_in_kernels(architecture)

    def forward(self, x_BTD: Tensor, context: Context, kept_LBR: Tensor | None = None) -> Tensor:
        """`kept_LBR`: the positions that each dropping layer keeps of each row, or None where nothing is
        dropped."""
        for number, layer in self.items():
            row = self.row.get(int(number))
            kept_BR = kept_LBR[row] if kept_LBR is not None and row is not None else None
            if self.recompute and self.training:
                x_BTD = checkpoint(
                    _run,
                    layer,
                    x_BTD,
                    context,
                    kept_BR,
                    use_reentrant=False,
                    preserve_rng_state=self.kernels_draw,
                )
            else:
                x_BTD = _run(layer, x_BTD, context, kept_BR)
        return x_BTD


def draws_in_kernels(architecture: Architecture) -> bool:
    """Whether attention's kernels drop probabilities by a generator of the device, instead of keyed bits."""
    explicit = architecture.attention_backend in (*EXPLICIT, "auto")
    return architecture.attention_dropout > 0 and not explicit


def _run(layer: nn.Module, x_BTD: Tensor, context: Context, kept_BR: Tensor | None) -> Tensor:
    return layer(x_BTD, context) if kept_BR is None else through_kept(layer, x_BTD, context, kept_BR)
