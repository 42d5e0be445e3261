"""Which samples a step draws, in closed form: nothing is replayed, saved or broadcast.

Samples that enter the curriculum together form a group. Across groups draws are proportional to size by
exact integer splits; inside a group they run through keyed permutations, pass after pass, without
replacement. The prefix of groups 0..g never changes once g has entered, so every group's cursor after any
number of draws is a formula. The same chain of splits with weights for sizes divides the draws of a blend
among its corpora.
"""

from dataclasses import dataclass

import numpy as np

from megatron.base.compiled import compiled
from megatron.base.errors import UserError
from megatron.base.keys import key
from megatron.base.random import draw, permute

WEIGHT_SCALE = 1 << 30


@dataclass(frozen=True)
class Chain:
    """Groups in the order they enter. `start`: draws made in all before a group entered. `phase`: where
    its rounding stands, in [0, prefix). All int64, one entry a group."""

    size: np.ndarray
    prefix: np.ndarray
    start: np.ndarray
    phase: np.ndarray


def make_chain(size: np.ndarray, start: np.ndarray, seed: int) -> Chain:
    """A chain of groups with these sizes (all above 0) and entries (ascending, the first 0)."""
    prefix = np.cumsum(size)
    if any(int(total) * (int(group) + 1) >= 1 << 63 for total, group in zip(prefix[1:], size[1:])):
        raise UserError(
            f"{int(prefix[-1])} samples are too many to order by difficulty in one corpus; split it into "
            "several"
        )
    phase = np.array([key(seed, "phase", group) % int(total) for group, total in enumerate(prefix)], np.int64)
    phase[:1] = 0
    return Chain(size.astype(np.int64), prefix.astype(np.int64), start.astype(np.int64), phase)


def weighted_chain(weights: np.ndarray, seed: int) -> Chain:
    """A chain that divides draws by weights (positive, any scale), each kept to about one part in 10^9."""
    size = np.maximum(np.round(weights / weights.sum() * WEIGHT_SCALE), 1).astype(np.int64)
    return make_chain(size, np.zeros(len(size), np.int64), seed)


def counts(chain: Chain, draws: int) -> np.ndarray:
    """How many of the first `draws` draws fall to every group; the counts add up to `draws`."""
    out = np.zeros(len(chain.size), np.int64)
    _counts(chain.size, chain.prefix, chain.start, chain.phase, len(chain.size), draws, out)
    return out


def draw_places(chain: Chain, first: int, last: int, seed: int, admitted: int, out: np.ndarray) -> None:
    """Write the places, in the pool sorted by entry, of the draws first..last-1, made while the first
    `admitted` groups are in, to `out` (int64 [last - first])."""
    _draw_places(
        chain.size, chain.prefix, chain.start, chain.phase, admitted, first, last, np.uint64(seed), out
    )


@compiled()
def _counts(size, prefix, start, phase, admitted, draws, out):
    """Walk from the newest group down: of the draws that reached the prefix 0..g since g entered, g got
    its exact share."""
    newest = admitted - 1
    while newest > 0 and start[newest] >= draws:
        out[newest] = 0
        newest -= 1
    rest, end = 0, draws
    for group in range(newest, -1, -1):
        reached = rest + end - start[group]
        share = reached
        if group:
            whole = reached // prefix[group]
            part = reached - whole * prefix[group]
            share = whole * size[group] + (part * size[group] + phase[group]) // prefix[group]
        out[group] = share
        rest = reached - share
        end = start[group]


@compiled()
def _draw_places(size, prefix, start, phase, admitted, first, last, seed, out):
    before, after = np.zeros(admitted, np.int64), np.zeros(admitted, np.int64)
    _counts(size, prefix, start, phase, admitted, first, before)
    _counts(size, prefix, start, phase, admitted, last, after)
    filled = 0
    for group in range(admitted):
        offset, members = prefix[group] - size[group], size[group]
        for cursor in range(before[group], after[group]):
            repeat = cursor // members
            permutation = draw(draw(seed, group), repeat)
            out[filled] = offset + permute(cursor - repeat * members, members, permutation)
            filled += 1
