"""Small GPT models and batches in double precision."""

import torch

from megatron.model.gpt import GPT
from megatron.model.inputs import GPTInputs
from megatron.parallel.initialization import draw_parameters
from tests.support.configurations import make_config

LAYERS, HIDDEN, HEADS, LENGTH, VOCAB = 3, 48, 4, 40, 101
SHAPE = f"--num-layers {LAYERS} --hidden-size {HIDDEN} --num-attention-heads {HEADS} --seq-length {LENGTH} "
PLAIN = "--train-iters 1 --hidden-dropout 0 --attention-dropout 0 --init-method-std 0.1 "


def make_model(flags: str, dropping: tuple[int, ...] = ()) -> GPT:
    model = GPT(make_config(SHAPE + PLAIN + flags), VOCAB, dropping).double()
    draw_parameters(model, 5)
    return model


def random_batch(rows: int = 3, length: int = LENGTH) -> GPTInputs:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCAB, (rows, length + 1), generator=generator)
    return GPTInputs(ids[:, :-1], ids[:, 1:], torch.arange(rows))
