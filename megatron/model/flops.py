"""What a row costs in FLOPs, forward and backward, by every layer's own length."""

import numpy as np

from megatron.model.architecture import Architecture
from megatron.model.attention import explicit_in_training
from megatron.schedule.plan import RowFlops


def decoder_flops(architecture: Architecture, dropping: tuple[int, ...]) -> RowFlops:
    """FLOPs of a row through a causal model in which the `dropping` layers keep fewer tokens. The hardware's
    have one more forward pass of what is recomputed."""
    layers, again = set(range(architecture.num_layers)), set(architecture.recomputed_layers)
    explicit_again = architecture.recompute_attention and explicit_in_training(architecture)

    def row_flops(length: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lengths = length.astype(np.float64), kept.astype(np.float64)
        model = layer_flops(architecture, dropping, layers, *lengths) + head_flops(architecture, lengths[0])
        if explicit_again:
            return model, model + _attention(architecture, dropping, layers, *lengths) / 3
        return model, model + layer_flops(architecture, dropping, again, *lengths) / 3

    return row_flops


def head_flops(architecture: Architecture, length: np.ndarray) -> np.ndarray:
    """FLOPs of a row's logits, forward and backward."""
    return 6 * architecture.hidden_size * architecture.vocab_size * length


def layer_flops(
    architecture: Architecture,
    dropping: tuple[int, ...],
    numbers: set[int],
    length: np.ndarray,
    kept: np.ndarray,
) -> np.ndarray:
    """FLOPs of a row through these layers, forward and backward: 6 a weight and token, causal attention
    counted half; of experts, those that compute a token."""
    total = np.zeros_like(length)
    for weights, kind in _kinds(architecture):
        few = len(numbers & kind & set(dropping))
        total = total + 6 * weights * ((len(numbers & kind) - few) * length + few * kept)
    return total + _attention(architecture, dropping, numbers, length, kept)


def _kinds(architecture: Architecture) -> list[tuple[int, set[int]]]:
    """Weights that a token meets in a layer, and the layers with so many."""
    heads = architecture.num_attention_heads * architecture.kv_channels
    groups = architecture.num_query_groups * architecture.kv_channels
    hidden, products = architecture.hidden_size, 3 if architecture.gated else 2
    attention_weights, mixture = hidden * (2 * heads + 2 * groups), architecture.mixture
    dense = attention_weights + hidden * products * architecture.ffn_hidden_size
    layers = set(range(architecture.num_layers))
    if mixture is None:
        return [(dense, layers)]
    mixed, active = set(mixture.layers), mixture.top * mixture.inner + mixture.shared
    experts = attention_weights + hidden * (products * active + mixture.experts)  # the router, too
    return [(dense, layers - mixed), (experts, mixed)]


def _attention(
    architecture: Architecture,
    dropping: tuple[int, ...],
    numbers: set[int],
    length: np.ndarray,
    kept: np.ndarray,
) -> np.ndarray:
    """FLOPs of scores and of weighted sums of values."""
    few, width = len(numbers & set(dropping)), architecture.num_attention_heads * architecture.kv_channels
    return 6 * width * ((len(numbers) - few) * length**2 + few * kept**2)
