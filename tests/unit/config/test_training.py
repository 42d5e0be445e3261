import pytest

from tests.support.configurations import GPT_1B, STOP, problems_of


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
