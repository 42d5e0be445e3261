"""Finetune an encoder on a task of GLUE or on labelled texts, or a GPT on text. `python finetune.py --help`
lists every flag, and `python finetune.py --task lm --help` those of a GPT."""

from megatron.base.command import run_command

import sys

from megatron.finetuning.job import read_job
from megatron.finetuning.language_job import is_language, read_language_job
from megatron.finetuning.language_run import finetune_language
from megatron.finetuning.run import finetune
from megatron.finetuning.sweep import is_sweep, sweep
from megatron.parallel.ranks import require_launch

EXAMPLES = """\
  # a task of GLUE, from a checkpoint of pretrain_bert.py or a folder of Hugging Face's
  python finetune.py --task RTE --data-path glue/RTE --load runs/bert --save runs/rte

  # a run for every rate and seed, as many at a time as there are cores; the same command goes on
  python finetune.py --task CoLA --data-path glue/CoLA --load runs/bert --save runs/cola \\
      --sweep-lr 2e-5,3e-5,4e-5,5e-5 --seeds 1234-1238

  # texts of your own, and what random weights come to
  python finetune.py --task classification --train-file a.jsonl --valid-file b.jsonl --test-file c.jsonl \\
      --text-column text --label-column label --load runs/bert --save runs/own
  python finetune.py ... --save runs/own_random --random-init

  # a GPT on text: --task lm --help lists its flags
  python finetune.py --task lm --train-file train.txt --valid-file valid.txt --load runs/my --save runs/lm
"""
LANGUAGE_EXAMPLES = """\
  # a GPT of pretrain_gpt.py, or a folder of Hugging Face's, on Penn Treebank
  python finetune.py --task lm --load gpt2 --train-file ptb.train.txt --valid-file ptb.valid.txt \\
      --num-train-epochs 5 --lr 1e-4 --save runs/ptb

  # with curriculum and random-LTD as in pretraining; a run for every rate and seed
  python finetune.py --task lm ... --curriculum seqlen_reshape:min=32,max=1024,duration=917,quantum=8 \\
      --random-ltd --random-ltd-min 128 --random-ltd-duration 393 --sweep-lr 5e-5,1e-4 --seeds 1234-1236
"""


def main() -> None:
    require_launch()
    argv = sys.argv[1:]
    if is_language(argv):
        language = read_language_job(argv, "Finetune a GPT on text.", LANGUAGE_EXAMPLES)
        if is_sweep(language.flags):
            sweep(language, sys.argv)
        else:
            finetune_language(language)
        return
    job = read_job(argv, "Finetune an encoder on labelled texts.", EXAMPLES)
    if is_sweep(job.flags):
        sweep(job, sys.argv)
    else:
        finetune(job)


if __name__ == "__main__":
    run_command(main, ranks=True)
