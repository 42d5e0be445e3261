"""YAML files of settings, in which no key may stand twice."""

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Plain values only."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: str) -> dict[Any, Any]:
    """The settings of a file; ValueError says why there are none."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader) or {}
    except OSError as error:
        raise ValueError(f"cannot be read as YAML: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"cannot be read as YAML: {error.problem}{line}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError("must hold 'flag: value' lines")
    return content


def _name(key: Any) -> str:
    """The name of the flag that a key stands for."""
    return str(key).removeprefix("--").replace("-", "_")


def read_settings(
    path: str, names: Collection[str], groups: Collection[str], foreign: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """Values by flag name from a file whose keys are flag names, alone or grouped in sections, and the
    problems. Those of `foreign` flags are under `foreign-NAME`, as words of a command line."""
    try:
        content = read_yaml(path)
    except ValueError as error:
        return {}, [f"--config {path}: {error}"]
    values: dict[str, Any] = {}
    problems = []
    pairs: list[tuple[Any, Any]] = []
    places: dict[str, list[str]] = {}
    for key, value in content.items():
        section = str(key).replace("-", "_") in groups and isinstance(value, dict)
        inner = list(value.items()) if section else [(key, value)]
        pairs += inner
        for one, _ in inner:
            places.setdefault(_name(one), []).append(f"{key}.{one}" if section else str(one))
    problems += [
        f"--config {path}: {' and '.join(where)} are one flag, given {len(where)} times; keep one"
        for where in places.values()
        if len(where) > 1
    ]
    for key, value in pairs:
        name = _name(key)
        other = name.replace("_", "-")
        if value is None or (other in foreign and value is False):
            continue
        if name in names:
            values[name] = value
        elif other in foreign:
            values["foreign-" + other] = [] if value is True else [str(value)]
        else:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
            problems.append(
                f"--config {path}: unknown key {key}" + (f"; did you mean {nearest[0]}?" if nearest else "")
            )
    return values, problems
