"""Mistyped words, words without dashes, and keys of files, of which nothing is known."""

from pathlib import Path
from typing import Any

import pytest

from megatron.config.arguments import understand, unused_flags
from megatron.config.config import Config
from megatron.config.finetuning import FinetuneFlags
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.finetuning.job import OTHER_WORDS
from megatron.preprocess.preprocess import PreprocessOptions
from tools import evaluate

NO_LIKE = "--help lists all flags, and what has no like there can be left out"


@pytest.mark.parametrize(
    "word",
    [
        *(
            "min-length",
            "stage",
            "recovery-interval",
            "pad-token",
            "bos-token",
            "use-sharp-rope",
        ),
        *(
            "task-name",
            "train-impl",
            "random-lr",
            "precompute-model-name",
            "rl",
            "r",
            "tokenizer-prompt-format",
            "validation-set-name-file",
        ),
    ],
)
def test_what_is_near_by_chance_is_no_guess(word: str) -> None:
    (problem,) = understand(Config, [f"--{word}=1"], foreign=FOREIGN_FLAGS)[1]
    assert problem.startswith(f"unknown flag --{word}; ") and problem.endswith(NO_LIKE)
    assert "did you mean" not in problem and "here it is" not in problem


@pytest.mark.parametrize(
    ("word", "flags"),
    [
        ("expert-parallel", "--expert-model-parallel-size, --expert-tensor-parallel-size"),
        ("data-parallel-shard", "--data-parallel-sharding-strategy"),
        ("own-curriculum-file", "--curriculum"),
    ],
)
def test_flags_whose_names_have_all_parts_of_a_word_are_named(word: str, flags: str) -> None:
    (problem,) = understand(Config, [f"--{word}=1"], foreign=FOREIGN_FLAGS)[1]
    assert problem == f"unknown flag --{word}; --help lists all flags; nearest by name: {flags}"


@pytest.mark.parametrize(
    ("word", "said"), [("-q3", "--help lists all flags"), ("-x", "flags are whole words here")]
)
def test_a_letter_of_which_nothing_is_known(word: str, said: str) -> None:
    (problem,) = understand(Config, [word], foreign=FOREIGN_FLAGS)[1]
    assert problem.startswith(f"unknown flag {word}; {said}")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr-dekay-style", "lr-decay-style"),
        ("sede", "seed"),
        ("num-attn-heads", "num-attention-heads"),
        ("untie-embeddings", "untie-embeddings-and-output-weights"),
        ("log_param_norm", "log-params-norm"),
        ("random_ltd_layer", "random-ltd-layers"),
        ("use-swiglu", "swiglu"),
    ],
)
def test_a_mistyped_word(word: str, meant: str) -> None:
    (problem,) = understand(Config, [f"--{word}=1"], foreign=FOREIGN_FLAGS)[1]
    assert problem == f"unknown flag --{word}; did you mean --{meant}?"


def test_keys_of_sections_in_a_yaml_file(tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("optimizer: {name: adamw, betas: [0.9, 0.95]}\ntie_word_embeddings: false\n")
    _, problems = understand(Config, ["--config", str(path)], "", "", FOREIGN_FLAGS)
    assert problems == [
        f"--config {path}: unknown key name; here it is optimizer",
        f"--config {path}: unknown key betas; give each: adam_beta1 0.9 adam_beta2 0.95",
        f"--config {path}: unknown key tie_word_embeddings; the embedding is the output matrix, too, unless "
        "untie_embeddings_and_output_weights is given",
    ]


def test_a_switch_that_names_a_file() -> None:
    assert understand(Config, ["--deepspeed", "ds.json"], foreign=FOREIGN_FLAGS)[0] == {
        "data_efficiency_config": "ds.json"
    }
    assert understand(Config, ["--deepspeed"], foreign=FOREIGN_FLAGS) == ({}, [])


def test_a_key_of_which_nothing_is_known_has_a_way_out_too(tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("zebra: 1\n")
    _, problems = understand(Config, ["--config", str(path)], "", "", FOREIGN_FLAGS)
    assert problems == [f"--config {path}: unknown key zebra; {NO_LIKE}"]


def test_a_switch_of_experts_is_turned_off_by_false() -> None:
    """--no-moe-... of others tunes nothing here, unless it is a switch of ours."""
    words = ["--moe-router-pre-softmax", "--no-moe-router-pre-softmax", "--no-moe-permute-unfused"]
    problems = understand(Config, words, "", "", FOREIGN_FLAGS)[1]
    assert problems == [
        "unknown flag --no-moe-router-pre-softmax; to turn it off, give --moe-router-pre-softmax false"
    ]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("num_layers=2", "write num_layers=2 as --num-layers 2"),  # of hydra and nanoGPT
        ("trainer.max_steps=10", "here it is --train-iters"),
        ("++model.fsdp=true", "here it is --use-torch-fsdp2"),
        ("optim.betas=[0.9,0.95]", "give each: --adam-beta1 0.9 --adam-beta2 0.95"),
    ],
)
def test_a_word_with_its_value_and_without_dashes(word: str, said: str) -> None:
    (problem,) = understand(Config, [word], foreign=FOREIGN_FLAGS)[1]
    assert problem.startswith(("write", f"{word!r} stands where no value is expected; ")) and said in problem


