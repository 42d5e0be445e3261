"""What a checkpoint holds, whether it is whole, and how two differ: one tensor at a time."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from megatron.base.errors import UserError
from megatron.checkpoint.compare import by_default
from megatron.checkpoint.load import Box, read_boxes, require_file
from megatron.checkpoint.manifest import Manifest, TensorEntry
from megatron.checkpoint.saved_config import with_new_flags
from megatron.config.config import Config
from megatron.config.flags import flags_of

PIECE = 1 << 22
"""Elements that are compared at a time, in double precision."""


class Sums(NamedTuple):
    """Tensors of a kind: how many, their elements and bytes, and their types."""

    tensors: int
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]


class Deviation(NamedTuple):
    """How far two tensors of one name are apart. `largest`: of any element; `relative`: that, to the largest
    element of either, as single ones may be nothing but rounding. Both are None where the shapes differ."""

    same_bits: bool
    largest: float | None
    relative: float | None
    note: str = ""


class Comparison(NamedTuple):
    """How two checkpoints differ: flags with both values, tensors that the first or the second has not, and
    the deviations of those that both have."""

    flags: dict[str, tuple[Any, Any]]
    missing: tuple[list[str], list[str]]
    tensors: dict[str, Deviation]

    @property
    def equal(self) -> bool:
        """Whether they have the same tensors to the bit."""
        return all(one.same_bits for one in self.tensors.values()) and not any(self.missing)


def kind_of(name: str) -> str:
    """What a tensor is: weights, or a moment of the optimizer by its slot."""
    return name.split(".", 2)[1] if name.startswith("optimizer.") else "weights"


def is_listed(name: str, which: str) -> bool:
    """Whether a tensor is one of these: weights, all, none."""
    return which == "all" or (which == "weights" and kind_of(name) == "weights")


def type_of(entry: TensorEntry) -> torch.dtype:
    """The type of a tensor; UserError where it is none that torch knows."""
    found = getattr(torch, entry.dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise UserError(f"index.json: {entry.dtype} is no type of a tensor; use the version that wrote it")
    return found


def size_of(entry: TensorEntry) -> int:
    """Bytes of a whole tensor."""
    return math.prod(entry.global_shape) * type_of(entry).itemsize


def sums_by_kind(manifest: Manifest) -> dict[str, Sums]:
    """Weights and each kind of moments in numbers."""
    kinds: dict[str, list[TensorEntry]] = {}
    for name, entry in manifest.tensors.items():
        kinds.setdefault(kind_of(name), []).append(entry)
    return {
        kind: Sums(
            len(entries),
            sum(math.prod(one.global_shape) for one in entries),
            sum(map(size_of, entries)),
            tuple(sorted({one.dtype.removeprefix("torch.") for one in entries})),
        )
        for kind, entries in kinds.items()
    }


def ranks_of(manifest: Manifest) -> int:
    """How many ranks have written a checkpoint, as its files say."""
    found = (re.search(r"-of-(\d+)\.safetensors$", name) for name in manifest.files)
    return max((int(one[1]) for one in found if one), default=1)


def chosen_flags(manifest: Manifest, folder: Path) -> dict[str, Any]:
    """The flags whose values are neither the default nor what follows from others, as the index has them."""
    config = with_new_flags(manifest.config, folder)
    return {
        one.spellings[0]: value
        for one in flags_of(Config)
        if (value := config.get(one.group, {}).get(one.name)) != _plain(one.field.default)
        and not (one.field.metadata["follows"] and by_default(one, config, config))
    }


def flag_changes(one: Manifest, other: Manifest, folders: tuple[Path, Path]) -> dict[str, tuple[Any, Any]]:
    """Flags whose values differ, with both values."""
    configs = [with_new_flags(manifest.config, folder) for manifest, folder in zip((one, other), folders)]
    both = {
        each.spellings[0]: (
            configs[0].get(each.group, {}).get(each.name),
            configs[1].get(each.group, {}).get(each.name),
        )
        for each in flags_of(Config)
    }
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def damages(
    folder: Path, manifest: Manifest, verify: bool, advance: Callable[[int], None] = lambda size: None
) -> list[str]:
    """What is wrong with the files of a checkpoint and with the parts of its tensors. `verify`: all bytes are
    read and their checksums compared; `advance` gets the size of what is read."""
    found: list[str] = []
    for name in manifest.files:
        try:
            require_file(folder, manifest, name, verify, advance)
        except UserError as error:
            found += error.problems
    for name, entry in manifest.tensors.items():
        there = sum(math.prod(part.shape) for part in entry.parts)
        if there != (whole := math.prod(entry.global_shape)):
            found.append(f"{folder}: the parts of {name} have {there:,} elements, and it has {whole:,}")
    return found


def compare(
    one: tuple[Path, Manifest],
    other: tuple[Path, Manifest],
    advance: Callable[[int], None] = lambda size: None,
) -> Comparison:
    """Compare two checkpoints, whatever layouts have written them; UserError where a file is damaged.
    `advance` gets the bytes of every tensor."""
    mine, theirs = one[1].tensors, other[1].tensors
    missing = sorted(theirs.keys() - mine.keys()), sorted(mine.keys() - theirs.keys())
    changes = flag_changes(one[1], other[1], (one[0], other[0]))
    found = {name: Deviation(False, None, None, "another shape") for name in mine if name in theirs}
    wanted = {
        name: Box(mine[name].global_shape, (0,) * len(mine[name].global_shape), mine[name].global_shape)
        for name in found
        if mine[name].global_shape == theirs[name].global_shape
    }
    for (name, tensor), (_, fellow) in zip(read_boxes(*one, wanted), read_boxes(*other, wanted)):
        found[name] = deviation(tensor, fellow)
        advance(size_of(mine[name]))
    return Comparison(changes, missing, found)


def deviation(one: Tensor, other: Tensor) -> Deviation:
    """How far two tensors of one shape are apart. Where only one has an element that is no number, or the
    two have other infinities, it is infinitely far."""
    if one.dtype == other.dtype and torch.equal(bits_of(one), bits_of(other)):
        return Deviation(True, 0.0, 0.0)
    largest = scale = 0.0
    for pair in zip(one.reshape(-1).split(PIECE), other.reshape(-1).split(PIECE)):
        mine, theirs = (part.double() for part in pair)
        apart = (mine - theirs).abs()
        apart[(mine == theirs) | (mine.isnan() & theirs.isnan())] = 0
        largest = max(largest, float(apart.nan_to_num(math.inf, math.inf).max()))
        scale = max(scale, *(float(part.abs().nan_to_num(0, 0).max()) for part in (mine, theirs)))
    note = "" if one.dtype == other.dtype else "another type"
    return Deviation(False, largest, largest / scale if scale else largest, note)


def bits_of(tensor: Tensor) -> Tensor:
    """The bytes of a tensor: NaN equals itself there, and 0 is not -0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
