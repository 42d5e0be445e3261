"""When a run validates, saves and stops, and what it says of that."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.config.checkpoint import CheckpointConfig
from megatron.evaluation import losses
from megatron.parallel.mesh import Mesh
from megatron.train.log import Log
from megatron.train.loop import _how_to_go_on, _stopping, train
from megatron.train.records import Start
from megatron.train.resume import describe_run
from megatron.train.saving import Checkpoints
from tests.end_to_end.conftest import records
from tests.support.runs import make_run

STEPS = "--train-iters 10 --eval-iters 1 --log-interval 100 "


def events(folder: Path, flags: str, start: int = 0) -> tuple[list[str], int]:
    """What a run does in which order: t(rains), v(alidates) and s(aves) with the step; and its last step."""
    run = make_run(f"{STEPS} --save {folder} {flags}")
    log = Log(
        run.config, run.efficiency, run.plan, Mesh(), Start(start, run.plan.totals(start), start, False)
    )
    seen: list[str] = []

    class Noted(Checkpoints):
        def save(self, iteration: int) -> None:
            seen.append(f"s{iteration} after {len(records(folder))}")
            super().save(iteration)

    with Noted(run, describe_run(run), start) as checkpoints:
        last = train(run, start, log, checkpoints)
        assert checkpoints.saved == last
    log.close()
    done = [f"{one['kind'][0]}{one['iteration']}" for one in records(folder)]
    for event in reversed(seen):
        what, _, place = event.partition(" after ")
        done.insert(int(place), what)
    return done, last


def test_a_line_of_the_log_is_written_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that saves writes its own, and would else write it into another one."""
    written: list[str] = []
    monkeypatch.setattr(sys.stdout, "write", written.append)
    events(tmp_path, "--async-save --save-interval 2 --log-interval 1 --eval-interval 5")
    text = "".join(written)
    assert text.count("successfully saved") == 5 and text.count("lm loss") == 10 + 2 * 2
    assert [piece for piece in written if piece and not piece.endswith("\n")] == []


@pytest.mark.parametrize(
    ("flags", "start", "wanted"),
    [
        ("", 0, "t1 t2 t3 t4 t5 t6 t7 t8 t9 t10 s10"),
        ("--save-interval 4", 0, "t1 t2 t3 t4 s4 t5 t6 t7 t8 s8 t9 t10 s10"),
        ("--save-interval 5 --eval-interval 5", 3, "t4 t5 s5 v5 t6 t7 t8 t9 t10 s10 v10"),
        ("--eval-interval 3 --exit-interval 6", 0, "t1 t2 t3 v3 t4 t5 t6 s6 v6"),
        ("--exit-interval 4 --eval-interval 3 --save-interval 3", 1, "t2 t3 s3 v3 t4 s4"),
    ],
)
def test_events_come_in_their_order(tmp_path: Path, flags: str, start: int, wanted: str) -> None:
    """A run saves before it validates: whatever ends a validation costs no step."""
    found, last = events(tmp_path, flags, start)
    assert " ".join(found) == wanted
    assert last == int(wanted.replace("v", "s").split()[-1][1:])


def test_a_validation_that_was_cut_off_is_made_up_for(tmp_path: Path) -> None:
    """The records of a run that was killed while it validated behind the checkpoint of step 4."""
    flags = "--eval-interval 2 --save-interval 4"
    whole = events(tmp_path / "whole", flags)[0]
    events(tmp_path / "cut", flags)
    path = tmp_path / "cut" / "metrics.jsonl"
    every = path.read_text().splitlines(keepends=True)
    lines = [line for line in every if json.loads(line)["iteration"] <= 4]
    assert json.loads(lines[-1])["kind"] == "valid"
    path.write_text("".join(lines[:-1]))
    assert events(tmp_path / "cut", flags, start=4)[0] == [one for one in whole if one != "s4"]
    path.write_text("".join(lines))
    assert events(tmp_path / "cut", flags, start=4)[0].count("v4") == 1


def test_a_signal_cuts_a_validation_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that waits for half a minute would else kill it, and lose the steps since the last save."""
    flags = "--eval-interval 2 --save-interval 6 --eval-iters 3"
    whole = events(tmp_path / "whole", flags)[0]
    score, seen = losses.window_sums, []

    def signalled(*arguments: Any, **named: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:  # the validation behind step 4
            os.kill(os.getpid(), signal.SIGTERM)
        return score(*arguments, **named)

    monkeypatch.setattr(losses, "window_sums", signalled)
    assert events(tmp_path / "cut", flags) == (["t1", "t2", "v2", "t3", "t4", "s4"], 4)
    assert events(tmp_path / "cut", flags, start=4)[0] == [one for one in whole if one != "s4"]


def test_time_that_is_up_stops_after_one_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert events(tmp_path, "--exit-duration-in-mins 1e-9") == (["t1", "s1"], 1)
    said = f"the same command goes on with --load {tmp_path}, without --ckpt-step and --finetune\n"
    assert capsys.readouterr().out.endswith(f"stopped at iteration 1 of 10; {said}")
    events(tmp_path, "")
    assert "stopped at" not in capsys.readouterr().out


@pytest.mark.parametrize("steps", [10, 12, 3])
def test_a_run_of_nothing_but_skipped_steps_ends_with_a_mistake(tmp_path: Path, steps: int) -> None:
    """It would end like any other, with a checkpoint of what nothing has trained."""
    line = (
        f"iteration {min(steps, 10)}: the gradients of all .* overflow under --loss-scale 1e.30, and nothing"
    )
    with pytest.raises(UserError, match=line):
        events(tmp_path, f"--fp16 --loss-scale 1e30 --train-iters {steps}")
    assert not [*tmp_path.glob("iter_*")]


def test_what_to_do_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    same = {"save": "run", "load": str(tmp_path / "run")}
    assert _how_to_go_on(CheckpointConfig(), False) == "nothing was saved: give --save FOLDER next time"
    assert _how_to_go_on(CheckpointConfig(**same), True) == "the same command goes on"
    for more in ({"ckpt_step": 3}, {"finetune": True}, {"load": "other"}, {"load": None}):
        told = _how_to_go_on(CheckpointConfig(**(same | more)), True)
        assert told == "the same command goes on with --load run, without --ckpt-step and --finetune"


def test_what_a_signal_would_lose() -> None:
    saving = CheckpointConfig(save="run")
    assert _stopping(CheckpointConfig(), 6, 0).startswith("stopping after step 7; nothing is saved")
    assert _stopping(saving, 6, 0).endswith(
        "checkpoint of it; a second Ctrl-C stops at once and loses all steps so far"
    )
    assert _stopping(saving, 1006, 4).endswith("loses the 1,002 steps since the last")
    assert _stopping(saving, 6, 4, validating=True).startswith(
        "stopping after step 6, with a checkpoint of it"
    )
    assert _stopping(saving, 6, 6, validating=True) == "stopping after step 6, whose checkpoint is whole"
