"""Reading checkpoints: find, verify, and say clearly why one does not fit."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from megatron.base.errors import UserError
from megatron.base.files import checksum
from megatron.checkpoint.manifest import NAME, Manifest
from megatron.checkpoint.save import LATEST, folder_of


def find_checkpoint(root: str | Path, iteration: int | None = None) -> Path | None:
    """The folder of the newest checkpoint below `root`, or of `iteration`; `root` may itself be a
    checkpoint. None where there is none yet."""
    root = Path(root)
    if root.is_file():
        raise UserError(f"{root}: is a file; name the folder that was given to --save")
    if (root / NAME).is_file():
        return root
    if iteration is None:
        pointer = root / LATEST
        if not pointer.is_file():
            return None
        text = pointer.read_text(encoding="utf-8", errors="replace").strip()
        if not text.isdigit():
            raise UserError(
                f"{pointer}: holds {text[:40]!r}, not a number of steps; write the number of an iter_ "
                "folder there"
            )
        iteration = int(text)
    folder = folder_of(root, iteration)
    if not (folder / NAME).is_file():
        there = sorted(path.name for path in root.glob("iter_*")) or ["none"]
        raise UserError(
            f"{folder}: is no checkpoint; there are {', '.join(there)}; choose one with --ckpt-step"
        )
    return folder


def load_tensors(folder: Path, manifest: Manifest, name: str, verify: bool = True) -> dict[str, torch.Tensor]:
    """The tensors of one file of a checkpoint. `verify`: compare its checksum, not only its size."""
    path, entry = folder / name, manifest.files.get(name)
    damaged = f"{path}: is damaged ({{}}); load an older checkpoint with --ckpt-step"
    if entry is None or not path.is_file():
        raise UserError(damaged.format("it is missing"))
    if path.stat().st_size != entry.bytes:
        raise UserError(damaged.format(f"{path.stat().st_size} bytes instead of {entry.bytes}"))
    if verify and checksum(path) != entry.sha256:
        raise UserError(damaged.format("its checksum differs"))
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(damaged.format(error)) from None


@torch.no_grad()
def load_model(model: torch.nn.Module, folder: Path, manifest: Manifest, verify: bool = True) -> None:
    """Copy a checkpoint's weights into a model of the same shape; UserError with the differences
    otherwise."""
    tensors = load_tensors(folder, manifest, "model.safetensors", verify)
    named = dict(model.named_parameters())
    problems = [f"has no {name}" for name in named.keys() - tensors.keys()] + [
        f"has {name} too" for name in tensors.keys() - named.keys()
    ]
    problems += [
        f"has {name} {list(tensors[name].shape)}, the model {list(one.shape)}"
        for name, one in named.items()
        if name in tensors and tensors[name].shape != one.shape
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"{folder}: is the checkpoint of another model: it {'; it '.join(sorted(problems)[:5])}{more}"
        )
    for name, parameter in named.items():
        parameter.copy_(tensors[name])
