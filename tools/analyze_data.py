"""Compute the difficulty of every sample of a corpus, for a curriculum to draw by."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from collections.abc import Mapping
from typing import Any

from megatron.base.errors import UserError
from megatron.config.arguments import parse, unused_flags
from megatron.config.foreign import Foreign, is_our
from megatron.curriculum.analyze_dataset import (
    AnalysisOptions,
    analysis_problems,
    analyze_dataset,
    metrics_at_stake,
)

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


FREQUENCIES = "total_vocab_freq"
"""What Megatron-DeepSpeed's tool counts by a command of its own, and what is counted with any metric here."""


def _metrics(given: list[str], _: Mapping[str, Any]) -> dict[str, list[str]]:
    names = [name for name in given if name != FREQUENCIES]
    return {"metrics": names} if names else {}


def _passes(given: list[str], raw: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of windows of a GPT one pass has them all."""
    return {"bert_passes": given} if "BERT" in str(raw.get("foreign-analyzing-data-type", "")) else {}


FOREIGN = {
    "analyzing-data-type": Foreign(None, "", ours=lambda given, _: {"task": [one.lower() for one in given]}),
    "analyzing-metric": Foreign(None, "frequencies are counted with any metric", ours=_metrics),
    "train-data-exact-num-epochs": Foreign(None, "all samples are analysed", ours=_passes),
    "save": Foreign(None, "", ours=is_our("output_dir")),
    "analyzing-task": Foreign(None, "one command does both"),
    "analyzing-*": Foreign(None, "--workers says how many threads share the work"),
    **dict.fromkeys(
        [
            "data-impl",
            "micro-batch-size",
            "global-batch-size",
            "max-position-embeddings",
            "num-layers",
            "hidden-size",
            "num-attention-heads",
            "distributed-backend",
            "return-data-index",
            "save-interval",
        ],
        Foreign(None, "no difficulty depends on it"),
    ),
}
"""The flags of Megatron-DeepSpeed's tool of this name."""


def main() -> None:
    options = parse(AnalysisOptions, sys.argv[1:], description=__doc__, examples=EXAMPLES, foreign=FOREIGN)
    for line in unused_flags(AnalysisOptions, sys.argv[1:], FOREIGN):
        print(line)
    if problems := analysis_problems(options) or metrics_at_stake(options):
        raise UserError(*problems)
    analyze_dataset(options)


if __name__ == "__main__":
    run_command(main)
