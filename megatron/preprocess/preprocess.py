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

from megatron.base.cores import usable_cores
from megatron.base.errors import UserError, collect_problems
from megatron.base.terminal import progress
from megatron.config.config import TokenizerOptions
from megatron.config.flags import flag
from megatron.config.tokenizer import unread_files
from megatron.data.index_builder import IndexedDatasetBuilder, existing_dataset
from megatron.data.indexed_dataset import token_dtype
from megatron.data.tokenizer import build_tokenizer, describe_around, describe_end
from megatron.data.tokenizer_files import flags_of_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.preprocess.bad_lines import BadLineOptions, leave_out
from megatron.preprocess.documents import PIECE_BYTES, Piece, cut_into_pieces
from megatron.preprocess.encoding import Encoded, encode_piece, of_process
from megatron.preprocess.inputs import find_files
from megatron.preprocess.sentences import ENGLISH, LANGUAGES, describe_splitter
from megatron.preprocess.totals import Totals, report_totals
from megatron.preprocess.workers import map_in_order

PIECES_IN_FLIGHT = 4


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    input: tuple[str, ...] = flag(
        help="files, globs or folders; .jsonl, .jsonl.gz, .jsonl.zst, .parquet, .txt",
        metavar="FILES",
        of_several="give all behind one --input",
    )
    output_prefix: str = flag(
        help="path of the output; _{key}_document.bin, .idx and .json are added, or _{key}_sentence"
    )
    tokenizer: TokenizerOptions
    json_keys: tuple[str, ...] = flag(
        ("text",), "keys or columns that hold text; one dataset each", metavar="KEY"
    )
    append_eod: bool = flag(False, "an end-of-document token behind every document that is not empty")
    split_sentences: bool = flag(False, "write every sentence as a sequence of its own, as BERT needs it")
    lang: str = flag(ENGLISH, "language of --split-sentences", choices=LANGUAGES, metavar="LANGUAGE")
    keep_newlines: bool = flag(
        False, "leave the white space between sentences, such as ends of lines, at the end of the first"
    )
    max_sequence_length: int | None = flag(
        None,
        "cut longer documents into sequences of so many tokens, so that splits, which are ranges of "
        "sequences, can part them",
        at_least=1,
    )
    workers: int | None = flag(None, "worker processes; one a core", at_least=1)
    tokenizer_engine: str = flag(
        "auto",
        "what encodes; auto: gigatoken or, for BERT's tokenizers, a table of words, where they can",
        choices=("auto", "gigatoken", "tokenizers"),
    )
    shuffle_documents: int | None = flag(
        None, "write the documents in a random order of this seed", metavar="SEED"
    )
    overwrite: bool = flag(False, "replace datasets that are there already")
    bad_lines: BadLineOptions = field(default_factory=BadLineOptions)


class EnginesDiffer(Exception):
    """The fast engine gave other ids than the reference. Arguments: the engine, the place of the document,
    and its text or sentence."""


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
    if not options.split_sentences or options.append_eod:  # documents of sentences end without a token
        print(describe_end(tokenizer.end, options.append_eod))
    if not options.split_sentences and (note := describe_around(tokenizer)):  # rows of sentences have them
        print(note, file=sys.stderr)
    engine = options.tokenizer_engine
    totals = None
    while totals is None:
        try:
            totals = _run(options, engine, files, tokenizer, piece_bytes)
        except EnginesDiffer as error:
            what = "{} and the reference library encode text of {} differently: {!r:.80}".format(*error.args)
            if engine == "gigatoken":
                raise UserError(f"{what}; leave out --tokenizer-engine gigatoken") from None
            print(f"{what}; starting over with the reference library, which is slower", file=sys.stderr)
            engine = "tokenizers"
    prefixes = [output_prefix(options, key) for key in options.json_keys]
    report_totals(totals, prefixes, time.perf_counter() - began, options.split_sentences)
    return totals


def output_prefix(options: PreprocessOptions, key: str) -> str:
    level = "sentence" if options.split_sentences else "document"
    return f"{options.output_prefix}_{key}_{level}"


def _problems(options: PreprocessOptions) -> list[str]:
    problems = []
    if not options.json_keys or len(set(options.json_keys)) < len(options.json_keys):
        problems.append(f"--json-keys {' '.join(options.json_keys)}: give at least one key, and none twice")
    problems += _sentence_problems(options)
    if not options.overwrite:
        problems += [
            problem for key in options.json_keys for problem in existing_dataset(output_prefix(options, key))
        ]
    return problems


def _sentence_problems(options: PreprocessOptions) -> list[str]:
    if not options.split_sentences:
        lang = [f"--lang {options.lang}"] if options.lang != ENGLISH else []
        given = [*lang, *(["--keep-newlines"] if options.keep_newlines else [])]
        return [f"{one} goes with --split-sentences; add it, or leave {one} out" for one in given]
    if options.max_sequence_length is not None:
        return [
            f"--max-sequence-length {options.max_sequence_length} cuts documents, and --split-sentences "
            "makes sequences of their sentences; leave one of them out"
        ]
    return []


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
    if unread := unread_files(options.tokenizer):
        raise UserError(*unread)
    return build_tokenizer(options.tokenizer)


def _run(
    options: PreprocessOptions, engine: str, files: list[str], tokenizer: Tokenizer, piece_bytes: int
) -> Totals:
    """Encode all files by an engine. EnginesDiffer where it turns out not to be right."""
    keys, size = options.json_keys, sum(map(os.path.getsize, files))
    totals = Totals([0] * len(keys), [0] * len(keys), [0] * len(keys), [0] * len(keys))
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
                        raise EnginesDiffer(encoded.engine, *part.check.difference)
                    output.add_documents(part.tokens, part.lengths, part.counts)
                advance(piece.input_bytes)
        if not totals.documents:
            raise UserError(
                f"no documents in {', '.join(options.input)} ({totals.left_out.count} bad lines), so that "
                "nothing was written; name files that hold some",
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
    workers = options.workers or usable_cores()
    pieces = cut_into_pieces(files, piece_bytes)
    bert = str(options.tokenizer.tokenizer_type).startswith("Bert")
    first = list(itertools.islice(pieces, 2))
    window = workers * PIECES_IN_FLIGHT if len(first) == 2 else 1
    tasks = ((options, engine, piece) for piece in itertools.chain(first, pieces))
    if len(first) == 2:
        fast = ["megatron.data.word_table"] if bert else ["gigatoken", "awkward"]
        modules = ["megatron.preprocess.preprocess", *(fast if engine != "tokenizers" else [])]
        outcomes = map_in_order(encode_piece, tasks, workers, window, modules)
    else:
        of_process.cache_clear()  # files may have changed since another run in this process
        outcomes = ((task, encode_piece(*task)) for task in tasks)
    for (_, _, piece), encoded in outcomes:
        yield piece, encoded


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
        "sentences": describe_splitter(options.lang, options.keep_newlines)
        if options.split_sentences
        else None,
        "tool_version": _version(),
    }


def _version() -> str:
    try:
        return importlib.metadata.version("megatron-data-efficient")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
