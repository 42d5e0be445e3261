"""A dense checkpoint written anew as one of a mixture of experts, tensor by tensor."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from megatron.base.errors import UserError
from megatron.base.files import whole_folder
from megatron.checkpoint.contents import type_of
from megatron.checkpoint.load import Box, read_boxes
from megatron.checkpoint.manifest import FileEntry, Manifest, Part, TensorEntry, write_manifest
from megatron.checkpoint.save import LATEST, folder_of
from megatron.checkpoint.tensor_file import write_parts
from megatron.data.tokenizer_files import copy_tokenizer
from megatron.model.upcycling import Upcycling, source_of, upcycled
from megatron.parallel.placement import Placement, placements, states, whole

FILE = "model.safetensors"


def tensors_of(model: nn.Module, folder: Path, dense: Manifest) -> dict[str, Tensor]:
    """Types and shapes of the tensors of a mixture on the meta device: the types are those of the dense
    checkpoint. UserError where that is of another model."""
    there = dict(model.named_parameters()) | states(model)
    sources = {name: source_of(name) for name in there}
    if lacking := sorted({one for one in sources.values() if one} - dense.tensors.keys()):
        raise UserError(f"{folder}: is damaged: it has no {', '.join(lacking[:5])}; load another checkpoint")
    types = {name: one and type_of(dense.tensors[one]) for name, one in sources.items()}
    return {
        name: torch.empty(one.shape, dtype=types[name] or one.dtype, device="meta")
        for name, one in there.items()
    }


def write_upcycled(
    save: Path,
    dense: tuple[Path, Manifest],
    config: dict[str, dict],
    model: nn.Module,
    how: Upcycling,
    advance: Callable[[int], None] = lambda size: None,
) -> Path:
    """Write a folder with one checkpoint, of step 0 and without moments, whole or not at all; its place.
    `config`: flags by group that it states; `model`: the mixture on the meta device; `advance` gets the
    bytes of every part that is made."""
    like = tensors_of(model, *dense)
    table = placements(model) | whole(states(model))

    def parts(name: str) -> Iterator[Tensor]:
        for part in upcycled(name, table[name], lambda source: _read(*dense, source), how):
            yield part
            advance(part.nbytes)

    with whole_folder(save) as root:
        copy_tokenizer(dense[0].parent, root, dense[1].vocabulary)
        folder = folder_of(root, 0)
        folder.mkdir()
        written = FileEntry(*write_parts(folder / FILE, like, parts))
        write_manifest(folder, _manifest(dense[1], config, written, like, table))
        (root / LATEST).write_text("0\n", encoding="utf-8")
    return folder_of(save, 0)


def _read(folder: Path, manifest: Manifest, name: str) -> Tensor:
    """A whole tensor, whatever ranks have written its parts."""
    shape = manifest.tensors[name].global_shape
    ((_, tensor),) = read_boxes(folder, manifest, {name: Box(shape, (0,) * len(shape), shape)})
    return tensor


def _manifest(
    dense: Manifest,
    config: dict[str, dict],
    written: FileEntry,
    like: dict[str, Tensor],
    table: dict[str, Placement],
) -> Manifest:
    """What the checkpoint says of itself: the dense one's run before its first step, with other flags."""
    entries = {
        name: TensorEntry(
            str(one.dtype), table[name].global_shape, [Part(FILE, table[name].offset, tuple(one.shape))]
        )
        for name, one in like.items()
    }
    return dataclasses.replace(
        dense,
        config=config,
        iteration=0,
        totals=dict.fromkeys(dense.totals, 0),
        plan=0,
        rises={},
        loss_scale={},
        files={FILE: written},
        tensors=entries,
    )
