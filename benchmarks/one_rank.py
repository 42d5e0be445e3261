"""What parallel layers cost where one rank is alone: the same layer, and the same training step, from
torch.nn, with equal weights, batches and dropout, in one process on one thread, alternately.

python benchmarks/one_rank.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.common import mock_run, print_table, processor_ratios, spread
from megatron.base.keys import key, signed
from megatron.batches.loader import BatchShare
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.model.block import Block
from megatron.model.context import make_context
from megatron.model.dropout import drop, token_keys
from megatron.model.gpt import GPT, LM_LOSS
from megatron.model.inputs import GPTInputs
from megatron.optim.optimizer import make_optimizer, update
from megatron.parallel.cross_entropy import cross_entropy_sum
from megatron.parallel.initialization import initialize
from megatron.parallel.mesh import Mesh
from megatron.tasks.architecture import gpt_architecture
from megatron.train.setup import Run
from megatron.train.step import train_step
from tests.support.configurations import make_config

FLAGS = (
    "--num-layers {} --hidden-size {} --num-attention-heads 4 --seq-length {} --micro-batch-size 1 "
    "--hidden-dropout {} --attention-dropout 0 --train-iters 1000 --lr 1e-4 --clip-grad 1 --vocab-size 1024 "
    "--global-batch-size 2 "
)
SEED = 1234
LEAST_SECONDS = 0.03
"""Of a side in a round."""


@dataclass(frozen=True)
class Options:
    rounds: int = flag(30, "timed rounds of both", at_least=1)
    shapes: tuple[str, ...] = flag(("64,32", "256,256", "512,512"), "hidden size,tokens")


class PlainBlock(nn.Module):
    """A transformer layer of torch.nn, with the weights of one of ours."""

    def __init__(self, ours: nn.Module, probability: float):
        super().__init__()
        assert isinstance(ours, Block)
        hidden, inner = ours.mlp.up.weight.shape[1], ours.mlp.up.weight.shape[0]
        self.attention_norm, self.mlp_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.projection = nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.head, self.probability = ours.attention.head, probability
        self.salts = ours.attention_salt, ours.mlp_salt
        names = {name: name.replace("attention.", "").replace("mlp.", "") for name in ours.state_dict()}
        self.load_state_dict({names[name]: one for name, one in ours.state_dict().items()})

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        normed = self.attention_norm(x)
        parts = (part(normed) for part in (self.query, self.key, self.value))
        query, key, value = (one.unflatten(-1, (-1, self.head)).transpose(1, 2) for one in parts)
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        update = self.projection(found.transpose(1, 2).flatten(2))
        x = x + drop(update, self.probability, keys, self.salts[0])
        update = self.down(F.gelu(self.up(self.mlp_norm(x))))
        return x + drop(update, self.probability, keys, self.salts[1])


class PlainGPT(nn.Module):
    """The same for a whole GPT. The head's cross-entropy is ours: PyTorch has none in chunks of tokens."""

    def __init__(self, ours: GPT, probability: float):
        super().__init__()
        assert ours.word_embeddings is not None and ours.position_embeddings is not None
        self.words = nn.Embedding.from_pretrained(ours.word_embeddings.weight.detach().clone(), freeze=False)
        positions = ours.position_embeddings.weight.detach().clone()
        self.positions = nn.Embedding.from_pretrained(positions, freeze=False)
        self.layers = nn.ModuleList(PlainBlock(ours.layers[name], probability) for name in ours.layers)
        self.norm = nn.LayerNorm(positions.shape[1])
        self.probability, self.salt, self.vocab_size = probability, ours.embedding_salt, ours.vocab_size

    def forward(self, batch: GPTInputs, step_key: Tensor, scale: float) -> Tensor:
        length = batch.tokens.shape[1]
        keys = token_keys(step_key, batch.rows, length)
        x = self.words(batch.tokens) + self.positions(torch.arange(length)[None])
        x = drop(x, self.probability, keys, self.salt)
        for layer in self.layers:
            x = layer(x, keys)
        hidden, labels = self.norm(x).flatten(0, 1), batch.labels.flatten()
        return cross_entropy_sum(hidden, self.words.weight, labels, None, self.vocab_size, scale)


