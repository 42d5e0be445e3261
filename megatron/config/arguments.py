"""Command lines from dataclasses: every field is a flag, every mistake is collected and told at once.

A command declares a frozen dataclass whose fields are made by `flag`, and calls `parse`. Field
`train_iters` is the flag `--train-iters`. Where the dataclass has a field `config`, the same names may
stand in a YAML file; flags win over the file.
"""

import argparse
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from megatron.base.errors import UserError
from megatron.config.yaml_file import read_yaml


def flag(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    choices: Iterable[Any] = (),
    aliases: Iterable[str] = (),
    metavar: str | None = None,
    repeat: bool = False,
) -> Any:
    """A dataclass field that is a flag; without a default it is required. `repeat`: given several times,
    each one value."""
    about = {
        "help": help,
        "choices": tuple(choices),
        "aliases": tuple(aliases),
        "metavar": metavar,
        "repeat": repeat,
    }
    return dataclasses.field(default=default, metadata=about)


class Flag(NamedTuple):
    """One flag as `parse` sees it. `kind` is the value's type (bool, int, float or str); `many`: a tuple
    of values."""

    name: str
    group: str
    kind: type
    many: bool
    field: dataclasses.Field

    @property
    def spellings(self) -> list[str]:
        return ["--" + self.name.replace("_", "-"), *self.field.metadata["aliases"]]

    @property
    def required(self) -> bool:
        return self.field.default is dataclasses.MISSING


class Foreign(NamedTuple):
    """A flag of another Megatron that is read but does nothing here. `accepted`: the values that change no
    number; None stands for any value. `why` is told to the user."""

    accepted: tuple[str, ...] | None
    why: str


def flags_of(options: type) -> list[Flag]:
    """The flags of a dataclass; fields that are dataclasses themselves are groups of flags, one level
    deep."""
    flags = []
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(hints[field.name]):
            flags += [inner._replace(group=field.name) for inner in flags_of(hints[field.name])]
        else:
            kind, many = _kind(hints[field.name])
            flags.append(Flag(field.name, "", kind, many, field))
    return flags


def parse(
    options: type,
    argv: list[str],
    *,
    description: str,
    examples: str = "",
    foreign: Mapping[str, Foreign] = types.MappingProxyType({}),
    settled: Mapping[str, Any] = types.MappingProxyType({}),
    partial: bool = False,
) -> Any:
    """An instance of the dataclass `options` from a command line; UserError with every problem found.
    `settled`: values by name that hold whatever the command line says; `partial`: take what is understood,
    and say nothing of the rest."""
    flags = flags_of(options)
    parser = _parser(options, flags, description, examples, foreign)
    given, unknown = parser.parse_known_args(argv)
    raw = vars(given)
    strange = [word for word in unknown if word.startswith("-")] or unknown
    problems = [_unknown(word, flags, foreign) for word in strange]
    if raw.get("config"):
        from_file, more = _read_yaml(raw["config"][-1], flags, foreign)
        problems += more
        raw = {**from_file, **raw}
    values: dict[str, Any] = {}
    for one in flags:
        if one.name in settled:
            values[one.name] = settled[one.name]
        elif one.name in raw:
            values[one.name] = _collect(one, raw[one.name], problems)
        elif one.required:
            problems.append(f"{one.spellings[0]} is required: {one.field.metadata['help']}")
    problems += _foreign_problems(raw, foreign)
    if problems and not partial:
        raise UserError(*problems)
    return _build(
        options, {name: value for name, value in values.items() if not partial or value is not None}
    )


def unused_flags(argv: list[str], foreign: Mapping[str, Foreign]) -> list[str]:
    """Lines that say which of the given flags are accepted but do nothing here."""
    names = {
        word.split("=")[0].removeprefix("--").replace("_", "-") for word in argv if word.startswith("--")
    }
    return [
        f"--{name} is accepted and not used: {foreign[name].why}" for name in sorted(names & foreign.keys())
    ]


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


def _kind(hint: Any) -> tuple[type, bool]:
    """The value type of an annotation such as `int`, `int | None` or `tuple[str, ...]`, and whether it is
    a tuple."""
    arguments = [part for part in typing.get_args(hint) if part not in (type(None), Ellipsis)]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return _kind(arguments[0])
    if typing.get_origin(hint) is tuple:
        return arguments[0], True
    return hint, False


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help with one line a flag where it fits, and plain names for values."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36, width=120)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return super()._format_action_invocation(action).rstrip()

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar or "")


