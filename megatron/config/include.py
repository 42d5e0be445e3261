"""YAML files of flags that include others, so that each says only what differs."""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from megatron.config.values import with_home
from megatron.config.yaml_file import read_settings, read_yaml, without_switched_off

KEY = "include"


class Origin(NamedTuple):
    """A value, and the file that says it."""

    value: Any
    file: str


def read_with_includes(
    path: str,
    names: Mapping[str, str],
    groups: Collection[str],
    is_foreign: Callable[[str], bool],
    switches: Collection[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """The values of `read_settings` from a file and what it includes, and the problems; ValueError where one
    of the files cannot be read. A file wins over what it includes, and its empty value takes a flag back.
    Of files that stand side by side none may contradict another."""
    found, problems = _read(path, (names, groups, is_foreign, switches), ())
    values = {name: one.value for name, one in found.items() if one.value is not None}
    return values, list(dict.fromkeys(problems))


def _read(path: str, flags: tuple[Any, ...], above: tuple[str, ...]) -> tuple[dict[str, Origin], list[str]]:
    """Values with their files; `above`: the files that led here."""
    content = _content(path, above)
    included = _included(path, content.pop(KEY, None), above)
    own, problems = read_settings(path, content, *flags)
    found: dict[str, Origin] = {}
    for other in included:
        inherited, more = _read(other, flags, (*above, path))
        problems += more
        for name, one in without_switched_off(inherited, own).items():
            met = found.setdefault(name, one)
            if name not in own and met.value != one.value:
                key = name.removeprefix("foreign-")
                problems.append(
                    f"--config {path}: {met.file} says {key}: {met.value}, and {one.file} says {one.value}; "
                    "say here which it is"
                )
    return found | {name: Origin(value, path) for name, value in own.items()}, problems


def _content(path: str, above: tuple[str, ...]) -> dict[Any, Any]:
    try:
        return read_yaml(path)
    except ValueError as error:
        raise ValueError(f"{KEY} {path}: {error}" if above else error) from None


def _included(path: str, asked: Any, above: tuple[str, ...]) -> list[str]:
    """The paths that a file includes, relative to it; ValueError where they are none or go round."""
    texts = [] if asked is None else asked if isinstance(asked, list) else [asked]
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"{KEY} must be the name of a file, or a list of names")
    paths = [os.path.normpath(os.path.join(os.path.dirname(path), with_home(text))) for text in texts]
    before = {os.path.realpath(one) for one in (*above, path)}
    for one in paths:
        if os.path.realpath(one) in before:
            way = f" by way of {path}" if above else ""
            raise ValueError(f"{KEY} {one}: includes itself{way}; leave one of them out")
        if paths.count(one) > 1:
            raise ValueError(f"{KEY} {one}: stands twice; keep one")
    return paths
