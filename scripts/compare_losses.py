"""Say whether a change of the code, or of flags, changes a training's numbers: the same short trainings on
two commits or with two sets of flags, every loss and gradient norm compared to the last bit.

Exit status: 0 all equal, 1 something differs, 2 a mistake or a training that fails. Side A is the commit
--base, or the working tree, with --flags-a; side B is the commit --head, or the working tree, with
--flags-b. A commit is checked out into a temporary worktree; nothing in yours is touched."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import json
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from megatron.base.errors import UserError, collect_problems
from megatron.base.terminal import progress, show
from megatron.config.arguments import parse
from megatron.config.flags import flag
from tests.golden.differences import Numbers, changed_steps, largest_differences, number
from tests.golden.runs import COMMON, ENTRIES, RUNS

EXAMPLES = """\
  # what is not committed yet against the last commit; then one commit against another
  python scripts/compare_losses.py --base HEAD
  python scripts/compare_losses.py --base main --head feature

  # one training, its first five steps, in bf16 on both sides
  python scripts/compare_losses.py --base HEAD --run llama_like --steps 5 --flags "--bf16"

  # two ways to say the same
  python scripts/compare_losses.py --flags-a "--lr-warmup-iters 4" --flags-b "--lr-warmup-fraction 0.1"

  # a commit in which a flag had another name
  python scripts/compare_losses.py --base v0.1 --flags-a "--no-bias" --flags-b "--disable-bias-linear"
"""
ROOT = Path(__file__).resolve().parents[1]
QUANTITIES = ("loss", "gradient norm")


@dataclass(frozen=True, kw_only=True)
class Options:
    base: str | None = flag(None, "commit of side A; the working tree")
    head: str | None = flag(None, "commit of side B; the working tree")
    flags_a: str | None = flag(None, "more flags of training for side A", metavar="TEXT")
    flags_b: str | None = flag(None, "more flags of training for side B", metavar="TEXT")
    flags: str | None = flag(None, "more flags of training for both sides; a later flag wins", metavar="TEXT")
    run: tuple[str, ...] = flag(
        tuple(RUNS), "trainings of tests/golden/runs.py", metavar="NAME", choices=RUNS
    )
    steps: int | None = flag(None, "stop each after so many steps; all steps")


class Side(NamedTuple):
    """One of the two that are compared. `commit`: its hash; None is the working tree."""

    name: str
    commit: str | None
    flags: list[str]


def main() -> None:
    options = parse(Options, _with_texts_joined(sys.argv[1:]), description=__doc__, examples=EXAMPLES)
    sides = _sides(options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that worktrees are removed then, too
    before, after = _train_both(options, sides)
    for side in sides:
        print(f"{side.name}: {_describe(side)}")
    show(_table(before, after))
    changed = sum(len(changed_steps(before[run], after[run], what)) for run in before for what in QUANTITIES)
    print("different" if changed else "equal to the last bit")
    sys.exit(1 if changed else 0)


def _with_texts_joined(words: list[str]) -> list[str]:
    """`--flags TEXT` as the one word `--flags=TEXT`; argparse takes a text that begins with - for a flag."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--flags", "--flags-a", "--flags-b"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _sides(options: Options) -> tuple[Side, Side]:
    """Both sides; UserError with all that is wrong."""
    problems: list[str] = []
    if options.base is None and options.flags_a is None and options.flags_b is None:
        problems.append("there is nothing to compare; give --base COMMIT, or --flags-a and --flags-b")
    if options.head is not None and options.base is None:
        problems.append(f"--head {options.head} needs --base, the commit to compare it with")
    if options.steps is not None and options.steps < 1:
        problems.append(f"--steps {options.steps} must be at least 1")
    sides = []
    for name, flag_name, revision in (("A", "base", options.base), ("B", "head", options.head)):
        commit, flags = None, []
        with collect_problems(problems):
            commit = None if revision is None else _commit(revision, flag_name)
        with collect_problems(problems):
            flags = _words(options, name.lower())
        sides.append(Side(name, commit, flags))
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return sides[0], sides[1]


def _words(options: Options, side: str) -> list[str]:
    """The flags of a side, behind those of the training."""
    words = [] if options.steps is None else ["--exit-interval", str(options.steps)]
    for name in ("flags", f"flags_{side}"):
        text = getattr(options, name) or ""
        try:
            words += shlex.split(text)
        except ValueError as error:
            raise UserError(f"--{name.replace('_', '-')} {text}: is no line of flags ({error})") from None
    return words


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)


