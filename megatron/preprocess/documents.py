"""Documents from files: JSON lines (plain, gzip, zstd), Parquet, and text files of one document each.

The input is cut into pieces of bounded size in a fixed order. A piece is a small value that a worker process
reads by itself, so memory does not depend on the size of a corpus.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from megatron.base.errors import UserError
from megatron.preprocess.compressed import GZIP, ZSTD, Kind, decompress
from megatron.preprocess.records import BOM, BadRecord, Records, no_utf8, read_lines, read_text_file, sift

PIECE_BYTES = 4 << 20
PIECES_OF_A_ROW_GROUP = 16
FILES_OF_A_PIECE = 1024


class Piece(Protocol):
    """A piece of the input. `name` tells it from all others; `input_bytes`: the bytes on disk that it
    stands for."""

    name: str
    input_bytes: int

    def read(self, keys: Sequence[str]) -> Records: ...

    def place(self, number: int) -> str:
        """Where record `number` of this piece stands, in words."""
        ...


class LineRange:
    """The lines of a file that begin at bytes [start, stop)."""

    def __init__(self, path: str, start: int, stop: int):
        self.path, self.start, self.stop = path, start, stop
        self.name, self.input_bytes = f"{path}, byte {start}", stop - start

    def read(self, keys: Sequence[str]) -> Records:
        with open(self.path, "rb") as file:
            begin = self._first_line(file)
            content = file.read(max(self.stop - begin, 0))
            if content and not content.endswith(b"\n"):
                content += file.readline()
        return read_lines(content if self.start else content.removeprefix(BOM), keys)

    def place(self, number: int) -> str:
        with open(self.path, "rb") as file:
            rest, lines = self._first_line(file), 1
            file.seek(0)
            while rest:
                piece = file.read(min(rest, PIECE_BYTES))
                lines, rest = lines + piece.count(b"\n"), rest - len(piece)
        return f"{self.path}, line {lines + number}"

    def _first_line(self, file: Any) -> int:
        """Move to the first line that begins in the range, and say where that is."""
        if self.start:
            file.seek(self.start - 1)
            file.readline()
        return file.tell()


class LineBytes:
    """Whole lines out of a compressed file; `line` is the number of the first."""

    def __init__(self, path: str, line: int, content: bytes, input_bytes: int):
        self.path, self.line, self.content = path, line, content
        self.name, self.input_bytes = f"{path}, line {line}", input_bytes

    def read(self, keys: Sequence[str]) -> Records:
        return read_lines(self.content if self.line > 1 else self.content.removeprefix(BOM), keys)

    def place(self, number: int) -> str:
        return f"{self.path}, line {self.line + number}"


class ParquetRows:
    """Batch `batch` of a Parquet row group that is read `batch_rows` rows at a time; `row` is the number
    of its first row."""

    def __init__(self, path: str, group: int, batch: int, batch_rows: int, row: int, input_bytes: int):
        self.path, self.group, self.batch, self.batch_rows, self.row = path, group, batch, batch_rows, row
        self.name, self.input_bytes = f"{path}, row {row}", input_bytes

    def read(self, keys: Sequence[str]) -> Records:
        with _open_parquet(self.path) as file:
            _require_columns(self.path, file.schema_arrow.names, keys)
            with _whole_parquet(self.path):
                batches = file.iter_batches(
                    self.batch_rows, row_groups=[self.group], columns=list(keys), use_threads=False
                )
                batch = next(itertools.islice(batches, self.batch, None))
                columns = [_values(batch.column(key)) for key in keys]
        return sift([_row(keys, row) for row in zip(*columns)], keys)

    def place(self, number: int) -> str:
        return f"{self.path}, row {self.row + number}"


def _require_columns(path: str, names: Sequence[str], keys: Sequence[str]) -> None:
    """UserError where a key names no column, or more than one."""
    for key in keys:
        if key not in names:
            raise UserError(
                f"{path}: no column {key!r}; its columns are {', '.join(names)}; choose with --json-keys"
            )
        if names.count(key) > 1:
            raise UserError(
                f"{path}: {names.count(key)} columns are named {key!r}; write the file again with one each, "
                "or choose another with --json-keys"
            )


def _row(keys: Sequence[str], values: Sequence[Any]) -> Any:
    """A row as a record, or why it is none."""
    return next((value for value in values if isinstance(value, ValueError)), dict(zip(keys, values)))


def _values(column: Any) -> list[Any]:
    """The values of a column; of a text that is no UTF-8, why."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return no_utf8(error)


