"""Golden files beside what the runs give now: every change in a table, and new files where they are asked
for."""

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from megatron.base.files import whole_file
from megatron.base.terminal import show
from megatron.config.arguments import parse
from megatron.config.flags import flag
from tests.golden.differences import Numbers, changed_steps, largest_differences, number
from tests.golden.runs import RUNS

ABOUT = """Show what has changed against the golden losses, and with --write write the files that differ.

Exit status: 0 where the files are, or were made, as the runs are; 1 where one differs and was not written.
Another processor may round the last digits otherwise, which the test allows for and this shows."""
EXAMPLES = """\
  python tests/golden/test_golden.py
  python tests/golden/test_golden.py --write
"""
FORMATS = {"tokens": ".0f", "loss": ".6f", "gradient norm": ".5f"}
"""The numbers of a line, and how the files spell them."""


@dataclass(frozen=True, kw_only=True)
class Options:
    write: bool = flag(False, "write the files that differ")


def rewrite(folder: Path, losses: Callable[[str], list[str]]) -> None:
    """The command: compare, and write where asked, the file of every run, whose lines `losses` gives."""
    options = parse(Options, sys.argv[1:], description=ABOUT, examples=EXAMPLES)
    differing = [run for run in RUNS if not _is_current(folder / f"{run}.txt", run, losses, options.write)]
    if differing and not options.write:
        print(f"{len(differing)} of {len(RUNS)} files differ and were not written; --write writes them")
        sys.exit(1)


def _is_current(path: Path, run: str, losses: Callable[[str], list[str]], write: bool) -> bool:
    """Whether a golden file is as the run is now; if not, say where, and write it if asked."""
    with redirect_stdout(io.StringIO()):
        text = "\n".join(losses(run)) + "\n"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text == before:
        print(f"{path.name}: as before")
        return True
    show(table(path.name, read_numbers(before), read_numbers(text)))
    if write:
        with whole_file(path, "w") as file:
            file.write(text)
        print(f"wrote {path}")
    return False


def read_numbers(text: str) -> Numbers:
    """The content of a golden file: lines of kind, iteration, tokens, loss and gradient norm."""
    lines = map(str.split, text.splitlines())
    return {f"{kind} {step}": dict(zip(FORMATS, map(float, values))) for kind, step, *values in lines}


def table(name: str, before: Numbers, after: Numbers) -> Table:
    """Old and new numbers of every step that changed, and the largest differences."""
    changed = {quantity: changed_steps(before, after, quantity) for quantity in FORMATS}
    steps = [step for step in {**before, **after} if any(step in some for some in changed.values())]
    result = Table(title=f"{name}: {len(steps)} of {len({**before, **after})} steps changed")
    result.add_column("step", footer="largest difference\n... relative")
    for quantity in FORMATS:
        absolute, relative = largest_differences(before, after, quantity)
        result.add_column(quantity, justify="right", footer=f"{absolute:.2g}\n{relative:.2g}")
    result.show_footer = True
    for step in steps:
        result.add_row(step, *(_cell(before, after, step, quantity) for quantity in FORMATS))
    return result


def _cell(before: Numbers, after: Numbers, step: str, quantity: str) -> str:
    old, new = (
        "none" if value is None else f"{value:{FORMATS[quantity]}}"
        for value in (number(before, step, quantity), number(after, step, quantity))
    )
    return "" if old == new else f"{old} → {new}"
