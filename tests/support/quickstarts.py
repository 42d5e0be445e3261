"""The quickstarts: their commands, and they themselves on a copy of the tree."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIRST = "quickstart.sh"


def quickstart(
    *words: str, script: str = FIRST, tree: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts to its end."""
    surroundings = {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "HOME": str(tree), **environment}
    command = ["bash", f"scripts/{script}", *words]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, env=surroundings, check=False)


def commands(*words: str, script: str = FIRST, **environment: str) -> list[list[str]]:
    """The words of every command that a quickstart would run."""
    done = quickstart("--dry-run", *words, script=script, **environment)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.split("\n") if line]


def folder_of(*words: str, script: str = FIRST) -> str:
    """Where the results of these corpora go."""
    tokenizer = next(
        words for words in commands(*words, script=script) if "tools/train_tokenizer.py" in words
    )
    return os.path.dirname(tokenizer[tokenizer.index("--output") + 1])


def copy_of_the_tree(tree: Path) -> Path:
    """Copy all files that git knows, or would add, to a folder."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    return tree
