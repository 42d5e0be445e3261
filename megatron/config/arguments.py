"""Command lines from dataclasses: every field is a flag, every mistake is collected and told at once.

A command declares a frozen dataclass whose fields are made by `flag`, and calls `parse`. Field
`train_iters` is the flag `--train-iters`. Where the dataclass has a field `config`, the same names may
stand in a YAML file; flags win over the file.
"""

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from megatron.base.errors import UserError
from megatron.base.files import is_utf8
from megatron.config.foreign import (
    Foreign,
    dashed,
    find,
    flag_name,
    foreign_notes,
    foreign_problems,
    spelled,
    translate,
    unknown_word,
)
from megatron.config.include import read_with_includes
from megatron.config.literal import is_path, literal_problem, odd_words
from megatron.config.repeated import given_again, last_counts, lost
from megatron.config.values import (
    TAKES,
    Known,
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
from megatron.config.yaml_file import without_switched_off

RESUME = ("same", "schedule", "meaning", "free")
"""What a run that goes on from a checkpoint does about a changed value, the strictest first: refuse it;
refuse it without --override-opt_param-scheduler; leave it to a comparison of what it means; take it."""


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
) -> Any:
    """A dataclass field that is a flag; without a default it is required. `repeat`: given several times,
    each one value. `follows`: from groups by their names, the value where the flag has its default, which
    the field's type need not allow. `resume`: one of RESUME. `rewrites`: from the values by flag name
    of files, and of the command line, what files say instead, and problems. `of_several`: what to do with
    several values where one is taken, or instead of the flag several times. One without `help` is read and
    not shown."""
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


def parse(
    options: type,
    argv: list[str],
    *,
    description: str,
    examples: str = "",
    foreign: Mapping[str, Foreign] = types.MappingProxyType({}),
) -> Any:
    """An instance of the dataclass `options` from a command line; UserError with every problem found."""
    values, problems = understand(options, argv, description, examples, foreign)
    if problems := [*problems, *missing(options, values)]:
        raise UserError(*problems)
    return build(options, known(options, values))


def understand(
    options: type,
    argv: list[str],
    description: str = "",
    examples: str = "",
    foreign: Mapping[str, Foreign] = types.MappingProxyType({}),
) -> tuple[dict[str, Any], list[str]]:
    """The given values by flag name, None where one is refused, and every problem found. What is not given
    is left out, also where it is required."""
    flags = flags_of(options)
    foreign = _without_own(foreign, flags)
    typed, from_file, problems = _read(flags, argv, description, examples, foreign)
    from_file = without_switched_off(from_file, typed)
    raw = from_file | typed
    ours, more = translate(raw, foreign)
    problems += more
    values = {one.name: _collect(one, ours[one.name], problems) for one in flags if one.name in ours}
    for one in flags:
        if one.field.metadata["rewrites"] and values.get(one.name):
            of_file, told = (_collected(flags, given, foreign) for given in (from_file, typed))
            rewritten, more = one.field.metadata["rewrites"](of_file, told)
            values, problems = rewritten | told, problems + more
    return values, problems + foreign_problems(raw, foreign)


def _collected(flags: list[Flag], raw: Mapping[str, Any], foreign: Mapping[str, Foreign]) -> dict[str, Any]:
    """The values of what is given in one place; problems are told where all is read."""
    ours = translate(raw, foreign)[0]
    return {one.name: _collect(one, ours[one.name], []) for one in flags if one.name in ours}


def unused_flags(options: type, argv: list[str], foreign: Mapping[str, Foreign]) -> list[str]:
    """Lines that say which of the given flags of another Megatron do nothing here, and which are read as
    others; and which of two values of one flag counts."""
    flags = flags_of(options)
    foreign = _without_own(foreign, flags)
    typed, from_file, _ = _read(flags, argv, "", "", foreign)
    again = [last_counts(texts) for _, texts in _given_again(flags, argv, add_up=False)]
    return [*foreign_notes(from_file | typed, foreign), *again]


def missing(options: type, values: Mapping[str, Any]) -> list[str]:
    """What is required and not given."""
    return [
        f"{one.spellings[0]} is required: {one.field.metadata['help']}"
        for one in flags_of(options)
        if one.required and one.name not in values
    ]


def known(options: type, values: Mapping[str, Any]) -> Known:
    """The values and defaults of `options`, grouped as there, without what is missing or refused."""
    groups = Known()
    for one in flags_of(options):
        group = vars(groups).setdefault(one.group, Known()) if one.group else groups
        value = values.get(one.name, one.field.default)
        if value is not dataclasses.MISSING and not (value is None and one.name in values):
            setattr(group, one.name, value)
    return groups


def build(options: type, values: Known) -> Any:
    """An instance of the dataclass `options` from values that are all known."""
    hints = typing.get_type_hints(options)
    mine = {field.name: getattr(values, field.name) for field in dataclasses.fields(options)}
    return options(
        **{name: hints[name](**vars(one)) if isinstance(one, Known) else one for name, one in mine.items()}
    )


