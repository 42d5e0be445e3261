"""Ring attention (arXiv 2310.01889) over the zigzag parts of a sequence: keys and values go round, and every
rank joins what its queries find in each part by the logarithms of the softmax's denominators."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from megatron.parallel.mesh import Axis


class Block(NamedTuple):
    """Chunks of queries and keys that meet: `query`, `key`: which half of the rank's own and of the passing
    parts; `first_query`, `first_key`: the chunks' numbers in the sequence."""

    query: int
    key: int
    first_query: int
    first_key: int

    @property
    def diagonal(self) -> bool:
        return self.first_query == self.first_key


Drop = Callable[[Tensor, Block], Tensor]
"""Dropout of attention's weights of a block."""
Allowed = Callable[[Block], Tensor | None]
"""Allowed pairs of a block [B or 1, 1, c, c], None where all are."""


def blocks(rank: int, source: int, ranks: int) -> list[Block]:
    """The pairs of chunks of a rank's queries and another one's keys that causal attention joins."""
    mine, theirs = (rank, 2 * ranks - 1 - rank), (source, 2 * ranks - 1 - source)
    return [
        Block(query, key, mine[query], theirs[key])
        for query in (0, 1)
        for key in (0, 1)
        if mine[query] >= theirs[key]
    ]


def ring_attention(
    query: Tensor, keys: Tensor, value: Tensor, axis: Axis, allowed: Allowed, drop: Drop | None = None
) -> Tensor:
    """Attention [B, H, 2c, K] of this rank's two chunks of queries to all keys before them."""
    found: Tensor = _Ring.apply(query, keys, value, axis, allowed, drop)
    return found


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        keys: Tensor,
        value: Tensor,
        axis: Axis,
        allowed: Allowed,
        drop: Drop | None,
    ) -> Tensor:
        precision = torch.promote_types(query.dtype, torch.float32)
        out = torch.zeros(query.shape, dtype=precision, device=query.device)
        log_sum = torch.full(query.shape[:-1], -math.inf, dtype=precision, device=query.device)
        travelling = torch.stack([keys, value])
        for turn in range(axis.size):
            moving = _pass_on(travelling, axis) if turn < axis.size - 1 else None
            for block in blocks(axis.rank, (axis.rank - turn) % axis.size, axis.size):
                part_keys, part_value = (_half(one, block.key) for one in travelling)
                found = _attend(_half(query, block.query), part_keys, part_value, block, allowed, drop)
                _join(_half(out, block.query), _half(log_sum, block.query), *found)
            travelling = moving() if moving is not None else travelling
        out = out.to(query.dtype)
        ctx.save_for_backward(query, keys, value, out, log_sum)
        ctx.axis, ctx.allowed, ctx.drop = axis, allowed, drop
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, keys, value, out, log_sum = ctx.saved_tensors
        axis: Axis = ctx.axis
        query_grad = torch.zeros_like(query)
        slope = (grad * out).sum(-1, keepdim=True, dtype=log_sum.dtype)
        travelling = torch.stack([keys, value, torch.zeros_like(keys), torch.zeros_like(value)])
        for turn in range(axis.size):
            for block in blocks(axis.rank, (axis.rank - turn) % axis.size, axis.size):
                mine = [_half(one, block.query) for one in (query, grad, log_sum, slope)]
                theirs = [_half(one, block.key) for one in travelling]
                _add_gradients(mine, theirs, _half(query_grad, block.query), block, ctx.allowed, ctx.drop)
            travelling = _pass_on(travelling, axis)()
        _, _, keys_grad, value_grad = travelling
        return query_grad, keys_grad, value_grad, None, None, None


def _half(x: Tensor, half: int) -> Tensor:
    """One of the two chunks along the tokens of [B, H, 2c, ...]."""
    return x.chunk(2, 2)[half]


def _pass_on(x: Tensor, axis: Axis) -> Callable[[], Tensor]:
    """Start sending to the next rank of the ring; the result waits for what comes from the one before."""
    here, arriving = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    ahead, behind = (axis.rank + 1) % axis.size, (axis.rank - 1) % axis.size
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, here, group=axis.group, group_peer=ahead),
            dist.P2POp(dist.irecv, arriving, group=axis.group, group_peer=behind),
        ]
    )

    def arrived() -> Tensor:
        for work in works:
            work.wait()
        return arriving

    return arrived


def _scores(query: Tensor, keys: Tensor, block: Block, allowed: Allowed) -> Tensor:
    scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    mask = allowed(block)
    return scores if mask is None else scores.masked_fill(~mask, -math.inf)


def _attend(
    query: Tensor, keys: Tensor, value: Tensor, block: Block, allowed: Allowed, drop: Drop | None
) -> tuple[Tensor, Tensor]:
    """What a chunk of queries finds in a chunk of keys, and the logarithms of its denominators; those of a
    query that sees none are -inf."""
    scores = _scores(query, keys, block, allowed)
    log_sum = scores.logsumexp(-1)
    weights = (scores - log_sum.clamp(min=_LEAST)[..., None]).exp().to(query.dtype)
    return (weights if drop is None else drop(weights, block)) @ value, log_sum


_LEAST = -1e30
"""Instead of -inf, which would make NaN of -inf minus itself."""


def _join(out: Tensor, log_sum: Tensor, found: Tensor, found_sum: Tensor) -> None:
    """Add what was found to `out`, both weighed by their denominators, in place."""
    total = torch.logaddexp(log_sum, found_sum)
    safe = total.clamp(min=_LEAST)
    out.mul_((log_sum - safe).exp()[..., None]).add_(found * (found_sum - safe).exp()[..., None])
    log_sum.copy_(total)


def _add_gradients(
    mine: list[Tensor],
    theirs: list[Tensor],
    query_grad: Tensor,
    block: Block,
    allowed: Allowed,
    drop: Drop | None,
) -> None:
    """Add a block's gradients: of the queries here, of keys and values to what travels with them."""
    query, grad, log_sum, slope = mine
    keys, value, keys_grad, value_grad = theirs
    weights = (_scores(query, keys, block, allowed) - log_sum[..., None]).exp()
    kept = weights.to(query.dtype)
    value_grad += (kept if drop is None else drop(kept, block)).transpose(-1, -2) @ grad
    weights_grad = grad @ value.transpose(-1, -2)
    if drop is not None:
        weights_grad = drop(weights_grad, block)
    scores_grad = (weights * (weights_grad - slope)).to(query.dtype) / math.sqrt(query.shape[-1])
    query_grad += scores_grad @ keys
    keys_grad += scores_grad.transpose(-1, -2) @ query
