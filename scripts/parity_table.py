"""Write the table of docs/parallelism.md: how far every layout of ranks is from one rank. Each row is written
as soon as it is there, so a run that was stopped goes on where it was. Rows that are there already stay."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron.base.errors import UserError
from megatron.base.files import whole_file
from megatron.base.terminal import progress
from megatron.config.arguments import parse
from megatron.config.flags import flag
from tests.support.parity import (
    ENCODED,
    EVERY,
    LAYOUTS,
    MIXED,
    MIXTURES,
    OF_EXPERTS,
    PADDED,
    deviations,
    pairs,
    place_of,
)

EXAMPLES = """\
  # rows that are missing; then those of another commit, too; then all rows of two layouts
  python scripts/parity_table.py
  python scripts/parity_table.py --again
  python scripts/parity_table.py --layouts tp2 "cp2 p2p"

  # one row
  python scripts/parity_table.py --layouts tp2 --models gpt
"""
ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "parallelism.md"
START, END = "<!-- parity -->", "<!-- end of parity -->"
HEADINGS = (
    "layout",
    "model",
    "loss",
    "gradient norm",
    "weights",
    "loss, fp32",
    "gradient norm, fp32",
    "code of",
)
CODE = ("megatron", "tests/support")
"""What the numbers depend on."""

Row = tuple[str, str]
"""A layout and a model."""
ROWS: list[Row] = [*pairs(), *MIXED, *ENCODED]
FLAGS = LAYOUTS | OF_EXPERTS | PADDED
NO_PROMISE = ["-", "-"]
"""In single precision a rounding may choose another expert for a token."""
Rows = dict[Row, list[str]]
"""The numbers of rows, and at last the commit of the code."""


@dataclass(frozen=True, kw_only=True)
class Options:
    again: bool = flag(False, "compute anew what another commit's code has made")
    layouts: tuple[str, ...] = flag((), "compute these anew, and no others", choices=FLAGS, metavar="NAME")
    models: tuple[str, ...] = flag((), "and those with these models alone", choices=EVERY, metavar="NAME")


def main() -> None:
    options, commit = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES), commit_of_code()
    there = read_rows(PAGE.read_text(encoding="utf-8"))
    todo, gone = rows_to_do(options, there, commit), there.keys() - set(ROWS)
    ranks = {row: place_of(FLAGS[row[0]])[1].ranks for row in todo}
    print(f"{len(todo)} of {len(ROWS)} rows; {len(gone)} leave that the tests no longer try", flush=True)
    with progress("parity", sum(ranks.values()), "ranks") as advance:
        for layout, model in todo:
            cells = [*_numbers(layout, model), commit]
            page = PAGE.read_text(encoding="utf-8")
            with whole_file(PAGE, "w") as file:
                file.write(with_rows(page, read_rows(page) | {(layout, model): cells}))
            print(line((layout, model, *cells)), flush=True)
            advance(ranks[layout, model], f"({layout}, {model})")


def _numbers(layout: str, model: str) -> list[str]:
    numbers = deviations(model, FLAGS[layout], torch.float64)
    if model in MIXTURES:
        return [*(f"{number:.0e}" for number in numbers), *NO_PROMISE]
    numbers += deviations(model, FLAGS[layout], torch.float32)[:2]
    return [f"{number:.0e}" for number in numbers]


def rows_to_do(options: Options, there: Rows, commit: str) -> list[Row]:
    """The rows that the options ask for, in the order of the table."""
    named = [
        (layout, model)
        for layout, model in ROWS
        if layout in (options.layouts or (layout,)) and model in (options.models or (model,))
    ]
    if not named:
        tried = [f"{layout} with {model}" for layout, model in ROWS if layout in options.layouts]
        raise UserError(f"--models {' '.join(options.models)}: no such row; there are {', '.join(tried)}")
    if options.layouts or options.models:
        return named
    changed = commit.endswith("+")
    old = {row for row in there if changed or there[row][-1] != commit} if options.again else set()
    return [row for row in named if row not in there or row in old]


def read_rows(page: str) -> Rows:
    """The rows of a page; those that name no commit have an empty one."""
    rows: Rows = {}
    for one in page.split(START)[1].split(END)[0].strip().splitlines()[2:]:
        layout, model, *cells = (cell.strip() for cell in one.strip("|").split("|"))
        rows[layout, model] = [*cells, *[""] * (len(HEADINGS) - 2 - len(cells))]
    return rows


def with_rows(page: str, rows: Rows) -> str:
    """The page with these rows in the order of the tests; a row that they do not have is left out."""
    before, rest = page.split(START)
    lines = [line(HEADINGS), "|" + "---|" * len(HEADINGS)]
    lines += [line((*row, *rows[row])) for row in ROWS if row in rows]
    return f"{before}{START}\n" + "\n".join(lines) + f"\n{END}{rest.split(END)[1]}"


def line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def commit_of_code() -> str:
    """The last commit that changed what the numbers depend on, with a plus where files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words, "--", *CODE], cwd=ROOT, check=True, stdout=subprocess.PIPE)
        return done.stdout.decode().strip()

    return git("log", "-1", "--format=%h") + ("+" if git("status", "--porcelain") else "")


if __name__ == "__main__":
    run_command(main)
