"""Loss scaling against megatron-core's own, and what it does to a step in float16."""

import math
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.batches.loader import BatchShare
from megatron.config.optimizer import idle_scale_notes
from megatron.optim.loss_scale import (
    LossScale,
    after_step,
    first_loss_scale,
    require_updates,
    resumed,
    skip_warning,
    skipped_line,
)
from megatron.train.setup import Run
from megatron.train.step import StepResult, train_step
from tests.support.configurations import STOP, make_config, problems_of
from tests.support.runs import make_run


@settings(deadline=None)  # for megatron-core's import
@given(
    overflows=st.lists(st.booleans(), max_size=60),
    window=st.integers(1, 5),
    hysteresis=st.integers(1, 4),
)
def test_the_factor_is_that_of_megatron_core(overflows: list[bool], window: int, hysteresis: int) -> None:
    grad_scaler = pytest.importorskip("megatron.core.optimizer.grad_scaler")
    made = torch.tensor
    with pytest.MonkeyPatch.context() as patch:  # its tensors lie on a GPU
        patch.setattr(torch, "tensor", lambda *values, device=None, **more: made(*values, **more))
        theirs = grad_scaler.DynamicGradScaler(2.0**20, 2.0**-60, 2.0, 0.5, window, hysteresis)
        flags = f"--fp16 --initial-loss-scale {2**20} --min-loss-scale {2.0**-60} "
        config = make_config(STOP + flags + f"--loss-scale-window {window} --hysteresis {hysteresis}")
        mine = first_loss_scale(config.optimizer, config.training)
        for overflow in overflows:
            theirs.update(made([float(overflow)]).bool())
            mine = after_step(mine, overflow, config.optimizer)
            assert mine.factor == float(theirs.scale)
    assert mine.skipped_steps == sum(overflows)


def test_a_constant_factor_stays_and_a_least_one_ends_the_run() -> None:
    flags = make_config(STOP + "--fp16 --loss-scale 128").optimizer
    state = after_step(LossScale(128.0), True, flags)
    assert state == LossScale(128.0, 0, 1, 1)
    flags = make_config(STOP + "--fp16 --initial-loss-scale 8 --min-loss-scale 4 --hysteresis 1").optimizer
    state = after_step(LossScale(8.0), True, flags)
    assert state.factor == 4
    with pytest.raises(UserError, match="overflow in float16 even with the least loss scale, 4"):
        after_step(state, True, flags)


def test_a_run_that_goes_on_takes_the_factor_of_its_flags() -> None:
    """A fixed one, or where it adapts itself the saved one, which is not below the least."""
    saved = {"factor": 64.0, "good_steps": 3, "overflows_left": 1, "skipped_steps": 5}
    for flags, factor in (("", 64), ("--loss-scale 1000", 1000), ("--min-loss-scale 256", 256)):
        state = resumed(saved, make_config(f"{STOP} --fp16 {flags}").optimizer)
        assert state == LossScale(factor, 3, 1, 5)


def test_a_factor_under_which_every_step_overflows_is_told() -> None:
    """After ten in a row, and then ever more seldom."""
    told = [number for number in range(1, 100) if skip_warning(number, number, 2.0**20)]
    assert told == [10, 20, 40, 80]
    line = skip_warning(500, 10, 2.0**20)
    assert line.startswith("warning: iteration 500: the gradients of the last 10 steps overflow under ")
    assert "--loss-scale 1.04858e+06, and nothing was updated; lower it" in line
    assert skipped_line(LossScale(), 40) == ""
    assert skipped_line(LossScale(skipped_steps=3), 40).startswith("note: 3 of 40 steps were skipped, ")


@pytest.mark.parametrize(
    ("iteration", "skipped", "in_a_row", "last", "ends"),
    [
        (9, 9, 9, False, False),
        (10, 10, 10, False, True),
        (3, 3, 3, True, True),
        (30, 29, 20, True, False),
        (200, 100, 99, False, False),
        (200, 100, 100, False, True),
    ],
)
def test_a_run_that_nothing_trains_ends(
    iteration: int, skipped: int, in_a_row: int, last: bool, ends: bool
) -> None:
    """Behind ten first steps, behind its last one, or behind a hundred in a row."""
    state = LossScale(2.0**20, skipped_steps=skipped)
    with pytest.raises(UserError, match="nothing is trained; lower it") if ends else nullcontext():
        require_updates(state, iteration, in_a_row, last)


