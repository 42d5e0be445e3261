"""Words of other programs are answered with ours."""

import re
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import parse, understand, unused_flags
from megatron.config.config import Config
from megatron.config.elsewhere import ANSWERS, OF_LAUNCHERS, WORDS, flags_needed
from megatron.config.finetuning import FinetuningConfig
from megatron.config.flags import flags_of
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.finetuning.job import OTHER_WORDS, FinetuneFlags
from megatron.preprocess.preprocess import PreprocessOptions
from tools import convert_checkpoint, evaluate, generate_text, train_tokenizer

OPTIONS: list[Any] = [Config, FinetuningConfig, PreprocessOptions]
OPTIONS += [one.Options for one in (convert_checkpoint, evaluate, generate_text, train_tokenizer)]


@pytest.mark.parametrize(
    ("options", "word", "ours"),
    [
        (Config, "--per_device_train_batch_size=8", "--micro-batch-size"),  # of transformers' Trainer
        (Config, "--training.steps=3", "--train-iters"),  # of torchtitan
        (Config, "--train.max_tokens=3", "--train-tokens"),  # of litgpt
        (Config, "--model.tokenizer.model=x", "--tokenizer-model"),  # of NeMo
        (Config, "--model.optim.name=x", "--optimizer"),
        (Config, "--optimizer.lr=3", "--lr"),  # of torchtitan
        (Config, "--validation.steps=3", "--eval-iters"),
        (Config, "--checkpoint.interval=3", "--save-interval"),
        (Config, "--training.seed=3", "--seed"),
        (Config, "--eval_strategy=steps", "--eval-interval"),  # of transformers' Trainer
        (Config, "--val_batch_size=3", "--micro-batch-size"),
        (Config, "--min_scale=1", "--min-loss-scale"),  # of gpt-neox
        (Config, "--wandb_team=x", "--wandb-entity"),
        (Config, "--job.config_file=x", "--config"),  # of torchtitan
        (Config, "--max-update=3", "--train-iters"),  # of fairseq
        (Config, "--head_dim=64", "--kv-channels"),
        (Config, "--compile.backend=x", "--compile"),
        (Config, "--model.init_method.std=1", "--init-method-std"),  # of nanotron
        (Config, "--megatron_lm_pp_degree=2", "--pipeline-model-parallel-size"),  # of accelerate
        (Config, "--megatron_lm_eod_mask_loss=2", "--eod-mask-loss"),
        (Config, "--scheduler.override_opt_param_scheduler=true", "--override-opt_param-scheduler"),
        (Config, "--ckpt=x", "--load"),
        (PreprocessOptions, "--hf_dataset=x", "--input"),
        (PreprocessOptions, "--destdir=x", "--output-prefix"),
        (FinetuningConfig, "--num_train_epochs=3", "--epochs"),
        (FinetuningConfig, "--model_name_or_path=x", "--load"),
        (evaluate.Options, "--tasks=x", "--lm-eval"),  # of lm-evaluation-harness
        (evaluate.Options, "--eval_tasks=x", "--lm-eval"),  # of gpt-neox
        (evaluate.Options, "--results_path=x", "--output"),  # of Megatron-DeepSpeed
        (evaluate.Options, "--checkpoint_dir=x", "--load"),  # of litgpt
        (generate_text.Options, "--max_length=3", "--num-tokens"),
        (generate_text.Options, "-p=3", "--prompt"),  # of llama.cpp
        (train_tokenizer.Options, "--model_prefix=x", "--output"),  # of SentencePiece
        (convert_checkpoint.Options, "--pytorch_dump_folder_path=x", "--output"),
        (convert_checkpoint.Options, "--params-dtype=bf16", "--dtype"),
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


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--save_total_limit=2", "--save-retain-interval N keeps those at multiples of N steps"),
        ("--checkpoint.keep_latest_k=2", "--save-retain-interval N keeps those at multiples of N steps"),
        ("--grad_accum_steps=2", "the batch of all ranks is --global-batch-size"),
        ("--cosine_min_lr_ratio=0.1", "give the rate itself, by --min-lr"),
        ("--initial_loss_scale_power=16", "2 to this power, by --initial-loss-scale"),
        ("--tie_word_embeddings=false", "unless --untie-embeddings-and-output-weights is given"),
        ("--model.share_embeddings_and_output_weights=true", "unless --untie-embeddings-and-output-weights"),
        ("--num_processes=8", "whose flags stand before the script: torchrun --nproc-per-node N"),
        ("--optim.betas=[0.9,0.95]", "give each: --adam-beta1 0.9 --adam-beta2 0.95"),
        ("--lora_rank=8", "all weights are trained, as they are; leave it out"),
        ("--blr=1e-4", "give the rate itself, by --lr"),
        ("--gpt-j-residual", "the MLP computes what attention gives"),
        ("--tf32=True", "products of fp32 are computed in fp32"),
        ("--decay_lr=False", "give --lr-decay-style constant"),
        ("--train_dataloader_shuffle=false", "every pass over the samples has an order of its own"),
        ("--dtype=float16", "give --bf16 or --fp16, or none of them for fp32"),  # of nanoGPT
        ("--dropout=0", "dropout is given by --hidden-dropout and --attention-dropout"),
        ("--warmup-epochs=5", "passes are counted in samples: give --lr-warmup-samples"),  # of timm
        ("--max-tokens=4096", "a batch has --micro-batch-size times --seq-length tokens"),  # of fairseq
        ("--speed_monitor.window_size=9", "a line is written every --log-interval steps"),  # of llm-foundry
        ("--log_level=info", "a line is written every --log-interval steps"),
        ("--model=gpt2", "a shape is given by --num-layers"),
        ("--checkpoint.initial_load_in_hf", "read and written by tools/convert_checkpoint.py"),
        ("--no-resume-opt", "give --load FOLDER --finetune"),
        ("--no-save", "give --save FOLDER"),  # of fairseq
        ("--lr_scheduler_kwargs={}", "the decay is said by --lr-decay-style"),
        ("--max_restarts=3", "give it to torchrun, before the script"),
        ("--deepspeed_multinode_launcher=x", "give it to torchrun, before the script"),
        ("--model.fp16_lm_cross_entropy=true", "the loss is computed in fp32; leave that out"),  # of NeMo
        ("--model.layernorm_epsilon=1e-5", "Megatron's --layernorm-epsilon is read, without the section"),
        ("--dist.use_gloo_process_groups=0", "it tunes nothing here; leave it out"),
        ("--create-attention-mask-in-dataloader", "it tunes nothing here; leave it out"),
        ("--no-shuffle", "--curriculum with a difficulty of your own says which come first; leave it out"),
    ],
)
def test_a_word_that_no_one_flag_stands_for(word: str, said: str) -> None:
    (problem,) = understand(Config, [word], foreign=FOREIGN_FLAGS)[1]
    assert problem.startswith(f"unknown flag {word.partition('=')[0]}; ") and said in problem
    assert "did you mean" not in problem and "here it is" not in problem


