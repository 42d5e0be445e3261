"""What a row costs in FLOPs, forward and backward, by every layer's own length."""

import numpy as np

from megatron.model.architecture import Architecture
from megatron.model.attention import explicit_in_training
from megatron.schedule.plan import RowFlops


def active_weights(architecture: Architecture, mixed: bool) -> int:
    """Elements of the matrices of a layer that compute a token; of a `mixed` one those of its own experts,
    the shared one, and the router."""
    heads = architecture.num_attention_heads * architecture.kv_channels
    groups = architecture.num_query_groups * architecture.kv_channels
    hidden, products = architecture.hidden_size, 3 if architecture.gated else 2
    inner, mixture = architecture.ffn_hidden_size, architecture.mixture
    more = 0
    if mixed and mixture is not None:
        inner, more = mixture.top * mixture.inner + mixture.shared, mixture.experts
    return hidden * (2 * heads + 2 * groups + products * inner + more)


def decoder_flops(architecture: Architecture, dropping: tuple[int, ...]) -> RowFlops:
    """FLOPs of a row through a causal model in which the `dropping` layers keep fewer tokens: 6 a weight
    and token, causal attention counted half; of experts, those that compute a token. The hardware's have one
    more forward pass of what is recomputed."""
    heads = architecture.num_attention_heads * architecture.kv_channels
    mixed = set(architecture.mixture.layers) if architecture.mixture is not None else set()
    kinds = [(active_weights(architecture, False), set(range(architecture.num_layers)) - mixed)]
    kinds += [(active_weights(architecture, True), mixed)] if mixed else []
    layers, again = set(range(architecture.num_layers)), set(architecture.recomputed_layers)
    explicit_again = architecture.recompute_attention and explicit_in_training(architecture)

    def row_flops(length: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        length, kept = length.astype(np.float64), kept.astype(np.float64)

        def attention(numbers: set[int]) -> np.ndarray:
            few = len(numbers & set(dropping))
            return 6 * heads * ((len(numbers) - few) * length**2 + few * kept**2)

        def linear(weights: int, numbers: set[int]) -> np.ndarray:
            few = len(numbers & set(dropping))
            return 6 * weights * ((len(numbers) - few) * length + few * kept)

        def whole(numbers: set[int]) -> np.ndarray:
            products = [linear(weights, numbers & kind) for weights, kind in kinds if numbers & kind]
            return sum(products, np.zeros_like(length)) + attention(numbers)

        model = whole(layers) + 6 * architecture.hidden_size * architecture.vocab_size * length
        repeated = attention(layers) if explicit_again else whole(again)
        return model, model + repeated / 3

    return row_flops
