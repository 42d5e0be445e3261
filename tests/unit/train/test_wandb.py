"""What reaches Weights & Biases, by the real package without a network: its own files are read back."""

import json
import os
import pty
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency_flags import describe
from megatron.train.log import Log
from megatron.train.records import Outcome, Start
from megatron.train.sinks import wandb_folder
from tests.support.configurations import make_config, make_plan

wandb = pytest.importorskip("wandb")
messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
BLOCK = 32768


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: after 7 bytes, blocks of pieces with checksum, length and kind (1: whole,
    4: last) before each."""
    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield messages.Record.FromString(parts)
            parts = b""


def history(folder: Path) -> list[dict[str, Any]]:
    """Everything that was logged, by step. A process of wandb writes the file, and its record of the run's
    exit is the last that matters."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    kinds: list[str] = []
    end = time.monotonic() + 30
    while "exit" not in kinds and time.monotonic() < end:
        found = list(wandb_records(path))
        kinds = [record.WhichOneof("record_type") for record in found]
        time.sleep(0.0 if "exit" in kinds else 0.1)
    assert "exit" in kinds, kinds
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for kind, record in zip(kinds, found)
        if kind == "history"
    ]


def make_log(folder: Path, kept_in: Path, done: int, more: str = "") -> Log:
    config = make_config(
        "--global-batch-size 4 --train-iters 9 --log-params-norm --log-interval 1 --wandb-project mine "
        f"--wandb-exp-name first --save {folder} --wandb-save-dir {kept_in} {more}"
    )
    efficiency, _ = describe(config)
    plan = make_plan(config, efficiency, 100)
    return Log(config, efficiency, plan, Mesh(), Start(done, plan.totals(done), kept=done, afresh=not done))


def attempt(log: Log) -> str:
    """Three steps and a validation; the run's id."""
    for iteration in range(log.start.iteration + 1, log.start.iteration + 4):
        log.train(iteration, Outcome({"lm loss": 5.0 / iteration}, 0.5, 0.1, 0.0, params_norm=9.0))
    log.validation(log.start.iteration + 3, {"": {"lm loss": 2.0}}, 7)
    log.close()
    return Path(log.config.checkpoint.save, "metrics.wandb-id").read_text().strip()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def test_scalars_by_iteration_in_one_run_however_often_it_is_taken_up(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    ids = [attempt(make_log(tmp_path, folder, start)) for folder, start in zip(folders, (0, 3, 0))]
    assert ids[0] == ids[1] != ids[2]
    for folder, identity, start in zip(folders, ids, (0, 3, 0)):
        (path,) = folder.glob("wandb/offline-run-*/*.wandb")
        assert path.name == f"run-{identity}.wandb"
        logged = history(folder)
        assert [(one["_step"], one["lm loss"]) for one in logged] == [
            (step, 5.0 / step) for step in range(start + 1, start + 4)
        ]
        assert logged[-1]["lm loss validation"] == 2.0
        names = (
            "learning-rate batch-size loss-scale world-size grad-norm params-norm iteration-time throughput"
        )
        assert not set(names.split()) - logged[0].keys()


def test_the_run_and_the_folder_of_the_environment_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a run is taken up that has another id; without them it goes on in the last one."""
    first = attempt(make_log(tmp_path, tmp_path / "save", 0))
    monkeypatch.setenv("WANDB_RUN_ID", "mine42")
    assert attempt(make_log(tmp_path, tmp_path / "save", 3)) == "mine42" != first
    assert len(list((tmp_path / "save").glob("wandb/offline-run-*-mine42"))) == 1
    monkeypatch.delenv("WANDB_RUN_ID")
    assert attempt(make_log(tmp_path, tmp_path / "save", 6)) == "mine42"
    monkeypatch.setenv("WANDB_DIR", "elsewhere")
    folders = [wandb_folder(make_config(f"--train-iters 9{more}")) for more in ("", " --wandb-save-dir here")]
    assert folders == ["elsewhere", "here"]


def test_a_run_that_the_environment_switches_off_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DISABLED", "true")
    monkeypatch.delenv("WANDB_MODE")
    attempt(make_log(tmp_path, tmp_path / "save", 0))
    assert not list(tmp_path.glob("save/wandb/*run-*"))


def test_a_run_that_wandb_refuses_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--wandb-project a/b: wandb does not start"):
        make_log(tmp_path, tmp_path, 0, "--wandb-project a/b")


def test_a_terminal_is_not_asked_for_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = os.fdopen(pty.openpty()[1])

    def init(**_: Any) -> None:
        raise wandb.errors.UsageError(f"No API key,\n asked {sys.stdin.isatty()}: {sys.stdin.read()!r}")

    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(UserError, match=r"wandb does not start \(No API key, asked False: ''\)"):
        make_log(tmp_path, tmp_path, 0)
    assert sys.stdin is terminal


def test_runs_with_one_metrics_file_are_runs_of_their_own(tmp_path: Path) -> None:
    shared = f"--metrics-file {tmp_path}/metrics.jsonl"
    tries = (("one", 0), ("other", 0), ("one", 3))
    ids = [attempt(make_log(tmp_path / name, tmp_path / name, start, shared)) for name, start in tries]
    assert ids[0] == ids[2] != ids[1]
