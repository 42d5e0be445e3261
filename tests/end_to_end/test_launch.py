"""The launchers: one machine, and two "nodes" on loopback that meet at torchrun's rendezvous."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.end_to_end.conftest import records
from tests.support.commands import ROOT

FLAGS = (
    "--num-layers 2 --hidden-size 32 --num-attention-heads 4 --seq-length 32 --micro-batch-size 2 "
    "--global-batch-size 8 --lr 1e-3 --mock-data --vocab-size 100 --train-iters 3 --eval-iters 0 "
    "--log-interval 1 "
)


def start(script: str, folder: Path, *flags: str, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    words = ["bash", str(ROOT / "scripts" / "launch" / script), *FLAGS.split(), "--save", str(folder), *flags]
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-3000:]
    return out


def children(parent: int) -> list[int]:
    """The processes that another one has started, as the system tells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # which has ended meanwhile
            if path.read_text().rsplit(")", 1)[1].split()[1] == str(parent):
                found.append(int(path.parent.name))
    return found


def losses(folder: Path) -> list[float]:
    return [one["lm_loss"] for one in records(folder) if one["kind"] == "train"]


def test_one_machine_and_two_nodes_train_the_same(tmp_path: Path) -> None:
    """Two ranks of one tensor axis on one machine; then on two, with the axis across them."""
    layout = ("--tensor-model-parallel-size", "2")
    out = finish(start("node.sh", tmp_path / "one", *layout, RANKS="2"))
    assert out.index("Plan of the run") < out.index("iteration        1/"), "the plan comes first"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        head = f"127.0.0.1:{unused.getsockname()[1]}"
    nodes = [start("nodes.sh", tmp_path / "two", *layout, NODES="2", HEAD=head, RANKS="1") for _ in range(2)]
    for node in nodes:
        finish(node)
    assert len(losses(tmp_path / "two")) == 3
    assert losses(tmp_path / "two") == losses(tmp_path / "one")


@pytest.mark.parametrize(
    ("script", "words"), [("node.sh", "give RANKS=2"), ("nodes.sh", "give NODES=2 HEAD=")]
)
def test_what_a_launcher_needs_is_said_in_one_line(tmp_path: Path, script: str, words: str) -> None:
    if shutil.which("nvidia-smi") and script == "node.sh":
        pytest.skip("this machine has GPUs, and the launcher takes them")
    process = start(script, tmp_path)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and words in error and error.count("\n") == 1


def test_a_signal_to_all_processes_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    """Slurm sends --signal=USR1@300 to torchrun, too, which would die of it, and the ranks with it."""
    process = start("node.sh", tmp_path, "--train-iters", "1000000", "--log-interval", "1000", RANKS="2")
    while not (tmp_path / "metrics.jsonl").is_file() or not losses(tmp_path):
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.2)
    for one in [process.pid, *children(process.pid)]:
        os.kill(one, signal.SIGUSR1)
    out = finish(process)
    assert "successfully saved checkpoint" in out and "stopped at iteration" in out


def launched(script: str, folder: Path, **variables: str) -> tuple[int, str]:
    """Status and error output of a script that is started in another folder, with these variables alone."""
    words = ["bash", str(ROOT / "scripts" / "launch" / script), "--save", "runs"]
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_job_that_is_sent_from_elsewhere_is_told_the_way(tmp_path: Path) -> None:
    """Slurm runs a copy of the script, so that only these variables say where the tree is."""
    where = {"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": str(tmp_path)}
    status, error = launched("slurm.sh", tmp_path, **where)
    assert status == 2 and error.startswith(f"error: {tmp_path} does not hold this repository; call sbatch")
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho head\n")
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$@" >&2\n')
    for name in ("scontrol", "srun"):
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "head", "SLURM_NNODES": "2", "SLURM_JOB_ID": "1", "MEGATRON_ROOT": str(ROOT)}
    status, error = launched("slurm.sh", tmp_path, **job, **where | {"PATH": f"{tmp_path}:{where['PATH']}"})
    assert status == 0 and f"bash {ROOT}/scripts/launch/nodes.sh --save runs" in error
    there = job | {"PATH": f"{tmp_path}:{where['PATH']}", "SLURM_SUBMIT_DIR": str(ROOT)}
    status, error = launched("slurm.sh", tmp_path, **there | {"MEGATRON_ROOT": str(tmp_path)})  # of NVIDIA's
    assert status == 0 and f"bash {ROOT}/scripts/launch/nodes.sh --save runs" in error


def test_a_shell_without_the_environment_is_told_the_way(tmp_path: Path) -> None:
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    status, error = launched("node.sh", tmp_path, PATH=str(tmp_path), RANKS="2")
    assert status == 2 and error.startswith(
        "error: python and torchrun are not on PATH; enter the environment"
    )
