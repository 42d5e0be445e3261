"""Metrics against their formulas, and where these divide by nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.finetuning.metrics import METRICS, measure

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


def counts(pairs: list[tuple[int, int]]) -> tuple[int, int, int, int]:
    """True and false positives, true and false negatives."""
    return tuple(sum(pair == one for pair in pairs) for one in ((1, 1), (0, 1), (0, 0), (1, 0)))


@settings(deadline=None, max_examples=50)  # the first one imports scikit-learn
@given(PAIRS)
def test_metrics_of_classes_are_their_formulas(pairs):
    labels, told = np.array(pairs).T
    tp, fp, tn, fn = counts(pairs)
    found = measure(("accuracy", "f1", "macro_f1", "matthews"), labels, told)
    f1 = 2 * tp / (2 * tp + fp + fn) if tp else 0.0
    of_zero = 2 * tn / (2 * tn + fp + fn) if tn else 0.0
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    assert found["accuracy"] == (tp + tn) / len(pairs)
    assert found["f1"] == pytest.approx(f1)
    occur = [one for one, there in ((of_zero, tn + fp + fn), (f1, tp + fp + fn)) if there]
    assert found["macro_f1"] == pytest.approx(sum(occur) / len(occur))
    assert found["matthews"] == pytest.approx(
        (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0, abs=1e-12
    )


def test_matthews_and_f1_of_a_constant_prediction_are_0_or_what_the_formula_says():
    labels, told = np.array([0, 1, 1, 0]), np.zeros(4, int)
    assert measure(("matthews", "f1", "accuracy"), labels, told) == {
        "matthews": 0.0,
        "f1": 0.0,
        "accuracy": 0.5,
    }
    assert METRICS["f1"](labels, told + 1) == pytest.approx(2 / 3)


def test_correlations_are_their_formulas():
    labels, told = np.array([1.0, 2.0, 3.0, 5.0]), np.array([1.0, 4.0, 2.0, 2.0])
    x, y = labels - labels.mean(), told - told.mean()
    assert METRICS["pearson"](labels, told) == pytest.approx((x @ y) / math.sqrt((x @ x) * (y @ y)))
    ranks = np.array([1.0, 4.0, 2.5, 2.5]) - 2.5  # equal values share their ranks' mean
    x = np.array([1.0, 2.0, 3.0, 4.0]) - 2.5
    assert METRICS["spearman"](labels, told) == pytest.approx(
        (x @ ranks) / math.sqrt((x @ x) * (ranks @ ranks))
    )


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_constant_side_has_no_correlation(name):
    values = np.array([1.0, 2.0, 4.0])
    assert METRICS[name](values, np.ones(3)) == METRICS[name](np.ones(3), values) == 0.0
    assert METRICS[name](values[:1], values[:1]) == 0.0
    assert METRICS[name](values, -values) == pytest.approx(-1.0)
