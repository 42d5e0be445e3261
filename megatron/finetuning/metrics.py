"""What is measured of predictions, by scikit-learn and scipy."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef


def _accuracy(labels: np.ndarray, told: np.ndarray) -> float:
    return float(np.mean(labels == told))


def _f1(labels: np.ndarray, told: np.ndarray) -> float:
    """Of class 1; 0 where nothing is told to be of it, and nothing is."""
    return float(f1_score(labels, told, zero_division=0))


def _macro_f1(labels: np.ndarray, told: np.ndarray) -> float:
    """Mean over the classes that occur."""
    return float(f1_score(labels, told, average="macro", zero_division=0))


def _matthews(labels: np.ndarray, told: np.ndarray) -> float:
    """Matthews' correlation; 0 where one class alone is told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one class alone
        return float(matthews_corrcoef(labels, told))


def _pearson(labels: np.ndarray, told: np.ndarray) -> float:
    return _correlation(stats.pearsonr, labels, told)


def _spearman(labels: np.ndarray, told: np.ndarray) -> float:
    return _correlation(stats.spearmanr, labels, told)


def _correlation(by: Callable[..., Any], labels: np.ndarray, told: np.ndarray) -> float:
    """0 where either side is constant, of which no correlation is known: it tells nothing of the other."""
    if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(told) == 0:
        return 0.0
    return float(by(labels, told).statistic)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
"""From labels and predictions, numbers of classes or values [N], to a number; the more the better."""


def measure(metrics: tuple[str, ...], labels: np.ndarray, told: np.ndarray) -> dict[str, float]:
    """These metrics by name."""
    return {name: METRICS[name](labels, told) for name in metrics}
