"""Checkpoints: `iter_0000500/` with safetensors files and `index.json`, and
`latest_checkpointed_iteration.txt` beside them.

A checkpoint appears whole or not at all. Nothing in it is pickled. Every tensor is a box (global shape,
offset) of a global tensor; everything that is not a tensor is in the index.
"""

import dataclasses
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from megatron.base.errors import UserError
from megatron.base.files import checksum, whole_file, whole_folder, writable_folder
from megatron.checkpoint.manifest import NAME, FileEntry, Manifest, TensorEntry, write_manifest
from megatron.parallel.placement import Placement

LATEST = "latest_checkpointed_iteration.txt"
Files = dict[str, dict[str, torch.Tensor]]


def folder_of(root: str | Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return Path(root) / f"iter_{iteration:07d}"


def checkpoints_in(root: str | Path) -> dict[int, Path]:
    """The checkpoint folders below a folder by step, whole or not, and whoever wrote them."""
    named = {path: path.name.removeprefix("iter_") for path in Path(root).glob("iter_*") if path.is_dir()}
    return {int(step): path for path, step in sorted(named.items()) if step.isdigit()}


def save_checkpoint(root: str | Path, files: Files, table: dict[str, Placement], manifest: Manifest) -> Path:
    """Write the tensors of every file and the manifest, and then point to the new checkpoint. `table`:
    placements of all tensors."""
    writable_folder(root)
    target = folder_of(root, manifest.iteration)
    try:
        with whole_folder(target) as folder:
            _write(folder, files, table, manifest)
        with whole_file(Path(root) / LATEST, "w") as file:
            file.write(f"{manifest.iteration}\n")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{target}: could not be written ({error}); make room there, then start the run again"
        ) from None
    return target


def _write(folder: Path, files: Files, table: dict[str, Placement], manifest: Manifest) -> None:
    written: dict[str, FileEntry] = {}
    boxes: dict[str, TensorEntry] = {}
    for file, tensors in files.items():
        path = folder / file
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)
        path.chmod(folder.stat().st_mode & 0o666)
        written[file] = FileEntry(path.stat().st_size, checksum(path))
        for name, tensor in tensors.items():
            place = table[name]
            boxes[name] = TensorEntry(file, str(tensor.dtype), place.global_shape, place.offset)
    write_manifest(folder, dataclasses.replace(manifest, files=written, tensors=boxes))


def clear_unfinished(root: str | Path) -> None:
    """Remove what a run that was killed while saving has left, and put back a checkpoint that it was about
    to replace. Only the holder of the folder's lock may call this."""
    for old in Path(root).glob(".iter_*.old"):
        target = old.with_name(old.name.split(".")[1])
        if not target.exists():
            old.rename(target)
    for rest in (*Path(root).glob(".iter_*.partial"), *Path(root).glob(".iter_*.old")):
        shutil.rmtree(rest, ignore_errors=True)


def retain(root: str | Path, interval: int | None, newest: int) -> None:
    """Delete checkpoints that are neither the newest nor at a multiple of `interval`."""
    for step, folder in checkpoints_in(root).items():
        own = (folder / NAME).is_file()  # other programs' checkpoints stay
        if interval and step % interval and step != newest and own:
            shutil.rmtree(folder, ignore_errors=True)
