"""What a training step does to what it does not own, and how it repeats."""

import dataclasses

import pytest
import torch

from megatron.base.errors import UserError
from megatron.batches.loader import BatchShare
from megatron.train.setup import Run
from megatron.train.step import StepResult, loss_counts, params_norm, train_step
from tests.support.runs import make_run

FUSED = "--attention-backend fused --hidden-dropout 0 --attention-dropout 0.3 --lr 1e-9 "


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


def test_without_a_token_that_counts_a_loss_is_none_and_only_decay_moves_weights() -> None:
    run = make_run("--eod-mask-loss --weight-decay 0 ")
    planned = run.plan.at(1)
    batch = run.rows.batch(run.sampler, planned, BatchShare(0, 1, 2))
    before = [one.clone() for one in run.model.parameters()]
    nothing = [one._replace(loss_mask=torch.zeros(2, 16)) for one in batch]
    assert train_step(run, planned, nothing) == StepResult({"lm loss": None}, 0.0, False)
    assert all(torch.equal(one, other) for one, other in zip(run.model.parameters(), before))


def test_a_norm_or_loss_that_is_not_finite_updates_nothing() -> None:
    run = make_run("")
    run.model.final_norm.bias.data[3] = torch.inf
    before = [one.clone() for one in run.model.parameters()]
    with pytest.raises(UserError, match=r"iteration 2: the loss is nan and the gradient's norm nan; nothing"):
        step(run, 2)
    assert all(torch.equal(one, other) for one, other in zip(run.model.parameters(), before))
    assert not run.optimizer.state


def test_any_wish_to_stop_is_told() -> None:
    run = make_run("")
    planned = run.plan.at(1)
    batch = run.rows.batch(run.sampler, planned, BatchShare(0, 1, 2))
    assert [train_step(run, planned, batch, lambda wish=wish: wish).stop for wish in (True, False)] == [
        True,
        False,
    ]
    assert not train_step(run, planned, batch).stop


def test_norms_are_those_of_all_gradients_and_all_weights() -> None:
    """Before clipping; of the step's own gradients, whatever an earlier step has left."""
    run = make_run("--log-params-norm --clip-grad 0.001 --hidden-dropout 0 --attention-dropout 0 --lr 1e-12 ")
    weights = torch.cat([one.detach().double().flatten() for one in run.model.parameters()])
    assert params_norm(run) == pytest.approx(float(weights.norm()), rel=1e-6)
    assert params_norm(make_run("")) is None
    batch = run.rows.batch(run.sampler, run.plan.at(1), BatchShare(0, 1, 2))
    losses = [run.model.token_losses(one).double() for one in batch]
    results = [train_step(run, run.plan.at(1), batch) for _ in range(2)]
    assert results[0].losses["lm loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-6)
    assert results[0].grad_norm == pytest.approx(results[1].grad_norm, rel=1e-4) != 0
    other = make_run("--hidden-dropout 0 --attention-dropout 0 ").model
    sum(other(one)["lm loss"] / 64 for one in batch).backward()
    gradient = torch.cat([one.grad.double().flatten() for one in other.parameters()])
    assert results[0].grad_norm == pytest.approx(float(gradient.norm()), rel=1e-5)


def test_a_task_counts_the_losses_that_it_names() -> None:
    run = make_run("")
    task = dataclasses.replace(run.task, known_counts=lambda config, step: {"sop loss": 4})
    with pytest.raises(ValueError, match="the task gpt names the losses lm loss; known_counts must, too"):
        loss_counts(dataclasses.replace(run, task=task), run.plan.at(1), [])
    assert loss_counts(run, run.plan.at(1), []) == {"lm loss": 4 * 16}
