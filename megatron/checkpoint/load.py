"""Reading checkpoints: find, verify, and say clearly why one does not fit."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from megatron.base.errors import UserError
from megatron.base.files import checksum
from megatron.checkpoint.manifest import NAME, Manifest, read_manifest
from megatron.checkpoint.save import LATEST, checkpoints_in, folder_of

ELSEWHERE = (
    *("global_step*", "mp_rank_*", "iter_*/mp_rank_*", "iter_*/*.distcp", "*.distcp"),
    *("pytorch_model*.bin", "lit_model.pth"),
)
"""Files and folders in the checkpoints of Megatron, DeepSpeed and others, which are not read."""


def find_checkpoint(
    root: str | Path, iteration: int | None = None, tell: Callable[[str], None] = print
) -> Path | None:
    """The folder of the newest checkpoint below `root`, or of `iteration`; `root` may itself be a
    checkpoint. None where there is none yet. `tell` gets a line where the file that points to the newest is
    lost, so that the newest whole one is taken."""
    root = Path(root)
    if root.is_file():
        raise UserError(f"{root}: is a file; name the folder that was given to --save")
    if (root / NAME).is_file():
        return root
    if iteration is None:
        pointer = root / LATEST
        text = pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else ""
        if not text:
            return _newest_whole(root, tell)
        if not text.isdigit():
            raise UserError(
                f"{pointer}: holds {text[:40]!r}, not a number of steps; write the number of an iter_ "
                "folder there"
            )
        iteration = int(text)
    folder = folder_of(root, iteration)
    if not (folder / NAME).is_file():
        raise UserError(f"{folder}: is no checkpoint; {_instead(root)}")
    return folder


def _instead(root: Path) -> str:
    """What to load where a checkpoint is missing."""
    there = [folder.name for folder in checkpoints_in(root).values() if (folder / NAME).is_file()]
    if there:
        return f"those there: {', '.join(sorted(there))}; choose one with --ckpt-step"
    return f"{made_elsewhere(root) or 'the folder holds none'}; name the folder that was given to --save"


def made_elsewhere(root: str | Path) -> str:
    """Words for the checkpoints of another program that a folder holds; empty where it holds none."""
    found = sorted({path for pattern in ELSEWHERE for path in Path(root).glob(pattern)})
    if not found:
        return ""
    more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
    name = found[0].relative_to(root)
    return f"the folder holds what another program has saved ({name}{more}), which is not read here"


def _newest_whole(root: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint of a folder without a pointer; None where there are none at all."""
    found = sorted(checkpoints_in(root).values(), reverse=True)
    whole = next((folder for folder in found if _is_whole(folder)), None)
    if found and whole is None and (other := made_elsewhere(root)):
        raise UserError(f"{root}: {other}; name the folder that was given to --save")
    if found and whole is None:
        raise UserError(
            f"{root}: holds {len(found)} checkpoints, of which none is whole, and no {LATEST}; choose one "
            "with --ckpt-step to see what it lacks"
        )
    if whole is not None:
        passed = [folder.name for folder in found[: found.index(whole)]]
        more = f" (not whole: {', '.join(passed[:5])})" if passed else ""
        lost = f"{root / LATEST} is missing or empty"
        tell(f"warning: {lost}; taking the newest whole checkpoint, {whole}{more}")
    return whole


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint has its index, and every file in the size that the index says."""
    try:
        files = read_manifest(folder).files
        return all((folder / name).stat().st_size == entry.bytes for name, entry in files.items())
    except (UserError, OSError):
        return False


def _another(folder: Path) -> str:
    """The newest whole checkpoint beside a damaged one, and how it is taken."""
    for iteration, other in sorted(checkpoints_in(folder.parent).items(), reverse=True):
        if other != folder and _is_whole(other):
            return f"load {other} with --ckpt-step {iteration}"
    return "no other checkpoint there is whole"


def load_tensors(folder: Path, manifest: Manifest, name: str, verify: bool = True) -> dict[str, torch.Tensor]:
    """The tensors of one file of a checkpoint. `verify`: compare its checksum, not only its size."""
    path, entry = folder / name, manifest.files.get(name)
    damaged = f"{path}: is damaged ({{}}); {_another(folder)}"
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
