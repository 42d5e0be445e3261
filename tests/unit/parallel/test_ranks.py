"""What the environment says of a rank, and ranks that do not meet or are gone."""

import socket

import pytest
import torch.distributed as dist

from megatron.base.errors import UserError
from megatron.parallel import ranks
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Mesh, start_mesh
from megatron.parallel.ranks import (
    _first_sentence,
    joined_ranks,
    launch_notes,
    launched_rank,
    require_launch,
    world_size,
)
from tests.support.ranks import run_ranks

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for pair in text.split():
        monkeypatch.setenv(*pair.split("="))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "WORLD_SIZE=1",
        "RANK=0 WORLD_SIZE=1",
        "RANK=1 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=1",
        "RANK=0 WORLD_SIZE=2 MASTER_ADDR=[::1] MASTER_PORT=1",
    ],
)
def test_a_whole_environment(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    set_all(monkeypatch, text)
    require_launch()
    assert launched_rank() < world_size()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("WORLD_SIZE=2", "WORLD_SIZE=2 without RANK, MASTER_ADDR, MASTER_PORT; unset WORLD_SIZE"),
        ("WORLD_SIZE=2 RANK=0 MASTER_ADDR=a", "WORLD_SIZE=2 without MASTER_PORT"),
        ("RANK=1", "has RANK=1, and WORLD_SIZE is 1; unset both"),
        ("RANK=2 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1", "has RANK=2, and WORLD_SIZE is 2"),
        ("RANK=first", "RANK=first, which is no such number"),
        ("WORLD_SIZE=0", "WORLD_SIZE=0, which is no such number"),
        ("WORLD_SIZE=-2", "WORLD_SIZE=-2, which is no such number"),
        ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=80000", "MASTER_PORT=80000, which is no port"),
        ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=free", "MASTER_PORT=free, which is no port"),
        (
            "RANK=0 WORLD_SIZE=2 MASTER_ADDR=n[1-4] MASTER_PORT=1",
            r"MASTER_ADDR=n\[1-4\], which names several",
        ),
        ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a,b MASTER_PORT=1", "MASTER_ADDR=a,b, which names several"),
        ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a..b MASTER_PORT=1", "=a..b, which this machine knows no address"),
        ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=no.invalid MASTER_PORT=1", "=no.invalid, which this machine knows"),
    ],
)
def test_a_part_of_an_environment(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    set_all(monkeypatch, text)
    monkeypatch.setattr(ranks, "PATIENCE", 0)
    with pytest.raises(UserError, match=f"{message}.*torchrun"):
        require_launch()


def test_a_name_may_become_known_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[list[str] | OSError] = [
        socket.gaierror(-2, "unknown"),
        socket.gaierror(-3, "later"),
        ["here"],
    ]

    def look_up(*given: object) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(ranks.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(ranks.time, "sleep", lambda seconds: None)
    set_all(monkeypatch, "RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1")
    require_launch()
    assert not answers


def test_other_launchers_start_runs_of_their_own() -> None:
    srun = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4", "PMI_RANK": "0", "PMI_SIZE": "4"}
    (note,) = launch_notes(srun)
    assert note.startswith("srun has started 4 processes, and each is a run of its own")
    assert launch_notes(srun | {"WORLD_SIZE": "4"}) == []
    assert launch_notes({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == []  # a batch script, no task
    assert launch_notes({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) == []
    (note,) = launch_notes({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8"})
    assert note.startswith("mpirun has started 8 processes")


def test_ranks_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    set_all(monkeypatch, f"RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT={port}")
    message = f"the ranks do not meet at 127.0.0.1:{port}: .*all 2 ranks"
    with pytest.raises(UserError, match=message), joined_ranks():
        start_mesh("gloo", 0.01, Layout(data=2))


def test_an_interface_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch9")
    message = "GLOO_SOCKET_IFNAME=nosuch9 names no network interface"
    with pytest.raises(UserError, match=message), joined_ranks():
        dist.ProcessGroupGloo.create_device(interface="nosuch9")


def test_a_rank_that_is_gone() -> None:
    def lose(mesh: Mesh) -> str:
        if mesh.world.rank == 1:
            dist.destroy_process_group()
            return "left"
        try:
            with joined_ranks():
                dist.barrier(mesh.world.group)
        except UserError as error:
            return str(error)
        return "met"

    told, left = run_ranks(2, lose)
    assert left == "left"
    assert told.startswith("another rank is gone, or does not answer within --distributed-timeout-minutes")


def test_other_errors_stay_as_they_are() -> None:
    for error in (RuntimeError("shapes do not fit"), ValueError("no such value"), RuntimeError("")):
        with pytest.raises(type(error)) as raised, joined_ranks():
            raise error
        assert raised.value is error


def test_two_ranks_on_one_gpu_are_told_of_their_places() -> None:
    """NCCL says it in the last line of its message, long after ranks have met."""
    text = (
        "NCCL error in: /torch/NCCLUtils.hpp:275, invalid usage (run with NCCL_DEBUG=WARN for details)\n"
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
        "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000"
    )
    wanted = r"the same GPU \(Duplicate GPU detected : rank 1 and rank 0 .*1000\); give every rank its place"
    with pytest.raises(UserError, match=wanted), joined_ranks():
        raise dist.DistBackendError(text)


def test_an_error_of_nccl_without_a_last_line_is_told_by_its_first() -> None:
    text = "NCCL error in: /torch/NCCLUtils.hpp:275, remote process exited\nncclRemoteError\nLast error:\n"
    assert _first_sentence(text) == "NCCL error in: /torch/NCCLUtils.hpp:275, remote process exited"
    assert _first_sentence(text + "socket closed. Gone") == "socket closed"


def test_ranks_of_torchrun_are_told_nothing_of_slurm() -> None:
    """Whether a job has --signal, which torchrun may die of, its processes cannot know."""
    assert launch_notes({"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1", "SLURM_JOB_ID": "7"}) == []
