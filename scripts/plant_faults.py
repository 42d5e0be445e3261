"""Say which small faults the tests would not notice: plant one fault at a time in a copy of the tree, run the
tests beside the file until one fails, and list what none has noticed.

The same --seed plants the same faults. Exit status: 0 all noticed, 1 some not, 2 a mistake, or tests that
fail without a fault."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.table import Column, Table

from megatron.base.errors import UserError
from megatron.base.keys import key
from megatron.base.terminal import show
from megatron.config.arguments import parse
from megatron.config.flags import flag
from tests.support.faults import ROOT, Fault, beside, faults_of

EXAMPLES = """\
  # three faults in every file of a room and in one more file; --list shows the faults alone
  python scripts/plant_faults.py --files megatron/batches megatron/data/corpora.py

  # two of them once more, and with other tests than those beside the file
  python scripts/plant_faults.py --files megatron/batches/gpt.py:17 megatron/batches/loader.py:4
  python scripts/plant_faults.py --files megatron/batches/gpt.py:17 --tests tests/golden/test_golden.py
"""
LEFT = (".*", "__pycache__", "runs", "*.egg-info")


@dataclass(frozen=True, kw_only=True)
class Options:
    files: tuple[str, ...] = flag(("megatron",), "files, folders, or faults as FILE:NUMBER", metavar="PATH")
    faults: int = flag(3, "faults to plant in every file", at_least=1)
    seed: int = flag(1, "which faults are drawn")
    tests: tuple[str, ...] = flag((), "tests to run; those beside the file", metavar="PATH")
    timeout: float = flag(600.0, "seconds after which a fault counts as noticed", above=0)
    list: bool = flag(False, "show the faults and run nothing")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES)
    faults = [fault for name in options.files for fault in drawn(name, options.faults, options.seed)]
    if options.list:
        print("\n".join(map(_line, faults)))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the copy is removed then, too
    noticed: list[Fault] = []
    for fault, how in _judged(faults, options.tests, options.timeout):
        noticed += [fault] * bool(how)
        print(f"{_line(fault)}  [{how or 'NOT noticed'}]", flush=True)
    show(_table(faults, noticed))
    sys.exit(0 if len(noticed) == len(faults) else 1)


def _line(fault: Fault) -> str:
    return f"{fault.file}:{fault.number} line {fault.line}: {fault.old} → {fault.new}"


def drawn(name: str, count: int, seed: int) -> Iterator[Fault]:
    """The faults that a name of --files asks for, as they stand in the files."""
    path, _, number = name.partition(":")
    place = (ROOT / path).resolve()
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    if not place.exists() or not place.is_relative_to(ROOT):
        raise UserError(f"--files {name}: no such file or folder in {ROOT}")
    for file in files:
        relative = file.relative_to(ROOT).as_posix()
        known = faults_of(relative, file.read_bytes())
        if number and not (number.isdecimal() and int(number) < len(known)):
            raise UserError(f"--files {name}: the faults of {relative} are 0 to {len(known) - 1}")
        order = sorted(range(len(known)), key=lambda n, relative=relative: key(seed, relative, n))
        yield from (known[n] for n in ([int(number)] if number else sorted(order[:count])))


def _judged(faults: list[Fault], tests: tuple[str, ...], timeout: float) -> Iterator[tuple[Fault, str]]:
    """Every fault with how it was noticed, or with ""."""
    whole: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="plant_faults_") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT))
        for fault in faults:
            asked = tests or beside(fault.file)
            new = tuple(test for test in asked if not whole & {test, os.path.dirname(test)})
            if new and (failed := _run(tree, new, timeout)):
                raise UserError(f"{' '.join(new)}: {failed} without a fault; mend that first")
            whole |= {*new}
            path = tree / fault.file
            source, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
            for content in (fault.planted(source), source):
                path.write_bytes(content)
                for kept in [*tree.rglob("__pycache__")] if b"@compiled" in source else []:
                    shutil.rmtree(kept)  # numba does not see a change in a function that another file calls
                if content != source:
                    near = _run(tree, asked[:1], timeout)
                    yield fault, near or (_run(tree, asked, timeout) if asked[1:] else "")
            os.utime(path, ns=times)


def _run(tree: Path, tests: tuple[str, ...], timeout: float) -> str:
    """Run tests of a tree until one fails, and say which; "" where none does."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--hypothesis-seed=0", *tests]
    more = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        more |= {"TMPDIR": scratch, "HYPOTHESIS_STORAGE_DIRECTORY": scratch}
        log = Path(scratch) / "log"
        with open(log, "wb") as out:
            running = subprocess.Popen(
                words, cwd=tree, env=os.environ | more, stdout=out, stderr=out, start_new_session=True
            )
        try:
            status = running.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"late after {timeout:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)  # what the tests have started, too
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
    which = " ".join(
        line.split()[1].split("::")[-1] for line in said if line.startswith(("FAILED ", "ERROR "))
    )
    return f"{which or 'pytest'} failed after {time.perf_counter() - began:.0f} s" if status else ""


def _table(faults: list[Fault], noticed: list[Fault]) -> Table:
    """One row a file."""
    table = Table("file", *(Column(name, justify="right") for name in ("planted", "noticed", "share")))
    planted, seen = (Counter(fault.file for fault in some) for some in (faults, noticed))
    for name in planted:
        table.add_row(name, str(planted[name]), str(seen[name]), f"{seen[name] / planted[name]:.0%}")
    table.add_row("all", str(len(faults)), str(len(noticed)), f"{len(noticed) / max(1, len(faults)):.0%}")
    return table


if __name__ == "__main__":
    run_command(main)
