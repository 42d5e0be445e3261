"""Causal self-attention, multi-head or grouped-query. Head counts follow from the weights' shapes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.base.keys import key
from megatron.config.config import ModelConfig
from megatron.model.context import Context
from megatron.model.dropout import drop_attention
from megatron.model.rotary import rotate
from megatron.parallel.layers import Linear


class Attention(nn.Module):
    """Query, key and value are matrices of their own, so that each is one box of a global tensor."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        hidden, head = config.hidden_size, config.kv_channels or 0
        bias = config.add_qkv_bias or not config.disable_bias_linear
        queries, groups = config.num_attention_heads * head, config.num_query_groups * head
        self.query = Linear(hidden, queries, std=config.init_method_std, bias=bias)
        self.key = Linear(hidden, groups, std=config.init_method_std, bias=bias)
        self.value = Linear(hidden, groups, std=config.init_method_std, bias=bias)
        std = config.init_method_std / math.sqrt(2 * config.num_layers)
        self.projection = Linear(queries, hidden, std=std, bias=not config.disable_bias_linear)
        self.head, self.layer, self.dropout = head, layer, config.attention_dropout
        self.explicit = config.attention_backend in ("unfused", "local")
        self.explicit_dropout = config.attention_backend == "auto" and config.attention_dropout > 0

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        query, keys, value = (self._heads(part(x_BTD)) for part in (self.query, self.key, self.value))
        if context.turns is not None:
            query, keys = rotate(query, context.turns), rotate(keys, context.turns)
        repeat = query.shape[1] // keys.shape[1]
        if repeat > 1:
            keys, value = keys.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
        explicit = self.explicit or (self.explicit_dropout and context.dropout_keys is not None)
        attend = self._explicit if explicit else self._fused
        out_BHTK = attend(query, keys, value, context)
        return self.projection(out_BHTK.transpose(1, 2).flatten(2))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        """[B, T, H·K] to [B, H, T, K]."""
        return x_BTD.unflatten(-1, (-1, self.head)).transpose(1, 2)

    def _fused(self, query: Tensor, keys: Tensor, value: Tensor, context: Context) -> Tensor:
        """PyTorch's attention kernels. Their dropout is keyed by step, micro-batch and layer only."""
        probability = self.dropout if context.dropout_keys is not None else 0.0
        if probability:
            torch.manual_seed(key(context.batch_key, self.layer) >> 1)
        mask = context.mask_BTT[:, None] if context.mask_BTT is not None else None
        return F.scaled_dot_product_attention(query, keys, value, mask, probability, is_causal=mask is None)

    def _explicit(self, query: Tensor, keys: Tensor, value: Tensor, context: Context) -> Tensor:
        """Attention written out, for dropout that any layout of ranks repeats."""
        scores_BHTT = query @ keys.transpose(-1, -2) / math.sqrt(self.head)
        length = scores_BHTT.shape[-1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        if context.mask_BTT is not None:
            allowed = context.mask_BTT[:, None]
        scores_BHTT = scores_BHTT.masked_fill(~allowed, -math.inf)
        weights = scores_BHTT.softmax(-1, dtype=torch.promote_types(scores_BHTT.dtype, torch.float32)).to(
            query.dtype
        )
        return drop_attention(weights, self.dropout, context.dropout_keys, self.layer) @ value
