"""A trained model from its checkpoint alone, for evaluation and generation."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from megatron.base.errors import UserError
from megatron.checkpoint.load import find_checkpoint, load_model
from megatron.checkpoint.manifest import Manifest, read_manifest
from megatron.checkpoint.saved_config import saved_config
from megatron.config.config import Config, TokenizerOptions
from megatron.data.tokenizer import Tokenizer, build_tokenizer, describe_identity
from megatron.tasks.task import Task
from megatron.tasks.tasks import TASKS


class Restored(NamedTuple):
    """A model in evaluation mode, its task and configuration, and the checkpoint that it came of."""

    model: nn.Module
    task: Task
    config: Config
    manifest: Manifest
    folder: Path


def restore(root: str, iteration: int | None, device: torch.device) -> Restored:
    """The model of a checkpoint; UserError where there is none."""
    folder = find_checkpoint(root, iteration)
    if folder is None:
        raise UserError(
            f"--load {root}: holds no checkpoint; train first, or name the folder given to --save"
        )
    manifest = read_manifest(folder)
    if manifest.task not in TASKS:
        known = ", ".join(TASKS)
        raise UserError(f"{folder}: holds a model of the task {manifest.task}, and known are {known}")
    task, config = TASKS[manifest.task], saved_config(manifest.config, folder)
    model = task.build_model(config, manifest.vocabulary.size, ())
    load_model(model, folder, manifest)
    return Restored(model.to(device).eval(), task, config, manifest, folder)


def tokenizer_of(manifest: Manifest, options: TokenizerOptions) -> Tokenizer:
    """The tokenizer of the flags, which must be the one that the checkpoint was trained with."""
    if options.tokenizer_type is None:
        raise UserError("--tokenizer-type is required, and the tokenizer's files")
    tokenizer = build_tokenizer(options)
    trained = manifest.vocabulary.tokenizer
    if trained is not None and trained != tokenizer.identity():
        mine = describe_identity(tokenizer.identity())
        raise UserError(
            f"the model was trained with {describe_identity(trained)}, and the flags name {mine}; "
            "name the one of the training"
        )
    return tokenizer
