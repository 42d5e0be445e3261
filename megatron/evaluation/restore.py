"""A trained model from its checkpoint alone, for evaluation and generation."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from megatron.base.errors import UserError
from megatron.base.terminal import print_note
from megatron.batches.gpt import document_inputs
from megatron.checkpoint.load import find_checkpoint, load_model, verify_files
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import Manifest, read_manifest
from megatron.checkpoint.saved_config import saved_config
from megatron.config.config import Config, TokenizerOptions
from megatron.config.flags import spelling
from megatron.config.tokenizer import in_vain
from megatron.config.values import flatten
from megatron.data.corpora import Corpus
from megatron.data.tokenizer import build_tokenizer, describe_identity, describe_maker
from megatron.data.tokenizer_files import kept_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation.generate import Documents
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.placement import placements, states, whole
from megatron.tasks.task import Task
from megatron.tasks.tasks import TASKS


class Restored(NamedTuple):
    """A model in evaluation mode, its task and configuration, and the checkpoint that it came of."""

    model: nn.Module
    task: Task
    config: Config
    manifest: Manifest
    folder: Path


def restore(root: str, iteration: int | None, device: torch.device, as_trained: bool = True) -> Restored:
    """The model of a checkpoint, which computes in the precision of its training, or in that of its weights;
    UserError where there is none."""
    folder = find_checkpoint(root, iteration)
    if folder is None:
        found = made_elsewhere(root)
        raise UserError(
            f"--load {root}: holds no checkpoint; {f'{found}; ' if found else ''}train first, or name the "
            "folder given to --save"
        )
    manifest = read_manifest(folder)
    if manifest.task == "finetune":
        raise UserError(
            f"{folder}: holds a finetuned model; measure it with finetune.py --load {root} --skip-train"
        )
    if manifest.task not in TASKS:
        known = ", ".join(TASKS)
        raise UserError(
            f"{folder}: holds a model of the task {manifest.task}, and known are {known}; use the version "
            "that wrote it"
        )
    task, config = TASKS[manifest.task], saved_config(manifest.config, folder)
    config = config if as_trained else _as_its_weights(config)
    model = task.build_model(config, manifest.vocabulary.size, ())
    verify_files(folder, manifest, ONE_RANK, "model")
    kept = states(model)
    load_model(dict(model.named_parameters()) | kept, placements(model) | whole(kept), folder, manifest)
    return Restored(model.to(device).eval(), task, config, manifest, folder)


def _as_its_weights(config: Config) -> Config:
    return replace(config, training=replace(config.training, bf16=False, fp16=False))


def tokenizer_of(restored: Restored, flags: TokenizerOptions) -> tuple[Tokenizer, TokenizerOptions] | None:
    """The tokenizer of a checkpoint and the options that name it: of the flags, kept with the run, or the
    one of the training's own flags where it is still there. None where there is none. UserError where the
    flags name another than the training."""
    if problems := in_vain(flags, instead="; without it the run's own tokenizer is taken"):
        raise UserError(*problems)
    if flags.tokenizer_type is not None:
        tokenizer = build_tokenizer(flags)
        _compare(restored, tokenizer, flags)
        return tokenizer, flags
    kept = kept_tokenizer(restored.folder.parent, restored.manifest.vocabulary)
    if kept is not None:
        return build_tokenizer(kept), kept
    return _as_trained(restored)


def documents_as_trained(restored: Restored) -> Documents | None:
    """From tokens [B, T] on a CPU to positions, and where documents begin; None where training did not tell
    documents apart."""
    data, eod = restored.config.data, restored.manifest.vocabulary.eod
    if not (data.reset_position_ids or data.reset_attention_mask):
        return None

    def documents(tokens_BT: Tensor) -> tuple[Tensor | None, Tensor | None]:
        _, positions, starts = document_inputs(tokens_BT.numpy(), data, eod)
        return positions, starts

    return documents


def require_same_tokenizer(restored: Restored, corpora: list[Corpus], named: TokenizerOptions) -> None:
    """UserError where data was made by another tokenizer than the model was trained with, which `named`
    names where it is known."""
    trained = restored.manifest.vocabulary.tokenizer
    flags = {name: value for name, value in vars(named).items() if value and named.tokenizer_type}
    words = [str(word) for name, value in flags.items() for word in (spelling(name), *flatten(value))]
    for corpus in corpora:
        if trained and corpus.sidecar and corpus.sidecar["tokenizer"] != trained:
            raise UserError(
                f"{corpus.name} was made by {describe_maker(corpus.sidecar)}, and the model was trained with "
                f"{describe_identity(trained, flags)}; preprocess its text again with that one"
                + (f": {shlex.join(words)}" if words else "")
            )


def _compare(restored: Restored, tokenizer: Tokenizer, flags: TokenizerOptions) -> None:
    """Say where the tokenizer of the flags is not the one of the training."""
    trained, mine = restored.manifest.vocabulary, tokenizer.identity()
    if trained.tokenizer is not None and trained.tokenizer != mine:
        theirs = describe_identity(trained.tokenizer, vars(restored.config.tokenizer))
        ours = describe_identity(mine, vars(flags))
        raise UserError(
            f"the model was trained with {theirs}, and the flags name {ours}; name the one of the training, "
            "or leave the flags out"
        )
    if trained.eod is not None and trained.eod != tokenizer.eod:
        print_note(
            f"the model was trained on documents that end with token {trained.eod}, and with these "
            f"flags they end with {tokenizer.end.name} (token {tokenizer.eod})",
            error=True,
        )


def _as_trained(restored: Restored) -> tuple[Tokenizer, TokenizerOptions] | None:
    """The tokenizer of the training's flags, unless its files are gone or have changed."""
    options, trained = restored.config.tokenizer, restored.manifest.vocabulary
    if options.tokenizer_type is None or trained.tokenizer is None:
        return None
    try:
        tokenizer = build_tokenizer(options)
    except UserError:
        return None
    same = tokenizer.identity() == trained.tokenizer and tokenizer.eod == trained.eod
    if not same:
        names = ", ".join(map(str, tokenizer.files.values()))
        print_note(f"{names} is no longer the tokenizer of the training and is left out", error=True)
    return (tokenizer, options) if same else None