def _commit(revision: str, flag_name: str) -> str:
    """The hash of a commit of this repository."""
    top = _git("rev-parse", "--show-toplevel")
    if top.returncode or Path(top.stdout.strip()).resolve() != ROOT:
        said = " ".join(top.stderr.split()) or f"it lies in that of {top.stdout.strip()}"
        raise UserError(
            f"--{flag_name} {revision}: {ROOT} is no git checkout ({said}); compare --flags-a and --flags-b"
        )
    found = _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found.returncode:
        raise UserError(
            f"--{flag_name} {revision}: no such commit here; git log lists them, git fetch gets more"
        )
    return found.stdout.strip()


def _describe(side: Side) -> str:
    where = "the working tree"
    if side.commit is not None:
        where = "commit " + _git("log", "-1", "--format=%h %s", side.commit).stdout.strip()
    return f"{where}, with {shlex.join(side.flags) or 'no more flags'}"


@contextmanager
def _tree(side: Side) -> Iterator[Path]:
    """The folder of a side's code: this one, or a temporary worktree."""
    if side.commit is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory(prefix="compare_losses_") as folder:
        tree = Path(folder) / "tree"
        added = _git("worktree", "add", "--quiet", "--detach", str(tree), side.commit)
        if added.returncode:
            raise UserError(f"git worktree add {side.commit}: {added.stderr.strip()}")
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _train_both(options: Options, sides: tuple[Side, Side]) -> tuple[dict[str, Numbers], dict[str, Numbers]]:
    """What every training recorded, by its name, on both sides."""
    found: list[dict[str, Numbers]] = [{}, {}]
    told = progress("training", 2 * len(options.run), "runs")
    with _tree(sides[0]) as first, _tree(sides[1]) as second, told as advance:
        for run in dict.fromkeys(options.run):
            for side, tree, numbers in zip(sides, (first, second), found):
                numbers[run] = _train(run, side, tree)
                advance(1, f"{run}, side {side.name}")
    return found[0], found[1]


def _train(run: str, side: Side, tree: Path) -> Numbers:
    """What a training records, in a process of its own that sees the code of `tree`."""
    paths = [str(tree), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "metrics.jsonl"
        words = [*shlex.split(COMMON + RUNS[run]), *side.flags, "--metrics-file", str(record)]
        done = subprocess.run(
            [sys.executable, ENTRIES[run], *words],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        numbers = _numbers(record) if record.is_file() else {}
    if done.returncode or not numbers:
        said = " / ".join(done.stderr.strip().splitlines()[-5:])
        raise UserError(
            f"side {side.name} ({_describe(side)}): the training {run} ended with status {done.returncode} "
            f"and {len(numbers)} recorded losses; its last words: {said}"
        )
    return numbers


def _numbers(record: Path) -> Numbers:
    """Losses and gradient norms of a --metrics-file. JSON keeps every bit of a number."""
    lines = map(json.loads, record.read_text(encoding="utf-8").splitlines())
    return {
        f"{line['kind']} {line['iteration']}": dict(zip(QUANTITIES, (line[name], line.get("grad_norm"))))
        for line in lines
        for name in ("lm_loss", "loss")  # over tokens, or over images
        if name in line
    }


def _table(before: dict[str, Numbers], after: dict[str, Numbers]) -> Table:
    """One row a training and quantity."""
    table = Table(title="first and largest differences")
    for heading in ("training", "number", "changed", "first at", "A", "B", "max abs", "max rel"):
        table.add_column(heading, justify="left" if heading in ("training", "number") else "right")
    for run, first in before.items():
        second = after[run]
        for quantity in QUANTITIES:
            table.add_row(run, quantity, *_cells(first, second, quantity))
    return table


def _cells(first: Numbers, second: Numbers, quantity: str) -> list[str]:
    recorded = [
        step for step in {**first, **second} if number({**first, **second}, step, quantity) is not None
    ]
    changed = changed_steps(first, second, quantity)
    counts = f"{len(changed)} of {len(recorded)}"
    if not changed:
        return [counts, "", "", "", "", ""]
    absolute, relative = largest_differences(first, second, quantity)
    values = [str(number(numbers, changed[0], quantity)) for numbers in (first, second)]
    return [counts, changed[0], *values, f"{absolute:.2g}", f"{relative:.2g}"]


if __name__ == "__main__":
    run_command(main)
