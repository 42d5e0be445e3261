"""A killed run that is started again writes what an unbroken one writes, to the bit: curriculum,
random-LTD and dropout on."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron.checkpoint.manifest import sealed
from tests.end_to_end.conftest import EFFICIENT, MODEL, Prepared, records
from tests.support.commands import ROOT, command, run_command

STEPS = 30


def training(prepared: Prepared, folder: Path, *more: str) -> list[str]:
    data = ["--data-path", prepared.prefix, "--split", "90,5,5", "--difficulty-path", prepared.difficulty]
    saving = [
        "--save",
        str(folder),
        "--load",
        str(folder),
        "--save-interval",
        "4",
        "--eval-interval",
        "10",
        "--eval-iters",
        "2",
    ]
    return ["pretrain_gpt.py", *MODEL, *data, *EFFICIENT, "--train-iters", str(STEPS), *saving, *more]


def tensor_files(folder: Path, kind: str) -> list[bytes]:
    """The weights or the moments of the last step, a file a rank."""
    return [path.read_bytes() for path in sorted((folder / f"iter_{STEPS:07d}").glob(f"{kind}*"))]


def weights(folder: Path) -> list[bytes]:
    """The weights of the last step, a file a rank."""
    return tensor_files(folder, "model")


def processes_of(folder: Path) -> list[int]:
    """All processes that have the folder on their command line: torchrun and its ranks, which sit in
    sessions of their own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def interrupt(
    words: list[str], folder: Path, after: int, how: signal.Signals, ranks: int = 1, saving: bool = False
) -> subprocess.CompletedProcess[str]:
    """Start a run and send a signal to all of its processes once `after` steps are recorded, and, where
    `saving` says so, once it then writes a checkpoint."""
    process = subprocess.Popen(
        command(*words, ranks=ranks), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    path = folder / "metrics.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if path.is_file() and sum(1 for line in path.open() if '"train"' in line) >= after:
            if not saving or list(folder.glob(".iter_*.partial")):
                break
            time.sleep(0.0005)
            continue
        time.sleep(0.005)
    for number in processes_of(folder):
        os.kill(number, how)
    output, _ = process.communicate(timeout=120)
    return subprocess.CompletedProcess(words, process.returncode, output)


@pytest.fixture(scope="module")
def unbroken(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Unbroken runs on one and on two ranks."""
    folders = {}
    for ranks in (1, 2):
        folders[ranks] = tmp_path_factory.mktemp(f"unbroken{ranks}")
        run_command(*training(prepared, folders[ranks]), ranks=ranks)
    return folders


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_twice_and_started_again(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path, ranks: int
) -> None:
    words = training(prepared, tmp_path)
    for after in (6, 17):
        assert interrupt(words, tmp_path, after, signal.SIGKILL, ranks).returncode != 0
    output = run_command(*words, ranks=ranks).stdout
    assert "going on after step" in output
    assert records(tmp_path) == records(unbroken[ranks])
    assert weights(tmp_path) == weights(unbroken[ranks])


def test_a_run_on_a_layout_is_killed_beside_and_while_saving(prepared: Prepared, tmp_path: Path) -> None:
    """Tensor and pipeline ranks that save beside their steps. A kill that comes too late to break a save is
    repeated at the next one."""
    flags = ("--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "2", "--async-save")
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    run_command(*training(prepared, whole, *flags), ranks=4)
    words = training(prepared, folder, *flags)
    assert interrupt(words, folder, 6, signal.SIGKILL, 4).returncode != 0
    for after in (7, 11, 15, 19, 23):
        assert interrupt(words, folder, after, signal.SIGKILL, 4, saving=True).returncode != 0
        if list(folder.glob(".iter_*.partial")):
            break
    assert list(folder.glob(".iter_*.partial")), "killed while it saved"
    assert "going on after step" in run_command(*words, ranks=4).stdout
    assert records(folder) == records(whole)
    for kind in ("model", "optimizer"):
        found = [tensor_files(one, kind) for one in (folder, whole)]
        assert found[0] == found[1] and len(found[0]) == 4


ENCODER = (
    "--mock-data --vocab-size 120 --short-seq-prob 0.5 --random-ltd --random-ltd-min 16 "
    "--random-ltd-duration 20 --random-ltd-quantum 8 "
    "--curriculum seqlen_truncate:min=16,max=64,duration=15,quantum=8 "
    "--save-interval 4 --eval-interval 10 --eval-iters 2 --bert-group-lengths "
)


@pytest.mark.parametrize(
    ("ranks", "layout"),
    [(1, "--bert-passes 2"), (2, "--use-distributed-optimizer"), (2, "--pipeline-model-parallel-size 2")],
)
def test_an_encoder_is_killed_and_started_again(tmp_path: Path, ranks: int, layout: str) -> None:
    """With new masks in every step, with rows and micro-batches of any length."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    words, other = (
        ["pretrain_bert.py", *MODEL, *ENCODER.split(), *layout.split(), "--train-iters", str(STEPS)]
        + ["--save", str(one), "--load", str(one)]
        for one in (folder, whole)
    )
    run_command(*other, ranks=ranks)
    assert interrupt(words, folder, 14, signal.SIGKILL, ranks).returncode != 0
    assert "going on after step" in run_command(*words, ranks=ranks).stdout
    assert records(folder) == records(whole)
    assert weights(folder) == weights(whole)
    validated = [one for one in records(whole) if one["kind"] != "train"]
    assert {"lm_loss", "sop_loss", "lm_accuracy", "sop_accuracy"} <= validated[-1].keys()


EXPERTS = (
    "--num-experts 4 --moe-layer-freq 2 --moe-aux-loss-coeff 1e-2 --moe-z-loss-coeff 1e-3 "
    "--moe-router-load-balancing-type global_aux_loss --moe-router-enable-expert-bias "
    "--moe-expert-capacity-factor 1.25 --moe-input-jitter-eps 0.01 --moe-per-layer-logging "
    "--expert-model-parallel-size 2 --use-distributed-optimizer"
)


def test_ranks_that_share_experts_are_killed(prepared: Prepared, tmp_path: Path) -> None:
    """With loads and biases of the steps before, and with tokens that full experts drop."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    run_command(*training(prepared, whole, *EXPERTS.split()), ranks=2)
    words = training(prepared, folder, *EXPERTS.split())
    assert interrupt(words, folder, 10, signal.SIGKILL, 2).returncode != 0
    assert "going on after step" in run_command(*words, ranks=2).stdout
    assert records(folder) == records(whole)
    for kind in ("model", "optimizer"):
        found = [tensor_files(one, kind) for one in (folder, whole)]
        assert found[0] == found[1] and len(found[0]) == 2
    assert not list(folder.glob(".iter_*"))


def test_two_ranks_compute_what_one_computes(unbroken: dict[int, Path]) -> None:
    one, two = records(unbroken[1]), records(unbroken[2])
    assert len(one) == len(two) > STEPS
    for a, b in zip(one, two):
        # sums over 512 tokens in another order: about sqrt(512) roundings of fp32, 22 · 6e-8, grown over 30
        # steps
        assert abs(a["lm_loss"] - b["lm_loss"]) < 2e-5 * a["lm_loss"]
        assert {name: a[name] for name in ("iteration", "consumed_tokens")} == {
            name: b[name] for name in ("iteration", "consumed_tokens")
        }


@pytest.mark.parametrize(
    ("how", "more"),
    [(signal.SIGTERM, []), (signal.SIGINT, []), (signal.SIGUSR1, []), (signal.SIGTERM, ["--async-save"])],
)
def test_a_signal_saves_and_the_same_command_goes_on(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path, how: signal.Signals, more: list[str]
) -> None:
    words = training(prepared, tmp_path, *more)
    stopped = interrupt(words, tmp_path, 5, how)
    assert stopped.returncode == 0, stopped.stdout
    assert "the same command goes on" in stopped.stdout
    acknowledged = re.findall(rf"^{how.name}: (.*)$", stopped.stdout, re.MULTILINE)
    assert len(acknowledged) == 1 and "a second Ctrl-C stops at once and loses" in acknowledged[0]
    latest = int((tmp_path / "latest_checkpointed_iteration.txt").read_text())
    assert len([record for record in records(tmp_path) if record["kind"] == "train"]) == latest < STEPS
    run_command(*words)
    assert records(tmp_path) == records(unbroken[1])


def test_exit_interval_stops_and_goes_on(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path
) -> None:
    output = run_command(*training(prepared, tmp_path, "--exit-interval", "7")).stdout
    assert f"stopped at iteration 7 of {STEPS}" in output
    run_command(*training(prepared, tmp_path))
    assert records(tmp_path) == records(unbroken[1])


def test_an_older_checkpoint_can_be_chosen(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path
) -> None:
    words = training(prepared, tmp_path, "--ckpt-step", "12")
    words[words.index("--load") + 1] = str(unbroken[1])
    assert "going on after step 12" in run_command(*words).stdout
    wanted = [record for record in records(unbroken[1]) if record["iteration"] > 12]
    assert records(tmp_path) == wanted


def without(words: list[str], flag: str) -> list[str]:
    """A command without a flag and its value."""
    place = words.index(flag)
    return words[:place] + words[place + 2 :]


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", ["no --load", "a mistyped --load", "another run's --load", "--finetune"])
def test_checkpoints_of_an_earlier_run_are_not_replaced(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken[1] / "iter_0000028", folder / "iter_0000028")
    words, before = training(prepared, folder, "--train-iters", "3"), files_of(folder)
    other = {"a mistyped --load": f"{folder}s", "another run's --load": str(unbroken[1])}
    if how == "no --load":
        words = without(words, "--load")
    elif how == "--finetune":
        words.append(how)
    else:
        words[words.index("--load") + 1] = other[how]
    refused = run_command(*words, status=2).stderr.splitlines()
    assert f"--save {folder}: holds the checkpoint of step 28 of an earlier run" in refused[-1]
    assert all(way in refused[-1] for way in (f"go on from them with --load {folder}", "--overwrite-run"))
    assert files_of(folder) == before


ENDS_MEANWHILE = """
import runpy, shutil, sys
from megatron.train import pretrain
before, earlier = pretrain.locks, sys.argv.pop()
def locks(config):
    shutil.copytree(earlier, config.checkpoint.save + "/iter_0000028")
    return before(config)
pretrain.locks = locks
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_run_that_ends_while_another_gets_ready_is_kept(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path
) -> None:
    """The folder was free when it was first looked at, and is not any more when its lock is taken."""
    words = without(training(prepared, tmp_path / "run", "--train-iters", "3"), "--load")
    line = [sys.executable, "-c", ENDS_MEANWHILE, *words, str(unbroken[1] / "iter_0000028")]
    refused = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "holds the checkpoint of step 28" in refused.stderr.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.glob("run/[!.]*")) == ["iter_0000028"]


