"""Which gradients share a bucket, and in which order buckets are summed."""

import torch
from torch import nn

from megatron.parallel.data_parallel import group_alike
from megatron.parallel.placement import Placement, placements
from megatron.parallel.zero import turns_of
from tests.support.models import make_model


def groups_of(sizes: dict[str, int], summed: set[str], most: int) -> list[list[str]]:
    """Names by group; those of `summed` are summed over the tensor axis, too."""
    parameters = {name: nn.Parameter(torch.zeros(size)) for name, size in sizes.items()}
    more = {name: ("tensor",) if name in summed else () for name in sizes}
    table = {name: Placement((size,), (0,), ("data", *more[name])) for name, size in sizes.items()}
    return [list(group) for group in group_alike(parameters, table, most)]


def test_kinds_that_alternate_fill_their_buckets() -> None:
    """Of three layers with a norm and a matrix each, from the last to the first: the first layer's norm is
    the last gradient of all, so the norms are summed last."""
    layers = {f"{kind}{n}": size for n in range(3) for kind, size in (("norm", 1), ("matrix", 10))}
    norms = {name for name in layers if name.startswith("norm")}
    assert groups_of(layers, norms, 20) == [["matrix2", "matrix1"], ["matrix0"], ["norm2", "norm1", "norm0"]]
    assert groups_of(layers, norms, 2)[:3] == [["matrix2"], ["matrix1"], ["norm2", "norm1"]]
    assert groups_of(layers, set(), 100) == [list(reversed(layers))]


def test_a_bucket_is_whole_before_all_that_are_summed_behind_it() -> None:
    """Its last gradient comes before theirs, so no bucket waits for one that comes later."""
    model = make_model("")
    parameters = dict(model.named_parameters())
    table = {
        name: one._replace(copies_over=()) if "norm" in name else one
        for name, one in placements(model).items()
    }
    groups = group_alike(parameters, table, 3000)
    names = list(reversed(parameters))
    ends = [max(map(names.index, group)) for group in groups]
    assert ends == sorted(ends) and sorted(name for group in groups for name in group) == sorted(names)


def test_weights_come_in_the_order_in_which_they_are_first_needed() -> None:
    """The norms of all layers, summed last, are needed first."""
    sizes = {"table": 10, "norm0": 1, "matrix0": 10, "norm1": 1, "matrix1": 10}
    parameters = {name: nn.Parameter(torch.zeros(size)) for name, size in sizes.items()}
    table = {
        name: Placement((size,), (0,), () if "norm" in name else ("data",)) for name, size in sizes.items()
    }
    groups = group_alike(parameters, table, 10)
    assert [list(group) for group in groups] == [["matrix1"], ["matrix0"], ["norm1", "norm0"], ["table"]]
    assert turns_of(groups, list(sizes)) == [3, 2, 1, 0]
