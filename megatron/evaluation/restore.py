"""A trained model from its checkpoint alone, for evaluation and generation."""

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import torch

from megatron.base.errors import UserError
from megatron.checkpoint.load import find_checkpoint, load_model, read_index
from megatron.config.config import Config, TokenizerOptions, resolve
from megatron.data.tokenizer import Tokenizer, build_tokenizer, describe_identity
from megatron.model.gpt import GPT


def restore(
    root: str, iteration: int | None, device: torch.device
) -> tuple[GPT, Config, dict[str, Any], Path]:
    """The model in evaluation mode, its configuration, the checkpoint's index and folder."""
    folder = find_checkpoint(root, iteration)
    if folder is None:
        raise UserError(
            f"--load {root}: holds no checkpoint; train first, or name the folder given to --save"
        )
    index = read_index(folder)
    config = saved_config(index["config"], folder)
    model = GPT(config, index["vocabulary"]["size"])
    load_model(model, folder, index)
    return model.to(device).eval(), config, index, folder


def tokenizer_of(index: dict[str, Any], options: TokenizerOptions) -> Tokenizer:
    """The tokenizer of the flags, which must be the one that the checkpoint of this index was trained
    with."""
    if options.tokenizer_type is None:
        raise UserError("--tokenizer-type is required, and the tokenizer's files")
    tokenizer = build_tokenizer(options)
    trained = index["vocabulary"]["tokenizer"]
    if trained is not None and trained != tokenizer.identity():
        mine = describe_identity(tokenizer.identity())
        raise UserError(
            f"the model was trained with {describe_identity(trained)}, and the flags name {mine}; name "
            "the one of the training"
        )
    return tokenizer


def saved_config(saved: dict[str, Any], folder: Path) -> Config:
    """The configuration that a checkpoint was trained with; what it does not say yet is filled in."""
    try:
        groups: dict[str, Any] = {}
        for name, group in get_type_hints(Config).items():
            if name not in saved or not dataclasses.is_dataclass(group):
                continue
            known = {field.name for field in dataclasses.fields(group)}
            values = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in saved[name].items()
                if key in known
            }
            groups[name] = group(**values)  # type: ignore[operator]
        return resolve(Config(**groups), 1)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}/index.json: its configuration is not understood ({error})") from None
