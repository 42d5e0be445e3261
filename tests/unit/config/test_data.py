import pytest

from megatron.base.errors import UserError
from megatron.config.config import configure
from tests.support.configurations import STOP, problems_of

VALID = [
    "--mock-data false --data-path 0.3 a 0.7 b",
    "--mock-data false --train-data-path a --valid-data-path b",
]
# flags that break one rule, and what its one problem must name
BROKEN = [
    ("--seq-length 0", ["--seq-length 0"]),
    ("--data-path prefix", ["--data-path", "--mock-data"]),
    ("--mock-data false", ["--data-path", "--train-data-path", "--mock-data"]),
    ("--mock-data false --valid-data-path prefix", ["--valid-data-path", "--train-data-path"]),
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


def test_made_up_tokens_need_a_vocabulary() -> None:
    flags = {"num_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "seq_length": 128}
    with pytest.raises(UserError, match="--mock-data needs --vocab-size"):
        configure(**flags, micro_batch_size=2, lr=1e-3, train_iters=1, mock_data=True)