@pytest.mark.parametrize(
    "word",
    [
        *(
            "min-length",
            "stage",
            "expert-parallel",
            "recovery-interval",
            "pad-token",
            "bos-token",
            "use-sharp-rope",
        ),
        *(
            "data-parallel-shard",
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
    assert problem == f"unknown flag --{word}; --help lists all flags"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr-dekay-style", "lr-decay-style"),
        ("sede", "seed"),
        ("num-attn-heads", "num-attention-heads"),
        ("untie-embeddings", "untie-embeddings-and-output-weights"),
        ("log_param_norm", "log-params-norm"),
        ("random_ltd_layer", "random-ltd-layers"),
        ("enable_random_ltd", "random-ltd"),
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
        (FinetuningConfig, "--save_steps=3", "results are written to --save, with the weights beside them"),
        (generate_text.Options, "--fp16", "a model computes in the type of its training"),
        (PreprocessOptions, "--max_length=3", "documents stay whole"),
        (PreprocessOptions, "--seed=3", "the order of the input is kept; leave it out, or give --shuffle"),
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


def test_sentences_name_flags_that_are_there() -> None:
    known = {spelling for options in OPTIONS for one in flags_of(options) for spelling in one.spellings}
    named = {flag for one in ANSWERS for flag in re.findall(r"--[a-z0-9-]+", f"{one.sentence} {one.needs}")}
    assert named <= known | set(OF_LAUNCHERS)
    needed = [(word, frozenset(flags_needed(one))) for one in ANSWERS for word in one.words.split()]
    assert len(needed) == len(set(needed))
    for options in OPTIONS:
        mine = {spelling for one in flags_of(options) for spelling in one.spellings}
        told = {f"--{word}" for one in ANSWERS if flags_needed(one) <= mine for word in one.words.split()}
        assert not told & mine


def test_all_words_lead_to_flags_that_are_there() -> None:
    known = {spelling for options in OPTIONS for one in flags_of(options) for spelling in one.spellings}
    assert not {f"--{flag}" for flag in WORDS} - known
    assert all(words.split() == list(dict.fromkeys(words.split())) for words in WORDS.values())


def test_every_key_of_a_file_of_gpt_neox_is_read_or_answered(tmp_path: Any) -> None:
    """The keys of its configs/125M.yml."""
    path = tmp_path / "run.yaml"
    path.write_text(
        "pipe_parallel_size: 0\nmodel_parallel_size: 2\nnum_layers: 12\nhidden_size: 768\nnorm: layernorm\n"
        "num_attention_heads: 12\nseq_length: 2048\nmax_position_embeddings: 2048\npos_emb: rotary\n"
        "no_weight_tying: true\ngpt_j_residual: false\noutput_layer_parallelism: column\n"
        "scaled_upper_triang_masked_softmax_fusion: false\nbias_gelu_fusion: false\ninit_method: small_init\n"
        "output_layer_init_method: wang_init\noptimizer: {type: Adam, params: {lr: 0.0006}}\nmin_lr: 6e-5\n"
        "zero_optimization: {stage: 0}\ntrain_micro_batch_size_per_gpu: 4\ndata_impl: mmap\n"
        "checkpoint_activations: true\ncheckpoint_num_layers: 1\npartition_activations: true\n"
        "synchronize_each_layer: true\ngradient_clipping: 1.0\nweight_decay: 0.1\nhidden_dropout: 0.0\n"
        "attention_dropout: 0.0\nfp16: {enabled: true, loss_scale: 0}\ntrain_iters: 320000\n"
        "lr_decay_iters: 320000\ndistributed_backend: nccl\nlr_decay_style: cosine\nwarmup: 0.01\n"
        "checkpoint_factor: 10000\neval_interval: 1000\neval_iters: 10\nlog_interval: 1\n"
        "steps_per_print: 10\nkeep_last_n_checkpoints: 4\nwall_clock_breakdown: true\n"
        "data-path: data\nvocab-file: vocab.json\nmerge-file: merges.txt\nhostfile: hosts\n"
    )
    _, problems = understand(Config, ["--config", str(path)], "", "", FOREIGN_FLAGS)
    assert len(problems) == 18 and all("; " in one and "--help" not in one for one in problems), problems


def test_a_key_of_which_nothing_is_known_has_a_way_out_too(tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("zebra: 1\n")
    _, problems = understand(Config, ["--config", str(path)], "", "", FOREIGN_FLAGS)
    assert problems == [f"--config {path}: unknown key zebra; --help lists all flags"]


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
    ("word", "said"),
    [
        ("num_layers=2", "write --num-layers VALUE"),  # of hydra and nanoGPT
        ("trainer.max_steps=10", "here it is --train-iters"),
        ("++model.fsdp=true", "here it is --use-torch-fsdp2"),
        ("optim.betas=[0.9,0.95]", "give each: --adam-beta1 0.9 --adam-beta2 0.95"),
    ],
)
def test_a_word_with_its_value_and_without_dashes(word: str, said: str) -> None:
    (problem,) = understand(Config, [word], foreign=FOREIGN_FLAGS)[1]
    assert problem == f"{word!r} stands where no value is expected; flags begin with --; {said}"


def test_what_launchers_write_behind_a_script_is_read() -> None:
    for options, foreign in ((FinetuneFlags, OTHER_WORDS), (evaluate.Options, evaluate.FOREIGN)):
        assert not understand(options, ["--local-rank=0"], foreign=foreign)[1]
        assert not unused_flags(options, ["--local_rank=0"], foreign)
