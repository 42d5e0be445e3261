"""Write docs/flags.md: every flag of training, from the dataclasses that define them. `python
scripts/make_flags_page.py`"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from pathlib import Path

from megatron.config.config import Config
from megatron.config.flags import Flag, flags_of
from megatron.config.foreign import Foreign, our_words
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.config.values import bounds

PAGE = Path(__file__).parents[1] / "docs" / "flags.md"
HEAD = """\
# Flags of training

Made by `python scripts/make_flags_page.py` from `megatron/config/`. The names are Megatron's where
Megatron has the flag. All of them may stand in a YAML file too (`--config FILE.yaml`), alone or grouped in
sections named as below; flags on the command line win. Whole numbers may be written 300e9 or 1_000_000.
Of a flag that is given twice the last value counts, and a note says so;
{repeated} add up, and several {refused} are refused.

*On resume* says what happens where the checkpoint has another value:

- *same*: resuming is refused.
- *schedule*: it is refused unless `--override-opt_param-scheduler` takes the new value.
- *meaning*: what the flag stands for is compared, not how it is written. So files may move.
- *free*: the new value is taken.
"""

OTHERS = """
## Flags of other Megatrons

Flags of Megatron-LM and Megatron-DeepSpeed are read, so that launch scripts keep working. A star stands for
whatever follows. `_` and `-` in names are the same.
"""
FATES = (
    ("Read as flags of ours", "A note says so.", "ours"),
    (
        "Refused",
        "They would change the model, the data, the numbers or what is saved.\n"
        "Without the flag that it belongs to, a flag is not refused but told to be unused.",
        "refused",
    ),
    ("Not used", "They change none of these. One note names those whose value asks for something.", "unused"),
)


def flags_page() -> str:
    """The page as text."""
    every, groups = flags_of(Config), dict[str, list[Flag]]()
    repeated = [one for one in every if one.field.metadata["repeat"]]
    refused = [one for one in every if one.field.metadata["of_several"]]
    parts = [HEAD.format(repeated=_names(repeated), refused=_names(refused))]
    for one in every:
        groups.setdefault(one.group or "file", []).append(one)
    for group, flags in groups.items():
        parts.append(
            f"\n## {group.replace('_', ' ')}\n\n| flag | default | on resume | meaning |\n|---|---|---|---|\n"
            + "".join(map(_row, flags))
        )
    parts.append(OTHERS)
    for title, told, fate in FATES:
        families: dict[str, list[str]] = {}
        for name, entry in FOREIGN_FLAGS.items():
            if _fate(entry) == fate:
                families.setdefault(_reason(entry), []).append(_name(name, entry))
        rows = "".join(f"| {why} | {', '.join(names)} |\n" for why, names in families.items())
        parts.append(f"\n### {title}\n\n{told}\n\n| | flags |\n|---|---|\n{rows}")
    return "".join(parts)


def _names(flags: list[Flag]) -> str:
    return " and ".join(f"`{one.spellings[0]}`" for one in flags)


def _fate(entry: Foreign) -> str:
    return "ours" if entry.ours else "unused" if entry.accepted is None else "refused"


def _reason(entry: Foreign) -> str:
    """Why, or the words of ours."""
    if not entry.ours:
        return entry.why
    words = [our_words(name, values).strip() for name, values in entry.ours([], {}).items()]
    return f"`{' '.join(words)}`" if words else "what its value asks for"


def _name(name: str, entry: Foreign) -> str:
    """The flag with the values that change nothing."""
    harmless = [value for value in entry.accepted or () if value]
    return f"`--{name}`" + (f" (unless {' or '.join(harmless)})" if harmless else "")


def _row(one: Flag) -> str:
    metadata, default = one.field.metadata, one.field.default
    names = ", ".join(f"`{spelling}`" for spelling in one.spellings)
    shown = "required" if one.required else "" if default in (None, False, ()) else f"`{default}`"
    choices = f" ({', '.join(map(str, metadata['choices']))})" if metadata["choices"] else ""
    limits = f" ({bounds(metadata)})" if bounds(metadata) else ""
    text = (metadata["help"] + choices + limits).replace("|", "\\|")
    return f"| {names} | {shown} | {metadata['resume']} | {text} |\n"


def main() -> None:
    PAGE.write_text(flags_page(), encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
