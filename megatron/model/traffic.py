"""What a rank sends in a step, in closed form: bytes by axis of the mesh and by kind of communication. Bytes
are those that are handed to the library; `wire_bytes` says what of them leaves the rank.

Kept tokens that another rank computes are not counted: who moves follows from the draw of a step, and it is a
few of a hundred tokens.
"""

import math
from collections import Counter

from megatron.model.architecture import Mixture
from megatron.model.share import Batch, Parameters, Share, stage_layers, stage_parameters
from megatron.model.stack import runs_of
from megatron.parallel.mesh import SHARING
from megatron.parallel.stages import Stage

Traffic = Counter[tuple[str, str]]
"""Bytes by axis ("tensor", "context", "data", several joined by "+", "shard" and "replica" where they differ
from those, "pipeline", "embedding", "world") and kind."""

SUM, GATHER, SCATTER, EXCHANGE = "all_reduce", "all_gather", "reduce_scatter", "all_to_all"
RING, SEND = "ring", "send"
NUMBER = 8
"""Bytes of a double or of an int64."""


def step_traffic(share: Share, stages: list[Stage], batch: Batch, micro_batches: int) -> Traffic:
    """What a rank with these stages hands to the library in a step."""
    total: Traffic = Counter()
    for stage in stages:
        for pair, size in _micro_batch(share, stage, batch).items():
            total[pair] += size * micro_batches
    for stage in stages:
        total += _gradients(share, stage, micro_batches)
    if share.layout.ranks > 1:
        total["world", SUM] += NUMBER * _told(share)
    return +total


def _told(share: Share) -> int:
    """Numbers that are summed over all ranks behind every step: loss, wishes to stop and the norm; with
    experts their losses, and how many tokens chose each."""
    mixture = share.architecture.mixture
    return 3 + (len(mixture.losses) + len(mixture.layers) * mixture.experts if mixture else 0)


def wire_bytes(kind: str, size: float, ranks: int) -> float:
    """What leaves a rank where so many bytes are handed to a ring algorithm of this kind."""
    others = ranks - 1
    return size * {SUM: 2 * others / ranks, GATHER: others, RING: 1, SEND: 1}.get(kind, others / ranks)


def axis_ranks(share: Share, axis: str) -> int:
    """Ranks of an axis, or of several joined by "+"."""
    layout = share.layout
    if axis == "world":
        return layout.ranks
    if axis in ("embedding", "shard", "replica"):
        return {"embedding": 2, "shard": layout.sharing, "replica": layout.instances}[axis]
    return math.prod(getattr(layout, name) for name in axis.split("+"))


def _micro_batch(share: Share, stage: Stage, batch: Batch) -> Traffic:
    """Of a micro-batch, there and back."""
    one, kinds = share.architecture, Counter[tuple[int, bool, bool, bool]]()
    for numbers, again in runs_of(stage.layers, one.recomputed_layers, one.recompute_run):
        for number in numbers:
            length = batch.kept_length if number in share.dropping else batch.length
            mixed = share.mixed(number)  # whose losses come last and need all of it again
            kinds[length, again, again and number == numbers[-1] and not mixed, mixed] += 1
    found: Traffic = Counter()
    for (length, again, last, mixed), count in kinds.items():
        of_layer = _context(share, batch.rows, length, again) + _layer(share, batch.rows, length, again, last)
        of_layer += _mixture(share, batch.rows, length, again) if mixed else Counter()
        for pair, size in of_layer.items():
            found[pair] += count * size
    return found + _ends(share, stage, batch) + _pipeline(share, stage, batch)


