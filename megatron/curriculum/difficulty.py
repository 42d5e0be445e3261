"""Difficulty metrics: how hard every sample is, computed offline (arXiv 2212.03597, section 3.1).

A metric is a function and an entry in METRICS. It sees the tokens of consecutive samples and returns one
whole number a sample. Its kernel releases the interpreter lock, so that threads share the work.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from megatron.base.compiled import compiled

FIXED_POINT = 40


class Statistics(NamedTuple):
    """What a metric may use: `costs`, int64 [vocabulary], is -ln p(token) in units of 2^-40 nats; `starts`,
    `lengths`: where among the tokens every sample begins, and how many it has."""

    seq_length: int
    costs: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


class Metric(NamedTuple):
    """`compute(tokens, statistics) -> int64 [samples]`; of windows there are count·S + 1 tokens, the last one
    of a sample being the first of the next. `version` changes whenever its values do. `of_texts`: it is the
    same for all windows."""

    compute: Callable[[np.ndarray, Statistics], np.ndarray]
    version: int
    description: str
    of_texts: bool = False


def token_costs(frequency: np.ndarray) -> np.ndarray:
    """-ln p of every token in units of 2^-40 nats; a token never seen counts once, in the total too.

    Whole numbers make the sums exact, so that neither threads nor vector units change a bit."""
    seen = np.maximum(frequency, 1).astype(np.float64)
    return np.round(-np.log(seen / seen.sum()) * 2.0**FIXED_POINT).astype(np.int64)


def vocab_rarity(tokens: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Sum of -ln p(token) over the tokens of a sample, cut to a whole number of nats."""
    return _sum_costs(tokens, statistics.starts, statistics.lengths, statistics.costs)


def distinct_tokens(tokens: np.ndarray, statistics: Statistics) -> np.ndarray:
    """How many different tokens a sample has: lexical diversity at constant length."""
    return _count_distinct(tokens, statistics.starts, statistics.lengths, len(statistics.costs))


def seqlen(tokens: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Tokens of a sample, without padding."""
    return statistics.lengths


def seqlen_vocab_rarity(tokens: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Length first, and of equal lengths rarity: length · K + rarity, where K = 10^(ceil(log10(S · largest
    cost)) + 1) is above any rarity."""
    largest = statistics.seq_length * float(statistics.costs.max()) * 2.0**-FIXED_POINT
    factor = 10 ** (math.ceil(math.log10(largest)) + 1)
    return statistics.lengths * factor + vocab_rarity(tokens, statistics)


METRICS = {
    "vocab_rarity": Metric(vocab_rarity, 1, "sum of -ln p(token), in nats"),
    "distinct_tokens": Metric(distinct_tokens, 1, "different tokens in a sample"),
    "seqlen": Metric(seqlen, 1, "tokens of a sample without padding", of_texts=True),
    "seqlen_vocab_rarity": Metric(
        seqlen_vocab_rarity, 1, "tokens of a sample, then sum of -ln p(token)", of_texts=True
    ),
}


@compiled()
def count_tokens(tokens, starts, lengths, frequency):
    """Add the counts of all samples to `frequency`, a token that two of them have twice; returns the smallest
    id or 0, and the largest or -1, and counts nothing outside the table."""
    smallest, largest = 0, -1
    for sample in range(len(starts)):
        for place in range(starts[sample], starts[sample] + lengths[sample]):
            token = tokens[place]
            if token < smallest:
                smallest = token
            if token > largest:
                largest = token
            if 0 <= token < len(frequency):
                frequency[token] += 1
    return smallest, largest


@compiled()
def _sum_costs(tokens, starts, lengths, costs):
    out = np.empty(len(starts), np.int64)
    for sample in range(len(starts)):
        total = np.int64(0)
        for place in range(starts[sample], starts[sample] + lengths[sample]):
            total += costs[tokens[place]]
        out[sample] = total >> FIXED_POINT
    return out


@compiled()
def _count_distinct(tokens, starts, lengths, vocab_size):
    out = np.zeros(len(starts), np.int64)
    last_seen = np.full(vocab_size, -1, np.int64)
    for sample in range(len(starts)):
        for place in range(starts[sample], starts[sample] + lengths[sample]):
            if last_seen[tokens[place]] != sample:
                last_seen[tokens[place]] = sample
                out[sample] += 1
    return out


@compiled()
def counting_sort(values, smallest, width):
    """Ids sorted by (value, id), for values in [smallest, smallest + width)."""
    starts = np.zeros(width + 1, np.int64)
    for value in values:
        starts[value - smallest + 1] += 1
    for i in range(width):
        starts[i + 1] += starts[i]
    order = np.empty(len(values), np.int64)
    for sample in range(len(values)):
        slot = values[sample] - smallest
        order[starts[slot]] = sample
        starts[slot] += 1
    return order


def sort_by_difficulty(values: np.ndarray) -> np.ndarray:
    """Sample ids from easy to hard, ties by id; uint32 where that suffices."""
    smallest, width = int(values.min()), int(values.max()) - int(values.min()) + 1
    order = counting_sort(values, smallest, width) if width < 1 << 24 else np.argsort(values, kind="stable")
    return order.astype(np.uint32 if len(values) <= 1 << 32 else np.int64)
