"""Values that mean "off" or "all" to other programs are refused with what to do instead."""

import pytest

from megatron.config.arguments import understand, unused_flags
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
        ("--ckpt-step -1", "must not be negative; leave it out to take the newest"),
        ("--ckpt-step latest", "not 'latest'; leave it out to take the newest"),
        ("--clip-grad -1", "0 is off"),
        ("--clip-grad none", "0 is off"),
        ("--loss-scale dynamic", "leave it out for a factor that adapts itself"),
        ("--recompute-granularity none", "leave it out to compute nothing again"),
        ("--recompute-num-layers 0", "leave --recompute-granularity out"),
        ("--num-experts 0", "1 is none"),
        ("--rampup-batch-size none", "not 'none'; leave it out, or in a YAML file the value empty"),
        ("--ffn-hidden-size null", "not 'null'; leave it out, or in a YAML file the value empty"),
        ("--finetune runs/a", "--pretrained-checkpoint FOLDER"),
        ("--seed ${SEED}", "not '${SEED}'; variables are read in paths alone"),
        ("--lr-decay-style $STYLE", "variables are read in paths alone"),
        ("--scale 0.08 1.0", "takes one value, not 2: 0.08 1.0; timm's --scale is --img-crop-scale"),
        ("--batch-size 8", "--micro-batch-size, that of all ranks --global-batch-size"),
        ("--optimizer adamw", "choose one of adam; it is AdamW"),
    ],
)
def test_a_value_that_means_something_elsewhere(words: str, said: str) -> None:
    (problem,) = understand(Config, words.split(), foreign=FOREIGN_FLAGS)[1]
    assert problem.startswith(words.split()[0]) and said in problem


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        ("--load x --no-load-optim --no-load-rng --finetune", []),
        ("--load x --reset-iteration --no-load-lr-state --finetune true", []),
        (
            "--load x --no-load-optim",
            ["--no-load-optim is refused: give --finetune to load the weights alone"],
        ),
        (
            "--load x --no-load-optim --finetune false",
            ["--no-load-optim is refused: give --finetune to load the weights alone"],
        ),
    ],
)
def test_what_finetune_does_in_any_case_may_stand_beside_it(words: str, problems: list[str]) -> None:
    assert understand(Config, words.split(), foreign=FOREIGN_FLAGS)[1] == problems
    notes = unused_flags(Config, words.split(), FOREIGN_FLAGS)
    assert not [one for one in notes if "no-load-optim" in one or "reset-iteration" in one]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("no-accumulate-allreduce-grads-in-fp32", "gradients are always accumulated in fp32"),
        ("enable-gloo-process-groups", "the opposite of --disable-gloo-process-groups: torch.distributed is"),
        ("align-grad-reduce", "the opposite of --no-align-grad-reduce"),
        ("no-checkpoint-activations", "what it turns off is off; leave it out"),
        ("no-qk-layernorm", "is not built here yet; leave that out"),
    ],
)
def test_the_opposite_of_a_flag_is_not_what_is_meant(word: str, said: str) -> None:
    (problem,) = understand(Config, [f"--{word}"], foreign=FOREIGN_FLAGS)[1]
    assert said in problem and "did you mean" not in problem and "--help" not in problem


def test_a_negative_value_behind_an_unknown_flag_is_no_flag() -> None:
    assert understand(Config, ["--max-steps", "-1"], foreign=FOREIGN_FLAGS)[1] == [
        "unknown flag --max-steps; here it is --train-iters"
    ]
    (problem,) = understand(Config, ["--bf16", "true", "-1"], foreign=FOREIGN_FLAGS)[1]
    assert problem == "'-1' stands where no value is expected; flags begin with --"
