"""A run on two ranks with everything that can be logged switched on: lines, records, scalars, profile."""

import json
import platform
import re
import subprocess
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megatron.base.cores import usable_cores
from megatron.train.timers import LEVELS
from tests.support.commands import ROOT, run_command

STEPS = 6
FLAGS = (
    "--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length 32 --micro-batch-size 2 "
    f"--global-batch-size 8 --train-iters {STEPS} --lr 1e-3 --mock-data --vocab-size 100 --log-interval 2 "
    "--eval-interval 3 --eval-iters 1 --save-interval 3 --log-throughput --device-peak-tflops 0.001 "
    "--recompute-granularity full --log-params-norm --log-memory-to-tensorboard --timing-log-level 2 "
    "--log-timers-to-tensorboard --tensorboard-queue-size 5 --profile --profile-step-start 2 "
    "--profile-step-end 4 --profile-ranks 0 1 --use-pytorch-profiler "
)
TIMES = r"    {} \.+: \(\d+\.\d\d, \d+\.\d\d\)"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the run, and what it printed."""
    folder = tmp_path_factory.mktemp("everything")
    places = ["--save", str(folder), "--tensorboard-dir", str(folder / "board")]
    return folder, run_command("pretrain_gpt.py", *FLAGS.split(), *places, ranks=2).stdout


def test_lines_that_scripts_look_for(run: tuple[Path, str]) -> None:
    folder, output = run  # both ranks print into it, so that the end of a line may come late
    parameters = json.loads((folder / "run.json").read_text())["parameters"]
    assert f" > number of parameters on (tensor, pipeline) model parallel rank (0, 0): {parameters}" in output
    assert "peak of cpu: 0.001 TFLOP/s, as --device-peak-tflops states" in output
    for step in (3, 6):
        assert f"  successfully saved checkpoint from iteration {step:7d} to {folder}" in output
    steps = [int(number) for number in re.findall(r"iteration +(\d+)/ +6 \|", output)]
    assert steps == [1, 2, 4, 6]
    fields = (
        r"elapsed time per iteration \(ms\): \d+\.\d \| throughput per GPU \(TFLOP/s/GPU\): \d+\.\d \| "
        r"MFU \(%\): (\d+\.\d) \| HFU \(%\): (\d+\.\d) \| learning rate: "
    )
    shares = re.findall(fields, output)
    assert len(shares) == 4 and all(0 < float(model) < float(hardware) for model, hardware in shares)
    memory = re.findall(r"\[Rank 0\] \(after 2 iterations\) memory \(MB\) \| ", output)
    assert len(memory) == 1


def test_a_run_says_what_it_is_and_where_it_ran(run: tuple[Path, str]) -> None:
    about = json.loads((run[0] / "run.json").read_text())
    assert f", {about['flops']:.3E} FLOPs" in run[1]
    assert f", {usable_cores()} cores, {platform.platform(terse=True)}" in about["machine"]
    words = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    assert about["commit"] == (told if told and (ROOT / ".git").exists() else None)
    assert about["versions"].keys() == {"torch", "numpy", "python"} and about["world_size"] == 2


def test_times_follow_every_line_of_the_log(run: tuple[Path, str]) -> None:
    blocks = run[1].split("(min, max) time across ranks (ms):\n")[1:]
    named = [set(re.findall(r"^    (\S+) \.+: \(", block, re.MULTILINE)) for block in blocks]
    of_a_step = LEVELS.keys() - {"save-checkpoint", "eval-time"}
    # lines at 1 and 2, the validation at 3 behind its checkpoint, the lines at 4 and 6, the validation at 6
    # behind the last checkpoint, and the test at the end
    assert named == [
        of_a_step,
        of_a_step,
        {"eval-time", "save-checkpoint"},
        of_a_step,
        of_a_step,
        {"eval-time", "save-checkpoint"},
        {"eval-time"},
    ]


def test_scalars_of_memory_times_and_utilisation(run: tuple[Path, str]) -> None:
    board = EventAccumulator(str(run[0] / "board"))
    board.Reload()
    tags = set(board.Tags()["scalars"])
    assert {"mfu", "hfu", "throughput", "mem-max-resident-bytes", "params-norm"} <= tags
    assert [point.step for point in board.Scalars("eval-time-time")] == [3, 6]
    assert [point.step for point in board.Scalars("eval-time-time test")] == [6]
    assert [point.step for point in board.Scalars("forward-backward-time")] == [1, 2, 4, 6]
    assert [point.step for point in board.Scalars("mfu")] == list(range(1, STEPS + 1))
    ratio = board.Scalars("hfu")[0].value / board.Scalars("mfu")[0].value
    assert 1.2 < ratio < 4 / 3


@pytest.mark.parametrize("rank", [0, 1])
def test_the_profile_holds_the_parts_of_its_steps(run: tuple[Path, str], rank: int) -> None:
    path = run[0] / "profile" / f"rank{rank}.steps2-4.json"
    assert f"profile of rank {rank}: {path}" in run[1]
    events = json.loads(path.read_text())["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    wanted = dict.fromkeys(LEVELS, 2) | {"eval-time": 1, "save-checkpoint": 1}
    wanted |= {"forward-compute": 4, "backward-compute": 4, "optimizer": 4}
    assert {name: names.count(name) for name in LEVELS} == wanted
