"""The flags of the optimizer and the learning rate, where its warm-up and decay end, and the rules between
them."""

import functools
from dataclasses import dataclass, fields
from typing import NamedTuple

from megatron.config.flags import flag
from megatron.config.training import UNITS, TrainingConfig

schedule_flag = functools.partial(flag, resume="schedule")
scale_flag = functools.partial(flag, at_most=1e30, resume="schedule")
SCALING = ("loss_scale", "initial_loss_scale", "min_loss_scale", "loss_scale_window", "hysteresis")


@dataclass(frozen=True)
class OptimizerConfig:
    lr: float = schedule_flag(help="peak learning rate", above=0)
    min_lr: float = schedule_flag(0.0, "learning rate at the end of the decay", at_least=0)
    lr_decay_style: str = schedule_flag(
        "linear", "shape of the decay", choices=("constant", "linear", "cosine", "inverse-square-root", "WSD")
    )
    lr_decay_iters: int | None = schedule_flag(
        None, "decay over so many steps; else over the run, in the unit of its stop", at_least=1
    )
    lr_decay_samples: int | None = schedule_flag(None, "decay over so many samples", at_least=1)
    lr_decay_tokens: int | None = schedule_flag(None, "decay over so many effective tokens", at_least=1)
    lr_warmup_iters: int = schedule_flag(0, "linear warm-up over so many steps", at_least=0)
    lr_warmup_samples: int = schedule_flag(0, "linear warm-up over so many samples", at_least=0)
    lr_warmup_tokens: int = schedule_flag(0, "linear warm-up over so many effective tokens", at_least=0)
    lr_warmup_fraction: float | None = schedule_flag(
        None, "linear warm-up over this share of the decay", at_least=0, below=1
    )
    lr_warmup_init: float = schedule_flag(0.0, "learning rate where the warm-up starts", at_least=0)
    lr_wsd_decay_style: str = schedule_flag(
        "exponential", "shape of WSD's last part", choices=("exponential", "linear", "cosine", "minus_sqrt")
    )
    lr_wsd_decay_iters: int | None = schedule_flag(None, "steps of WSD's last part", at_least=0)
    lr_wsd_decay_samples: int | None = schedule_flag(None, "samples of WSD's last part", at_least=0)
    lr_wsd_decay_tokens: int | None = schedule_flag(None, "effective tokens of WSD's last part", at_least=0)
    optimizer: str = schedule_flag(
        "adam",
        "adam is AdamW",
        choices=("adam",),
        otherwise="it is AdamW, and there is no other optimizer here",
    )
    weight_decay: float = schedule_flag(0.01, "decay of matrices; biases and norms have none", at_least=0)
    clip_grad: float = schedule_flag(
        1.0, "largest norm of the gradient; 0 is off", at_least=0, otherwise="0 is off"
    )
    adam_beta1: float = schedule_flag(0.9, "decay of the mean of gradients", at_least=0, below=1)
    adam_beta2: float = schedule_flag(0.999, "decay of the mean of squared gradients", at_least=0, below=1)
    adam_eps: float = schedule_flag(1e-8, "added to the root of the mean square", above=0)
    loss_scale: float = scale_flag(
        0.0,
        "with --fp16: factor of the loss in the backward pass; 0: one that adapts itself",
        at_least=0,
        otherwise="leave it out for a factor that adapts itself",
    )
    initial_loss_scale: float = flag(2.0**32, "factor to begin with", above=0, at_most=1e30, resume="free")
    min_loss_scale: float = scale_flag(1.0, "least factor", above=0)
    loss_scale_window: int = schedule_flag(
        1000, "steps without an overflow behind which the factor doubles", at_least=1
    )
    hysteresis: int = schedule_flag(2, "at which overflow after that it is halved", at_least=1)


class Horizon(NamedTuple):
    """An amount of a unit: tokens, samples or iters."""

    unit: str
    amount: float


def decay_horizon(optimizer: OptimizerConfig, training: TrainingConfig) -> Horizon:
    """Where the decay ends: its own flag, else the stop of the run."""
    for unit in UNITS:
        if amount := getattr(optimizer, f"lr_decay_{unit}"):
            return Horizon(unit, amount)
    for unit in UNITS:
        if amount := getattr(training, f"train_{unit}"):
            return Horizon(unit, amount)
    return Horizon("iters", 1)


def warmup_horizon(optimizer: OptimizerConfig, decay: Horizon) -> Horizon:
    """Where the warm-up ends."""
    if optimizer.lr_warmup_fraction is not None:
        return Horizon(decay.unit, decay.amount * optimizer.lr_warmup_fraction)
    for unit in UNITS:
        if amount := getattr(optimizer, f"lr_warmup_{unit}"):
            return Horizon(unit, amount)
    return Horizon(decay.unit, 0)


