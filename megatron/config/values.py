"""The values of flags: what texts mean (numbers as people write them, truth values), the bounds that numbers
keep, and values of which some are unknown."""

import math
import os
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

TAKES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class Known(types.SimpleNamespace):
    """Values by name, of flags or of groups of them, as far as they are known: asking for another raises
    Unknown."""

    def __getattr__(self, name: str) -> Any:
        raise Unknown(name)


class Unknown(AttributeError):
    """A value is asked for that is missing or was refused."""


def flatten(raw: Any) -> list[Any]:
    """The values behind one flag, in order. A mapping `{name: {key: value}}` becomes the texts
    `name:key=value,...`, in which a list stands as 8/16/32."""
    if isinstance(raw, Mapping):
        return [
            f"{name}:{','.join(f'{key}={_slashed(value)}' for key, value in inner.items())}"
            if isinstance(inner, Mapping)
            else f"{name}={inner}"
            for name, inner in raw.items()
        ]
    if isinstance(raw, list | tuple):
        return [value for item in raw for value in flatten(item)]
    return [raw]


def _slashed(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def as_words(text: str, fits: Callable[[str], object]) -> str:
    """How several values that stand in one word, as in "[a, b]", are given; empty where none of them fits."""
    words = [word for word in re.split(r"[\s,\[\]()'\"]+", text) if word]
    if len(words) < 2 or not any(map(fits, words)):
        return ""
    listed = f"in a YAML file as a list: [{', '.join(words)}]"
    return f"give each as a word of its own: {' '.join(words)}; or {listed}"


def convert(value: Any, kind: type) -> Any:
    """A value of the kind (bool, int, float or str) from a text or from what YAML gave; ValueError,
    TypeError or OverflowError where it is none."""
    if kind is bool:
        text = str(value).lower()
        return text == "true" if text in ("true", "false") else _refuse()
    if kind is int:
        text = str(value).replace("_", "")
        if any(letter in text for letter in ".eE"):
            number = float(text)
            return _moderate(int(number)) if number.is_integer() else _refuse()
        return _moderate(int(text))
    if kind is float:
        return float(value) if not isinstance(value, bool) and math.isfinite(float(value)) else _refuse()
    return _refuse() if value is None else kind(value)


def with_home(text: str) -> str:
    """A path whose first part is ~, ~user or a variable as a shell reads it. A shell does not where it stands
    behind = or in quotes, and nobody does in a file: a folder would come to be that is named ~."""
    begins = re.match(r"~[\w.-]*/|\$(\w+|\{\w+\})(/|$)", text)
    return os.path.expandvars(os.path.expanduser(text)) if begins else text


def written_out(text: str, kind: type) -> str:
    """A number such as 300B, 1,000 or 10% as it is written here; empty where it is none."""
    powers = {"k": 3, "m": 6, "b": 9, "g": 9, "t": 12, "%": -2}
    found = re.fullmatch(r"(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)([kmbgt%]?)", text.strip().lower(), re.ASCII)
    if kind not in (int, float) or found is None:
        return ""
    number = found[1].replace(",", "") + (f"e{powers[found[2]]}" if found[2] else "")
    return f"write {number}" if converts(number, kind) else ""


def converts(value: Any, kind: type) -> bool:
    """Whether a value is one of the kind."""
    try:
        convert(value, kind)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def number_of(key: str, value: Any, kind: type) -> Any:
    """The number under a key of a text or a JSON; ValueError says what stands there instead."""
    try:
        return convert(value, kind)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{key} takes {TAKES[kind]}, not {value}") from None


def chosen(value: Any, choices: Iterable[Any]) -> Any:
    """The choice that a value names, in whatever case and with _ or -; else the value."""
    named = {str(choice).lower().replace("_", "-"): choice for choice in choices}
    return named.get(str(value).lower().replace("_", "-"), value)


def _moderate(number: int) -> int:
    return number if abs(number) < 1 << 62 else _refuse()


def _refuse() -> Any:
    raise ValueError


def parse_list(text: str) -> list[int]:
    """Whole numbers from a text such as "1-22" or "0,3-5"; ValueError when it is none."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        more = range(int(first), int(last if dash else first) + 1)
        if not more:
            raise ValueError(f"{part} counts down")
        numbers += more
    return numbers


def bounds(metadata: Mapping[str, Any]) -> str:
    """The bounds `at_least` or `above` and `at_most` or `below` in words, such as "in [0, 1)"; empty where
    there are none."""
    least, above, most, below = (metadata[name] for name in ("at_least", "above", "at_most", "below"))
    lower = f"at least {least}" if above is None else f"above {above}"
    upper = f"at most {most}" if below is None else f"below {below}"
    if least is None and above is None:
        return "" if most is None and below is None else upper
    if most is None and below is None:
        return lower
    first = f"[{least}" if above is None else f"({above}"
    last = f"{most}]" if below is None else f"{below})"
    return f"in {first}, {last}"


def within(value: Any, metadata: Mapping[str, Any]) -> bool:
    """Whether a value keeps the bounds of its flag."""
    least, above, most, below = (metadata[name] for name in ("at_least", "above", "at_most", "below"))
    return (
        (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )
