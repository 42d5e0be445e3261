"""Small training runs on made-up data, built in this process."""

import torch

from megatron.data.corpora import open_splits
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Data
from megatron.train.setup import Run, build, join
from tests.support.configurations import make_config

FLAGS = (
    "--num-layers 2 --hidden-size 16 --seq-length 16 --global-batch-size 4 --train-iters 5 --eval-iters 0 "
)


def make_run(flags: str) -> Run:
    """A run at step 0, in training mode, of two micro-batches of two rows."""
    config = make_config(FLAGS + flags)
    efficiency, _ = describe(config)
    data = Data(open_splits(config), Vocabulary(100, 0, None))
    run = build(join(GPT_TASK, config, efficiency, data), Mesh())
    torch.set_flush_denormal(False)
    run.model.train()
    return run
