"""Weights that training a vision transformer starts from: of one of our checkpoints, or of a Hugging Face
folder. The head is new where it tells other classes apart, and positions are resized to the images of the
flags."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from megatron.base.errors import UserError
from megatron.base.folders import or_nearest
from megatron.checkpoint.load import Box, find_checkpoint, read_boxes, verify_files
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import read_manifest
from megatron.checkpoint.saved_config import saved_config
from megatron.config.config import Config
from megatron.config.flags import spelling
from megatron.config.vision import VisionConfig
from megatron.conversion.encoders import found_in
from megatron.conversion.folder import PIXELS, opened, pixels_of
from megatron.conversion.origins import take
from megatron.conversion.vit import HEAD, classes_named, describe, names
from megatron.model.vit import resized_positions
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.placement import Placement

CONFIG, WEIGHTS = "config.json", "model.safetensors"
POSITIONS = "position_embeddings.weight"
SHAPE = (
    *("num_layers", "hidden_size", "num_attention_heads", "ffn_hidden_size", "patch_dim", "num_channels"),
    *("disable_qkv_bias", "norm_epsilon", "openai_gelu"),
)
"""Flags that say what the weights compute, and must be theirs."""
SHOWN = 3
"""Classes that a note names."""
PIXEL_FLAGS = ("img_mean", "img_std", "img_interpolation")
"""Flags of the images that the weights have seen."""


class Pretrained(NamedTuple):
    """Weights before they are read. `flags`: of their model, as far as they are known; `read`: a whole tensor
    of ours by its name, None where there is none; `classes`: of their head, in order; `sure`: whether other
    names of these are other classes, as those of another program need not be."""

    folder: Path
    flags: dict[str, Any]
    read: Callable[[str], Tensor | None]
    classes: tuple[str, ...]
    sure: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Patches from top to bottom, and from left to right."""
        patch = self.flags["patch_dim"]
        return self.flags["img_h"] // patch, self.flags["img_w"] // patch


def pretrained_problems(config: Config) -> list[str]:
    """Why the weights of --pretrained-checkpoint cannot be those of the flags' model; reads no weights."""
    path, groups = config.vision.pretrained_checkpoint, (config.model, config.vision)
    if not path:
        return []
    if config.checkpoint.finetune:
        return ["--pretrained-checkpoint and --finetune are two starts; give only one"]
    try:
        flags = open_pretrained(path).flags
    except UserError as error:
        return list(error.problems)
    mine = {name: value for group in groups for name, value in vars(group).items()}
    theirs = {name: flags.get(name, False) for name in SHAPE}
    return [
        f"--pretrained-checkpoint {path}: its {spelling(name)} is {value}, and the flags' {mine[name]}; "
        f"{_way(name, value)}"
        for name, value in theirs.items()
        if value != mine[name]
    ]


def _way(name: str, value: Any) -> str:
    if value is False:
        return f"leave {spelling(name)} out"
    return f"give {spelling(name)}" + ("" if value is True else f" {value}")


def open_pretrained(path: str) -> Pretrained:
    """The weights of a folder. UserError where there are none that are known here."""
    folder = Path(path)
    if (folder / CONFIG).is_file():
        return _of_huggingface(folder)
    found = find_checkpoint(path, None, tell=lambda _: None)
    if found is None:
        why = made_elsewhere(path)
        raise UserError(
            f"--pretrained-checkpoint {path}: holds no checkpoint and no {CONFIG}"
            f"{f'; {why}' if why else or_nearest(path) or '; name a folder of --save or of save_pretrained'}"
        )
    return _of_checkpoint(found)


def _of_checkpoint(folder: Path) -> Pretrained:
    manifest = read_manifest(folder)
    if manifest.task != "vit":
        raise UserError(
            f"--pretrained-checkpoint {folder}: holds a {manifest.task}, no vision transformer; name one of "
            "pretrain_vit.py"
        )
    config = saved_config(manifest.config, folder)

    def read(name: str) -> Tensor | None:
        if name not in manifest.tensors:
            return None
        shape = manifest.tensors[name].global_shape
        ((_, tensor),) = read_boxes(folder, manifest, {name: Box(shape, (0,) * len(shape), shape)})
        return tensor

    verify_files(folder, manifest, ONE_RANK, "model")
    classes = tuple((manifest.vocabulary.tokenizer or {}).get("classes", ()))
    flags = vars(config.model) | vars(config.vision)
    return Pretrained(folder, flags, read, classes, sure=not manifest.is_converted)


