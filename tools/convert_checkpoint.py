"""Convert a checkpoint to or from a folder of Hugging Face's, or from Megatron-LM's, tensor by tensor on the
CPU. The logits of both are compared before it is done, but for Megatron-LM's, which need its own code."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron.base.errors import UserError, collect_problems
from megatron.base.folders import or_nearest
from megatron.base.terminal import progress
from megatron.checkpoint.contents import kind_of, size_of
from megatron.checkpoint.load import find_checkpoint, require_file
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import NAME, Manifest, read_manifest
from megatron.checkpoint.save import LATEST
from megatron.config.arguments import parse, unused_flags
from megatron.config.config import TokenizerOptions
from megatron.config.flags import NEWEST, flag, spelling
from megatron.config.other_converters import FOREIGN
from megatron.config.tokenizer import in_vain
from megatron.conversion.families import Theirs, lost_tokens
from megatron.conversion.folder import CONFIG, open_folder, tokenizer_in
from megatron.conversion.from_huggingface import source_of
from megatron.conversion.megatron_lm import open_checkpoint
from megatron.conversion.to_huggingface import as_theirs, write_theirs
from megatron.conversion.to_ours import Source, Target, configuration, vocabulary_of, write_ours
from megatron.data.tokenizer import build_tokenizer, describe_identity
from megatron.data.tokenizer_files import kept_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.vocabulary import Vocabulary, few_tokens
from megatron.evaluation.same_logits import compare_logits, require_room, require_transformers
from megatron.tasks.tasks import TASKS
from megatron.train.memory_estimate import free_memory

EXAMPLES = """\
  GPT-2 of Hugging Face's as a checkpoint, and then trained on
    python tools/convert_checkpoint.py --from hf --to megatron --input gpt2 --output runs/gpt2
    python pretrain_gpt.py --load runs/gpt2 --finetune --use-checkpoint-args --data-path my_text_document ...
  the newest checkpoint of a run as a folder that transformers loads
    python tools/convert_checkpoint.py --from megatron --to hf --input runs/my --output runs/my_hf
  a GPT of Megatron-LM's, in mp_rank_ folders or torch_dist
    python tools/convert_checkpoint.py --from megatron-lm --to megatron --input theirs --output runs/theirs \\
      --tokenizer-type GPT2BPETokenizer --vocab-file vocab.json --merge-file merges.txt
  in files for 4 tensor and 2 pipeline ranks; any other layout reads them as well
    python tools/convert_checkpoint.py --from hf --to megatron --input llama --output runs/llama \\
      --target-tensor-parallel-size 4 --target-pipeline-parallel-size 2"""
INPUTS, OUTPUTS = ("hf", "megatron", "megatron-lm"), ("hf", "megatron")
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Options:
    from_: str = flag(help="what the input is; megatron is a checkpoint of ours", choices=INPUTS)
    to: str = flag(help="what the output is to be", choices=OUTPUTS)
    input: str = flag(
        help="folder of Hugging Face's, or folder of checkpoints",
        metavar="FOLDER",
        aliases=("--load-dir", "--load-path"),
    )
    output: str = flag(help="new folder", metavar="FOLDER", aliases=("--save-dir", "--save-path"))
    tokenizer: TokenizerOptions
    ckpt_step: int | None = flag(None, "step of the checkpoint; the newest", otherwise=NEWEST)
    target_tensor_parallel_size: int = flag(
        1,
        "tensor ranks whose files are written",
        at_least=1,
        aliases=("--target-tensor-model-parallel-size",),
    )
    target_pipeline_parallel_size: int = flag(
        1,
        "pipeline ranks whose files are written",
        at_least=1,
        aliases=("--target-pipeline-model-parallel-size",),
    )
    dtype: str | None = flag(None, "type of the weights in their folder; as they are here", choices=(*TYPES,))
    max_shard_size: float = flag(
        5.0,
        "GB of one file of weights in their folder",
        above=0,
        metavar="GB",
        otherwise="give GB without their unit, such as 5, and 0.5 for 500 MB",
    )
    no_verify: bool = flag(False, "do not compare logits, which takes memory for the model in fp32")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__ or "", examples=EXAMPLES, foreign=FOREIGN)
    for line in unused_flags(Options, sys.argv[1:], FOREIGN):
        print(f"note: {line}", file=sys.stderr)
    problems: list[str] = []
    for require in (_require_sides, _require_input, _require_new, _require_tokenizer, _require_to_compare):
        with collect_problems(problems):
            require(options)
    if problems:
        raise UserError(*problems)
    if options.to == "hf":
        _to_huggingface(options)
    elif options.from_ == "hf":
        _from_huggingface(options)
    else:
        _from_megatron_lm(options)


def _require_to_compare(options: Options) -> None:
    """UserError where logits cannot be compared. Those of Megatron-LM, which need its own code, are not."""
    if not options.no_verify and options.from_ != "megatron-lm":
        require_transformers()


def _require_sides(options: Options) -> None:
    if options.from_ == options.to:
        raise UserError(f"--from {options.from_} --to {options.to}: nothing is to be converted; change one")
    if (options.from_, options.to) == ("megatron-lm", "hf"):
        raise UserError(
            "--from megatron-lm --to hf: takes two steps; convert --to megatron first, and that --to hf"
        )
    for name in ("target_tensor_parallel_size", "target_pipeline_parallel_size"):
        if options.to == "hf" and getattr(options, name) != 1:
            raise UserError(f"{spelling(name)}: Hugging Face's folders have no ranks; leave it out")
    if options.to == "megatron" and options.dtype:
        raise UserError("--dtype: our checkpoints keep the type of the input; leave it out")


def _require_input(options: Options) -> None:
    """UserError where the input is no folder, or what --from says is not what it holds."""
    folder = Path(options.input)
    if folder.is_file():
        raise UserError(f"--input {folder}: is a file; name the folder in which it lies, {folder.parent}")
    if not folder.is_dir():
        fetched = "hf download MODEL --local-dir FOLDER fetches one of the hub's"
        raise UserError(
            f"--input {folder}: is no folder on this machine{or_nearest(options.input)}"
            + (f"; {fetched}" if options.from_ == "hf" else "")
        )
    theirs = (folder / CONFIG).is_file()
    ours = (folder / NAME).is_file() or any(folder.glob(f"iter_*/{NAME}"))
    if ours and (options.from_ == "megatron-lm" or (options.from_ == "hf" and not theirs)):
        found = f"{folder} holds checkpoints of ours"
        raise UserError(f"--from {options.from_}: {found}; give --from megatron --to hf")
    elsewhere = made_elsewhere(folder) if (folder / LATEST).is_file() else ""
    if options.from_ == "hf" and elsewhere and not theirs:
        raise UserError(f"--from hf: {folder}: {elsewhere}")
    if options.from_ != "hf" and theirs and not ours and not elsewhere:
        raise UserError(f"--from {options.from_}: {folder} holds Hugging Face's {CONFIG}; give --from hf")


def _require_new(options: Options) -> None:
    """UserError where something lies at the target already."""
    target = Path(options.output)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(f"--output {options.output}: something is there already; name a new folder")


def _require_tokenizer(options: Options) -> None:
    """UserError where flags of a tokenizer do nothing. The end of documents can be named of a tokenizer that
    lies in a folder of Hugging Face's."""
    alone = ("eod_token",) if options.from_ == "hf" else ()
    if problems := in_vain(options.tokenizer, alone, "; without it the tokenizer of the input is taken"):
        raise UserError(*problems)


