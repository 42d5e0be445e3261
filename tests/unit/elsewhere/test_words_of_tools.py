"""What is said of words of other programs in front of each of our tools."""

from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import parse, understand
from megatron.config.config import Config
from megatron.config.finetuning import FinetuneFlags, FinetuningConfig
from megatron.config.language_model import LanguageModelFlags
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.preprocess.preprocess import PreprocessOptions
from tools import (
    collect_corpus,
    evaluate,
    generate_text,
    inspect_data,
    preprocess_data,
    train_tokenizer,
)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--curriculum_sampling", "each of --curriculum METRIC:min="),  # of axolotl
        ("--seq_length_warmup_steps=9", "each of --curriculum METRIC:min="),
        ("--difficulty_column=x", "tools/analyze_data.py takes a difficulty of your own"),
        ("--patch_dropout=0.5", "--random-ltd keeps more and more of them"),
        ("--first_k_dense_replace=1", "--moe-layer-freq names the layers with experts"),  # of DeepSeek
        ("--moe_token_dropping", "tokens are dropped where --moe-expert-capacity-factor is given"),
        ("--output_router_logits", "wherever --moe-aux-loss-coeff is above 0"),  # of Mixtral
        ("--n_shared_experts=1", "width by --moe-shared-expert-intermediate-size"),
        ("--moe_type=megablocks", "experts are computed in one way"),  # of gpt-neox
        ("--do_whole_word_mask", "whole words are masked"),  # of google-research's bert
        ("--max_predictions_per_seq=20", "--mask-prob says how many"),
        ("--line_by_line", "samples are runs of sentences"),  # of transformers
        ("--train_sampling_strategy=sequential", "--curriculum with a difficulty of your own"),
    ],
)
def test_a_word_about_curricula_experts_and_masks(word: str, said: str) -> None:
    (problem,) = understand(Config, [word], "", "", FOREIGN_FLAGS)[1]
    assert problem.startswith(f"unknown flag {word.partition('=')[0]}; ") and said in problem


@pytest.mark.parametrize(
    ("options", "word", "said"),
    [
        (PreprocessOptions, "--num-processes=8", "here it is --workers"),
        (Config, "--num-processes=8", "ranks are started by a launcher"),
        (train_tokenizer.Options, "--device=cpu", "--help lists all flags"),
        (train_tokenizer.Options, "--individual-digits", "a BPE of bytes has no unknown text, and words and"),
        (FinetuningConfig, "--packing=1", "--help lists all flags"),
        (evaluate.Options, "--patience=3", "--help lists all flags"),
        (
            Config,
            "--num_train_epochs=3",
            "passes are counted in samples: give --train-samples, so many times the samples of a pass, which "
            "the command tells with --dry-run",
        ),
        (
            Config,
            "--progressive-layer-drop",
            "no layer is left out whole: --random-ltd computes fewer tokens",
        ),
        (Config, "--porfile", "did you mean --profile?"),
        (Config, "--disable-swiglu", "to turn it off, give --swiglu false"),
        (FinetuneFlags, "--save_steps=3", "no checkpoint is kept on the way; --save-model keeps"),
        (generate_text.Options, "--fp16", "a model computes in the type of its training"),
        (PreprocessOptions, "--max_length=3", "here it is --max-sequence-length"),
        (PreprocessOptions, "--seed=3", "give --shuffle-documents SEED"),
        (
            train_tokenizer.Options,
            "--remove_extra_whitespaces=false",
            "a BPE of bytes takes texts as",
        ),
        (Config, "--ffn-hidden=3", "did you mean --ffn-hidden-size?"),
    ],
)
def test_what_is_said_is_of_the_command(options: Any, word: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(options, [word], description="")
    name = word.partition("=")[0]
    assert [one for one in caught.value.problems if one.startswith(f"unknown flag {name}; {said}")]


@pytest.mark.parametrize(
    ("word", "encoder", "text"),
    [
        (
            "--load_best_model_at_end",
            "a run trains to its end",
            "a run trains to its stop",
        ),
        ("--save_total_limit=2", "--save-model keeps the model of the end", "checkpoints are kept by their"),
        ("--save_top_k=2", "--save-model keeps the model of the end", "checkpoints are kept by their"),
        ("--early_stopping_threshold=0.1", "a run trains to its end", "a run trains to its stop"),
        ("--keep_best_checkpoints=3", "a run trains to its end", "a run trains to its stop"),  # of fairseq
        ("--save_best_only", "a run trains to its end", "a run trains to its stop"),  # of Keras
        ("--monitor=val_loss", "a run trains to its end", "a run trains to its stop"),  # of Lightning
        ("--resume_from_checkpoint=x", "begins anew by the same command", "here it is --load"),
        (
            "--max_train_samples=5",
            "write a file with fewer of them",
            "give --train-samples N",
        ),
        ("--num_labels=3", "the classes are the labels of --train-file", ""),
        ("--class_weights=1,2", "repeat those of rare classes", ""),
        ("--freeze_encoder", "all weights are trained", "all weights are trained"),
        ("--gradient_accumulation_steps=2", "--global-batch-size is accumulated", ""),
        ("--stride=32", "", "every held-out token is told once"),
        ("--keep_linebreaks", "", "line ends are kept as they stand"),
    ],
)
def test_words_of_other_programs_finetuning(word: str, encoder: str, text: str) -> None:
    """None leads to checkpoints that finetuning of an encoder does not keep."""
    for options, said in ((FinetuneFlags, encoder), (LanguageModelFlags, text)):
        _, problems = understand(options, [word])
        assert not said or [one for one in problems if one.startswith("unknown") and said in one], problems


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--class-map=x", "a class is a folder of --data-path"),
        ("--no-aug", "--img-crop-scale 1 and --img-flip 0"),
        ("--grayscale", "give --num-channels 1"),
        ("--workers=2", "give --image-workers for the threads that decode"),
    ],
)
def test_words_of_other_programs_for_images(word: str, said: str) -> None:
    _, problems = understand(Config, [word], "", "", FOREIGN_FLAGS)
    assert [one for one in problems if said in one], problems


