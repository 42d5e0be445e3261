"""The encoder that finetuning begins with: of one of our checkpoints, or of a Hugging Face folder."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from megatron.base.errors import UserError
from megatron.base.files import checksum
from megatron.checkpoint.load import Box, find_checkpoint, read_boxes, require_file
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import NAME, Manifest, read_manifest
from megatron.checkpoint.saved_config import saved_config
from megatron.config.config import TokenizerOptions
from megatron.config.tokenizer import in_vain
from megatron.conversion.encoders import Foreign, found_in, read_config_json
from megatron.conversion.folder import opened, tokenizer_in
from megatron.conversion.origins import Origin, origin, take
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.vocabulary import Vocabulary
from megatron.evaluation.restore import Restored, tokenizer_of
from megatron.tasks.bert import BERT_TASK

HEADS, OUTPUT = ("pair_head.", "token_head."), "pair_head.output."
"""What a source may lack: both heads, of which the last matrix is of its task."""
PADDED = ("word_embeddings.weight", "token_head.bias")
CONFIG, WEIGHTS = "config.json", "model.safetensors"
Read = Callable[[Mapping[str, Box]], Iterator[tuple[str, Tensor]]]
"""From boxes of global tensors by our names to those that are there; all but those of heads must be."""


class Source(NamedTuple):
    """An encoder before it is read. `flags`: of its shape; `options`: those that name its tokenizer;
    `fingerprint`: of its files; `answers`: of a classifier its task and the classes of its outputs, None
    where it does not say which; `classes`: what Hugging Face's calls its outputs, if it names them."""

    folder: Path
    flags: dict[str, Any]
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    options: TokenizerOptions
    fingerprint: str
    read: Read
    answers: tuple[str, ...] | None = ()
    classes: tuple[str, ...] = ()

    def classes_of(self, task: str) -> tuple[str, ...]:
        """The names of its outputs, where it is a classifier for the task and says so."""
        return self.answers[1:] if self.answers and self.answers[0] == task else self.classes

    def order_for(self, labels: tuple[str, ...]) -> list[int] | None:
        """Which of its outputs tells each label, where it has the same classes in another order; their case
        does not matter."""
        theirs, ours = ([name.casefold() for name in names] for names in (self.classes, labels))
        return [theirs.index(name) for name in ours] if theirs != ours and set(theirs) == set(ours) else None


def open_source(load: str, ckpt_step: int | None, options: TokenizerOptions) -> Source:
    """The encoder of --load. UserError where there is none, or none that is known here."""
    folder = Path(load)
    if (folder / CONFIG).is_file():
        return _of_huggingface(folder, options)
    return _of_checkpoint(load, ckpt_step, options)


def _of_checkpoint(load: str, ckpt_step: int | None, options: TokenizerOptions) -> Source:
    folder = find_checkpoint(load, ckpt_step)
    if folder is None:
        if (own := Path(load) / "model").is_dir():
            raise UserError(f"--load {load}: is of a finetuning, whose model lies below it; give {own}")
        found = made_elsewhere(load)
        raise UserError(
            f"--load {load}: holds no checkpoint and no {CONFIG}; {f'{found}; ' if found else ''}train with "
            "pretrain_bert.py first, or name a folder of Hugging Face's with config.json and "
            "model.safetensors"
        )
    manifest = read_manifest(folder)
    if manifest.task not in ("bert", "finetune"):
        raise UserError(f"{folder}: holds a {manifest.task}, no encoder; train one with pretrain_bert.py")
    config = saved_config(manifest.config, folder)
    found_tokenizer = tokenizer_of(Restored(nn.Identity(), BERT_TASK, config, manifest, folder), options)
    if found_tokenizer is None:
        raise UserError(f"{folder}: no tokenizer is kept with it; name it by --tokenizer-type and its files")
    groups = (config.model, config.bert, config.sentences)
    flags = {name: value for group in groups for name, value in dataclasses.asdict(group).items()}
    return Source(
        folder=folder,
        flags=flags | {"seq_length": config.data.seq_length},
        vocabulary=manifest.vocabulary,
        tokenizer=found_tokenizer[0],
        options=found_tokenizer[1],
        fingerprint=checksum(folder / NAME),
        read=partial(_read_checkpoint, folder, manifest),
        answers=tuple(manifest.answers),
    )


