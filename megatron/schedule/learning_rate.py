"""The learning rate as a pure function of what has been consumed: tokens, samples or steps (arXiv 2212.03597,
section 3.3).

The rate of a step is the schedule at what is consumed through the end of that step: a warm-up from 0 has
no step at rate 0, and a decay over the whole run ends at the minimum.
"""

import numpy as np

from megatron.config.optimizer import Horizon, OptimizerConfig, decay_horizon, warmup_horizon
from megatron.config.training import TrainingConfig


def learning_rates(
    optimizer: OptimizerConfig,
    training: TrainingConfig,
    consumed: dict[str, np.ndarray],
    reference_schedules: bool = False,
) -> np.ndarray:
    """Rates (float64) of the steps 1, 2, ...; `consumed` has the totals through the end of every step, by
    unit.

    `reference_schedules`: as in Megatron-DeepSpeed, where a rate set from tokens lags two steps behind and
    any other one step.
    """
    decay = decay_horizon(optimizer, training)
    warmup = warmup_horizon(optimizer, decay)
    if reference_schedules:
        consumed = {unit: _lag(values, 2 if unit == "tokens" else 1) for unit, values in consumed.items()}
    progress, position = consumed[warmup.unit], consumed[decay.unit]
    warm = np.clip(progress / warmup.amount, 0, 1) if warmup.amount else np.ones(len(progress))
    start = float(warmup.amount)
    if warmup.unit != decay.unit:
        done = np.flatnonzero(warm >= 1)
        start = float(position[done[0]]) if len(done) else float(position[-1])
    rising = optimizer.lr_warmup_init + (optimizer.lr - optimizer.lr_warmup_init) * warm
    return np.where(warm < 1, rising, _decayed(optimizer, decay, position, start))


def _decayed(optimizer: OptimizerConfig, decay: Horizon, position: np.ndarray, start: float) -> np.ndarray:
    """Rates after the warm-up, which ended at `start` on the decay's own scale."""
    if optimizer.lr_decay_style == "constant":
        return np.full(len(position), optimizer.lr)
    if optimizer.lr_decay_style == "inverse-square-root":
        rates = optimizer.lr * np.sqrt(max(start, 1)) / np.sqrt(np.maximum(position, max(start, 1)))
        return np.where(position > decay.amount, optimizer.min_lr, np.maximum(rates, optimizer.min_lr))
    share = np.clip((position - start) / max(decay.amount - start, 1), 0, 1)
    if optimizer.lr_decay_style == "WSD":
        last = getattr(optimizer, f"lr_wsd_decay_{decay.unit}") or 0
        tail = np.clip((position - (decay.amount - last)) / max(last, 1), 0, 1)
        factor = TAILS[optimizer.lr_wsd_decay_style](tail)
    else:
        factor = TAILS[optimizer.lr_decay_style](share)
    return optimizer.min_lr + factor * (optimizer.lr - optimizer.min_lr)


TAILS = {
    "linear": lambda share: 1 - share,
    "cosine": lambda share: 0.5 * (np.cos(np.pi * share) + 1),
    "exponential": lambda share: 2 * 0.5**share - 1,
    "minus_sqrt": lambda share: 1 - np.sqrt(share),
}


def _lag(values: np.ndarray, steps: int) -> np.ndarray:
    return np.concatenate([np.zeros(steps, values.dtype), values])[: len(values)]
