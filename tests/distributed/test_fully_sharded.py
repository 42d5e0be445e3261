"""Weights and gradients that ranks share by PyTorch's fully_shard: rows that do not divide, validation in
between, and what is cast and summed in which precision."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist

from megatron.config.parallel import GRADIENTS, WEIGHTS
from megatron.evaluation.losses import mean_losses
from megatron.model.gpt import GPT
from megatron.model.inputs import GPTInputs
from megatron.parallel.fully_sharded import make_gradients
from megatron.parallel.initialization import initialize_weights
from megatron.parallel.mesh import Mesh, sum_over
from megatron.parallel.placement import fill_constants
from megatron.tasks.architecture import gpt_architecture
from tests.support.configurations import make_config
from tests.support.corpora import make_corpus
from tests.support.models import PLAIN, SHAPE, VOCAB, loss_of, random_batch
from tests.support.parity import BASE, MODELS, ZERO2, ZERO3, make_run, train_steps
from tests.support.ranks import handed_in, run_ranks

NARROW = "--hidden-size 12 --num-attention-heads 2 "
ROWS = 10


def update(mesh: Mesh, strategy: str) -> tuple[dict[str, tuple[tuple[int, ...], torch.Tensor]], float]:
    """Weights with their places behind `w -= sum of gradients` of two steps of two micro-batches, and the
    norm of the last sums."""
    with torch.device("meta"):
        model = GPT(gpt_architecture(make_config(SHAPE + NARROW + PLAIN), VOCAB)).double()
    buckets = make_gradients((model,), mesh, strategy)
    initialize_weights(buckets.held, buckets.held_placements, 5)
    fill_constants(model)
    batch = random_batch(ROWS)
    for _ in range(2):
        buckets.zero()
        buckets.begin(2)
        for half in torch.arange(ROWS).view(2, -1):
            rows = half[mesh.data.rank :: mesh.data.size]
            loss_of(model, GPTInputs(batch.tokens[rows], batch.labels[rows], rows)).backward()
        buckets.wait()
        norm = float(sum_over(buckets.square(), mesh.world).sqrt())
        buckets.scale(0.5)
        with torch.no_grad():
            for one in buckets.parameters.values():
                one -= 0.02 * one.grad
        buckets.share_weights()
    places = buckets.held_placements
    return {name: (places[name].offset, one.detach()) for name, one in buckets.held.items()}, norm


@pytest.mark.parametrize(("ranks", "strategy"), [(2, GRADIENTS), (5, WEIGHTS)])
def test_rows_that_do_not_divide(ranks: int, strategy: str) -> None:
    """Of 12 rows four of five ranks have three, and the last has none; of 101 padded to 128 it has 24."""
    ((wanted, norm),) = run_ranks(1, update, strategy)
    found = run_ranks(ranks, update, strategy)
    if ranks == 5:
        rows = [len(weights["layers.0.attention.query.weight"][1]) for weights, _ in found]
        assert rows == [3, 3, 3, 3, 0]
    for name, (_, whole) in wanted.items():
        parts = torch.cat([weights[name][1] for weights, _ in found])
        torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)
        starts = [weights[name][0][0] for weights, _ in found]
        sizes = [len(weights[name][1]) for weights, _ in found]
        assert starts == [sum(sizes[:rank]) for rank in range(ranks)]
    assert all(abs(other - norm) < 1e-10 * norm for _, other in found)


def with_validation(mesh: Mesh, flags: str) -> tuple[torch.Tensor, list[float]]:
    """A run that scores five windows in micro-batches of two before its first and behind every step."""
    run = make_run(mesh, flags, torch.float64, mesh.data.size)
    corpora, found = [(None, make_corpus(5, 64))], []
    windows = torch.stack([torch.zeros(5, dtype=torch.int64), torch.arange(5)], 1).numpy()

    def score() -> None:
        means = mean_losses(run.task, run.config, run.stages, run.rows, corpora, windows, 2, mesh)
        found.append(means[""]["lm loss"])

    score()
    points = []
    for number in range(1, 5):
        points.append(train_steps(run, number, number))
        score()
    return torch.cat(points), found


@pytest.mark.parametrize("flags", [ZERO2, ZERO3])
def test_a_validation_in_between_whose_windows_do_not_divide(flags: str) -> None:
    """Three micro-batches of windows on two ranks: who has none left still hands in its rows of weights. And
    the step behind it sees no old weights."""
    ((points, losses),) = run_ranks(1, with_validation, BASE + MODELS["gpt"])
    for found, scores in run_ranks(2, with_validation, BASE + MODELS["gpt"] + flags):
        torch.testing.assert_close(found, points, rtol=1e-10, atol=0)
        assert scores == pytest.approx(losses, rel=1e-10)


def first_step(mesh: Mesh, flags: str) -> tuple[torch.Tensor, dict[str, set[torch.dtype]]]:
    """Loss and norm of the first step, and the precisions in which ranks gather and sum."""
    run, seen = make_run(mesh, flags, torch.float32, mesh.data.size), Counter()
    for name in ("all_gather_single", "reduce_scatter_single"):
        function = getattr(dist, name)

        def call(*arguments, name=name, function=function, **named):
            seen[name, handed_in(*arguments, **named).dtype] += 1
            return function(*arguments, **named)

        setattr(dist, name, call)
    return train_steps(run, 1, 1), dict(seen)


def test_in_bf16_weights_are_gathered_as_they_are_computed_and_sums_stay_in_fp32() -> None:
    """The first loss is that of ranks that share nothing, bit for bit, and the norm to fp32's rounding."""
    flags = BASE + MODELS["llama"] + "--bf16 "
    (wanted, _), _ = run_ranks(2, first_step, flags)
    for found, seen in run_ranks(2, first_step, flags + ZERO3):
        assert torch.equal(found[:, 0], wanted[:, 0])
        torch.testing.assert_close(found[:, 1], wanted[:, 1], rtol=1e-6, atol=0)
        layers, micro_batches = 4, 2
        assert seen == {
            ("all_gather_single", torch.bfloat16): 2 * layers * micro_batches,
            ("all_gather_single", torch.float32): micro_batches,  # tables, the last norm and the head
            ("reduce_scatter_single", torch.float32): (layers + 1) * micro_batches,
        }
