"""Words of other programs are answered with ours."""

from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import flags_of, parse, understand
from megatron.config.config import Config
from megatron.config.elsewhere import WORDS
from megatron.config.finetuning import FinetuningConfig
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.preprocess.preprocess import PreprocessOptions
from tools import convert_checkpoint, evaluate, generate_text, train_tokenizer

OPTIONS: list[Any] = [Config, FinetuningConfig, PreprocessOptions]
OPTIONS += [one.Options for one in (convert_checkpoint, evaluate, generate_text, train_tokenizer)]


@pytest.mark.parametrize(
    ("options", "word", "ours"),
    [
        (Config, "--per_device_train_batch_size=8", "--micro-batch-size"),  # of transformers' Trainer
        (Config, "--num_train_epochs=3", "--train-samples"),
        (Config, "--training.steps=3", "--train-iters"),  # of torchtitan
        (Config, "--train.max_tokens=3", "--train-tokens"),  # of litgpt
        (FinetuningConfig, "--num_train_epochs=3", "--epochs"),
        (FinetuningConfig, "--model_name_or_path=x", "--load"),
        (evaluate.Options, "--tasks=x", "--lm-eval"),  # of lm-evaluation-harness
        (generate_text.Options, "--max_length=3", "--num-tokens"),
        (generate_text.Options, "-p=3", "--prompt"),  # of llama.cpp
        (train_tokenizer.Options, "--model_prefix=x", "--output"),  # of SentencePiece
        (convert_checkpoint.Options, "--pytorch_dump_folder_path=x", "--output"),
    ],
)
def test_a_word_of_another_program(options: Any, word: str, ours: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(options, [word], description="")
    assert f"unknown flag {word.partition('=')[0]}; here it is {ours}" in caught.value.problems


def test_a_key_of_another_program_in_a_yaml_file(tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("max_grad_norm: 1\n")
    _, problems = understand(Config, ["--config", str(path)], "", "", FOREIGN_FLAGS)
    assert problems == [f"--config {path}: unknown key max_grad_norm; here it is clip_grad"]


def test_all_words_lead_to_flags_that_are_there() -> None:
    known = {spelling for options in OPTIONS for one in flags_of(options) for spelling in one.spellings}
    assert not {f"--{flag}" for flag in WORDS} - known
    assert all(words.split() == list(dict.fromkeys(words.split())) for words in WORDS.values())
