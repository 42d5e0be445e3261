"""Ranks, their axes, and what they tell one another."""

import os

import pytest
import torch

from megatron.base.errors import UserError
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import (
    Axis,
    Mesh,
    agree,
    device_of_rank,
    gather_over,
    start_mesh,
    sum_over,
    wait_for_all,
)
from megatron.parallel.ranks import launched_rank, ranks_here, world_size
from tests.support.ranks import run_ranks


def told(mesh: Mesh) -> tuple[list[float], list[list[int]], bool, bool]:
    agree("the seed", 2**62 + 5, mesh)
    agree("nothing", -3, mesh)
    wait_for_all(mesh)
    rank = mesh.data.rank
    values = sum_over(torch.tensor([1.0, 10.0 * rank]), mesh.axis("data"))
    parts = gather_over(torch.tensor([rank, rank**2]), mesh.axis("world"))
    return values.tolist(), parts.tolist(), mesh.first, mesh.prints_log


def test_ranks_sum_and_gather() -> None:
    """The first one writes files, and the last one prints, as in Megatron."""
    for rank, found in enumerate(run_ranks(3, told)):
        assert found == ([3.0, 30.0], [[0, 0], [1, 1], [2, 4]], rank == 0, rank == 2)
    assert run_ranks(1, told) == [([1.0, 0.0], [[0, 0]], True, True)]


def test_one_rank_differing_is_enough_to_disagree() -> None:
    def disagree(mesh: Mesh) -> str:
        with pytest.raises(UserError) as caught:
            agree("the plan", 7 - (mesh.world.rank == 1), mesh)
        return str(caught.value)

    assert all(line.startswith("the ranks disagree on the plan; start") for line in run_ranks(3, disagree))


def test_torchruns_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (world_size(), launched_rank(), ranks_here()) == (1, 0, 1)
    assert start_mesh("gloo", 1.0, Layout()) == Mesh(torch.device("cpu"), Axis(0, 1, None), Axis(0, 1, None))
    for name, value in {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert (world_size(), launched_rank(), ranks_here()) == (8, 5, 4)


def test_a_joined_rank_knows_its_place() -> None:
    def join(mesh: Mesh) -> tuple[Axis, Axis]:
        os.environ.update(WORLD_SIZE="2", RANK=str(mesh.world.rank))
        joined = start_mesh("gloo", 1.0, Layout(data=2))
        assert joined.world.group is mesh.world.group
        return joined.world._replace(group=None), joined.data._replace(group=None)

    assert run_ranks(2, join) == [(Axis(rank, 2), Axis(rank, 2)) for rank in range(2)]


def test_gloo_computes_on_the_cpu_and_nccl_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of_rank("gloo") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of_rank(None) == torch.device("cpu")
    with pytest.raises(UserError, match="--distributed-backend nccl needs a GPU, and none is here"):
        device_of_rank("nccl")


def test_every_rank_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda place: None)
    monkeypatch.setenv("WORLD_SIZE", "4")
    for here, place, wanted in (
        (2, "2", "local rank 2 has no GPU: 2 are here; start fewer ranks a machine, or let each see all"),
        (1, "1", "local rank 1 has no GPU: 1 is here; .* srun --gpus-per-node in place of --gpus-per-task"),
    ):
        monkeypatch.setattr(torch.cuda, "device_count", lambda here=here: here)
        monkeypatch.setenv("LOCAL_RANK", place)
        with pytest.raises(UserError, match=wanted):
            device_of_rank(None)
    monkeypatch.delenv("LOCAL_RANK")
    for here in (1, 8):  # as a launcher shows every rank a GPU alone, or starts one rank a machine
        monkeypatch.setattr(torch.cuda, "device_count", lambda here=here: here)
        assert device_of_rank(None) == torch.device("cuda", 0)