def _sums(share: Share, hidden: int, count: int) -> Traffic:
    """So many times tokens come in or go out over the tensor axis, there and back."""
    ranks = share.layout.tensor
    if ranks == 1:
        return Counter()
    if share.shares_tokens:  # one way gathers parts, the other one parts sums
        return Counter({("tensor", GATHER): count * hidden // ranks, ("tensor", SCATTER): count * hidden})
    return Counter({("tensor", SUM): count * hidden})


def _layer(share: Share, rows: int, length: int, again: bool, last: bool) -> Traffic:
    """Attention and MLP: in and out, there and back; where the layer is computed again, there once more.
    Behind the `last` of a run the recomputation ends before the sum, unless dropout needs it."""
    hidden = rows * share.computed(length) * share.architecture.hidden_size * share.element
    found = _sums(share, hidden, 4)
    if not again or share.layout.tensor == 1:
        return found
    outs = 1 if last and not share.architecture.hidden_dropout else 2
    if share.shares_tokens:
        found["tensor", GATHER] += 2 * hidden // share.layout.tensor
        found["tensor", SCATTER] += outs * hidden
    else:
        found["tensor", SUM] += outs * hidden
    return found


def _mixture(share: Share, rows: int, length: int, again: bool) -> Traffic:
    """What a mixture of experts sends beside what a dense MLP does: a shared expert's tokens in and out, the
    weights and numbers of a token's experts, and where ranks share a sequence, what routing must know of all
    of it."""
    mixture, ranks = share.architecture.mixture, share.layout.tensor
    assert mixture is not None
    times, tokens = 2 if again else 1, rows * share.computed(length)
    gates = tokens * mixture.top * share.element
    hidden = tokens * share.architecture.hidden_size * share.element if mixture.shared else 0
    found = _sums(share, gates + 2 * hidden, 1)
    if share.shares_tokens:
        found["tensor", GATHER] += times * tokens * mixture.top * NUMBER // ranks
        found["tensor", GATHER] += (gates + hidden) // ranks if again else 0
    if again and ranks > 1:
        found["tensor", SCATTER if share.shares_tokens else SUM] += hidden
    if sharing := joined(share, ("tensor", "context") if share.shares_tokens else ("context",)):
        found[sharing, SUM] += times * rows * _routing(share, mixture, length)
    return found


def _routing(share: Share, mixture: Mixture, length: int) -> int:
    """Bytes of a row that are summed where its ranks must know them of the whole row: how many tokens chose
    each expert; for a capacity all choices, and their weights; for sinkhorn all scores."""
    score = max(share.element, mixture.precision.itemsize)
    choice = (NUMBER + (mixture.drop_policy == "probs") * score) * (mixture.capacity > 0)
    scores = mixture.experts * score * (mixture.balance == "sinkhorn")
    return mixture.experts * NUMBER + length * (mixture.top * choice + scores)


def _context(share: Share, rows: int, length: int, again: bool) -> Traffic:
    """What joins the parts of a sequence in one layer."""
    ranks, way = share.layout.context, share.layout.context_way
    if ranks == 1:
        return Counter()
    times, tokens = 2 if again else 1, rows * share.computed(length) * share.element
    if way == "allgather":
        mine = 2 * share.keys * tokens
        return Counter({("context", GATHER): times * mine, ("context", SCATTER): ranks * mine})
    if way == "p2p":
        mine = 2 * share.queries * tokens
        return Counter({("context", RING): times * (ranks - 1) * mine + ranks * 2 * mine})
    groups = share.keys // share.architecture.kv_channels
    keys = share.keys if groups % ranks == 0 else share.queries
    return Counter({("context", EXCHANGE): (times + 1) * (2 * share.queries + 2 * keys) * tokens})


def _ends(share: Share, stage: Stage, batch: Batch) -> Traffic:
    """Embedding and head."""
    tokens = batch.rows * share.computed(batch.length)
    hidden = tokens * share.architecture.hidden_size * share.element
    found: Traffic = Counter()
    if share.layout.tensor == 1:
        return found
    if stage.first:  # out alone, and in with shared tokens the gradients are gathered
        found["tensor", SCATTER if share.shares_tokens else SUM] += hidden
        found["tensor", GATHER] += hidden // share.layout.tensor if share.shares_tokens else 0
    if stage.last:
        found["tensor", SCATTER if share.shares_tokens else SUM] += hidden
        found["tensor", GATHER] += hidden // share.layout.tensor if share.shares_tokens else 0
        found["tensor", GATHER] += 2 * tokens * max(share.element, 4)  # sums and the labels' logits
    return found


def _pipeline(share: Share, stage: Stage, batch: Batch) -> Traffic:
    """Hidden states to the next stage, and gradients to the one before."""
    hidden = batch.rows * share.held(batch.length) * share.architecture.hidden_size * share.element
    return Counter({("pipeline", SEND): hidden * ((not stage.last) + (not stage.first))})


def _gradients(share: Share, stage: Stage, micro_batches: int) -> Traffic:
    """Sums of gradients of a stage, and its weights."""
    found: Traffic = Counter()
    layers = stage_layers(share, stage)
    for number, one in enumerate(stage_parameters(share, stage)):
        if share.zero_stage and share.layout.sharing > 1:
            found += _of_shared(share, one, number < len(layers), micro_batches)
        else:
            size = share.summed * one.elements
            found += _sum_over(share, one, size, ("tensor", *SHARING))
    return found


def _of_shared(share: Share, one: Parameters, in_layer: bool, micro_batches: int) -> Traffic:
    """Of parameters of which every rank has some rows. ZeRO-1 sums once a step, and over other axes all rows;
    the others sum with every micro-batch, and over other axes their own rows. ZeRO-2 gathers once a step,
    ZeRO-3 with every micro-batch, and layers for their backward pass, too."""
    ranks, whole = share.layout.sharing, share.summed * one.elements
    own = one.share(ranks)
    part = own * share.summed
    sharing = "shard" if share.layout.instances > 1 else joined(share, SHARING)
    times = micro_batches if share.gathers else 1
    found: Traffic = Counter({(sharing, SCATTER): times * ranks * part})
    gathers = times * (2 if in_layer else 1) if share.zero_stage == 3 else 1
    cast = in_layer and share.gathers  # before they are gathered
    found[sharing, GATHER] += gathers * own * (share.element if cast else share.weight_bytes)
    if share.layout.instances > 1:
        found["replica", SUM] += part
    return found + _sum_over(share, one, part if share.gathers else whole, ("tensor",))


def _sum_over(share: Share, one: Parameters, size: int, axes: tuple[str, ...]) -> Traffic:
    """Sums over these axes, as far as they are the parameters' own, and between stages that share them."""
    found: Traffic = Counter()
    if "embedding" in one.sum_over:
        found["embedding", SUM] += size
    if axis := joined(share, tuple(name for name in axes if name in one.sum_over)):
        found[axis, SUM] += size
    return found


def joined(share: Share, axes: tuple[str, ...]) -> str:
    """The name of these axes as one, as far as they have several ranks."""
    names = ("tensor", "context", "data")
    return "+".join(name for name in names if name in axes and getattr(share.layout, name) > 1)
