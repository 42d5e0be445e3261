"""What a flag is: a field of a dataclass, with its type, bounds and what resuming does about it; and what is
wrong with a value."""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from megatron.base.files import is_utf8
from megatron.config.literal import LEFT_OUT, is_nothing, is_path, is_variable, literal_problem, stray
from megatron.config.values import (
    TAKES,
    as_words,
    bounds,
    chosen,
    convert,
    converts,
    flatten,
    with_home,
    within,
    written_out,
)

RESUME = ("same", "schedule", "meaning", "free")
"""What a run that goes on from a checkpoint does about a changed value, the strictest first: refuse it;
refuse it without --override-opt_param-scheduler; leave it to a comparison of what it means; take it."""
IN_PATHS_ALONE = (
    "variables are read in paths alone; write the value itself, or give the flag behind the command"
)
NEWEST = "leave it out to take the newest checkpoint"


def flag(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    choices: Iterable[Any] = (),
    aliases: Iterable[str] = (),
    metavar: str | None = None,
    repeat: bool = False,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    follows: Callable[..., Any] | None = None,
    resume: str = "same",
    rewrites: Callable[[dict[str, Any], dict[str, Any]], tuple[dict[str, Any], list[str]]] | None = None,
    of_several: str = "",
    elsewhere: Mapping[str, str] = types.MappingProxyType({}),
    otherwise: str = "",
) -> Any:
    """A dataclass field that is a flag; without a default it is required. `repeat`: given several times,
    each one value. `follows`: from groups by their names, the value where the flag has its default, which
    the field's type need not allow. `resume`: one of RESUME. `rewrites`: from the values by flag name
    of files, and of the command line, what files say instead, and problems. `of_several`: what to do with
    several values where one is taken, or instead of the flag several times. `elsewhere`: what other programs
    call one of the choices, by it. `otherwise`: what to do where a value is refused that means something to
    other programs, as 0 or none for what is off. One without `help` is read and not shown."""
    metadata = {
        "help": help,
        "choices": tuple(choices),
        "aliases": tuple(aliases),
        "metavar": metavar,
        "repeat": repeat,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "below": below,
        "follows": follows,
        "resume": resume,
        "rewrites": rewrites,
        "of_several": of_several,
        "elsewhere": elsewhere,
        "otherwise": otherwise,
    }
    return dataclasses.field(default=default, metadata=metadata)


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
        return [spelling(self.name), *self.field.metadata["aliases"]]

    @property
    def metavar(self) -> str:
        """What its value is called in --help; by the end of its name where it does not say."""
        usual = {bool: "", int: "N", float: "X", str: self.name.rpartition("_")[2].upper()}[self.kind]
        return self.field.metadata["metavar"] or usual

    @property
    def required(self) -> bool:
        return self.field.default is dataclasses.MISSING


def spelling(name: str) -> str:
    """How the flag behind a field is written: `from_` is --from."""
    return "--" + name.rstrip("_").replace("_", "-")


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


def _kind(hint: Any) -> tuple[type, bool]:
    """The value type of an annotation such as `int`, `int | None` or `tuple[str, ...]`, and whether it is
    a tuple."""
    arguments = [part for part in typing.get_args(hint) if part not in (type(None), Ellipsis)]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return _kind(arguments[0])
    if typing.get_origin(hint) is tuple:
        return arguments[0], True
    return hint, False


def value_of(one: Flag, raw: Any, problems: list[str]) -> Any:
    """The value of a flag from what argparse or YAML gave; None, and a problem told, where it is refused."""
    items = [chosen(item, one.field.metadata["choices"]) for item in flatten(raw)]
    if one.kind is str and is_path(one.metavar):
        items = [with_home(item) if isinstance(item, str) else item for item in items]
    found = _misfit(one, items) or [problem for item in items if (problem := _refusal(one, item))]
    problems += found
    if found:
        return None
    values = tuple(convert(item, one.kind) for item in items)
    return values if one.many else values[0]


def _misfit(one: Flag, items: list[Any]) -> list[str]:
    """What is wrong with the number of values, or with empty ones."""
    name, metadata = one.spellings[0], one.field.metadata
    if one.kind is str and "" in items and metadata["metavar"] != "TEXT":
        return [f"{name} is given an empty text: {metadata['help']}"]
    if not items:
        return [f"{name} needs a value: {metadata['help']}"]
    if len(items) > 1 and not one.many:
        if found := next(filter(None, (stray(str(item)) for item in items[1:])), ""):
            return [f"behind {name} {items[0]}: {found}"]
        words = " ".join(map(str, items))
        way = metadata["of_several"] or (metadata["otherwise"] if _refusal(one, items[0]) else "")
        return [f"{name} takes one value, not {len(items)}: {words}" + _behind(way)]
    return []


def _refusal(one: Flag, item: Any) -> str:
    """What is wrong with a value; empty where it is right."""
    name, metadata = one.spellings[0], one.field.metadata
    none = LEFT_OUT if is_nothing(str(item)) and (one.many or one.field.default is None) else ""
    way = IN_PATHS_ALONE if is_variable(str(item)) else metadata["otherwise"] or none
    try:
        value = convert(item, one.kind)
    except (TypeError, ValueError, OverflowError):
        several = one.many and as_words(str(item), lambda word: converts(word, one.kind))
        number = written_out(str(item), one.kind) if one.metavar in ("N", "X") else ""  # 5G of GB is not 5e9
        way = several or number or way
        return f"{name} takes {TAKES[one.kind]}, not {item!r}" + _behind(way)
    if not is_utf8(str(value)):
        return f"{name} {value!r} is no UTF-8; rename what it names, or mend how the terminal encodes it"
    if one.kind is str and is_path(one.metavar) and (problem := literal_problem(value)):
        return f"{name} {value}: {problem}"
    if metadata["choices"] and value not in metadata["choices"]:
        for ours, words in metadata["elsewhere"].items():
            if str(value).lower() in words.lower().split():
                return f"{name} {item}: here it is {ours}"
        choices = ", ".join(map(str, metadata["choices"]))
        return f"{name} {item}: choose one of {choices}" + _behind(way)
    if not within(value, metadata):
        words = bounds(metadata)
        must = "not be negative" if words == "at least 0" else f"be {words}"
        return f"{name} {value} must {must}" + _behind(metadata["otherwise"])
    return ""


def _behind(way: str) -> str:
    return f"; {way}" if way else ""
