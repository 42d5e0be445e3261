import pytest

from tests.support.configurations import STOP, problems_of

VALID = [
    "--hidden-size 60 --num-attention-heads 8 --kv-channels 6 --position-embedding-type rope",
    "--group-query-attention --num-query-groups 2 --rotary-percent 0.5 --use-rotary-position-embeddings",
    "--swiglu",
    "--group-query-attention --num-query-groups 1",
    "--num-query-groups 1",
    "--max-position-embeddings 4096",
    "--hidden-dropout 0 --attention-dropout 0",
]
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
    ("--group-query-attention --num-query-groups 0", ["--num-query-groups 0 must be at least 1"]),
    ("--num-query-groups 2", ["--num-query-groups 2", "--group-query-attention"]),
    ("--position-embedding-type rope --kv-channels 5", ["--position-embedding-type rope", "--kv-channels 5"]),
    ("--position-embedding-type rope --rotary-percent 0.1", ["--rotary-percent 0.1", "rope"]),
    ("--position-embedding-type rope --rotary-percent 1.5", ["--rotary-percent 1.5"]),
    ("--max-position-embeddings 64", ["--max-position-embeddings 64", "--seq-length 128"]),
    ("--hidden-dropout 1", ["--hidden-dropout 1"]),
    ("--attention-dropout=-0.1", ["--attention-dropout -0.1"]),
    ("--swiglu --openai-gelu", ["--swiglu", "--openai-gelu"]),
    ("--squared-relu --openai-gelu", ["--openai-gelu and --squared-relu are two activations"]),
    ("--squared-relu --swiglu --openai-gelu", ["--swiglu and --openai-gelu and --squared-relu"]),
    (
        "--position-embedding-type none --use-rotary-position-embeddings",
        ["--use-rotary-position-embeddings", "--position-embedding-type none"],
    ),
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
