import pytest

from tests.support.configurations import STOP, problems_of

VALID = [
    "--random-ltd --random-ltd-duration 5 --random-ltd-layers 1",
    "--curriculum voc:min=1,max=5,duration=9 --difficulty-path folder",
]
# flags that break one rule, and what its one problem must name
BROKEN = [
    ("--random-ltd-duration 5", ["--random-ltd-duration", "--random-ltd"]),
    ("--difficulty-path folder", ["--difficulty-path folder", "--curriculum"]),
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
