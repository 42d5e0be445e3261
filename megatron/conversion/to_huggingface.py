"""A checkpoint of ours written as a folder of Hugging Face's, tensor by tensor."""

import functools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from megatron.base.errors import UserError
from megatron.base.files import whole_folder
from megatron.checkpoint.contents import type_of
from megatron.checkpoint.load import Box, read_boxes
from megatron.checkpoint.manifest import Manifest
from megatron.checkpoint.saved_config import saved_config
from megatron.checkpoint.tensor_file import write_parts
from megatron.config.tokenizer import BERT_KINDS
from megatron.conversion.families import Theirs, state_content
from megatron.conversion.folder import CONFIG, INDEX, PIXELS, WEIGHTS
from megatron.conversion.origins import Piece, Shape, pieces_of, put, put_shape
from megatron.conversion.to_ours import PADDED
from megatron.conversion.vit import labels, pixels
from megatron.data.bert_files import LOWER, library_of
from megatron.data.end_of_document import config_beside
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.vocabulary import Vocabulary

TORCH_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
SHARD_BYTES = 5 * 10**9
READ_BY = {"format": "pt"}
"""What their loader asks of every file."""


class Checkpoint(NamedTuple):
    """A checkpoint and the same model as one of theirs. `dtype`: of the tensors that are written; those of
    the checkpoint where it is None."""

    folder: Path
    manifest: Manifest
    theirs: Theirs
    dtype: torch.dtype | None = None


def as_theirs(folder: Path, manifest: Manifest, dtype: torch.dtype | None = None) -> Checkpoint:
    """A checkpoint whose model they have, too. UserError where they have none that is the same."""
    config = saved_config(manifest.config, folder)
    try:
        theirs = state_content(manifest.task, config, manifest.vocabulary.size)
    except UserError as error:
        raise UserError(*(f"{folder}: {problem}" for problem in error.problems)) from None
    return Checkpoint(folder, manifest, theirs, dtype)


