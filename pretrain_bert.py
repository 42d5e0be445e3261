"""Pretrain a BERT or a modern encoder, with curriculum and random-LTD where asked for. `python
pretrain_bert.py --help` lists every flag."""

from megatron.base.command import run_command

import sys

from megatron.tasks.bert import BERT_TASK
from megatron.train.pretrain import pretrain

EXAMPLES = """\
  # sentences first, then one rank and a small model
  python tools/preprocess_data.py --input corpus.jsonl --output-prefix corpus --split-sentences \\
      --tokenizer-type BertWordPieceLowerCase --vocab-file my_wordpiece/vocab.txt
  python pretrain_bert.py --num-layers 4 --hidden-size 128 --num-attention-heads 4 --seq-length 128 \\
      --micro-batch-size 8 --train-samples 8000 --lr 1e-3 --data-path corpus_text_sentence \\
      --save runs/bert --load runs/bert

  # the layers of the BERT of 2018; rare words come later, middle layers drop tokens
  torchrun --nproc-per-node 2 pretrain_bert.py ... --apply-residual-connection-post-layernorm \\
      --micro-batch-size 4 --global-batch-size 8 --difficulty-path corpus_difficulty \\
      --curriculum vocab_rarity:difficulty=percentile,min=5,max=100,pacing=fixed_root,root=2,duration=500 \\
      --random-ltd --random-ltd-min 32 --random-ltd-duration 1000

  # a modern encoder: no pairs, rotary positions, GeGLU, local attention with a global layer every third
  python pretrain_bert.py ... --bert-no-binary-head --mask-prob 0.3 --bert-pack \\
      --position-embedding-type rope --rotary-base 160000 --local-rotary-base 10000 --geglu \\
      --disable-bias-linear --disable-norm-bias --embedding-norm \\
      --window-size 64,64 --window-attn-skip-freq '[0,1,1,0]'
"""


def main() -> None:
    pretrain(sys.argv[1:], BERT_TASK, "Pretrain a BERT or a modern encoder.", EXAMPLES)


if __name__ == "__main__":
    run_command(main, ranks=True)
