"""Checkpoints: `iter_0000500/` with safetensors files and `index.json`, and
`latest_checkpointed_iteration.txt` beside them.

A checkpoint appears whole or not at all. Nothing in it is pickled. Every tensor is a box (global shape,
offset) of a global tensor; everything that is not a tensor is in the index.
"""

import dataclasses
import json
import secrets
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from megatron.base.errors import UserError
from megatron.base.files import whole_file, whole_folder, writable_folder
from megatron.checkpoint.manifest import NAME, FileEntry, Manifest, Part, TensorEntry, write_manifest
from megatron.checkpoint.tensor_file import write_tensors
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh, together
from megatron.parallel.placement import Placement, copies

LATEST = "latest_checkpointed_iteration.txt"
Files = dict[str, dict[str, torch.Tensor]]
"""Tensors by name, by the kind of file that they go to: model, optimizer."""


def folder_of(root: str | Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return Path(root) / f"iter_{iteration:07d}"


def checkpoints_in(root: str | Path) -> dict[int, Path]:
    """The checkpoint folders below a folder by step, whole or not, and whoever wrote them."""
    named = {path: path.name.removeprefix("iter_") for path in Path(root).glob("iter_*") if path.is_dir()}
    return {int(step): path for path, step in sorted(named.items()) if step.isdigit()}


def save_checkpoint(
    root: str | Path, files: Files, table: dict[str, Placement], manifest: Manifest, mesh: Mesh = ONE_RANK
) -> Path:
    """Write the tensors and the manifest, and then point to the new checkpoint. Every rank writes files of
    its own at once, as `own_tensors` shares them, and the first one the rest. `table`: placements of all
    tensors."""
    target = folder_of(root, manifest.iteration)
    with ExitStack() as held:

        def begin() -> bytes:
            if not mesh.first:
                return b""
            writable_folder(root)
            return held.enter_context(whole_folder(target)).name.encode()

        def write() -> bytes:
            return json.dumps(_write(folder, files, table, mesh)).encode()

        def finish() -> bytes:
            if mesh.first:
                with whole_file(Path(root) / LATEST, "w") as file:
                    file.write(f"{manifest.iteration}\n")
                    file.flush()  # a full disk refuses here, not behind a checkpoint that nothing names
                    write_manifest(folder, _joined(manifest, [json.loads(one) for one in written]))
                    held.close()
            return b""

        first, *_ = together(_told(begin, target), mesh)
        folder = target.with_name(first.decode())
        written = together(_told(write, target), mesh)
        together(_told(finish, target), mesh)
    return target


def _told(work: Callable[[], bytes], target: Path) -> Callable[[], bytes]:
    """The same work, whose failure names the checkpoint and a way out."""

    def told() -> bytes:
        try:
            return work()
        except OSError as error:
            raise UserError(
                f"{target}: could not be written ({error}); see that the folder is there for every rank and "
                "has room, then start the run again"
            ) from None

    return told


def _write(folder: Path, files: Files, table: dict[str, Placement], mesh: Mesh) -> dict[str, Any]:
    """Write this rank's files; their sizes, checksums and tensors."""
    written: dict[str, Any] = {}
    for kind, tensors in files.items():
        if not tensors and not mesh.first:
            continue
        name = _file_name(kind, mesh)
        size, digest = write_tensors(folder / name, tensors)
        boxes = {
            name: (str(one.dtype), table[name].offset, list(one.shape), table[name].global_shape)
            for name, one in tensors.items()
        }
        written[name] = (size, digest, boxes)
    return written


def _file_name(kind: str, mesh: Mesh) -> str:
    part = f"-{mesh.world.rank + 1:05d}-of-{mesh.world.size:05d}" if mesh.world.size > 1 else ""
    return f"{kind}{part}.safetensors"


def own_tensors(files: Files, table: dict[str, Placement], mesh: Mesh) -> Files:
    """The tensors that this rank writes, by the kind of file that they go to."""
    return {kind: _own(tensors, table, mesh) for kind, tensors in files.items()}


def _own(
    tensors: dict[str, torch.Tensor], table: dict[str, Placement], mesh: Mesh
) -> dict[str, torch.Tensor]:
    """The tensors that this rank writes: those that have copies are shared among their holders by size."""
    loads: dict[tuple[str, ...], list[int]] = {}
    mine = {}
    for name, tensor in tensors.items():
        axes = table[name].copies_over
        load = loads.setdefault(axes, [0] * copies(axes, mesh)[1])
        writer = load.index(min(load))
        load[writer] += tensor.numel()
        if writer == copies(axes, mesh)[0] and tensor.numel():
            mine[name] = tensor
    return mine


def _joined(manifest: Manifest, written: list[dict[str, Any]]) -> Manifest:
    """The manifest with what all ranks have written."""
    files: dict[str, FileEntry] = {}
    tensors: dict[str, TensorEntry] = {}
    for files_of_rank in written:
        for file, (size, digest, boxes) in files_of_rank.items():
            files[file] = FileEntry(size, digest)
            for name, (dtype, offset, shape, whole) in boxes.items():
                entry = tensors.setdefault(name, TensorEntry(dtype, tuple(whole), []))
                entry.parts.append(Part(file, tuple(offset), tuple(shape)))
    return dataclasses.replace(manifest, files=files, tensors=tensors)


def clear_unfinished(root: str | Path) -> None:
    """Remove what a run that was killed while saving or deleting has left, and put back a checkpoint that it
    was about to replace. Only the holder of the folder's lock may call this."""
    for old in Path(root).glob(".iter_*.old"):
        target = old.with_name(old.name.split(".")[1])
        if not target.exists():
            old.rename(target)
    for rest in (*Path(root).glob(".iter_*.partial"), *Path(root).glob(".iter_*.old")):
        shutil.rmtree(rest, ignore_errors=True)


def retain(root: str | Path, interval: int | None, newest: int, tell: Callable[[str], None] = print) -> None:
    """Delete checkpoints that are neither the newest nor at a multiple of `interval`: by a hidden name, so
    that of one that is deleted in part nothing is taken for a checkpoint, and `clear_unfinished` finds it.
    `tell` gets a warning that names what stays."""
    left: dict[Path, str] = {}
    for step, folder in checkpoints_in(root).items():
        own = (folder / NAME).is_file()  # other programs' checkpoints stay
        if not interval or step % interval == 0 or step == newest or not own:
            continue
        going = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.partial")
        try:
            folder.rename(going)
            _delete(going)
        except OSError as error:
            left[going if going.exists() else folder] = error.strerror or str(error)
    if left:
        path, why = next(iter(left.items()))
        more = f", and {len(left) - 1} more" if len(left) > 1 else ""
        tell(
            f"warning: {path}: could not be deleted ({why}){more}, so --save-retain-interval "
            "makes no room; mend its permissions, or delete it by hand"
        )


def _delete(folder: Path) -> None:
    """Delete all of a folder that can be deleted; OSError where some cannot. Of a link the link alone."""
    if folder.is_symlink():
        folder.unlink()
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder)
