import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.config.checks import problems

from tests.support.configurations import GPT_1B, make_config

STOP = "--train-iters 100 "


def found(flags: str, ranks: int = 1) -> list[str]:
    return problems(make_config(flags, ranks), ranks)


@pytest.mark.parametrize(
    "flags, ranks",
    [
        (STOP, 1),
        (STOP + "--global-batch-size 24 --rampup-batch-size 8 8 1000", 4),
        (GPT_1B + "--train-tokens 300e9 --train-samples 500e6", 64),
        (
            GPT_1B
            + "--train-samples 1000 --lr-decay-samples 900 --lr-warmup-tokens 0 --lr-warmup-samples 900",
            1,
        ),
        (STOP + "--hidden-size 60 --num-attention-heads 8 --kv-channels 6 --position-embedding-type rope", 1),
        (
            STOP + "--group-query-attention --num-query-groups 2 --swiglu --rotary-percent 0.5 "
            "--use-rotary-position-embeddings",
            1,
        ),
        (STOP + "--group-query-attention --num-query-groups 1", 1),
        (STOP + "--lr-decay-style WSD --lr-wsd-decay-iters 20 --lr-warmup-fraction 0", 1),
        (
            STOP + "--min-lr 1e-3 --clip-grad 0 --weight-decay 0 --hidden-dropout 0 --attention-dropout 0 "
            "--eval-iters 0",
            1,
        ),
        (
            STOP + "--mock-data false --data-path 0.3 a 0.7 b --save out --save-interval 5 "
            "--save-retain-interval 10",
            1,
        ),
        (
            STOP
            + "--mock-data false --train-data-path a --valid-data-path b --load out --ckpt-step 5 --finetune",
            1,
        ),
        (STOP + "--max-position-embeddings 4096 --exit-interval 10 --eval-interval 10 --log-interval 1", 1),
    ],
)
def test_a_valid_configuration_has_no_problem(flags: str, ranks: int) -> None:
    assert found(flags, ranks) == []


# flags that break one rule, and what its one problem must name
BROKEN = [
    ("--num-layers 0", ["--num-layers 0"]),
    ("--hidden-size 0", ["--hidden-size 0"]),
    ("--hidden-size -64", ["--hidden-size -64"]),
    ("--num-attention-heads 0", ["--num-attention-heads 0"]),
    ("--ffn-hidden-size -1", ["--ffn-hidden-size -1"]),
    ("--kv-channels -1", ["--kv-channels -1"]),
    ("--make-vocab-size-divisible-by 0", ["--make-vocab-size-divisible-by 0"]),
    ("--hidden-size 66", ["--hidden-size 66", "--num-attention-heads 4", "--kv-channels"]),
    ("--hidden-size 2 --num-attention-heads 4", ["--hidden-size 2", "--num-attention-heads 4"]),
    ("--group-query-attention --num-query-groups 3", ["--num-query-groups 3", "--num-attention-heads 4"]),
    ("--group-query-attention --num-query-groups 0", ["--num-query-groups 0", "--num-attention-heads 4"]),
    ("--num-query-groups 2", ["--num-query-groups 2", "--group-query-attention"]),
    ("--position-embedding-type rope --kv-channels 5", ["--position-embedding-type rope", "--kv-channels 5"]),
    ("--position-embedding-type rope --rotary-percent 0.1", ["--rotary-percent 0.1", "rope"]),
    ("--position-embedding-type rope --rotary-percent 1.5", ["--rotary-percent 1.5"]),
    ("--max-position-embeddings 64", ["--max-position-embeddings 64", "--seq-length 128"]),
    ("--hidden-dropout 1", ["--hidden-dropout 1"]),
    ("--attention-dropout=-0.1", ["--attention-dropout -0.1"]),
    ("--swiglu --openai-gelu", ["--swiglu", "--openai-gelu"]),
    ("--seq-length 0", ["--seq-length 0"]),
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
    ("--log-interval 0", ["--log-interval 0"]),
    ("--tensorboard-log-interval 0", ["--tensorboard-log-interval 0"]),
    ("--eval-interval 0", ["--eval-interval 0"]),
    ("--eval-iters -1", ["--eval-iters -1"]),
    ("--exit-interval 0", ["--exit-interval 0"]),
    ("--save out --save-interval 0", ["--save-interval 0"]),
    ("--save out --save-retain-interval 0", ["--save-retain-interval 0"]),
    ("--save-interval 5", ["--save-interval", "--save FOLDER"]),
    ("--save-retain-interval 5", ["--save-retain-interval", "--save FOLDER"]),
    ("--ckpt-step 5", ["--ckpt-step", "--load FOLDER"]),
    ("--finetune", ["--finetune", "--load FOLDER"]),
    ("--use-checkpoint-args", ["--use-checkpoint-args", "--load FOLDER"]),
    ("--exit-on-missing-checkpoint", ["--exit-on-missing-checkpoint", "--load FOLDER"]),
    ("--lr 0", ["--lr 0"]),
    ("--min-lr 1", ["--min-lr 1"]),
    ("--min-lr=-1e-5", ["--min-lr -1e-05"]),
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
    ("--data-path prefix", ["--data-path", "--mock-data"]),
    ("--mock-data false", ["--data-path", "--train-data-path", "--mock-data"]),
    ("--mock-data false --valid-data-path prefix", ["--valid-data-path", "--train-data-path"]),
    ("--vocab-size 0", ["--vocab-size 0"]),
]


@pytest.mark.parametrize("flags, words", BROKEN, ids=[flags for flags, _ in BROKEN])
def test_every_rule_broken_alone_is_one_problem_that_names_flag_and_value(
    flags: str, words: list[str]
) -> None:
    (problem,) = found(STOP + flags)
    assert all(word in problem for word in words), problem


def test_data_parallel_ranks_count_in_the_batch() -> None:
    (problem,) = found(STOP + "--global-batch-size 12", ranks=4)
    assert (
        "--global-batch-size 12" in problem and "--micro-batch-size 2 x 4 data-parallel ranks = 8" in problem
    )
    assert found(STOP + "--global-batch-size 12", ranks=3) == []
    (problem,) = found(STOP + "--global-batch-size 24 --rampup-batch-size 4 4 100", ranks=4)
    assert "--rampup-batch-size 4 4" in problem and "= 8" in problem


def test_a_run_without_a_stop_and_mock_data_without_a_vocabulary() -> None:
    (problem,) = found("")
    assert all(name in problem for name in ("--train-iters", "--train-samples", "--train-tokens"))
    config = make_config(STOP)
    config = dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, vocab_size=None))
    (problem,) = problems(config, 1)
    assert "--mock-data needs --vocab-size" in problem


# broken rules that have nothing to do with each other
APART = [
    "--num-layers 0",
    "--global-batch-size 3",
    "--lr 0",
    "--lr-warmup-fraction 1",
    "--adam-beta1 1",
    "--clip-grad=-1",
    "--eval-iters -1",
    "--data-path prefix",
    "--finetune",
    "--save-interval 5",
    "--exit-interval 0",
]


@given(st.lists(st.sampled_from(APART), unique=True))
@settings(deadline=None)
def test_all_broken_rules_are_told_together(flags: list[str]) -> None:
    told = found(STOP + " ".join(flags))
    assert len(told) == len(flags)
    for flag in flags:
        assert sum(flag.split()[0].split("=")[0] in problem for problem in told) >= 1
