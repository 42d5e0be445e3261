"""Files of torch.save, read without running what they say: tensors and plain containers, and nothing else.

Such a file is a zip archive whose data.pkl is a pickle, which may name any function to be called. Here a name
is looked up in a table of what is known, and never imported; settings of a known origin are kept as names.
Tensors stay in the file until they are read.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from megatron.base.errors import UserError

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
HEADER, NAME_LENGTH = 30, 26
"""Of an entry of a zip archive: bytes before its name, and where that says how long the name is."""
NAMED_ALONE = (
    *("megatron.", "numpy", "_codecs", "_io", "pathlib", "datetime", "torch.distributed."),
    *("torch.serialization", "torch.storage", "signal."),
)
"""Beginnings of the modules whose names stand for settings, states of random numbers and the like: they are
kept as names, and not called."""
OLDER_MODULES = {"__builtin__": "builtins"}
"""What the protocol of torch.save calls modules of today."""


class Named:
    """What a pickle would have made by a name that is not called here."""

    name = ""
    state: Any = MappingProxyType({})

    def __init__(self, *arguments: Any):
        """Nothing is done with what it would have been made of."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Call:
    """A function that a pickle may call, and on which it can set nothing, as it could on the function."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it sets attributes of a function")


class Storage(NamedTuple):
    """Numbers in a file: their type, where they begin, and how many there are."""

    file: Path
    dtype: torch.dtype
    start: int
    elements: int


class Lazy(NamedTuple):
    """A tensor in a file. `start`: of its first element, in bytes of the file."""

    file: Path
    dtype: torch.dtype
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """The tensor, dense and in memory. UserError where the file is cut."""
        span = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride))
        count = 0 if 0 in self.shape else span * self.dtype.itemsize
        with open(self.file, "rb") as file:
            file.seek(self.start)
            content = bytearray(file.read(count))
        if len(content) != count:
            raise UserError(f"{self.file}: is cut in the middle of a tensor; bring the file again")
        if not count:
            return torch.empty(self.shape, dtype=self.dtype)
        flat = torch.frombuffer(content, dtype=self.dtype)
        return flat.as_strided(self.shape, self.stride).contiguous()


def read_saved(path: Path, start: int = 0, length: int | None = None) -> Any:
    """What a file of torch.save holds, or so many bytes of a file. UserError where it is none, is damaged, or
    names something else than tensors and containers."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            content: Any = file if length is None else io.BytesIO(file.read(length))
            with zipfile.ZipFile(content) as archive:
                return _Unpickler(path, start, content, archive).load()
    except zipfile.BadZipFile:
        raise UserError(
            f"{path}: is no file that torch.save has written since version 1.6, or is damaged; save it anew "
            "by the program that wrote it"
        ) from None
    except UserError:
        raise
    except Exception as error:  # the library raises a dozen kinds for bytes that are not as they were
        raise UserError(f"{path}: cannot be read ({error}); bring the file again") from None


def read_pickle(path: Path) -> Any:
    """What a bare pickle holds, by the same rules."""
    try:
        return _Names(path, io.BytesIO(path.read_bytes())).load()
    except UserError:
        raise
    except Exception as error:  # the library raises a dozen kinds for bytes that are not as they were
        raise UserError(f"{path}: cannot be read ({error}); bring the file again") from None


class _Names(pickle.Unpickler):
    """Names are looked up here, and nothing is imported."""

    def __init__(self, path: Path, content: IO[bytes]):
        super().__init__(content, encoding="utf-8")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        module = OLDER_MODULES.get(module, module)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (found := KNOWN.get(f"{module}.{name}")) is not None:
            return found
        if f"{module}.".startswith(NAMED_ALONE):
            return type("Named", (Named,), {"name": f"{module}.{name}"})
        raise UserError(
            f"{self.path}: names {module}.{name}, which is neither a tensor nor a plain container, so it is "
            "not read; save the weights alone"
        )


class _Unpickler(_Names):
    """The same of an archive, whose tensors stay in the file."""

    def __init__(self, path: Path, start: int, content: IO[bytes], archive: zipfile.ZipFile):
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        super().__init__(path, io.BytesIO(archive.read(pickled)))
        self.start, self.content, self.archive = start, content, archive
        self.folder = pickled.removesuffix("data.pkl")

    def persistent_load(self, saved: Any) -> Storage:
        _, kind, key, _, count = saved
        entry = self.archive.getinfo(f"{self.folder}data/{key}")
        dtype = kind if isinstance(kind, torch.dtype) else torch.uint8
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < count * dtype.itemsize:
            raise ValueError(f"{entry.filename} is not as torch.save writes it")
        self.content.seek(entry.header_offset + NAME_LENGTH)
        name, extra = struct.unpack("<HH", self.content.read(4))
        return Storage(self.path, dtype, self.start + entry.header_offset + HEADER + name + extra, count)


def _tensor(storage: Storage, offset: int, shape: Sequence[int], stride: Sequence[int], *rest: Any) -> Lazy:
    """What torch._utils._rebuild_tensor_v2 stands for. ValueError where it lies outside of its storage."""
    numbers = [offset, *shape, *stride]
    if any(type(one) is not int or one < 0 for one in numbers) or len(shape) != len(stride):
        raise ValueError("the shape of a tensor is none")
    span = 1 + sum((size - 1) * step for size, step in zip(shape, stride))
    if 0 not in shape and offset + span > storage.elements:
        raise ValueError("a tensor is larger than what is saved of it")
    start = storage.start + offset * storage.dtype.itemsize
    return Lazy(storage.file, storage.dtype, start, tuple(shape), tuple(stride))


def _plain(kind: type) -> Call:
    """What makes a number or a text of another, and of nothing else: the text of lists that share their parts
    is as long as they would be without."""

    def make(value: Any = 0) -> Any:
        if type(value) not in SCALARS:
            raise ValueError(f"a {kind.__name__} is made of no number or text")
        return kind(value)

    return Call(make)


SCALARS = (int, float, str, bool)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch.device": lambda *words: words,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *rest: tensor,
    "torch._tensor._rebuild_from_type_v2": lambda make, kind, arguments, state: make(*arguments),
    "collections.defaultdict": lambda *default: {},
    "collections.deque": lambda items=(), *longest: list(items),
}
KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "argparse.Namespace": SimpleNamespace,
    "types.SimpleNamespace": SimpleNamespace,
    "torch.Size": tuple,
    **dict.fromkeys(("torch.Tensor", "torch.nn.parameter.Parameter"), Named),
    **{name: Call(function) for name, function in FUNCTIONS.items()},
    **{f"builtins.{kind.__name__}": kind for kind in (set, frozenset, list, dict)},
    **{f"builtins.{kind.__name__}": _plain(kind) for kind in SCALARS},
    "builtins.long": _plain(int),
    "builtins.unicode": _plain(str),  # what that protocol calls them
}
"""What is made of the names that are known. Tensors may have attributes, such as how Megatron-LM has cut the
weights of its optimizer, which are left out."""
