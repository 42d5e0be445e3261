"""The quickstart of experts: what its four runs share, and the script itself on a small corpus."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Prepared
from tests.support.quickstarts import commands, copy_of_the_tree, folder_of, quickstart

SCRIPT = "quickstart_moe.sh"
RUNS = ("dense", "dense_efficient", "mixture", "mixture_efficient")
OWN = ("--save", "--load", "--tensorboard-dir")


def flags_of(words: list[str]) -> dict[str, list[str]]:
    """The flags of a training command with their values, without its folders."""
    named: dict[str, list[str]] = {}
    for word in words[words.index("pretrain_gpt.py") + 1 :]:
        if word.startswith("--"):
            named[name := word] = named.get(word, [])
        else:
            named[name].append(word)
    return {name: values for name, values in named.items() if name not in OWN}


@pytest.mark.parametrize("tokens", ["350000", "20_000"])
def test_the_runs_differ_by_their_method_alone(tokens: str) -> None:
    """Tokens, batches, rate and seed are the same in all; a token's experts are as wide as the dense MLP."""
    told = commands(script=SCRIPT, QUICKSTART_TOKENS=tokens)
    trained = [words for words in told if words[0] == "torchrun"]
    assert [os.path.basename(words[words.index("--save") + 1]) for words in trained] == list(RUNS)
    dense, dense_efficient, mixture, both = map(flags_of, trained)
    experts, efficient = mixture.keys() - dense.keys(), dense_efficient.keys() - dense.keys()
    assert dense.items() <= mixture.items() and dense.items() <= dense_efficient.items()
    assert both == mixture | dense_efficient
    assert all("moe" in name or name == "--num-experts" for name in experts)
    assert efficient == {
        "--difficulty-path",
        "--curriculum",
        "--random-ltd",
        "--random-ltd-min",
        "--random-ltd-duration",
    }
    (hidden,), (inner,), (top,) = (
        mixture[name] for name in ("--hidden-size", "--moe-ffn-hidden-size", "--moe-router-topk")
    )
    assert "--ffn-hidden-size" not in dense and int(top) * int(inner) == 4 * int(hidden)


def test_budget_and_folders_are_as_in_the_first_quickstart(tmp_path: Path) -> None:
    default = next(words for words in commands(script=SCRIPT) if words[0] == "torchrun")
    assert flags_of(default)["--train-tokens"] == ["350000"]
    (tmp_path / "my.txt").write_text("text")
    first, mine = folder_of(str(tmp_path / "my.txt")), folder_of(str(tmp_path / "my.txt"), script=SCRIPT)
    assert mine == first.replace("quickstart", "quickstart_moe") and re.search(r"/my-\d+$", mine)
    refused = quickstart("--dry-run", ".", script=SCRIPT)
    assert refused.returncode == 2 and "holds runs/quickstart_moe, so" in refused.stderr
    unknown = quickstart("--dry-run", script=SCRIPT, QUICKSTART_TOKENS="many")
    assert unknown.returncode == 2 and "QUICKSTART_TOKENS=many must be a whole number" in unknown.stderr
    helped = quickstart("--help", script=SCRIPT).stdout
    assert "bash scripts/quickstart_moe.sh [--clean] [--dry-run]" in helped and "set -" not in helped


def test_it_compares_the_runs_and_does_no_step_twice(prepared: Prepared, tmp_path: Path) -> None:
    """The script itself, on a copy of the tree with a small corpus and budget."""
    tree = copy_of_the_tree(tmp_path / "tree")
    environment = {
        "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
        "SKIP_INSTALL": "1",
        "QUICKSTART_TOKENS": "4000",
    }
    first = quickstart(prepared.text, script=SCRIPT, tree=tree, **environment)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    (folder,) = (tree / "runs" / "quickstart_moe").iterdir()
    about = {name: json.loads((folder / name / "run.json").read_text()) for name in RUNS}
    sizes = {name: (one["parameters"], one["active_parameters"]) for name, one in about.items()}
    assert sizes["dense"] == sizes["dense_efficient"] and sizes["mixture"] == sizes["mixture_efficient"]
    # in four layers: the router and the output bias of the second expert; and six idle experts with biases
    assert sizes["mixture"][1] - sizes["dense"][1] == 4 * (128 * 8 + 128)
    assert sizes["mixture"][0] - sizes["mixture"][1] == 4 * 6 * (2 * 128 * 256 + 256 + 128)
    report = (folder / "report.html").read_text(encoding="utf-8")
    for words in (*RUNS, "<h2>Experts</h2>", "of them active for a token", "even shares", "none<small>"):
        assert words in report
    pictures = {path.name for path in (folder / "report_files").glob("experts_layer_*")}
    assert pictures == {f"experts_layer_{layer}_run_{run}.png" for layer in range(4) for run in (3, 4)}

    second = quickstart(prepared.text, script=SCRIPT, tree=tree, **environment)
    assert second.returncode == 0 and second.stdout.count("done before") == 15 and "\n+ " not in second.stdout
