"""The quickstart of encoders: what its runs share, and the script itself on a few made-up packages."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.quickstarts import commands, copy_of_the_tree, quickstart

SCRIPT = "quickstart_bert.sh"
EFFICIENT = {"--difficulty-path", "--curriculum", "--random-ltd", "--random-ltd-min", "--random-ltd-duration"}
SECTIONS = {"games": "a game of cards", "math": "a library for sums", "net": "a server of mail"}


def with_packages(folder: Path, each: int) -> str:
    """A PATH on which apt-cache knows so many packages of every section."""
    packages = [
        f"Package: {section}{number}\nSection: {section}\nDescription: {text} number {number}\n"
        for number in range(each)
        for section, text in SECTIONS.items()
    ]
    (folder / "packages").write_text("\n".join(packages))
    script = folder / "apt-cache"
    script.write_text(f"#!/bin/sh\ncat {folder}/packages\n")
    script.chmod(0o755)
    return f"{folder}:{sys.prefix}/bin:/usr/bin:/bin"


@pytest.mark.parametrize("each", [0, 9])
def test_the_runs_differ_by_their_method_alone(tmp_path: Path, each: int) -> None:
    """And without labelled texts nothing is finetuned."""
    told = commands(script=SCRIPT, PATH=with_packages(tmp_path, each))
    efficient, baseline = ([*words] for words in told if words[0] == "torchrun")
    assert os.path.basename(efficient[efficient.index("--save") + 1]) == "efficient"
    flags = [{word for word in words if word.startswith("--")} for words in (efficient, baseline)]
    assert flags[0] - flags[1] == EFFICIENT and flags[1] < flags[0]
    finetuned = [words for words in told if "finetune.py" in words]
    assert [("--random-init" in words) for words in finetuned] == ([False, False, True] if each else [])


@pytest.mark.parametrize(
    ("tokens", "epochs"),
    [("5000000", "2.000"), ("100000", "0.040"), ("2500000", "1.000"), ("60000000", "2.000"), ("9", "0.001")],
)
def test_finetuning_is_as_short_as_training(tmp_path: Path, tokens: str, epochs: str) -> None:
    told = commands(script=SCRIPT, PATH=with_packages(tmp_path, 9), QUICKSTART_TOKENS=tokens)
    finetuned = [words for words in told if "finetune.py" in words]
    assert [words[words.index("--epochs") + 1] for words in finetuned] == [epochs] * 3


def test_it_goes_from_text_to_finetuned_encoders_and_does_no_step_twice(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    environment = {"SKIP_INSTALL": "1", "QUICKSTART_TOKENS": "20000", "PATH": with_packages(tmp_path, 60)}
    first = quickstart(script=SCRIPT, tree=tree, **environment)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    (folder,) = (tree / "runs" / "quickstart_bert").iterdir()
    for name in ("efficient", "baseline", "random"):
        told = json.loads((folder / f"sections_{name}" / "sweep.json").read_text())
        assert told["rates"]["0.003"]["dev accuracy"]["seeds"] == 3
    assert "lm accuracy" in (folder / "report.html").read_text(encoding="utf-8")
    again = quickstart("--clean", "--dry-run", script=SCRIPT, tree=tree, **environment)
    assert again.returncode == 0
    second = quickstart(script=SCRIPT, tree=tree, **environment)
    assert second.returncode == 0 and "\n+ " not in second.stdout
    assert second.stdout.count("done before") == 14