class Operators(TorchDispatchMode):
    """Counts the operators that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[str(operation)] += 1
        return operation(*args, **(kwargs or {}))


def main() -> None:
    """Print the table."""
    options = parse(Options, sys.argv[1:], description=__doc__)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    headings = (
        "what",
        "hidden, tokens, dropout",
        "ours / torch.nn",
        "operators",
        "of torch.nn",
        "collectives",
    )
    print_table(headings, _rows(options))


def _rows(options: Options) -> Iterator[tuple[str, ...]]:
    for what, make in (("a layer", _layers), ("a step of 4 layers", _steps)):
        for shape in options.shapes:
            for probability in (0.0, 0.1):
                hidden, length = map(int, shape.split(","))
                ours, plain = make(hidden, length, probability)
                ratios = spread(processor_ratios(ours, plain, options.rounds, LEAST_SECONDS), ".3f")
                mine, others = _operators(ours), _operators(plain)
                counts = mine.total(), others.total(), sum(mine[one] for one in mine if "c10d" in one)
                yield what, f"{hidden}, {length}, {probability:g}", ratios, *map(str, counts)


def _operators(work: Callable[[], Any]) -> Counter[str]:
    with Operators() as seen:
        work()
    return seen.found


def _layers(hidden: int, length: int, probability: float) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Forward and backward passes of one layer, which give the same bits by the same operators."""
    config = make_config(FLAGS.format(4, hidden, length, probability))
    ours = Block(gpt_architecture(config, 1024), 0)
    initialize(ours, SEED)
    plain = PlainBlock(ours, probability)
    keys = token_keys(torch.tensor(SEED), torch.zeros(1, dtype=torch.int64), length)
    context = make_context(length, torch.device("cpu"), keys=keys)
    start = torch.randn(1, length, hidden)

    def run(layer: nn.Module, more: Any) -> tuple[Tensor, Tensor]:
        x = start.clone().requires_grad_()
        y = layer(x, more)
        y.sum().backward()
        assert x.grad is not None
        return y.detach(), x.grad

    sides = (lambda: run(ours, context)), (lambda: run(plain, keys))
    for mine, other in zip(*(side() for side in sides)):
        assert torch.equal(mine, other)
    assert _operators(sides[0]) == _operators(sides[1])
    return sides


def _steps(hidden: int, length: int, probability: float) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Training steps of two micro-batches, which give the same losses."""
    run = mock_run(Mesh(), FLAGS.format(4, hidden, length, probability))
    step = run.plan.at(1)
    batches = run.rows.batch(run.sampler, step, BatchShare(0, 1, 1))
    sides = _our_step(run, step, batches), _plain_step(run, batches)
    for _ in range(3):
        mine, other = (side() for side in sides)
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=0)
    return sides


def _our_step(run: Run, step: Any, batches: list[GPTInputs]) -> Callable[[], float | None]:
    return lambda: train_step(run, step, batches).losses[LM_LOSS]


def _plain_step(run: Run, batches: list[GPTInputs]) -> Callable[[], float]:
    config = run.config
    assert isinstance(run.model, GPT)
    model = PlainGPT(run.model, config.model.hidden_dropout)
    optimizer = make_optimizer(dict(model.named_parameters()), config.optimizer)
    scale = 1 / sum(batch.labels.numel() for batch in batches)
    rate = run.plan.at(1).learning_rate
    number = signed(key(config.training.seed, "dropout", 1))

    def step() -> float:
        optimizer.zero_grad()
        step_key, losses = torch.full((), number, dtype=torch.int64), []
        for batch in batches:
            loss = model(batch, step_key, scale)
            loss.backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_grad)
        update(optimizer, rate)
        return float(torch.stack(losses).sum())

    return step


if __name__ == "__main__":
    run_command(main)
