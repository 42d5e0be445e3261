import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.config.optimizer import Horizon, OptimizerConfig, decay_horizon, warmup_horizon
from megatron.config.training import TrainingConfig
from megatron.schedule.learning_rate import learning_rates

STYLES = ["linear", "cosine", "inverse-square-root", "WSD"]


def training(**limits: int) -> TrainingConfig:
    return TrainingConfig(micro_batch_size=1, **limits)


def counted(steps: int, tokens_a_step: int = 250, samples_a_step: int = 2) -> dict[str, np.ndarray]:
    """What is consumed through the end of the steps 1, 2, ..., by unit."""
    iters = np.arange(1, steps + 1)
    return {"iters": iters, "samples": iters * samples_a_step, "tokens": iters * tokens_a_step}


def rates(
    steps: int, reference_schedules: bool = False, limits: dict[str, int] | None = None, **optimizer
) -> list[float]:
    options = OptimizerConfig(**{"lr": 1.0, **optimizer})
    return learning_rates(
        options, training(**(limits or {"train_iters": steps})), counted(steps), reference_schedules
    ).tolist()


def plain_rate(
    position: float,
    warmup: float,
    decay: float,
    style: str,
    tail: float = 0,
    tail_style: str = "",
    low: float = 0.0,
) -> float:
    """Megatron's schedule with a peak of 1, for one unit, in plain Python."""
    if warmup and position <= warmup:
        return position / warmup
    if style == "constant":
        return 1.0
    if position > decay:
        return low
    if style == "inverse-square-root":
        return max(low, math.sqrt(max(warmup, 1)) / math.sqrt(max(position, 1)))
    share, kind = (position - warmup) / (decay - warmup), style
    if style == "WSD":
        share, kind = max(0, position - (decay - tail)) / tail, tail_style
    factor = {
        "linear": 1 - share,
        "cosine": 0.5 * (math.cos(math.pi * share) + 1),
        "exponential": 2 * 0.5**share - 1,
        "minus_sqrt": 1 - math.sqrt(share),
    }[kind]
    return low + factor * (1 - low)


