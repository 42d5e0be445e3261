"""The `mp_rank_TT_PPP` folders of Megatron-LM: one file a rank of tensor and pipeline parallelism, joined to
whole tensors."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from megatron.base.errors import UserError
from megatron.conversion.folder import Like
from megatron.conversion.saved_by_torch import Lazy, read_saved

FILES = ("model_optim_rng.pt", "model_rng.pt")
OLDEST = 2.0
"""The version of a checkpoint since which query, key and value lie head by head."""
OLDER_NAMES = (
    ("language_model.", ""),
    ("transformer.", "decoder."),
    ("encoder.", "decoder."),
    (".attention.", ".self_attention."),
    ("query_key_value", "linear_qkv"),
    ("layernorm_qkv", "linear_qkv"),
    ("self_attention.dense", "self_attention.linear_proj"),
    ("self_attention.proj", "self_attention.linear_proj"),
    (".input_norm.", ".input_layernorm."),
    ("post_attention_norm", "pre_mlp_layernorm"),
    ("post_attention_layernorm", "pre_mlp_layernorm"),
    (".final_norm.", ".final_layernorm."),
    ("layernorm_mlp.layer_norm_", "mlp.linear_fc1.layer_norm_"),
    ("layernorm_mlp.fc1_", "mlp.linear_fc1."),
    ("layernorm_mlp.fc2_", "mlp.linear_fc2."),
    ("dense_h_to_4h", "linear_fc1"),
    ("dense_4h_to_h", "linear_fc2"),
)
"""What older versions call the same, and Transformer Engine in them, in the order in which it is replaced."""
ROWS = ("word_embeddings.weight", "output_layer.weight", "linear_qkv.weight", "linear_qkv.bias")
FIRST = ("linear_fc1.weight", "linear_fc1.bias")
COLUMNS = ("linear_proj.weight", "linear_fc2.weight")


def tensors_of_ranks(folder: Path) -> tuple[SimpleNamespace, dict[str, Like]]:
    """The settings of a checkpoint and its tensors by the names of today, layers counted over all stages.
    UserError where files are missing or of another kind."""
    grid = _grid(folder)
    contents = [[_read(file) for file in stage] for stage in grid]
    settings = contents[0][0].get("args")
    if not isinstance(settings, SimpleNamespace):
        raise UserError(f"{grid[0][0]}: holds no settings of a run; name a checkpoint of training")
    gated, first = bool(getattr(settings, "swiglu", False)), 0
    stages = [[_models(content) for content in stage] for stage in contents]
    found: dict[str, Like] = {}
    for chunk in range(len(stages[0][0])):
        for models, files in zip(stages, grid):
            ranks = [dict(_named(one[chunk])) for one in models]
            for name in ranks[0]:
                parts = [_part(one, name, files) for one in ranks]
                found.setdefault(_counted(name, first), _joined(files[0], name, parts, gated))
            first += _count(ranks[0])
    return settings, found


def _counted(name: str, first: int) -> str:
    """The name of a tensor whose layer is counted from the first one of its stage."""
    return re.sub(r"(?<=layers\.)\d+", lambda number: str(int(number[0]) + first), name)


def _grid(folder: Path) -> list[list[Path]]:
    """The files [stages][tensor ranks]. UserError where one is missing."""
    files: dict[tuple[int, int], Path] = {}
    for path in folder.glob("mp_rank_*"):
        place = re.fullmatch(r"mp_rank_(\d+)(?:_(\d+))?(?:_\d+)?", path.name)
        held = next((path / name for name in FILES if (path / name).is_file()), None)
        if place and held:
            files[int(place[2] or 0), int(place[1])] = held
    if not files:
        raise UserError(
            f"{folder}: holds no mp_rank_ folders with {FILES[0]}; name a checkpoint of Megatron-LM"
        )
    stages, ranks = (1 + max(place[axis] for place in files) for axis in (0, 1))
    lacking = [
        (stage, rank) for stage in range(stages) for rank in range(ranks) if (stage, rank) not in files
    ]
    if lacking:
        stage, rank = lacking[0]
        raise UserError(
            f"{folder}: tensor rank {rank} of stage {stage} is missing; bring the files of all ranks"
        )
    return [[files[stage, rank] for rank in range(ranks)] for stage in range(stages)]


def _read(file: Path) -> dict[str, Any]:
    content = read_saved(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no checkpoint of Megatron-LM; bring the file again")
    version = content.get("checkpoint_version", 0)
    if not isinstance(version, int | float) or version < OLDEST:
        raise UserError(
            f"{file}: is of checkpoint version {version}, and {OLDEST} and newer are read; save it anew by a "
            "newer Megatron-LM"
        )
    return content


def _models(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The model, or its runs of layers where stages have several."""
    if "model" in content:
        return [content["model"]]
    return [content[f"model{number}"] for number in range(len(content)) if f"model{number}" in content]


def _named(model: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Lazy]]:
    """Tensors by the names of today; older versions nest them."""
    for key, value in model.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _named(value, f"{name}.")
        elif isinstance(value, Lazy):
            for old, new in OLDER_NAMES:
                name = name.replace(old, new) if not name.startswith(new) or old != "encoder." else name
            yield name, value


def _count(tensors: Mapping[str, Lazy]) -> int:
    """Layers of a run of them."""
    numbers = [int(found[1]) for name in tensors if (found := re.match(r"decoder\.layers\.(\d+)\.", name))]
    return max(numbers, default=-1) + 1


def _part(tensors: Mapping[str, Lazy], name: str, files: list[Path]) -> Lazy:
    if name not in tensors:
        raise UserError(f"{files[-1]}: has no {name}, which another tensor rank has; bring files of one step")
    return tensors[name]


def _joined(file: Path, name: str, parts: list[Lazy], gated: bool) -> Like:
    """The whole of what tensor ranks have parts of. Gate and up are in one matrix, of which every rank has
    rows of both."""
    along = 1 if name.endswith(COLUMNS) else 0 if name.endswith(ROWS + FIRST) else None
    shape = list(parts[0].shape)
    if along is not None:
        shape[along] = sum(one.shape[along] for one in parts)

    def read() -> Tensor:
        if along is None or len(parts) == 1:
            return parts[0].read()
        tensors = [one.read() for one in parts]
        if gated and name.endswith(FIRST):
            halves = zip(*(one.chunk(2) for one in tensors))
            return torch.cat([torch.cat(half) for half in halves])
        return torch.cat(tensors, along)

    return Like(file, tuple(shape), parts[0].dtype, read)
