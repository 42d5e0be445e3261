"""Numbers as people read them."""

import math

import numpy as np

SIZES = ((1e12, "T", "trillion"), (1e9, "B", "billion"), (1e6, "M", "million"), (1e3, "K", "thousand"))
TIMES = ((7200.0, 3600.0, "hours"), (120.0, 60.0, "minutes"), (-math.inf, 1.0, "seconds"))


def exact(number: float) -> str:
    """All digits of a whole number: 377,264."""
    return f"{number:,.0f}"


def count_of(number: int, what: str) -> str:
    """1 step, 2 steps."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def short(number: float) -> str:
    """One decimal and a letter: 339.9 B; below ten thousand the number itself."""
    for size, letter, _ in SIZES:
        if number >= max(size, 1e4):
            return f"{number / size:,.1f} {letter}"
    return exact(number)


def amount(number: float) -> str:
    """The short form and all digits: 339.9 B (339,946,323,968)."""
    return short(number) if short(number) == exact(number) else f"{short(number)} ({exact(number)})"


def duration(seconds: float) -> str:
    """Seconds as 42.0 s, 12.3 min or 4 h 05 min."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{int(seconds // 3600):,} h {int(seconds % 3600 // 60):02d} min"


def axis_scale(*columns: np.ndarray) -> tuple[float, str]:
    """What to divide an axis by, and its name: (1e9, "billion"); (1, "") for small numbers."""
    largest = max(
        (float(np.nanmax(np.abs(column))) for column in columns if np.isfinite(column).any()), default=0.0
    )
    for size, _, name in SIZES:
        if largest >= max(size, 2e4):
            return size, name
    return 1.0, ""


def time_scale(longest: float) -> tuple[float, str]:
    """What to divide an axis of seconds by, and its name: (60, "minutes")."""
    return next((size, name) for least, size, name in TIMES if longest >= least)


def power_of_ten(*columns: np.ndarray) -> tuple[float, str]:
    """What to divide an axis of small numbers by, and its name: (1e-4, "$10^{-4}$")."""
    largest = max((float(np.nanmax(column, initial=0.0)) for column in columns), default=0.0)
    power = math.floor(math.log10(largest) + 0.01) if largest > 0 else 0
    return 10.0**power, f"$10^{{{power}}}$"


def axis_label(what: str, *notes: str) -> str:
    """A label with its units in brackets: "raw tokens (billion)"."""
    inner = ", ".join(note for note in notes if note)
    return f"{what} ({inner})" if inner else what


def perplexity(loss: float) -> float:
    """exp(loss), cut at exp(20) as Megatron does, so that a loss of any size has one; NaN has none."""
    return math.exp(min(loss, 20.0))
