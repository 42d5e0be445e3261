"""Self-attention, causal or to both sides, multi-head or grouped-query. Head counts follow from the weights'
shapes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.config.model import EXPLICIT, explicit_attention
from megatron.model.architecture import Architecture
from megatron.model.context import Context, Part, View
from megatron.model.dropout import drop_attention, salt
from megatron.model.rotary import rotate
from megatron.parallel.collectives import gather_along
from megatron.parallel.layers import ONE_RANK, Linear, enter
from megatron.parallel.mesh import Axis, Mesh
from megatron.parallel.placement import add_constants
from megatron.parallel.ring import Block, ring_attention
from megatron.parallel.slices import Slices, heads_for_places, in_order, places_for_heads, slices_of


def explicit_in_training(architecture: Architecture) -> bool:
    return explicit_attention(architecture.attention_backend, architecture.attention_dropout)


class Attention(nn.Module):
    """Query, key and value are matrices of their own, so that each is one box of a global tensor. Heads are
    split over the tensor axis; of fewer groups than ranks each rank computes one, and all keep them whole."""

    head_salts: Tensor
    key_salt: Tensor

    def __init__(self, architecture: Architecture, layer: int, mesh: Mesh = ONE_RANK):
        super().__init__()
        hidden, head, std = architecture.hidden_size, architecture.kv_channels, architecture.init_method_std
        bias, qkv_bias = architecture.linear_bias, architecture.qkv_bias
        queries, groups = architecture.num_attention_heads * head, architecture.num_query_groups
        few = groups % mesh.tensor.size > 0

        def linear(outputs: int, whole: bool = False) -> Linear:
            rows = _rows_of_group(groups, head, mesh.tensor) if whole else None
            split = None if whole else "outputs"
            return Linear(hidden, outputs, std=std, bias=qkv_bias, split=split, rows=rows, mesh=mesh)

        self.query = linear(queries)
        self.key, self.value = linear(groups * head, few), linear(groups * head, few)
        out_std = std / math.sqrt(2 * architecture.num_layers)
        self.projection = Linear(queries, hidden, std=out_std, bias=bias, split="inputs", mesh=mesh)
        self.head, self.dropout = head, architecture.attention_dropout
        self.recompute = architecture.recompute_attention
        self.explicit = architecture.attention_backend in EXPLICIT
        self.explicit_in_training = explicit_in_training(architecture)
        self.layer, self.near = layer, layer in architecture.near_layers
        self.mesh, self.slices = mesh, slices_of(mesh)
        heads = _heads_here(architecture.num_attention_heads, self.slices, mesh.tensor)
        add_constants(
            self,
            lambda: {
                "head_salts": torch.stack([salt("attention", layer, number) for number in heads]),
                "key_salt": salt("attention key", layer),
            },
        )

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        x_BTD = enter(x_BTD, self.mesh)
        query, keys, value = (self._heads(part(x_BTD)) for part in (self.query, self.key, self.value))
        if (angles := self._view(context).seen_rotary) is not None:
            query, keys = rotate(query, angles), rotate(keys, angles)
        if (recall := context.recall) is not None:
            keys, value = recall.cache.put(self.layer, recall.places, recall.end, keys, value)
        out_BHTK = self._over_context(query, keys, value, context)
        return self.projection(out_BHTK.transpose(1, 2).flatten(2))

    def _over_context(self, query: Tensor, keys: Tensor, value: Tensor, context: Context) -> Tensor:
        """Attention of this rank's queries to the keys of the whole sequence."""
        axis, repeat = self.slices.context, query.shape[1] // keys.shape[1]
        if axis.size > 1 and self.slices.way == "a2a":
            if keys.shape[1] % axis.size:
                keys, value, repeat = (*_repeated(keys, value, repeat), 1)
            query, keys, value = (heads_for_places(one, axis) for one in (query, keys, value))
            out_BHTK = self._attend(query, *_repeated(keys, value, repeat), context)
            return places_for_heads(out_BHTK, axis)
        if axis.size > 1 and self.slices.way == "p2p":
            return self._round(query, *_repeated(keys, value, repeat), context)
        if axis.size > 1:
            keys, value = (in_order(gather_along(one, axis, 2), axis.size) for one in (keys, value))
        return self._attend(query, *_repeated(keys, value, repeat), context)

    def _attend(self, query: Tensor, keys: Tensor, value: Tensor, context: Context) -> Tensor:
        """Attention of the context's parts of queries, one behind another."""
        parts = self._view(context).parts
        if len(parts) == 1:
            return self._attend_part(query, keys, value, context, parts[0])
        pieces = query.split([part.size for part in parts], 2)
        return torch.cat(
            [
                self._attend_part(piece, keys[:, :, : part.end], value[:, :, : part.end], context, part)
                for piece, part in zip(pieces, parts)
            ],
            2,
        )

    def _attend_part(
        self, query: Tensor, keys: Tensor, value: Tensor, context: Context, part: Part
    ) -> Tensor:
        explicit = self.explicit or (self.explicit_in_training and context.dropout_keys is not None)
        if not explicit:
            return self._fused(query, keys, value, context, part)
        if self.recompute and self.training:  # kernels keep no weights, so only these are worth it
            return checkpoint(
                self._explicit,
                query,
                keys,
                value,
                context,
                part,
                use_reentrant=False,
                preserve_rng_state=False,
            )
        return self._explicit(query, keys, value, context, part)

    def _round(self, query: Tensor, keys: Tensor, value: Tensor, context: Context) -> Tensor:
        """Ring attention, whose masks and dropout are those of the whole sequence."""
        size = query.shape[2] // 2
        keyed = context.dropout_keys if self.dropout else None

        def places(number: int) -> slice:
            return slice(number * size, (number + 1) * size)

        def allowed(block: Block) -> Tensor | None:
            if context.sight.starts is None:
                return triangle if block.diagonal else None
            starts = context.sight.starts[:, places(block.first_query), None]
            mask = block.first_key * size + torch.arange(size, device=query.device) >= starts
            return (mask & triangle if block.diagonal else mask)[:, None]

        def drop(weights: Tensor, block: Block) -> Tensor:
            assert keyed is not None
            queries, seen = keyed[:, places(block.first_query)], keyed[:, places(block.first_key)]
            return drop_attention(weights, self.dropout, queries, seen, self.head_salts, self.key_salt)

        triangle = torch.ones(size, size, dtype=torch.bool, device=query.device).tril()
        axis = self.slices.context
        return ring_attention(query, keys, value, axis, allowed, drop if keyed is not None else None)

    def _view(self, context: Context) -> View:
        """What this layer sees."""
        return context.near if self.near else context.wide

    def _heads(self, x_BTD: Tensor) -> Tensor:
        """[B, T, H·K] to [B, H, T, K]."""
        return x_BTD.unflatten(-1, (-1, self.head)).transpose(1, 2)

    def _fused(self, query: Tensor, keys: Tensor, value: Tensor, context: Context, part: Part) -> Tensor:
        """PyTorch's attention kernels. Their dropout is drawn from the device's generator, which the training
        step seeds for every micro-batch."""
        probability = self.dropout if context.dropout_keys is not None else 0.0
        causal = part.causal and part.mask is None
        return F.scaled_dot_product_attention(query, keys, value, part.mask, probability, is_causal=causal)

    def _explicit(self, query: Tensor, keys: Tensor, value: Tensor, context: Context, part: Part) -> Tensor:
        """Attention written out, for dropout that any layout of ranks repeats."""
        scores_BHQT = query @ keys.transpose(-1, -2) / math.sqrt(self.head)
        allowed = part.mask
        if allowed is None and part.causal:
            allowed = torch.ones(part.size, part.end, dtype=torch.bool, device=query.device).tril()
        if allowed is not None:
            scores_BHQT = scores_BHQT.masked_fill(~allowed, -math.inf)
        precision = torch.promote_types(scores_BHQT.dtype, torch.float32)
        weights = scores_BHQT.softmax(-1, dtype=precision).to(query.dtype)
        if (every := context.dropout_keys) is not None:
            queries, seen = every[:, part.first : part.first + part.size], every[:, : part.end]
            weights = drop_attention(weights, self.dropout, queries, seen, self.head_salts, self.key_salt)
        return weights @ value


def _rows_of_group(groups: int, head: int, axis: Axis) -> slice:
    """The rows of keys and values for the one group that this rank's heads read."""
    group = axis.rank * groups // axis.size
    return slice(group * head, (group + 1) * head)


def _heads_here(heads: int, slices: Slices, tensor: Axis) -> range:
    """The global numbers of the heads that attend on this rank."""
    count, first = heads // tensor.size, tensor.rank * heads // tensor.size
    if slices.way == "a2a":
        count //= slices.context.size
        first += slices.context.rank * count
    return range(first, first + count)


def _repeated(keys: Tensor, value: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """Keys and values of every head, from those of its group."""
    if times == 1:
        return keys, value
    return keys.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
