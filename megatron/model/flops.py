"""What a row costs in FLOPs, forward and backward, by every layer's own length."""

import numpy as np

from megatron.model.architecture import Architecture
from megatron.model.attention import explicit_in_training
from megatron.schedule.plan import RowFlops


def decoder_flops(architecture: Architecture, dropping: int) -> RowFlops:
    """FLOPs of a row through a causal model in which `dropping` layers keep fewer tokens: 6 a weight and
    token, causal attention counted half. The hardware's have one more forward pass of what is
    recomputed."""
    heads = architecture.num_attention_heads * architecture.kv_channels
    groups = architecture.num_query_groups * architecture.kv_channels
    inner = (3 if architecture.gated else 2) * architecture.ffn_hidden_size
    weights = architecture.hidden_size * (2 * heads + 2 * groups + inner)
    whole = architecture.num_layers - dropping
    explicit_again = architecture.recompute_attention and explicit_in_training(architecture)

    def row_flops(length: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        length, kept = length.astype(np.float64), kept.astype(np.float64)
        linear = 6 * weights * (whole * length + dropping * kept)
        attention = 6 * heads * (whole * length**2 + dropping * kept**2)
        layers = linear + attention
        model = layers + 6 * architecture.hidden_size * architecture.vocab_size * length
        again = layers if architecture.recompute else attention if explicit_again else 0
        return model, model + again / 3

    return row_flops
