"""What a rank sends for one layer and micro-batch, in closed form: bytes by axis of the mesh and by kind of
communication, as they are handed to the library."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch

from megatron.model.share import Share, expert_tokens, routed_rows

Traffic = Counter[tuple[str, str]]
"""Bytes by axis ("tensor", "context", "data", several joined by "+", "shard" and "replica" where they differ
from those, "pipeline", "embedding", "world", "expert" and those behind it in a mesh) and kind."""

SUM, GATHER, SCATTER, EXCHANGE = "all_reduce", "all_gather", "reduce_scatter", "all_to_all"
RING, SEND = "ring", "send"
NUMBER = 8
"""Bytes of an expert's number, or of how often it was chosen."""


class Part(NamedTuple):
    """One communication of a layer: what it sends in the forward and in the backward pass."""

    there: Mapping[tuple[str, str], int] = {}
    back: Mapping[tuple[str, str], int] = {}


def layer_traffic(share: Share, rows: int, length: int, again: bool, last: bool, mixed: bool) -> Traffic:
    """Of rows of `length` tokens, there and back; where the layer is computed again, there once more. Behind
    the `last` layer of a run the recomputation ends before the last sum, unless something behind that is
    needed."""
    one = share.architecture
    hidden = rows * share.computed(length) * one.hidden_size * share.element
    parts = [_enter(share, hidden), _context(share, rows, length), _leave(share, hidden)]
    needed = bool(one.hidden_dropout) or not last
    if mixed and one.mixture is not None:
        parts += _experts(share, rows, length)
        needed |= bool(one.mixture.losses) or (one.linear_bias and not one.mixture.shared)
    if not mixed or (one.mixture is not None and one.mixture.shared):
        parts += [_enter(share, hidden), _leave(share, hidden)]
    found: Traffic = Counter()
    for part in parts:
        found.update(part.there)
        found.update(part.back)
    for part in parts if needed else parts[:-1]:
        found.update(part.there if again else {})
    return found


def _enter(share: Share, hidden: int) -> Part:
    """Hidden states come into matrices that the tensor axis shares."""
    ranks = share.layout.tensor
    if ranks == 1:
        return Part()
    if share.shares_tokens:
        return Part({("tensor", GATHER): hidden // ranks}, {("tensor", SCATTER): hidden})
    return Part({}, {("tensor", SUM): hidden})


def _leave(share: Share, hidden: int) -> Part:
    return Part(*reversed(_enter(share, hidden)))


def _context(share: Share, rows: int, length: int) -> Part:
    """What joins the parts of a sequence in attention."""
    ranks, way = share.layout.context, share.layout.context_way
    if ranks == 1:
        return Part()
    tokens = rows * share.computed(length) * share.element
    if way == "allgather":
        mine = 2 * share.keys * tokens
        return Part({("context", GATHER): mine}, {("context", SCATTER): ranks * mine})
    if way == "p2p":
        mine = 2 * share.queries * tokens
        return Part({("context", RING): (ranks - 1) * mine}, {("context", RING): ranks * 2 * mine})
    groups = share.keys // share.architecture.kv_channels
    keys = share.keys if groups % ranks == 0 else share.queries
    exchanged = {("context", EXCHANGE): (2 * share.queries + 2 * keys) * tokens}
    return Part(exchanged, exchanged)


def _experts(share: Share, rows: int, length: int) -> list[Part]:
    """Router, tokens on their way to experts, and back."""
    ranks, tensor = share.layout.expert_matrices, share.layout.tensor
    axis = "tensor" if ranks == tensor else "expert_tensor"
    into, out = Part(), Part()
    if ranks > 1:
        into, out = _whole_tokens(share, rows * share.held(length), axis, ranks, share.same_tokens)
    return [_router(share, rows, length), into, *_dispatch(share, rows, length), out]


def _router(share: Share, rows: int, length: int) -> Part:
    """Loads of whole rows; with a capacity or sinkhorn also what is known of every token."""
    mixture = share.architecture.mixture
    axis = joined(share, ("tensor", "context") if share.shares_tokens else ("context",))
    if not axis or mixture is None:
        return Part()
    precise = max(share.element, torch.finfo(mixture.precision).bits // 8)
    size = rows * mixture.experts * NUMBER
    if mixture.balance == "sinkhorn":
        size += rows * length * mixture.experts * precise
    if mixture.capacity:
        weights = precise if mixture.drop_policy == "probs" else 0
        size += rows * length * mixture.top * (NUMBER + weights)
    return Part({(axis, SUM): size})


def _whole_tokens(share: Share, tokens: int, axis: str, ranks: int, same: bool) -> tuple[Part, Part]:
    """Tokens, their weights and their choices come to all ranks of an axis, and sums of outputs back.
    `same`: its ranks have the same tokens."""
    mixture, element = share.architecture.mixture, share.element
    assert mixture is not None
    states, gates = (tokens * width * element for width in (share.architecture.hidden_size, mixture.top))
    if same:
        return Part({}, {(axis, SUM): states + gates}), Part({(axis, SUM): states})
    into = Part(
        {(axis, GATHER): states + gates + tokens * mixture.top * NUMBER},
        {(axis, SCATTER): ranks * (states + gates)},
    )
    return into, Part({(axis, SCATTER): ranks * states}, {(axis, GATHER): states})


def _dispatch(share: Share, rows: int, length: int) -> tuple[Part, ...]:
    """To the ranks that share experts, and back; of an exchange what it is where all experts have equal
    loads."""
    mixture, ranks = share.architecture.mixture, share.layout.expert
    assert mixture is not None
    if ranks == 1:
        return ()
    padded = mixture.padded and mixture.capacity
    if mixture.gathers_tokens and not padded:
        return _whole_tokens(share, expert_tokens(share, rows, length), "expert", ranks, same=False)
    states = routed_rows(share, rows, length) * share.architecture.hidden_size * share.element
    counts, one = 0 if padded else mixture.experts * NUMBER, ("expert", EXCHANGE)
    return Part({one: counts + states}, {one: states}), Part({one: states}, {one: states})


def joined(share: Share, axes: tuple[str, ...]) -> str:
    """The name of these axes as one, as far as they have several ranks."""
    names = ("tensor", "context", "data", "expert_data")
    return "+".join(name for name in names if name in axes and getattr(share.layout, name) > 1)
