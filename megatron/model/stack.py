"""The layers of a model, some of which drop tokens."""

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.model.architecture import Architecture
from megatron.model.attention import EXPLICIT
from megatron.model.block import Block
from megatron.model.context import Context
from megatron.model.random_ltd import through_kept
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh
from megatron.parallel.slices import Moves, Slices, slices_of


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
        self.recompute = architecture.recompute
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
        for number, layer in self.items():
            row, kept = self.row.get(int(number)), None
            if kept_LBR is not None and row is not None:
                kept = (kept_LBR[row], moves[row] if moves else None, self.slices)
            if self.recompute and self.training:
                x_BTD = checkpoint(
                    _run,
                    layer,
                    x_BTD,
                    context,
                    kept,
                    use_reentrant=False,
                    preserve_rng_state=self.kernels_draw,
                )
            else:
                x_BTD = _run(layer, x_BTD, context, kept)
        return x_BTD


def draws_in_kernels(architecture: Architecture) -> bool:
    """Whether attention's kernels drop probabilities by a generator of the device, instead of keyed bits."""
    explicit = architecture.attention_backend in (*EXPLICIT, "auto")
    return architecture.attention_dropout > 0 and not explicit


def _run(
    layer: nn.Module,
    x_BTD: Tensor,
    context: Context,
    kept: tuple[Tensor, Moves | None, Slices] | None,
) -> Tensor:
    return layer(x_BTD, context) if kept is None else through_kept(layer, x_BTD, context, *kept)
