"""A command in a Python that cannot run it, or stopped while it imports, says so in one line."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMANDS = [
    "pretrain_gpt.py",
    *(
        str(path.relative_to(ROOT))
        for folder in ("tools", "scripts", "benchmarks")
        for path in sorted((ROOT / folder).glob("*.py"))
        if "run_command(main" in path.read_text(encoding="utf-8")
    ),
]
BARE = [sys.executable, "-S", "-E", "-s"]  # a Python that has the standard library alone
INSTALL = (
    r"python3 -m venv \.venv && \.venv/bin/pip install -c constraints\.txt -e \. && \. \.venv/bin/activate"
)
LACKING = r"error: \S*python\S* has no module (\w+); "


def ended(words: list[str], folder: Path, **environment: str) -> tuple[int, str]:
    """Status and error output of a process."""
    surroundings = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=surroundings, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of a tool and of what it starts with."""
    for name in (
        "tools/plan_run.py",
        "megatron/base/start.py",
        "megatron/base/command.py",
        "megatron/base/errors.py",
        "megatron/base/output.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_python_without_the_packages_is_told_the_way(command: str, tmp_path: Path) -> None:
    status, said = ended([*BARE, str(ROOT / command), "--help"], tmp_path)
    assert status == 2
    assert re.fullmatch(LACKING + r"(make|enter) the environment first: .*\n", said), said


def test_the_way_is_one_that_can_be_pasted(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    status, said = ended([*BARE, "tools/plan_run.py"], tree)
    assert status == 2 and re.fullmatch(LACKING + f"make the environment first: {INSTALL}\n", said), said
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    said = ended([*BARE, str(tree / "tools" / "plan_run.py")], elsewhere)[1]
    assert re.fullmatch(LACKING + f"make the environment first: cd {tree} && {INSTALL}\n", said), said
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "bin" / "activate").touch()
    said = ended([*BARE, "-m", "tools.plan_run"], tree)[1]
    assert re.fullmatch(LACKING + r"enter the environment first: \. \.venv/bin/activate\n", said), said


def test_the_first_rank_speaks_for_all(tree: Path) -> None:
    assert ended([*BARE, "tools/plan_run.py"], tree, RANK="1") == (2, "")
    assert ended([*BARE, "tools/plan_run.py"], tree, RANK="0")[1].count("\n") == 1


def test_an_old_python_is_told_the_way(tree: Path) -> None:
    """Here the version is only called old; the next test holds the words to what an old Python reads."""
    code = (
        "import sys, runpy, __main__; sys.hexversion = 0x30A0DF0; __main__.__file__ = 'tools/plan_run.py'; "
        "runpy.run_path('tools/plan_run.py', run_name='__main__')"
    )
    status, said = ended([sys.executable, "-c", code], tree)
    assert status == 2
    assert re.fullmatch(
        f"error: Python 3.11 or newer is needed, not [0-9.]+; make [^:]*: {INSTALL}\n", said
    ), said


@pytest.mark.parametrize("name", [*COMMANDS, "megatron/base/start.py", "megatron/base/command.py"])
def test_an_old_python_can_read_what_runs_first(name: str) -> None:
    ast.parse((ROOT / name).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_a_module_that_this_tree_lacks_is_a_bug(tree: Path) -> None:
    (tree / "megatron" / "base" / "errors.py").unlink()
    status, said = ended([*BARE, "tools/plan_run.py"], tree)
    assert status == 1 and "ModuleNotFoundError: No module named 'megatron.base.errors'" in said


BROKEN = r"numpy cannot be imported by \S+: "


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("import absent_part", r"\S+ has no module absent_part, which numpy needs; install it, or make "),
        (
            "raise ImportError('built for another one')",
            BROKEN + "built for another one; install it again, ",
        ),
        ("raise OSError('libx.so: cannot open')", BROKEN + "libx.so: cannot open; "),
        ("from json import no_such_name", BROKEN + "cannot import name 'no_such_name' from 'json'.*; "),
        ("None.dtype", BROKEN + "'NoneType' object has no attribute 'dtype'; "),
    ],
)
def test_a_package_that_is_broken_is_told_by_its_name_and_reason(
    tree: Path, tmp_path_factory: pytest.TempPathFactory, content: str, told: str
) -> None:
    packages = tmp_path_factory.mktemp("packages")
    (packages / "numpy.py").write_text(content + "\n")
    status, said = ended([sys.executable, "-S", "tools/plan_run.py"], tree, PYTHONPATH=str(packages))
    assert status == 2 and re.fullmatch(f"error: {told}.*\n", said), said


def test_ctrl_c_while_a_command_imports_is_no_traceback(tree: Path) -> None:
    (tree / "numpy.py").write_text(
        "import time\n"
        "print('importing', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    raise ImportError\n"  # libraries do so
    )
    process = subprocess.Popen(
        [*BARE, "tools/plan_run.py"], cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == "interrupted\n"
    assert process.returncode == 130


def test_the_figures_of_a_notebook_are_none_of_a_command(tmp_path: Path) -> None:
    """Jupyter hands its own drawing to all that it starts, also where their Python lacks it."""
    told = ended(
        [sys.executable, str(ROOT / "tools/report.py"), "--help"], tmp_path, MPLBACKEND="module://none"
    )
    assert told == (0, "")
