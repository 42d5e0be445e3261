"""Finetune an encoder on a task of GLUE, or on labelled texts of your own. `python finetune.py --help` lists
every flag."""

from megatron.base.command import run_command

import sys

from megatron.finetuning.job import read_job
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
"""


def main() -> None:
    require_launch()
    job = read_job(sys.argv[1:], "Finetune an encoder on labelled texts.", EXAMPLES)
    if is_sweep(job.flags):
        sweep(job, sys.argv)
    else:
        finetune(job)


if __name__ == "__main__":
    run_command(main, ranks=True)
