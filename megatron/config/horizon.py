"""Where the warm-up and the decay of the learning rate end, in which unit."""

from typing import NamedTuple

from megatron.config.config import OptimizerConfig, TrainingConfig

UNITS = ("tokens", "samples", "iters")


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
