"""The README's commands work as written, and the pages that are made from the code are as the code says."""

import fcntl
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.make_flags_page import PAGE, flags_page
from tests.end_to_end.conftest import ROOT, Prepared, run_command, write_text

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(heading: str) -> list[list[str]]:
    """The python commands of the first code block below a heading."""
    block = re.search(rf"## {heading}\n```\n(.*?)```", README, re.DOTALL)
    assert block, heading
    return [shlex.split(line) for line in block.group(1).strip().splitlines()]


def test_three_commands_train_on_a_users_own_text(tmp_path: Path) -> None:
    write_text(tmp_path / "my.jsonl")
    three = commands("Train on your own text")
    assert len(three) == 3
    for words in three:
        words = [str(ROOT / word) if word.endswith(".py") else word for word in words[1:]]
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    records = [
        json.loads(line) for line in (tmp_path / "runs" / "my" / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [record["lm_loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < losses[0] - 2
    assert (tmp_path / "my_text_difficulty" / "manifest.json").is_file()
    assert {record["kind"] for record in records} == {"train", "valid", "test"}


def test_the_page_of_flags_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == flags_page(), "run python scripts/make_flags_page.py"


def test_every_tool_has_help_with_examples() -> None:
    for tool in [*sorted(ROOT.glob("tools/*.py")), ROOT / "pretrain_gpt.py"]:
        text = run_command(str(tool), "--help").stdout
        assert "examples:" in text, tool.name
        assert f"python {tool.relative_to(ROOT)}" in text, tool.name


def test_quickstart_runs_reuses_and_goes_on(prepared: Prepared, tmp_path: Path) -> None:
    """The script itself, on a copy of the tree with a small corpus and budget; a second run does nothing
    again."""
    tree = tmp_path / "tree"
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
    environment = {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(tree)}
    environment |= {"SKIP_INSTALL": "1", "QUICKSTART_TOKENS": "30000"}

    def quickstart() -> subprocess.CompletedProcess[str]:
        words = ["bash", "scripts/quickstart.sh", prepared.text]
        return subprocess.run(words, cwd=tree, capture_output=True, text=True, env=environment, check=False)

    first, second = quickstart(), quickstart()
    with open(tree / "runs" / ".quickstart.lock") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        held = quickstart()
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    report = (tree / "runs" / "quickstart" / "report.html").read_text(encoding="utf-8")
    assert all(
        word in report
        for word in ("baseline", "efficient", "bits per byte", "vocab_rarity", "data:image/png")
    )
    assert second.returncode == 0
    assert "another quickstart is writing" in held.stderr and held.returncode == 2
    assert second.stdout.count("done before") == first.stdout.count("\n+ ") == 11
    (tree / "runs" / "quickstart" / "report.html").unlink()
    assert quickstart().stdout.count("done before") == 10
    assert (tree / "runs" / "quickstart" / "report.html").is_file()
    killed = tree / "runs" / "quickstart" / "baseline"
    (tree / "runs" / "quickstart" / "steps" / "train-baseline.done").unlink()
    latest = killed / "latest_checkpointed_iteration.txt"
    assert int(latest.read_text()) > 0
    third = quickstart()
    assert f"going on after step {latest.read_text().strip()}" in third.stdout