def test_a_new_run_in_an_old_folder_sets_the_old_one_aside(prepared: Prepared, tmp_path: Path) -> None:
    words = without(training(prepared, tmp_path, "--train-iters", "5"), "--load")
    run_command(*words)
    before = {path.relative_to(tmp_path): content for path, content in files_of(tmp_path).items()}
    assert "are kept in" in run_command(*words, "--overwrite-run").stdout
    assert [record["iteration"] for record in records(tmp_path) if record["kind"] == "train"] == [
        1,
        2,
        3,
        4,
        5,
    ]
    (aside,) = tmp_path.glob("until-*")
    kept = {path.relative_to(aside): content for path, content in files_of(aside).items()}
    assert kept == {path: content for path, content in before.items() if not path.name.endswith(".lock")}
    evaluated = run_command("tools/evaluate.py", "--load", str(aside), "--splits", "valid").stdout
    assert "iter_0000005" in evaluated


def test_going_back_sets_later_checkpoints_aside(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken[1], folder)
    run_command(*training(prepared, folder, "--ckpt-step", "20", "--exit-interval", "22"))
    (aside,) = folder.glob("until-*")
    assert sorted(path.name for path in aside.iterdir()) == ["iter_0000024", "iter_0000028", "iter_0000030"]
    assert (folder / "latest_checkpointed_iteration.txt").read_text() == "22\n"
    (old,) = folder.glob("metrics.until-*")
    assert old.read_bytes() == (unbroken[1] / "metrics.jsonl").read_bytes()
    run_command(*training(prepared, folder))
    assert weights(folder) == weights(unbroken[1]) and records(folder) == records(unbroken[1])


