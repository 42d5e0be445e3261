"""Show what an indexed dataset holds, and check it."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from megatron.base.errors import UserError
from megatron.base.terminal import show
from megatron.config.arguments import parse
from megatron.config.config import TokenizerOptions
from megatron.config.flags import flag
from megatron.config.tokenizer import in_vain
from megatron.data.corpora import open_source
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.tokenizer import Tokenizer, build_tokenizer, describe_identity, describe_maker

EXAMPLES = """\
  python tools/inspect_data.py --data-path data/corpus_text_document --validate
  python tools/inspect_data.py --data-path data/corpus_text_document --samples 3 \\
      --tokenizer-type HuggingFaceTokenizer --tokenizer-model tokenizer.json"""

QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
SAMPLE_TOKENS = 60
CHUNK = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Options:
    data_path: str = flag(help="prefix of the .bin and .idx files")
    tokenizer: TokenizerOptions
    samples: int = flag(0, "documents to show, evenly spread", at_least=0)
    validate: bool = flag(False, "check every length, pointer, document and id; reads the whole dataset")
    allow_trailing_bytes: bool = flag(False, "accept a .bin longer than its .idx says")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES)
    if problems := in_vain(options.tokenizer, ("vocab_size",), "; without it ids are shown"):
        raise UserError(*problems)
    dataset, source, sidecar = open_source(options.data_path, options.allow_trailing_bytes)
    size = _vocab_size(options, sidecar)
    tokenizer = build_tokenizer(options.tokenizer) if options.tokenizer.tokenizer_type else None
    if tokenizer and sidecar and sidecar["tokenizer"] != tokenizer.identity():
        mine = describe_identity(tokenizer.identity(), vars(options.tokenizer))
        raise UserError(
            f"{options.data_path} was made by {describe_maker(sidecar)}, and the flags name {mine}; name "
            "the tokenizer that made it"
        )
    show(_table(dataset.prefix, header(dataset, source)))
    if len(dataset):
        show(_lengths(dataset))
    if sidecar:
        show(_table(f"{dataset.prefix}.json", _flat(sidecar)))
    if options.validate:
        dataset.validate()
        size = tokenizer.vocab_size if tokenizer else size
        print(f"valid: lengths, pointers and documents fit; ids reach from {id_range(dataset, size)}")
    if options.samples:
        show(_samples(dataset, options.samples, tokenizer))


def _vocab_size(options: Options, sidecar: dict[str, Any] | None) -> int | None:
    """How many ids there are, as far as the data or --vocab-size says. UserError where they differ."""
    given = None if options.tokenizer.tokenizer_type else options.tokenizer.vocab_size
    if sidecar and given not in (None, sidecar["vocab_size"]):
        raise UserError(
            f"--vocab-size {given} contradicts {options.data_path}, whose vocabulary has "
            f"{sidecar['vocab_size']} tokens; leave it out"
        )
    return sidecar["vocab_size"] if sidecar else given


def header(dataset: IndexedDataset, source: str) -> dict[str, Any]:
    """What the header and the sizes of the files say."""
    return {
        "documents": len(dataset.document_indices) - 1,
        "sequences": len(dataset),
        "tokens": len(dataset.tokens),
        "type of ids": dataset.dtype.name,
        "bytes of .bin and .idx": " ".join(
            f"{os.path.getsize(dataset.prefix + ending):,}" for ending in (".bin", ".idx")
        ),
        "fingerprint": source,
    }


def _lengths(dataset: IndexedDataset) -> Table:
    """The lengths that shares of the sequences do not exceed, in tokens."""
    lengths = np.quantile(dataset.sequence_lengths, QUANTILES, method="inverted_cdf")
    table = Table(
        "mean",
        *(f"{quantile:.0%}" for quantile in QUANTILES),
        title="lengths of sequences",
        title_justify="left",
    )
    table.add_row(f"{len(dataset.tokens) / len(dataset):,.1f}", *(f"{length:,}" for length in lengths))
    return table


def _flat(facts: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested facts under names such as `tokenizer.type`."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return flat


def id_range(dataset: IndexedDataset, vocab_size: int | None) -> str:
    """The smallest and largest id. UserError where the vocabulary, if its size is known, does not reach that
    far."""
    if not len(dataset.tokens):
        return "none"
    pieces = [dataset.tokens[first : first + CHUNK] for first in range(0, len(dataset.tokens), CHUNK)]
    smallest, largest = min(int(piece.min()) for piece in pieces), max(int(piece.max()) for piece in pieces)
    if smallest < 0 or (vocab_size is not None and largest >= vocab_size):
        limit = f"the vocabulary of {vocab_size:,}" if vocab_size else "any vocabulary"
        raise UserError(
            f"{dataset.prefix}.bin: ids reach from {smallest} to {largest}, outside {limit}; make the "
            "dataset again, or name the tokenizer that made it"
        )
    return f"{smallest} to {largest}"


def _table(title: str, facts: dict[str, Any]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(
            Text(name),
            Text(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)),
        )
    return table


def _samples(dataset: IndexedDataset, count: int, tokenizer: Tokenizer | None) -> Table:
    """The beginnings of documents, as text where there is a tokenizer."""
    table = Table("document", "tokens", "begins with", title_justify="left")
    documents = len(dataset.document_indices) - 1
    for document in np.unique(np.linspace(0, documents - 1, min(count, documents)).astype(int)):
        first, last = (int(bound) for bound in dataset.document_indices[document : document + 2])
        length = int(dataset.sequence_lengths[first:last].sum())
        sequences = dataset[first : min(last, first + SAMPLE_TOKENS)]
        ids = np.concatenate([np.empty(0, dataset.dtype), *sequences])[:SAMPLE_TOKENS]
        if tokenizer and len(ids) and not 0 <= ids.min() <= ids.max() < tokenizer.vocab_size:
            raise UserError(
                f"{dataset.prefix}: document {document:,} begins with ids up to {ids.max()}, and the "
                f"tokenizer has {tokenizer.vocab_size:,} tokens; name the one that made the dataset"
            )
        table.add_row(
            f"{document:,}",
            f"{length:,}",
            Text(tokenizer.decode(ids) if tokenizer else " ".join(map(str, ids.tolist()))),
        )
    return table


if __name__ == "__main__":
    run_command(main)
