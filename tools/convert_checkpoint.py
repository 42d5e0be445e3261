"""Convert a checkpoint to or from a folder of Hugging Face's, tensor by tensor on the CPU, and compare the
logits of both before it is done."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron.base.errors import UserError, collect_problems
from megatron.base.terminal import progress
from megatron.checkpoint.contents import kind_of
from megatron.checkpoint.load import find_checkpoint, made_elsewhere, require_file
from megatron.checkpoint.manifest import Manifest, read_manifest
from megatron.config.arguments import flag, parse
from megatron.config.config import TokenizerOptions
from megatron.conversion.families import Theirs
from megatron.conversion.folder import Folder, open_folder, tokenizer_in
from megatron.conversion.from_huggingface import Target, configuration, matched, write_ours
from megatron.conversion.to_huggingface import as_theirs, write_theirs
from megatron.conversion.verify import compare_logits, require_room, require_transformers
from megatron.data.tokenizer import build_tokenizer, describe_identity
from megatron.data.tokenizer_files import kept_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.vocabulary import Vocabulary

EXAMPLES = """\
  GPT-2 of Hugging Face's as a checkpoint, and then trained on
    python tools/convert_checkpoint.py --from hf --to megatron --input gpt2 --output runs/gpt2
    python pretrain_gpt.py --load runs/gpt2 --finetune --use-checkpoint-args --data-path my_text_document ...
  the newest checkpoint of a run as a folder that transformers loads
    python tools/convert_checkpoint.py --from megatron --to hf --input runs/my --output my_hf
  in files for 4 tensor and 2 pipeline ranks; any other layout reads them as well
    python tools/convert_checkpoint.py --from hf --to megatron --input llama --output runs/llama \\
      --target-tensor-parallel-size 4 --target-pipeline-parallel-size 2"""
SIDES = ("hf", "megatron")
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Options:
    from_: str = flag(help="what the input is", choices=SIDES)
    to: str = flag(help="what the output is to be", choices=SIDES)
    input: str = flag(
        help="folder of Hugging Face's, or folder of checkpoints of ours",
        metavar="FOLDER",
        aliases=("--load-dir",),
    )
    output: str = flag(help="new folder", metavar="FOLDER", aliases=("--save-dir",))
    tokenizer: TokenizerOptions
    ckpt_step: int | None = flag(None, "step of our checkpoint; the newest")
    target_tensor_parallel_size: int = flag(1, "tensor ranks whose files are written", at_least=1)
    target_pipeline_parallel_size: int = flag(1, "pipeline ranks whose files are written", at_least=1)
    dtype: str | None = flag(None, "type of the weights in their folder; as they are here", choices=(*TYPES,))
    max_shard_size: float = flag(5.0, "GB of one file of weights in their folder", above=0)
    no_verify: bool = flag(False, "do not compare logits, which takes memory for the model in fp32")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__ or "", examples=EXAMPLES)
    problems: list[str] = []
    with collect_problems(problems):
        _require_sides(options)
    with collect_problems(problems):
        _require_new(options.output)
    if not options.no_verify:
        with collect_problems(problems):
            require_transformers()
    if problems:
        raise UserError(*problems)
    if options.from_ == "hf":
        _from_huggingface(options)
    else:
        _to_huggingface(options)


def _require_sides(options: Options) -> None:
    if options.from_ == options.to:
        raise UserError(f"--from {options.from_} --to {options.to}: nothing is to be converted; change one")
    ours = {"target_tensor_parallel_size": 1, "target_pipeline_parallel_size": 1}
    for name in ours if options.to == "hf" else ():
        if getattr(options, name) != 1:
            raise UserError(f"--{name.replace('_', '-')}: Hugging Face's folders have no ranks; leave it out")
    if options.to == "megatron" and options.dtype:
        raise UserError("--dtype: our checkpoints keep the type of the input; leave it out")


def _require_new(output: str) -> None:
    """UserError where something lies at the target already."""
    target = Path(output)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(f"--output {output}: something is there already; name a new folder")


def _from_huggingface(options: Options) -> None:
    folder = open_folder(options.input)
    origins = matched(folder)
    tokenizer, named = _tokenizer_in(folder, options.tokenizer)
    content, task = folder.theirs.content, folder.theirs.family.task
    identity = tokenizer.identity() if tokenizer else None
    vocabulary = Vocabulary(content["vocab_size"], _end(content, tokenizer), identity)
    sizes = options.target_tensor_parallel_size, options.target_pipeline_parallel_size
    target = Target(configuration(folder, *sizes), vocabulary, named, *sizes)
    parts = [folder.tensors[name] for name in {name for one in origins.values() for name in one.names}]
    count = sum(math.prod(one.shape) for one in parts)
    total = sum(one.dtype.itemsize * math.prod(one.shape) for one in parts)
    check = _check(options, count, lambda written: _compared(folder.theirs, written, folder.path))
    with progress("converting", total, "MB", 1e6) as advance:
        place = write_ours(folder, Path(options.output), target, advance, check)
    print(f"wrote {place}: a {content['model_type']} of {count:,} parameters")
    print(
        f"train it on by pretrain_{task}.py --load {options.output} --finetune --use-checkpoint-args, with "
        "--seq-length, data and schedule of your own"
    )


def _to_huggingface(options: Options) -> None:
    folder = find_checkpoint(options.input, options.ckpt_step)
    if folder is None:
        found = made_elsewhere(options.input)
        raise UserError(
            f"--input {options.input}: holds no checkpoint{f'; {found}' if found else ''}; name a folder of "
            "--save"
        )
    manifest = read_manifest(folder)
    checkpoint = as_theirs(folder, manifest, TYPES.get(options.dtype or ""))
    tokenizer = _tokenizer_kept(folder, manifest, options.tokenizer)
    sizes = {
        name: math.prod(one.global_shape)
        for name, one in manifest.tensors.items()
        if kind_of(name) == "weights"
    }
    check = _check(
        options, sum(sizes.values()), lambda written: _compared(checkpoint.theirs, folder, written)
    )
    _verify(folder, manifest)
    with progress("converting", sum(sizes.values()) * 4, "MB", 1e6) as advance:
        write_theirs(
            checkpoint, Path(options.output), tokenizer, int(options.max_shard_size * 1e9), advance, check
        )
    print(
        f"wrote {options.output}: a {checkpoint.theirs.family.architecture}"
        + ("" if tokenizer else "; no tokenizer is known, so bring its files")
    )


def _verify(folder: Path, manifest: Manifest) -> None:
    """Compare the checksums of the weights; UserError where one differs."""
    for name in manifest.files:
        if name.startswith("model"):
            require_file(folder, manifest, name, verify=True)


def _check(options: Options, parameters: int, compare: Callable[[Path], str]) -> Callable[[Path], None]:
    """What is done before the output is whole. UserError where there is no room for it."""
    if options.no_verify:
        return lambda written: None
    require_room(parameters)
    return lambda written: print(compare(written), flush=True)


def _compared(theirs: Theirs, ours: Path, hers: Path) -> str:
    found = compare_logits(ours, hers, theirs)
    return (
        f"the logits of {found.tokens} tokens differ by {found.difference:.1e} at most, where the largest is "
        f"{found.largest:.3g}"
    )


def _tokenizer_in(
    folder: Folder, flags: TokenizerOptions
) -> tuple[Tokenizer | None, TokenizerOptions | None]:
    """The tokenizer of the flags, or of their folder, and the options that name it; nothing, with a note,
    where there is none."""
    options = flags if flags.tokenizer_type else tokenizer_in(folder.path)
    if options is None:
        print(
            f"note: {folder.path} holds no tokenizer; name one by --tokenizer-type and its files, so that it "
            "is kept with the checkpoint",
            file=sys.stderr,
        )
        return None, None
    if flags.eod_token and not flags.tokenizer_type:
        options = dataclasses.replace(options, eod_token=flags.eod_token)
    tokenizer, known = build_tokenizer(options), folder.theirs.content["vocab_size"]
    if tokenizer.vocab_size > known:
        raise UserError(
            f"{folder.path}: the tokenizer has {tokenizer.vocab_size:,} tokens, and the model {known:,}; "
            "bring the files of one model"
        )
    return tokenizer, options


def _end(content: Mapping[str, Any], tokenizer: Tokenizer | None) -> int | None:
    """The token that ends documents: of the tokenizer, or else the one that the config.json names."""
    named = content.get("eos_token_id")
    return tokenizer.eod if tokenizer else named if isinstance(named, int) else None


def _tokenizer_kept(folder: Path, manifest: Manifest, flags: TokenizerOptions) -> Tokenizer | None:
    """The tokenizer of the flags, or the one that is kept with the checkpoint."""
    options = flags if flags.tokenizer_type else kept_tokenizer(folder.parent, manifest.vocabulary)
    if options is None:
        return None
    tokenizer, trained = build_tokenizer(options), manifest.vocabulary.tokenizer
    if trained is not None and trained != tokenizer.identity():
        raise UserError(
            f"the model was trained with {describe_identity(trained)}, and the flags name "
            f"{describe_identity(tokenizer.identity(), vars(flags))}; leave the flags out"
        )
    return tokenizer


if __name__ == "__main__":
    run_command(main)
