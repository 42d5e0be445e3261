"""Tokenize text into the .bin/.idx files that training reads, and where --metrics asks for it compute the
difficulty of every training sample."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import shlex
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.base.errors import UserError
from megatron.config.arguments import parse, unused_flags
from megatron.config.flags import flag
from megatron.config.foreign import Foreign, is_our
from megatron.preprocess.preprocess import PreprocessOptions, output_prefix, preprocess

if TYPE_CHECKING:
    from megatron.curriculum.analyze_dataset import AnalysisOptions

EXAMPLES = """\
  python tools/preprocess_data.py --input corpus.jsonl --output-prefix data/corpus --append-eod \\
      --tokenizer-type HuggingFaceTokenizer --tokenizer-model tokenizer.json
      writes data/corpus_text_document.bin, .idx and .json
  python tools/preprocess_data.py --input corpus.jsonl --output-prefix data/corpus --append-eod \\
      --tokenizer-type HuggingFaceTokenizer --tokenizer-model tokenizer.json \\
      --metrics vocab_rarity --seq-length 256 --split 98,1,1
      writes data/corpus_text_difficulty too, for a curriculum: train with the same --seq-length and --split
  python tools/preprocess_data.py --input corpus.jsonl --output-prefix data/corpus --split-sentences \\
      --tokenizer-type BertWordPieceLowerCase --vocab-file my_wordpiece/vocab.txt
      writes data/corpus_text_sentence.bin, .idx and .json, for BERT
  python tools/preprocess_data.py --input 'shards/*.jsonl.zst' books/ --output-prefix data/mix --append-eod \\
      --tokenizer-type GPT2BPETokenizer --vocab-file vocab.json --merge-file merges.txt \\
      --shuffle-documents 1234"""

FOREIGN = {
    **{
        name: Foreign(None, "it is another word for a flag of ours", ours=is_our(ours))
        for name, ours in {
            "json-key": "json_keys",
            "jsonl-keys": "json_keys",
            "columns": "json_keys",
            "vocab": "vocab_file",
            "tokenizer-name-or-path": "tokenizer_model",
        }.items()
    },
    **dict.fromkeys(("chunk-size", "chunksize"), Foreign(None, "workers are given pieces of a fixed size")),
    "num-docs": Foreign(None, "progress is shown by bytes"),
    "ftfy": Foreign((), "texts are taken as they are; mend them before"),
    "log-interval": Foreign(None, "progress is shown by time"),
    "partitions": Foreign(None, "one pass writes one file, whatever the size"),
    "keep-sequential-samples": Foreign(
        None, "the order of the input is always kept, unless --shuffle-documents is given"
    ),
    "find-optimal-num-workers": Foreign(None, "one worker a core is best"),
    "workers-to-check": Foreign(None, "one worker a core is best"),
    "max-documents": Foreign(None, "it belongs to --find-optimal-num-workers"),
    "dataset-impl": Foreign(("mmap",), "there is one format, read through memory maps"),
    **dict.fromkeys(("performance-dir",), Foreign(None, "it belongs to --find-optimal-num-workers")),
    **dict.fromkeys(
        ("torch-backend", "dist-backend", "merge", "scratch"),
        Foreign(None, "one process with --workers writes the files"),
    ),
    **dict.fromkeys(
        ("tokenizer-library", "legacy-tokenizer", "tokenizer-metadata", "trust-remote-code", "use-fast"),
        Foreign(None, "--tokenizer-type and the tokenizer's files say all"),
    ),
    "tokenizer-hf-*": Foreign(None, "a tokenizer.json is read by HF's tokenizers, and no token is added"),
    "make-vocab-size-divisible-by": Foreign(None, "training pads the vocabulary"),
    **dict.fromkeys(
        ("pad-vocab-size-to", "padded-vocab-size"),
        Foreign((), "give --make-vocab-size-divisible-by to training"),
    ),
    "extra-vocab-size": Foreign(None, "training pads the vocabulary"),
    "patch-tokenizer-type": Foreign((), "give HuggingFaceTokenizer and its folder as --tokenizer-model"),
    "handler-name": Foreign((), "one text a line is read; write dialogues as texts first"),
    "apply-ftfy": Foreign((), "texts are taken as they are; mend them before"),
    "preproc-folder": Foreign(None, "--input takes folders, too"),
    "files-filter": Foreign((), "give the files by a glob as --input"),
    "shuffle": Foreign((), "give --shuffle-documents SEED"),
    "count": Foreign((), "the whole input is read; cut it before, as by head -n"),
    "vocab-extra-ids": Foreign(("0",), "the tokenizer's own tokens are all that there are"),
}


@dataclass(frozen=True, kw_only=True)
class DifficultyOptions:
    """The flags of --metrics; None: not given."""

    metrics: tuple[str, ...] = flag(
        (), "compute these for every training sample, as tools/analyze_data.py does: vocab_rarity, ..."
    )
    seq_length: int | None = flag(None, "tokens of a sample, as in training; needed by --metrics", at_least=1)
    split: str | None = flag(
        None, "shares of training, validation and test for --metrics, as in training; 969,30,1"
    )
    difficulty_path: str | None = flag(
        None,
        "folder for what --metrics computes; <output-prefix>_<key>_difficulty. With several --json-keys, a "
        "folder <key> below it for each",
        metavar="FOLDER",
    )


@dataclass(frozen=True, kw_only=True)
class Options(PreprocessOptions):
    difficulty: DifficultyOptions


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES, foreign=FOREIGN)
    for line in unused_flags(Options, sys.argv[1:], FOREIGN):
        print(line)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.difficulty.metrics:
        with_difficulty(options)
    else:
        tokens_alone(options, _flags_without_metrics(options.difficulty))


def tokens_alone(options: Options, problems: list[str]) -> None:
    """Write the datasets, unless something is wrong."""
    try:
        preprocess(options, problems=problems)
    except KeyboardInterrupt:
        print("nothing was written; the same command starts over", file=sys.stderr)
        raise


def with_difficulty(options: Options) -> None:
    """Write the datasets, then the analysis of each. (Imported here because numba takes a while to start.)"""
    from megatron.curriculum.analyze_dataset import analysis_problems

    analyses = _analyses(options)
    problems = [problem for one in analyses for problem in analysis_problems(one, "--difficulty-path")]
    if options.difficulty.seq_length is None:
        names = " ".join(options.difficulty.metrics)
        problems.append(f"--metrics {names} needs --seq-length, the tokens of a sample, as in training")
    problems += _metrics_of_sentences(options)
    tokens_alone(options, problems)
    _analyze_all(analyses)


def _analyze_all(analyses: "list[AnalysisOptions]") -> None:
    """Where an analysis fails the others are still made; whatever ends this says how to go on."""
    from megatron.curriculum.analyze_dataset import analyze_dataset

    failed: list[str] = []
    for number, one in enumerate(analyses):
        try:
            analyze_dataset(one)
        except UserError as error:
            failed += [*error.problems, _what_is_left(one)]
        except BaseException:
            print(*failed, *map(_what_is_left, analyses[number:]), sep="\n", file=sys.stderr)
            raise
    if failed:
        raise UserError(*failed)


def _metrics_of_sentences(options: Options) -> list[str]:
    """--metrics measures the samples of a GPT, which are no sentences."""
    if not options.split_sentences:
        return []
    names = " ".join(options.difficulty.metrics)
    return [
        f"--metrics {names} measures samples of a GPT, and --split-sentences writes sentences for BERT; "
        "leave it out, then run tools/analyze_data.py --task bert on what this writes"
    ]


def _flags_without_metrics(given: DifficultyOptions) -> list[str]:
    return [
        f"--{name.replace('_', '-')} {getattr(given, name)} goes with --metrics; add --metrics vocab_rarity, "
        "or leave it out"
        for name in ("seq_length", "split", "difficulty_path")
        if getattr(given, name) is not None
    ]


def _analyses(options: Options) -> "list[AnalysisOptions]":
    """The analysis of every key."""
    from megatron.curriculum.analyze_dataset import AnalysisOptions

    given = options.difficulty
    return [
        AnalysisOptions(
            data_path=output_prefix(options, key),
            seq_length=1 if given.seq_length is None else given.seq_length,  # None is told as a mistake
            output_dir=_folder(options, key),
            metrics=given.metrics,
            split=given.split or AnalysisOptions.split,
            workers=options.workers or AnalysisOptions.workers,
        )
        for key in options.json_keys
    ]


def _folder(options: Options, key: str) -> str:
    folder = options.difficulty.difficulty_path
    if folder is None:
        return f"{options.output_prefix}_{key}_difficulty"
    return folder if len(options.json_keys) == 1 else f"{folder}/{key}"


def _what_is_left(analysis: "AnalysisOptions") -> str:
    words = [
        *("python", str(Path(sys.argv[0]).with_name("analyze_data.py"))),
        *("--data-path", analysis.data_path, "--split", analysis.split),
        *("--seq-length", str(analysis.seq_length), "--metrics", *analysis.metrics),
        *("--output-dir", analysis.output_dir),
    ]
    return (
        f"the dataset {analysis.data_path} is written, its difficulty is not; this finishes the job: "
        + shlex.join(words)
    )


if __name__ == "__main__":
    run_command(main)
