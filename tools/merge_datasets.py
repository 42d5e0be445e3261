"""Merge indexed datasets into one, by streaming copies."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.base.errors import UserError
from megatron.base.terminal import progress
from megatron.config.arguments import flag, parse
from megatron.config.other_megatrons import Foreign
from megatron.data.index_builder import IndexedDatasetBuilder
from megatron.data.indexed_dataset import IndexedDataset, read_sidecar
from megatron.data.tokenizer import describe_identity

EXAMPLES = """\
  python tools/merge_datasets.py --input data/a_text_document data/b_text_document \\
      --output-prefix data/ab_text_document
  python tools/merge_datasets.py --input shards/ --output-prefix data/all_text_document
      merges all datasets of the folder, in the order of their names"""

EQUAL_FACTS = ("tokenizer", "vocab_size", "eod", "append_eod")
FOREIGN = {"multimodal": Foreign((), "multimodal datasets are not supported")}


@dataclass(frozen=True)
class Options:
    input: tuple[str, ...] = flag(help="prefixes of datasets, or folders that hold some", metavar="PREFIX")
    output_prefix: str = flag(help="prefix of the merged dataset")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES, foreign=FOREIGN)
    prefixes = [prefix for given in options.input for prefix in find_prefixes(given)]
    if os.path.abspath(options.output_prefix) in map(os.path.abspath, prefixes):
        raise UserError(f"--output-prefix {options.output_prefix} is one of the inputs; choose another")
    datasets = [IndexedDataset(prefix) for prefix in prefixes]
    sidecar = merged_sidecar(prefixes)
    _require_one_type(datasets)
    told = progress("merging", sum(dataset.tokens.nbytes for dataset in datasets), "MB", 1e6)
    with IndexedDatasetBuilder(options.output_prefix, datasets[0].dtype) as builder, told as advance:
        for dataset in datasets:
            builder.add_index(dataset.prefix)
            advance(dataset.tokens.nbytes)
        builder.sidecar = sidecar
    print(
        f"{options.output_prefix}: {builder.documents:,} documents, {builder.tokens:,} tokens of "
        f"{len(datasets)} datasets"
    )


def find_prefixes(given: str) -> list[str]:
    """A prefix itself, or those of all datasets in a folder, sorted."""
    if not os.path.isdir(given):
        return [given]
    found = sorted(str(path.with_suffix("")) for path in Path(given).glob("*.idx"))
    if not found:
        raise UserError(
            f"--input {given}: the folder holds no dataset; give prefixes, or a folder with .bin and .idx "
            "files"
        )
    return found


def merged_sidecar(prefixes: list[str]) -> dict[str, Any] | None:
    """What can be said of all datasets together; None where none says anything. UserError where they do
    not go together."""
    sidecars = {prefix: read_sidecar(prefix) for prefix in prefixes}
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
        for fact in EQUAL_FACTS:
            if sidecar.get(fact) != first.get(fact):
                words = describe_identity if fact == "tokenizer" else str
                raise UserError(
                    f"{other} and {name} differ in {fact}: {words(sidecar.get(fact))} and "
                    f"{words(first.get(fact))}; make them alike"
                )
    sums = {
        fact: sum(sidecar.get(fact, 0) for sidecar in known.values())
        for fact in ("text_bytes", "bad_lines_skipped")
    }
    return first | sums | {"shuffle_seed": None}


def _require_one_type(datasets: list[IndexedDataset]) -> None:
    for dataset in datasets:
        if dataset.dtype != datasets[0].dtype:
            raise UserError(
                f"{dataset.prefix} holds {dataset.dtype.name} tokens and {datasets[0].prefix} "
                f"{datasets[0].dtype.name}; "
                "make both with one tokenizer"
            )


if __name__ == "__main__":
    run_command(main)
