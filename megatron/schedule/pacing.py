"""Pacing: how difficulty, sequence length and kept length grow over the steps (arXiv 2212.03597, section
3.1).

A pacing is a pure function of the step. The curriculum counts its steps from 1, random-LTD from 0.
"""

import dataclasses
import importlib
import math
import os
import sys
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from megatron.base.errors import UserError


@dataclass(frozen=True)
class Pacing:
    """A curve from `minimum` to `maximum`. `duration`: steps until the maximum; `quantum`: values are
    multiples of it; `root`: of fixed_root (2 = square root); `values`, `until`: of fixed_discrete;
    `function`: of custom, `module:function`."""

    curve: str
    minimum: int = 0
    maximum: int = 0
    duration: int = 1
    quantum: int = 1
    root: float = 1.0
    values: tuple[int, ...] = ()
    until: tuple[int, ...] = ()
    function: str = ""


def _growing(
    pacing: Pacing, root: float, reference_schedules: bool, minimum_rounds_up: bool
) -> Callable[[int], int]:
    """d(t) = floor((t/T)^(1/root)·(max − min) + min), rounded down to the quantum."""
    low, high, quantum = pacing.minimum, pacing.maximum, pacing.quantum
    if low == high:
        return lambda step: high  # DeepSpeed, too, never updates what begins at its maximum
    smallest = -(-low // quantum) * quantum

    def level(step: int) -> int:
        value = math.floor((step / pacing.duration) ** (1.0 / root) * (high - low) + low)
        value -= value % quantum
        if minimum_rounds_up:
            value = max(value, smallest)
        return high if step >= pacing.duration and not reference_schedules else min(value, high)

    return level


def _linear(pacing: Pacing, reference_schedules: bool, minimum_rounds_up: bool) -> Callable[[int], int]:
    return _growing(pacing, 1.0, reference_schedules, minimum_rounds_up)


def _root(pacing: Pacing, reference_schedules: bool, minimum_rounds_up: bool) -> Callable[[int], int]:
    return _growing(pacing, pacing.root, reference_schedules, minimum_rounds_up)


def _discrete(pacing: Pacing, reference_schedules: bool, minimum_rounds_up: bool) -> Callable[[int], int]:
    """The first value whose last step has not passed; after the last `until`, the last value."""
    return lambda step: pacing.values[sum(step > last for last in pacing.until)]


def _custom(pacing: Pacing, reference_schedules: bool, minimum_rounds_up: bool) -> Callable[[int], int]:
    function = load_function(pacing.function, "a pacing's function")

    def level(step: int) -> int:
        try:
            return min(int(function(step)), pacing.maximum)
        except Exception as error:  # whatever the user's function raises
            raise UserError(
                f"the pacing {pacing.function} failed at step {step}: {type(error).__name__}: {error}"
            ) from None

    return level


CURVES = {"fixed_linear": _linear, "fixed_root": _root, "fixed_discrete": _discrete, "custom": _custom}
NEEDED = {
    "fixed_linear": ("max", "duration"),
    "fixed_root": ("max", "duration"),
    "fixed_discrete": ("values",),
    "custom": ("max", "function"),
}
"""What a --curriculum must say for each curve."""


def load_function(name: str, what: str) -> Callable:
    """The function behind `module:function`, where a module may lie in the current folder; UserError when
    there is none."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever the user's module raises
        raise UserError(
            f"{what} is written module:function, and {name!r} cannot be loaded: {error}"
        ) from None
    if not callable(function):
        raise UserError(f"{what} is a function, and {name!r} is {type(function).__name__}")
    return function


def levels(
    pacing: Pacing,
    first: int,
    count: int,
    *,
    reference_schedules: bool = False,
    minimum_rounds_up: bool = True,
) -> np.ndarray:
    """Values (int64) at the steps first, first+1, ..., `count` of them.

    `reference_schedules`: the rounding of DeepSpeed 0.19.8, which reaches a maximum that is no multiple of
    the quantum only after the duration. `minimum_rounds_up`: never below the smallest multiple of the
    quantum at or above the minimum (DeepSpeed's random-LTD schedule lacks this). A curve that never
    decreases is computed where it changes.
    """
    level = CURVES[pacing.curve](pacing, reference_schedules, minimum_rounds_up or not reference_schedules)
    if pacing.curve == "custom":  # which may decrease
        return np.array([level(first + step) for step in range(count)], np.int64)
    out, done = np.empty(count, np.int64), 0
    while done < count:
        value = level(first + done)
        end = bisect_right(range(count), value, lo=done, key=lambda step: level(first + step))
        out[done:end] = value
        done = end
    return out


def meaning(pacing: Pacing, shares_of_maximum: bool = False) -> Pacing:
    """The pacing without what its curve does not use, and as linear where its root is 1: equal where the
    values are equal at every step, however they are written. `shares_of_maximum`: the maximum of
    fixed_discrete counts although no value reaches it (DeepSpeed's percentiles are shares of it)."""
    if pacing.curve == "custom":
        return Pacing("custom", maximum=pacing.maximum, function=pacing.function)
    if pacing.curve == "fixed_discrete" and len(pacing.values) == len(pacing.until) + 1:
        changes = [i for i, pair in enumerate(pairwise(pacing.values)) if pair[0] != pair[1]]
        values = tuple(pacing.values[i] for i in [*changes, -1])
        until = tuple(pacing.until[i] for i in changes)
        top = pacing.maximum if shares_of_maximum and pacing.maximum else values[-1]
        return Pacing("fixed_discrete", maximum=top, values=values, until=until)
    if pacing.curve not in ("fixed_linear", "fixed_root"):
        return pacing
    if pacing.minimum == pacing.maximum:
        return Pacing("fixed_linear", pacing.minimum, pacing.maximum)
    root = pacing.root if pacing.curve == "fixed_root" else 1.0
    curve = "fixed_linear" if root == 1 else "fixed_root"
    return Pacing(curve, pacing.minimum, pacing.maximum, pacing.duration, pacing.quantum, root)


def as_deepspeed(pacing: Pacing) -> Pacing:
    """A fixed_discrete pacing that stays at the first value that reaches its maximum, or at its minimum
    where that is no smaller: DeepSpeed updates only what is below the maximum."""
    high = pacing.maximum
    if pacing.curve != "fixed_discrete" or not high or not pacing.values:
        return pacing
    if pacing.minimum >= high:
        return dataclasses.replace(pacing, values=(pacing.minimum,), until=())
    last = next((i for i, value in enumerate(pacing.values) if value >= high), len(pacing.values) - 1)
    return dataclasses.replace(pacing, values=pacing.values[: last + 1], until=pacing.until[:last])


def pacing_problems(pacing: Pacing, name: str, reference_schedules: bool = False) -> list[str]:
    """What is wrong with a pacing's numbers, for the metric or flag `name`."""
    if pacing.curve not in CURVES:
        return [f"{name}: pacing {pacing.curve!r} is unknown; choose one of {', '.join(CURVES)}"]
    if pacing.curve == "fixed_discrete":
        found = _list_problems(pacing, name)
        return found if found or reference_schedules else _bound_problems(pacing, name)
    found = []
    if pacing.minimum > pacing.maximum:
        found.append(
            f"{name}: minimum {pacing.minimum} is above maximum {pacing.maximum}; lower the one or raise the "
            "other"
        )
    if pacing.duration < 1 and pacing.curve != "custom":
        found.append(f"{name}: duration {pacing.duration} must be at least 1 step")
    if pacing.quantum < 1 or not pacing.root > 0:
        found.append(f"{name}: quantum {pacing.quantum} and root {pacing.root} must be positive")
    if pacing.curve == "custom" and not pacing.function:
        found.append(f"{name}: pacing=custom needs function=module:function")
    return found


def _list_problems(pacing: Pacing, name: str) -> list[str]:
    """What is wrong with the lists of fixed_discrete."""
    found = []
    if len(pacing.values) != len(pacing.until) + 1:
        found.append(
            f"{name}: fixed_discrete needs one more value than step limits, got {len(pacing.values)} "
            f"and {len(pacing.until)}"
        )
    if list(pacing.values) != sorted(pacing.values) or list(pacing.until) != sorted(pacing.until):
        found.append(f"{name}: the values and step limits of fixed_discrete must never decrease")
    return found


def _bound_problems(pacing: Pacing, name: str) -> list[str]:
    """Where a minimum or a maximum contradicts the values of fixed_discrete."""
    found = []
    if pacing.maximum and pacing.values[-1] > pacing.maximum:
        found.append(
            f"{name}: fixed_discrete rises to {pacing.values[-1]}, above the maximum {pacing.maximum}; "
            "change one of them, or give --reference-schedules, which stays where the maximum is reached"
        )
    if pacing.minimum > pacing.values[0]:
        found.append(
            f"{name}: fixed_discrete begins at {pacing.values[0]}, below the minimum {pacing.minimum}; "
            "change one of them, or give --reference-schedules, which begins as DeepSpeed does"
        )
    return found


def first_decrease(values: np.ndarray, first: int) -> str | None:
    """Where a curve decreases, in words; None when it never does."""
    falls = np.flatnonzero(np.diff(values) < 0)
    if not len(falls):
        return None
    at = int(falls[0])
    return (
        f"falls from {values[at]} to {values[at + 1]} at step {first + at + 1}; a pacing may never decrease"
    )