@pytest.mark.parametrize(
    ("tool", "word", "said"),
    [
        (preprocess_data, "--documents=x", "here it is --input"),  # of dolma
        (preprocess_data, "--data.train_data_path=x", "here it is --input"),  # of litgpt
        (preprocess_data, "--max_length=5", "here it is --max-sequence-length"),  # of transformers
        (preprocess_data, "--concat_tokens=5", "whole documents are written"),  # of llm-foundry
        (preprocess_data, "--eos_text=x", "--append-eod puts the token behind every document"),
        (preprocess_data, "--append", "datasets are written whole"),
        (preprocess_data, "--datasets=x", "datasets are joined by tools/merge_datasets.py"),
        (preprocess_data, "--num-shards=4", "--workers are processes of one machine"),
        (preprocess_data, "--seed=4", "give --shuffle-documents SEED"),
        (preprocess_data, "--max-samples=4", "all documents of --input are written; cut the files"),
        (train_tokenizer, "--max-lines=4", "--max-bytes says how much of the text is read"),
        (train_tokenizer, "--workers=4", "training takes all cores"),
        (train_tokenizer, "--max_token_length=4", "there is one way to train each --model"),
        (train_tokenizer, "--lowercase", "a BPE of bytes keeps case and accents"),
        (inspect_data, "--input=x", "here it is --data-path"),
        (collect_corpus, "--output-prefix=x", "here it is --output"),
    ],
)
def test_a_word_of_another_programs_preprocessing(tool: Any, word: str, said: str) -> None:
    problems = understand(tool.Options, [word], foreign=getattr(tool, "FOREIGN", {}))[1]
    assert [one for one in problems if one.startswith(f"unknown flag {word.partition('=')[0]}; {said}")]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--log_samples", "answers to single questions are not written"),  # of lm-evaluation-harness
        ("--apply_chat_template", "without a chat template"),
        ("--use_cache=x", "--json FILE keeps what is done"),
        ("--trust_remote_code", "no code is run that a data set or a model brings"),
        ("--overlapping-eval=32", "windows do not overlap"),  # of Megatron-LM's tasks/main.py
        ("--strict-lambada", "give --lm-eval lambada_openai"),
        ("--valid-data=x", "here it is --domains"),
        ("--adaptive_seq_len", "rows are as long as their texts"),  # of Megatron-DeepSpeed
    ],
)
def test_a_word_of_another_evaluation(word: str, said: str) -> None:
    (problem,) = understand(evaluate.Options, ["--load", "x", word], foreign=evaluate.FOREIGN)[1]
    assert problem.startswith(f"unknown flag {word.partition('=')[0]}; ") and said in problem


def test_prompts_in_a_file_are_told_the_way() -> None:
    words = ["--load", "x", "--prompt-file", "y"]
    (problem,) = understand(generate_text.Options, words, foreign=generate_text.FOREIGN)[1]
    assert problem == '--prompt-file y is refused: give --prompt "$(cat FILE)", once for each text'


@pytest.mark.parametrize(
    ("options", "word", "said"),
    [
        (Config, "--wandb-tags=a", "wandb reads it from the environment, beside --wandb-project"),
        (Config, "--wandb-offline", "set WANDB_MODE in the environment"),
        (Config, "--log_level=info", "what is printed has one level"),
        (Config, "--log-file=x", "what is printed goes into a file by 2>&1 | tee FILE, and a JSON record"),
        (evaluate.Options, "--log-file=x", "what is printed goes into a file by 2>&1 | tee FILE"),
        (Config, "--disable_tqdm=true", "training prints a line every --log-interval steps"),
        (PreprocessOptions, "--disable_tqdm=true", "progress is shown where the output is a terminal"),
        (Config, "--gpu_peak_flops=312e12", "give --device-peak-tflops, in 10^12 FLOP/s"),
        (Config, "--mlflow-tracking-uri=x", "what is logged goes to --tensorboard-dir"),
        (Config, "--profiling.enable_profiling=true", "here it is --profile"),
        (Config, "--eval_on_start=true", "validation comes every --eval-interval steps"),
        (Config, "-f=kernel-1.json", "a notebook adds it to its own cells"),
        (Config, "--print-config", "--dry-run prints the configuration"),
    ],
)
def test_a_word_about_logs(options: Any, word: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(options, [word], description="", foreign=FOREIGN_FLAGS if options is Config else {})
    name = word.partition("=")[0]
    assert [one for one in caught.value.problems if one.startswith(f"unknown flag {name}; {said}")]
