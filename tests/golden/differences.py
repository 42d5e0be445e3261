"""What two recordings of one training differ in, number by number, to the last bit."""

import math

Numbers = dict[str, dict[str, float | None]]
"""What was recorded, by step ("train 7") and quantity ("loss"); None: not recorded there."""


def changed_steps(before: Numbers, after: Numbers, quantity: str) -> list[str]:
    """The steps, in order, where a quantity is not the same to the last bit; those that one side lacks are
    among them."""
    return [
        step
        for step in {**before, **after}
        if repr(number(before, step, quantity)) != repr(number(after, step, quantity))
    ]


def number(numbers: Numbers, step: str, quantity: str) -> float | None:
    """A recorded number; None where there is none."""
    return numbers.get(step, {}).get(quantity)


def largest_differences(before: Numbers, after: Numbers, quantity: str) -> tuple[float, float]:
    """The largest absolute and the largest relative difference of a quantity; NaN is larger than any."""
    pairs = [
        (first, second)
        for step in changed_steps(before, after, quantity)
        if (first := number(before, step, quantity)) is not None
        and (second := number(after, step, quantity)) is not None
    ]
    absolute = [abs(first - second) for first, second in pairs]
    relative = [abs(first - second) / (max(abs(first), abs(second)) or 1.0) for first, second in pairs]
    return max(absolute, key=_size, default=0.0), max(relative, key=_size, default=0.0)


def _size(value: float) -> float:
    return math.inf if math.isnan(value) else value
