"""gzip and zstd files of every shape that their own tools write, against the plain content."""

import gzip
import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from megatron.base.errors import UserError
from megatron.preprocess.compressed import GZIP, ZSTD, Kind, decompress
from tests.support.made_up_text import many_texts

ROOT = Path(__file__).parents[3]
CONTENT = "\n".join(many_texts(300)).encode()
HALF = len(CONTENT) // 2
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"


def zstd(content: bytes, window_log: int = 20) -> bytes:
    """One frame of unknown size, so that its header asks for the whole window."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(content) + stream.flush()


def read(folder: Path, content: bytes, kind: Kind) -> bytes:
    (folder / "file").write_bytes(content)
    with open(folder / "file", "rb") as file:
        return b"".join(decompress(file, "some.file", kind))


WHOLE = {
    "gzip": (GZIP, gzip.compress(CONTENT)),
    "gzip members": (GZIP, gzip.compress(CONTENT[:HALF]) + gzip.compress(CONTENT[HALF:])),
    "many gzip members": (
        GZIP,
        b"".join(gzip.compress(CONTENT[at : at + 99]) for at in range(0, len(CONTENT), 99)),
    ),
    "gzip padded with zeros": (GZIP, gzip.compress(CONTENT) + bytes(40_000)),
    "zeros between gzip members": (
        GZIP,
        gzip.compress(CONTENT[:HALF]) + bytes(512) + gzip.compress(CONTENT[HALF:]),
    ),
    "an empty gzip member at the end": (GZIP, gzip.compress(CONTENT) + gzip.compress(b"")),
    "zstd": (ZSTD, zstandard.compress(CONTENT)),
    "zstd frames": (ZSTD, zstandard.compress(CONTENT[:HALF]) + zstandard.compress(CONTENT[HALF:])),
    "skippable zstd frames": (
        ZSTD,
        SKIPPABLE + zstandard.compress(CONTENT[:HALF]) + SKIPPABLE + zstandard.compress(CONTENT[HALF:]),
    ),
    "zstd padded with zeros": (ZSTD, zstandard.compress(CONTENT) + bytes(512)),
    **{f"a zstd window of 2^{log}": (ZSTD, zstd(CONTENT, log)) for log in (27, 28, 30, 31)},
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files(tmp_path: Path, name: str) -> None:
    kind, content = WHOLE[name]
    assert read(tmp_path, content, kind) == CONTENT


@pytest.mark.parametrize("cut", [1, 9, 60_000])
@pytest.mark.parametrize("name", WHOLE)
def test_files_that_are_cut_short_or_damaged(tmp_path: Path, name: str, cut: int) -> None:
    kind, content = WHOLE[name]
    content = content.rstrip(b"\0") if "padded" in name else content
    ending = content[: max(len(content) - cut, 20)]
    whole = CONTENT
    try:
        assert whole.startswith(read(tmp_path, ending, kind)) and "members" in name
    except UserError as error:
        assert str(error).startswith("some.file: is damaged or cut short at about byte ")
        assert f"{len(ending):,} (it ends before its content does); make or copy" in str(error)


@pytest.mark.parametrize("name", ["gzip", "gzip members"])
def test_flipped_bits_are_found_by_the_checksum(tmp_path: Path, name: str) -> None:
    kind, content = WHOLE[name]
    flipped = bytearray(content)
    flipped[len(content) // 2 + 40] ^= 0x10
    with pytest.raises(UserError, match=r"damaged or cut short at about byte [\d,]+ \(Error -3 "):
        read(tmp_path, bytes(flipped), kind)


def test_what_follows_a_member_is_no_other(tmp_path: Path) -> None:
    for kind, content in (WHOLE["gzip"], WHOLE["zstd"]):
        with pytest.raises(UserError, match=f"damaged or cut short at about byte {len(content):,} "):
            read(tmp_path, content + b"and something else", kind)


@pytest.mark.parametrize(
    ("content", "kind", "what"),
    [
        (b'{"text": "plain"}\n', GZIP, r"no gzip file, it begins with b'\{\"text"),
        (gzip.compress(CONTENT), ZSTD, r"no zstd file, it begins with b'\\x1f\\x8b"),
        (b"", GZIP, "no gzip file, it is empty; make or copy the file again"),
        (bytes(100), ZSTD, "no zstd file, it begins with "),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes, kind: Kind, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read(tmp_path, content, kind)


def test_a_little_content_in_a_large_window_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(WHOLE["a zstd window of 2^31"][1])
    code = (
        "import resource, sys; from megatron.preprocess.compressed import ZSTD, decompress\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "size = sum(map(len, decompress(open(sys.argv[1], 'rb'), 'x', ZSTD)))\n"
        "print(size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "file"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    size, megabytes = map(int, done.stdout.split())
    assert size == len(CONTENT) and megabytes < 100


def test_a_window_that_does_not_fit_the_memory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(WHOLE["a zstd window of 2^31"][1])
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    try:
        with pytest.raises(UserError, match=r"some\.file: needs more memory than there is \("):
            read(tmp_path, WHOLE["a zstd window of 2^31"][1], ZSTD)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_repetitive_content_comes_bit_by_bit(tmp_path: Path) -> None:
    """What is packed 20,000 to 1 is not unpacked at once."""
    packed = zstandard.compress(b"a" * 800_000_000)
    (tmp_path / "file").write_bytes(packed)
    tracemalloc.start()
    with open(tmp_path / "file", "rb") as file:
        assert sum(map(len, decompress(file, "x", ZSTD))) == 800_000_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300_000_000 and os.path.getsize(tmp_path / "file") < 40_000
