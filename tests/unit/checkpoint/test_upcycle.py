"""The tool that makes a mixture of experts of a dense checkpoint: what it writes, refuses and says."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from megatron.base.errors import UserError
from megatron.checkpoint.contents import compare, damages
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.manifest import as_read, read_manifest, write_manifest
from megatron.checkpoint.saved_config import saved_config
from megatron.checkpoint.tensor_file import write_parts
from megatron.config.config import Config, complete
from megatron.conversion.to_ours import OF_A_RUN, SHAPE_RULES
from megatron.evaluation.restore import restore
from megatron.parallel.mesh import Mesh
from megatron.train.configure import read_config
from megatron.train.resume import describe_run, save_run
from tests.support.parity import BASE, LAYOUTS, MODELS, make_run, place_of
from tests.support.ranks import run_layout
from tools import upcycle_checkpoint

Tool = Callable[..., None]


def saved(mesh: Mesh, flags: str, replicas: int, folder: Path) -> None:
    """First weights, which are the same on every layout to the bit."""
    run = make_run(mesh, f"{flags} --save {folder}", torch.float32, replicas)
    save_run(run, describe_run(run), 7)


def make_dense(folder: Path, layout: str = "") -> Path:
    more, place, count = place_of(layout)
    run_layout(place, saved, BASE + MODELS["gpt"] + more, count, folder)
    return folder


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dense(tmp_path_factory.mktemp("dense"))


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Tool:
    def run(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["upcycle_checkpoint.py", *map(str, words)])
        upcycle_checkpoint.main()

    return run


def refused(tool: Tool, *words: object) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        tool(*words)
    return caught.value.problems


def checkpoint_in(folder: Path) -> Path:
    found = find_checkpoint(folder)
    assert found is not None
    return found


def test_what_is_written_is_a_whole_checkpoint_that_is_read_as_any_other(
    tool: Tool, dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool("--load", dense, "--save", tmp_path / "mixture", "--num-experts=4", "--moe-layer-freq=2")
    folder = checkpoint_in(tmp_path / "mixture")
    manifest = read_manifest(folder)
    assert folder.name == "iter_0000000" and not damages(folder, manifest, verify=True)
    assert sorted(one.name for one in (tmp_path / "mixture").iterdir()) == [
        "iter_0000000",
        "latest_checkpointed_iteration.txt",
    ]
    assert not list(tmp_path.glob(".*"))
    assert not [name for name in manifest.tensors if name.startswith("optimizer.")]
    assert set(manifest.totals.values()) == {0} and not (manifest.plan or manifest.rises)
    config = saved_config(manifest.config, folder)
    assert config.experts.num_experts == 4 and config.checkpoint.load == str(dense)
    restored = restore(str(tmp_path / "mixture"), None, torch.device("cpu"))
    old = load_file(dense / "iter_0000007" / "model.safetensors")
    for name, one in restored.model.named_parameters():
        if ".experts." in name or name.endswith(".mlp.down_bias"):
            layer, matrix = name.replace(".experts.", ".").split(".mlp.")
            experts = one if matrix.endswith("_bias") else one.transpose(0, 1)
            matrix = matrix.removesuffix("_bias") + (".bias" if matrix.endswith("_bias") else ".weight")
            assert all(torch.equal(each, old[f"{layer}.mlp.{matrix}"]) for each in experts)
        elif ".router." not in name:
            assert torch.equal(one, old[name])
    said = capsys.readouterr().out
    assert f"wrote {folder}: 4 experts in 2 of 4 layers, each the dense MLP; " in said


@pytest.mark.parametrize("layout", ["tp2·pp2·dp2", "zero-3 tp2·dp2"])
def test_whatever_ranks_have_written_the_dense_checkpoint(
    layout: str, tool: Tool, dense: Path, tmp_path: Path
) -> None:
    many = make_dense(tmp_path / "many", LAYOUTS[layout])
    flags = ("--num-experts=8", "--moe-upcycling-granularity=4", "--moe-router-topk=4", "--noise=0.1")
    both = []
    for source in (dense, many):
        target = tmp_path / f"of_{source.name}"
        tool("--load", source, "--save", target, *flags)
        folder = checkpoint_in(target)
        both.append((folder, read_manifest(folder)))
    assert compare(*both).equal


def test_the_command_at_the_end_has_the_flags_of_the_dense_run_and_of_the_mixture(
    tool: Tool, dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mixture"
    tool("--load", dense, "--save", target, "--num-experts=4", "--moe-aux-loss-coeff=0.01", "--seed=3")
    *_, line = capsys.readouterr().out.splitlines()
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", "pretrain_gpt.py")
    config, _ = read_config(words, "", "")
    assert (config.checkpoint.load, config.checkpoint.save) == (str(target), f"{target}_trained")
    assert config.checkpoint.finetune and config.training.seed == 1234
    trained = read_manifest(checkpoint_in(target)).config
    mine = json.loads(json.dumps(vars(config), default=vars))
    for group in ("model", "data", "training", "parallel", "optimizer", "data_efficiency", "experts"):
        assert mine[group] == trained[group]


def test_a_converted_model_has_no_run_whose_data_and_end_could_be_asked_for(
    tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint_in(make_dense(tmp_path / "dense"))
    manifest = read_manifest(folder)
    model = {name: one for name, one in manifest.config["model"].items() if one is not None}
    converted = complete(Config, OF_A_RUN | {"seq_length": 64} | model, (), 1, SHAPE_RULES)
    write_manifest(folder, as_read(dataclasses.replace(manifest, config=dataclasses.asdict(converted))))
    target, tokens = tmp_path / "mixture", torch.arange(48)[None]
    tool("--load", tmp_path / "dense", "--save", target, "--num-experts=4")
    assert f"by pretrain_gpt.py --load {target} --finetune --use-checkpoint-args" in capsys.readouterr().out
    old, new = (restore(str(one), None, torch.device("cpu")) for one in (folder, target))
    assert (old.config.experts.num_experts, new.config.experts.num_experts) == (1, 4)
    torch.testing.assert_close(new.model.logits(tokens), old.model.logits(tokens), rtol=0, atol=1e-5)
    words = f"--load {target} --finetune --use-checkpoint-args --mock-data --seq-length 48 --vocab-size 90"
    config, _ = read_config(f"{words} --micro-batch-size 2 --train-iters 1 --lr 1e-3".split(), "", "")
    assert config.experts.num_experts == 4 and config.model.hidden_size == 32


def test_weights_that_do_not_sum_to_one_are_told(
    tool: Tool, dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--load", dense, "--num-experts=4")
    tool(*few, "--save", tmp_path / "a", "--moe-router-topk=1", "--moe-router-pre-softmax")
    told = capsys.readouterr().err
    assert told.count("note: ") == 1 and "and not for every token" in told
    tool(*few, "--save", tmp_path / "b", "--moe-expert-capacity-factor=1.25")
    told = capsys.readouterr().err
    assert told.count("note: ") == 1 and "drop tokens" in told
    tool(*few, "--save", tmp_path / "c")
    assert "note: " not in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, told",
    [
        ([], ["--num-experts must be at least 2, the experts of a layer"]),
        (["--num-experts", "1"], ["--num-experts must be at least 2, the experts of a layer"]),
        (["--num-experts=4", "--moe-layer-freq=[0]*4"], ["gives no layer experts; name some"]),
        (["--num-experts=4", "--moe-router-topk=5"], ["is more than --num-experts 4; lower it"]),
        (["--num-experts=2", "--moe-ffn-hidden-size=48"], ["take a divisor of 128"]),
        (["--num-experts=4", "--moe-shared-expert-intermediate-size=28"], ["take a divisor of 100"]),
        (["--num-experts=4", "--moe-shared-expert-intermediate-size=128"], ["leaves nothing of"]),
        (["--num-experts=4", "--moe-upcycling-granularity=3"], ["does not divide the 128 channels"]),
        (
            ["--num-experts=4", "--moe-upcycling-granularity=2", "--moe-ffn-hidden-size=128"],
            ["means --moe-ffn-hidden-size 64, and 128 is given"],
        ),
        (
            ["--num-experts=6", "--moe-upcycling-granularity=4"],
            ["--num-experts 6 is no multiple of 4", "--moe-router-topk 2 is no multiple of 4"],
        ),
        (
            [
                *("--num-experts=8", "--moe-upcycling-granularity=4", "--moe-router-topk=4"),
                *("--moe-router-num-groups=4", "--moe-router-group-topk=2"),
            ],
            ["--moe-router-num-groups 4 puts 2 experts into each group"],
        ),
        (["--num-experts=4", "--noise=-1"], ["--noise -1.0 must not be negative"]),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    flags: list[str], told: list[str], tool: Tool, dense: Path, tmp_path: Path
) -> None:
    found = refused(tool, "--load", dense, "--save", tmp_path / "mixture", *flags)
    assert len(found) == len(told) and all(part in line for part, line in zip(told, found))
    assert not list(tmp_path.iterdir())


def test_several_mistakes_are_told_together(tool: Tool, dense: Path, tmp_path: Path) -> None:
    found = refused(tool, "--load", dense, "--save", dense, "--num-experts=3", "--moe-ffn-hidden-size=32")
    assert [line.split(":")[0][:30] for line in found] == [
        f"--save {dense}"[:30],
        "--num-experts 3 is no multiple",
        "--moe-router-topk 2 is no mult",
    ]
    assert len(refused(tool, "--load", tmp_path, "--noise=x", "--moe-router-topk=0")) == 4


def test_a_mixture_is_no_dense_checkpoint(tool: Tool, dense: Path, tmp_path: Path) -> None:
    tool("--load", dense, "--save", tmp_path / "mixture", "--num-experts=4")
    again = ("--load", tmp_path / "mixture", "--save", tmp_path / "again", "--num-experts=4")
    (line,) = refused(tool, *again)
    assert "is a mixture of experts already" in line and not (tmp_path / "again").exists()


def test_a_damaged_checkpoint_leaves_nothing(tool: Tool, dense: Path, tmp_path: Path) -> None:
    path = dense / "iter_0000007" / "model.safetensors"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        (line,) = refused(tool, "--load", dense, "--save", tmp_path / "mixture", "--num-experts=4")
    finally:
        path.write_bytes(content)
    assert "its checksum differs" in line and not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_nothing(
    tool: Tool, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("megatron.checkpoint.upcycle.write_manifest", full)
    with pytest.raises(OSError):
        tool("--load", dense, "--save", tmp_path / "mixture", "--num-experts=4")
    assert not list(tmp_path.iterdir())


def test_parts_must_be_as_many_as_the_header_says(tmp_path: Path) -> None:
    like = {"a": torch.empty((2, 3), device="meta")}
    with pytest.raises(ValueError, match="a have"):
        write_parts(tmp_path / "file", like, lambda _: [torch.ones(1, 3)])
    write_parts(tmp_path / "whole", like, lambda _: [torch.ones(1, 3), torch.zeros(1, 3)])
    assert load_file(tmp_path / "whole")["a"].tolist() == [[1, 1, 1], [0, 0, 0]]
