"""Words of other programs are answered with ours."""

import re
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import parse, understand
from megatron.config.config import Config
from megatron.config.elsewhere import ANSWERS, OF_LAUNCHERS, WORDS, answer
from megatron.config.finetuning import FinetuneFlags, FinetuningConfig
from megatron.config.flags import flags_of
from megatron.config.language_model import LanguageModelFlags
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.curriculum.analyze_dataset import AnalysisOptions
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
        ("--full_determinism", "--deterministic-mode repeats results to the bit"),
        ("--dataloader_num_workers=4", "texts are read ahead without worker processes"),
        ("--max_restarts=3", "ranks are started by a launcher"),
        ("--no-shuffle", "--curriculum with a difficulty of your own says which come first; leave it out"),
    ],
)
def test_a_word_that_no_one_flag_stands_for(word: str, said: str) -> None:
    (problem,) = understand(Config, [word], foreign=FOREIGN_FLAGS)[1]
    assert problem.startswith(f"unknown flag {word.partition('=')[0]}; ") and said in problem
    assert "did you mean" not in problem and "here it is" not in problem


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


def test_sentences_name_flags_that_are_there() -> None:
    known = {spelling for options in OPTIONS for one in flags_of(options) for spelling in one.spellings}
    named = {flag for one in ANSWERS for flag in re.findall(r"--[a-z0-9_-]+", f"{one.sentence} {one.needs}")}
    assert named <= known | set(OF_LAUNCHERS)


def test_every_answer_to_a_word_is_given_by_some_command() -> None:
    """A word may have several, of different commands."""
    commands = [{spelling for one in flags_of(options) for spelling in one.spellings} for options in OPTIONS]
    for one in ANSWERS:
        for word in one.words.split():
            given = [ours for ours in commands if answer(word, ours) == one.sentence]
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


def test_a_switch_of_experts_is_turned_off_by_false() -> None:
    """--no-moe-... of others tunes nothing here, unless it is a switch of ours."""
    words = ["--moe-router-pre-softmax", "--no-moe-router-pre-softmax", "--no-moe-permute-unfused"]
    problems = understand(Config, words, "", "", FOREIGN_FLAGS)[1]
    assert problems == [
        "unknown flag --no-moe-router-pre-softmax; to turn it off, give --moe-router-pre-softmax false"
    ]


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
        (Config, "--eval_on_start=true", "a run is validated every --eval-interval steps"),
        (Config, "-f=/root/kernel-1.json", "a notebook adds it to its own cells"),
        (Config, "--print-config", "--dry-run prints the configuration"),
    ],
)
def test_a_word_about_logs(options: Any, word: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(options, [word], description="", foreign=FOREIGN_FLAGS if options is Config else {})
    name = word.partition("=")[0]
    assert [one for one in caught.value.problems if one.startswith(f"unknown flag {name}; {said}")]