def test_flags_of_scaling_that_do_nothing_are_told() -> None:
    def notes(flags: str) -> list[str]:
        config = make_config(STOP + flags)
        return idle_scale_notes(config.optimizer, config.training)

    assert notes("--fp16 --initial-loss-scale 256 --hysteresis 3") == notes("") == notes("--bf16") == []
    assert notes("--hysteresis 3 --loss-scale 2") == [
        "without effect, as --fp16 is not given: --loss-scale, --hysteresis"
    ]
    assert notes("--fp16 --loss-scale 2 --hysteresis 3") == [
        "without effect, as --loss-scale never changes: --hysteresis"
    ]


def test_what_is_wrong_is_told() -> None:
    assert problems_of(STOP + "--fp16 --bf16 --eval-iters 0") == [
        "--bf16 and --fp16 are given; a run has one precision, so leave one of them out"
    ]
    (problem,) = problems_of(STOP + "--fp16 --grad-reduce-in-bf16 --eval-iters 0")
    assert problem.startswith("--grad-reduce-in-bf16 needs --bf16; ")
    assert problems_of(STOP + "--fp16 --min-loss-scale 8 --initial-loss-scale 4 --eval-iters 0") == [
        "--min-loss-scale 8 must be at most --initial-loss-scale 4"
    ]


def step(run: Run, number: int) -> StepResult:
    planned = run.plan.at(number)
    return train_step(run, planned, run.rows.batch(run.sampler, planned, BatchShare(0, 1, 2)))


def weights(run: Run) -> list[torch.Tensor]:
    return [one.detach().clone() for one in run.model.parameters()]


STILL = "--hidden-dropout 0 --attention-dropout 0 --init-method-std 0.1 "


@pytest.mark.parametrize("precision", ["", "--bf16 "])
def test_the_factor_stays_1_in_other_precisions(precision: str) -> None:
    """Behind however many windows without an overflow; doubled a hundred times it would itself overflow."""
    run = make_run(STILL + precision + "--loss-scale-window 1")
    for number in (1, 2, 3):
        step(run, number)
    assert run.scaler.state == LossScale()


@pytest.mark.parametrize("scale", [1.0, 2.0**10])
def test_a_step_in_float16_is_that_in_single_precision_to_its_rounding(scale: float) -> None:
    """Loss and norm have a relative error of a few 2^-11, however the loss was scaled."""
    wanted = step(make_run(STILL), 1)
    found = step(make_run(STILL + f"--fp16 --loss-scale {scale}"), 1)
    assert found.losses["lm loss"] == pytest.approx(wanted.losses["lm loss"], rel=2**-10)
    assert found.grad_norm == pytest.approx(wanted.grad_norm, rel=2**-8)


def test_scaling_saves_gradients_that_float16_has_not() -> None:
    """With hidden states this small, gradients of the first layers are below float16's least number."""
    tiny = STILL + "--clip-grad 0 --init-method-std 0.002 "
    norms = {}
    for flags in ("", "--fp16 --loss-scale 1", f"--fp16 --loss-scale {2**14}"):
        run = make_run(tiny + flags)
        step(run, 1)
        norms[flags] = run.parameters["layers.1.attention.query.weight"].grad.norm()
    whole, plain, scaled = norms.values()
    assert abs(scaled - whole) < 0.02 * whole
    assert abs(plain - whole) > 0.2 * whole


def test_an_overflow_skips_the_step_and_counts_no_update() -> None:
    run = make_run(STILL + f"--fp16 --initial-loss-scale {2.0**40} --hysteresis 2 ")
    before, wanted = weights(run), step(make_run(STILL), 1)
    results = [step(run, 1), step(run, 1)]
    assert [one.skipped for one in results] == [True, True]
    assert not math.isfinite(results[0].grad_norm)
    assert results[0].losses["lm loss"] == pytest.approx(wanted.losses["lm loss"], rel=2**-10)
    assert all(torch.equal(one, other) for one, other in zip(weights(run), before))
    assert not run.optimizer.state
    assert run.scaler.state == LossScale(2.0**39, 0, 0, 2)
    run.scaler.state = run.scaler.state._replace(factor=64.0)
    assert not step(run, 2).skipped
    assert {float(state["step"]) for state in run.optimizer.state.values()} == {1.0}
    assert not all(torch.equal(one, other) for one, other in zip(weights(run), before))


def test_a_loss_that_overflows_ends_the_run() -> None:
    run = make_run(STILL + "--fp16 --loss-scale 4")
    run.model.final_norm.bias.data[3] = torch.inf
    with pytest.raises(UserError, match="iteration 1: the loss is nan"):
        step(run, 1)
