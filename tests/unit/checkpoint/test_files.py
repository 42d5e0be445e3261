"""Checkpoints as files: what is written, which one is found, and what is said of a damaged one."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from megatron.base.errors import UserError
from megatron.checkpoint import save as save_module
from megatron.checkpoint.load import Box, find_checkpoint, load_model, read_boxes, require_file, verify_files
from megatron.checkpoint.manifest import Manifest, read_manifest, sealed
from megatron.checkpoint.save import checkpoints_in, clear_unfinished, retain, save_checkpoint
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import Placement

MANIFEST = Manifest("gpt", {}, Vocabulary(100, None, None), [], [], {}, {}, {})
MODEL, MOMENTS, LATEST = "model.safetensors", "optimizer.safetensors", "latest_checkpointed_iteration.txt"

MOMENT = "optimizer.exp_avg.weight"


def tensors(step: int) -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).view(2, 3).T + step, "bias": torch.full((2,), step).bfloat16()}


def save(root: Path, step: int) -> Path:
    """A checkpoint of two weights, which are a box of a larger tensor, and one moment."""
    named, moment = tensors(step), torch.ones(4, dtype=torch.float64)
    table = {
        "weight": Placement((9, 2), (3, 0)),
        "bias": Placement((2,), (0,)),
        MOMENT: Placement((4,), (0,)),
    }
    files = {"model": named, "optimizer": {MOMENT: moment}}
    return save_checkpoint(root, files, table, dataclasses.replace(MANIFEST, iteration=step))


BIAS = {"bias": Box((2,), (0,), (2,))}


def read(folder: Path, manifest: Manifest, wanted: dict[str, Box]) -> dict[str, Tensor]:
    return dict(read_boxes(folder, manifest, wanted))


def table_of(model: nn.Module) -> dict[str, Placement]:
    """Whole tensors, but for the weight that a checkpoint has a part of."""
    return {
        name: Placement((9, 2), (3, 0))
        if one.shape == (3, 2)
        else Placement(tuple(one.shape), (0,) * one.dim())
        for name, one in model.named_parameters()
    }


def load(model: nn.Module, folder: Path) -> None:
    load_model(dict(model.named_parameters()), table_of(model), folder, read_manifest(folder))


def names_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def refusal(call: object, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)  # type: ignore[operator]
    return str(caught.value)


def test_a_checkpoint_holds_its_tensors_and_says_where_they_lie(tmp_path: Path) -> None:
    folder = save(tmp_path, 12)
    assert folder == tmp_path / "iter_0000012" and names_in(tmp_path) == ["iter_0000012", LATEST]
    assert (tmp_path / LATEST).read_text() == "12\n"
    found = load_file(folder / MODEL)
    assert found.keys() == {"weight", "bias"}
    assert all(torch.equal(found[name], one) for name, one in tensors(12).items())
    content = json.loads((folder / "index.json").read_text())
    assert (content["format"], content["iteration"], content["task"]) == (2, 12, "gpt")
    assert content["tensors"]["weight"] == {
        "dtype": "torch.float32",
        "global_shape": [9, 2],
        "parts": [[MODEL, [3, 0], [3, 2]]],
    }
    assert {name: entry["parts"][0][0] for name, entry in content["tensors"].items()} == {
        "weight": MODEL,
        "bias": MODEL,
        MOMENT: MOMENTS,
    }
    for name, entry in content["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert (folder / name).stat().st_mode & 0o777 == folder.stat().st_mode & 0o666


def test_a_part_is_read_as_dense_as_a_whole(tmp_path: Path) -> None:
    """A column of a weight: strided it would keep the whole in memory, and mislead a fused optimizer."""
    folder = save(tmp_path, 3)
    found = read(folder, read_manifest(folder), BIAS | {"weight": Box((9, 2), (3, 1), (3, 1))})["weight"]
    assert torch.equal(found, tensors(3)["weight"][:, 1:]) and found.is_contiguous()
    assert found.untyped_storage().nbytes() == 3 * 4


def test_the_newest_or_the_chosen_checkpoint_is_found(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    for step in (2, 10, 6):
        save(tmp_path, step)
    assert find_checkpoint(tmp_path) == tmp_path / "iter_0000006", "the last one written"
    assert find_checkpoint(tmp_path, 10) == tmp_path / "iter_0000010"
    assert find_checkpoint(str(tmp_path / "iter_0000002")) == tmp_path / "iter_0000002"
    assert find_checkpoint(tmp_path / "iter_0000002", 2) == tmp_path / "iter_0000002"
    another = refusal(find_checkpoint, tmp_path / "iter_0000002", 6)
    assert another.startswith("--ckpt-step 6: ") and "is itself the checkpoint of step 2; leave" in another
    (tmp_path / LATEST).write_text("  10 \n")
    assert find_checkpoint(tmp_path) == tmp_path / "iter_0000010"
    missing = refusal(find_checkpoint, tmp_path, 4)
    assert "iter_0000004: is no checkpoint; those there: iter_0000002, iter_0000006, iter_0000010;" in missing
    (tmp_path / LATEST).write_text("release\n")
    assert "holds 'release', not a number of steps" in refusal(find_checkpoint, tmp_path)
    assert "is a file" in refusal(find_checkpoint, tmp_path / LATEST)
    other = tmp_path / "other" / "lit_model.pth"
    other.parent.mkdir()
    other.write_bytes(b"")
    assert "another program has saved (lit_model.pth)" in refusal(find_checkpoint, other)


@pytest.mark.parametrize("folder", ["nowhere", "empty", "pointer"])
def test_a_chosen_step_of_a_folder_without_any_has_a_way_out(tmp_path: Path, folder: str) -> None:
    """--save may name that very folder: a first start whose command asks for a step, or whose checkpoints are
    gone while the file that names the newest is left."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "pointer").mkdir()
    (tmp_path / "pointer" / LATEST).write_text("4\n")
    root = tmp_path / folder
    told = refusal(find_checkpoint, root, 4)
    assert told.startswith(f"{root}/iter_0000004: is no checkpoint; the folder holds none; name the folder ")
    assert told.endswith(", or leave --ckpt-step out")
    if folder == "pointer":
        assert refusal(find_checkpoint, root).endswith(
            f", or remove {root / LATEST}, which names it, to start anew"
        )
        (root / LATEST).unlink()
    assert find_checkpoint(root) is None


