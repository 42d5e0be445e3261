"""Paired differences over seeds, against scipy's own test and sums by hand; tokens to a goal."""

import math

import numpy as np
import pytest
from scipy import stats

from megatron.reproduce.statistics import better_by, needed, paired, sentence, spread

MINE = {1: 2.30, 2: 2.28, 3: 2.35}
THEIRS = {1: 2.33, 2: 2.30, 3: 2.36, 4: 9.0}


def test_the_paired_test_is_that_of_scipy() -> None:
    found = better_by(MINE, THEIRS, 1)
    mine, theirs = (np.array([one[seed] for seed in (1, 2, 3)]) for one in (MINE, THEIRS))
    oracle = stats.ttest_rel(theirs, mine)
    low, high = oracle.confidence_interval(0.95)
    assert found.pairs == 3
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-9)
    assert found.mean == pytest.approx((low + high) / 2, rel=1e-9)
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-9)


def test_two_pairs_by_hand() -> None:
    """Of differences 1 and 3: mean 2, standard error 1, t 2 with one degree of freedom, whose p is
    1 - (2 / pi) · atan(2) and whose 97.5 % quantile is tan(0.475 · pi)."""
    found = paired([1.0, 3.0])
    assert (found.mean, found.pairs) == (2.0, 2)
    assert found.p == pytest.approx(1 - 2 / math.pi * math.atan(2), rel=1e-9)
    assert found.half_width == pytest.approx(math.tan(0.475 * math.pi), rel=1e-9)


def test_one_seed_is_not_tested_and_none_is_told() -> None:
    assert math.isnan(paired([0.1]).p) and math.isnan(spread([1.0]))
    assert sentence("a", "b", "bits", paired([0.1])).startswith("not tested: a is 0.1000 bits better than b")
    assert sentence("a", "b", "bits", paired([])) == "a against b: no seed of both has finished."


def test_equal_differences_have_no_spread() -> None:
    assert paired([0.0, 0.0]).p == 1 and paired([0.5, 0.5]).p == 0


def test_more_is_better_of_an_accuracy() -> None:
    assert better_by({1: 0.9, 2: 0.8}, {1: 0.7, 2: 0.7}, -1).mean == pytest.approx(0.15)


def test_the_sentence_says_what_was_seen() -> None:
    seen = paired([0.020, 0.021, 0.022])
    assert sentence("composed", "baseline", "bits per byte", seen) == (
        "seen: composed is 0.0210 ± 0.0025 bits per byte better than baseline, p = 0.00076, 3 seeds."
    )
    assert sentence("a", "b", "bits", paired([-0.020, -0.021, -0.022])).startswith(
        "the opposite was seen: a is 0.0210 ± 0.0025 bits worse"
    )
    assert sentence("a", "b", "bits", paired([0.02, -0.01, 0.0])).startswith("not seen at this size: ")


def test_a_goal_between_two_runs_lies_on_the_line_in_the_logarithm() -> None:
    points = [(400.0, 2.0), (100.0, 4.0)]
    assert needed(points, 3.0, 1) == pytest.approx(200.0)
    assert needed([(x, -y) for x, y in points], -3.0, -1) == pytest.approx(200.0)


@pytest.mark.parametrize(("target", "expected"), [(4.5, 100.0), (4.0, 100.0), (2.0, 400.0), (1.9, math.inf)])
def test_a_goal_at_the_ends_or_beyond(target: float, expected: float) -> None:
    assert needed([(100.0, 4.0), (400.0, 2.0)], target, 1) == pytest.approx(expected)


def test_of_several_runs_of_one_amount_the_best_counts() -> None:
    points = [(100.0, 4.0), (100.0, 9.0), (400.0, 2.0)]
    assert needed(points, 3.0, 1) == pytest.approx(200.0)
    assert needed([(x, -y) for x, y in points], -3.0, -1) == pytest.approx(200.0)
