import errno
import os
import shutil
import stat
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.base.files import (
    aside,
    hold,
    remove_empty_folders,
    require_room,
    whole_file,
    whole_folder,
    writable_file,
    writable_folder,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode, content", [("wb", b"\x00new"), ("w", "neu: ä")])
def test_a_whole_file_holds_what_was_written(tmp_path: Path, mode: str, content: str | bytes) -> None:
    path = tmp_path / "deep" / "er" / "file"
    with whole_file(path, mode) as file:
        file.write(content)
        assert not path.exists()
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode("utf-8"))
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_whole_file_leaves_the_old_one_and_no_remains_on_error(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), whole_file(path, "w") as file:
        file.write("half of the new")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_a_whole_file_is_old_until_the_moment_it_is_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with open(path) as reader:
        with whole_file(path, "w") as file:
            file.write("new")
            file.flush()
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert reader.read() == "old", "the old file was written over instead of being replaced"


def test_a_whole_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with whole_folder(path) as folder:
            (folder / f"{content}.txt").write_text(content)
            assert not (path / f"{content}.txt").exists()
    assert names(path) == ["new.txt"] and names(tmp_path) == ["folder"]


def test_a_whole_folder_may_hold_folders(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("x")
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "x"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_whole_folder_leaves_the_old_one_and_no_remains_on_error(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(error), whole_folder(path) as folder:
        (folder / "new").touch()
        raise error
    assert names(path) == ["old"] and names(tmp_path) == ["folder"]


def test_the_old_folder_survives_a_failing_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="the disk is gone"), whole_folder(path) as folder:
        (folder / "new").touch()
    assert names(path) == ["old"]


def test_the_old_folder_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def fail_for_the_new(source: Path, target: Path) -> None:
        if source.name.endswith(".partial"):
            raise OSError("the disk is gone")
        rename(source, target)

    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    monkeypatch.setattr(os, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="the disk is gone"), whole_folder(path) as folder:
        (folder / "new").touch()
    assert names(path) == ["old"] and names(tmp_path) == ["folder"]


def test_what_is_set_aside_takes_the_place_of_nothing(tmp_path: Path) -> None:
    """However many within a second."""
    places = []
    for _ in range(3):
        places.append(aside(tmp_path / "metrics.until.jsonl"))
        places[-1].touch()
    assert len(set(places)) == len(names(tmp_path)) == 3
    assert all(place.match("metrics.until-????????-??????*.jsonl") for place in places)


def test_a_held_lock_is_refused_to_others_until_it_is_let_go(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / ".lock"
    for _ in range(2):
        with hold(lock), pytest.raises(UserError, match="another run is writing"), hold(lock):
            pass


@pytest.mark.parametrize(("there", "left"), [((), []), (("iter_1",), ["iter_1", ".lock", ".records.lock"])])
def test_a_folder_that_a_mistake_leaves_empty_goes(tmp_path: Path, there: list[str], left: list[str]) -> None:
    """Its lock is nothing that anybody wants to keep, unless the folder was there before."""
    folder, old = tmp_path / "deep" / "run", tmp_path / "old"
    old.mkdir()
    locks = (folder / ".lock", folder / ".records.lock", old / ".lock")
    with pytest.raises(UserError), ExitStack() as held:
        for lock in locks:
            held.enter_context(hold(lock))
        for name in there:
            (folder / name).touch()
        raise UserError("no room")
    remove_empty_folders()
    assert sorted(names(folder) if folder.exists() else []) == sorted(left)
    assert (tmp_path / "deep").exists() == bool(left) and names(old) == [".lock"]


def test_a_mistake_is_told_where_the_folder_of_its_lock_is_gone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no room"), hold(tmp_path / "run" / ".lock"):
        shutil.rmtree(tmp_path / "run")
        raise UserError("no room")


def test_a_crashed_predecessor_does_not_mix_in(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    remains = tmp_path / f".folder.{os.getpid()}.partial"
    remains.mkdir()
    (remains / "stale").touch()
    with whole_folder(path) as folder:
        (folder / "new").touch()
    assert names(path) == ["new"]


def test_writable_folder_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    assert writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize(
    "write",
    [
        writable_folder,
        lambda path: whole_file(path / "x").__enter__(),
        lambda path: whole_folder(path / "x").__enter__(),
    ],
)
def test_an_unwritable_folder_is_a_mistake_of_the_user(tmp_path: Path, write) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError) as caught:
        write(tmp_path / "file" / "folder")
    (problem,) = caught.value.problems
    assert f"cannot write to the folder {tmp_path}/file/folder" in problem
    assert "Not a directory" in problem and "choose another folder" in problem


def test_room_is_that_of_the_disk_of_a_path_to_come(tmp_path: Path, monkeypatch) -> None:
    def disk(path: Path) -> tuple[int, int, int]:
        assert path == tmp_path
        return total, 0, 2_500_000_000

    monkeypatch.setattr(shutil, "disk_usage", disk)
    total = 10**12
    require_room(tmp_path / "no" / "such", 2_500_000_000, "it")
    with pytest.raises(UserError) as caught:
        require_room(tmp_path / "no" / "such", 2_510_000_000, "it")
    said = "it takes at least 2.51 GB, and 2.50 GB are free there; make room, "
    assert f"{tmp_path}/no/such: {said}" in str(caught.value)
    total = 0  # a disk that does not say
    require_room(tmp_path / "no" / "such", 10**15, "it")


@pytest.mark.parametrize(
    ("number", "passes"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)]
)
def test_a_disk_that_syncs_no_folders_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool
) -> None:
    """CIFS and some of FUSE refuse it; files they sync."""
    sync = os.fsync

    def refuse_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    for write in (whole_file, whole_folder):
        with nullcontext() if passes else pytest.raises(OSError), write(tmp_path / write.__name__):
            pass
    assert not passes or names(tmp_path) == ["whole_file", "whole_folder"]


def test_a_path_that_ends_in_a_slash_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="new/: is a folder, and a file is to be written"):
        writable_file(f"{tmp_path}/new/")
    assert names(tmp_path) == []
