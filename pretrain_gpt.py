"""Pretrain a GPT, with curriculum and random-LTD where asked for. `python pretrain_gpt.py --help` lists
every flag."""

from megatron.base.command import run_command

import sys

from megatron.tasks.gpt import GPT_TASK
from megatron.train.pretrain import pretrain

EXAMPLES = """\
  # one rank, a small model
  python pretrain_gpt.py --num-layers 4 --hidden-size 128 --num-attention-heads 4 --seq-length 256 \\
      --micro-batch-size 8 --train-tokens 1e6 --lr 2e-3 --data-path corpus_text_document \\
      --save runs/small --load runs/small

  # two data-parallel ranks; sequences grow from 64 to 256 tokens, rare words come later, middle layers drop
  # tokens
  torchrun --nproc-per-node 2 pretrain_gpt.py ... --micro-batch-size 4 --global-batch-size 8 \\
      --difficulty-path corpus_difficulty \\
      --curriculum vocab_rarity:difficulty=percentile,min=10,max=100,pacing=fixed_root,root=2,duration=200 \\
      --curriculum seqlen_truncate:min=64,max=256,duration=200,quantum=8 \\
      --random-ltd --random-ltd-min 64 --random-ltd-duration 280
"""


def main() -> None:
    pretrain(sys.argv[1:], GPT_TASK, "Pretrain a GPT.", EXAMPLES)


if __name__ == "__main__":
    run_command(main, ranks=True)
