"""The GPT that language modelling begins with: a checkpoint of ours, or a folder of Hugging Face's, which
becomes one in a cache."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from torch import nn

from megatron.base.errors import UserError
from megatron.base.files import checksum, wait_for
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import NAME, read_manifest
from megatron.checkpoint.saved_config import saved_config
from megatron.config.config import Config, TokenizerOptions
from megatron.config.tokenizer import in_vain
from megatron.conversion.folder import CONFIG, Folder, open_folder, tokenizer_in
from megatron.conversion.from_huggingface import source_of
from megatron.conversion.to_ours import Target, configuration, vocabulary_of, write_ours
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.vocabulary import Vocabulary
from megatron.evaluation.restore import Restored, tokenizer_of
from megatron.tasks.gpt import GPT_TASK


class Base(NamedTuple):
    """A GPT before it is read. `root`, `step`: where its checkpoint lies; `config`: of its training;
    `fingerprint`: of its files."""

    root: str
    step: int | None
    config: Config
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    options: TokenizerOptions
    fingerprint: str


def open_base(load: str, step: int | None, options: TokenizerOptions, cache: Path) -> Base:
    """The GPT of --load. UserError where there is none that is known."""
    fingerprint = ""
    if (Path(load) / CONFIG).is_file():
        load, fingerprint = _converted(load, options, cache)
        step, options = None, TokenizerOptions()  # its tokenizer is kept beside it
    folder = find_checkpoint(load, step)
    if folder is None:
        found = made_elsewhere(load)
        raise UserError(
            f"--load {load}: holds no checkpoint and no {CONFIG}; {f'{found}; ' if found else ''}train with "
            "pretrain_gpt.py first, or name a folder of Hugging Face's with config.json and safetensors"
        )
    manifest = read_manifest(folder)
    if manifest.task != GPT_TASK.name:
        raise UserError(f"{folder}: holds a {manifest.task}, no GPT; train one with pretrain_gpt.py")
    config = saved_config(manifest.config, folder)
    found_tokenizer = tokenizer_of(Restored(nn.Identity(), GPT_TASK, config, manifest, folder), options)
    if found_tokenizer is None:
        raise UserError(f"{folder}: no tokenizer is kept with it; name it by --tokenizer-type and its files")
    return Base(
        load, step, config, manifest.vocabulary, *found_tokenizer, fingerprint or checksum(folder / NAME)
    )


def _converted(load: str, options: TokenizerOptions, cache: Path) -> tuple[str, str]:
    """A checkpoint of the weights of a folder of Hugging Face's, in the cache, and what they are known by."""
    folder = open_folder(load)
    if folder.theirs.family.task != GPT_TASK.name:
        raise UserError(
            f"{load}: holds a {folder.theirs.family.architecture}, and --task lm needs a GPT; name one"
        )
    if problems := in_vain(options, instead=f"; without it the tokenizer in {load} is taken"):
        raise UserError(*problems)
    named = options if options.tokenizer_type else tokenizer_in(folder.path)
    if named is None:
        raise UserError(f"{load}: no tokenizer lies there; name it by --tokenizer-type and its files")
    tokenizer = build_tokenizer(named)
    words = [checksum(path) for path in _files_of(folder)]
    fingerprint = hashlib.sha256(f"{words} {tokenizer.identity()} {tokenizer.eod}".encode()).hexdigest()
    root = cache / f"gpt-{fingerprint[:16]}"
    with wait_for(cache / ".lock"):
        if not root.is_dir():
            source = source_of(folder)
            given = configuration(source, GPT_TASK.given, GPT_TASK.rules, 1, 1)
            target = Target(given, vocabulary_of(source, tokenizer), named)
            write_ours(source, root, target, GPT_TASK.build_model)
            print(f"wrote {root}: the weights of {load} as a checkpoint", flush=True)
    return str(root), fingerprint


def _files_of(folder: Folder) -> list[Path]:
    return [folder.path / CONFIG, *sorted({one.file for one in folder.tensors.values()})]
