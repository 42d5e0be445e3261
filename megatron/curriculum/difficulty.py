"""Difficulty metrics: how hard every sample is, computed offline (arXiv 2212.03597, section 3.1).

A metric is a function and an entry in METRICS. It sees the tokens of consecutive samples and returns one
whole number a sample. Its kernel releases the interpreter lock, so that threads share the work.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from megatron.base.compiled import compiled

FIXED_POINT = 40


class Statistics(NamedTuple):
    """What a metric may use: `costs`, int64 [vocabulary], is -ln p(token) in units of 2^-40 nats."""

    seq_length: int
    costs: np.ndarray


class Metric(NamedTuple):
    """`compute(tokens [count·S + 1], statistics) -> int64 [count]`. `version` changes whenever its values
    do."""

    compute: Callable[[np.ndarray, Statistics], np.ndarray]
    version: int
    description: str


def token_costs(frequency: np.ndarray) -> np.ndarray:
    """-ln p of every token in units of 2^-40 nats; a token never seen counts once, in the total too.

    Whole numbers make the sums exact, so that neither threads nor vector units change a bit."""
    seen = np.maximum(frequency, 1).astype(np.float64)
    return np.round(-np.log(seen / seen.sum()) * 2.0**FIXED_POINT).astype(np.int64)


def vocab_rarity(tokens: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Sum of -ln p(token) over the S+1 tokens of a sample, cut to a whole number of nats."""
    return _sum_costs(tokens, statistics.seq_length, statistics.costs)


def distinct_tokens(tokens: np.ndarray, statistics: Statistics) -> np.ndarray:
    """How many different tokens the S+1 tokens of a sample have: lexical diversity at constant length."""
    return _count_distinct(tokens, statistics.seq_length, len(statistics.costs))


METRICS = {
    "vocab_rarity": Metric(vocab_rarity, 1, "sum of -ln p(token), in nats"),
    "distinct_tokens": Metric(distinct_tokens, 1, "different tokens in a sample"),
}


@compiled()
def count_tokens(tokens, frequency):
    """Add the counts of `tokens` to `frequency`; returns the largest id, and counts nothing past the
    table."""
    largest = -1
    for token in tokens:
        if token > largest:
            largest = token
        if 0 <= token < len(frequency):
            frequency[token] += 1
    return largest


@compiled()
def _sum_costs(tokens, seq_length, costs):
    count = (len(tokens) - 1) // seq_length
    out = np.empty(count, np.int64)
    for sample in range(count):
        total = np.int64(0)
        for place in range(sample * seq_length, sample * seq_length + seq_length + 1):
            total += costs[tokens[place]]
        out[sample] = total >> FIXED_POINT
    return out


@compiled()
def _count_distinct(tokens, seq_length, vocab_size):
    count = (len(tokens) - 1) // seq_length
    out = np.zeros(count, np.int64)
    last_seen = np.full(vocab_size, -1, np.int64)
    for sample in range(count):
        for place in range(sample * seq_length, sample * seq_length + seq_length + 1):
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
