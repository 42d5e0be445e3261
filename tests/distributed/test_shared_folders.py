"""Ranks on machines with folders of their own are told before the first step."""

import shutil
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.checkpoint.manifest import NAME, Manifest, write_manifest
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.mesh import Mesh
from megatron.train.places import find_together, require_shared
from tests.support.ranks import run_ranks


def told_of_save(mesh: Mesh, folders: list[Path]) -> str:
    try:
        require_shared(str(folders[mesh.world.rank]), mesh)
    except UserError as error:
        return str(error)
    return ""


def told_of_load(mesh: Mesh, folders: list[Path]) -> str:
    try:
        found = find_together(str(folders[mesh.world.rank]), None, lambda _: None, mesh)
    except UserError as error:
        return str(error)
    return f"found {found.name if found else 'none'}"


def test_a_folder_that_all_ranks_see_stays_as_it_is(tmp_path: Path) -> None:
    assert run_ranks(2, told_of_save, [tmp_path, tmp_path / "."]) == ["", ""]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_one_machine_alone(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "first", tmp_path / "other"]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    for told in run_ranks(3, told_of_save, folders):
        assert "rank 2 on " in told and "does not see there what rank 0 on " in told
        assert told.endswith("name a folder that all machines share, by its whole path")
    assert [list(folder.iterdir()) for folder in folders] == [[], [], []]


@pytest.mark.parametrize(
    ("other", "words"),
    [("none", "finds none"), ("later", "finds iter_0000006"), ("changed", "of another content")],
)
def test_checkpoints_of_one_machine_alone(tmp_path: Path, other: str, words: str) -> None:
    folders = [tmp_path / "first", tmp_path / "other"]
    write(folders[0], 4)
    folders[1].mkdir()
    if other != "none":
        write(folders[1], 6 if other == "later" else 4, **({"plan": 1} if other == "changed" else {}))
    for told in run_ranks(2, told_of_load, folders):
        assert told.startswith("--load ") and "rank 0 on " in told and words in told
    shutil.rmtree(folders[1])
    shutil.copytree(folders[0], folders[1])
    assert run_ranks(2, told_of_load, folders) == ["found iter_0000004"] * 2


def write(root: Path, iteration: int, **fields: int) -> None:
    folder = root / f"iter_{iteration:07d}"
    folder.mkdir(parents=True)
    said = Manifest("gpt", {}, Vocabulary(9, None, None), [], [], {}, {}, {}, iteration, **fields)
    write_manifest(folder, said)
    assert (folder / NAME).is_file()
    (root / "latest_checkpointed_iteration.txt").write_text(f"{iteration}\n")
