"""What runs the tool, and checkpoints that megatron-core itself has written."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.quickstarts import ROOT
from tools import convert_checkpoint

Tool = Callable[..., None]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Tool:
    def run(source: str, target: str, given: Path, output: Path, *words: object) -> None:
        places = ["--input", str(given), "--output", str(output)]
        argv = ["convert_checkpoint.py", "--from", source, "--to", target, *places, *map(str, words)]
        monkeypatch.setattr(sys, "argv", argv)
        convert_checkpoint.main()

    return run


@pytest.fixture(scope="session")
def written_by_megatron(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("psutil")  # which megatron-core asks for
    root = tmp_path_factory.mktemp("megatron")
    with open(root / "log", "w") as log:
        script = str(ROOT / "tests/support/megatron_core_models.py")
        words = [sys.executable, script, str(root)]
        done = subprocess.Popen(words, cwd=root, stdout=log, stderr=log, start_new_session=True)
        done.wait(600)
        with suppress(ProcessLookupError):  # its writers stay behind
            os.killpg(done.pid, signal.SIGKILL)
    assert done.returncode == 0, (root / "log").read_text()[-2000:]
    return root
