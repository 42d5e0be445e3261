"""Random layerwise token dropping (arXiv 2211.11586): a layer computes the kept tokens, the others pass it
by unchanged."""

from collections.abc import Callable

from torch import Tensor

from megatron.model.context import Context, context_of_kept
from megatron.parallel.slices import WHOLE, Moves, Slices, put_kept, take_kept

Layer = Callable[[Tensor, Context], Tensor]


def through_kept(
    layer: Layer,
    x_BTD: Tensor,
    context: Context,
    kept_BR: Tensor,
    moves: Moves | None = None,
    slices: Slices = WHOLE,
) -> Tensor:
    """Gather the kept tokens (ascending positions), run the layer on them, put the results in their
    places. `moves`: how kept tokens come to the ranks that compute them, where a sequence is shared."""
    inside = context_of_kept(context, kept_BR, slices)
    if moves is not None:
        return put_kept(x_BTD, layer(take_kept(x_BTD, moves, slices), inside), moves, slices)
    index_BRD = kept_BR[..., None].expand(-1, -1, x_BTD.shape[-1])
    return x_BTD.scatter(1, index_BRD, layer(x_BTD.gather(1, index_BRD), inside))