def test_the_rate_is_that_of_what_is_consumed_through_the_step() -> None:
    assert rates(6, lr_decay_style="constant", lr_warmup_tokens=1000) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_published_rates_lag_two_steps_behind_tokens_and_one_behind_the_rest() -> None:
    assert rates(6, True, lr_decay_style="constant", lr_warmup_tokens=1000) == [0, 0, 0.25, 0.5, 0.75, 1]
    assert rates(6, True, lr_decay_style="constant", lr_warmup_iters=4) == [0, 0.25, 0.5, 0.75, 1, 1]
    assert rates(6, True, lr_decay_style="constant", lr_warmup_samples=8) == [0, 0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize("warmup", [0, 1000])
@pytest.mark.parametrize("low", [0.0, 0.1])
@pytest.mark.parametrize(
    "style, tail",
    [(style, "") for style in ["constant", *STYLES[:3]]]
    + [("WSD", tail) for tail in ("linear", "cosine", "exponential", "minus_sqrt")],
)
def test_every_style_is_megatrons_formula(style: str, tail: str, low: float, warmup: int) -> None:
    """Equal to rounding: a few operations of relative error 2^-53 each, on values of at most 1."""
    steps = 40 if style == "inverse-square-root" else 60  # its end has a test of its own
    extra = {"lr_wsd_decay_style": tail, "lr_wsd_decay_tokens": 3000} if tail else {}
    mine = rates(
        steps, lr_decay_style=style, lr_decay_tokens=10_000, lr_warmup_tokens=warmup, min_lr=low, **extra
    )
    assert mine == pytest.approx(
        [plain_rate(250 * step, warmup, 10_000, style, 3000, tail, low) for step in range(1, steps + 1)],
        abs=1e-14,
    )


@pytest.mark.parametrize("style", STYLES)
def test_beyond_the_decay_the_rate_is_the_minimum(style: str) -> None:
    mine = rates(
        30, lr_decay_style=style, lr_decay_iters=20, lr_warmup_iters=4, min_lr=0.1, lr_wsd_decay_iters=5
    )
    assert mine[20:] == pytest.approx([0.1] * 10, abs=1e-15)


def test_the_last_step_runs_at_the_minimum_and_no_step_at_zero() -> None:
    for style in ("linear", "cosine", "WSD"):
        for limits in ({"train_iters": 40}, {"train_samples": 80}, {"train_tokens": 10_000}):
            unit = next(iter(limits)).removeprefix("train_")
            mine = rates(
                40,
                limits=limits,
                lr_decay_style=style,
                min_lr=0.01,
                lr_warmup_iters=4,
                **{f"lr_wsd_decay_{unit}": 5},
            )
            assert min(mine) > 0 and mine[3] == max(mine) == 1
            assert mine[-1] == pytest.approx(0.01, abs=1e-15) and mine[-2] > 0.01


def test_a_warmup_in_steps_hands_over_to_a_decay_in_tokens_at_the_tokens_consumed_by_then() -> None:
    """Under a curriculum the first steps have few tokens: 4 warm-up steps of 50, then 250 a step."""
    tokens = np.cumsum([50] * 4 + [250] * 20)
    consumed = {"iters": np.arange(1, 25), "samples": np.arange(1, 25), "tokens": tokens}
    options = OptimizerConfig(lr=1.0, lr_warmup_iters=4, lr_decay_tokens=5200)
    mine = learning_rates(options, training(train_tokens=5200), consumed)
    assert mine[:4].tolist() == [0.25, 0.5, 0.75, 1]
    assert mine[4:].tolist() == pytest.approx([1 - (total - 200) / 5000 for total in tokens[4:]], abs=1e-15)


def test_published_handover_uses_the_lagging_tokens() -> None:
    """The 6th step is the first whose lagging step count is 5, the end of the warm-up; by then 4 steps of
    tokens are counted."""
    mine = rates(14, True, lr_warmup_iters=5, lr_decay_tokens=3000)
    assert mine[:6] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert mine[6:] == pytest.approx(
        [1 - (250 * (step - 2) - 1000) / 2000 for step in range(7, 15)], abs=1e-15
    )


def test_a_warmup_longer_than_the_run_only_rises() -> None:
    assert rates(4, lr_warmup_iters=8, lr_decay_tokens=10**6) == [0.125, 0.25, 0.375, 0.5]


def test_the_warmup_may_start_above_zero() -> None:
    assert rates(5, lr_decay_style="constant", lr_warmup_iters=4, lr_warmup_init=0.2) == pytest.approx(
        [0.4, 0.6, 0.8, 1, 1], abs=1e-15
    )


def test_horizons() -> None:
    peak = OptimizerConfig(lr=1.0)
    assert decay_horizon(peak, training(train_iters=7)) == Horizon("iters", 7)
    assert decay_horizon(peak, training(train_iters=7, train_samples=5)) == Horizon("samples", 5)
    assert decay_horizon(peak, training(train_iters=7, train_samples=5, train_tokens=3)) == Horizon(
        "tokens", 3
    )
    assert decay_horizon(OptimizerConfig(lr=1.0, lr_decay_iters=9), training(train_tokens=3)) == Horizon(
        "iters", 9
    )
    decay = Horizon("tokens", 1000)
    assert warmup_horizon(peak, decay).amount == 0
    assert warmup_horizon(OptimizerConfig(lr=1.0, lr_warmup_fraction=0.25), decay) == Horizon("tokens", 250)
    assert warmup_horizon(OptimizerConfig(lr=1.0, lr_warmup_samples=5), decay) == Horizon("samples", 5)


def test_the_rate_follows_tokens_and_not_steps() -> None:
    """Twice the steps with half the tokens each: the rate at equal tokens is the same."""
    options = OptimizerConfig(
        lr=1.0, min_lr=0.1, lr_decay_style="cosine", lr_warmup_tokens=1000, lr_decay_tokens=10_000
    )
    long, short = (
        learning_rates(options, training(train_tokens=10_000), counted(10_000 // size, size))
        for size in (250, 125)
    )
    assert np.array_equal(short[1::2], long)


@given(
    st.sampled_from(STYLES),
    st.sampled_from(["iters", "samples", "tokens"]),
    st.sampled_from(["iters", "samples", "tokens"]),
    st.integers(0, 30),
    st.integers(1, 100),
    st.floats(0, 1),
    st.booleans(),
)
@settings(deadline=None)
def test_rates_rise_then_fall_within_their_bounds(
    style: str,
    warmup_unit: str,
    decay_unit: str,
    warmup: int,
    decay: int,
    low: float,
    reference_schedules: bool,
) -> None:
    per_step = {name: int(values[0]) for name, values in counted(1).items()}
    options = {
        "lr_decay_style": style,
        "min_lr": low,
        f"lr_warmup_{warmup_unit}": warmup * per_step[warmup_unit],
        f"lr_decay_{decay_unit}": (warmup + decay) * per_step[decay_unit],
        f"lr_wsd_decay_{decay_unit}": decay * per_step[decay_unit],
    }
    mine = np.array(rates(150, reference_schedules, **options))
    # The lag of two steps in tokens against one in steps moves the end of a mixed warm-up by one step.
    end = warmup + 2 if reference_schedules else max(warmup - 1, 0)
    assert np.all(np.diff(mine[: max(warmup - 1, 0)]) >= 0)
    assert np.all(np.diff(mine[end:]) <= 1e-15)
    assert np.all(mine <= 1) and np.all(mine[end:] >= low - 1e-15) and np.all(mine >= 0)
    assert reference_schedules or np.all(mine[: warmup + decay - 1] > 0)
