"""The layers of a model, some of which drop tokens."""

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.config.config import ModelConfig
from megatron.model.block import Block
from megatron.model.context import Context
from megatron.model.random_ltd import through_kept


class Stack(nn.ModuleDict):
    """Layers by their number in the whole model. `dropping`: the numbers of those under random-LTD."""

    def __init__(self, config: ModelConfig, dropping: tuple[int, ...], recompute: bool):
        super().__init__({str(layer): Block(config, layer) for layer in range(config.num_layers)})
        self.row = {layer: row for row, layer in enumerate(dropping)}
        self.recompute = recompute

    def forward(self, x_BTD: Tensor, context: Context, kept_LBR: Tensor | None = None) -> Tensor:
        """`kept_LBR`: the positions that each dropping layer keeps of each row, or None where nothing is
        dropped."""
        for number, layer in self.items():
            row = self.row.get(int(number))
            kept_BR = kept_LBR[row] if kept_LBR is not None and row is not None else None
            if self.recompute and self.training:
                x_BTD = checkpoint(
                    _run, layer, x_BTD, context, kept_BR, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x_BTD = _run(layer, x_BTD, context, kept_BR)
        return x_BTD


def _run(layer: nn.Module, x_BTD: Tensor, context: Context, kept_BR: Tensor | None) -> Tensor:
    return layer(x_BTD, context) if kept_BR is None else through_kept(layer, x_BTD, context, kept_BR)
