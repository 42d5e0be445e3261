"""Text to indexed datasets: pieces of documents are encoded by worker processes and written in the order of
the input.

1. `documents` cuts the input into pieces that a worker reads by itself.
2. `encoding` turns a piece into ids and verifies a share of them.
3. The parent writes, through `document_shuffle` where asked.
4. The files take their names, all or none.

The output depends on the input, the tokenizer and the shuffle's seed alone, not on workers or pieces.
"""

import importlib.metadata
import itertools
import os
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

from megatron.base.errors import UserError, collect_problems
from megatron.base.terminal import progress
from megatron.config.arguments import flag
from megatron.config.config import TokenizerOptions
from megatron.data.index_builder import IndexedDatasetBuilder, existing_dataset
from megatron.data.indexed_dataset import token_dtype
from megatron.data.tokenizer import build_tokenizer, describe_around, describe_end
from megatron.data.tokenizer_files import flags_of_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.preprocess.bad_lines import BadLineOptions, LeftOut, leave_out, report
from megatron.preprocess.documents import PIECE_BYTES, Piece, cut_into_pieces
from megatron.preprocess.encoding import NEW_BYTES, Encoded, encode_piece, of_process
from megatron.preprocess.inputs import find_files
from megatron.preprocess.novelty import describe
from megatron.preprocess.round_trip import RoundTrip, describe_round_trip
from megatron.preprocess.workers import map_in_order

PIECES_IN_FLIGHT = 4


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    input: tuple[str, ...] = flag(
        help="files, globs or folders; .jsonl, .jsonl.gz, .jsonl.zst, .parquet, .txt", metavar="FILES"
    )
    output_prefix: str = flag(help="path of the output; _{key}_document.bin, .idx and .json are added")
    tokenizer: TokenizerOptions
    json_keys: tuple[str, ...] = flag(
        ("text",), "keys or columns that hold text; one dataset each", metavar="KEY"
    )
    append_eod: bool = flag(False, "an end-of-document token behind every document that is not empty")
    max_sequence_length: int | None = flag(
        None,
        "cut longer documents into sequences of so many tokens, so that splits, which are ranges of "
        "sequences, can part them",
        at_least=1,
    )
    workers: int | None = flag(None, "worker processes; one a core", at_least=1)
    tokenizer_engine: str = flag(
        "auto",
        "library that encodes; auto: gigatoken where it can",
        choices=("auto", "gigatoken", "tokenizers"),
    )
    shuffle_documents: int | None = flag(
        None, "write the documents in a random order of this seed", metavar="SEED"
    )
    overwrite: bool = flag(False, "replace datasets that are there already")
    bad_lines: BadLineOptions = field(default_factory=BadLineOptions)


@dataclass
class Totals:
    """Sums over the pieces of a run; `tokens`, `text_bytes` and documents that are `empty` for every key."""

    tokens: list[int]
    text_bytes: list[int]
    empty: list[int]
    engine: str = ""
    documents: int = 0
    verified_documents: int = 0
    verified_bytes: int = 0
    verified: set[int] = field(default_factory=set)
    unverified: set[int] = field(default_factory=set)
    round_trip: RoundTrip = field(default_factory=RoundTrip)
    left_out: LeftOut = field(default_factory=LeftOut)

    def add(self, encoded: Encoded) -> None:
        self.engine = encoded.engine
        self.documents += len(encoded.parts[0].lengths)
        for number, part in enumerate(encoded.parts):
            self.tokens[number] += len(part.tokens)
            self.text_bytes[number] += part.text_bytes
            self.empty[number] += int((part.lengths == 0).sum())
            self.verified_documents += part.check.documents
            self.verified_bytes += part.check.text_bytes
            self.verified.update(part.check.verified)
            self.unverified.update(part.check.left_out)
            self.round_trip += part.round_trip


class EnginesDiffer(Exception):
    """The fast engine gave other ids than the reference. Arguments: the place and the text of the
    document."""


