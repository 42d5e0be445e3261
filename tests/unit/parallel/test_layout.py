"""Which rank sits where, against Megatron's rule: neighbouring ranks share matrices, then sequences, then
batches, then layers."""

from itertools import product

import pytest

from megatron.parallel.layout import AXES, Layout

MAPPING = ("tensor", "context", "pipeline", "data")


@pytest.mark.parametrize("order", [AXES, MAPPING])
def test_ranks_are_numbered_along_the_order(order: tuple[str, ...]) -> None:
    layout = Layout(tensor=2, context=3, data=2, pipeline=4, order=order)
    sizes = [getattr(layout, axis) for axis in order]
    number = 0
    for places in product(*(range(size) for size in reversed(sizes))):  # the first axis runs fastest
        assert layout.place(number) == dict(zip(order, reversed(places)))
        number += 1
    assert layout.ranks == number == 48


def test_the_members_of_an_axis_differ_along_it_alone() -> None:
    layout = Layout(tensor=2, context=2, data=3, pipeline=2)
    assert layout.members(0, ("tensor",)) == [0, 1]
    assert layout.members(5, ("context",)) == [5, 7]
    assert layout.members(5, ("data",)) == [1, 5, 9]
    assert layout.members(5, ("pipeline",)) == [5, 17]
    assert layout.members(5, ("context", "data")) == [1, 3, 5, 7, 9, 11]
    assert layout.members(5, ("tensor", "context")) == [4, 5, 6, 7]
    for rank in range(layout.ranks):
        for axes in (("tensor",), ("data", "pipeline"), AXES):
            members = layout.members(rank, axes)
            assert rank in members and members == sorted(members)
            for other in members:
                assert layout.members(other, axes) == members


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [
        (  # neighbours share experts, the ranks that are left are alike
            Layout(tensor=2, data=4, expert=2, expert_tensor=1),
            {
                "expert_tensor": [[rank] for rank in range(8)],
                "expert": [[0, 1], [2, 3], [4, 5], [6, 7]],
                "expert_data": [[0, 2, 4, 6], [1, 3, 5, 7]],
            },
        ),
        (  # a matrix of an expert is shared as others are
            Layout(tensor=2, data=4, expert=2, instances=2),
            {
                "expert_tensor": [[0, 1], [2, 3], [4, 5], [6, 7]],
                "expert": [[0, 2], [1, 3], [4, 6], [5, 7]],
                "expert_data": [[0, 4], [1, 5], [2, 6], [3, 7]],
                "expert_shard": [[rank] for rank in range(8)],
                "expert_replica": [[0, 4], [1, 5], [2, 6], [3, 7]],
            },
        ),
        (  # stages have experts of their own
            Layout(data=2, pipeline=2, expert=2, order=("tensor", "context", "pipeline", "data")),
            {"expert": [[0, 2], [1, 3]], "expert_data": [[0], [1], [2], [3]]},
        ),
        (  # context ranks share experts, too
            Layout(context=2, data=2, expert=2),
            {"expert": [[0, 1], [2, 3]], "expert_data": [[0, 2], [1, 3]], "expert_shard": [[0, 2], [1, 3]]},
        ),
    ],
)
def test_ranks_that_share_experts_by_hand(layout: Layout, wanted: dict[str, list[list[int]]]) -> None:
    """Megatron-LM's groups of the same sizes."""
    for axis, groups in wanted.items():
        assert layout.groups((axis,)).tolist() == groups
        for group in groups:
            assert all(layout.members(rank, (axis,)) == group for rank in group)