def _parser(
    options: type, flags: list[Flag], description: str, examples: str, foreign: Mapping[str, Foreign]
) -> argparse.ArgumentParser:
    """The argparse parser that splits the command line and prints the help; values are read by `_collect`."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="examples:\n" + examples if examples else None,
        usage="%(prog)s --flag value ...",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, Any] = {"": parser}
    for one in flags:
        if one.group not in groups:
            groups[one.group] = parser.add_argument_group(one.group.replace("_", " "))
        _add(groups[one.group], one)
    for name in foreign:
        parser.add_argument("--" + name, dest="foreign-" + name, nargs="*", help=argparse.SUPPRESS)
    return parser


def _add(group: Any, one: Flag) -> None:
    about = one.field.metadata
    if one.kind is bool:
        group.add_argument(
            *one.spellings, dest=one.name, nargs="?", const="true", metavar="", help=_help(one)
        )
        return
    action = "append" if about["repeat"] else "store"
    metavar = about["metavar"] or {int: "N", float: "X", str: one.name.rpartition("_")[2].upper()}[one.kind]
    group.add_argument(
        *one.spellings, dest=one.name, nargs="*", action=action, metavar=metavar, help=_help(one)
    )


def _help(one: Flag) -> str:
    about, default = one.field.metadata, one.field.default
    text = about["help"]
    if about["choices"]:
        text += f" [{' | '.join(map(str, about['choices']))}]"
    if one.required:
        text += " (required)"
    elif default not in (None, False, ()):
        text += f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"
    return text.replace("%", "%%")


def _unknown(text: str, flags: list[Flag], foreign: Mapping[str, Foreign]) -> str:
    """Say that a word of the command line is not known, and which known flag is nearest."""
    word = text.split("=")[0]
    if not word.startswith("-"):
        return f"{text!r} stands where no value is expected; flags begin with --"
    known = [spelling for one in flags for spelling in one.spellings] + ["--" + name for name in foreign]
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    return f"unknown flag {word}" + (
        f"; did you mean {nearest[0]}?" if nearest else "; --help lists all flags"
    )


def _collect(one: Flag, raw: Any, problems: list[str]) -> Any:
    """The value of a flag from what argparse or YAML gave; a problem found is added to `problems`."""
    items = _flatten(raw)
    if one.kind is str and "" in items and one.field.metadata["metavar"] != "TEXT":
        problems.append(f"{one.spellings[0]} is given an empty text: {one.field.metadata['help']}")
        return None
    if not items:
        problems.append(f"{one.spellings[0]} needs a value: {one.field.metadata['help']}")
        return None
    if len(items) > 1 and not one.many:
        problems.append(f"{one.spellings[0]} takes one value, not {len(items)}: {' '.join(map(str, items))}")
        return None
    values = []
    for item in items:
        try:
            values.append(_convert(item, one.kind))
        except (TypeError, ValueError, OverflowError):
            names = {int: "a whole number", float: "a number", bool: "true or false"}
            problems.append(f"{one.spellings[0]} takes {names.get(one.kind, 'a text')}, not {item!r}")
            return None
        choices = one.field.metadata["choices"]
        if choices and values[-1] not in choices:
            problems.append(f"{one.spellings[0]} {item}: choose one of {', '.join(map(str, choices))}")
    return tuple(values) if one.many else values[0]


def _flatten(raw: Any) -> list[Any]:
    """The values behind one flag, in order. A mapping `{name: {key: value}}` becomes the texts
    `name:key=value,...`."""
    if isinstance(raw, Mapping):
        return [
            f"{name}:{','.join(f'{key}={value}' for key, value in inner.items())}"
            if isinstance(inner, Mapping)
            else f"{name}={inner}"
            for name, inner in raw.items()
        ]
    if isinstance(raw, list):
        return [value for item in raw for value in _flatten(item)]
    return [raw]


def _convert(value: Any, kind: type) -> Any:
    if kind is bool:
        return (
            {"true": True, "false": False}[str(value).lower()]
            if str(value).lower() in ("true", "false")
            else _refuse()
        )
    if kind is int:
        text = str(value).replace("_", "")
        if any(letter in text for letter in ".eE"):
            number = float(text)
            return _moderate(int(number)) if number.is_integer() else _refuse()
        return _moderate(int(text))
    if kind is float:
        return float(value) if not isinstance(value, bool) and math.isfinite(float(value)) else _refuse()
    return kind(value)


def _moderate(number: int) -> int:
    return number if abs(number) < 1 << 62 else _refuse()


def _refuse() -> Any:
    raise ValueError


def _read_yaml(
    path: str, flags: list[Flag], foreign: Mapping[str, Foreign]
) -> tuple[dict[str, Any], list[str]]:
    """Values by flag name from a YAML file, whose keys are flag names, alone or grouped in sections; and
    the problems."""
    try:
        content = read_yaml(path)
    except ValueError as error:
        return {}, [f"--config {path}: {error}"]
    known = {one.name: one for one in flags}
    sections = {one.group for one in flags if one.group}
    values: dict[str, Any] = {}
    problems = []
    pairs: list[tuple[Any, Any]] = []
    for key, value in content.items():
        section = str(key).replace("-", "_") in sections and isinstance(value, dict)
        pairs += value.items() if section else [(key, value)]
    for key, value in pairs:
        name = str(key).removeprefix("--").replace("-", "_")
        other = name.replace("_", "-")
        if value is None or (other in foreign and value is False):
            continue
        if name in known:
            values[name] = value
        elif other in foreign:
            values["foreign-" + other] = [] if value is True else [str(value)]
        else:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            problems.append(
                f"--config {path}: unknown key {key}" + (f"; did you mean {nearest[0]}?" if nearest else "")
            )
    return values, problems


def _foreign_problems(raw: dict[str, Any], foreign: Mapping[str, Foreign]) -> list[str]:
    problems = []
    for name, about in foreign.items():
        values = raw.get("foreign-" + name)
        if values is not None and about.accepted is not None and " ".join(values) not in about.accepted:
            problems.append(f"--{name} {' '.join(values)}".rstrip() + f" is refused: {about.why}")
    return problems


def _build(options: type, values: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(options)
    mine = {}
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(hints[field.name]):
            mine[field.name] = _build(hints[field.name], values)
        elif field.name in values:
            mine[field.name] = values[field.name]
    return options(**mine)
