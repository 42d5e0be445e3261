"""The README's commands work as written, and the pages that are made from the code are as the code says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from scripts.make_flags_page import PAGE, flags_page
from tests.end_to_end.conftest import ROOT, run_command, write_text

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(heading: str) -> list[list[str]]:
    """The python commands of the first code block below a heading."""
    block = re.search(rf"## {heading}\n(?:(?!##).)*?```\n(.*?)```", README, re.DOTALL)
    assert block, heading
    return [shlex.split(line) for line in block.group(1).strip().splitlines()]


def run_all(heading: str, tmp_path: Path) -> None:
    """The three commands below a heading, on a text of one's own."""
    write_text(tmp_path / "my.jsonl")
    three = commands(heading)
    assert len(three) == 3
    for words in three:
        words = [str(ROOT / word) if word.endswith(".py") else word for word in words[1:]]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # more wait for each other on a busy machine
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=one_thread,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]


def test_three_commands_train_on_a_users_own_text(tmp_path: Path) -> None:
    run_all("Train on your own text", tmp_path)
    records = [
        json.loads(line) for line in (tmp_path / "runs" / "my" / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [record["lm_loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < losses[0] - 2
    assert (tmp_path / "my_text_difficulty" / "manifest.json").is_file()
    assert {record["kind"] for record in records} == {"train", "valid", "test"}


def test_three_commands_train_an_encoder(tmp_path: Path) -> None:
    run_all("Encoders", tmp_path)
    records = [
        json.loads(line) for line in (tmp_path / "runs" / "bert" / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [record["lm_loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < losses[0] - 1
    assert {"sop_loss", "lm_accuracy", "sop_accuracy"} <= records[-1].keys()


def test_the_page_of_flags_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == flags_page(), "run python scripts/make_flags_page.py"


def test_every_tool_has_help_with_examples() -> None:
    entries = [
        ROOT / name for name in ("pretrain_gpt.py", "pretrain_bert.py", "pretrain_vit.py", "finetune.py")
    ]
    for tool in [*sorted(ROOT.glob("tools/*.py")), *entries]:
        text = run_command(str(tool), "--help").stdout
        assert "examples:" in text, tool.name
        assert f"python {tool.relative_to(ROOT)}" in text, tool.name
