"""Texts that would make a folder named ~, $USER, s3: or None, and command lines that word processors and
Windows have changed, are refused with a way out."""

import pytest

from megatron.config.config import Config
from megatron.config.flags import flags_of
from megatron.config.literal import is_path
from tests.support.kitchen import problems, read


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("~no-such-user/runs", "write the whole path"),
        ("run=~/runs/a", "write the whole path"),
        ("$NOT_THERE/runs", "write the path itself"),
        ("/scratch/$USER/runs", "write the path itself"),
        ("/scratch/$USER", "write the path itself"),
        ("${RUNS}", "write the path itself"),
        ("data/${NAME}_text_document", "write the path itself"),
        ("s3://bucket/runs", "mount or copy"),
        ("run=gs://bucket/a", "mount or copy"),
        ("hf://datasets/a", "mount or copy"),
        ("None", "name a file or folder"),
        ("null", "name a file or folder"),
        ("False", "name a file or folder"),
    ],
)
def test_what_no_shell_has_read_is_refused(text: str, told: str) -> None:
    (problem,) = problems("--larder", text)
    assert problem.startswith(f"--larder {text}: ") and told in problem


@pytest.mark.parametrize(
    "text",
    [
        "runs/~a",
        "a~/b",
        "~",
        "a$b",
        "<$>",
        "costs $5/day",
        "C:/x",
        "module:function",
        "runs/[v1]",
        "a:b=c",
        "./None",
        "none.bin",
    ],
)
def test_other_texts_are_taken(text: str) -> None:
    assert read("--larder", text).kitchen.larder == text


def test_texts_that_are_no_paths_say_what_they_like() -> None:
    for text in ("~/ and s3://x and ${y}", "$HOME", "~/b"):
        assert read("--cook", text).kitchen.cook == text


def test_which_flags_take_paths() -> None:
    paths = {one.name for one in flags_of(Config) if one.kind is str and is_path(one.metavar)}
    assert {"save", "data_path", "difficulty_path", "vocab_file", "tokenizer_model", "metrics_file"} <= paths
    assert not paths & {"eod_token", "split", "wandb_project", "curriculum", "random_ltd_layers"}
    assert is_path("NAME=FOLDER ...") and not is_path("NAME=DOLLARS ...")


def test_lines_of_windows_are_one_problem() -> None:
    (problem,) = problems("--fan\r", "--cook", "Ada\r", "\r")
    assert problem.startswith(r"the word '--fan\r' and 2 more of the command ends in a carriage return")
    assert r"sed -i 's/\r$//' SCRIPT" in problem


@pytest.mark.parametrize("word", ["—guests", "–guests", "−−guests=5", "—-guests", "–-oven_size"])
def test_a_dash_is_no_hyphen(word: str) -> None:
    (problem,) = problems(word, "5")
    assert "which is no hyphen; write --" in problem
    assert read("--cook", "— Ada").kitchen.cook == "— Ada"
