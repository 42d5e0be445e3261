"""Which files a path, a glob or a folder stands for, and what is said of those that it does not."""

import gzip
import os
import re
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard
from pyarrow import csv, feather, parquet

from megatron.base.errors import UserError
from megatron.preprocess.inputs import find_files
from tests.support.made_up_text import write_lines

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


def test_what_a_folder_leaves_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (
        *("a.jsonl", ".ipynb_checkpoints/a-checkpoint.jsonl", "._a.jsonl", ".cache/b.jsonl"),
        *("__MACOSX/c.jsonl", "d.jsonl.gz.part", "e.parquet.incomplete", "notes.md", "f.csv", "g.json"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_lines(tmp_path / name, ["text"])
    assert find_files([str(tmp_path)]) == [str(tmp_path / "a.jsonl")]
    said = capsys.readouterr().err
    for words in (
        "4 hidden files left out",
        "2 files of an unfinished download left out",
        "2 files of another kind left out",
        "1 .json file (name those that hold JSON lines by path or glob) left out",
    ):
        assert words in said
    for named in ("._a.jsonl", ".cache/b.jsonl", "__MACOSX/c.jsonl", "g.json"):
        assert find_files([str(tmp_path / named)]) == [str(tmp_path / named)]
    assert find_files([str(tmp_path / ".cache")]) == [str(tmp_path / ".cache" / "b.jsonl")]
    assert find_files([str(tmp_path / "*.jsonl")]) == [str(tmp_path / "a.jsonl")]


def test_a_folder_of_hidden_files_alone_holds_nothing(tmp_path: Path) -> None:
    write_lines(tmp_path / ".a.jsonl", ["text"])
    with pytest.raises(UserError, match="the folder holds no file that ends in"):
        find_files([str(tmp_path)])


@pytest.mark.parametrize("ending", [".aria2", ".part"])
def test_an_unfinished_download(tmp_path: Path, ending: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["text"])
    Path(path + ending).touch()
    for given in (path, str(tmp_path), str(tmp_path / "*.jsonl")):
        with pytest.raises(
            UserError, match=rf"a\.jsonl: is an unfinished download, .*a\.jsonl\{ending} lies"
        ):
            find_files([given])


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a.jsonl.zst"])
def test_a_pointer_of_git_lfs_is_no_document(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(UserError, match=r"a\.\S+: is a pointer of Git LFS.*git lfs pull"):
        find_files([str(tmp_path)])
    (tmp_path / name).write_bytes(b"a text about " + POINTER)
    assert find_files([str(tmp_path)]) == [str(tmp_path / name)]


def test_a_file_that_is_named_twice_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "a.jsonl", ["text"])
    assert len(find_files([str(tmp_path), str(tmp_path / "a.jsonl")])) == 2
    told = "note: 1 files are named more than once, and read as often: "
    assert capsys.readouterr().err == f"{told}{tmp_path.resolve()}/a.jsonl\n"


def test_empty_files_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "a.jsonl", ["text"])
    for name in ("b.jsonl", "c.jsonl"):
        (tmp_path / name).touch()
    assert len(find_files([str(tmp_path)])) == 3
    assert capsys.readouterr().err == f"note: 2 of 3 files are empty, the first: {tmp_path}/b.jsonl\n"


def test_a_name_of_the_hubs_cache(tmp_path: Path) -> None:
    """Its names link to blobs that have no ending."""
    blobs, snapshot = tmp_path / ".cache" / "blobs", tmp_path / ".cache" / "snapshots" / "1f"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    write_lines(blobs / "4d7a", ["text"])
    (snapshot / "train.jsonl").symlink_to("../../blobs/4d7a")
    for given in (snapshot, snapshot / "train.jsonl", snapshot / "*.jsonl"):
        assert find_files([str(given)]) == [str(snapshot / "train.jsonl")]


def test_compressed_files_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    (tmp_path / "B.NDJSON.ZST").write_bytes(zstandard.compress(b"{}"))
    assert find_files([str(tmp_path)]) == [str(tmp_path / name) for name in ("B.NDJSON.ZST", "a.jsonl.gz")]


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for given in (str(tmp_path / "pipe.jsonl"), "-", "/dev/null"):
        with pytest.raises(UserError, match=f"--input {given}: is a pipe or a device.*to a file first"):
            find_files([given])
    with pytest.raises(UserError, match=r"--input nothing\.jsonl: no such file"):
        find_files(["nothing.jsonl"])


def test_several_files_in_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        Path(name).write_text('{"text": "a"}\n')
    said = re.escape("no such file; give each as a word of its own: a.jsonl b.jsonl; or in a YAML file")
    for word in ("a.jsonl,b.jsonl", "[a.jsonl, b.jsonl]"):
        with pytest.raises(UserError, match=said):
            find_files([word])
    with pytest.raises(UserError, match=r"no such file$"):
        find_files(["c.jsonl,d.jsonl"])


def test_brackets_in_names_are_no_glob(tmp_path: Path) -> None:
    folder = tmp_path / "[D] data" / "x[1]"
    folder.mkdir(parents=True)
    path = write_lines(folder / "a[b].jsonl", ["text"])
    for given in (path, str(folder), str(folder / "*.jsonl"), str(tmp_path / "[D] data" / "**" / "*.jsonl")):
        assert find_files([given]) == [path]
    other = write_lines(tmp_path / "1.jsonl", ["text"])
    assert find_files([str(tmp_path / "[0-9].jsonl")]) == [other]


def test_files_of_no_known_kind_are_one_problem_with_a_way_out(tmp_path: Path) -> None:
    for number in range(40):
        write_lines(tmp_path / f"wiki_{number:02}", ["text"])
    with pytest.raises(UserError) as caught:
        find_files([str(tmp_path / "wiki_*")])
    (problem,) = caught.value.problems
    assert "wiki_00 and 39 more: unknown kind of file" in problem and "such as .jsonl" in problem
    with pytest.raises(UserError, match=r"the folder holds no file that ends in .* such as \.jsonl"):
        find_files([str(tmp_path)])


def test_files_of_other_kinds_are_not_to_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the message says is done, and gives the texts."""
    monkeypatch.chdir(tmp_path)
    texts = pyarrow.table({"text": ["a", "b, c", "line of text\n" * 9000] * 20})
    csv.write_csv(texts, "FILE.csv")
    csv.write_csv(texts, "FILE.tsv", csv.WriteOptions(delimiter="\t"))
    feather.write_feather(texts, "FILE.feather")
    with pyarrow.ipc.new_stream("FILE.arrow", texts.schema) as stream:
        stream.write_table(texts)
    for ending in ("csv", "tsv", "feather", "arrow"):
        with pytest.raises(UserError, match="unknown kind of file") as caught:
            find_files([f"FILE.{ending}"])
        way = caught.value.problems[0].partition("write its rows as Parquet first, in Python: ")[2]
        exec(way.replace("'FILE'", f"'FILE.{ending}'"), {})
        assert parquet.read_table("OUTPUT.parquet").equals(texts)
        Path("OUTPUT.parquet").unlink()
    with pyarrow.ipc.new_file("FILE.arrow", texts.schema) as stream:
        stream.write_table(texts)
    with pytest.raises(UserError, match=r"pyarrow\.ipc\.open_file\('FILE'\)\.read_all"):
        find_files(["FILE.arrow"])
    for name, way in (
        ("a.tar.gz", "unpack it first"),
        ("a.TXT.gz", "unpack it first"),
        ("a.PDF", "text out"),
    ):
        Path(name).touch()
        with pytest.raises(UserError, match=way):
            find_files([name])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "README").touch()
    (tmp_path / "folder" / "a.csv").touch()
    with pytest.raises(UserError, match=r"holds no file that ends in .* write its rows as Parquet first"):
        find_files(["folder"])


@pytest.mark.parametrize("name", ["a.jsonl.lz4", "a.warc.gz", "a.html", "a.jsonl.gzip", "a.json.zstd"])
def test_what_another_ending_does_not_make_readable(tmp_path: Path, name: str) -> None:
    write_lines(tmp_path / name, ["text"])
    with pytest.raises(
        UserError, match=r"unpack it first|take its text out first|\.jsonl\.gz or \.jsonl\.zst"
    ):
        find_files([str(tmp_path / name)])


def test_a_folder_of_json_files_alone(tmp_path: Path) -> None:
    """The way out that is told reads them, and no known ending is said to be missing that is there."""
    folder = tmp_path / "[AA]"
    (folder / "AB").mkdir(parents=True)
    paths = [write_lines(folder / name, ["text"]) for name in ("AB/wiki_00.json", "wiki_01.json")]
    with pytest.raises(
        UserError, match=r"folder holds no file that ends in .*; if its \.json files"
    ) as caught:
        find_files([str(folder)])
    (problem,) = caught.value.problems
    assert ".jsonl, .ndjson, .jsonl.gz" in problem
    assert find_files([problem.split("'")[1]]) == paths


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "a"}')
    with pytest.raises(UserError, match=r"udcff/a\.jsonl': the name is no UTF-8.* rename it"):
        find_files([str(tmp_path)])


def test_folders_that_a_glob_matches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are read where it matches nothing else, or where they end as `a.parquet/` of Spark's."""
    names = ("a.jsonl", "b.jsonl/part-0.jsonl", "c1/deep/part-1.jsonl", "c2/part-2.jsonl")
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lines(path, ["text"])
        (path.parent / "_SUCCESS").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "_SUCCESS").unlink()
    assert find_files([str(tmp_path / "*")]) == [*map(str, paths[:2])]
    (left, other) = capsys.readouterr().err.splitlines()
    assert f"so {tmp_path}/c1, {tmp_path}/c2, {tmp_path}/empty are left out; name folders by" in left
    assert other == f"note: {tmp_path}/*: 1 file of another kind left out"
    assert find_files([str(tmp_path / "*.jsonl")]) == [*map(str, paths[:2])]
    capsys.readouterr()
    assert find_files([str(tmp_path / "c*")]) == [*map(str, paths[2:])]
    assert capsys.readouterr().err == f"note: {tmp_path}/c*: 2 files of another kind left out\n"
    every = find_files([str(tmp_path / "**" / "*.jsonl")])
    assert sorted(every) == [*map(str, paths)] == sorted(set(every))
    with pytest.raises(UserError, match=r"empty: the folder holds no file that ends in"):
        find_files([str(tmp_path / "empty*")])


def test_a_file_beside_its_packed_form_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_lines(tmp_path / name, ["text"])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    assert len(find_files([str(tmp_path)])) == 3
    told = "note: 1 files are there in several forms, plain and packed, and all are read: "
    assert capsys.readouterr().err == f"{told}{tmp_path}/a.jsonl; where they hold the same, leave one out\n"
    find_files([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    assert capsys.readouterr().err == ""
