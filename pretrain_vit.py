"""Train a vision transformer on images and their classes, with random-LTD where asked for. `python
pretrain_vit.py --help` lists every flag."""

from megatron.base.command import run_command

import sys

from megatron.tasks.vit import VIT_TASK
from megatron.train.pretrain import pretrain

EXAMPLES = """\
  # a folder for each class; of all images a share is held out
  python pretrain_vit.py --data-path pictures --split 90,5,5 --img-h 64 --img-w 64 --patch-dim 8 \\
      --num-layers 6 --hidden-size 192 --num-attention-heads 3 --micro-batch-size 32 --train-samples 50000 \\
      --lr 1e-3 --save runs/vit --load runs/vit

  # ViT-Base on ImageNet's train/ and val/, on 8 ranks; middle layers drop patches
  torchrun --nproc-per-node 8 pretrain_vit.py --data-path imagenet --num-layers 12 --hidden-size 768 \\
      --num-attention-heads 12 --norm-epsilon 1e-12 --micro-batch-size 128 --train-samples 384e6 --lr 1e-3 \\
      --rand-augment 2 --label-smoothing 0.1 --random-ltd --random-ltd-min 66 --random-ltd-quantum 1 \\
      --random-ltd-duration 300000 ...

  # weights of Hugging Face's, finetuned on CIFAR-10's binary files
  python pretrain_vit.py --data-path cifar-10-batches-bin --pretrained-checkpoint vit-base-patch16-224 ...
"""


def main() -> None:
    pretrain(sys.argv[1:], VIT_TASK, "Train a vision transformer.", EXAMPLES)


if __name__ == "__main__":
    run_command(main, ranks=True)
