"""Documents from every kind of file, in a fixed order, however they are cut; and what is said of files
that hold none."""

import bz2
import gzip
import json
import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from megatron.base.errors import UserError
from megatron.preprocess.documents import FORMATS, bad_record, cut_into_pieces
from megatron.preprocess.inputs import find_files
from tests.support.made_up_text import TEXTS, many_texts, write_lines

KEYS = ("text",)


def read(files: list[str], piece_bytes: int = 1 << 20, keys: tuple[str, ...] = KEYS) -> list[list[str]]:
    """The texts of every key of all pieces; a bad record is an error."""
    columns: list[list[str]] = [[] for _ in keys]
    for piece in cut_into_pieces(files, piece_bytes):
        texts, bad = piece.read(keys)
        assert not bad, bad_record(piece, bad[0])
        for column, found in zip(columns, texts):
            column += found
    return columns


def complaints(files: list[str], piece_bytes: int = 1 << 20, keys: tuple[str, ...] = KEYS) -> list[str]:
    return [
        bad_record(piece, bad)
        for piece in cut_into_pieces(files, piece_bytes)
        for bad in piece.read(keys).bad
    ]


def compress(path: str, ending: str) -> str:
    content = Path(path).read_bytes()
    Path(path + ending).write_bytes(
        gzip.compress(content) if ending == ".gz" else zstandard.compress(content)
    )
    return path + ending


def as_parquet(path: Path, texts: list[str], **how) -> str:
    parquet.write_table(pyarrow.table({"id": range(len(texts)), "text": texts}), path, **how)
    return str(path)


@pytest.mark.parametrize("piece_bytes", [1, 100, 1000, 1 << 20])
def test_every_kind_of_file_holds_the_same_documents(tmp_path, piece_bytes):
    texts = many_texts(60)
    lines = write_lines(tmp_path / "a.jsonl", texts)
    escaped = write_lines(tmp_path / "b.ndjson", texts, ensure_ascii=False)
    assert read([lines], piece_bytes) == read([escaped], piece_bytes) == [texts]
    for ending in (".gz", ".zst"):
        assert read([compress(lines, ending)], piece_bytes) == [texts]
    assert read([as_parquet(tmp_path / "a.parquet", texts)], piece_bytes) == [texts]
    assert read([as_parquet(tmp_path / "b.parquet", texts, row_group_size=7)], piece_bytes) == [texts]
    (tmp_path / "files").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "files" / f"{number:03}.txt").write_bytes(text.encode())
    assert read(find_files([str(tmp_path / "files")]), piece_bytes) == [texts]


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(['{"text": "a"}', '{"text": "bb\\n"}', "", "  ", '{"x": 1, "text": "é"}\r', "\r"]),
        max_size=12,
    ),
    last=st.booleans(),
    piece_bytes=st.integers(1, 40),
)
def test_lines_belong_to_one_block_however_they_are_cut(tmp_path_factory, lines, last, piece_bytes):
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    path.write_bytes(("\n".join(lines) + "\n" * last).encode())
    expected = [json.loads(line)["text"] for line in lines if line.strip()]
    assert read([str(path)], piece_bytes) == [expected]
    if path.stat().st_size:
        assert read([compress(str(path), ".gz")], piece_bytes) == [expected]
    assert (
        sum(piece.input_bytes for piece in cut_into_pieces([str(path)], piece_bytes)) == path.stat().st_size
    )