def _read(
    flags: list[Flag], argv: list[str], description: str, examples: str, foreign: Mapping[str, Foreign]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """What is given on the command line and in files, each by names of our flags and by `foreign-NAME`, as
    argparse and YAML have it, and what is not understood."""
    ours = {dashed(name): name for one in flags for name in one.spellings}
    if odd := odd_words(argv, ours):
        raise UserError(*odd)
    words = _joined([spelled(word, ours) for word in argv])
    met = {name for word in words if (name := flag_name(word)) and find(foreign, name)}
    met = {name for name in met if dashed(name) not in ours}
    given, unknown = _parser(flags, description, examples, sorted(met)).parse_known_args(words)
    strange = [word for word in unknown if word.startswith("-")] or unknown
    switches = {dashed(name) for one in flags if one.kind is bool for name in one.spellings}
    problems = [unknown_word(word, ours.values(), foreign, switches) for word in strange]
    problems += [
        lost(texts, one.field.metadata["of_several"]) for one, texts in _given_again(flags, argv, add_up=True)
    ]
    raw = vars(given)
    if raw.get("config"):
        names = {dashed(name): one.name for one in flags for name in one.spellings}
        groups = {one.group for one in flags if one.group}
        try:
            from_file, more = read_with_includes(
                with_home(raw["config"][-1]), names, groups, lambda name: bool(find(foreign, name)), switches
            )
        except ValueError as error:
            raise UserError(*problems, f"--config {raw['config'][-1]}: {error}") from None
        lists = {one.name for one in flags if one.many and one.field.default == ()}
        none = {name for name, value in from_file.items() if name in lists and value in ([], {})}
        return raw, {name: value for name, value in from_file.items() if name not in none}, problems + more
    return raw, {}, problems


def _joined(words: list[str]) -> list[str]:
    """The words with a text such as -1,64 joined to the flag before it: argparse takes it for a flag."""
    found: list[str] = []
    for word in words:
        before = found[-1] if found else ""
        if re.fullmatch(r"-\d+(,-?\d+)+", word, re.ASCII) and flag_name(before) and "=" not in before:
            found[-1] = f"{before}={word}"
        else:
            found.append(word)
    return found


def _given_again(flags: list[Flag], argv: list[str], add_up: bool) -> list[tuple[Flag, list[str]]]:
    """Flags that are given several times and count once, and the words of each time. `add_up`: those that say
    what to do instead, as both values are meant, or the others."""
    once = {
        one.name: one
        for one in flags
        if not one.field.metadata["repeat"] and bool(one.field.metadata["of_several"]) == add_up
    }
    named = {dashed(name): one.name for one in once.values() for name in one.spellings}

    def read(name: str, words: list[str]) -> Any:
        return _collect(once[name], words or ["true"] * (once[name].kind is bool), [])

    return [(once[name], texts) for name, texts in given_again(argv, named, read).items()]


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


def _without_own(foreign: Mapping[str, Foreign], flags: list[Flag]) -> dict[str, Foreign]:
    """Flags of another Megatron, less those that are flags of our own by now."""
    own = {dashed(name) for one in flags for name in one.spellings}
    return {name: entry for name, entry in foreign.items() if name not in own}


def _parser(
    flags: list[Flag], description: str, examples: str, foreign: Iterable[str]
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
    metadata = one.field.metadata
    shape: dict[str, Any] = {"nargs": "?", "const": "true", "metavar": ""}
    if one.kind is not bool:
        shape = {"nargs": "*", "action": "append" if metadata["repeat"] else "store"}
        shape["metavar"] = one.metavar
    group.add_argument(*one.spellings, dest=one.name, help=_help(one), **shape)


def _help(one: Flag) -> str:
    metadata, default = one.field.metadata, one.field.default
    text = metadata["help"]
    if not text:
        return argparse.SUPPRESS
    if metadata["choices"]:
        text += f" [{' | '.join(map(str, metadata['choices']))}]"
    if one.required:
        text += " (required)"
    elif default not in (None, False, ()):
        text += f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"
    return text.replace("%", "%%")


def _collect(one: Flag, raw: Any, problems: list[str]) -> Any:
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
        instead = f"; {metadata['of_several']}" if metadata["of_several"] else ""
        return [f"{name} takes one value, not {len(items)}: {' '.join(map(str, items))}{instead}"]
    return []


def _refusal(one: Flag, item: Any) -> str:
    """What is wrong with a value; empty where it is right."""
    name, metadata = one.spellings[0], one.field.metadata
    try:
        value = convert(item, one.kind)
    except (TypeError, ValueError, OverflowError):
        several = one.many and as_words(str(item), lambda word: converts(word, one.kind))
        way = several or written_out(str(item), one.kind)
        return f"{name} takes {TAKES[one.kind]}, not {item!r}" + (f"; {way}" if way else "")
    if not is_utf8(str(value)):
        return f"{name} {value!r} is no UTF-8; rename what it names, or mend how the terminal encodes it"
    if one.kind is str and is_path(one.metavar) and (problem := literal_problem(value)):
        return f"{name} {value}: {problem}"
    if metadata["choices"] and value not in metadata["choices"]:
        return f"{name} {item}: choose one of {', '.join(map(str, metadata['choices']))}"
    if not within(value, metadata):
        words = bounds(metadata)
        return f"{name} {value} must " + ("not be negative" if words == "at least 0" else f"be {words}")
    return ""
