"""Megatron-LM's checkpoints, as megatron-core itself writes them: the same logits, whatever ranks have
written them, and nothing in them is run."""

import collections
import io
import os
import pickle
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.metadata import MetadataIndex

from megatron.base.errors import UserError
from megatron.checkpoint.contents import compare
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import read_manifest
from megatron.conversion.megatron_lm import open_checkpoint
from megatron.conversion.saved_by_torch import Lazy, read_pickle, read_saved
from megatron.evaluation.restore import restore
from tests.support.megatron_core_models import VOCAB, tokens
from tests.unit.conversion.conftest import Tool


def loaded(folder: Path) -> Any:
    return restore(str(folder), None, torch.device("cpu")).model


@pytest.mark.parametrize("kind", ["torch", "dist"])
@pytest.mark.parametrize("name", ["gelu", "swiglu"])
def test_logits_are_those_of_megatron_core(
    name: str, kind: str, tool: Tool, written_by_megatron: Path, tmp_path: Path
) -> None:
    tool("megatron-lm", "megatron", written_by_megatron / name / kind, tmp_path / "ours")
    theirs = torch.load(written_by_megatron / name / "logits.pt")
    # two computations in fp32 in other orders: some tens of roundings of logits of up to 2
    torch.testing.assert_close(loaded(tmp_path / "ours").logits(tokens()), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["torch", "dist"])
def test_what_several_ranks_have_written_is_the_same_to_the_bit(
    kind: str, tool: Tool, written_by_megatron: Path, tmp_path: Path
) -> None:
    tool("megatron-lm", "megatron", written_by_megatron / "swiglu" / "dist", tmp_path / "one")
    tool("megatron-lm", "megatron", written_by_megatron / "swiglu_4_ranks" / kind, tmp_path / "four")
    one, four = find_checkpoint(tmp_path / "one"), find_checkpoint(tmp_path / "four")
    assert one is not None and four is not None
    assert compare((one, read_manifest(one)), (four, read_manifest(four))).equal


def test_it_goes_on_to_hugging_face(tool: Tool, written_by_megatron: Path, tmp_path: Path) -> None:
    tool("megatron-lm", "megatron", written_by_megatron / "swiglu" / "torch", tmp_path / "ours")
    tool("megatron", "hf", tmp_path / "ours", tmp_path / "hf")  # compares logits
    assert (tmp_path / "hf" / "config.json").is_file()


def as_older(name: str) -> str:
    """The name of a tensor in the versions before megatron-core."""
    for new, old in (
        ("linear_qkv", "query_key_value"),
        ("linear_proj", "dense"),
        ("pre_mlp_layernorm", "post_attention_layernorm"),
        ("linear_fc1", "dense_h_to_4h"),
        ("linear_fc2", "dense_4h_to_h"),
    ):
        name = name.replace(new, old)
    return name.removeprefix("decoder.")


def test_the_names_of_older_versions_are_read(tool: Tool, written_by_megatron: Path, tmp_path: Path) -> None:
    source = written_by_megatron / "gelu" / "torch"
    file = next(source.glob("*/mp_rank_00/*.pt"))
    content = torch.load(file, weights_only=False)
    model: dict[str, Any] = {"language_model": {"embedding": collections.defaultdict(dict), "encoder": {}}}
    for name, one in content["model"].items():
        if name.startswith("embedding."):
            _, table, kind = name.split(".")
            model["language_model"]["embedding"][table][kind] = one
        else:
            model["language_model"]["encoder"][as_older(name)] = one
    model["language_model"]["embedding"] = dict(model["language_model"]["embedding"])
    place = tmp_path / "iter_0000007" / "mp_rank_00"
    place.mkdir(parents=True)
    older = {"args": content["args"], "checkpoint_version": 3.0, "model": model}
    torch.save(older, place / "model_optim_rng.pt")
    tool("megatron-lm", "megatron", place.parent, tmp_path / "ours")
    tool("megatron-lm", "megatron", source, tmp_path / "newer")
    one, other = find_checkpoint(tmp_path / "ours"), find_checkpoint(tmp_path / "newer")
    assert one is not None and other is not None
    assert compare((one, read_manifest(one)), (other, read_manifest(other))).equal
    torch.save(older | {"checkpoint_version": 1.0}, place / "model_optim_rng.pt")
    with pytest.raises(UserError, match=r"version 1.0, and 2.0 and newer are read"):
        open_checkpoint(str(place.parent), None)


