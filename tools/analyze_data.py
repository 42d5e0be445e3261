"""Compute the difficulty of every sample of a corpus, for a curriculum to draw by."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from megatron.base.errors import UserError
from megatron.config.arguments import parse
from megatron.curriculum.analyze_dataset import AnalysisOptions, analysis_problems, analyze_dataset

EXAMPLES = """\
  # the training part of a corpus, in windows of 256 tokens; train with the same --split and --seq-length
  python tools/analyze_data.py --data-path corpus_text_document --split 98,1,1 --seq-length 256 \\
      --metrics vocab_rarity --output-dir corpus_difficulty

  # a corpus that is wholly for training (--train-data-path), and a metric of your own: my_metrics.py,
  # function lines
  python tools/analyze_data.py --data-path corpus_text_document --split 1 --seq-length 2048 \\
      --metrics vocab_rarity my_metrics:lines --output-dir corpus_difficulty

  # samples of sentences for pretrain_bert.py, whose --seed, --bert-pair and so on are given here, too
  python tools/analyze_data.py --task bert --data-path corpus_text_sentence --seq-length 512 \\
      --bert-passes 5 --metrics seqlen vocab_rarity seqlen_vocab_rarity --output-dir corpus_difficulty

  # text to tokens and difficulty in one go: tools/preprocess_data.py --metrics
"""


def main() -> None:
    options = parse(AnalysisOptions, sys.argv[1:], description=__doc__, examples=EXAMPLES)
    if problems := analysis_problems(options):
        raise UserError(*problems)
    analyze_dataset(options)


if __name__ == "__main__":
    run_command(main)
