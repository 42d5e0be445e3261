"""Words of other programs are answered with ours."""

import re
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import parse, understand
from megatron.config.config import Config
from megatron.config.finetuning import FinetuneFlags, FinetuningConfig
from megatron.config.flags import flags_of
from megatron.config.language_model import LanguageModelFlags
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.curriculum.analyze_dataset import AnalysisOptions
from megatron.elsewhere.answers import ANSWERS, OF_LAUNCHERS, WORDS, answer
from megatron.elsewhere.topics import TOPICS
from megatron.preprocess.preprocess import PreprocessOptions
from tools import (
    collect_corpus,
    convert_checkpoint,
    evaluate,
    generate_text,
    inspect_data,
    preprocess_data,
    train_tokenizer,
)

OPTIONS: list[Any] = [Config, FinetuningConfig, PreprocessOptions, AnalysisOptions]
OPTIONS += [one.Options for one in (convert_checkpoint, evaluate, generate_text, train_tokenizer)]
OPTIONS += [one.Options for one in (preprocess_data, inspect_data, collect_corpus)]
OPTIONS += [FinetuneFlags, LanguageModelFlags]


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
        (Config, "--load-config=x", "--config"),  # of nerfstudio
        (Config, "--max-update=3", "--train-iters"),  # of fairseq
        (Config, "--mlm_probability=0.3", "--mask-prob"),  # of transformers
        (Config, "--masked_lm_prob=0.3", "--mask-prob"),  # of google-research's bert
        (Config, "--dupe_factor=5", "--bert-passes"),
        (Config, "--moe_capacity_factor=1", "--moe-expert-capacity-factor"),  # of megablocks
        (Config, "--routed_scaling_factor=2.5", "--moe-router-topk-scaling-factor"),  # of DeepSeek
        (Config, "--moe_intermediate_size=64", "--moe-ffn-hidden-size"),
        (Config, "--num_moe_experts=8", "--num-experts"),  # of NeMo
        (Config, "--load_balance_coeff=1e-3", "--moe-router-bias-update-rate"),  # of torchtitan
        (Config, "--random_ltd_layer_id=1", "--random-ltd-layers"),  # of DeepSpeed
        (Config, "--ep-world-size=2", "--expert-model-parallel-size"),
        (AnalysisOptions, "--save_path=x", "--output-dir"),
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
        (generate_text.Options, "-k=3", "--top-k"),
        (evaluate.Options, "-b=3", "--micro-batch-size"),
        (evaluate.Options, "-f=3", "--num-fewshot"),
        (preprocess_data.Options, "-j=3", "--workers"),
        (train_tokenizer.Options, "-i=3", "--input"),
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
        ("--freeze_layers=2", "all weights are trained; leave it out"),
        ("--reset_optimizer_state", "--finetune takes the weights of --load alone"),
        ("--reset-lr", "--override-opt_param-scheduler goes on with the learning rate"),
        ("--save_only_model=true", "a checkpoint is whole, so that a run can go on from it"),
        ("--resume_if_exists=true", "with --load and --save of one folder a run goes on"),
        ("--optim-cpu-offload", "--use-distributed-optimizer shares the optimizer's states"),
        ("--cosine_constant_lr_ratio=0.8", "--lr-decay-iters ends the decay before the run does"),
        ("--lr_scheduler.decay_ratio=0.2", "of --lr-decay-style WSD is given by its steps"),
        ("--terminate_on_nan", "a loss or gradient that is not finite ends the run"),
        ("--clip-mode=value", "gradients are clipped by their norm, with --clip-grad"),
        ("--reduce_in_fp32", "gradients are summed in fp32"),
        ("--strategy=fsdp", "--data-parallel-sharding-strategy says what replicas share"),
        ("--comm.init_timeout_seconds=300", "in minutes, by --distributed-timeout-minutes"),
        ("--dataloader_num_workers=4", "texts are read ahead without worker processes"),
        ("--max_restarts=3", "ranks are started by a launcher"),
        ("--dtype=float16", "give --bf16 or --fp16, or none of them for fp32"),  # of nanoGPT
        ("--dropout=0", "dropout is given by --hidden-dropout and --attention-dropout"),
        ("--warmup-epochs=5", "passes are counted in samples: give --lr-warmup-samples"),  # of timm
        ("--max-tokens=4096", "a batch has --micro-batch-size times --seq-length tokens"),  # of fairseq
        ("--speed_monitor.window_size=9", "a line is written every --log-interval steps"),  # of llm-foundry
        ("--log_level=info", "what is printed has one level"),
        ("--model=gpt2", "a shape is given by --num-layers"),
        ("--checkpoint.initial_load_in_hf", "read and written by tools/convert_checkpoint.py"),
        ("--no-resume-opt", "--finetune takes the weights of --load alone"),
        ("--no-save", "give --save FOLDER"),  # of fairseq
        ("--lr_scheduler_kwargs={}", "--lr-decay-style knows constant, linear"),
        ("--deepspeed_multinode_launcher=x", "give it to torchrun, before the script"),
        ("--model.fp16_lm_cross_entropy=true", "the loss is computed in fp32; leave that out"),  # of NeMo
        ("--model.layernorm_epsilon=1e-5", "Megatron's --layernorm-epsilon is read, without the section"),
        ("--pretrained=x", "those of --pretrained-checkpoint FOLDER; nothing is fetched"),  # of timm
        ("--report_to=none", "leave it out for none"),
        ("--top_k=2", "a token's experts are --moe-router-topk"),  # of DeepSpeedExamples
        ("-j=4", "and images with --image-workers"),
        ("--no-shuffle", "--curriculum with a difficulty of your own says which come first; leave it out"),
    ],
)
def test_a_word_that_no_one_flag_stands_for(word: str, said: str) -> None:
    (problem,) = understand(Config, [word], foreign=FOREIGN_FLAGS)[1]
    assert problem.startswith(f"unknown flag {word.partition('=')[0]}; ") and said in problem
    assert "did you mean" not in problem and "here it is" not in problem


def test_sentences_name_flags_that_are_there() -> None:
    known = {spelling for options in OPTIONS for one in flags_of(options) for spelling in one.spellings}
    named = {flag for one in ANSWERS for flag in re.findall(r"--[a-z0-9_-]+", f"{one.sentence} {one.needs}")}
    assert named <= known | set(OF_LAUNCHERS)


def test_topics_name_flags_that_are_there() -> None:
    known = {spelling for options in OPTIONS for one in flags_of(options) for spelling in one.spellings}
    assert {f"--{flag}" for _, flags in TOPICS for flag in flags.split()} <= known


def test_every_answer_to_a_word_is_given_by_some_command() -> None:
    """A word may have several, of different commands."""
    commands = [{spelling for one in flags_of(options) for spelling in one.spellings} for options in OPTIONS]
    for one in ANSWERS:
        for word in one.words.split():
            given = [ours for ours in commands if answer(f"--{word.replace('-', '_')}", ours) == one.sentence]
            assert any(f"--{word}" not in ours for ours in given), word


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