def preprocess(
    options: PreprocessOptions, piece_bytes: int = PIECE_BYTES, problems: Sequence[str] = ()
) -> Totals:
    """Write one dataset for every key, all or none, and say what was done. `problems`: what the caller
    found wrong, to be told together with what is wrong here."""
    began = time.perf_counter()
    told = [*problems, *_problems(options)]
    with collect_problems(told):
        files = find_files(options.input)
        told += _inputs_lost(options, files)
    with collect_problems(told):
        tokenizer = _tokenizer(options)
    if told:
        raise UserError(*dict.fromkeys(told))
    print(describe_end(tokenizer.end, options.append_eod))
    if note := describe_around(tokenizer):
        print(note, file=sys.stderr)
    engine = options.tokenizer_engine
    totals = None
    while totals is None:
        try:
            totals = _run(options, engine, files, tokenizer, piece_bytes)
        except EnginesDiffer as error:
            what = (
                "gigatoken and the reference library encode the document of {} differently: {!r:.80}".format(
                    *error.args
                )
            )
            if engine == "gigatoken":
                raise UserError(f"{what}; leave out --tokenizer-engine gigatoken") from None
            print(f"{what}; starting over with the reference library, which is slower", file=sys.stderr)
            engine = "tokenizers"
    _report(options, totals, time.perf_counter() - began)
    return totals


def output_prefix(options: PreprocessOptions, key: str) -> str:
    return f"{options.output_prefix}_{key}_document"


def _problems(options: PreprocessOptions) -> list[str]:
    problems = []
    if not options.json_keys or len(set(options.json_keys)) < len(options.json_keys):
        problems.append(f"--json-keys {' '.join(options.json_keys)}: give at least one key, and none twice")
    if not options.overwrite:
        problems += [
            problem for key in options.json_keys for problem in existing_dataset(output_prefix(options, key))
        ]
    return problems


def _inputs_lost(options: PreprocessOptions, files: list[str]) -> list[str]:
    """Inputs that the output would take the place of."""
    outputs = {os.path.realpath(f"{output_prefix(options, key)}.json") for key in options.json_keys}
    return [
        f"--input {path} is where --output-prefix {options.output_prefix} writes; choose another"
        for path in files
        if os.path.realpath(path) in outputs
    ]


def _tokenizer(options: PreprocessOptions) -> Tokenizer:
    if options.tokenizer.tokenizer_type is None:
        raise UserError("--tokenizer-type is required: it says how text becomes tokens")
    return build_tokenizer(options.tokenizer)


def _run(
    options: PreprocessOptions, engine: str, files: list[str], tokenizer: Tokenizer, piece_bytes: int
) -> Totals:
    """Encode all files by an engine. EnginesDiffer where it turns out not to be right."""
    keys, size = options.json_keys, sum(map(os.path.getsize, files))
    totals = Totals([0] * len(keys), [0] * len(keys), [0] * len(keys))
    with ExitStack() as opened:
        dtype = token_dtype(tokenizer.vocab_size)
        builders = [
            opened.enter_context(
                IndexedDatasetBuilder(output_prefix(options, key), dtype, options.max_sequence_length)
            )
            for key in keys
        ]
        shuffles = (
            []
            if options.shuffle_documents is None
            else _shuffles(options.shuffle_documents, builders, size, opened)
        )
        with (
            progress("encoding", size, "MB", 1e6) as advance,
            closing(_encode_all(options, engine, files, piece_bytes)) as pieces,
        ):
            for piece, encoded in pieces:
                totals.add(encoded)
                leave_out(totals.left_out, piece, encoded.bad, options.bad_lines)
                for output, part in zip(shuffles or builders, encoded.parts):
                    if part.check.difference:
                        raise EnginesDiffer(*part.check.difference)
                    output.add_documents(part.tokens, part.lengths)
                advance(piece.input_bytes)
        if not totals.documents:
            raise UserError(
                f"no documents in {', '.join(options.input)} ({totals.left_out.count} bad lines); nothing "
                "was written",
                *totals.left_out.shown,
            )
        for shuffle in shuffles:
            shuffle.finish()
        for builder, text_bytes in zip(builders, totals.text_bytes):
            builder.sidecar = _sidecar(options, tokenizer, text_bytes, totals.left_out.count)
    return totals


