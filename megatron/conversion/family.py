"""What a kind of Hugging Face model is here, as one value."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from megatron.config.config import Config
from megatron.conversion.origins import Origin

Described = tuple[dict[str, Any], list[str]]
"""Flags, or the content of a config.json, and what has no like on the other side."""


class Family(NamedTuple):
    """A model_type of a config.json. `task`: of ours; `describe`: its content as flags; `names`: from these
    flags to the origin of every tensor of ours; `state`: from a configuration and the size of its vocabulary
    to a config.json, None where another family states the same models; `architecture`: their class."""

    task: str
    describe: Callable[[Mapping[str, Any]], Described]
    names: Callable[[Mapping[str, Any]], dict[str, Origin]]
    state: Callable[[Config, int], Described] | None
    architecture: str


def expect(content: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """What of a config.json has another value than the only one that is known here."""
    return [
        f"{name} {content[name]!r} has no like here; only {value!r} has"
        for name, value in usual.items()
        if content.get(name, value) != value
    ]


def require(config: Config, usual: Mapping[str, tuple[str, Any]]) -> list[str]:
    """Flags of a model that their class has no like for. `usual`: by the name of a flag the words for it, and
    the only value."""
    return [words for name, (words, value) in usual.items() if getattr(config.model, name) != value]
