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
        ("${oc.env:NOPE,runs}/a", "write the path itself"),
        ("${NOPE:-runs}/a", "write the path itself"),
        ("{{OUTPUT}}/a", "write the path itself"),
        ("%(HOME)s/runs", "write the path itself"),
        ("None", "leave it out"),
        ("run=null", "leave it out"),
        ("null", "leave it out"),
        ("False", "leave it out"),
        (r"C:\runs\a", "write /"),
        (r"data\my_text_document", "write /"),
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
        "runs/{a}",
        "50%(of)",
        "a:b=c",
        "None/a",
        r"logs/\[v1\]/*",
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


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (" ", "no space may follow the"),
        ("", "a variable in quotes may be empty"),
        ("@flags.txt", "in a YAML file, which --config names"),
        ("lr=1e-3", "write lr=1e-3 as --lr 1e-3"),
        ("++training.oven_size=2", "write ++training.oven_size=2 as --oven-size 2"),
        ("--seq-length 32", "'--seq-length 32' is one word; give the flag and its value as two"),
    ],
)
def test_a_word_where_none_is_expected_is_told_the_way(word: str, told: str) -> None:
    for before in (["--guests", "5"], ["--guests=5"]):  # behind a value, and behind a whole flag
        (problem,) = problems(*before, word)
        assert told in problem


def test_the_rank_that_launchers_put_behind_a_script_is_none_of_its_words() -> None:
    for words in (["--local-rank=1"], ["--local_rank=1"], ["--local_rank", "1"]):
        assert read(*words, "--guests", "5").kitchen == read("--guests", "5").kitchen


def test_a_long_flag_with_one_dash_is_told_in_a_line() -> None:
    (problem,) = problems("-hats", "5")
    assert "ignored explicit argument 'ats'; flags begin with --, and --help lists all" in problem


def test_an_empty_file_of_flags_is_told() -> None:
    assert problems("--config", "") == ("--config is given an empty text: YAML file",)
