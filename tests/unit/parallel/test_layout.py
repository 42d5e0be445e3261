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
