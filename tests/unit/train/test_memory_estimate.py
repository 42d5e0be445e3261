"""Memory is known before it is taken: reckoned for a layout's fullest rank, judged against what is free."""

from pathlib import Path

import pytest
import torch

from megatron.base.errors import UserError
from megatron.data.corpora import open_splits
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.layout import Layout
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Data
from megatron.train.memory_estimate import (
    Memory,
    _control_groups,
    _group_free,
    _machine_free,
    check_memory,
    estimate_memory,
    free_memory,
)
from megatron.train.setup import Prepared, join
from tests.support.configurations import make_config

CPU = torch.device("cpu")
FLAGS = "--mock-data --hidden-size 64 --seq-length 128 --global-batch-size 4 --train-iters 8 --eval-iters 0 "
DROPPING = "--random-ltd --random-ltd-min 16 --random-ltd-duration 100 "
UNDROPPED = "--hidden-dropout 0 --attention-dropout 0 "
LENGTHS = "--curriculum seqlen_truncate:min=16,max=128,duration=4,quantum=8 "


def prepare(flags: str) -> Prepared:
    config = make_config(FLAGS + flags)
    efficiency, _ = describe(config)
    return join(GPT_TASK, config, efficiency, Data(open_splits(config), Vocabulary(1000, 0, None)))


def test_recomputation_batch_and_dropping_show_in_the_estimate() -> None:
    full = "--num-layers 8 " + UNDROPPED
    plain = estimate_memory(prepare(full), CPU)
    assert (plain.rows, plain.length) == (2, 128)
    double = estimate_memory(prepare(full + "--micro-batch-size 4"), CPU)
    assert double.activations == pytest.approx(2 * plain.activations, rel=0.1)
    for more in (DROPPING, "--recompute-granularity full "):
        assert estimate_memory(prepare(full + more), CPU).activations < 0.6 * plain.activations
    wide = full.replace(UNDROPPED, "--num-attention-heads 32 --micro-batch-size 1 ")
    selective = estimate_memory(prepare(wide + "--recompute-granularity selective "), CPU).activations
    assert selective < 0.5 * estimate_memory(prepare(wide), CPU).activations
    longest = estimate_memory(prepare(full + LENGTHS), CPU)
    assert longest == plain  # the curriculum ends at full length
    reshaped = estimate_memory(prepare(full + LENGTHS.replace("truncate", "reshape")), CPU)
    assert reshaped.rows * reshaped.length == 256


def test_ranks_that_share_the_optimizer_share_its_moments_alone() -> None:
    layout = Layout(data=4)
    alone, shared = (
        estimate_memory(prepare(flags), CPU, layout) for flags in ("", "--use-distributed-optimizer ")
    )
    assert alone.moments == 2 * alone.weights and shared.moments == alone.moments // 4
    summed = 2 * alone.weights  # both buckets under way are the whole model here, and gloo copies them
    assert shared.activations == max(alone.activations, summed)
    assert shared._replace(moments=alone.moments, activations=alone.activations) == alone


def test_copies_that_are_saved_beside_the_training_are_counted_on_cpus() -> None:
    layout, flags = Layout(tensor=2, data=3), "--save somewhere "
    alone, copied = (estimate_memory(prepare(flags + more), CPU, layout) for more in ("", "--async-save "))
    assert copied == alone._replace(copies=alone.weights)  # a third of weights and two moments
    assert copied.total == alone.total + alone.weights
    assert ", copies " in check_memory(copied, CPU, 1, True)
    assert ", copies " not in check_memory(alone, CPU, 1, True)


def test_ranks_that_share_weights_hold_their_part_between_steps() -> None:
    """What is gathered counts as activations: with ZeRO-2 the whole stage, with ZeRO-3 two of its layers."""
    layout = Layout(tensor=2, context=2, data=6, instances=2)
    strategy = "--num-layers 8 --data-parallel-sharding-strategy optim_grads"
    flags = ("--num-layers 8 ", strategy, strategy + "_params")
    alone, second, third = (estimate_memory(prepare(one), CPU, layout) for one in flags)
    assert third[:3] == second[:3] and third.moments == 2 * third.weights
    assert third.weights == pytest.approx(alone.weights / 6, rel=0.1)  # rows that 6 does not divide
    layer = 4 * (12 * 64 * 64 + 13 * 64) / 2
    assert second.activations - third.activations == pytest.approx(6 * layer, rel=0.05)


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    memory = Memory(2**50, 2**50, 2**51, 2**40, 8, 2048)
    with pytest.raises(UserError) as caught:
        check_memory(memory, CPU, 1, False)
    assert "memory a rank: about 4195328.00 GiB (weights 1048576.00" in str(caught.value)
    assert "it does not fit" in str(caught.value) and "--ignore-memory-estimate" in str(caught.value)
    assert "GiB are free" in check_memory(memory, CPU, 1, True)
    assert "for 4 ranks" in check_memory(Memory(1, 1, 1, 1, 1, 1), CPU, 4, False)


def test_the_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    assert _group_free(tmp_path) is None
    for name, text in {
        "memory.max": "1000",
        "memory.current": "700",
        "memory.stat": "anon 5\ninactive_file 50\nactive_file 20",
    }.items():
        (tmp_path / name).write_text(text + "\n")
    assert _group_free(tmp_path) == 370
    (tmp_path / "memory.max").write_text("max\n")
    assert _group_free(tmp_path) is None
    (tmp_path / "memory.max").write_text("600\n")
    assert _group_free(tmp_path) == 0


def available() -> int:
    """Bytes that the kernel says are free."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def test_what_is_free_is_the_least_that_anything_leaves() -> None:
    """Of the machine, or of a control group where that leaves less; other processes move it meanwhile."""
    before, machine, free = available(), _machine_free(), free_memory(CPU)
    groups = [size for folder in _control_groups() if (size := _group_free(folder)) is not None]
    after, slack = available(), 2**26
    assert machine is not None and free is not None
    assert min(before, after) - slack < machine < max(before, after) + slack
    assert min(before, after, *groups) - slack < free < min(max(before, after), *groups, 2**63) + slack


@pytest.mark.parametrize(
    ("share", "ranks", "fits"), [(0.5, 1, True), (0.3, 2, True), (0.3, 8, False), (2, 1, False)]
)
def test_ranks_share_the_memory_of_their_machine(share: float, ranks: int, fits: bool) -> None:
    """So much of what is free for each of so many ranks."""
    free = free_memory(CPU)
    assert free is not None
    memory = Memory(0, 0, 0, int(share * free), 1, 1)
    assert "it does not fit" not in check_memory(memory, CPU, ranks, True)
    if fits:
        assert check_memory(memory, CPU, ranks, False)
    else:
        with pytest.raises(UserError, match="it does not fit; lower --micro-batch-size"):
            check_memory(memory, CPU, ranks, False)