def test_what_launchers_write_behind_a_script_is_read() -> None:
    for options, foreign in ((FinetuneFlags, OTHER_WORDS), (evaluate.Options, {}), (Config, FOREIGN_FLAGS)):
        assert not understand(options, ["--local-rank=0"], foreign=foreign)[1]
        assert not unused_flags(options, ["--local_rank=0"], foreign)


@pytest.mark.parametrize(
    ("word", "kin"),
    [
        ("--save_best_thing", "are --save, --load, --save-interval, --ckpt-step"),
        ("--my_scheduler.gamma2", "are --lr, --min-lr, --lr-decay-style, --lr-warmup-fraction"),
        ("--random_thing", "are --seed, --data-efficiency-seed, --deterministic-mode"),
    ],
)
def test_a_word_of_which_its_topic_is_known_is_told_flags_about_that(word: str, kin: str) -> None:
    (problem,) = understand(Config, [word])[1]
    assert problem == f"unknown flag {word}; of this kind {kin} here; {NO_LIKE}"


@pytest.mark.parametrize("word", ["--pp=2", "--print-config", "--fast-dev-run", "--pipeline-balance=1"])
def test_no_flag_that_is_refused_in_any_case_is_advised(word: str) -> None:
    """Finetuning reads the flags of pipelines and --dry-run to refuse them."""
    (problem,) = understand(FinetuneFlags, [word], foreign=OTHER_WORDS)[1]
    assert "pipeline-" not in problem.partition("; ")[2] and "--dry-run" not in problem


def test_finetuning_is_not_told_flags_of_validation_that_it_does_not_read() -> None:
    (problem,) = understand(FinetuneFlags, ["--do_train"], foreign=OTHER_WORDS)[1]
    assert problem == "unknown flag --do_train; a run trains, and measures what is held out at its end; " + (
        "leave it out"
    )


def test_a_word_that_ends_as_a_fusion_does_is_none() -> None:
    (problem,) = understand(Config, ["--modality-fusion"], foreign=FOREIGN_FLAGS)[1]
    assert "implementation" not in problem


def test_a_switch_of_ours_without_a_value_in_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "flags.yaml"
    path.write_text("finetune: []\nload: x\nno_load_optim: true\n")
    problems = understand(Config, ["--config", str(path)], foreign=FOREIGN_FLAGS)[1]
    assert "--no-load-optim is refused: give --finetune to load the weights alone" in " ".join(problems)


@pytest.mark.parametrize(
    ("options", "word", "said"),
    [
        (PreprocessOptions, "--prepend-space", "all documents of --input are written as they are"),
        (FinetuneFlags, "--save_rng", "--help lists all flags"),  # no checkpoints are kept there
        (Config, "--layers=12", "here it is --num-layers"),
    ],
)
def test_an_answer_is_true_of_the_command(options: Any, word: str, said: str) -> None:
    (problem,) = understand(options, [word])[1]
    assert said in problem