def test_blocks_are_bounded_and_cover_the_input(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", many_texts(300))
    for file in (
        path,
        compress(path, ".gz"),
        compress(path, ".zst"),
        as_parquet(tmp_path / "a.parquet", many_texts(300)),
    ):
        pieces = list(cut_into_pieces([file], 2000))
        assert len(pieces) > 3 and len({piece.name for piece in pieces}) == len(pieces)
        assert 0.9 < sum(piece.input_bytes for piece in pieces) / os.path.getsize(file) <= 1
        longest = max(map(len, many_texts(300)))
        assert all(sum(map(len, piece.read(KEYS).texts[0])) <= 16 * 2000 + 2 * longest for piece in pieces)


def test_several_keys(tmp_path):
    records = [{"title": f"t{n}", "text": text, "n": n} for n, text in enumerate(TEXTS)]
    path = write_lines(tmp_path / "a.jsonl", records)
    assert read([path], keys=("text", "title")) == [TEXTS, [f"t{n}" for n in range(len(TEXTS))]]
    table = pyarrow.table({key: [record[key] for record in records] for key in ("title", "text", "n")})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read([str(tmp_path / "a.parquet")], keys=("title", "text"))[1] == TEXTS


def test_lines_end_at_newlines_alone(tmp_path):
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei"
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False) + "\r\n", newline="")
    (tmp_path / "b.txt").write_text(text + "\r\nmore\rand more\n", newline="")
    assert read([str(tmp_path / "a.jsonl")]) == [[text]]
    assert read([str(tmp_path / "b.txt")]) == [[text + "\r\nmore\rand more\n"]]


def test_numbers_that_only_pythons_reader_takes(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"score": NaN, "text": "a"}\n{"score": -Infinity, "text": "b"}\n')
    assert read([str(tmp_path / "a.jsonl")]) == [["a", "b"]]


BAD_LINES = {
    b'{"text": "a}': r"line 3: column 10: Unterminated string .*; every line must be one JSON object",
    b"{": "line 3: column 2: Expecting property name",
    b"[1, 2]": "line 3: holds a list, not an object with keys$",
    b'[{"text": "a"}]': r"holds a list, .*; write each of its objects in a line of its own, as jq -c '.\[\]'",
    b'{"text":': r"column 9: Expecting value; every line must be one JSON object; jq -c \. writes objects so",
    b'{"text": "a",': "jq -c",
    b'{"text": "a"},': "Extra data; every line must be one JSON object; sed 's/",
    b"[": r"column 2: Expecting value; every line must be one JSON object; jq -c \. writes objects so",
    b"null": "line 3: holds null, not an object with keys$",
    b" null\r": "line 3: holds null, not an object",
    b'"text"': "line 3: holds a text, not an object",
    b"17": "line 3: holds a number, not an object",
    b'{"content": "a", "id": 1}': "line 3: has no key 'text'; its keys are content, id; choose with "
    "--json-keys",
    b"{}": "line 3: has no key 'text'; its keys are none",
    b'{"text": null}': "line 3: key 'text' holds null, not a text",
    b'{"text": 3.5}': "line 3: key 'text' holds a number, not a text",
    b'{"text": true}': "line 3: key 'text' holds true or false, not a text",
    b'{"text": ["a"]}': "line 3: key 'text' holds a list, not a text; write all of it as one text",
    b'{"text": {"a": 1}}': "line 3: key 'text' holds an object, not a text; write all of it as one text",
    b'{"text": [5, 17]}': "holds a list, not a text; NullTokenizer reads ids as one text of numbers",
    b'{"text": "a", "n": '
    + b"7" * 5000
    + b"}": r"line 3: Exceeds the limit .*; write such a number as a text",
    b'{"text": "a\xff"}': r"line 3: byte 12 of the line is no UTF-8 \(0xff\)",
    b'{"text": "\\ud800"}': "line 3: key 'text' holds half of a surrogate pair",
    b"\xef\xbb\xbf{}": "line 3: column 1: Unexpected UTF-8 BOM",
    b'{"text": ' + b"[" * 100_000: "line 3: its brackets are nested too deep to be read; every line must be",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: ascii(line[:20]))
