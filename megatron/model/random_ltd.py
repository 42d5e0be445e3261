"""Random layerwise token dropping (arXiv 2211.11586): a layer computes the kept tokens, the others pass it
by unchanged."""

from collections.abc import Callable

from torch import Tensor

from megatron.model.context import Context, context_of_kept


def through_kept(
    layer: Callable[[Tensor, Context], Tensor], x_BTD: Tensor, context: Context, kept_BR: Tensor
) -> Tensor:
    """Gather the kept tokens (ascending positions), run the layer on them, put the results in their
    places."""
    index_BRD = kept_BR[..., None].expand(-1, -1, x_BTD.shape[-1])
    y_BRD = layer(x_BTD.gather(1, index_BRD), context_of_kept(context, kept_BR))
    return x_BTD.scatter(1, index_BRD, y_BRD)
