"""Commands of this repository, run to their end."""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.command_server import ROOT, Asked

SECONDS = 300


def command(*words: str, ranks: int = 1) -> list[str]:
    """A command of this repository as a process starts it, under torchrun where it has several ranks."""
    launcher = (
        [sys.executable]
        if ranks == 1
        else [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    )
    return [*launcher, *words]


def run_command(
    *words: str, ranks: int = 1, status: int = 0, forked: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run it in the repository's root to its end, which must have this status. `forked`: as `run_forked`
    has it, or else as a user starts it."""
    done = run_forked(*words, ranks=ranks) if forked else _run_started(command(*words, ranks=ranks))
    assert done.returncode == status, f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def run_forked(*words: str, ranks: int = 1, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run it to its end, in a fork of a process that has imported all: its ranks, too, start without an
    interpreter and without torchrun. `command` is for what depends on either."""
    with tempfile.TemporaryDirectory() as place:
        output, errors = f"{place}/output", f"{place}/errors"
        asked = Asked(list(words), ranks, dict(os.environ), str(folder), output, errors, SECONDS)
        server = _server(os.getpid())
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps(asked._asdict()) + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        texts = [Path(path).read_text(encoding="utf-8") for path in (output, errors)]
    if not isinstance(answer, int):
        raise subprocess.TimeoutExpired(list(words), SECONDS, *texts)
    return subprocess.CompletedProcess(list(words), answer, *texts)


def _run_started(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


@functools.cache
def _server(owner: int) -> "subprocess.Popen[str]":
    """The server of a process, and not that of one that it was forked from."""
    words = [sys.executable, str(ROOT / "tests" / "support" / "command_server.py")]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    atexit.register(server.kill)
    return server