class TextFiles:
    """Files that are one document each, under the key `text`."""

    def __init__(self, paths: list[str], input_bytes: int):
        self.paths = paths
        self.name, self.input_bytes = paths[0], input_bytes

    def read(self, keys: Sequence[str]) -> Records:
        return sift([read_text_file(path, keys) for path in self.paths], keys)

    def place(self, number: int) -> str:
        return self.paths[number]


def _line_ranges(paths: list[str], piece_bytes: int) -> Iterator[Piece]:
    for path in paths:
        size = os.path.getsize(path)
        for start in range(0, size, piece_bytes):
            yield LineRange(path, start, min(start + piece_bytes, size))


def _compressed_lines(kind: Kind) -> Callable[[list[str], int], Iterator[Piece]]:
    """A reader of compressed files of one kind."""

    def pieces(paths: list[str], piece_bytes: int) -> Iterator[Piece]:
        for path in paths:
            yield from _cut_stream(path, kind, piece_bytes)

    return pieces


def _cut_stream(path: str, kind: Kind, piece_bytes: int) -> Iterator[Piece]:
    line, position = 1, 0
    with open(path, "rb") as file:
        for content in _whole_lines(decompress(file, path, kind), piece_bytes):
            yield LineBytes(path, line, content, file.tell() - position)
            line, position = line + content.count(b"\n"), file.tell()


def _whole_lines(parts: Iterator[bytes], piece_bytes: int) -> Iterator[bytes]:
    """Content in pieces of at least `piece_bytes` that end where a line ends."""
    gathered: list[bytes] = []
    size = 0
    for part in _cut(parts, piece_bytes):
        cut = part.rfind(b"\n") + 1
        if cut and size + cut >= piece_bytes:
            yield b"".join([*gathered, part[:cut]])
            gathered, size, part = [], 0, part[cut:]
        gathered.append(part)
        size += len(part)
    if size:
        yield b"".join(gathered)


def _cut(parts: Iterator[bytes], most: int) -> Iterator[bytes]:
    """The same bytes, at most `most` at a time."""
    return (part[first : first + most] for part in parts for first in range(0, len(part), most))


def _open_parquet(path: str) -> Any:
    from pyarrow import parquet

    with _whole_parquet(path):
        return parquet.ParquetFile(path)


@contextmanager
def _whole_parquet(path: str) -> Iterator[None]:
    """Reading that a damaged file may break off."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, StopIteration, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no whole Parquet file ({error}); make or copy the file again") from None


def _row_groups(paths: list[str], piece_bytes: int) -> Iterator[Piece]:
    """Row groups; large ones in batches of rows, each of which costs reading what stands before it again."""
    for path in paths:
        with _open_parquet(path) as file:
            row, metadata = 1, file.metadata
        for group in range(metadata.num_row_groups):
            group_metadata = metadata.row_group(group)
            batches = -(-group_metadata.total_byte_size // (PIECES_OF_A_ROW_GROUP * piece_bytes))
            batch_rows = max(-(-group_metadata.num_rows // max(batches, 1)), 1)
            for batch in range(-(-group_metadata.num_rows // batch_rows)):
                rows = min(batch_rows, group_metadata.num_rows - batch * batch_rows)
                yield ParquetRows(
                    path,
                    group,
                    batch,
                    batch_rows,
                    row,
                    os.path.getsize(path) * rows // max(metadata.num_rows, 1),
                )
                row += rows


def _text_files(paths: list[str], piece_bytes: int) -> Iterator[Piece]:
    together: list[str] = []
    size = 0
    for path in paths:
        if together and (size + os.path.getsize(path) > piece_bytes or len(together) == FILES_OF_A_PIECE):
            yield TextFiles(together, size)
            together, size = [], 0
        together, size = [*together, path], size + os.path.getsize(path)
    if together:
        yield TextFiles(together, size)


FORMATS: dict[str, Callable[[list[str], int], Iterator[Piece]]] = {
    ".parquet": _row_groups,
    ".txt": _text_files,
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), _line_ranges),
    **dict.fromkeys((".jsonl.gz", ".ndjson.gz", ".json.gz"), _compressed_lines(GZIP)),
    **dict.fromkeys((".jsonl.zst", ".ndjson.zst", ".json.zst"), _compressed_lines(ZSTD)),
}


def bad_record(piece: Piece, bad: BadRecord) -> str:
    """Where a bad record stands and what is wrong with it."""
    return f"{piece.place(bad.number)}: {bad.reason}"


def cut_into_pieces(files: Sequence[str], piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """All pieces of the files, in order."""
    for ending, group in itertools.groupby(files, known_ending):
        yield from FORMATS[ending](list(group), piece_bytes)


def known_ending(path: str) -> str:
    """The known ending of a path, or an empty text."""
    name = path.lower()
    return max((ending for ending in FORMATS if name.endswith(ending)), key=len, default="")
