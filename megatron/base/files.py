"""Files that appear whole or not at all."""

import errno
import fcntl
import glob
import hashlib
import itertools
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from megatron.base.errors import UserError

_MADE: list[Path] = []
"""Folders that this process has made for what it is to write, inner ones behind outer ones."""
NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP)

LFS_POINTER, LARGEST_LFS_POINTER = b"version https://git-lfs.github.com/spec/", 1024


@contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file beside `path`; on success it is synced and renamed to `path`, on any error it is
    removed."""
    target = writable_file(path)
    partial = _beside(target, "partial")
    try:
        with open(partial, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(target.parent)


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill beside `path`; on success it takes `path`'s place, on any error it is removed."""
    target = Path(path)
    if target.is_file():
        raise UserError(f"{target}: is a file, and a folder is to be written; name another")
    writable_folder(target.parent)
    partial, old = _beside(target, "partial"), _beside(target, "old")
    partial.mkdir()
    try:
        yield partial
        for place in partial.rglob("*"):
            (sync_folder if place.is_dir() else sync_file)(place)
        sync_folder(partial)
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(partial, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync_folder(target.parent)


def _beside(target: Path, kind: str) -> Path:
    """A hidden name in the target's folder that no other process, on this machine or another, uses."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}.{kind}")


def left_behind(target: Path) -> list[Path]:
    """What a process that was ended from outside, or one that still runs, keeps beside a file that it was to
    write."""
    return sorted(target.parent.glob(f".{glob.escape(target.name)}.*.partial"))


def aside(path: Path) -> Path:
    """`path` with the time in its name, where nothing lies yet: a place for what would be replaced."""
    name = f"{path.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    places = (path.with_name(f"{one}{path.suffix}") for one in names)
    return next(place for place in places if not os.path.lexists(place))


def checksum(path: Path, advance: Callable[[int], None] = lambda size: None) -> str:
    """SHA-256 of a file; `advance` gets the size of every piece that is read."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
            advance(size)
    return digest.hexdigest()


def spread_blocks(path: str | Path, length: int) -> Iterator[bytes]:
    """64 blocks of so many bytes, evenly spread over a file: all of one that is small enough."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for block in range(64):
            file.seek(max(size - length, 0) * block // 63)
            yield file.read(length)


def other_format(content: Any, mine: int) -> str:
    """What is said of a JSON object whose `format` is a number, and another one; "" of anything else."""
    number = content.get("format") if isinstance(content, dict) else None
    if type(number) is not int or number == mine:
        return ""
    return (
        f"the {'older' if number < mine else 'newer'} format {number}, and this version reads format {mine}"
    )


def sync_file(path: Path) -> None:
    """Force a written file to disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Force a folder's names to disk, so that a rename survives a power cut. A file system that cannot, as
    CIFS and some of FUSE, says so by one of `NO_SYNC`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(handle)


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder if it is missing; UserError when it cannot be written."""
    folder = Path(path)
    try:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        _MADE.extend(one.absolute() for one in reversed(missing))
        probe = _beside(folder / "probe", "write")
        probe.touch()
        probe.unlink()
    except FileExistsError:
        raise UserError(f"cannot write to the folder {folder}: it is a file; choose another folder") from None
    except OSError as error:
        raise UserError(
            f"cannot write to the folder {folder}: {error.strerror}; choose another folder or mend its "
            "permissions"
        ) from None
    return folder


def remove_empty_folders() -> None:
    """Remove the folders that this process has made and that are empty: it ends by a mistake."""
    while _MADE:
        with suppress(OSError):  # it holds something, or is gone
            _MADE.pop().rmdir()


def writable_file(path: str | os.PathLike[str]) -> Path:
    """Make the file's folder if it is missing; UserError when no file can be written there. For what is
    written after long work."""
    target = Path(path)
    if target.is_dir() or os.fspath(path).endswith(os.sep):
        raise UserError(f"{path}: is a folder, and a file is to be written; name a file")
    writable_folder(target.parent)
    return target


def require_room(path: str | os.PathLike[str], needed: int, what: str) -> None:
    """UserError where the disk of a path, which need not be there yet, has less than so many bytes free for
    `what`. A disk that does not say how large it is passes."""
    target = Path(path).absolute()
    there = next(folder for folder in (target, *target.parents) if folder.exists())
    total, _, free = shutil.disk_usage(there)
    if total and free < needed:
        size, unit = (1e9, "GB") if needed >= 1e9 else (1e6, "MB")
        raise UserError(
            f"{path}: {what} takes at least {needed / size:,.2f} {unit}, and {free / size:,.2f} {unit} are "
            "free there; make room, or choose a place on another disk"
        )


def temporary_cache(name: str) -> Path:
    """A folder of this user alone below TMPDIR, which outlives the process. OSError where there can be
    none, or where somebody else could write to it."""
    folder = Path(tempfile.gettempdir(), f"megatron-{name}-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "is not this user's alone", str(folder))
    return folder


@contextmanager
def hold(lock: Path) -> Iterator[None]:
    """Keep the lock file for this process; UserError where another one holds it. The lock goes with the
    process, however it ends, and its file where a mistake leaves nothing but locks in a folder of its own.
    Where the file system knows no locks, nothing is held."""
    writable_folder(lock.parent)
    with open(lock, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{lock}: another run is writing here; stop it, or choose another place"
            ) from None
        except OSError:
            pass
        try:
            yield
        except BaseException:
            with suppress(OSError):  # the folder may be gone, too
                made = lock.parent.resolve() in {one.resolve() for one in _MADE}
                if made and all(one.name.endswith(".lock") for one in lock.parent.iterdir()):
                    lock.unlink()
            raise


@contextmanager
def wait_for(lock: Path) -> Iterator[None]:
    """The same, where another process that holds it is waited for."""
    writable_folder(lock.parent)
    with open(lock, "a") as handle:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def lfs_problem(path: str | os.PathLike[str]) -> str:
    """What is wrong where git-lfs has left a pointer in the place of a file that it has not fetched; "" where
    it has not."""
    if not (os.path.isfile(path) and len(LFS_POINTER) < os.path.getsize(path) < LARGEST_LFS_POINTER):
        return ""
    with open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) != LFS_POINTER:
            return ""
    return f"{path}: is a pointer of Git LFS, not the file itself; fetch it with git lfs pull"


def no_utf8(error: UnicodeDecodeError) -> str:
    """Why a file of settings is no UTF-8, and the way to it: editors and shells of Windows write others."""
    found = error.object[error.start]
    kind = "UTF-16" if error.object.startswith((b"\xff\xfe", b"\xfe\xff")) else "CP1252"
    way = f"convert the file, as by iconv -f {kind} -t UTF-8"
    return f"byte {error.start + 1} is no UTF-8 (0x{found:02x}); {way}"


def is_utf8(text: str) -> bool:
    """Whether a name or text from the system is UTF-8. Python hands on other bytes as halves of surrogate
    pairs, which most libraries refuse."""
    return text == text.encode(errors="ignore").decode()
