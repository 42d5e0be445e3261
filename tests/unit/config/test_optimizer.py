import pytest

from tests.support.configurations import STOP, problems_of

VALID = [
    "--lr-decay-style WSD --lr-wsd-decay-iters 20 --lr-warmup-fraction 0",
    "--min-lr 1e-3 --clip-grad 0 --weight-decay 0",
    "--lr-decay-iters 50 --lr-warmup-iters 50",
]
# flags that break one rule, and what its one problem must name
BROKEN = [
    ("--lr 0", ["--lr 0.0 must be above 0"]),
    ("--min-lr 1", ["--min-lr 1.0 must be between 0 and --lr 0.001"]),
    ("--min-lr=-1e-5", ["--min-lr -1e-05 must not be negative"]),
    ("--lr-decay-iters 50 --lr-decay-tokens 5000", ["--lr-decay-iters", "--lr-decay-tokens", "one unit"]),
    ("--lr-decay-iters -5", ["--lr-decay-iters -5"]),
    ("--lr-decay-iters 0", ["--lr-decay-iters 0"]),
    ("--lr-warmup-iters 5 --lr-warmup-samples 10", ["--lr-warmup-iters", "--lr-warmup-samples", "one unit"]),
    (
        "--lr-warmup-iters 5 --lr-warmup-fraction 0.1",
        ["--lr-warmup-iters", "--lr-warmup-fraction", "one unit"],
    ),
    ("--lr-warmup-fraction 1", ["--lr-warmup-fraction 1"]),
    ("--lr-warmup-iters 101", ["--lr-warmup-iters 101", "100 iters"]),
    ("--lr-warmup-iters 51 --lr-decay-iters 50", ["--lr-warmup-iters 51", "50 iters"]),
    ("--lr-warmup-samples -1", ["--lr-warmup-samples -1"]),
    ("--lr-decay-style WSD", ["--lr-decay-style WSD", "--lr-wsd-decay-tokens"]),
    ("--lr-decay-style WSD --lr-wsd-decay-tokens 1000", ["--lr-decay-style WSD", "iters"]),
    ("--adam-beta1 1", ["--adam-beta1 1"]),
    ("--adam-beta2=-0.1", ["--adam-beta2 -0.1"]),
    ("--clip-grad=-1", ["--clip-grad -1"]),
    ("--weight-decay=-1", ["--weight-decay -1"]),
    ("--adam-eps=-1e-8", ["--adam-eps -1e-08"]),
    ("--lr-warmup-init 1", ["--lr-warmup-init 1.0", "--lr 0.001"]),
    ("--lr-wsd-decay-iters 5", ["--lr-decay-style linear", "--lr-decay-style WSD"]),
    ("--lr-decay-style inverse-square-root", ["inverse-square-root", "--lr-warmup-tokens"]),
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
