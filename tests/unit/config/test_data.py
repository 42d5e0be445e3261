import re

import pytest

from megatron.base.errors import UserError
from megatron.config.config import configure
from megatron.config.data import split_numbers
from megatron.data.corpora import parse_split
from tests.support.configurations import STOP, problems_of


def test_made_up_tokens_need_a_vocabulary() -> None:
    flags = {"num_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "seq_length": 128}
    with pytest.raises(UserError, match="--mock-data needs --vocab-size"):
        configure(**flags, micro_batch_size=2, lr=1e-3, train_iters=1, mock_data=True)


@pytest.mark.parametrize(
    "text",
    [
        "969,30,1",
        "949,50,1",
        "0.9,0.1",
        ".98,.01,.01",
        "98/1/1",
        "100",
        "1,0,0",
        " 9, 1 ",
        "9 1",
        "[9, 1]",
        "5.",
    ],
)
def test_a_split_is_read_as_megatron_reads_it(text: str) -> None:
    """Megatron takes every run of digits and dots, and brings them to a sum of one."""
    theirs = [float(part) for part in re.findall(r"[.0-9]+", text)]
    assert split_numbers(text) == theirs
    shares = [high - low for low, high in parse_split(text)]
    padded = theirs + [0.0] * (3 - len(theirs))
    assert shares == pytest.approx([part / sum(theirs) for part in padded])
    assert problems_of(f"{STOP} --split '{text}'") == []


@pytest.mark.parametrize(
    "text",
    ["1e2,3,1", "969,30,1,5", "0.9-0.1", "-1,2,3", "9;1", "1,,2", "9,1,", "nan,1", "inf", "1.2.3", "one,two"]
    + ["0,0,0", "+9,1", "9%,1%", "\u0663,1", "", "969 ,, 30", "1_000,1"],
)
def test_a_split_that_would_be_read_as_something_else_is_one_problem(text: str) -> None:
    (problem,) = problems_of(f"{STOP} --split={text!r}" if text else STOP + "--split ''")
    assert "--split" in problem
    with pytest.raises(UserError, match="--split"):
        parse_split(text)


def test_the_quotes_of_a_script_that_quotes_twice_are_no_part_of_a_split() -> None:
    assert split_numbers("'99,1,0'") == split_numbers('"99,1,0"') == [99, 1, 0]


def test_a_split_that_nothing_is_split_by_is_refused() -> None:
    whole = f"{STOP} --mock-data false --train-data-path a --valid-data-path b"
    (problem,) = problems_of(f"{whole} --split 90,5,5")
    assert problem.startswith("--split 90,5,5: without effect, as --train-data-path and its fellows ")
    assert problem.endswith("leave it out, or give one --data-path with it")
    assert problems_of(whole) == problems_of(f"{whole} --split 969,30,1") == []