def write_theirs(
    checkpoint: Checkpoint,
    output: Path,
    tokenizer: Tokenizer | None,
    shard_bytes: int = SHARD_BYTES,
    advance: Callable[[int], None] = lambda size: None,
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write config.json, weights and tokenizer, whole or not at all. `advance` gets the bytes of every
    tensor that is written; `check` the folder before it comes to its place."""
    origins = checkpoint.theirs.family.names(checkpoint.theirs.flags)
    pieces = pieces_of(origins)
    like = {name: _like(checkpoint, found) for name, found in pieces.items()}
    shards = _shards(like, shard_bytes)
    with whole_folder(output) as folder:
        for file, names in shards.items():
            parts = functools.partial(_parts, checkpoint, pieces, like, advance)
            write_parts(folder / file, {name: like[name] for name in names}, parts, READ_BY)
        if len(shards) > 1:
            _write_index(folder, shards, like)
        content = checkpoint.theirs.content | _words(like, tokenizer, checkpoint.manifest.vocabulary)
        (folder / CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if tokenizer is not None:
            write_tokenizer(folder, tokenizer, checkpoint.theirs.content)
        if checkpoint.manifest.task == "vit":
            text = json.dumps(
                pixels(saved_config(checkpoint.manifest.config, checkpoint.folder).vision), indent=2
            )
            (folder / PIXELS).write_text(text + "\n", encoding="utf-8")
        check(folder)


def _like(checkpoint: Checkpoint, pieces: list[Piece]) -> Tensor:
    """Type and shape of a tensor of theirs."""
    entries = checkpoint.manifest.tensors
    if lacking := [one.mine for one in pieces if one.mine not in entries]:
        raise UserError(f"{checkpoint.folder}: is damaged: it has no {lacking[0]}; load another checkpoint")
    shapes = {one.mine: _own_shape(checkpoint.manifest, one.mine) for one in pieces}
    dtype = checkpoint.dtype or type_of(entries[pieces[0].mine])
    return torch.empty(put_shape(pieces, shapes), dtype=dtype, device="meta")


def _own_shape(manifest: Manifest, name: str) -> Shape:
    """The shape of our tensor without rows of tokens that there are not."""
    shape = manifest.tensors[name].global_shape
    return (manifest.vocabulary.size, *shape[1:]) if name in PADDED else shape


def _shards(like: Mapping[str, Tensor], most: int) -> dict[str, list[str]]:
    """Names by file: as many tensors in each as it has room for, one at least."""
    shards: list[list[str]] = [[]]
    room = most
    for name, one in like.items():
        if shards[-1] and one.nbytes > room:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= one.nbytes
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    stem = WEIGHTS.removesuffix(".safetensors")
    return {f"{stem}-{n + 1:05d}-of-{len(shards):05d}.safetensors": one for n, one in enumerate(shards)}


def _parts(
    checkpoint: Checkpoint,
    pieces: Mapping[str, list[Piece]],
    like: Mapping[str, Tensor],
    advance: Callable[[int], None],
    name: str,
) -> Iterator[Tensor]:
    def read(mine: str) -> Tensor:
        shape = _own_shape(checkpoint.manifest, mine)
        box = Box(checkpoint.manifest.tensors[mine].global_shape, (0,) * len(shape), shape)
        ((_, tensor),) = read_boxes(checkpoint.folder, checkpoint.manifest, {mine: box})
        return tensor

    yield _rounded(name, put(pieces[name], tuple(like[name].shape), read), like[name].dtype)
    advance(like[name].nbytes)


def _rounded(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in a type. UserError where numbers of it are too large for that: they would be infinite."""
    found = tensor.to(dtype)
    if found.dtype != tensor.dtype and not found.isfinite().all() and tensor.isfinite().all():
        largest = float(tensor.abs().max())
        raise UserError(
            f"--dtype: {name} has numbers up to {largest:.3g}, which {TORCH_NAMES[dtype]} cannot hold; give "
            "--dtype bf16, or leave it out"
        )
    return found


def _write_index(folder: Path, shards: Mapping[str, list[str]], like: Mapping[str, Tensor]) -> None:
    content = {
        "metadata": {"total_size": sum(one.nbytes for one in like.values())},
        "weight_map": {name: file for file, names in shards.items() for name in sorted(names)},
    }
    (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _words(like: Mapping[str, Tensor], tokenizer: Tokenizer | None, vocabulary: Vocabulary) -> dict[str, Any]:
    """What a config.json says of types, tokens and classes; older versions call the type torch_dtype."""
    largest = max(like.values(), key=lambda one: math.prod(one.shape))
    name = TORCH_NAMES.get(largest.dtype, "float32")
    end, known = (tokenizer.eod, tokenizer.vocabulary) if tokenizer else (vocabulary.eod, {})
    tokens = {"bos": _begin(tokenizer), "eos": end, "pad": tokenizer and tokenizer.pad}
    tokens |= {"cls": known.get("[CLS]"), "sep": known.get("[SEP]")}
    if classes := (vocabulary.tokenizer or {}).get("classes"):
        return {"dtype": name, "torch_dtype": name} | labels(classes)
    return {"dtype": name, "torch_dtype": name} | {f"{one}_token_id": tokens[one] for one in tokens}


def _begin(tokenizer: Tokenizer | None) -> int | None:
    """The token that begins texts by the settings beside the tokenizer's files, else the end of documents."""
    if tokenizer is None:
        return None
    source = next(iter(tokenizer.files.values()), None)
    named = config_beside(source, tokenizer.vocabulary).get("bos_token", "") if source else ""
    return tokenizer.vocabulary.get(named, tokenizer.eod)


FAST = "PreTrainedTokenizerFast"
CLASSES = {
    "HuggingFaceTokenizer": (FAST, {"tokenizer_model": "tokenizer.json"}),
    "GPT2BPETokenizer": ("GPT2Tokenizer", {"vocab_file": "vocab.json", "merge_file": "merges.txt"}),
    "SentencePieceTokenizer": ("LlamaTokenizer", {"tokenizer_model": "tokenizer.model"}),
    "GPTSentencePieceTokenizer": ("LlamaTokenizer", {"tokenizer_model": "tokenizer.model"}),
    "Llama2Tokenizer": ("LlamaTokenizer", {"tokenizer_model": "tokenizer.model"}),
}
"""Their class of every kind of tokenizer, and the names that it wants the files to have."""


def write_tokenizer(folder: Path, tokenizer: Tokenizer, content: Mapping[str, Any]) -> None:
    """The files of the tokenizer by the names that AutoTokenizer looks for; none where it knows no such
    kind."""
    positions = content.get("max_position_embeddings", content.get("n_positions"))
    usual: dict[str, Any] = {"model_max_length": positions}
    source = next(iter(tokenizer.files.values()), Path())
    if tokenizer.kind in BERT_KINDS:  # its file may be either of two
        library, _ = library_of(source, tokenizer.kind == LOWER)
        library.save(str(folder / "tokenizer.json"))
        named = ("cls", "sep", "pad", "mask", "unk")
        usual |= {"tokenizer_class": FAST} | {f"{name}_token": f"[{name.upper()}]" for name in named}
    elif tokenizer.kind in CLASSES:
        name, files = CLASSES[tokenizer.kind]
        for flag, file in files.items():
            shutil.copyfile(tokenizer.files[flag], folder / file)
        usual |= {"tokenizer_class": name, "eos_token": tokenizer.end.name}
        if name == "LlamaTokenizer":  # which begins texts with <s> unless told otherwise
            usual |= {"add_bos_token": tokenizer.kind == "Llama2Tokenizer" or bool(tokenizer.around)}
    else:
        return
    beside = source.with_name("tokenizer_config.json")
    words: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8-sig")) if beside.is_file() else {}
    if tokenizer.kind in BERT_KINDS:
        words.pop("tokenizer_class", None)
    text = json.dumps(usual | words, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
