"""Rows that ranks share: every row has one owner, and all of them come back where they were."""

import pytest
import torch

from megatron.parallel.mesh import Axis, Mesh
from megatron.parallel.placement import Placement
from megatron.parallel.zero import pack, padded, placement_of_rows, rows_of, width


@pytest.mark.parametrize(
    ("rows", "ranks", "wanted"),
    [
        (6, 3, [(0, 2), (2, 4), (4, 6)]),
        (5, 3, [(0, 2), (2, 4), (4, 5)]),
        (4, 3, [(0, 2), (2, 4), (4, 4)]),
        (1, 2, [(0, 1), (1, 1)]),
        (2, 4, [(0, 1), (1, 2), (2, 2), (2, 2)]),
        (7, 1, [(0, 7)]),
    ],
)
def test_rows_are_cut_alike_and_the_last_ranks_have_fewer(
    rows: int, ranks: int, wanted: list[tuple[int, int]]
) -> None:
    found = [rows_of(rows, Axis(rank, ranks)) for rank in range(ranks)]
    assert [(one.start, one.stop) for one in found] == wanted


def test_a_slice_lies_where_its_rows_do_and_has_no_copies_over_the_ranks_that_share() -> None:
    """Rows 10 to 14 of 20, of which the last of three ranks has one."""
    whole = Placement((20, 4), (10, 2), ("data", "context", "embedding"), ("data", "context", "tensor"), 0.3)
    found = placement_of_rows(whole, 5, Mesh(shard=Axis(2, 3)))
    assert found == Placement((20, 4), (14, 2), ("embedding",), ("tensor",), 0.3)
    twice = placement_of_rows(whole, 5, Mesh(shard=Axis(2, 3), replica=Axis(0, 2)))
    assert twice == found._replace(sum_over=("embedding", "replica"), copies_over=("tensor", "replica"))


def test_what_is_packed_has_a_row_for_each_rank() -> None:
    """A matrix of 5 rows and a vector of one element on three ranks, with zeros where a rank has none."""
    matrix, vector = torch.arange(1.0, 11).view(5, 2), torch.tensor([7.0])
    assert (width(matrix, 3), width(vector, 3)) == (4, 1)
    assert pack([matrix, vector], 3).tolist() == [[1, 2, 3, 4, 7], [5, 6, 7, 8, 0], [9, 10, 0, 0, 0]]
    for rank, row in enumerate(pack([matrix, vector], 3)):
        for whole, part in zip((matrix, vector), row.split([4, 1])):
            assert torch.equal(part, padded(whole[rows_of(len(whole), Axis(rank, 3))], len(part)))
