"""numba's functions where its folders can be written, and where none can."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FUNCTIONS = """\
from megatron.base.compiled import compiled

@compiled("int64(int64)")
def double(number):
    return 2 * number
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A module whose `__pycache__` is a file, so that nothing can be written there, whoever asks; and a
    home folder that is none."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "tree" / "__pycache__").touch()
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tree"


def run(tree: Path, temporary: str) -> str:
    """What doubling 21 gives in a process of its own, and the temporary folder's numba files."""
    code = (
        "import tempfile, megatron.base.files; "
        f"tempfile.tempdir = {temporary!r}; import functions; print(functions.double(21))"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    environment |= {"HOME": "/dev/null", "PYTHONPATH": f"{tree}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def kept(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("functions.double*")]


def test_beside_the_source_where_it_can_be_written(tree: Path) -> None:
    os.unlink(tree / "__pycache__")
    assert run(tree, str(tree.parent / "tmp")) == "42\n"
    assert len(kept(tree / "__pycache__")) == 2 and not kept(tree.parent / "tmp")


def test_below_tmpdir_where_only_that_can_be_written(tree: Path) -> None:
    temporary = tree.parent / "tmp"
    assert run(tree, str(temporary)) == "42\n"
    cache = temporary / f"megatron-numba-{os.getuid()}"
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("functions.double*")}
    assert len(files) == 2 and cache.stat().st_mode & 0o777 == 0o700
    assert run(tree, str(temporary)) == "42\n", "the second run reads what the first has written"
    assert files == {path: path.stat().st_mtime_ns for path in cache.rglob("functions.double*")}


def test_not_in_a_folder_that_others_could_have_filled(tree: Path) -> None:
    temporary = tree.parent / "tmp"
    cache = temporary / f"megatron-numba-{os.getuid()}"
    cache.mkdir()
    cache.chmod(0o777)
    assert run(tree, str(temporary)) == "42\n" and not kept(temporary)
    cache.rmdir()
    (temporary / "elsewhere").mkdir(mode=0o700)
    cache.symlink_to("elsewhere")
    assert run(tree, str(temporary)) == "42\n" and not kept(temporary)


def test_nowhere_where_nothing_can_be_written(tree: Path) -> None:
    shutil.rmtree(tree.parent / "tmp")
    assert run(tree, "/dev/null/none") == "42\n"
