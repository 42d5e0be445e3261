"""How far two tensors are apart."""

import math

import pytest
import torch

from megatron.checkpoint.contents import PIECE, Deviation, deviation

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ([1.0, 2.0], [1.0, 2.0], Deviation(True, 0, 0)),
        ([1.0, -4.0], [1.5, -4.0], Deviation(False, 0.5, 0.125)),
        ([NAN, INF], [NAN, INF], Deviation(True, 0, 0)),
        ([NAN, 1.0], [NAN, 2.0], Deviation(False, 1, 0.5)),
        ([NAN], [1.0], Deviation(False, INF, INF)),
        ([INF], [-INF], Deviation(False, INF, INF)),
        ([INF, 0.5], [INF, 1.0], Deviation(False, 0.5, 0.5)),
        ([0.0], [-0.0], Deviation(False, 0, 0)),
    ],
)
def test_deviations(one: list[float], other: list[float], wanted: Deviation) -> None:
    assert deviation(torch.tensor(one), torch.tensor(other)) == wanted


def test_another_type_is_not_the_same() -> None:
    whole = torch.tensor([1.0, 3.0])
    assert deviation(whole, whole.bfloat16()) == Deviation(False, 0, 0, "another type")
    assert deviation(torch.tensor(2.0), torch.tensor(2.5)) == Deviation(False, 0.5, 0.2)
    assert deviation(torch.zeros(0), torch.zeros(0)) == Deviation(True, 0, 0)


def test_the_largest_deviation_is_found_in_whatever_piece() -> None:
    one = torch.zeros(2 * PIECE + 3)
    for place in (0, PIECE, 2 * PIECE + 2):
        other = one.clone()
        other[place] = 0.25
        assert deviation(one, other) == deviation(other, one) == Deviation(False, 0.25, 1)
