"""The binary files of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html). A record is the
class, of CIFAR-100 its superclass and then the class, and 3072 pixels: red, green, blue, row by row."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from megatron.base.errors import UserError
from megatron.base.files import checksum
from megatron.data.images import Records, digest

PIXELS = (3, 32, 32)


class Kind(NamedTuple):
    """`train`, `test`: names of the files; `names`: the one with the names of classes; `labels`: bytes before
    the pixels, the last of which is the class."""

    train: str
    test: str
    names: str
    labels: int
    classes: int


KINDS = (
    Kind("data_batch_*.bin", "test_batch.bin", "batches.meta.txt", 1, 10),
    Kind("train.bin", "test.bin", "fine_label_names.txt", 2, 100),
)
PYTHON = (("data_batch_1", "batches.meta"), ("train", "meta"))
"""Files of the other edition, by which it is known."""


def find_cifar(folder: Path) -> dict[str, Records]:
    """The images of "train" and "valid" where the folder holds CIFAR's files, else none. UserError where
    these are damaged, or of the edition in pickles."""
    for names in PYTHON:
        if all((folder / name).is_file() for name in names):
            raise UserError(
                f"{folder}: is the Python edition of CIFAR, whose pickles are never read, as they can run "
                "code; bring the binary edition (cifar-10-binary.tar.gz or cifar-100-binary.tar.gz)"
            )
    for kind in KINDS:
        files = {"train": sorted(folder.glob(kind.train)), "valid": sorted(folder.glob(kind.test))}
        if files["train"] or files["valid"]:
            classes = _classes(folder / kind.names, kind.classes)
            return {split: _read(folder, paths, kind, classes) for split, paths in files.items() if paths}
    return {}


def _classes(path: Path, count: int) -> tuple[str, ...]:
    """Names of the classes, or their numbers where no file names them."""
    if not path.is_file():
        return tuple(f"{number:0{len(str(count - 1))}d}" for number in range(count))
    names = tuple(path.read_text(encoding="utf-8-sig", errors="replace").split())
    if len(names) != count or len(set(names)) != count:
        raise UserError(f"{path}: names {len(set(names))} classes instead of {count}; bring the file again")
    return names


def _read(folder: Path, paths: list[Path], kind: Kind, classes: tuple[str, ...]) -> Records:
    size = kind.labels + int(np.prod(PIXELS))
    tables, labels = [], []
    for path in paths:
        count, rest = divmod(path.stat().st_size, size)
        if rest or not count:
            raise UserError(
                f"{path}: has {path.stat().st_size:,} bytes, no multiple of the {size:,} of an image; bring "
                "the file again"
            )
        records = np.memmap(path, np.uint8, "r", shape=(count, size))
        found = np.array(records[:, kind.labels - 1])
        if found.max() >= kind.classes:
            raise UserError(
                f"{path}: image {int(found.argmax())} is of class {found.max()}, and there are "
                f"{kind.classes}; bring the file again"
            )
        tables.append(records[:, kind.labels :].reshape(count, *PIXELS))
        labels.append(found)
    sizes = [len(table) for table in tables]
    places = np.stack(
        [np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.arange(size) for size in sizes])], 1
    )
    source = digest([f"{path.name} {checksum(path)}" for path in paths])
    return Records(str(folder), tuple(tables), places, np.concatenate(labels), classes, source)
