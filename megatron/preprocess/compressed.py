"""The content of gzip and zstd files: of several members or frames, with windows of any length, padded with
zeros. What is damaged, cut short or something else is told."""

import codecs
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

import zstandard

from megatron.base.errors import UserError

CHUNK = 1 << 12
"""Compressed bytes at a time: even of one letter over and over they stand for no more than 128 MB."""
LARGEST_WINDOW = 1 << 31
"""What `zstd --long=31` asks for; a frame gets what its header asks for, once its content fills it."""


class Kind(NamedTuple):
    """A kind of compression: its name, the first bytes of its files, and the reader of one member."""

    name: str
    beginnings: tuple[bytes, ...]
    reader: Callable[[], Any]


GZIP = Kind("gzip", (b"\x1f\x8b",), lambda: zlib.decompressobj(wbits=31))
ZSTD = Kind(
    "zstd",
    (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))),
    lambda: zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj(),
)


def decompress(file: IO[bytes], path: str, kind: Kind) -> Iterator[bytes]:
    """The content of an open file, some bytes at a time. UserError where it is damaged or cut short."""
    _require_kind(file, path, kind)
    member = None
    while chunk := file.read(CHUNK):
        while chunk := chunk if member else chunk.lstrip(b"\0"):
            member = member or kind.reader()
            try:
                content = member.decompress(chunk)
            except (zlib.error, zstandard.ZstdError, MemoryError) as error:
                raise UserError(_cannot(path, file.tell() - len(chunk), str(error) or "no memory")) from None
            if content:
                yield content
            chunk = member.unused_data if member.eof else b""
            member = None if member.eof else member
    if member:
        raise UserError(_cannot(path, file.tell(), "it ends before its content does"))


def _require_kind(file: IO[bytes], path: str, kind: Kind) -> None:
    begin = file.read(8)
    file.seek(0)
    if not begin.startswith(kind.beginnings):
        what = f"it begins with {begin!r}" if begin else "it is empty"
        plain = (
            begin.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{"
        )  # some downloads unpack, and keep the name
        others = {".jsonl.gz": GZIP.beginnings, ".jsonl.zst": ZSTD.beginnings}
        other = next((ending for ending, its in others.items() if begin.startswith(its)), "")
        ending = ".jsonl" if plain else other
        way = f"give it the ending {ending}, or link it so" if ending else "make or copy the file again"
        raise UserError(f"{path}: is no {kind.name} file, {what}; {way}")


def _cannot(path: str, byte: int, reason: str) -> str:
    if "memory" in reason:
        return f"{path}: needs more memory than there is ({reason}); compress it again with a shorter window"
    return f"{path}: is damaged or cut short at about byte {byte:,} ({reason}); make or copy the file again"
