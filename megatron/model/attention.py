"""Causal self-attention, multi-head or grouped-query. Head counts follow from the weights' shapes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.model.architecture import Architecture
from megatron.model.context import Context
from megatron.model.dropout import drop_attention, salt
from megatron.model.rotary import rotate
from megatron.parallel.layers import Linear
from megatron.parallel.placement import add_constants

EXPLICIT = ("unfused", "local")


def explicit_in_training(architecture: Architecture) -> bool:
    """Whether attention's weights are written out in a training step: where they are dropped by key."""
    by_key = architecture.attention_backend == "auto" and architecture.attention_dropout > 0
    return by_key or architecture.attention_backend in EXPLICIT


class Attention(nn.Module):
    """Query, key and value are matrices of their own, so that each is one box of a global tensor."""

    head_salts: Tensor
    key_salt: Tensor

    def __init__(self, architecture: Architecture, layer: int):
        super().__init__()
        hidden, head, std = architecture.hidden_size, architecture.kv_channels, architecture.init_method_std
        bias, qkv_bias = architecture.linear_bias, architecture.linear_bias or architecture.qkv_bias
        queries, groups = architecture.num_attention_heads * head, architecture.num_query_groups * head
        self.query = Linear(hidden, queries, std=std, bias=qkv_bias)
        self.key = Linear(hidden, groups, std=std, bias=qkv_bias)
        self.value = Linear(hidden, groups, std=std, bias=qkv_bias)
        self.projection = Linear(queries, hidden, std=std / math.sqrt(2 * architecture.num_layers), bias=bias)
        self.head, self.dropout = head, architecture.attention_dropout
        self.recompute = architecture.recompute_attention
        self.explicit = architecture.attention_backend in EXPLICIT
        self.explicit_in_training = explicit_in_training(architecture)
        heads = range(architecture.num_attention_heads)
        add_constants(
            self,
            lambda: {
                "head_salts": torch.stack([salt("attention", layer, number) for number in heads]),
                "key_salt": salt("attention key", layer),
            },
        )

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        query, keys, value = (self._heads(part(x_BTD)) for part in (self.query, self.key, self.value))
        if context.rotary is not None:
            query, keys = rotate(query, context.rotary), rotate(keys, context.rotary)
        repeat = query.shape[1] // keys.shape[1]
        if repeat > 1:
            keys, value = keys.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
        explicit = self.explicit or (self.explicit_in_training and context.dropout_keys is not None)
        if not explicit:
            out_BHTK = self._fused(query, keys, value, context)
        elif self.recompute and self.training:  # kernels keep no weights, so only these are worth it
            out_BHTK = checkpoint(
                self._explicit, query, keys, value, context, use_reentrant=False, preserve_rng_state=False
            )
        else:
            out_BHTK = self._explicit(query, keys, value, context)
        return self.projection(out_BHTK.transpose(1, 2).flatten(2))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        """[B, T, H·K] to [B, H, T, K]."""
        return x_BTD.unflatten(-1, (-1, self.head)).transpose(1, 2)

    def _fused(self, query: Tensor, keys: Tensor, value: Tensor, context: Context) -> Tensor:
        """PyTorch's attention kernels. Their dropout is drawn from the device's generator, which the training
        step seeds for every micro-batch."""
        probability = self.dropout if context.dropout_keys is not None else 0.0
        mask, causal = context.mask, context.mask is None
        return F.scaled_dot_product_attention(query, keys, value, mask, probability, is_causal=causal)

    def _explicit(self, query: Tensor, keys: Tensor, value: Tensor, context: Context) -> Tensor:
        """Attention written out, for dropout that any layout of ranks repeats."""
        scores_BHTT = query @ keys.transpose(-1, -2) / math.sqrt(self.head)
        length = scores_BHTT.shape[-1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        if context.mask is not None:
            allowed = context.mask
        scores_BHTT = scores_BHTT.masked_fill(~allowed, -math.inf)
        precision = torch.promote_types(scores_BHTT.dtype, torch.float32)
        weights = scores_BHTT.softmax(-1, dtype=precision).to(query.dtype)
        weights = drop_attention(weights, self.dropout, context.dropout_keys, self.head_salts, self.key_salt)
        return weights @ value
