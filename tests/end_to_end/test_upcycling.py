"""From a dense run to a mixture of experts that trains on, by the commands that a user types."""

import json
import shlex
from pathlib import Path

from tests.end_to_end.conftest import MODEL, Prepared, records
from tests.support.commands import run_command

TOOL = "tools/upcycle_checkpoint.py"


def losses(folder: Path) -> list[float]:
    return [one["lm_loss"] for one in records(folder) if one["kind"] == "train"]


def evaluated(load: Path, output: Path) -> float:
    run_command("tools/evaluate.py", "--load", str(load), "--splits", "valid", "--output", str(output))
    (result,) = json.loads(output.read_text())["results"]
    return result["loss"]


def test_a_dense_run_becomes_a_mixture_that_begins_where_it_was(prepared: Prepared, tmp_path: Path) -> None:
    dense, mixture, on = (tmp_path / name for name in ("dense", "mixture", "dense_on"))
    data = ["--data-path", prepared.prefix, "--split", "90,5,5", "--eval-iters", "2"]
    data += ["--hidden-dropout", "0", "--attention-dropout", "0"]
    training = ["pretrain_gpt.py", *MODEL, *data, "--train-iters", "6"]
    run_command(*training, "--save", str(dense))
    run_command(*training, "--load", str(dense), "--finetune", "--save", str(on))
    few = ["--num-experts", "4", "--moe-layer-freq", "2", "--moe-aux-loss-coeff", "1e-2"]
    fine = ["--moe-upcycling-granularity", "2", "--moe-router-topk", "4"]
    done = run_command(TOOL, "--load", str(dense), "--save", str(mixture), *few, *fine)
    *_, line = done.stdout.splitlines()
    python, *words = shlex.split(line)
    assert python == "python"
    run_command(*words)
    ours, theirs = losses(Path(f"{mixture}_trained")), losses(on)
    assert len(ours) == len(theirs) == 6
    assert abs(ours[0] - theirs[0]) < 1e-5 * theirs[0]  # single precision, over the tokens of a batch
    assert ours[-1] < ours[0] and ours[-1] != theirs[-1]
    one, other = (evaluated(place, tmp_path / f"{place.name}.json") for place in (dense, mixture))
    assert abs(one - other) < 1e-5 * one
    run_command("tools/inspect_checkpoint.py", str(mixture), "--verify")
    again = run_command(TOOL, "--load", str(dense), "--save", str(mixture), *few, *fine, status=2)
    assert again.stderr == f"error: --save {mixture}: something is there already; name a new folder\n"
    run_command("tools/generate_text.py", "--load", str(mixture), "--prompt", "def", "--num-tokens", "4")
