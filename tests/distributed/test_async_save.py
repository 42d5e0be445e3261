"""Checkpoints that are written beside the training: what is saved, what a failure does, and what waits."""

import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.base.errors import UserError
from megatron.checkpoint.load import verify_files
from megatron.checkpoint.manifest import read_manifest
from megatron.checkpoint.save import LATEST
from megatron.parallel.mesh import Mesh, sum_over
from megatron.train.log import Log
from megatron.train.loop import train
from megatron.train.records import Start
from megatron.train.resume import describe_run, save_run
from megatron.train.saving import Checkpoints
from megatron.train.setup import Run
from tests.end_to_end.conftest import records
from tests.support.parity import BASE, LAYOUTS, MODELS, make_run, place_of, train_steps
from tests.support.ranks import run_layout

LAYOUT = "tp2·pp2"
FIRST, SECOND = "iter_0000002", "iter_0000004"


def run_on(layout: str, function: Any, *arguments: Any) -> list[Any]:
    more, place, replicas = place_of(LAYOUTS[layout])
    return run_layout(place, function, BASE + MODELS["gpt"] + more, replicas, *arguments)


def saving_run(mesh: Mesh, flags: str, replicas: int, save: Path) -> Run:
    return make_run(mesh, f"{flags} --async-save --save {save}", torch.float64, replicas)


def contents(folder: Path) -> dict[str, bytes]:
    """Files of a checkpoint by name, but for the index, which has the flags in it."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "index.json"}


@torch.no_grad()
def fill(run: Run, values: list[torch.Tensor]) -> None:
    for parameter, value in zip(run.parameters.values(), values):
        parameter.copy_(value)


def beside_and_between(mesh: Mesh, flags: str, replicas: int, root: Path) -> None:
    """A save beside two steps, whose messages are many, and the same state saved between steps."""
    run = saving_run(mesh, flags, replicas, root / "beside")
    manifest = describe_run(run)
    with Checkpoints(run, manifest) as checkpoints:
        train_steps(run, 1, 2)
        before = [one.detach().clone() for one in run.parameters.values()]
        checkpoints.save(2)
        fill(run, [torch.zeros_like(one) for one in before])  # at once, as a step would
        for number in range(200):  # whoever shares the group of the steps meets these
            ones = sum_over(torch.full((9,), float(number)), mesh.world)
            assert ones.tolist() == [float(number * mesh.world.size)] * 9
        fill(run, before)
        train_steps(run, 3, 4)
        checkpoints.save(4)
        assert checkpoints.saved >= 2
    assert checkpoints.saved == 4
    again = make_run(mesh, f"{flags} --save {root / 'between'}", torch.float64, replicas)
    for last in (2, 4):
        train_steps(again, last - 1, last)
        save_run(again, manifest, last)


def test_what_is_saved_is_the_state_of_its_step(tmp_path: Path) -> None:
    """To the bit what is saved between the steps, though training goes on while it is written."""
    run_on(LAYOUT, beside_and_between, tmp_path)
    for name in (FIRST, SECOND):
        one, other = tmp_path / "beside" / name, tmp_path / "between" / name
        assert contents(one) == contents(other) and len(contents(one)) == 8
        assert read_manifest(one).tensors == read_manifest(other).tensors
    assert (tmp_path / "beside" / LATEST).read_text() == "4\n"


class FullDisk(Checkpoints):
    """From step 4 on, rank 2 can write no file of more than a hundred bytes."""

    def save(self, iteration: int) -> None:
        if iteration == 4 and self.run.mesh.world.rank == 2:
            self.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        super().save(iteration)


def fail_beside(mesh: Mesh, flags: str, replicas: int, root: Path) -> tuple[str, ...]:
    """What a rank is told of the failure of another."""
    run = saving_run(mesh, f"{flags} --save-interval 2 --log-interval 100 --eval-iters 0", replicas, root)
    log = Log(run.config, run.efficiency, run.plan, mesh, Start(0, run.plan.totals(0)))
    try:
        with pytest.raises(UserError) as caught, FullDisk(run, describe_run(run)) as checkpoints:
            train(run, 0, log, checkpoints)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert checkpoints.saved == 2
    return caught.value.problems


def test_a_failure_beside_ends_all_ranks_with_one_line(tmp_path: Path) -> None:
    told = run_on(LAYOUT, fail_beside, tmp_path)
    line = f"{tmp_path / SECOND}: could not be written ([Errno 27] File too large); see that the folder is "
    assert told == [(line + "there for every rank and has room, then start the run again",)] * 4
    done = [one["iteration"] for one in records(tmp_path)]
    assert done in ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]), "the next step tells it, or the next save"
    assert sorted(path.name for path in tmp_path.glob("*iter*")) == [FIRST, LATEST]
    assert not list(tmp_path.glob(".iter*")) and (tmp_path / LATEST).read_text() == "2\n"


def end_otherwise(mesh: Mesh, flags: str, replicas: int, root: Path) -> None:
    run = saving_run(mesh, flags, replicas, root)
    train_steps(run, 1, 2)
    with pytest.raises(ZeroDivisionError), Checkpoints(run, describe_run(run)) as checkpoints:
        checkpoints.save(2)
        1 / 0  # noqa: B018
    assert checkpoints.saved == 2


def test_whatever_ends_a_run_waits_for_what_is_written(tmp_path: Path) -> None:
    run_on("dp2", end_otherwise, tmp_path)
    assert (tmp_path / LATEST).read_text() == "2\n"
    verify_files(tmp_path / FIRST, read_manifest(tmp_path / FIRST), Mesh())
