"""What several seeds say: spread, and paired differences with Student's t."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

CONFIDENCE = 0.95


class Paired(NamedTuple):
    """The mean of differences, half of the width of its 95 % interval, and the two-sided p of a mean of 0;
    NaN where there are fewer than two. `pairs`: how many."""

    mean: float
    half_width: float
    p: float
    pairs: int


def paired(differences: Sequence[float]) -> Paired:
    """The t-test of paired differences."""
    count = len(differences)
    mean = statistics.fmean(differences) if count else math.nan
    if count < 2:
        return Paired(mean, math.nan, math.nan, count)
    error = statistics.stdev(differences) / math.sqrt(count)
    half = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
    if not error:
        return Paired(mean, 0.0, 0.0 if mean else 1.0, count)
    return Paired(mean, half, 2 * float(stats.t.sf(abs(mean) / error, count - 1)), count)


def better_by(mine: Mapping[int, float], theirs: Mapping[int, float], sign: int) -> Paired:
    """How much better values by seed are than others, over the seeds that both have; `sign`: 1 where less is
    better, else -1."""
    return paired([sign * (theirs[seed] - mine[seed]) for seed in sorted(mine.keys() & theirs.keys())])


def sentence(name: str, other: str, unit: str, found: Paired) -> str:
    """Whether a row was seen to be better than another one."""
    if not found.pairs:
        return f"{name} against {other}: no seed of both has finished."
    direction = "better" if found.mean >= 0 else "worse"
    size = f"{abs(found.mean):.4f}"
    if found.pairs == 1:
        told = f"{name} is {size} {unit} {direction} than {other} on one seed"
        return f"not tested: {told}, which tells no spread."
    told = f"{name} is {size} ± {found.half_width:.4f} {unit} {direction} than {other}"
    words = f"{told}, p = {found.p:.2g}, {found.pairs} seeds"
    if found.p >= 1 - CONFIDENCE:
        return f"not seen at this size: {words}."
    return f"{'seen' if found.mean > 0 else 'the opposite was seen'}: {words}."


def spread(values: Sequence[float]) -> float:
    """The standard deviation over seeds; NaN of one."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def needed(points: Sequence[tuple[float, float]], target: float, sign: int) -> float:
    """The amount, such as tokens, at which quality reaches a target: on the straight line in the logarithm
    of the amount between the runs around, which have finished their decay each. Infinity where no run
    reaches it; the least amount where the smallest run does already. `points`: amounts and qualities."""
    ordered = sorted(points, key=lambda point: (point[0], -sign * point[1]))  # of one amount the best counts
    for number, (amount, quality) in enumerate(ordered):
        if sign * (target - quality) < 0:
            continue
        if not number:
            return amount
        before, worse = ordered[number - 1]
        part = (target - worse) / (quality - worse)
        return math.exp(math.log(before) + part * (math.log(amount) - math.log(before)))
    return math.inf
