"""Reading checkpoints: find, verify, and say clearly why one does not fit."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megatron.base.errors import UserError
from megatron.base.files import checksum
from megatron.base.units import count_of
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import NAME, Manifest, Part, read_manifest
from megatron.checkpoint.save import LATEST, checkpoints_in, folder_of
from megatron.parallel.mesh import Mesh, together
from megatron.parallel.placement import Placement


def find_checkpoint(
    root: str | Path, iteration: int | None = None, tell: Callable[[str], None] = print
) -> Path | None:
    """The folder of the newest checkpoint below `root`, or of `iteration`; `root` may itself be that
    checkpoint. None where there is none yet. `tell` gets a line where the file that points to the newest is
    lost, so that the newest whole one is taken."""
    root = Path(root)
    if root.is_file():
        other = made_elsewhere(root.parent)
        raise UserError(f"{root}: is a file{other and f', and {other}'}; name the folder given to --save")
    if (root / NAME).is_file():
        if iteration is not None and (step := read_manifest(root).iteration) != iteration:
            raise UserError(
                f"--ckpt-step {iteration}: {root} is itself the checkpoint of step {step}; leave --ckpt-step "
                "out, or name the folder that was given to --save"
            )
        return root
    chosen, pointer = iteration is not None, root / LATEST
    if iteration is None:
        text = pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else ""
        if not text:
            return _newest_whole(root, tell)
        if not text.isdecimal():
            way = made_elsewhere(root) or "write the number of an iter_ folder there"
            raise UserError(f"{pointer}: holds {text[:40]!r}, not a number of steps; {way}")
        iteration = int(text)
    folder = folder_of(root, iteration)
    if not (folder / NAME).is_file():
        raise UserError(f"{folder}: is no checkpoint; {_instead(root, chosen)}")
    return folder


def _instead(root: Path, chosen: bool) -> str:
    """What to do where a checkpoint is missing that --ckpt-step has chosen, or else the pointer."""
    there = [folder.name for folder in checkpoints_in(root).values() if (folder / NAME).is_file()]
    if there:
        return f"those there: {', '.join(sorted(there))}; choose one with --ckpt-step, or name its folder"
    if other := made_elsewhere(root):
        return f"{other}; name the folder that was given to --save"
    anew = "leave --ckpt-step out" if chosen else f"remove {root / LATEST}, which names it, to start anew"
    return f"the folder holds none; name the folder that was given to --save, or {anew}"


def _newest_whole(root: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint of a folder without a pointer; None where there are none at all."""
    found = sorted(checkpoints_in(root).values(), reverse=True)
    whole = next((folder for folder in found if _is_whole(folder)), None)
    if found and whole is None and (other := made_elsewhere(root)):
        raise UserError(f"{root}: {other}; name the folder that was given to --save")
    if found and whole is None:
        raise UserError(
            f"{root}: holds {count_of(len(found), 'checkpoint')}, of which none is whole, and no {LATEST}; "
            "name the folder of one to see what it lacks"
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
    return "no other checkpoint there is whole, so bring the files of this one again"


class Box(NamedTuple):
    """A part of a global tensor that a rank holds: the global shape, where the part begins, and its shape."""

    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]


def read_boxes(
    folder: Path, manifest: Manifest, wanted: dict[str, Box], problems: Iterable[str] = ()
) -> Iterator[tuple[str, Tensor]]:
    """The boxes of global tensors, in the types that they were saved in, from whatever parts hold them.
    UserError where a checkpoint has other tensors, beside the `problems` met before, or is damaged."""
    _require_same(folder, manifest, wanted, problems)
    with ExitStack() as held:
        files: dict[str, Any] = {}
        for name, box in wanted.items():
            whole = None
            for part in manifest.tensors[name].parts:
                low, high = _overlap(part, box)
                if any(one >= other for one, other in zip(low, high)):
                    continue
                if part.file not in files:
                    files[part.file] = held.enter_context(_opened(folder, manifest, part.file))
                found = _cut(files[part.file], name, part, low, high)
                if found.shape == box.shape:
                    whole = found
                    break
                whole = whole if whole is not None else found.new_empty(box.shape)
                whole[_inside(low, high, box.offset)] = found
            yield name, whole if whole is not None else torch.empty(box.shape)


def _overlap(part: Part, box: Box) -> tuple[list[int], list[int]]:
    """Where a part and a box meet, in the global tensor: from, and up to."""
    low = [max(pair) for pair in zip(part.offset, box.offset)]
    ends = (zip(one.offset, one.shape) for one in (part, box))
    high = [min(pair) for pair in zip(*([start + size for start, size in one] for one in ends))]
    return low, high