def _shuffles(seed: int, builders: list[IndexedDatasetBuilder], size: int, opened: ExitStack) -> list[Any]:
    """One shuffle before every builder. (Imported here because numba takes a while to start.)"""
    from megatron.preprocess.document_shuffle import DocumentShuffle, bucket_bits

    bits = bucket_bits(size, len(builders))
    return [opened.enter_context(DocumentShuffle(builder, seed, bits)) for builder in builders]


def _encode_all(
    options: PreprocessOptions, engine: str, files: list[str], piece_bytes: int
) -> Generator[tuple[Piece, Encoded]]:
    """All pieces in order, by worker processes, or right here where there is but one."""
    workers = options.workers or _cores()
    pieces = cut_into_pieces(files, piece_bytes)
    first = list(itertools.islice(pieces, 2))
    window = workers * PIECES_IN_FLIGHT if len(first) == 2 else 1
    tasks = ((options, engine, piece) for piece in itertools.chain(first, pieces))
    if len(first) == 2:
        modules = [
            "megatron.preprocess.preprocess",
            *(["gigatoken", "awkward"] if engine != "tokenizers" else []),
        ]
        outcomes = map_in_order(encode_piece, tasks, workers, window, modules)
    else:
        of_process.cache_clear()  # files may have changed since another run in this process
        outcomes = ((task, encode_piece(*task)) for task in tasks)
    for (_, _, piece), encoded in outcomes:
        yield piece, encoded


def _cores() -> int:
    """The cores that this process may use, which a batch system may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sidecar(
    options: PreprocessOptions, tokenizer: Tokenizer, text_bytes: int, bad_lines: int
) -> dict[str, Any]:
    return {
        "tokenizer": tokenizer.identity(),
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
        "eod_token": tokenizer.end.name,
        "tokenizer_flags": flags_of_tokenizer(tokenizer, options.tokenizer),
        "append_eod": options.append_eod,
        "text_bytes": text_bytes,
        "bad_lines_skipped": bad_lines,
        "shuffle_seed": options.shuffle_documents,
        "max_sequence_length": options.max_sequence_length,
        "tool_version": _version(),
    }


def _version() -> str:
    try:
        return importlib.metadata.version("megatron-data-efficient")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _report(options: PreprocessOptions, totals: Totals, seconds: float) -> None:
    report(totals.left_out)
    for key, tokens, text_bytes, empty in zip(
        options.json_keys, totals.tokens, totals.text_bytes, totals.empty
    ):
        more = f"; {empty:,} of {totals.documents:,} documents are empty" if empty else ""
        print(
            f"{output_prefix(options, key)}: {tokens:,} tokens, {text_bytes / max(tokens, 1):.2f} bytes "
            f"of text a token{more}"
        )
    if totals.engine == "gigatoken":
        verified = f"{totals.verified_documents:,} documents ({totals.verified_bytes / 1e6:,.1f} MB)"
        new = f", with them {describe(totals.verified)} beyond ASCII" if totals.verified else ""
        print(f"encoded by gigatoken; {verified} were verified against the reference library{new}")
        if unverified := totals.unverified - totals.verified:
            print(
                f"not verified: {describe(unverified)}, because a process verifies {NEW_BYTES / 1e6:.0f} MB "
                "of new ones at most; --tokenizer-engine tokenizers encodes all by the reference library"
            )
    else:
        print("encoded by the reference library, so there was nothing to verify")
    if totals.round_trip.changed:
        print(describe_round_trip(totals.round_trip))
    speed = sum(totals.text_bytes) / 1e6 / seconds
    print(
        f"Processed {totals.documents:,} documents ({totals.documents / seconds:,.0f} docs/s, "
        f"{speed:,.1f} MB/s)."
    )
