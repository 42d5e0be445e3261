"""Values that mean "off" or "all" to other programs are refused with what to do instead."""

import pytest

from megatron.config.arguments import understand
from megatron.config.config import Config
from megatron.config.other_megatrons import FOREIGN_FLAGS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--eval-interval 0", "must be at least 1; leave it out to validate at the end alone"),
        (
            "--eval-interval none",
            "not 'none'; leave it out to validate at the end alone; --eval-iters 0",
        ),
        ("--eval-iters -1", "must not be negative; a large number takes all windows"),
        ("--save-interval 0", "must be at least 1; leave it out to save at the end alone"),
        ("--save-retain-interval 0", "leave it out to keep all of them"),
        ("--log-interval 0", "a large number leaves the first line and the last"),
        ("--exit-interval 0", "must be above 0; leave it out to train to the end"),
        ("--exit-duration-in-mins -1", "leave it out for no limit"),
        ("--train-iters 0", "--load FOLDER --skip-train evaluates without training"),
        ("--train-samples -1", "one without an end is given a large number"),
        ("--ckpt-step -1", "must not be negative; leave it out to load the newest"),
        ("--ckpt-step latest", "not 'latest'; leave it out to load the newest"),
        ("--clip-grad -1", "0 is off"),
        ("--clip-grad none", "0 is off"),
        ("--loss-scale dynamic", "leave it out for a factor that adapts itself"),
        ("--recompute-granularity none", "leave it out to compute nothing again"),
        ("--recompute-num-layers 0", "leave --recompute-granularity out"),
        ("--num-experts 0", "1 is none"),
        ("--optimizer adamw", "choose one of adam; it is AdamW"),
    ],
)
def test_a_value_that_means_something_elsewhere(words: str, said: str) -> None:
    (problem,) = understand(Config, words.split(), foreign=FOREIGN_FLAGS)[1]
    assert problem.startswith(words.split()[0]) and said in problem


def test_a_negative_value_behind_an_unknown_flag_is_no_flag() -> None:
    assert understand(Config, ["--max-steps", "-1"], foreign=FOREIGN_FLAGS)[1] == [
        "unknown flag --max-steps; here it is --train-iters"
    ]
    (problem,) = understand(Config, ["--bf16", "true", "-1"], foreign=FOREIGN_FLAGS)[1]
    assert problem == "'-1' stands where no value is expected; flags begin with --"
