from importlib.machinery import ModuleSpec

import pytest

from tests.support.configurations import STOP, problems_of

VALID = [
    "--eval-interval 10 --log-interval 1 --eval-iters 0",
    "--profile --profile-step-start 0 --profile-step-end 1 --profile-ranks 0 1",
    "--profile-step-start 50 --timing-log-level 2 --timing-log-option all",
]
# flags that break one rule, and what its one problem must name
BROKEN = [
    ("--log-interval 0", ["--log-interval 0"]),
    ("--tensorboard-log-interval 0", ["--tensorboard-log-interval 0"]),
    ("--eval-interval 0", ["--eval-interval 0"]),
    ("--eval-iters -1", ["--eval-iters -1"]),
    ("--profile --profile-step-start 12", ["--profile-step-start 12", "--profile-step-end 12"]),
    ("--profile-step-start -1", ["--profile-step-start -1"]),
    ("--profile-ranks 0 -2", ["--profile-ranks -2"]),
    ("--device-peak-tflops 0", ["--device-peak-tflops 0.0"]),
    ("--tensorboard-queue-size 0", ["--tensorboard-queue-size 0"]),
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


@pytest.mark.parametrize("spec", [None, ModuleSpec("wandb", None)])  # the latter: a folder of that name
def test_wandb_is_asked_for_only_where_it_is_installed(
    spec: ModuleSpec | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron.config.logging.find_spec", lambda _: spec)
    assert problems_of(STOP + "--wandb-project mine") == [
        "--wandb-project mine needs the package wandb; install it by pip install wandb, or leave the flag out"
    ]
    assert problems_of(STOP + "--wandb-project mine --dry-run") == []
