"""A rank of a run under torchrun is killed: the others name it, nothing hangs, and the same command
goes on from a whole checkpoint."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.end_to_end.conftest import records
from tests.support.commands import ROOT, command, run_command

STEPS = 12
FLAGS = (
    "--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length 32 --micro-batch-size 2 "
    f"--global-batch-size 8 --lr 1e-3 --mock-data --vocab-size 100 --train-iters {STEPS} --log-interval 1 "
    "--eval-iters 0 --save-interval 2 --async-save --distributed-timeout-minutes 0.3 "
    "--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 "
)


def rank_of(folder: Path, rank: int) -> int:
    """The process of a rank of the run that writes to a folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words, variables = ((entry / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            if str(folder).encode() in words and f"RANK={rank}".encode() in variables:
                return int(entry.name)
    raise LookupError(f"rank {rank} does not run")


def run_and_strike(words: list[str], folder: Path, rank: int, how: signal.Signals) -> tuple[int, str, float]:
    """Send a signal to one rank once a few steps are recorded: status, what all ranks print, and how many
    seconds the run lives on."""
    process = subprocess.Popen(
        command("pretrain_gpt.py", *words, ranks=4),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    path, end = folder / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if path.is_file() and path.read_text().count('"train"') >= 5:
            break
        time.sleep(0.005)
    os.kill(rank_of(folder, rank), how)
    before = time.monotonic()
    output, _ = process.communicate(timeout=120)
    return process.returncode, output, time.monotonic() - before


def test_the_others_name_a_rank_that_is_killed(tmp_path: Path) -> None:
    flags = [*FLAGS.split(), "--save", str(tmp_path), "--load", str(tmp_path)]
    status, output, seconds = run_and_strike(flags, tmp_path, 3, signal.SIGKILL)
    assert status != 0 and seconds < 100
    assert output.count("Traceback") <= 1  # that of torchrun itself
    assert any("error: rank 3 is gone, process" in line for line in output.splitlines()), output[-3000:]
    assert "going on after step" in run_command("pretrain_gpt.py", *flags, ranks=4).stdout
    assert len([one for one in records(tmp_path) if one["kind"] == "train"]) == STEPS