def test_settings_of_angles_that_turn_nothing_are_passed_over(
    tool: Tool, written_by_megatron: Path, tmp_path: Path
) -> None:
    shutil.copytree(written_by_megatron / "gelu" / "torch", tmp_path / "theirs")
    file = next((tmp_path / "theirs").rglob("*.pt"))
    content = torch.load(file, weights_only=False)
    vars(content["args"]).update(rotary_percent=0.5, rotary_base=500000, rope_scaling_factor=32.0)
    torch.save(content, file)
    assert content["args"].position_embedding_type == "learned_absolute"
    tool("megatron-lm", "megatron", tmp_path / "theirs", tmp_path / "ours", "--no-verify")
    assert restore(str(tmp_path / "ours"), None, torch.device("cpu")).config.model.rotary_percent == 1


class Planted:
    """A pickle of it runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch planted",)


@pytest.mark.parametrize("name", ["common.pt", ".metadata", "model_optim_rng.pt"])
def test_nothing_in_a_file_is_run(
    name: str, written_by_megatron: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = "torch" if name.startswith("model") else "dist"
    shutil.copytree(written_by_megatron / "gelu" / kind, tmp_path / "theirs")
    file = next((tmp_path / "theirs").rglob(name))
    if name == ".metadata":
        file.write_bytes(pickle.dumps({"state": Planted()}))
    else:
        torch.save({"args": Namespace(planted=Planted()), "checkpoint_version": 3.0, "model": {}}, file)
    with pytest.raises(UserError, match=r"names (posix|nt)\.system, which is neither a tensor nor a plain"):
        open_checkpoint(str(tmp_path / "theirs"), None)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "torch.load", "functools.partial"])
def test_what_is_not_known_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    file = tmp_path / "some.pkl"
    file.write_bytes(f"c{module}\n{attribute}\n(S'1'\ntR.".encode())
    with pytest.raises(UserError, match=rf"names {name}, which is neither"):
        read_pickle(file)


def test_tensors_are_those_that_torch_reads(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    saved = {
        "view": whole[1:3, ::2],
        "turned": whole.T,
        "bf16": whole.to(torch.bfloat16),
        "whole numbers": torch.arange(5),
        "one": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(whole[0]),
        "numpy": np.arange(3),
        "nested": [(1, "two"), {"three": None}],
    }
    torch.save(saved, tmp_path / "saved.pt")
    read = read_saved(tmp_path / "saved.pt")
    assert read["nested"] == saved["nested"]
    for name, one in read.items():
        if isinstance(one, Lazy):
            assert torch.equal(one.read(), saved[name]) and one.read().dtype == saved[name].dtype
    assert sum(isinstance(one, Lazy) for one in read.values()) == 7


def test_tensors_may_have_attributes_and_containers_be_of_any_plain_kind(tmp_path: Path) -> None:
    """As the weights of Megatron-LM's optimizer in bf16 have, and states beside them."""
    cut, parameter = torch.arange(6.0), torch.nn.Parameter(torch.ones(2))
    cut.tensor_model_parallel = parameter.shared = True  # type: ignore[attr-defined]
    counts = collections.defaultdict(int, {"a": 1})
    saved = {"cut": cut, "parameter": parameter, "counts": counts, "seen": {1, 2}, "fixed": frozenset("b")}
    torch.save(saved | {"last": collections.deque([3], 4)}, tmp_path / "saved.pt")
    read = read_saved(tmp_path / "saved.pt")
    assert torch.equal(read["cut"].read(), cut) and torch.equal(read["parameter"].read(), torch.ones(2))
    assert (read["counts"], read["seen"], read["fixed"], read["last"]) == ({"a": 1}, {1, 2}, {"b"}, [3])


