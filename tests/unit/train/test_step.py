"""What a training step does to what it does not own, and how it repeats."""

import pytest
import torch

from megatron.batches.loader import BatchShare
from megatron.data.corpora import open_splits
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Data
from megatron.train.setup import Run, build, join
from megatron.train.step import StepResult, train_step
from tests.support.configurations import make_config

FLAGS = (
    "--num-layers 2 --hidden-size 16 --seq-length 16 --global-batch-size 4 --train-iters 5 --eval-iters 0 "
)


FUSED = "--attention-backend fused --hidden-dropout 0 --attention-dropout 0.3 --lr 1e-9 "


def make_run(flags: str) -> Run:
    config = make_config(FLAGS + flags)
    efficiency, _ = describe(config)
    data = Data(open_splits(config), Vocabulary(100, 0, None))
    run = build(join(GPT_TASK, config, efficiency, data), Mesh())
    torch.set_flush_denormal(False)
    run.model.train()
    return run


def step(run: Run, number: int = 1) -> StepResult:
    planned = run.plan.at(number)
    return train_step(run, planned, run.rows.batch(run.sampler, planned, BatchShare(0, 1, 2)))


@pytest.mark.parametrize(
    "flags", ["", "--attention-backend fused ", "--attention-backend fused --hidden-dropout 0 "]
)
def test_a_step_repeats_and_leaves_the_generator_alone(flags: str) -> None:
    """Attention kernels that drop by themselves draw from the device's generator: seeded for the step, and
    given back as it was."""
    torch.manual_seed(1)
    first = step(make_run(flags))
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again = step(make_run(flags))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first == again


def test_dropout_in_kernels_differs_by_step_and_survives_recomputation() -> None:
    plain = step(make_run(FUSED.replace("0.3", "0")))
    dropped, recomputed = step(make_run(FUSED)), step(make_run(FUSED + "--recompute-granularity full "))
    assert dropped == recomputed
    assert dropped.losses != plain.losses
    run = make_run(FUSED)
    batch = run.rows.batch(run.sampler, run.plan.at(1), BatchShare(0, 1, 2))
    losses = [train_step(run, run.plan.at(1)._replace(number=number), batch).losses for number in (1, 2)]
    assert losses[0] != losses[1]


def seeds_of(run: Run, number: int, rank: int = 0, ranks: int = 1) -> list[int]:
    """The seed of the device's generator in the forward pass of every micro-batch of a step."""
    seen: list[int] = []
    hook = run.model.register_forward_pre_hook(lambda *_: seen.append(torch.initial_seed()))
    planned = run.plan.at(number)
    train_step(run, planned, run.rows.batch(run.sampler, planned, BatchShare(rank, ranks, 2)))
    hook.remove()
    return seen


def test_kernels_drop_by_seed_step_and_first_row_whichever_rank_computes_it() -> None:
    run = make_run(FUSED)
    seeds = {number: seeds_of(run, number) for number in (1, 2, 3)}
    assert [len(part) for part in seeds.values()] == [2, 2, 2]
    assert len({seed for part in seeds.values() for seed in part}) == 6
    assert seeds_of(run, 1) == seeds[1]
    shared = [seeds_of(run, 1, rank, 2) for rank in (0, 1)]
    assert shared == [[seed] for seed in seeds[1]]
    assert not set(seeds_of(make_run(FUSED + "--seed 7 "), 1)) & set(seeds[1])


def test_equal_rows_at_other_places_drop_otherwise() -> None:
    """A step of four equal rows: its two micro-batches differ by what their kernels drop alone."""
    run = make_run(FUSED)
    planned = run.plan.at(1)
    first, second = run.rows.batch(run.sampler, planned, BatchShare(0, 1, 2))
    alike = second._replace(tokens=first.tokens, labels=first.labels)
    losses = [train_step(make_run(FUSED), planned, [first, one]).losses["lm loss"] for one in (first, alike)]
    assert None not in losses and losses[0] != losses[1]


def test_a_mean_is_over_the_tokens_that_count() -> None:
    """With --eod-mask-loss the count comes of the masks, and the loss is that of the tokens left."""
    run = make_run("--eod-mask-loss --hidden-dropout 0 --attention-dropout 0 ")
    planned = run.plan.at(1)
    batch = run.rows.batch(run.sampler, planned, BatchShare(0, 1, 2))
    masks = [torch.rand(2, 16).gt(0.4).float() for _ in batch]
    batch = [one._replace(loss_mask=mask) for one, mask in zip(batch, masks)]
    with torch.no_grad():
        wanted = sum((run.model.token_losses(one) * mask).sum() for one, mask in zip(batch, masks))
    found = train_step(run, planned, batch).losses["lm loss"]
    assert found == pytest.approx(float(wanted / torch.stack(masks).sum()), rel=1e-6)
