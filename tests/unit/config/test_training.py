import pytest

from tests.support.configurations import GPT_1B, STOP, problems_of

VALID = [
    "--global-batch-size 24 --rampup-batch-size 8 8 1000",
    "--exit-interval 10",
    "--skip-train --load out",
]
# flags that break one rule, and what its one problem must name
BROKEN = [
    ("--micro-batch-size 0", ["--micro-batch-size 0"]),
    ("--global-batch-size -2", ["--global-batch-size -2"]),
    ("--global-batch-size 3", ["--global-batch-size 3", "--micro-batch-size 2"]),
    ("--global-batch-size 8 --rampup-batch-size 2 2", ["--rampup-batch-size", "start, increment, samples"]),
    (
        "--global-batch-size 8 --rampup-batch-size 2 4 100",
        ["--rampup-batch-size 2 4 100", "--global-batch-size 8"],
    ),
    (
        "--global-batch-size 8 --rampup-batch-size 10 2 100",
        ["--rampup-batch-size 10 2 100", "--global-batch-size 8"],
    ),
    ("--global-batch-size 8 --rampup-batch-size 0 2 100", ["--rampup-batch-size 0 2 100"]),
    ("--global-batch-size 8 --rampup-batch-size 2 2 -5", ["--rampup-batch-size 2 2 -5"]),
    (
        "--global-batch-size 8 --rampup-batch-size 1 1 100",
        ["--rampup-batch-size 1 1", "--micro-batch-size 2"],
    ),
    ("--train-iters 0", ["--train-iters 0"]),
    ("--train-samples -1", ["--train-samples -1"]),
    ("--train-tokens 0", ["--train-tokens 0"]),
    ("--exit-interval 0", ["--exit-interval 0"]),
    ("--skip-train", ["--skip-train", "--load FOLDER"]),
]


@pytest.mark.parametrize("flags", VALID)
def test_a_valid_configuration_has_no_problem(flags: str) -> None:
    assert problems_of(STOP + flags) == []


@pytest.mark.parametrize("flags, words", BROKEN, ids=[flags for flags, _ in BROKEN])
def test_every_rule_broken_alone_is_one_problem_that_names_flag_and_value(
    flags: str, words: list[str]
) -> None:
    (problem,) = problems_of(STOP + flags)
    assert all(word in problem for word in words), problem


def test_data_parallel_ranks_count_in_the_batch() -> None:
    (problem,) = problems_of(STOP + "--global-batch-size 12", ranks=4)
    assert (
        "--global-batch-size 12" in problem and "--micro-batch-size 2 x 4 data-parallel ranks = 8" in problem
    )
    assert problems_of(STOP + "--global-batch-size 12", ranks=3) == []
    (problem,) = problems_of(STOP + "--global-batch-size 24 --rampup-batch-size 4 4 100", ranks=4)
    assert "--rampup-batch-size 4 4" in problem and "= 8" in problem


def test_a_run_needs_a_stop() -> None:
    (problem,) = problems_of("")
    assert all(name in problem for name in ("--train-iters", "--train-samples", "--train-tokens"))


@pytest.mark.parametrize(
    "flags, ranks",
    [
        ("--train-tokens 300e9 --train-samples 500e6", 64),
        ("--train-samples 1000 --lr-decay-samples 900 --lr-warmup-tokens 0 --lr-warmup-samples 900", 1),
    ],
)
def test_a_large_run(flags: str, ranks: int) -> None:
    assert problems_of(GPT_1B + flags, ranks) == []
