"""Compute the difficulty of every sample of a corpus, for a curriculum to draw by."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from megatron.base.command import run_command
from megatron.base.errors import UserError
from megatron.base.files import writable_folder
from megatron.base.terminal import show
from megatron.config.arguments import flag, parse
from megatron.config.config import TokenizerOptions
from megatron.curriculum.analysis import analyze, choose_metrics
from megatron.curriculum.difficulty import METRICS
from megatron.data.corpora import SPLITS, open_corpus, open_source, parse_split
from megatron.data.vocabulary import find_vocabulary

EXAMPLES = """\
  # the training part of a corpus, in windows of 256 tokens; train with the same --split and --seq-length
  python tools/analyze_data.py --data-path corpus_text_document --split 98,1,1 --seq-length 256 \\
      --metrics vocab_rarity --output-dir corpus_difficulty

  # a corpus that is wholly for training (--train-data-path), and a metric of your own: my_metrics.py,
  # function lines
  python tools/analyze_data.py --data-path corpus_text_document --split 1 --seq-length 2048 \\
      --metrics vocab_rarity my_metrics:lines --output-dir corpus_difficulty
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    data_path: str = flag(help="prefix of the .bin/.idx files", metavar="PREFIX")
    seq_length: int = flag(help="tokens of a sample, as in training", at_least=1)
    output_dir: str = flag(
        help="folder for the analysis; an older analysis there is replaced", metavar="FOLDER"
    )
    tokenizer: TokenizerOptions
    metrics: tuple[str, ...] = flag(
        ("vocab_rarity",), f"what to compute: {', '.join(METRICS)}, or module:function"
    )
    split: str = flag("969,30,1", "shares of training, validation and test, as in training")
    part: str = flag("train", "which part to analyse", choices=SPLITS)
    workers: int = flag(os.cpu_count() or 1, "threads; they change no byte of the result", at_least=1)
    allow_trailing_bytes: bool = flag(False, "accept a .bin longer than its .idx says")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES)
    metrics = choose_metrics(options.metrics)
    folder = Path(options.output_dir)
    writable_folder(folder.parent)
    source = open_source(options.data_path, options.allow_trailing_bytes)
    share = dict(zip(SPLITS, parse_split(options.split)))[options.part]
    corpus = open_corpus(source, share, options.seq_length, options.part)
    if corpus is None:
        raise UserError(
            f"--split {options.split} leaves no sample of {options.seq_length} tokens for {options.part}"
        )
    vocabulary = find_vocabulary(options.tokenizer, [corpus])
    manifest = analyze(corpus, options.part, metrics, vocabulary.size, folder, options.workers)
    table = Table(
        title=f"{manifest['samples']:,} samples of {options.seq_length} tokens, {options.part} part of "
        f"{options.data_path}"
    )
    for heading in ("metric", "easiest", "10 %", "25 %", "median", "75 %", "90 %", "hardest", "mean"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, about in manifest["metrics"].items():
        table.add_row(
            name,
            *(f"{about['percentiles'][share]:,}" for share in (0, 10, 25, 50, 75, 90, 100)),
            f"{about['mean']:,.1f}",
        )
    show(table)
    print(f"wrote {folder}")


if __name__ == "__main__":
    run_command(main)
