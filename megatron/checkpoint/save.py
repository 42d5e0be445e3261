"""Checkpoints: `iter_0000500/` with safetensors files and `index.json`, and
`latest_checkpointed_iteration.txt` beside them.

A checkpoint appears whole or not at all. Nothing in it is pickled. Every tensor is a box (global shape,
offset) of a global tensor; everything that is not a tensor is in the index.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from megatron.base.errors import UserError
from megatron.base.files import checksum, whole_file, whole_folder, writable_folder
from megatron.parallel.placement import Box

FORMAT = 1
LATEST = "latest_checkpointed_iteration.txt"


def folder_of(root: str | Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return Path(root) / f"iter_{iteration:07d}"


def save_checkpoint(
    root: str | Path,
    iteration: int,
    files: dict[str, dict[str, torch.Tensor]],
    boxes: dict[str, Box],
    about: dict[str, Any],
) -> Path:
    """Write the tensors of every file, the index with `about`, and then point to the new checkpoint."""
    writable_folder(root)
    target = folder_of(root, iteration)
    try:
        _write(target, iteration, files, boxes, about)
        with whole_file(Path(root) / LATEST, "w") as file:
            file.write(f"{iteration}\n")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{target}: could not be written ({error}); make room there, then start the run again"
        ) from None
    return target


def _write(
    target: Path,
    iteration: int,
    files: dict[str, dict[str, torch.Tensor]],
    boxes: dict[str, Box],
    about: dict[str, Any],
) -> None:
    with whole_folder(target) as folder:
        index: dict[str, Any] = {
            "format": FORMAT,
            "iteration": iteration,
            **about,
            "files": {},
            "tensors": {},
        }
        for name, tensors in files.items():
            save_file(
                {key: tensor.detach().contiguous().cpu() for key, tensor in tensors.items()}, folder / name
            )
            (folder / name).chmod(folder.stat().st_mode & 0o666)
            index["files"][name] = {
                "bytes": (folder / name).stat().st_size,
                "sha256": checksum(folder / name),
            }
            for key, tensor in tensors.items():
                shape, offset = boxes.get(key, Box(tuple(tensor.shape), (0,) * tensor.dim()))
                index["tensors"][key] = {
                    "file": name,
                    "dtype": str(tensor.dtype),
                    "global_shape": shape,
                    "offset": offset,
                }
        (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


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
    for folder in Path(root).glob("iter_*"):
        number = folder.name.removeprefix("iter_")
        if interval and number.isdigit() and int(number) != newest and int(number) % interval:
            shutil.rmtree(folder, ignore_errors=True)