@pytest.mark.parametrize("piece_bytes", [5, 1 << 20])
def test_bad_lines_are_found_where_they_stand(tmp_path, line, piece_bytes):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + line + b'\n{"text": "fine too"}\n')
    for file in (str(path), compress(str(path), ".gz"), compress(str(path), ".zst")):
        (found,) = complaints([file], piece_bytes)
        assert found.startswith(f"{file}, line 3: ") and re.search(BAD_LINES[line], found)
        texts = [text for piece in cut_into_pieces([file], piece_bytes) for text in piece.read(KEYS).texts[0]]
        assert texts == ["fine", "fine too"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_called_by_its_name(tmp_path, encoding):
    lines = tmp_path / "a.jsonl"
    lines.write_bytes('{"text": "eins zwei"}\n{"text": "drei"}\n'.encode(encoding))
    text = tmp_path / "b.txt"
    text.write_bytes("eins zwei\n".encode(encoding))
    way_out = "is UTF-16, not UTF-8; convert the file with iconv -f UTF-16 -t UTF-8"
    assert complaints([str(lines)])[0] == f"{lines}, line 1: {way_out}"
    assert complaints([str(text)]) == [f"{text}: {way_out}"]


def test_a_nul_makes_no_utf16(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\0b")
    assert read([str(tmp_path / "a.txt")]) == [["a\0b"]]


def test_nuls_in_a_row_are_no_text(tmp_path):
    """As a disk leaves a file whose last blocks were never written."""
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n' + bytes(50))
    (tmp_path / "b.txt").write_bytes(b"one" * 50 + bytes(50))
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.txt")]
    way_out = "holds NUL bytes, as a file that was not written to its end does; bring the file again"
    assert complaints(files) == [f"{files[0]}, line 2: {way_out}", f"{files[1]}: {way_out}"]


def test_a_column_that_is_there_twice(tmp_path):
    path = str(tmp_path / "a.parquet")
    columns = [pyarrow.array(["one"]), pyarrow.array(["two"]), pyarrow.array(["three"])]
    parquet.write_table(pyarrow.table(columns, names=["text", "text", "title"]), path)
    with pytest.raises(UserError, match=r"a\.parquet: 2 columns are named 'text'; write the file again"):
        read([path])
    assert read([path], keys=("title",)) == [["three"]]


def test_bad_rows_and_text_files(tmp_path):
    rows = as_parquet(tmp_path / "a.parquet", ["a", None, "b", None], row_group_size=1)
    assert complaints([rows]) == [f"{rows}, row {row}: key 'text' holds null, not a text" for row in (2, 4)]
    parquet.write_table(pyarrow.table({"text": [b"bytes"]}), tmp_path / "b.parquet")
    assert complaints([str(tmp_path / "b.parquet")]) == [
        f"{tmp_path}/b.parquet, row 1: key 'text' holds bytes, not a text"
    ]
    (tmp_path / "a.txt").write_bytes(b"one\ntwo \xff\n")
    assert complaints([str(tmp_path / "a.txt")]) == [
        f"{tmp_path}/a.txt: line 2, byte 5 is no UTF-8 (0xff); "
        "iconv -f ENCODING -t UTF-8 converts a file of another encoding"
    ]
    (tmp_path / "b.txt").write_text("text")
    assert (
        "has no key 'title'; its keys are text" in complaints([str(tmp_path / "b.txt")], keys=("title",))[0]
    )


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_files_of_another_kind_than_their_name_says(tmp_path, name):
    lines, path = write_lines(tmp_path / "b.jsonl", many_texts(30)), tmp_path / name
    packed = [Path(compress(lines, ending)).read_bytes() for ending in (".gz", ".zst")]
    table = Path(as_parquet(tmp_path / "b.parquet", many_texts(30))).read_bytes()
    for content, ending in zip((*packed, table), (".jsonl.gz", ".jsonl.zst", ".parquet")):
        path.write_bytes(content)
        said = f"is of another kind by its first bytes; give the file the ending {ending}, or link it so"
        assert said in complaints([str(path)])[0]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize(("pack", "kind"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_a_packed_file_that_is_not_read_whatever_its_name(tmp_path, name, pack, kind):
    packed = pack(b'{"text": "a"}\n' * 50)
    said = f"is packed, {kind} by its first bytes; unpack the file first"
    for content in (packed, packed[:10] + b"\n"):  # (the rest of whose first line may be text)
        (tmp_path / name).write_bytes(content)
        assert said in complaints([str(tmp_path / name)])[0]


@pytest.mark.parametrize(
    ("content", "way"),
    [
        ('{"text": "a"},\n{"text": "b"},\n', "sed 's/,[[:space:]]*$//' FILE"),
        ('{"text": "a"}\r{"text": "b"}\r', "tr '\\r' '\\n' < FILE"),
        ('{"text": "a"}{"text": "b"}\n', "jq -c . writes objects so"),
    ],
)
def test_the_way_from_other_lines_to_json_lines_works(tmp_path, content, way):
    path = tmp_path / "a.jsonl"
    path.write_text(content, newline="")
    assert way in complaints([str(path)])[0]
    command = way.partition(" writes")[0].replace("FILE", str(path)) + (f" {path}" if "jq" in way else "")
    if shutil.which(command.split()[0]):
        done = subprocess.run(command, shell=True, capture_output=True, check=True, text=True)
        (tmp_path / "b.jsonl").write_text(done.stdout)
        assert read([str(tmp_path / "b.jsonl")]) == [["a", "b"]]


def test_a_text_file_of_json_lines(tmp_path):
    path = tmp_path / "a.txt"
    for key, content in (
        ("text", b'{"text": "a"}\n{"text": "b"}\n'),
        ("text", b'\xef\xbb\xbf\n {"id": 1, "text": "a"}\n\n{"text": "a"}\n{"text": "c"}\n{"x'),
        ("body", b'{"body": "a"}\n{"body": "b"}'),
        ("text", (b'{"text": "%s"}\n' % (b"a" * 600_000)) * 2),  # of which the second is not looked at whole
    ):
        path.write_bytes(content)
        (said,) = complaints([str(path)], keys=(key,))
        assert "holds JSON lines, not one text; give the file the ending .jsonl, or link it so; " in said
        assert said.endswith("to keep it as one text, jq -Rs '{text: .}' FILE writes it as a line of JSON")
    line = '{"text": "a"}\n'
    for text in (line, f"{line}\nis what it answers.\n", f"{line}{line}so.\n", '{"body": "a"}\n' * 2):
        path.write_text(text)
        assert read([str(path)]) == [[text]]
    for text in ('{"a": 1}\n', "{x}\n", "text {}", '{"text": 3}', "{", "PAR1 is a gene", ""):
        path.write_text(text)
        assert read([str(path)]) == [[text]]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_packed_file_that_was_unpacked_on_its_way(tmp_path, ending):
    path = Path(write_lines(tmp_path / f"a.jsonl{ending}", ["text"]))
    with pytest.raises(
        UserError, match=r"is no (gzip|zstd) file, .*; give it the ending \.jsonl, or link it so"
    ):
        read([str(path)])
    other = {".gz": ".zst", ".zst": ".gz"}[ending]
    packed = compress(write_lines(tmp_path / "b.jsonl", ["text"]), other)
    os.replace(packed, path)
    with pytest.raises(UserError, match=rf"give it the ending \.jsonl\{other}, or link it so"):
        read([str(path)])
    path.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(UserError, match=r"is no (gzip|zstd) file, .*; make or copy the file again"):
        read([str(path)])


def test_a_row_that_is_no_utf8_is_one_bad_row(tmp_path):
    texts = pyarrow.array([b"one", b"tw\xffo", b"three", None], pyarrow.binary()).view(pyarrow.utf8())
    for kind in (pyarrow.utf8(), pyarrow.large_utf8()):
        path = str(tmp_path / f"{kind}.parquet")
        parquet.write_table(pyarrow.table({"text": texts.cast(kind, safe=False), "id": range(4)}), path)
        assert complaints([path]) == [
            f"{path}, row 2: byte 3 is no UTF-8 (0xff)",
            f"{path}, row 4: key 'text' holds null, not a text",
        ]
        (piece,) = cut_into_pieces([path])
        assert piece.read(KEYS).texts == [["one", "three"]]


def test_a_column_that_is_not_there(tmp_path):
    path = as_parquet(tmp_path / "a.parquet", ["a"])
    with pytest.raises(UserError, match=r"a\.parquet: no column 'title'; its columns are id, text"):
        read([path], keys=("title",))


@pytest.mark.parametrize("ending", [".gz", ".zst", ".parquet"])
def test_files_that_are_cut_short(tmp_path, ending):
    texts = many_texts(200)
    path = (
        as_parquet(tmp_path / "a.parquet", texts)
        if ending == ".parquet"
        else compress(write_lines(tmp_path / "a.jsonl", texts), ending)
    )
    os.truncate(path, os.path.getsize(path) - 9)
    with pytest.raises(
        UserError,
        match=r"(at about byte [\d,]+|is no whole Parquet file) \(.*\); make or copy the file again",
    ):
        read([path])
    Path(path).write_bytes(b"plain text, not compressed")
    with pytest.raises(UserError, match=r"a\.(jsonl|parquet)"):
        read([path])


def test_the_order_of_files(tmp_path):
    for name in ("b/2.jsonl", "b/10.jsonl", "a/x.txt", "a/deep/y.jsonl", "a/notes.rst", "z.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words" if name.endswith(".txt") else '{"text": "a"}\n')
    found = find_files([str(tmp_path / "z.jsonl"), str(tmp_path / "a"), str(tmp_path / "b" / "*.jsonl")])
    assert [os.path.relpath(path, tmp_path) for path in found] == [
        "z.jsonl",
        "a/deep/y.jsonl",
        "a/x.txt",
        "b/10.jsonl",
        "b/2.jsonl",
    ]
    assert find_files([str(tmp_path / "**" / "?.jsonl")]) == [
        str(tmp_path / name) for name in ("a/deep/y.jsonl", "b/2.jsonl", "z.jsonl")
    ]
    assert read(found) == [["a", "a", "words", "a", "a"]]


def test_json_files_of_a_folder_are_left_out_and_counted(tmp_path, capsys):
    write_lines(tmp_path / "a.jsonl", ["a"])
    (tmp_path / "config.json").write_text('{"hidden_size": 4}')
    assert find_files([str(tmp_path)]) == [str(tmp_path / "a.jsonl")]
    assert (
        "1 .json file (name those that hold JSON lines by path or glob) left out" in capsys.readouterr().err
    )
    assert find_files([str(tmp_path / "*.json")]) == [str(tmp_path / "config.json")]


def test_a_byte_order_mark_at_the_start_is_skipped(tmp_path):
    mark = b"\xef\xbb\xbf"
    (tmp_path / "a.jsonl").write_bytes(mark + b'{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "b.txt").write_bytes(mark + b"drei")
    for path, texts in (
        (tmp_path / "a.jsonl", ["one", "two"]),
        (compress(str(tmp_path / "a.jsonl"), ".gz"), ["one", "two"]),
    ):
        assert read([str(path)]) == [texts]
    assert read([str(tmp_path / "b.txt")]) == [["drei"]]


def test_a_parquet_file_with_damaged_pages_is_told(tmp_path):
    path = Path(as_parquet(tmp_path / "a.parquet", many_texts(300)))
    content = bytearray(path.read_bytes())
    content[100 : len(content) // 2] = bytes(len(content) // 2 - 100)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: is no whole Parquet file"):
        read([str(path)])


def test_a_folder_of_results_is_no_input(tmp_path):
    write_lines(tmp_path / "a.jsonl", ["a"])
    for ending in (".bin", ".idx", ".json"):
        (tmp_path / f"out_text_document{ending}").touch()
    assert find_files([str(tmp_path)]) == [str(tmp_path / "a.jsonl")]


def test_all_mistakes_are_told_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").touch()
    with pytest.raises(UserError) as error:
        find_files([str(tmp_path / name) for name in ("none.jsonl", "none*.jsonl", "empty", "a.csv")])
    one, two, three, four = error.value.problems
    assert one.endswith("none.jsonl: no such file") and two.endswith("none*.jsonl: no such file")
    assert "holds no file that ends in" in three and "a.csv: unknown kind of file; known endings are" in four
    assert all(ending in four for ending in FORMATS)