@pytest.mark.parametrize("name", ["global_step4", "iter_0000004/mp_rank_00", "iter_0000004/__0_0.distcp"])
@pytest.mark.parametrize("pointer", ["4\n", ""])
def test_checkpoints_of_another_program_are_told(tmp_path: Path, name: str, pointer: str) -> None:
    """Nothing there can be chosen with --ckpt-step; a checkpoint of our own beside them can."""
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / LATEST).write_text(pointer)
    if pointer or name.startswith("iter_"):
        said = refusal(find_checkpoint, tmp_path)
        how = "is not read here" if name == "global_step4" else "tools/convert_checkpoint.py --from megatron"
        assert f"another program has saved ({name}), which {how}" in said
        assert "--ckpt-step" not in said
    else:
        assert find_checkpoint(tmp_path) is None
    save(tmp_path, 6)
    assert find_checkpoint(tmp_path) == tmp_path / "iter_0000006"
    assert "those there: iter_0000006; choose one with" in refusal(find_checkpoint, tmp_path, 4)


def test_without_a_pointer_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    for step in (2, 6, 10, 12):
        save(tmp_path, step)
    (tmp_path / "iter_0000006" / MOMENTS).write_bytes(b"torn")
    (tmp_path / "iter_0000010" / MODEL).unlink()
    (tmp_path / "iter_0000012" / "index.json").unlink()
    for empty in (False, True):
        (tmp_path / LATEST).write_text("") if empty else (tmp_path / LATEST).unlink()
        told: list[str] = []
        assert find_checkpoint(tmp_path, tell=told.append) == tmp_path / "iter_0000002"
        (line,) = told
        assert f"{LATEST} is missing or empty; taking the newest whole checkpoint" in line
        assert line.endswith("(not whole: iter_0000012, iter_0000010, iter_0000006)")
    shutil.rmtree(tmp_path / "iter_0000002")
    assert "holds 3 checkpoints, of which none is whole" in refusal(find_checkpoint, tmp_path)
    shutil.rmtree(tmp_path / "iter_0000006")
    save(tmp_path, 14)
    (tmp_path / LATEST).unlink()
    found = find_checkpoint(tmp_path, tell=told.append)
    assert found == tmp_path / "iter_0000014" and "not whole" not in told[-1]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "it is missing"),
        ("unnamed", "it is missing"),
        ("shorter", "bytes instead of"),
        ("changed", "its checksum differs"),
        ("no tensors", "its checksum differs"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, how: str, said: str) -> None:
    older, folder, cut = (save(tmp_path, step) for step in (2, 3, 4))
    (cut / MODEL).unlink()
    manifest, path = read_manifest(folder), folder / MODEL
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "unnamed":
        manifest = dataclasses.replace(manifest, files={MOMENTS: manifest.files[MOMENTS]})
    elif how == "shorter":
        path.write_bytes(data[:-1])
    elif how == "changed":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert dict(read_boxes(folder, manifest, BIAS)).keys() == {"bias"}
    else:
        path.write_bytes(b"\xff" * len(data))
        assert f"{path}: is damaged (" in refusal(read, folder, manifest, BIAS)
    found = refusal(require_file, folder, manifest, MODEL, True)
    assert found.startswith(f"{path}: is damaged (") and said in found
    assert found.endswith(f"load {older} with --ckpt-step 2")
    assert read(folder, manifest, {MOMENT: Box((4,), (0,), (4,))})[MOMENT].tolist() == [1, 1, 1, 1]