def _from_huggingface(options: Options) -> None:
    folder = open_folder(options.input)
    source, named = source_of(folder), options.tokenizer
    found = named if named.tokenizer_type else tokenizer_in(folder.path)
    if found and named.eod_token and not named.tokenizer_type:
        found = dataclasses.replace(found, eod_token=named.eod_token)
    ends = folder.theirs.content.get("eos_token_id")
    end = ends[0] if isinstance(ends, list) and ends else ends  # others end turns of a talk
    end = end if isinstance(end, int) and end < source.vocab_size else None  # some name a token they lack
    check = _check(options, source.parameters, lambda ours: _compared(folder.theirs, ours, folder.path))
    _write(options, source, found, end, check, lost_tokens(folder.theirs))


def _from_megatron_lm(options: Options) -> None:
    source, named = open_checkpoint(options.input, options.ckpt_step), options.tokenizer
    _write(options, source, named if named.tokenizer_type else None, None, lambda written: None)


def _write(
    options: Options,
    source: Source,
    named: TokenizerOptions | None,
    end: int | None,
    check: Callable[[Path], None],
    lost: str = "",
) -> None:
    """Write a checkpoint of ours, with the tokenizer that is named, and say how to go on. `end`: of documents
    where there is none, and `lost` what is not kept then, in words."""
    sizes = options.target_tensor_parallel_size, options.target_pipeline_parallel_size
    vocabulary = _vocabulary(source, named, end, lost)
    task = TASKS[source.task]
    target = Target(configuration(source, task.given, task.rules, *sizes), vocabulary, named, *sizes)
    with progress("converting", source.bytes, "MB", 1e6) as advance:
        place = write_ours(source, Path(options.output), target, task.build_model, advance, check)
    print(f"wrote {place}: a {source.task} of {source.parameters:,} parameters")
    length = "" if source.task == "vit" else "--seq-length, "
    print(
        f"train it on by pretrain_{source.task}.py --load {options.output} --finetune --use-checkpoint-args, "
        f"with {length}data and schedule of your own"
    )


