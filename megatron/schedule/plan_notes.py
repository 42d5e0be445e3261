"""What a plan shows that its flags leave open: which limit ends the run, what it does not reach, a
warm-up that the decay cuts off, a decay that is shorter or longer than the run, and what experts take for
granted."""

import numpy as np

from megatron.base.errors import UserError
from megatron.config.config import Config
from megatron.config.experts import expert_notes
from megatron.config.optimizer import decay_horizon, warmup_horizon
from megatron.config.training import UNITS
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Plan
from megatron.schedule.plan_summary import largest


def plan_notes(config: Config, efficiency: DataEfficiency, plan: Plan) -> list[str]:
    """Lines about a plan for the user. UserError where the rate never reaches its peak."""
    if problems := _cut_off(config, plan):
        raise UserError(*problems)
    still_warming_up = _still_warming_up(config, plan)
    rate = still_warming_up or _decay_of_its_own(config, plan)
    return [
        *_limits(config, plan),
        *_short_of_the_end(efficiency, plan),
        *_without_effect(config.data.seq_length, efficiency, plan),
        *rate,
        *expert_notes(config.experts),
    ]


def _limits(config: Config, plan: Plan) -> list[str]:
    """Which of several limits ends the run."""
    given = {unit: limit for unit in UNITS if (limit := getattr(config.training, f"train_{unit}"))}
    if len(given) < 2:
        return []
    reached = {unit: plan.consumed[unit][-1] >= limit for unit, limit in given.items()}
    first, others = (
        " and ".join(f"--train-{unit} {given[unit]}" for unit in given if reached[unit] == whether)
        for whether in (True, False)
    )
    more = f"; not reached: {others}" if others else ", at the same step"
    return [f"the run ends at step {plan.steps} by {first}{more}"]


def _short_of_the_end(efficiency: DataEfficiency, plan: Plan) -> list[str]:
    """What grows for longer than the run. No more tokens are kept than a sequence has at its longest."""
    grows = [
        (f"curriculum {one.name}", largest(one.pacing), plan.caps[one.name]) for one in efficiency.metrics
    ]
    if efficiency.length:
        name = f"curriculum {efficiency.length_metric}"
        grows.append((name, largest(efficiency.length), plan.sequence_length))
    if efficiency.random_ltd:
        most = largest(efficiency.random_ltd.pacing)
        if efficiency.length:
            most = min(most, largest(efficiency.length))
        grows.append(("random-LTD", most, plan.kept_length))
    return [
        f"{name} ends at {values[-1]} of {most}: the run is over after {plan.steps} steps"
        for name, most, values in grows
        if values[-1] < most
    ]


def _without_effect(seq_length: int, efficiency: DataEfficiency, plan: Plan) -> list[str]:
    """What is asked for and begins at its end, so that the run is the one without it."""
    found = [
        f"curriculum {one.name} admits all samples from step 1 on; lower its minimum, or leave it out"
        for one in efficiency.metrics
        if one.difficulty == "percentile" and plan.caps[one.name][0] >= 100
    ]
    if efficiency.length and plan.sequence_length[0] == seq_length:
        found.append(
            f"curriculum {efficiency.length_metric} has all {seq_length} tokens from step 1 on; lower its "
            "minimum, or leave it out"
        )
    if efficiency.random_ltd and (plan.kept_length == plan.sequence_length).all():
        found.append(
            f"random-LTD drops nothing: {plan.kept_length[0]} of {plan.sequence_length[0]} tokens are kept "
            "at step 1, and all at every step; lower its minimum, --random-ltd-min, or its quantum"
        )
    return found


def _cut_off(config: Config, plan: Plan) -> list[str]:
    """That the decay ends before the warm-up does, whose units may differ; of WSD, that its last part
    begins. A decay with a flag of its own may be longer than the run, and then the warm-up, too."""
    flags = config.optimizer
    decay = decay_horizon(flags, config.training)
    unit, amount = warmup_horizon(flags, decay)
    last = (getattr(flags, f"lr_wsd_decay_{decay.unit}") or 0) if flags.lr_decay_style == "WSD" else 0
    ended = np.flatnonzero(plan.consumed[decay.unit] >= decay.amount - last)
    if not len(ended) and any(getattr(flags, f"lr_decay_{one}") for one in UNITS):
        return []
    end = int(ended[0]) if len(ended) else plan.steps - 1
    done = plan.consumed[unit][end]
    if done >= amount:
        return []
    flag = f"--lr-warmup-{unit}" if flags.lr_warmup_fraction is None else "--lr-warmup-fraction:"
    event = "whose last part begins" if last else "which ends"
    return [
        f"{flag} {amount:.15g} reaches into the decay, {event} at step {end + 1}, after {done} {unit}; the "
        f"rate would stay below --lr {flags.lr}; shorten the warm-up, or lengthen the run or the decay"
    ]


def _still_warming_up(config: Config, plan: Plan) -> list[str]:
    """That the run ends inside its warm-up, of a decay that goes on after it."""
    unit, amount = warmup_horizon(config.optimizer, decay_horizon(config.optimizer, config.training))
    if plan.consumed[unit][-1] >= amount:
        return []
    rate = f"the rate rises to {plan.learning_rate.max():.4g} of {config.optimizer.lr}"
    return [f"the run ends inside its warm-up of {amount:.15g} {unit}: {rate}"]


def _decay_of_its_own(config: Config, plan: Plan) -> list[str]:
    """That the rate has fallen before the run ends, or has not when it does."""
    flags = config.optimizer
    if flags.lr_decay_style == "constant":
        return []
    decay = decay_horizon(flags, config.training)
    ended = np.flatnonzero(plan.consumed[decay.unit] >= decay.amount)
    words = f"decay of {decay.amount:.15g} {decay.unit}"
    if not len(ended):
        rate = plan.learning_rate[-1]
        return [f"the run ends before its {words}: the rate ends at {rate:.4g}, --min-lr is {flags.min_lr:g}"]
    step = int(ended[0]) + 1
    if step == plan.steps:
        return []
    return [f"the {words} ends at step {step} of {plan.steps}: the rate is {flags.min_lr:g} from there on"]
