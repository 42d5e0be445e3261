"""YAML files of settings, in which no key may stand twice."""

import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from megatron.base.files import no_utf8
from megatron.config.foreign import dashed, negated
from megatron.config.values import flatten
from megatron.elsewhere.answers import answer
from megatron.elsewhere.guess import likely, way_out

NUMBERS = ("int", "float", "timestamp")
OF_DEEPSPEED = {
    "data_efficiency": ("enabled", "data_sampling", "data_routing"),
    "optimizer": ("type", "params"),
    "zero_optimization": ("stage",),
    **dict.fromkeys(("fp16", "bf16", "bfloat16"), ("enabled",)),
}
"""Sections of DeepSpeed's JSON that gpt-neox has in its YAML, by keys that only they have."""
FILES_OF_DEEPSPEED = ("deepspeed", "deepspeed_config", "deepscale_config", "data_efficiency_config")
"""Names of the JSON itself, under which others have what stands in it."""


class _Loader(yaml.SafeLoader):
    """Plain values only. Numbers stay texts and mean what they mean on the command line: by the rules of
    YAML 1.1, 1:30 is 90 and 012 is 10."""

    yaml_implicit_resolvers = {  # noqa: RUF012, of the class by PyYAML's design
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in NUMBERS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


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
    text = ""
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = yaml.load(text, _Loader) or {}
    except OSError as error:
        raise ValueError(f"cannot be read as YAML: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        _require_no_toml(text)
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"cannot be read as YAML: {error.problem}{line}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot be read as YAML: {no_utf8(error)}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        _require_no_toml(text)
        raise ValueError("must hold 'flag: value' lines")
    return content


def _require_no_toml(text: str) -> None:
    """ValueError for what is no YAML because it is TOML."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    raise ValueError(
        "is TOML, and YAML is read: write 'flag: value' for 'flag = value', and 'section:' above indented "
        "lines for '[section]'"
    )


def read_settings(
    path: str,
    content: Mapping[Any, Any],
    names: Mapping[str, str],
    groups: Collection[str],
    is_foreign: Callable[[str], bool],
    switches: Collection[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Values by flag name from the content of a file, whose keys are flags, alone or grouped in sections, and
    the problems. None stands for an empty value.
    `names`: the flags' names by their spellings in dashes, `switches`: those that are true or false. Values
    of flags of another Megatron are under `foreign-NAME`, as words of a command line."""
    values: dict[str, Any] = {}
    problems = [f"--config {path}: {words}" for words in _of_deepspeed(content)]
    places: dict[str, list[str]] = {}
    for place, key, value in _pairs(content, groups):
        name = dashed(str(key))
        places.setdefault(names.get(name, name), []).append(place)
        other = name not in names and is_foreign(name)
        if other and (value is None or value is False):
            continue
        if name in names:
            values[names[name]] = value
        elif other:
            values["foreign-" + name] = [] if value is True else flatten(value)
        elif value is None:
            continue
        elif switch := negated(name, switches):
            problems.append(f"--config {path}: unknown key {key}; to turn it off, say {switch}: false")
        else:
            problems.append(f"--config {path}: {_unknown(place, key, value, names, groups)}")
    problems += [
        f"--config {path}: {' and '.join(where)} are one flag, given {len(where)} times; keep one"
        for where in places.values()
        if len(where) > 1
    ]
    return values, problems


def without_switched_off(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says, but for what goes with a switch that is turned off by the command line or a file that
    includes it: `random_ltd_min` with `--random-ltd false`."""
    off = tuple(f"{name}_" for name, value in above.items() if str(value).lower() == "false")
    return {name: value for name, value in below.items() if not name.startswith(off)}


def _pairs(content: Mapping[Any, Any], groups: Collection[str]) -> Iterator[tuple[str, Any, Any]]:
    """Places, keys and values, of sections the inner ones."""
    for key, value in content.items():
        if _is_of_deepspeed(key, value):
            continue
        if str(key).replace("-", "_") in groups and isinstance(value, dict):
            yield from ((f"{key}.{inner}", inner, one) for inner, one in value.items())
        else:
            yield str(key), key, value


def _is_of_deepspeed(key: Any, value: Any) -> bool:
    name = str(key).replace("-", "_")
    own = OF_DEEPSPEED.get(name, ())
    return isinstance(value, dict) and (name in FILES_OF_DEEPSPEED or any(one in value for one in own))


def _of_deepspeed(content: Mapping[Any, Any]) -> list[str]:
    """One line for the sections of DeepSpeed's JSON in a file of flags."""
    found = [str(key) for key, value in content.items() if _is_of_deepspeed(key, value)]
    if not found:
        return []
    which = f"{', '.join(found)} {'is a section' if len(found) == 1 else 'are sections'} of DeepSpeed's JSON"
    return [
        f"{which}; move {'it' if len(found) == 1 else 'them'} into a file of --data-efficiency-config, with "
        "which the flags must agree"
    ]


def _unknown(place: str, key: Any, value: Any, names: Collection[str], groups: Collection[str]) -> str:
    """What is said of a key that is no flag, or of a section that is none, with the nearest that is one.
    `place`: the key behind its section."""
    section, ours = isinstance(value, dict), [f"--{name}" for name in names]
    if section and str(key).replace("-", "_") in groups:
        return f"the section {key} stands inside another one; sections stand side by side, without indent"
    if not section and (said := answer(place, ours)):
        return f"unknown key {key}; {_as_keys(said, ours)}"
    nearest = likely(str(key), [*groups, *ours] if section else ours).removeprefix("--").replace("-", "_")
    if section and abs(len(nearest) - len(str(key))) > 2:
        nearest = ""  # a longer name that begins so is no section
    kind = "section" if section else "key"
    otherwise = f"; sections are {', '.join(sorted(groups))}" if section and groups else ""
    listed = _as_keys(way_out(f"--{dashed(str(key))}", ours), ours)
    otherwise = otherwise or ("" if section else f"; {listed}")
    return f"unknown {kind} {key}" + (f"; did you mean {nearest}?" if nearest else otherwise)


def _as_keys(text: str, ours: Collection[str]) -> str:
    """A text with our flags as keys of a file."""

    def as_key(found: re.Match[str]) -> str:
        return found[1].replace("-", "_") if found[0] in ours else found[0]

    return re.sub(r"--([a-z0-9-]+)", as_key, text)