def _vocabulary(source: Source, named: TokenizerOptions | None, end: int | None, lost: str) -> Vocabulary:
    """The tokens of the model, or its classes; a note where no tokenizer is named. UserError where it has
    more of them."""
    if source.classes:
        return Vocabulary(source.vocab_size, None, {"classes": source.classes})
    if named is None:
        print(
            f"note: no tokenizer lies beside {source.path}; name one by --tokenizer-type and its files, so "
            f"that it is kept with the checkpoint{lost}",
            file=sys.stderr,
        )
        return Vocabulary(source.vocab_size, end, None)
    tokenizer = build_tokenizer(named)
    for line in few_tokens(tokenizer.vocab_size, source.vocab_size):
        print(f"note: {line}", file=sys.stderr)
    return vocabulary_of(source, tokenizer)


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
    weights = [one for name, one in manifest.tensors.items() if kind_of(name) == "weights"]
    count, total = sum(math.prod(one.global_shape) for one in weights), sum(map(size_of, weights))
    check = _check(
        options, count, lambda written: _compared(checkpoint.theirs, folder, written, checkpoint.dtype)
    )
    _verify(folder, manifest)
    with progress("converting", total, "MB", 1e6) as advance:
        write_theirs(
            checkpoint, Path(options.output), tokenizer, int(options.max_shard_size * 1e9), advance, check
        )
    print(
        f"wrote {options.output}: a {checkpoint.theirs.family.architecture}"
        + ("" if tokenizer or manifest.task == "vit" else "; no tokenizer is known, so bring its files")
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
    require_room(parameters, free_memory(torch.device("cpu")))
    return lambda written: print(compare(written), flush=True)


def _compared(theirs: Theirs, ours: Path, hers: Path, rounded: torch.dtype | None = None) -> str:
    found = compare_logits(ours, hers, theirs, rounded)
    return (
        f"{found.logits:,} logits differ by {found.difference:.1e} at most, where the largest is "
        f"{found.largest:.3g}"
    )


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