def test_a_lost_pointer_means_the_newest_whole_checkpoint(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken[1], folder)
    (folder / "latest_checkpointed_iteration.txt").unlink()
    torn = folder / "iter_0000030" / "optimizer.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    output = run_command(*training(prepared, folder)).stdout
    assert "taking the newest whole checkpoint" in output and "(not whole: iter_0000030)" in output
    assert "going on after step 28" in output
    assert weights(folder) == weights(unbroken[1]) and records(folder) == records(unbroken[1])


def test_a_finished_run_loses_no_record(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken[1], folder)
    for more in ((), ("--eval-iters", "0")):
        run_command(*training(prepared, folder, *more))
        assert records(folder) == records(unbroken[1])


def test_loading_elsewhere_keeps_the_records_of_save(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path
) -> None:
    """Only records, as of a run that was killed before its first checkpoint."""
    shutil.copy(unbroken[1] / "metrics.jsonl", tmp_path)
    words = training(prepared, tmp_path, "--exit-interval", "29")
    words[words.index("--load") + 1] = str(unbroken[1] / "iter_0000028")
    run_command(*words)
    assert [record["iteration"] for record in records(tmp_path)] == [29]
    (old,) = tmp_path.glob("metrics.until-*")
    assert old.read_bytes() == (unbroken[1] / "metrics.jsonl").read_bytes()


