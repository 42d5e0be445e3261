"""Command lines from dataclasses: every field is a flag, every mistake is collected and told at once.

A command declares a frozen dataclass whose fields are made by `flag` (`flags.py`), and calls `parse`. Field
`train_iters` is the flag `--train-iters`. Where the dataclass has a field `config`, the same names may
stand in a YAML file; flags win over the file.
"""

import argparse
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from megatron.base.errors import UserError
from megatron.config.flags import Flag, flags_of, value_of
from megatron.config.foreign import (
    BY_LAUNCHERS,
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
from megatron.config.literal import odd_words
from megatron.config.repeated import given_again, last_counts, lost
from megatron.config.values import Known, Unknown, converts, with_home
from megatron.config.yaml_file import without_switched_off


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
    groups = known(options, values)
    follow(options, groups, partial=False)
    return build(options, groups)


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
    values = {one.name: value_of(one, ours[one.name], problems) for one in flags if one.name in ours}
    for one in flags:
        if one.field.metadata["rewrites"] and values.get(one.name):
            of_file, told = (_collected(flags, given, foreign) for given in (from_file, typed))
            rewritten, more = one.field.metadata["rewrites"](of_file, told)
            values, problems = rewritten | told, problems + more
    return values, problems + foreign_problems(raw, foreign)


def _collected(flags: list[Flag], raw: Mapping[str, Any], foreign: Mapping[str, Foreign]) -> dict[str, Any]:
    """The values of what is given in one place; problems are told where all is read."""
    ours = translate(raw, foreign)[0]
    return {one.name: value_of(one, ours[one.name], []) for one in flags if one.name in ours}


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


def follow(options: type, groups: Known, partial: bool) -> None:
    """Fill in what follows from other flags, in whatever order it can be. `partial`: something is unknown,
    and so is what follows from it."""
    waiting = []
    for one in flags_of(options):
        group = getattr(groups, one.group, groups)
        if one.field.metadata["follows"] and vars(group).get(one.name, Unknown) == one.field.default:
            delattr(group, one.name)
            waiting.append((group, one.name, one.field.metadata["follows"]))
    while waiting:
        unknown = [one for one in waiting if not _fill(*one, groups)]
        if len(unknown) == len(waiting):
            break
        waiting = unknown
    if waiting and not partial:
        raise Unknown(f"{', '.join(name for _, name, _ in waiting)}: follows from what is never known")


def _fill(group: Known, name: str, follows: Callable[..., Any], groups: Known) -> bool:
    """Whether a value can be told yet; then it is."""
    try:
        setattr(group, name, ask(follows, groups))
    except Unknown:
        return False
    return True


def ask(function: Callable[..., Any], groups: Known) -> Any:
    """What a function says of the groups that its parameters name."""
    return function(**{name: getattr(groups, name) for name in inspect.signature(function).parameters})


def _read(
    flags: list[Flag], argv: list[str], description: str, examples: str, foreign: Mapping[str, Foreign]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """What is given on the command line and in files, each by names of our flags and by `foreign-NAME`, as
    argparse and YAML have it, and what is not understood."""
    ours = {dashed(name): name for one in flags for name in one.spellings}
    if odd := odd_words(argv, ours):
        raise UserError(*odd)
    words = _joined([spelled(word, ours) for word in argv])
    switches = {dashed(name) for one in flags if one.kind is bool for name in one.spellings}
    met = {name for word in words if (name := flag_name(word)) and find(foreign, name, switches)}
    met = {name for name in met if dashed(name) not in ours}
    given, unknown = _parser(flags, description, examples, sorted(met)).parse_known_args(words)
    strange = [word for word in unknown if word.startswith("-") and not converts(word, float)] or unknown
    shown = [name for one in flags if one.field.metadata["help"] for name in one.spellings]
    problems = [unknown_word(word, shown, foreign, switches) for word in strange]
    problems += [
        lost(texts, one.field.metadata["of_several"]) for one, texts in _given_again(flags, argv, add_up=True)
    ]
    raw = vars(given)
    if raw.get("config") and raw["config"][-1]:
        names = {dashed(name): one.name for one in flags for name in one.spellings}
        groups = {one.group for one in flags if one.group}
        try:
            from_file, more = read_with_includes(
                with_home(raw["config"][-1]),
                names,
                groups,
                lambda name: bool(find(foreign, name, switches)),
                switches,
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
        return value_of(once[name], words or ["true"] * (once[name].kind is bool), [])

    return [(once[name], texts) for name, texts in given_again(argv, named, read).items()]


class _Parser(argparse.ArgumentParser):
    """One whose mistakes are told as all others, as of -hidden-size, which begins as -h does."""

    def error(self, message: str) -> typing.NoReturn:
        raise UserError(f"{message}; flags begin with --, and --help lists all")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help with one line a flag where it fits, and plain names for values."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36, width=120)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return super()._format_action_invocation(action).rstrip()

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar or "")


def _without_own(foreign: Mapping[str, Foreign], flags: list[Flag]) -> dict[str, Foreign]:
    """Flags of another Megatron and of launchers, less those that are flags of our own by now."""
    own = {dashed(name) for one in flags for name in one.spellings}
    return {name: entry for name, entry in {**BY_LAUNCHERS, **foreign}.items() if name not in own}


def _parser(
    flags: list[Flag], description: str, examples: str, foreign: Iterable[str]
) -> argparse.ArgumentParser:
    """The argparse parser that splits the command line and prints the help; values are read by `_collect`."""
    parser = _Parser(
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