def test_settings_may_lie_among_the_tensors(written_by_megatron: Path, tmp_path: Path) -> None:
    """As in torch_dist folders of newer versions, which have no common.pt."""
    original, folder = written_by_megatron / "gelu" / "dist" / "iter_0000007", tmp_path / "theirs"
    shutil.copytree(original, folder)
    parts = io.BytesIO()
    torch.save([torch.load(folder / "common.pt", weights_only=False)], parts)
    common = parts.getvalue()
    assert "--from megatron-lm reads" in made_elsewhere(folder)
    (folder / "common.pt").unlink()
    assert "is not read here" in made_elsewhere(folder)
    with pytest.raises(UserError, match=r"holds no common.pt, so .* by --ckpt-format torch_dist"):
        open_checkpoint(str(folder), None)
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    place = type(next(iter(metadata.storage_data.values())))("__9_0.distcp", 6, len(common))
    metadata.storage_data[MetadataIndex("common_state/shard_0_1")] = place
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    (folder / "__9_0.distcp").write_bytes(b"before" + common)
    assert "--from megatron-lm reads" in made_elsewhere(folder)
    one, other = (open_checkpoint(str(path), None) for path in (folder, original))
    assert one.flags == other.flags and one.tensors.keys() == other.tensors.keys()


@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", ["common.pt", ".metadata"])
def test_damaged_files_are_told_in_one_line(
    name: str, place: float, bits: int, cut: bool, written_by_megatron: Path, tmp_path: Path
) -> None:
    """Or are read as if nothing were, where a byte of no meaning is hit."""
    folder = tmp_path / name.strip(".")
    if not folder.is_dir():
        shutil.copytree(written_by_megatron / "gelu" / "dist" / "iter_0000007", folder)
    original = (written_by_megatron / "gelu" / "dist" / "iter_0000007" / name).read_bytes()
    content, where = bytearray(original), int(place * len(original))
    content[where] ^= bits
    (folder / name).write_bytes(content[:where] if cut else content)
    try:
        open_checkpoint(str(folder), None)
    except UserError as error:
        assert str(folder) in error.problems[0] or "--" in error.problems[0]


def test_mistakes_are_told_in_one_line(tool: Tool, written_by_megatron: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither latest_checkpointed_iteration\.txt nor mp_rank_"):
        open_checkpoint(str(tmp_path), None)
    with pytest.raises(UserError, match="iter_0000008: is missing; choose another with --ckpt-step"):
        open_checkpoint(str(written_by_megatron / "gelu" / "torch"), 8)
    with pytest.raises(UserError, match="takes two steps"):
        tool("megatron-lm", "hf", written_by_megatron / "gelu" / "torch", tmp_path / "hf")
    (tmp_path / "deepspeed" / "global_step8").mkdir(parents=True)
    (tmp_path / "deepspeed" / "global_step8" / "mp_rank_00_model_states.pt").write_bytes(b"")
    (tmp_path / "deepspeed" / "latest_checkpointed_iteration.txt").write_text("8")
    for name in ("deepspeed", "deepspeed/global_step8"):
        with pytest.raises(UserError, match=r"of DeepSpeed's.*by tools/convert_checkpoint/deep"):
            open_checkpoint(str(tmp_path / name), None)
    shutil.copytree(written_by_megatron / "swiglu_4_ranks" / "torch" / "iter_0000007", tmp_path / "ranks")
    shutil.rmtree(tmp_path / "ranks" / "mp_rank_01_000")
    with pytest.raises(UserError, match="tensor rank 1 of stage 0 is missing"):
        open_checkpoint(str(tmp_path / "ranks"), None)
    file = tmp_path / "mixture" / "mp_rank_00" / "model_optim_rng.pt"
    file.parent.mkdir(parents=True)
    content = torch.load(next((written_by_megatron / "gelu" / "torch").glob("*/*/*.pt")), weights_only=False)
    content["args"].num_experts = 8
    torch.save(content, file)
    with pytest.raises(UserError, match="--num-experts 8 has no like here"):
        open_checkpoint(str(file.parents[1]), None)


def test_the_vocabulary_is_that_of_the_tokenizer(
    tool: Tool, written_by_megatron: Path, tmp_path: Path
) -> None:
    """Rows that were padding there are none here."""
    words = ["--tokenizer-type", "NullTokenizer", "--vocab-size", 99]
    tool("megatron-lm", "megatron", written_by_megatron / "gelu" / "torch", tmp_path / "ours", *words)
    theirs = torch.load(written_by_megatron / "gelu" / "logits.pt")
    ids = tokens() % 99
    logits = loaded(tmp_path / "ours").logits(ids)
    assert logits.shape[-1] == 100 < VOCAB == theirs.shape[-1]
