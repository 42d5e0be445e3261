"""Merge indexed datasets into one, by streaming copies."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import glob
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from megatron.base.errors import UserError, collect_problems
from megatron.base.files import require_room
from megatron.base.folders import list_folder
from megatron.base.terminal import progress
from megatron.config.arguments import parse, unused_flags
from megatron.config.flags import flag
from megatron.config.foreign import Foreign, is_our
from megatron.config.values import converts
from megatron.data.corpora import open_source
from megatron.data.index_builder import IndexedDatasetBuilder, existing_dataset, wider
from megatron.data.tokenizer import describe_maker

EXAMPLES = """\
  python tools/merge_datasets.py --input data/a_text_document data/b_text_document \\
      --output-prefix data/ab_text_document
  python tools/merge_datasets.py --input shards/ --output-prefix data/all_text_document
      merges all datasets of the folder, in the order of their names"""

EQUAL_FACTS = ("tokenizer", "vocab_size", "eod", "append_eod", "sentences")
HOLDS = ("whole documents", "sentences")
FOREIGN = {
    "multimodal": Foreign((), "multimodal datasets are not supported"),
    "datasets": Foreign(None, "it is another word for a flag of ours", ours=is_our("input")),
    "dataset-impl": Foreign(("mmap",), "there is one format, read through memory maps"),
    **dict.fromkeys(
        ("tokenizer-type", "tokenizer-model", "tokenizer-name-or-path", "vocab", "vocab-file", "merge-file"),
        Foreign(None, "the .json files of the datasets say which tokenizer made them"),
    ),
}


@dataclass(frozen=True)
class Options:
    input: tuple[str, ...] = flag(
        help="prefixes of datasets, globs of them, or folders that hold some",
        metavar="PREFIX",
        of_several="give all behind one --input",
    )
    output_prefix: str = flag(help="prefix of the merged dataset")
    overwrite: bool = flag(False, "replace a dataset that is there already")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES, foreign=FOREIGN)
    for line in unused_flags(Options, sys.argv[1:], FOREIGN):
        print(line)
    if weights := [given for given in options.input if is_weight(given)]:
        raise UserError(
            f"--input {' '.join(weights)}: a merge takes all of every dataset, without weights; leave them "
            "out, or give weights and prefixes to training as --data-path"
        )
    prefixes = [prefix for given in options.input for prefix in find_prefixes(given)]
    if os.path.realpath(options.output_prefix) in map(os.path.realpath, prefixes):
        raise UserError(f"--output-prefix {options.output_prefix} is one of the inputs; choose another")
    problems = [] if options.overwrite else existing_dataset(options.output_prefix)
    parts: dict[str, Part] = {}
    for prefix in dict.fromkeys(prefixes):
        with collect_problems(problems):
            parts[prefix] = check(prefix)
    if problems:
        raise UserError(*problems)
    sidecar = merged_sidecar({prefix: part.sidecar for prefix, part in parts.items()}, prefixes)
    dtype = one_type(parts)
    size = sum(parts[prefix].size for prefix in prefixes)
    room = sum(parts[prefix].size // parts[prefix].dtype.itemsize for prefix in prefixes) * dtype.itemsize
    require_room(options.output_prefix, room, "the merged dataset")
    told = progress("merging", size, "MB", 1e6)
    with IndexedDatasetBuilder(options.output_prefix, dtype) as builder, told as advance:
        for prefix in prefixes:
            builder.add_index(prefix)
            advance(parts[prefix].size)
        builder.sidecar = sidecar
    print(
        f"{options.output_prefix}: {builder.documents:,} documents, {builder.tokens:,} tokens of "
        f"{len(prefixes)} datasets"
    )


def is_weight(given: str) -> bool:
    """Whether a word is a number, and no dataset has that name."""
    return converts(given, float) and not os.path.exists(f"{given}.idx") and not os.path.isdir(given)


def find_prefixes(given: str) -> list[str]:
    """A prefix itself, those that a glob in quotes matches, or those of all datasets below a folder;
    sorted."""
    if not os.path.isdir(given):
        found = [] if os.path.exists(f"{given}.idx") else sorted(glob.glob(f"{given}.idx", recursive=True))
        return [path.removesuffix(".idx") for path in found] or [given]
    files = list_folder(given, lambda path: "" if path.endswith((".bin", ".idx")) else None)
    if not files:
        raise UserError(
            f"--input {given}: the folder holds no dataset; give prefixes, or a folder with .bin and .idx "
            "files"
        )
    return sorted({path[: -len(".bin")] for path in files})


class Part(NamedTuple):
    """A dataset to merge: its type, bytes of its tokens, and what its .json says."""

    dtype: np.dtype
    size: int
    sidecar: dict[str, Any] | None


def check(prefix: str) -> Part:
    """Look through a dataset's whole index, and close it again. UserError where it is damaged."""
    dataset, _, sidecar = open_source(prefix, allow_trailing_bytes=False)
    dataset.validate()
    return Part(dataset.dtype, dataset.tokens.nbytes, sidecar)


def merged_sidecar(sidecars: dict[str, dict[str, Any] | None], prefixes: list[str]) -> dict[str, Any] | None:
    """What can be said of all datasets together, one that stands several times in `prefixes` counted as
    often; None where none says anything. UserError where they do not go together."""
    known = {prefix: sidecar for prefix, sidecar in sidecars.items() if sidecar}
    if not known:
        return None
    if silent := [prefix for prefix in sidecars if prefix not in known]:
        raise UserError(
            f"{silent[0]}: has no .json that says what made it, and {next(iter(known))} has; "
            "preprocess it with this tool, or move the .json files of all inputs away to merge without them"
        )
    name, first = next(iter(known.items()))
    for other, sidecar in known.items():
        if bool(sidecar.get("sentences")) != bool(first.get("sentences")):
            kinds = [HOLDS[bool(one.get("sentences"))] for one in (sidecar, first)]
            raise UserError(
                f"{other} holds {kinds[0]} and {name} {kinds[1]}; preprocess both with --split-sentences, or "
                "neither"
            )
        for fact in EQUAL_FACTS:
            if sidecar.get(fact) != first.get(fact):
                theirs, ours = (
                    describe_maker(one) if fact == "tokenizer" else one.get(fact) for one in (sidecar, first)
                )
                raise UserError(f"{other} and {name} differ in {fact}: {theirs} and {ours}; make them alike")
    sums = {
        fact: sum(known[prefix].get(fact, 0) for prefix in prefixes)
        for fact in ("text_bytes", "bad_lines_skipped")
    }
    cuts = [int(sidecar.get("max_sequence_length") or 0) for sidecar in known.values()]
    cut = max(cuts) if all(cuts) else None  # one that is not cut may hold sequences of any length
    return first | sums | {"shuffle_seed": None, "max_sequence_length": cut}


def one_type(parts: dict[str, Part]) -> np.dtype:
    """The type of the tokens of all parts, which by their .json files are of one tokenizer: the wider one
    where they differ. UserError where they do, and no .json says so."""
    name, first = next(iter(parts.items()))
    found = first.dtype
    for other, part in parts.items():
        wide = found if part.dtype == found else wider(found, part.dtype)
        if wide is None or (part.dtype != first.dtype and part.sidecar is None):
            raise UserError(
                f"{other} holds {part.dtype.name} tokens and {name} {first.dtype.name}, and no .json says "
                "that one tokenizer made both; preprocess the texts of both anew with one"
            )
        found = wide
    return found


if __name__ == "__main__":
    run_command(main)
