"""A Chrome trace of the steps that were asked for, with the parts of a step as named ranges."""

import json
from pathlib import Path

import pytest
import torch

from megatron.parallel.mesh import Axis, Mesh
from megatron.train.profile import Profile
from megatron.train.timers import Timers
from tests.support.configurations import make_config

FLAGS = "--train-iters 20 --profile --profile-step-start 2 --profile-step-end 4 "


SECOND = Mesh(world=Axis(1, 2))


def run(folder: Path, start: int, end: int, more: str = "", mesh: Mesh = Mesh()) -> list[int]:  # noqa: B008
    """Do some steps; those that were recorded."""
    profile = Profile(make_config(f"{FLAGS} --save {folder} {more}"), mesh)
    timers, recorded = Timers(), []
    timers.profiling = profile.after(start)
    for iteration in range(start + 1, end + 1):
        if timers.profiling:
            recorded.append(iteration)
        with timers.span("forward-backward"):
            torch.ones(2) + iteration
        timers.profiling = profile.after(iteration)
    profile.close()
    return recorded


def ranges(folder: Path) -> list[str]:
    trace = json.loads((folder / "profile" / "rank0.steps2-4.json").read_text())
    return [event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]


def test_the_steps_between_start_and_end_are_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, 0, 6) == [3, 4]
    assert ranges(tmp_path).count("forward-backward") == 2
    assert capsys.readouterr().out == f"profile of rank 0: {tmp_path}/profile/rank0.steps2-4.json\n"
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["rank0.steps2-4.json"]


def test_a_run_that_goes_on_or_ends_in_between_records_what_it_does(tmp_path: Path) -> None:
    assert run(tmp_path / "a", 3, 6) == [4]
    assert run(tmp_path / "b", 0, 3) == [3]
    assert (
        ranges(tmp_path / "a").count("forward-backward")
        == ranges(tmp_path / "b").count("forward-backward")
        == 1
    )


def test_a_run_that_does_none_of_the_steps_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, 4, 6) == []
    assert capsys.readouterr().out == "note: --profile: no step from 3 to 4 was done\n"
    assert not (tmp_path / "profile").exists()


def test_other_ranks_record_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, 0, 6, mesh=SECOND) == []
    assert run(tmp_path, 0, 6, "--profile-ranks 0 1", SECOND) == [3, 4]
    assert (tmp_path / "profile" / "rank1.steps2-4.json").is_file()
    assert run(tmp_path, 0, 6, "--profile-ranks 0 2", SECOND) == [], (
        "a rank that is not there records nothing"
    )
