"""Means, ratios and their standard errors, against closed forms and repeated draws."""

import math

import numpy as np
import pytest

from megatron.evaluation.estimates import Estimate, exponential, mean, ratio, ratio_of_sums


def test_the_error_of_a_mean() -> None:
    right = [1.0] * 30 + [0.0] * 70
    assert mean(right) == (0.3, pytest.approx(math.sqrt(0.3 * 0.7 / 99)))
    values = np.random.default_rng(1).normal(3, 2, 50)
    assert mean(values) == (
        pytest.approx(values.mean()),
        pytest.approx(values.std(ddof=1) / math.sqrt(50)),
    )
    assert mean([2.5]) == (2.5, None) and mean([2.0, 2.0]) == (2.0, 0.0)


def test_the_error_of_a_ratio_is_the_spread_of_repeated_draws() -> None:
    """Losses of documents of different lengths: 4000 draws of 200 documents each."""
    generator = np.random.default_rng(2)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        lengths = generator.integers(5, 200, 200).astype(float)
        return lengths * (3 + generator.normal(0, 0.5, 200)) + generator.normal(0, 9, 200), lengths

    found = [ratio(*draw()) for _ in range(4000)]
    spread = np.std([one.value for one in found])
    errors = np.array([one.error for one in found], np.float64)
    # the spread of 4000 values is known to 1/sqrt(8000); linearising is off by some 1/200
    assert errors.mean() == pytest.approx(spread, rel=4 / math.sqrt(8000) + 2 / 200)


def test_equal_denominators_make_a_ratio_a_mean() -> None:
    values = np.random.default_rng(3).normal(3, 2, 40)
    one, other = ratio(values, np.full(40, 64.0)), mean(values / 64)
    assert one.value == pytest.approx(other.value) and one.error == pytest.approx(other.error)
    sums = (values.sum(), 40 * 64.0, values @ values, values.sum() * 64, 40 * 64.0**2)
    assert ratio_of_sums(40, *map(float, sums)) == (pytest.approx(one.value), pytest.approx(one.error))


def test_a_perplexity_has_the_relative_error_of_its_loss() -> None:
    assert exponential(Estimate(2.0, 0.01)) == (pytest.approx(math.e**2), pytest.approx(0.01 * math.e**2))
    assert exponential(Estimate(2.0, None)).error is None
    assert math.isfinite(exponential(Estimate(1e9, 0.0)).value)