def test_of_a_damaged_checkpoint_that_is_alone_no_other_is_named(tmp_path: Path) -> None:
    alone, other = save(tmp_path, 3), save(tmp_path, 4)
    for folder in (alone, other):
        (folder / MODEL).unlink()
    found = refusal(read, alone, read_manifest(alone), BIAS)
    assert found.endswith(
        "is damaged (it is missing); no other checkpoint there is whole, so bring the files of this one again"
    )


def model_of(**shapes: tuple[int, ...]) -> nn.Module:
    model = nn.Module()
    for name, shape in shapes.items():
        model.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    return model


def test_weights_are_copied_in_the_precision_of_the_model(tmp_path: Path) -> None:
    folder, model = save(tmp_path, 3), model_of(weight=(3, 2), bias=(2,))
    load(model, folder)
    for name, one in tensors(3).items():
        assert torch.equal(model.get_parameter(name), one.float())


def test_the_weights_of_another_model_are_refused_with_what_differs(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    model = model_of(weight=(2, 3), scale=(1,), **{f"more{number}": (1,) for number in range(9)})
    found = refusal(load, model, folder)
    assert found == (
        f"{folder}: is the checkpoint of another model: it has bias too; it has no more0; it has no more1; "
        "it has no more2; it has no more3, and 7 more; give the model's flags as they were, or "
        "--use-checkpoint-args, which takes them"
    )
    found = refusal(load, model_of(weight=(2, 3), bias=(2,)), folder)
    assert "it has weight [9, 2], the model [2, 3]; give the model's flags" in found


def test_only_own_checkpoints_beside_the_interval_are_deleted(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        save(tmp_path, step)
    (tmp_path / "iter_0000003").mkdir()
    (tmp_path / "iter_mine").mkdir()
    (tmp_path / "iter_0000005").write_text("a file")
    assert list(checkpoints_in(tmp_path)) == [2, 3, 4, 6, 8, 10]
    retain(tmp_path, None, 10)
    assert list(checkpoints_in(tmp_path)) == [2, 3, 4, 6, 8, 10]
    retain(tmp_path, 4, 10)
    assert list(checkpoints_in(tmp_path)) == [3, 4, 8, 10], "another program's 3 stays"


def test_a_checkpoint_that_is_deleted_in_part_is_none_and_the_next_run_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (2, 4):
        save(tmp_path, step)
    monkeypatch.setattr(
        "shutil.rmtree", lambda folder, **how: (folder / "index.json").unlink()
    )  # then killed
    retain(tmp_path, 3, 4)
    assert list(checkpoints_in(tmp_path)) == [4]
    (left,) = tmp_path.glob(f".iter_0000002.*/{MODEL}")
    monkeypatch.undo()
    clear_unfinished(tmp_path)
    assert not left.parent.exists() and list(checkpoints_in(tmp_path)) == [4]


def damage(folder: Path) -> str:
    """What is said of a checkpoint that is read whole, as a run that goes on reads it; empty where it is
    well."""
    try:
        verify_files(folder, read_manifest(folder), Mesh())
    except UserError as error:
        return str(error)
    return ""


def test_one_bit_anywhere_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    """In every byte of every file one of its bits, all eight in turn."""
    folder = save(tmp_path, 3)
    assert damage(folder) == ""
    for path in sorted(folder.iterdir()):
        content = bytearray(path.read_bytes())
        for place in range(len(content)):
            content[place] ^= 1 << place % 8
            path.write_bytes(content)
            assert str(path) in damage(folder), f"byte {place} of {path.name}"
            content[place] ^= 1 << place % 8
        path.write_bytes(content)
    assert damage(folder) == ""


def test_an_index_is_compared_as_text(tmp_path: Path) -> None:
    """What means the same as before is not what was written; and what is written anew is."""
    folder = save(tmp_path, 3)
    path = folder / "index.json"
    content = json.loads(path.read_text())
    path.write_text(sealed(content | {"schedule": {"warm-up": 1e-5}}))
    assert read_manifest(folder).schedule == {"warm-up": 1e-5}
    for other in (path.read_text().replace("1e-05", "1E-05"), json.dumps(json.loads(path.read_text()))):
        path.write_text(other)
        assert "is damaged (its checksum differs)" in refusal(read_manifest, folder)


def test_an_index_with_a_checksum_of_its_meaning_is_read(tmp_path: Path) -> None:
    """The first ones of this format have that. A changed value is noticed there, too."""
    folder = save(tmp_path, 3)
    path = folder / "index.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    words = json.dumps(content, sort_keys=True).encode()
    path.write_text(json.dumps(content | {"checksum": hashlib.sha256(words).hexdigest()}, indent=1) + "\n")
    assert read_manifest(folder).iteration == 3
    path.write_text(path.read_text().replace('"iteration": 3', '"iteration": 4'))
    assert "is damaged (its checksum differs)" in refusal(read_manifest, folder)


def test_an_index_without_a_checksum_is_refused_where_its_values_are_none(tmp_path: Path) -> None:
    """That is one of format 1, of which nothing else says whether it is damaged."""
    path = save(tmp_path, 3) / "index.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    whole = {"file": MODEL, "dtype": "torch.bfloat16", "global_shape": [2], "offset": [0]}
    for change in ({"dtype": 7}, {"file": None}, {"global_shape": ["2"]}, {"offset": [0, 0]}, {"offset": []}):
        path.write_text(json.dumps(content | {"format": 1, "tensors": {"bias": whole | change}}))
        assert "is not the index of a checkpoint" in refusal(read_manifest, path.parent)
    files = {MODEL: {"bytes": "2", "sha256": ""}}
    path.write_text(json.dumps(content | {"format": 1, "tensors": {"bias": whole}, "files": files}))
    assert "is not the index of a checkpoint" in refusal(read_manifest, path.parent)


def test_a_checkpoint_of_the_format_of_whole_tensors_is_read(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    content = json.loads((folder / "index.json").read_text())
    del content["checksum"]
    content["format"] = 1
    content["tensors"] = {
        "bias": {"file": MODEL, "dtype": "torch.bfloat16", "global_shape": [2], "offset": [0]}
    }
    (folder / "index.json").write_text(json.dumps(content))
    assert read(folder, read_manifest(folder), BIAS)["bias"].tolist() == [3, 3]


def test_what_could_not_be_deleted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk would fill silently."""
    for step in (1, 2, 3, 4):
        save(tmp_path, step)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    told: list[str] = []
    monkeypatch.setattr(Path, "rename", refuse)
    retain(tmp_path, 3, 4, told.append)
    assert told == [
        f"warning: {tmp_path}/iter_0000001: could not be deleted (Permission denied), and 1 more, so "
        "--save-retain-interval makes no room; mend its permissions, or delete it by hand"
    ]
    monkeypatch.undo()
    retain(tmp_path, 3, 4, told.append)
    assert list(checkpoints_in(tmp_path)) == [3, 4] and len(told) == 1


def test_what_can_be_freed_of_a_checkpoint_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 4):
        save(tmp_path, step)
    (tmp_path / "iter_0000001" / "a").write_text("first in the folder")

    def refuse(path: str, *words: object, unlink: Any = os.unlink, **named: object) -> None:
        if str(path).endswith(MODEL):
            raise OSError(16, "Device or resource busy")
        unlink(path, *words, **named)

    told: list[str] = []
    monkeypatch.setattr(os, "unlink", refuse)
    retain(tmp_path, 3, 4, told.append)
    (stays,) = tmp_path.glob(".iter_0000001.*.partial")
    assert [path.name for path in stays.iterdir()] == [MODEL]
    assert told[0].startswith(f"warning: {stays}: could not be deleted (Device or resource busy), so ")


def test_of_a_link_to_a_checkpoint_the_link_is_deleted(tmp_path: Path) -> None:
    save(tmp_path, 2)
    other = (tmp_path / "iter_0000002").rename(tmp_path / "elsewhere")
    (tmp_path / "iter_0000002").symlink_to(other)
    save(tmp_path, 4)
    retain(tmp_path, 3, 4, pytest.fail)
    assert names_in(tmp_path) == ["elsewhere", "iter_0000004", LATEST] and (other / MODEL).is_file()
    assert not list(tmp_path.glob(".iter_*"))


def test_where_the_pointer_has_no_room_there_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that nothing names would be done again by the run that goes on."""
    save(tmp_path, 2)
    whole = save_module.whole_file

    @contextmanager
    def full(path: Path, mode: str) -> Iterator[object]:
        with whole(path, mode) as file:
            file.flush = lambda: os.write(os.open("/dev/full", os.O_WRONLY), b"4")
            yield file

    monkeypatch.setattr(save_module, "whole_file", full)
    found = refusal(save, tmp_path, 4)
    assert found.startswith(f"{tmp_path}/iter_0000004: could not be written ([Errno 28]")
    assert names_in(tmp_path) == ["iter_0000002", LATEST] and (tmp_path / LATEST).read_text() == "2\n"


def test_a_file_that_may_not_be_read_is_told_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path, 3)

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("megatron.checkpoint.load.checksum", refuse)
    told = refusal(verify_files, folder, read_manifest(folder), Mesh())
    assert told == f"{folder / MODEL}: Permission denied; mend its permissions"
