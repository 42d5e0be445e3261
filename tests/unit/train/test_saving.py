"""A run that is saved and resumed in one process: the same bits, the right start, and nothing else taken."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from megatron.base.errors import UserError
from megatron.batches.loader import BatchShare
from megatron.train.records import Start
from megatron.train.resume import describe_run, keep_earlier, require_same_run, resume, save_run
from megatron.train.setup import Run
from megatron.train.step import StepResult, train_step
from tests.support.runs import make_run

LATEST = "latest_checkpointed_iteration.txt"
SHORT = "--lr-warmup-iters 2 --weight-decay 0.1 "


def train(run: Run, first: int, last: int) -> list[StepResult]:
    found = []
    for number in range(first, last + 1):
        step = run.plan.at(number)
        found.append(train_step(run, step, run.rows.batch(run.sampler, step, BatchShare(0, 1, 2))))
    return found


def resumed(flags: str) -> tuple[Run, Start]:
    run = make_run(SHORT + flags)
    require_same_run(run, describe_run(run))
    return run, resume(run)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[StepResult], Run]:
    """A whole run of five steps with checkpoints of steps 2 and 4; its results, and itself."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    run = make_run(f"{SHORT} --save {folder}")
    results = train(run, 1, 2)
    save_run(run, describe_run(run), 2)
    results += train(run, 3, 4)
    save_run(run, describe_run(run), 4)
    return folder, [*results, *train(run, 5, 5)], run


@pytest.mark.parametrize("step", [2, 4])
def test_a_resumed_run_computes_the_same_bits(saved: tuple[Path, list[StepResult], Run], step: int) -> None:
    folder, results, whole = saved
    chosen = f" --ckpt-step {step}" if step == 2 else ""
    run, start = resumed(f"--save {folder} --load {folder}{chosen}")
    assert start == Start(step, run.plan.totals(step), step, afresh=step == 2)
    assert train(run, step + 1, 5) == results[step:]
    for (name, one), other in zip(run.model.named_parameters(), whole.model.parameters()):
        assert torch.equal(one, other), name


def test_what_is_kept_of_the_records_follows_from_where_it_loads(
    saved: tuple[Path, list[StepResult], Run], tmp_path: Path
) -> None:
    """Records past the step are cut off; those of another run, or of steps gone back on, are set aside."""
    folder, _, _ = saved
    assert resumed(f"--load {folder}")[1][2:] == (0, True)
    assert resumed(f"--load {folder} --save {tmp_path}")[1][2:] == (0, True)
    assert resumed(f"--load {folder}/iter_0000004 --save {folder}")[1][2:] == (4, True)
    assert resumed(f"--load {folder} --save {folder}")[1][2:] == (4, False)


def test_a_start_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, start = resumed("")
    assert start == Start(0, run.plan.totals(0), 0, True) and capsys.readouterr().out == ""
    assert resumed(f"--load {tmp_path} --save {tmp_path}")[1] == start
    warning = f"note: --load {tmp_path} holds no checkpoint yet; starting from scratch\n"
    assert capsys.readouterr().out == warning


@pytest.mark.parametrize("flag", ["--finetune", "--skip-train"])
def test_weights_alone_are_taken_whatever_the_schedule(
    saved: tuple[Path, list[StepResult], Run], flag: str
) -> None:
    folder, _, _ = saved
    run, start = resumed(f"--load {folder} {flag} --lr 3e-4 --seed 99 --train-iters 3")
    weights = load_file(folder / "iter_0000004" / "model.safetensors")
    assert all(torch.equal(one, weights[name]) for name, one in run.model.named_parameters())
    assert not run.optimizer.state
    totals = make_run(SHORT).plan.totals(4)
    wanted = Start(0, run.plan.totals(0)) if flag == "--finetune" else Start(4, totals)
    assert start == wanted


def test_another_run_is_refused_and_its_weights_not_taken(saved: tuple[Path, list[StepResult], Run]) -> None:
    folder, _, _ = saved
    run = make_run(f"{SHORT} --load {folder} --seed 99")
    before = [one.clone() for one in run.model.parameters()]
    with pytest.raises(UserError, match="--seed was 1234 and is 99"):
        require_same_run(run, describe_run(run))
    assert all(torch.equal(one, other) for one, other in zip(run.model.parameters(), before))


def test_moments_lie_where_their_weights_lie(saved: tuple[Path, list[StepResult], Run]) -> None:
    folder, _, run = saved
    found = load_file(folder / "iter_0000004" / "optimizer.safetensors")
    names = [name for name, _ in run.model.named_parameters()]
    assert found.keys() == {
        f"optimizer.{slot}.{name}" for slot in ("exp_avg", "exp_avg_sq") for name in names
    }
    assert (folder / LATEST).read_text() == "4\n"


def test_checkpoints_that_a_run_goes_back_on_are_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(f"{SHORT} --save {tmp_path} --load {tmp_path} --save-interval 1 --save-retain-interval 2")
    manifest = describe_run(run)
    for number in range(1, 5):
        train(run, number, number)
        save_run(run, manifest, number)
    assert sorted(path.name for path in tmp_path.glob("iter_*")) == ["iter_0000002", "iter_0000004"]
    line = f"  successfully saved checkpoint from iteration       4 to {tmp_path}\n"
    assert capsys.readouterr().out.endswith(line)
    keep_earlier(run, Start(4, {}))
    assert capsys.readouterr().out == ""
    keep_earlier(run, Start(2, {}))
    (aside,) = tmp_path.glob("until-*")
    assert [path.name for path in aside.iterdir()] == ["iter_0000004"]
    assert capsys.readouterr().out.endswith(f"in this place are kept in {aside}\n")
