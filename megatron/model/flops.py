"""What a row costs in FLOPs, forward and backward, by every layer's own length."""

import numpy as np

from megatron.model.architecture import Architecture
from megatron.model.attention import explicit_in_training
from megatron.schedule.plan import RowFlops


def model_flops(architecture: Architecture, dropping: tuple[int, ...]) -> RowFlops:
    """FLOPs of a row through a model in which the `dropping` layers keep fewer tokens. The hardware's
    have one more forward pass of what is recomputed."""
    layers, again = set(range(architecture.num_layers)), set(architecture.recomputed_layers)
    explicit_again = architecture.recompute_attention and explicit_in_training(architecture)

    def row_flops(length: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lengths = length.astype(np.float64), kept.astype(np.float64)
        model = layer_flops(architecture, dropping, layers, *lengths) + head_flops(architecture, lengths[0])
        model = model + patch_flops(architecture, lengths[0])
        if explicit_again:
            return model, model + _attention(architecture, dropping, layers, *lengths) / 3
        return model, model + layer_flops(architecture, dropping, again, *lengths) / 3

    return row_flops


def head_flops(architecture: Architecture, length: np.ndarray) -> np.ndarray:
    """FLOPs of a row's logits, forward and backward; of an encoder's those of the tokens that have a loss,
    with the transform before them, and of the head over pairs; of an image's those of one token."""
    hidden, told = architecture.hidden_size, architecture.told * length
    if architecture.pictures:
        return 6 * hidden * architecture.vocab_size * np.ones_like(length)
    if not architecture.encoder:
        return 6 * hidden * architecture.vocab_size * told
    pairs = 6 * hidden * (hidden + 2) if architecture.pair_head and architecture.vocab_size else 0
    transform = 6 * hidden * hidden * told if architecture.vocab_size else 0
    return 6 * hidden * architecture.vocab_size * told + transform + pairs


def patch_flops(architecture: Architecture, length: np.ndarray) -> np.ndarray:
    """FLOPs of the matrix that an image's patches meet, forward and backward: 4 a weight and patch, as no
    gradient of pixels is asked for."""
    if architecture.pictures is None:
        return np.zeros_like(length)
    return 4 * architecture.hidden_size * architecture.pictures.patch_size * (length - 1)


def layer_flops(
    architecture: Architecture,
    dropping: tuple[int, ...],
    numbers: set[int],
    length: np.ndarray,
    kept: np.ndarray,
) -> np.ndarray:
    """FLOPs of a row through these layers, forward and backward: 6 a weight and token; of experts, those that
    compute a token."""
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
    """FLOPs of scores and of weighted sums of values: causal attention sees half of a row, and a layer with a
    window so many of its tokens, of the kept ones as many as are left of these."""
    width, total = architecture.num_attention_heads * architecture.kv_channels, np.zeros_like(length)
    near, few = set(architecture.near_layers), set(dropping)
    for layers, tokens in ((numbers - few, length), (numbers & few, kept)):
        seen = _window(architecture, length) * tokens / length
        total = total + tokens * (len(layers - near) * tokens + len(layers & near) * seen)
    return (12 if architecture.encoder else 6) * width * total


def _window(architecture: Architecture, length: np.ndarray) -> np.ndarray:
    """Tokens that a token sees in layers with a window."""
    if architecture.window is None:
        return length
    sides = (length if side < 0 else np.minimum(side, length) for side in architecture.window)
    return np.minimum(sum(sides) + 1, length)