def _lowest_rate(optimizer: OptimizerConfig) -> list[str]:
    if optimizer.min_lr > optimizer.lr:
        return [f"--min-lr {optimizer.min_lr} must be between 0 and --lr {optimizer.lr}"]
    return []


def _first_rate(optimizer: OptimizerConfig) -> list[str]:
    if optimizer.lr_warmup_init > optimizer.lr:
        return [f"--lr-warmup-init {optimizer.lr_warmup_init} must be between 0 and --lr {optimizer.lr}"]
    return []


def _one_decay(optimizer: OptimizerConfig) -> list[str]:
    given = [f"--lr-decay-{unit}" for unit in UNITS if getattr(optimizer, f"lr_decay_{unit}") is not None]
    return (
        [f"{' and '.join(given)} are given; the decay has one unit, so give only one"]
        if len(given) > 1
        else []
    )


def _one_warmup(optimizer: OptimizerConfig) -> list[str]:
    given = [f"--lr-warmup-{unit}" for unit in UNITS if getattr(optimizer, f"lr_warmup_{unit}")]
    if optimizer.lr_warmup_fraction is not None:
        given.append("--lr-warmup-fraction")
    return (
        [f"{' and '.join(given)} are given; the warm-up has one unit, so give only one"]
        if len(given) > 1
        else []
    )


def _warmup_before_the_end(optimizer: OptimizerConfig, training: TrainingConfig) -> list[str]:
    found = []
    for unit in UNITS:
        decay, warmup = getattr(optimizer, f"lr_decay_{unit}"), getattr(optimizer, f"lr_warmup_{unit}")
        end = decay if decay is not None else getattr(training, f"train_{unit}")
        if end is not None and warmup > end:
            found.append(f"--lr-warmup-{unit} {warmup} must lie within the decay of {end} {unit}; shorten it")
    return found


def _last_part(optimizer: OptimizerConfig, training: TrainingConfig) -> list[str]:
    unit, whole = decay_horizon(optimizer, training)
    last = getattr(optimizer, f"lr_wsd_decay_{unit}")
    given = [one for one in UNITS if getattr(optimizer, f"lr_wsd_decay_{one}") == 0]
    if optimizer.lr_decay_style == "WSD" and given and not last:
        return [
            f"--lr-wsd-decay-{given[0]} 0 must be at least 1; for a rate that stays at its peak, give "
            "--lr-decay-style constant"
        ]
    if optimizer.lr_decay_style == "WSD" and not last:
        return [
            f"--lr-decay-style WSD decays over {unit} here and needs --lr-wsd-decay-{unit}; "
            "for another unit give --lr-decay-tokens, -samples or -iters and --lr-wsd-decay-tokens, "
            "-samples or -iters alike"
        ]
    if optimizer.lr_decay_style == "WSD" and last > whole:
        return [f"--lr-wsd-decay-{unit} {last} is longer than the decay of {whole} {unit}; shorten it"]
    asked = any(getattr(optimizer, f"lr_wsd_decay_{one}") for one in UNITS)
    if optimizer.lr_decay_style != "WSD" and (asked or optimizer.lr_wsd_decay_style != "exponential"):
        return [
            f"--lr-wsd-decay-* do nothing with --lr-decay-style {optimizer.lr_decay_style}; give "
            "--lr-decay-style WSD, or leave them out"
        ]
    return []


def _start_of_the_fall(optimizer: OptimizerConfig, training: TrainingConfig) -> list[str]:
    warmup = warmup_horizon(optimizer, decay_horizon(optimizer, training))
    if optimizer.lr_decay_style == "inverse-square-root" and not warmup.amount:
        return [
            "--lr-decay-style inverse-square-root falls from the end of the warm-up; give "
            "--lr-warmup-tokens, -samples or -iters"
        ]
    return []


def _least_loss_scale(optimizer: OptimizerConfig) -> list[str]:
    least, first = optimizer.min_loss_scale, optimizer.initial_loss_scale
    if least > first:
        return [f"--min-loss-scale {least:g} must be at most --initial-loss-scale {first:g}"]
    return []


def idle_scale_notes(optimizer: OptimizerConfig, training: TrainingConfig) -> list[str]:
    """Notes about flags of loss scaling that do nothing."""
    defaults = {one.name: one.default for one in fields(optimizer)}
    given = [f"--{name.replace('_', '-')}" for name in SCALING if getattr(optimizer, name) != defaults[name]]
    if training.fp16 and optimizer.loss_scale:
        idle = [name for name in given if name != "--loss-scale"]
        return [f"without effect, as --loss-scale never changes: {', '.join(idle)}"] if idle else []
    return (
        [f"without effect, as --fp16 is not given: {', '.join(given)}"] if given and not training.fp16 else []
    )


RULES = (
    _least_loss_scale,
    _lowest_rate,
    _first_rate,
    _one_decay,
    _one_warmup,
    _warmup_before_the_end,
    _last_part,
    _start_of_the_fall,
)