def test_evaluation_alone_records_the_totals_of_its_checkpoint(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path
) -> None:
    words = training(prepared, tmp_path, "--skip-train", "--metrics-file", str(tmp_path / "metrics.jsonl"))
    words[words.index("--load") + 1] = str(unbroken[1])
    run_command(*words)
    assert records(tmp_path) == [record for record in records(unbroken[1]) if record["kind"] != "train"][-2:]


def test_two_runs_cannot_write_to_one_folder(prepared: Prepared, tmp_path: Path) -> None:
    words = training(prepared, tmp_path)
    with open(tmp_path / ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "another run is writing" in run_command(*words, status=2).stderr
    assert not list(tmp_path.glob("iter_*"))


def test_old_checkpoints_are_deleted_where_asked(prepared: Prepared, tmp_path: Path) -> None:
    run_command(*training(prepared, tmp_path, "--save-retain-interval", "8", "--train-iters", "20"))
    assert sorted(path.name for path in tmp_path.glob("iter_*")) == [
        "iter_0000008",
        "iter_0000016",
        "iter_0000020",
    ]


def test_finetuning_takes_the_weights_alone(
    prepared: Prepared, unbroken: dict[int, Path], tmp_path: Path
) -> None:
    words = training(prepared, tmp_path, "--finetune", "--train-iters", "3", "--lr-warmup-iters", "0")
    words[words.index("--load") + 1] = str(unbroken[1])
    run_command(*words)
    first, start = records(tmp_path)[0], records(unbroken[1])[0]
    assert first["iteration"] == 1
    assert first["lm_loss"] < start["lm_loss"] - 0.5


def test_what_a_checkpoint_holds(unbroken: dict[int, Path]) -> None:
    index = json.loads((unbroken[1] / f"iter_{STEPS:07d}" / "index.json").read_text())
    assert index["iteration"] == STEPS
    assert index["tensors"]["layers.2.mlp.up.weight"]["global_shape"] == [128, 32]
    assert index["tensors"]["optimizer.exp_avg_sq.layers.2.mlp.up.weight"]["parts"] == [
        ["optimizer.safetensors", [0, 0], [128, 32]]
    ]
    files = {path.name for path in (unbroken[1] / f"iter_{STEPS:07d}").iterdir()}
    assert files == {"index.json", "model.safetensors", "optimizer.safetensors"}
    files = {path.name for path in (unbroken[2] / f"iter_{STEPS:07d}").glob("model*")}
    assert files == {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


def test_a_checkpoint_older_than_a_flag_goes_on(
    unbroken: dict[int, Path], prepared: Prepared, tmp_path: Path
) -> None:
    """What it does not say stands for the flag's default, and it is of a GPT."""
    folder = tmp_path / "run"
    shutil.copytree(unbroken[1] / "iter_0000028", folder / "iter_0000028")
    (folder / "latest_checkpointed_iteration.txt").write_text("28\n")
    index = folder / "iter_0000028" / "index.json"
    content = json.loads(index.read_text())
    del content["task"], content["config"]["model"]["squared_relu"], content["config"]["training"]["bf16"]
    del content["config"]["optimizer"]["lr_warmup_init"], content["config"]["model"]["kv_channels"]
    index.write_text(sealed(content))
    run_command(*training(prepared, folder))
    assert weights(folder) == weights(unbroken[1])
    (refused,) = run_command(*training(prepared, folder, "--squared-relu"), status=2).stderr.splitlines()
    assert "--squared-relu was False and is True" in refused
