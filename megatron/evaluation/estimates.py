"""Means of samples and their standard errors."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from megatron.base.errors import UserError

NO_NUMBERS = (
    "the model's outputs are no numbers (NaN), as behind a step that has diverged; name an older step by "
    "--ckpt-step, or another checkpoint"
)


class Estimate(NamedTuple):
    """A value and its standard error; None where one sample says nothing of it."""

    value: float
    error: float | None


def require_numbers(values: Sequence[float] | np.ndarray) -> None:
    """UserError where a model's losses or log-probabilities are NaN: what they are compared with would be
    judged all the same."""
    if np.isnan(np.asarray(values, np.float64)).any():
        raise UserError(NO_NUMBERS)


def mean(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of independent samples; of shares of right answers that is √(p(1-p)/(n-1))."""
    return ratio(values, np.ones(len(values)))


def ratio(numerators: Sequence[float] | np.ndarray, denominators: Sequence[float] | np.ndarray) -> Estimate:
    """Σa/Σb of independent pairs, such as losses and tokens of documents; the error by linearising (the delta
    method)."""
    a, b = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    sums = (a.sum(), b.sum(), a @ a, a @ b, b @ b)
    return ratio_of_sums(len(a), *map(float, sums))


def ratio_of_sums(count: int, a: float, b: float, aa: float, ab: float, bb: float) -> Estimate:
    """The same from the number of pairs and the sums of a, b, a², ab and b²."""
    value = a / b
    if count < 2:
        return Estimate(value, None)
    squares = max(aa - 2 * value * ab + value**2 * bb, 0.0)
    return Estimate(value, math.sqrt(count / (count - 1) * squares) / abs(b))


def exponential(estimate: Estimate) -> Estimate:
    """Of a mean loss the perplexity."""
    value = math.exp(min(estimate.value, 700.0))
    return Estimate(value, None if estimate.error is None else value * estimate.error)
