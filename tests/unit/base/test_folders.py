import os
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.base.folders import list_folder, nearest, or_nearest


def judge(path: str) -> str | None:
    """Takes .txt, counts .csv, passes over the rest."""
    return "" if path.endswith(".txt") else "file of another kind" if path.endswith(".csv") else None


def test_the_nearest_of_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "corpora/books.idx", "corpora/cooks.idx", "corpora/books.txt", "corpora/looks.bin")
    monkeypatch.chdir(tmp_path)
    assert nearest("corpora/bookss", ".idx") == "corpora/books"
    assert nearest("corpara/boks", ".idx") == "corpora/books"
    assert nearest(f"{tmp_path}/corpora/look", ".bin") == f"{tmp_path}/corpora/looks"
    assert nearest("corporas/") == "corpora"
    assert (
        nearest("corpora/lookz", ".idx") == nearest("nowhere/books", ".idx") == nearest("/", ".idx") is None
    )
    assert or_nearest("corpora/boks.txt") == "; did you mean corpora/books.txt?"
    assert or_nearest("corpora/xyz") == or_nearest("corpora") == or_nearest("corpora/") == ""


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def listed(folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in list_folder(folder, judge)]


def test_hidden_files_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "b.txt", "a/c.txt", "a/d.csv", "a/e.csv", "a/f.log")
    assert listed(tmp_path) == ["a/c.txt", "b.txt"]
    assert capsys.readouterr().err == f"note: {tmp_path}: 2 files of another kind left out\n"
    fill(tmp_path, ".ipynb_checkpoints/b-checkpoint.txt", "a/._c.txt")
    os.unlink(tmp_path / "a" / "d.csv")
    assert listed(tmp_path) == ["a/c.txt", "b.txt"]
    err = capsys.readouterr().err
    assert err == f"note: {tmp_path}: 2 hidden files left out; 1 file of another kind left out\n"
    fill(tmp_path, ".cache/deep/er/x.txt", "__MACOSX/y.txt", ".git/objects/z")
    assert listed(tmp_path) == ["a/c.txt", "b.txt"]
    assert "5 hidden files left out" in capsys.readouterr().err


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / ".cache" / "hub", "a.txt")
    assert listed(tmp_path / ".cache" / "hub") == ["a.txt"] and capsys.readouterr().err == ""


def test_links_are_followed_and_each_file_is_taken_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the cache of the Hugging Face hub lies: names that link to blobs without a name."""
    fill(tmp_path / "hub", "blobs/123", "blobs/456")
    snapshot = tmp_path / "hub" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name, blob in (("part-0.txt", "123"), ("part-1.txt", "456"), ("copy-of-0.txt", "123")):
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    assert listed(snapshot) == ["copy-of-0.txt", "part-1.txt"]
    assert "1 file that another link leads to left out" in capsys.readouterr().err
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "latest").symlink_to(snapshot)
    assert listed(outside) == ["latest/copy-of-0.txt", "latest/part-1.txt"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    fill(tmp_path / "a", "x.txt")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "a" / ".hidden").symlink_to("/")
    assert listed(tmp_path) == ["a/x.txt"]


def test_a_link_to_nothing_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt")
    (tmp_path / "b.txt").symlink_to("gone")
    (tmp_path / "c.log").symlink_to("gone, and of no interest")
    with pytest.raises(UserError, match=r"b\.txt: leads to .*gone, where there is no file; mend or remove"):
        list_folder(tmp_path, judge)
    os.unlink(tmp_path / "b.txt")
    assert listed(tmp_path) == ["a.txt"]
