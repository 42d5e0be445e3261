import pytest

from tests.support.configurations import STOP, problems_of

VALID = [
    "--save out --save-interval 5 --save-retain-interval 10",
    "--load out --ckpt-step 5 --finetune",
]
# flags that break one rule, and what its one problem must name
BROKEN = [
    ("--save out --save-interval 0", ["--save-interval 0"]),
    ("--save out --save-retain-interval 0", ["--save-retain-interval 0"]),
    ("--save-interval 5", ["--save-interval", "--save FOLDER"]),
    ("--save-retain-interval 5", ["--save-retain-interval", "--save FOLDER"]),
    ("--ckpt-step 5", ["--ckpt-step", "--load FOLDER"]),
    ("--finetune", ["--finetune", "--load FOLDER"]),
    ("--use-checkpoint-args", ["--use-checkpoint-args", "--load FOLDER"]),
    ("--exit-on-missing-checkpoint", ["--exit-on-missing-checkpoint", "--load FOLDER"]),
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