def _of_huggingface(folder: Path) -> Pretrained:
    where = f"--pretrained-checkpoint {folder / CONFIG}"
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8-sig"))
        if (kind := content.get("model_type")) != "vit":
            raise UserError(f"{where}: model_type {kind!r} is not vit, which is read here")
        flags, problems = describe(content)
    except KeyError as error:
        raise UserError(
            f"{where}: says nothing of {error.args[0]}, which a vit needs; bring the file again"
        ) from None
    except (ValueError, AttributeError, TypeError, IndexError) as error:
        raise UserError(f"{where}: is no config.json of a model ({error}); bring the file again") from None
    if problems:
        raise UserError(*(f"{where}: {problem}" for problem in problems))
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"--pretrained-checkpoint {folder}: has no {WEIGHTS}; save the model by save_pretrained of a "
            "newer transformers, in one file"
        )
    if (folder / PIXELS).is_file():
        flags |= pixels_of(folder / PIXELS, flags["num_channels"])
    origins = names(flags)

    def read(name: str) -> Tensor | None:
        with opened(path) as file:
            found = found_in(origins, file.keys())
            return take(found[name], file.get_tensor) if name in found else None

    return Pretrained(folder, flags, read, tuple(classes_named(content)), sure=False)


def other_pixels(source: Pretrained, vision: VisionConfig) -> list[str]:
    """A note where the weights have seen images of other means or deviations than the flags', or resized in
    another way, which may be meant. Compared as they are written: files of single precision have 0.48500001
    for 0.485."""
    pairs = {name: (source.flags.get(name), getattr(vision, name)) for name in PIXEL_FLAGS}
    return [
        f"the weights of {source.folder} have seen images by {_numbers(name, theirs)}, and these are by "
        f"{_numbers(name, mine)}; give {_numbers(name, theirs)}, unless that is meant"
        for name, (theirs, mine) in pairs.items()
        if theirs is not None and _numbers(name, theirs) != _numbers(name, mine)
    ]


def _numbers(name: str, values: Iterable[float] | str) -> str:
    words = [values] if isinstance(values, str) else [f"{value:g}" for value in values]
    return " ".join([spelling(name), *words])


@torch.no_grad()
def load_pretrained(
    source: Pretrained,
    parameters: Mapping[str, Tensor],
    table: Mapping[str, Placement],
    grid: tuple[int, int],
    classes: tuple[str, ...],
) -> list[str]:
    """Copy weights into a rank's parameters, whose images have this `grid` of patches, and are of these
    classes. What was made new or anew, in words. UserError where a tensor is missing, or of another shape."""
    notes: list[str] = []
    order, about = head_order(source, classes)
    for name, parameter in parameters.items():
        shape = table[name].global_shape
        if name in HEAD:
            tensor, told = _of_head(source, name, shape, order)
            told = told or about
        else:
            tensor, told = _below_head(source, name, grid, parameter.dtype)
        notes += told
        if tensor is None:
            continue
        if tensor.numel() != math.prod(shape):
            raise UserError(
                f"{source.folder}: {name} has the shape {list(tensor.shape)}, and the model {list(shape)}; "
                "bring the files of one model"
            )
        box = zip(table[name].offset, parameter.shape)
        parameter.copy_(tensor.reshape(shape)[tuple(slice(start, start + size) for start, size in box)])
    return list(dict.fromkeys(notes))


def _of_head(
    source: Pretrained, name: str, shape: tuple[int, ...], order: list[int] | None
) -> tuple[Tensor | None, list[str]]:
    """A tensor of the head, whose first rows come in this order; None where it begins anew, and a note where
    it does for its shape."""
    tensor = source.read(name)
    if tensor is None or tuple(tensor.shape) != shape:
        there = "none" if tensor is None else f"one over {len(tensor)} classes"
        return None, [f"the head over {shape[0]} classes is new; {source.folder} has {there}"]
    return None if order is None else tensor[[*order, *range(len(order), len(tensor))]], []


def _below_head(
    source: Pretrained, name: str, grid: tuple[int, int], dtype: torch.dtype
) -> tuple[Tensor, list[str]]:
    """Another tensor; positions of another grid are resized, which a note tells. UserError where it is
    missing."""
    tensor = source.read(name)
    if tensor is None:
        raise UserError(f"{source.folder}: has no {name}; bring the weights of a whole vision transformer")
    if name != POSITIONS or source.grid == grid:
        return tensor, []
    flat = tensor.reshape(-1, tensor.shape[-1])
    before, after = (" x ".join(map(str, one)) for one in (source.grid, grid))
    resized = resized_positions(flat.to(dtype), source.grid, grid)
    return resized, [f"the positions of {before} patches are resized to {after}"]


def head_order(source: Pretrained, classes: tuple[str, ...]) -> tuple[list[int] | None, list[str]]:
    """Which first rows of a head with as many outputs are those of `classes`; None where it tells others, and
    begins anew; and a note where its classes are others or stand in another order."""
    theirs = source.classes
    if theirs == classes or not theirs:
        return [], []
    if sorted(theirs) == sorted(classes):
        note = f"the head of {source.folder} is put into the order of the images' classes"
        return [theirs.index(name) for name in classes], [note]
    both = f"that of {source.folder} tells {few(theirs)}, and the images are of {few(classes)}"
    if source.sure:
        return None, [f"the head is new: {both}"]
    return [], [f"the head goes on, a class for the one in its place: {both}"]


def few(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
