"""Loss scaling for float16, in which small gradients are 0: the loss is multiplied before the backward pass,
and the gradients are divided behind it (arXiv 1710.03740).

A step whose gradients overflow is skipped on all ranks. It counts as a step of the plan, not of AdamW.
"""

from dataclasses import dataclass
from typing import NamedTuple

from megatron.base.errors import UserError
from megatron.config.optimizer import OptimizerConfig
from megatron.config.training import TrainingConfig

MANY_IN_A_ROW = 10
"""Skipped steps behind which a run whose factor never changes is warned, or ends where it had no update."""
HOPELESS = 10 * MANY_IN_A_ROW
"""Skipped steps behind which it ends in any case: its weights stay, so others will hardly fare better."""


class LossScale(NamedTuple):
    """The state of loss scaling. `factor`: of the loss; `good_steps`: since it changed or overflowed;
    `overflows_left`: before it is halved; `skipped_steps`: of the whole run."""

    factor: float = 1.0
    good_steps: int = 0
    overflows_left: int = 1
    skipped_steps: int = 0


@dataclass
class LossScaler:
    """Holds the state of the step that comes next."""

    state: LossScale


def first_loss_scale(optimizer: OptimizerConfig, training: TrainingConfig) -> LossScale:
    """The state before the first step; the factor is 1 but in float16."""
    if not training.fp16:
        return LossScale()
    return LossScale(optimizer.loss_scale or optimizer.initial_loss_scale, 0, optimizer.hysteresis)


def resumed(saved: dict[str, float], optimizer: OptimizerConfig) -> LossScale:
    """The state that a checkpoint has, with the flags' factor where they fix it, and their least one."""
    state = LossScale(**saved)  # type: ignore[arg-type]
    return state._replace(factor=optimizer.loss_scale or max(state.factor, optimizer.min_loss_scale))


def after_step(state: LossScale, overflow: bool, optimizer: OptimizerConfig) -> LossScale:
    """The state behind a step, by the rule of Megatron-LM's DynamicGradScaler: an overflow halves the factor
    once `hysteresis` of them have come, and a window without any doubles it and renews that patience.
    UserError where an overflow cannot be helped by a smaller factor."""
    factor, good, left, skipped = state
    skipped += overflow
    if optimizer.loss_scale:
        return LossScale(factor, good, left, skipped)
    if overflow:
        least, left = optimizer.min_loss_scale, max(left - 1, 0)
        if left == 0 and factor <= least:
            raise UserError(
                f"the gradients overflow in float16 even with the least loss scale, {factor:g}; lower --lr, "
                "lengthen the warm-up, lower --min-loss-scale, or compute with --bf16 or in fp32"
            )
        return LossScale(max(factor / 2, least) if left == 0 else factor, 0, left, skipped)
    if good + 1 < optimizer.loss_scale_window:
        return LossScale(factor, good + 1, left, skipped)
    return LossScale(factor * 2, 0, optimizer.hysteresis, skipped)


def skip_warning(iteration: int, in_a_row: int, factor: float) -> str:
    """What a run is told whose factor never changes, behind so many skipped steps: once, and again whenever
    there are twice as many; else nothing."""
    times, rest = divmod(in_a_row, MANY_IN_A_ROW)
    if rest or times.bit_count() != 1:
        return ""
    return (
        f"warning: iteration {iteration}: the gradients of the last {in_a_row} steps overflow under "
        f"--loss-scale {factor:g}, and nothing was updated; lower it, or leave it out for one that adapts "
        "itself"
    )


def require_updates(state: LossScale, iteration: int, in_a_row: int, last: bool) -> None:
    """UserError where a run whose factor never changes is trained by none of its steps: by none of the first
    ones, of all to the `last`, or of many in a row."""
    never = state.skipped_steps >= iteration
    if in_a_row < (MANY_IN_A_ROW if never else HOPELESS) and not (never and last):
        return
    raise UserError(
        f"iteration {iteration}: the gradients of {'all' if never else 'the last'} {in_a_row} steps overflow "
        f"under --loss-scale {state.factor:g}, and nothing is trained; lower it, leave it out for one that "
        "adapts itself, or compute with --bf16 or in fp32"
    )


def skipped_line(state: LossScale, steps: int) -> str:
    """How many of a run's steps were skipped so far; nothing where none was."""
    if not state.skipped_steps:
        return ""
    return (
        f"note: {state.skipped_steps} of {steps} steps were skipped, as their gradients overflowed in float16"
    )
