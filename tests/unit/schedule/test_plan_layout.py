"""What a layout of ranks cannot do with a plan is told before any rank starts, with its rule."""

import pytest

from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan_layout import layout_problems, planned_problems
from tests.support.configurations import make_config, make_plan

GROWING = "--train-iters 20 --curriculum seqlen_truncate:min=8,max=128,duration=10,quantum=4 "
LTD = "--train-iters 20 --random-ltd --random-ltd-min 24 --random-ltd-quantum 8 --random-ltd-duration 10 "


def problems(flags: str, replicas: int = 1) -> list[str]:
    config = make_config(flags, replicas)
    efficiency, _ = describe(config)
    return layout_problems(config, make_plan(config, efficiency), replicas)


@pytest.mark.parametrize(
    ("flags", "multiple", "where"),
    [
        (GROWING + "--context-parallel-size 2", 0, ""),
        (GROWING + "--context-parallel-size 4", 8, "rows of length 20 at step 1,"),
        (GROWING + "--tensor-model-parallel-size 4", 0, ""),
        (GROWING + "--tensor-model-parallel-size 4 --sequence-parallel", 0, ""),
        (LTD + "--context-parallel-size 4", 0, ""),
        (
            LTD + "--context-parallel-size 4 --tensor-model-parallel-size 4 --sequence-parallel",
            16,
            "kept tokens of length 24 at step 1",
        ),
        (
            "--train-iters 2 --seq-length 132 --context-parallel-size 4",
            8,
            "--seq-length 132, rows of length 132",
        ),
    ],
)
def test_lengths_that_slices_do_not_divide(flags: str, multiple: int, where: str) -> None:
    found = problems(flags)
    assert len(found) == (multiple > 0)
    for line in found:
        assert f"must be a multiple of {multiple}, " in line and "fewer ranks" in line
        assert where.rstrip(",") in line


def test_copies_of_what_is_shared_that_do_not_divide_the_ranks() -> None:
    flags = "--train-iters 2 --seq-length 128 --use-torch-fsdp2 --num-distributed-optimizer-instances 4 "
    assert problems(flags, 4) == problems(flags, 8) == problems(flags + "--context-parallel-size 2", 2) == []
    (line,) = problems(flags, 6)
    assert "--num-distributed-optimizer-instances 4: 6 data-parallel ranks cannot be parted" in line
    (line,) = problems(flags + "--context-parallel-size 2", 3)
    assert "3 data-parallel ranks x --context-parallel-size 2 cannot" in line


EXPERTS = "--train-iters 2 --num-experts 8 "


@pytest.mark.parametrize(
    ("flags", "replicas", "told"),
    [
        ("--expert-model-parallel-size 4", 4, ""),
        (
            "--expert-model-parallel-size 4",
            6,
            "--expert-model-parallel-size 4: the 6 ranks that compute a layer (tensor x context x data) "
            "cannot be parted into groups of 4; give --expert-model-parallel-size 2, or start other ranks",
        ),
        (
            "--expert-model-parallel-size 2 --tensor-model-parallel-size 4",
            1,
            "--expert-model-parallel-size 2 x --expert-tensor-parallel-size 4: the 4 ranks that compute a "
            "layer (tensor x context x data) cannot be parted into groups of 8; give "
            "--expert-model-parallel-size 1, or start other ranks",
        ),
        (
            "--expert-tensor-parallel-size 2",
            3,
            "--expert-model-parallel-size 1 x --expert-tensor-parallel-size 2: the 3 ranks that compute a "
            "layer (tensor x context x data) cannot be parted into groups of 2; give "
            "--expert-tensor-parallel-size 1, or start other ranks",
        ),
        (
            "--expert-model-parallel-size 2 --expert-tensor-parallel-size 4",
            6,
            "--expert-model-parallel-size 2 x --expert-tensor-parallel-size 4: the 6 ranks that compute a "
            "layer (tensor x context x data) cannot be parted into groups of 8; give "
            "--expert-tensor-parallel-size 2 and --expert-model-parallel-size 1, or start other ranks",
        ),
        (
            "--expert-model-parallel-size 4 --use-torch-fsdp2 --num-distributed-optimizer-instances 2",
            4,
            "--num-distributed-optimizer-instances 2: with --expert-model-parallel-size 4 only 1 of 4 ranks "
            "has an expert",
        ),
    ],
)
def test_ranks_that_cannot_share_experts(flags: str, replicas: int, told: str) -> None:
    found = problems(EXPERTS + flags, replicas)
    assert len(found) == bool(told) and all(one.startswith(told) for one in found)


@pytest.mark.parametrize(
    ("flags", "replicas", "told"),
    [
        (
            EXPERTS + "--expert-model-parallel-size 4",
            1,
            "give --expert-model-parallel-size 1, or plan for {} 4",
        ),
        (
            EXPERTS + "--expert-model-parallel-size 4",
            6,
            "give --expert-model-parallel-size 2, or plan for {} 8",
        ),
        (
            EXPERTS
            + "--expert-model-parallel-size 8 --expert-tensor-parallel-size 2 --tensor-model-parallel-size 2",
            1,
            "give --expert-model-parallel-size 1, or plan for {} 8",
        ),
        ("--train-iters 2 --use-torch-fsdp2 --num-distributed-optimizer-instances 4", 6, "or plan for {} 8"),
    ],
)
def test_a_plan_names_the_ranks_that_would_do(flags: str, replicas: int, told: str) -> None:
    """It starts none; with so many nothing is wrong, and with no fewer above those there are."""
    config = make_config(flags, replicas)
    plan = make_plan(config, describe(config)[0])
    (line,) = planned_problems(config, plan, replicas)
    assert line.endswith(told.format("--data-parallel-size"))
    more = int(line.split()[-1])
    fits = [one for one in range(replicas, more + 1) if not problems(flags, one)]
    assert fits == [more]


def test_micro_batches_that_do_not_go_in_groups() -> None:
    flags = (
        "--train-iters 9 --num-layers 4 --pipeline-model-parallel-size 2 "
        "--num-virtual-stages-per-pipeline-rank 2 --micro-batch-size 2 --global-batch-size "
    )
    assert problems(flags + "16") == [] == problems(flags + "16", 2)
    (line,) = problems(flags + "20", 2)
    assert "in groups of --pipeline-model-parallel-size 2" in line and "at step 1 a rank has 5" in line
    (line,) = problems(flags + "16 --rampup-batch-size 4 2 40")
    assert "at step 3 a rank has 3" in line