def _inside(low: list[int], high: list[int], offset: tuple[int, ...]) -> tuple[slice, ...]:
    """The same range, counted from where a box begins."""
    return tuple(slice(one - start, other - start) for one, other, start in zip(low, high, offset))


def _cut(file: Any, name: str, part: Part, low: list[int], high: list[int]) -> Tensor:
    """A range of the global tensor out of the part that a file holds. It is dense, as a fused optimizer
    silently takes for granted."""
    if list(part.offset) == low and [a + b for a, b in zip(part.offset, part.shape)] == high:
        whole: Tensor = file.get_tensor(name)
        return whole
    found: Tensor = file.get_slice(name)[_inside(low, high, part.offset)].contiguous()
    return found


@contextmanager
def _opened(folder: Path, manifest: Manifest, name: str) -> Iterator[Any]:
    path = folder / name
    require_file(folder, manifest, name)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: is damaged ({error}); {_another(folder)}") from None


def require_file(
    folder: Path,
    manifest: Manifest,
    name: str,
    verify: bool = False,
    advance: Callable[[int], None] = lambda size: None,
) -> None:
    """UserError where a file of a checkpoint is missing or of another size. `verify`: or of another
    checksum; `advance` gets the size of what is read for it."""
    path, entry = folder / name, manifest.files.get(name)
    damaged = f"{path}: is damaged ({{}}); {_another(folder)}"
    if entry is None or not path.is_file():
        raise UserError(damaged.format("it is missing"))
    if path.stat().st_size != entry.bytes:
        raise UserError(damaged.format(f"{path.stat().st_size} bytes instead of {entry.bytes}"))
    if verify and checksum(path, advance) != entry.sha256:
        raise UserError(damaged.format("its checksum differs"))


def verify_files(folder: Path, manifest: Manifest, mesh: Mesh, kind: str = "") -> None:
    """Compare the checksums of all files, or of those of a kind; the ranks share the work, and all end where
    one finds damage."""

    def verify() -> bytes:
        names = [name for name in sorted(manifest.files) if name.startswith(kind)]
        for name in names[mesh.world.rank :: mesh.world.size]:
            require_file(folder, manifest, name, verify=True)
        return b""

    together(verify, mesh)


def _require_same(folder: Path, manifest: Manifest, wanted: dict[str, Box], problems: Iterable[str]) -> None:
    """UserError with the differences where the tensors that are wanted are not those that are there."""
    there = manifest.tensors
    problems = [*problems, *(f"has no {name}" for name in wanted.keys() - there.keys())]
    problems += [
        f"has {name} {list(there[name].global_shape)}, the model {list(box.global_shape)}"
        for name, box in wanted.items()
        if name in there and there[name].global_shape != box.global_shape
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"{folder}: is the checkpoint of another model: it {'; it '.join(sorted(problems)[:5])}{more}"
            f"{_of_experts(there.keys(), wanted.keys()) or OWN_SHAPE.get(manifest.task, OTHER_FLAGS)}"
        )


OTHER_FLAGS = "; give the model's flags as they were, or --use-checkpoint-args, which takes them"
OWN_SHAPE = {
    "vit": f"{OTHER_FLAGS}; for images of another size give --pretrained-checkpoint in the place of --load "
    "and --finetune, which resizes the positions"
}
"""The way out where a model has other tensors, by the task."""


def _of_experts(there: Iterable[str], wanted: Iterable[str]) -> str:
    """The way from a dense model to a mixture of experts, where that is what differs."""
    mixed = [any(".mlp.experts." in name for name in names) for names in (there, wanted)]
    if mixed[0] == mixed[1]:
        return ""
    if mixed[0]:
        return "; it is a mixture of experts, so give --num-experts and its other flags as they were"
    return "; it is dense, and tools/upcycle_checkpoint.py makes a mixture of experts of it"


def boxes_of(parameters: Mapping[str, Tensor], table: dict[str, Placement]) -> dict[str, Box]:
    """The boxes that a rank holds of its parameters."""
    return {
        name: Box(table[name].global_shape, table[name].offset, tuple(one.shape))
        for name, one in parameters.items()
    }


@torch.no_grad()
def load_model(
    parameters: Mapping[str, Tensor],
    table: dict[str, Placement],
    folder: Path,
    manifest: Manifest,
    others: Iterable[str] = (),
) -> None:
    """Copy a checkpoint's weights into parameters of the same global shapes, whatever ranks have written
    them; UserError with the differences otherwise. `others`: parameters of other ranks."""
    known = {*parameters, *others}
    weights = {name for name in manifest.tensors if not name.startswith("optimizer.")}
    more = [f"has {name} too" for name in weights - known]
    for name, tensor in read_boxes(folder, manifest, boxes_of(parameters, table), more):
        parameters[name].copy_(tensor)
