"""Small GPT models and batches in double precision."""

import torch

from megatron.model.gpt import GPT, LM_LOSS
from megatron.model.inputs import GPTInputs
from megatron.parallel.initialization import initialize
from megatron.tasks.architecture import gpt_architecture
from tests.support.configurations import make_config

LAYERS, HIDDEN, HEADS, LENGTH, VOCAB = 3, 48, 4, 40, 101
SHAPE = f"--num-layers {LAYERS} --hidden-size {HIDDEN} --num-attention-heads {HEADS} --seq-length {LENGTH} "
PLAIN = "--train-iters 1 --hidden-dropout 0 --attention-dropout 0 --init-method-std 0.1 "


def make_model(flags: str, dropping: tuple[int, ...] = ()) -> GPT:
    config = make_config(SHAPE + PLAIN + flags)
    model = GPT(gpt_architecture(config, VOCAB), dropping).double()
    initialize(model, 5)
    return model


def make_moved_model(flags: str) -> GPT:
    """As after some training: no bias is 0 any more, and no norm's weight 1."""
    model, generator = make_model(flags), torch.Generator().manual_seed(8)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return model


def loss_of(model: GPT, inputs: GPTInputs, step: int | None = None) -> torch.Tensor:
    """The model's loss, summed over the tokens that count; `step` keys dropout."""
    return model(inputs, None if step is None else torch.tensor(step))[LM_LOSS]


def random_batch(rows: int = 3, length: int = LENGTH) -> GPTInputs:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCAB, (rows, length + 1), generator=generator)
    return GPTInputs(ids[:, :-1], ids[:, 1:], torch.arange(rows))
