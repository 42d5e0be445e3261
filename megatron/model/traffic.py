"""What a rank sends in a step, in closed form: bytes by axis of the mesh and by kind of communication. Bytes
are those that are handed to the library; `wire_bytes` says what of them leaves the rank.

Kept tokens that another rank computes are not counted: who moves follows from the draw of a step, and it is a
few of a hundred tokens.
"""

import math
from collections import Counter

from megatron.model.balance import tally_sizes
from megatron.model.layer_traffic import (
    GATHER,
    RING,
    SCATTER,
    SEND,
    SUM,
    Traffic,
    joined,
    layer_traffic,
)
from megatron.model.share import (
    ALIKE,
    Batch,
    Parameters,
    Share,
    stage_layers,
    stage_parameters,
    told_tokens,
)
from megatron.model.stack import runs_of
from megatron.parallel.mesh import SHARING
from megatron.parallel.stages import Stage

NUMBER = 8
"""Bytes of a loss, a count, the norm, and wishes to stop."""


def step_traffic(share: Share, stages: list[Stage], batch: Batch, micro_batches: int) -> Traffic:
    """What a rank with these stages hands to the library in a step."""
    total: Traffic = Counter()
    for stage in stages:
        for pair, size in _micro_batch(share, stage, batch).items():
            total[pair] += size * micro_batches
    for stage in stages:
        total += _gradients(share, stage, micro_batches)
    losses = 2 if share.architecture.pair_head else 1
    if share.layout.ranks > 1:  # behind every step, with wishes to stop and the norm
        total["world", SUM] += NUMBER * (losses + 2 + _tallied(share))
    told = share.architecture.encoder and share.architecture.pictures is None
    if share.layout.data > 1 and told:  # before it, how many masked tokens there are
        total["data", SUM] += NUMBER * losses
    return +total


def wire_bytes(kind: str, size: float, ranks: int) -> float:
    """What leaves a rank where so many bytes are handed to a ring algorithm of this kind."""
    others = ranks - 1
    return size * {SUM: 2 * others / ranks, GATHER: others, RING: 1, SEND: 1}.get(kind, others / ranks)


def axis_ranks(share: Share, axis: str) -> int:
    """Ranks of an axis, or of several joined by "+"."""
    layout = share.layout
    if axis == "world":
        return layout.ranks
    others = {
        "embedding": 2,
        "shard": layout.sharing,
        "replica": layout.instances,
        "expert": layout.expert,
        "expert_tensor": layout.expert_matrices,
        "expert_data": layout.expert_data,
        "expert_shard": layout.sharing_experts,
        "expert_replica": layout.instances,
    }
    if axis in others:
        return others[axis]
    return math.prod(getattr(layout, name) for name in axis.split("+"))


def _micro_batch(share: Share, stage: Stage, batch: Batch) -> Traffic:
    """Of a micro-batch, there and back."""
    one, kinds = share.architecture, Counter[tuple[int, bool, bool, bool]]()
    for numbers, again in runs_of(stage.layers, one.recomputed_layers, one.recompute_run):
        for number in numbers:
            length = batch.kept_length if number in share.dropping else batch.length
            kinds[length, again, again and number == numbers[-1], share.mixed(number)] += 1
    found: Traffic = Counter()
    for (length, again, last, mixed), count in kinds.items():
        for pair, size in layer_traffic(share, batch.rows, length, again, last, mixed).items():
            found[pair] += count * size
    return found + _ends(share, stage, batch) + _pipeline(share, stage, batch)


def _tallied(share: Share) -> int:
    """Numbers that layers with experts add up in a step."""
    mixture = share.architecture.mixture
    return sum(tally_sizes(mixture).values()) if mixture is not None else 0


def _ends(share: Share, stage: Stage, batch: Batch) -> Traffic:
    """Embedding and head."""
    tokens = batch.rows * share.computed(batch.length)
    hidden = tokens * share.architecture.hidden_size * share.element
    found: Traffic = Counter()
    if share.layout.tensor == 1:
        return found
    if share.architecture.pictures is not None:  # patches are embedded on every rank; back comes [CLS]
        found["tensor", SUM] += stage.last * batch.rows * share.architecture.hidden_size * share.element
        return found
    if stage.first:  # out alone, and in with shared tokens the gradients are gathered
        found["tensor", SCATTER if share.shares_tokens else SUM] += hidden
        found["tensor", GATHER] += hidden // share.layout.tensor if share.shares_tokens else 0
    if stage.last:
        found["tensor", SCATTER if share.shares_tokens else SUM] += hidden
        found["tensor", GATHER] += hidden // share.layout.tensor if share.shares_tokens else 0
        told = told_tokens(share, tokens)
        found["tensor", GATHER] += 2 * told * max(share.element, 4)  # sums and the labels' logits
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
        if share.zero_stage and share.layout.sharing > 1 and share.sharing(one) > 1:
            found += _of_shared(share, one, number < len(layers), micro_batches)
        else:
            size = share.summed * one.elements
            found += _sum_over(share, one, size, ("tensor", *SHARING, *ALIKE))
    return found


def _of_shared(share: Share, one: Parameters, in_layer: bool, micro_batches: int) -> Traffic:
    """Of parameters of which every rank has some rows. ZeRO-1 sums once a step, and over other axes all rows;
    the others sum with every micro-batch, and over other axes their own rows. ZeRO-2 gathers once a step,
    ZeRO-3 with every micro-batch, and layers for their backward pass, too."""
    ranks, whole = share.sharing(one), share.summed * one.elements
    own = one.share(ranks)
    part = own * share.summed
    several, experts = share.layout.instances > 1, one.sum_over == ALIKE
    sharing = joined(share, ALIKE if experts else SHARING)
    if several:
        sharing = "expert_shard" if experts else "shard"
    times = micro_batches if share.gathers else 1
    found: Traffic = Counter({(sharing, SCATTER): times * ranks * part})
    gathers = times * (2 if in_layer else 1) if share.zero_stage == 3 else 1
    cast = in_layer and share.gathers  # before they are gathered
    found[sharing, GATHER] += gathers * own * (share.element if cast else share.weight_bytes)
    if several:
        found["expert_replica" if experts else "replica", SUM] += part
    return found + _sum_over(share, one, part if share.gathers else whole, ("tensor",))


def _sum_over(share: Share, one: Parameters, size: int, axes: tuple[str, ...]) -> Traffic:
    """Sums over these axes, as far as they are the parameters' own, and between stages that share them."""
    found: Traffic = Counter()
    if "embedding" in one.sum_over:
        found["embedding", SUM] += size
    if axis := joined(share, tuple(name for name in axes if name in one.sum_over)):
        found[axis, SUM] += size
    return found