def _read_checkpoint(
    folder: Path, manifest: Manifest, boxes: Mapping[str, Box]
) -> Iterator[tuple[str, Tensor]]:
    """Of a head what the checkpoint has."""
    for name in manifest.files:
        if name.startswith("model"):
            require_file(folder, manifest, name, verify=True)
    fresh = {name for name, box in boxes.items() if not _fits(name, box, manifest)}
    yield from read_boxes(folder, manifest, {name: box for name, box in boxes.items() if name not in fresh})


def _fits(name: str, box: Box, manifest: Manifest) -> bool:
    if not name.startswith(HEADS):
        return True
    there = manifest.tensors.get(name)
    of_task = name.startswith(OUTPUT) and manifest.task == "bert"
    return there is not None and there.global_shape == box.global_shape and not of_task


def _of_huggingface(folder: Path, options: TokenizerOptions) -> Source:
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8-sig"))
        foreign = read_config_json(content)
    except UserError as error:
        raise UserError(*(f"{folder / CONFIG}: {problem}" for problem in error.problems)) from None
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{folder / CONFIG}: is no config.json of a model ({error}); bring the file again"
        ) from None
    if not (folder / WEIGHTS).is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise UserError(
            f"{folder}: has no {WEIGHTS} (it holds {held}); save the model by save_pretrained of a newer "
            "transformers, in one file"
        )
    if problems := in_vain(options, instead=f"; without it the tokenizer in {folder} is taken"):
        raise UserError(*problems)
    named = options if options.tokenizer_type else _tokenizer_in(folder)
    tokenizer = build_tokenizer(named)
    if tokenizer.vocab_size > content["vocab_size"]:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} tokens, and the model "
            f"{content['vocab_size']:,}; bring the files of one model"
        )
    return Source(
        folder=folder,
        flags=foreign.flags,
        vocabulary=Vocabulary(content["vocab_size"], tokenizer.eod, tokenizer.identity()),
        tokenizer=tokenizer,
        options=named,
        fingerprint=checksum(folder / WEIGHTS),
        read=partial(_read_huggingface, folder / WEIGHTS, foreign),
        answers=None if foreign.classifies else (),
        classes=_classes(content) if foreign.classifies else (),
    )


def _classes(content: dict[str, Any]) -> tuple[str, ...]:
    """What a config.json calls the outputs, in order; empty where it has numbers or nothing for them."""
    named = content.get("id2label")
    named = named if isinstance(named, dict) else {}
    names = tuple(str(named.get(str(number), "")) for number in range(len(named)))
    made_up = [f"LABEL_{number}" for number in range(len(names))]
    return () if list(names) == made_up or len({*names} - {""}) < len(named) else names


def _tokenizer_in(folder: Path) -> TokenizerOptions:
    """The options that name the tokenizer of a folder."""
    if (found := tokenizer_in(folder)) is not None:
        return found
    raise UserError(
        f"{folder}: has neither tokenizer.json nor vocab.txt; bring one there, or name the tokenizer by "
        "--tokenizer-type and its files"
    )


def _read_huggingface(path: Path, foreign: Foreign, boxes: Mapping[str, Box]) -> Iterator[tuple[str, Tensor]]:
    with opened(path) as file:
        found = found_in(foreign.names, file.keys())
        for name in [name for name in found if name.startswith(OUTPUT)]:
            there = tuple(file.get_slice(found[name].name).get_shape())
            if name not in boxes or there != boxes[name].global_shape:
                del found[name]  # it is of another task
        if missing := [n for n in boxes if n not in found and not n.startswith(HEADS)]:
            lacking = ", ".join(foreign.names.get(name, origin(name)).name for name in missing[:3])
            raise UserError(f"{path}: has no {lacking}; bring the weights that belong to the config.json")
        for name, box in boxes.items():
            if name in found:
                yield name, _cut(path, file.get_tensor(found[name].name), name, found[name], box)


def _cut(path: Path, theirs: Tensor, name: str, found: Origin, box: Box) -> Tensor:
    """A box of one of our tensors out of theirs; rows beyond their vocabulary are zero."""
    tensor = take(found, lambda _: theirs)
    padding = box.global_shape[0] - tensor.shape[0] if name in PADDED else 0
    if (tensor.shape[0] + padding, *tensor.shape[1:]) != box.global_shape or padding < 0:
        raise UserError(
            f"{path}: {found.name} has the shape {list(tensor.shape)}, and the config.json makes it "
            f"{list(box.global_shape)}; bring the files of one model"
        )
    whole = torch.cat([tensor, tensor.new_zeros((padding, *tensor.shape[1:]))])
    return whole[tuple(slice(start, start + size) for start, size in zip(box.offset, box.shape))]
