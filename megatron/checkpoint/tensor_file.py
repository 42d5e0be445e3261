"""A safetensors file, written and hashed in one pass: its bytes are those of the library's own writer.

The format is eight bytes with the length of the header, a JSON header with type, shape and place of every
tensor, and then the tensors' bytes: https://github.com/huggingface/safetensors#format.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of types in the order of the file: the widest first, so that every tensor is aligned."""
PIECE = 1 << 20
"""Bytes that are hashed and then written while the processor's cache still holds them."""


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> tuple[int, str]:
    """Write a new file and force it to disk; its size in bytes and its SHA-256. Tensors of a GPU, and those
    that are not dense, are copied one at a time. OSError where it cannot be written, ValueError where the
    format has no such type."""
    return write_parts(path, tensors, lambda name: [tensors[name]])


def write_parts(
    path: Path,
    like: Mapping[str, Tensor],
    parts: Callable[[str], Iterable[Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """The same of tensors that are made while it is written: of each the parts whose bytes follow each other.
    `like`: their types and shapes, as tensors of the meta device may say them; `metadata`: words for other
    programs."""
    order = list(TYPES)
    for name, one in like.items():
        if one.dtype not in TYPES:
            raise ValueError(f"{name} is of {one.dtype}, which a safetensors file cannot hold; convert it")
    named = dict(sorted(like.items(), key=lambda pair: (order.index(pair[1].dtype), pair[0])))
    digest = hashlib.sha256()
    with open(path, "xb") as file:
        for piece in _pieces(named, parts, metadata):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        return file.tell(), digest.hexdigest()


def _pieces(
    named: dict[str, Tensor], parts: Callable[[str], Iterable[Tensor]], metadata: Mapping[str, str] | None
) -> Iterator[bytes | memoryview]:
    """The bytes of the file; ValueError where a tensor's parts are not as many as the header says."""
    yield _header(named, metadata)
    for name, like in named.items():
        left = like.nbytes
        for tensor in parts(name):
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            left -= len(content)
            for start in range(0, len(content), PIECE):
                yield content[start : start + PIECE]
        if left:
            raise ValueError(f"the parts of {name} have {-left:+} bytes beside its {like.nbytes}")


def _header(named: dict[str, Tensor], metadata: Mapping[str, str] | None) -> bytes:
    """Length and JSON, with spaces up to a multiple of eight bytes."""
    ends = list(accumulate((one.nbytes for one in named.values()), initial=0))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    entries |= {
        name: {"dtype": TYPES[one.dtype], "shape": list(one.shape), "data_offsets": [start, end]}
        for (name, one), start, end in zip(named.items(), ends, ends[1:])
    }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
