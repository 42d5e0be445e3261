"""What the tool says of checkpoints: of one that is whole, of damaged ones, and of two that differ."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megatron.checkpoint.manifest import sealed
from megatron.parallel.mesh import Mesh
from megatron.train.resume import describe_run, save_run
from tests.support.commands import run_command
from tests.support.parity import BASE, LAYOUTS, MODELS, make_run, place_of, train_steps
from tests.support.ranks import run_layout

TOOL = "tools/inspect_checkpoint.py"


def saved(mesh: Mesh, flags: str, replicas: int, folder: Path) -> None:
    run = make_run(mesh, f"{flags} --save {folder}", torch.float32, replicas)
    for step in (1, 2):
        train_steps(run, step, step)
        save_run(run, describe_run(run), step)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same two steps on one rank and on eight."""
    folders = {}
    for layout, flags in {"one": "", "many": LAYOUTS["tp2·pp2·dp2"] + " --use-distributed-optimizer"}.items():
        folders[layout] = tmp_path_factory.mktemp(layout)
        words, _, replicas = flags.partition(" --use")
        more, place, count = place_of(words)
        more += " --use" + replicas if replicas else ""
        run_layout(place, saved, BASE + MODELS["gpt"] + more, count, folders[layout])
    return folders


def inspect(tmp_path: Path, *words: object, status: int = 0) -> tuple[str, str, dict[str, Any]]:
    """Output, errors and JSON of the tool."""
    path = tmp_path / "found.json"
    done = run_command(TOOL, *map(str, words), "--output", str(path), status=status)
    return done.stdout, done.stderr, json.loads(path.read_text()) if path.is_file() else {}


def test_a_checkpoint_is_shown(runs: dict[str, Path], tmp_path: Path) -> None:
    out, _, found = inspect(tmp_path, runs["many"], "--verify", "--tensors", "all")
    assert "8 ranks: tensor 2, data 2, pipeline 2, distributed optimizer" in out
    assert out.endswith("whole: all checksums agree\n")
    (one,) = found["checkpoints"]
    folder = runs["many"] / "iter_0000002"
    assert one["checkpoint"] == str(folder) and one["iteration"] == 2 and one["damages"] == []
    weights = [load_file(path) for path in folder.glob("model-*")]
    held = sum(tensor.numel() for tensors in weights for tensor in tensors.values())
    assert one["kinds"]["weights"]["parameters"] == held == one["kinds"]["exp_avg_sq"]["parameters"]
    assert one["kinds"]["weights"]["bytes"] == 4 * held
    assert one["bytes"] == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert one["flags"]["--hidden-size"] == 32 and one["flags"]["--use-distributed-optimizer"] is True
    assert not one["flags"].keys() & {"--adam-beta1", "--kv-channels", "--ffn-hidden-size"}
    entry = one["tensors"]["layers.1.mlp.up.weight"]
    assert (entry["dtype"], entry["global_shape"]) == ("torch.float32", [128, 32])
    assert [part["offset"] for part in entry["parts"]] == [[0, 0], [64, 0]]
    assert "layers.1.mlp.up.weight" in out and "optimizer.exp_avg.layers.1.mlp.up.weight" in out


def test_checkpoints_of_two_layouts_are_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    """Against what the whole tensors say."""
    out, _, found = inspect(tmp_path, runs["one"], "--compare", runs["many"], status=1)
    assert found["equal"] is False and found["missing"] == [[], []]
    assert found["flags"]["--tensor-model-parallel-size"] == [1, 2]
    name = "layers.1.mlp.up.weight"
    one = load_file(runs["one"] / "iter_0000002" / "model.safetensors")[name]
    parts = [load_file(path) for path in sorted((runs["many"] / "iter_0000002").glob("model-*"))]
    many = torch.cat([part[name] for part in parts if name in part])
    apart = (one.double() - many.double()).abs().max().item()
    scale = max(one.abs().max().item(), many.abs().max().item())
    row = found["tensors"][name]
    assert (row["largest"], row["relative"]) == pytest.approx((apart, apart / scale), rel=1e-12)
    assert 0 < apart < 1e-6 and f"{apart:.3g}" in out


def test_equal_is_equal_to_the_bit(runs: dict[str, Path], tmp_path: Path) -> None:
    first = runs["one"] / "iter_0000002"
    out, _, found = inspect(tmp_path, first / "index.json", "--compare", runs["one"], "--verify")
    assert found["equal"] is True and out.endswith("tensors\n") and "equal to the bit: all" in out
    _, _, found = inspect(tmp_path, first, "--compare", runs["one"], "--ckpt-step", "2")
    assert found["iterations"] == [2, 2]
    _, _, found = inspect(tmp_path, runs["one"] / "iter_0000001", "--compare", first, status=1)
    assert found["iterations"] == [1, 2]


def turn_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def leave_out_a_part(folder: Path) -> None:
    index = folder / "index.json"
    content = json.loads(index.read_text())
    del content["tensors"]["layers.1.mlp.up.weight"]["parts"][0]
    index.write_text(sealed(content))


@pytest.mark.parametrize(
    ("how", "words", "said"),
    [
        (
            lambda folder: turn_bit(folder / "model-00002-of-00008.safetensors"),
            ["--verify"],
            "checksum differs",
        ),
        (lambda folder: turn_bit(folder / "index.json"), [], "index.json: "),
        (lambda folder: (folder / "model-00002-of-00008.safetensors").unlink(), [], "it is missing"),
        (leave_out_a_part, [], "the parts of layers.1.mlp.up.weight have 2,048 elements, and it has 4,096"),
    ],
)
def test_damage_is_told(
    how: Callable[[Path], None], words: list[str], said: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "iter_0000002"
    shutil.copytree(runs["many"] / folder.name, folder)
    how(folder)
    _, errors, found = inspect(tmp_path, folder, *words, status=1)
    assert said in errors and said in str(found["checkpoints"][0]["damages"]) and "Traceback" not in errors


def test_mistakes_have_a_status_of_their_own(runs: dict[str, Path], tmp_path: Path) -> None:
    _, errors, _ = inspect(tmp_path, tmp_path, status=2)
    assert f"{tmp_path}: holds no checkpoint" in errors
    _, errors, _ = inspect(tmp_path, *runs.values(), "--compare", runs["one"], status=2)
    assert "give one --load" in errors
