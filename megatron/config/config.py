"""The whole configuration of a run: frozen dataclasses whose fields are the flags, under Megatron's names.

Nothing here changes at run time. `resolve` fills in what follows from other flags and returns a new
configuration.
"""

import dataclasses
from dataclasses import dataclass

from megatron.config.arguments import flag


@dataclass(frozen=True)
class ModelConfig:
    num_layers: int = flag(help="transformer layers")
    hidden_size: int = flag(help="width of the residual stream")
    num_attention_heads: int = flag(help="attention heads of a layer")
    ffn_hidden_size: int = flag(
        None, "inner width of the MLP; 4·hidden, or with --swiglu 8/3·hidden rounded down to 64"
    )
    kv_channels: int = flag(None, "width of one head; hidden size / heads")
    group_query_attention: bool = flag(False, "heads share keys and values in groups")
    num_query_groups: int = flag(1, "groups of --group-query-attention")
    max_position_embeddings: int = flag(None, "positions that the model knows; the sequence length")
    position_embedding_type: str = flag(
        "learned_absolute", "how a token knows its place", choices=("learned_absolute", "rope", "none")
    )
    use_rotary_position_embeddings: bool = flag(False, "the older name of --position-embedding-type rope")
    rotary_base: float = flag(10000.0, "base of the rotary angles")
    rotary_percent: float = flag(1.0, "share of a head's channels that rotate")
    normalization: str = flag(
        "LayerNorm", "normalisation before attention and MLP", choices=("LayerNorm", "RMSNorm")
    )
    norm_epsilon: float = flag(1e-5, "added to the variance in normalisation")
    swiglu: bool = flag(False, "gated MLP with SiLU instead of GELU")
    openai_gelu: bool = flag(False, "GELU by its tanh approximation")
    disable_bias_linear: bool = flag(False, "no biases in the linear layers")
    add_qkv_bias: bool = flag(False, "biases for queries, keys and values in spite of --disable-bias-linear")
    untie_embeddings_and_output_weights: bool = flag(
        False, "an output matrix of its own instead of the embedding"
    )
    make_vocab_size_divisible_by: int = flag(
        128, "the vocabulary is padded to a multiple of this; padded logits never count"
    )
    hidden_dropout: float = flag(0.1, "dropout after the embedding, attention and MLP")
    attention_dropout: float = flag(
        0.1, "dropout of attention probabilities; not 0 takes the explicit attention, which is slower"
    )
    init_method_std: float = flag(0.02, "standard deviation of the initial weights")
    attention_backend: str = flag(
        "auto",
        "auto: fused, or explicit where attention dropout is not 0",
        choices=("auto", "flash", "fused", "unfused", "local"),
    )

    @property
    def activation(self) -> str:
        """The MLP's activation, as mlp.py names it."""
        return "silu" if self.swiglu else "gelu_tanh" if self.openai_gelu else "gelu"

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two factors."""
        return self.swiglu


@dataclass(frozen=True)
class TokenizerOptions:
    """How a tokenizer is named, in training and in every tool."""

    tokenizer_type: str | None = flag(
        None,
        "kind of tokenizer; the data's .json file says it where this does not",
        choices=("HuggingFaceTokenizer", "GPT2BPETokenizer", "SentencePieceTokenizer", "NullTokenizer"),
    )
    tokenizer_model: str | None = flag(
        None, "tokenizer.json, its folder, or a SentencePiece .model", metavar="FILE"
    )
    vocab_file: str | None = flag(None, "vocab.json of GPT2BPETokenizer", metavar="FILE")
    merge_file: str | None = flag(None, "merges.txt of GPT2BPETokenizer", metavar="FILE")
    eod_token: str | None = flag(None, "text of the end-of-document token; found by its usual names")
    vocab_size: int | None = flag(None, "number of ids of NullTokenizer, or of data without a .json file")


@dataclass(frozen=True)
class DataConfig:
    seq_length: int = flag(help="tokens of a full sample")
    data_path: tuple[str, ...] = flag(
        (), "prefix of the .bin/.idx files, or weights and prefixes: W1 P1 W2 P2 ..."
    )
    split: str = flag("969,30,1", "shares of training, validation and test, as ranges of sequences")
    train_data_path: tuple[str, ...] = flag((), "like --data-path, for training alone; whole files, no split")
    valid_data_path: tuple[str, ...] = flag((), "like --train-data-path, for validation")
    test_data_path: tuple[str, ...] = flag((), "like --train-data-path, for test")
    mock_data: bool = flag(False, "made-up tokens instead of files, to try a configuration out")
    eod_mask_loss: bool = flag(False, "no loss where the input is an end-of-document token")
    reset_position_ids: bool = flag(False, "positions start at 0 after every end-of-document token")
    reset_attention_mask: bool = flag(False, "no attention across documents")
    allow_trailing_bytes: bool = flag(False, "accept a .bin longer than its .idx says")


@dataclass(frozen=True)
class TrainingConfig:
    micro_batch_size: int = flag(help="samples of one forward pass on one rank")
    global_batch_size: int = flag(None, "samples of one step; micro batch size · data-parallel ranks")
    rampup_batch_size: tuple[int, ...] = flag(
        (), "start, increment and samples of a growing batch size", metavar="N"
    )
    train_iters: int | None = flag(None, "stop after so many steps")
    train_samples: int | None = flag(None, "stop after so many samples")
    train_tokens: int | None = flag(None, "stop after so many effective tokens, i.e. layer tokens / layers")
    exit_interval: int | None = flag(None, "save and stop at a step that is a multiple of this")
    exit_duration_in_mins: float | None = flag(None, "save and stop after so many minutes")
    seed: int = flag(1234, "of weights, draws and dropout")
    bf16: bool = flag(False, "compute in bfloat16; weights and gradients stay in fp32")
    recompute_granularity: str | None = flag(
        None, "compute layers again in the backward pass to save memory", choices=("full",)
    )
    distributed_backend: str | None = flag(None, "nccl on GPUs, gloo elsewhere", choices=("nccl", "gloo"))
    distributed_timeout_minutes: float = flag(10.0, "how long a rank waits for the others")
    deterministic_mode: bool = flag(
        False, "on GPUs, only kernels that repeat their results to the bit; a CPU always does"
    )
    skip_train: bool = flag(False, "no training, only the evaluation of --load")
    dry_run: bool = flag(False, "print the plan, sizes and FLOPs of the run, then stop")


@dataclass(frozen=True)
class OptimizerConfig:
    lr: float = flag(help="peak learning rate")
    min_lr: float = flag(0.0, "learning rate at the end of the decay")
    lr_decay_style: str = flag(
        "linear", "shape of the decay", choices=("constant", "linear", "cosine", "inverse-square-root", "WSD")
    )
    lr_decay_iters: int | None = flag(
        None, "decay over so many steps; else over the run, in the unit of its stop"
    )
    lr_decay_samples: int | None = flag(None, "decay over so many samples")
    lr_decay_tokens: int | None = flag(None, "decay over so many effective tokens")
    lr_warmup_iters: int = flag(0, "linear warm-up over so many steps")
    lr_warmup_samples: int = flag(0, "linear warm-up over so many samples")
    lr_warmup_tokens: int = flag(0, "linear warm-up over so many effective tokens")
    lr_warmup_fraction: float | None = flag(None, "linear warm-up over this share of the decay")
    lr_warmup_init: float = flag(0.0, "learning rate where the warm-up starts")
    lr_wsd_decay_style: str = flag(
        "exponential", "shape of WSD's last part", choices=("exponential", "linear", "cosine", "minus_sqrt")
    )
    lr_wsd_decay_iters: int | None = flag(None, "steps of WSD's last part")
    lr_wsd_decay_samples: int | None = flag(None, "samples of WSD's last part")
    lr_wsd_decay_tokens: int | None = flag(None, "effective tokens of WSD's last part")
    optimizer: str = flag("adam", "adam is AdamW", choices=("adam",))
    weight_decay: float = flag(0.01, "decay of matrices; biases and norms have none")
    clip_grad: float = flag(1.0, "largest norm of the gradient; 0 is off")
    adam_beta1: float = flag(0.9, "decay of the mean of gradients")
    adam_beta2: float = flag(0.999, "decay of the mean of squared gradients")
    adam_eps: float = flag(1e-8, "added to the root of the mean square")


@dataclass(frozen=True)
class DataEfficiencyConfig:
    curriculum: tuple[str, ...] = flag(
        (), "METRIC:key=value,...; see docs/data_efficiency.md", repeat=True, metavar="SPEC"
    )
    difficulty_path: tuple[str, ...] = flag(
        (), "folder of an analysis by tools/analyze_data.py", repeat=True, metavar="FOLDER"
    )
    random_ltd: bool = flag(False, "drop tokens in the middle layers: random-LTD")
    random_ltd_min: int = flag(128, "tokens kept at the start")
    random_ltd_max: int = flag(None, "tokens kept at the end; the sequence length")
    random_ltd_duration: int | None = flag(None, "steps until the end length")
    random_ltd_quantum: int = flag(16, "kept lengths are multiples of this")
    random_ltd_layers: str | None = flag(
        None, "layers that drop, from 0, e.g. 1-22; all but the first and the last"
    )
    data_efficiency_config: str | None = flag(
        None,
        "JSON file with a DeepSpeed data_efficiency section",
        aliases=("--deepspeed_config", "--deepspeed-config"),
        metavar="FILE",
    )
    data_efficiency_seed: int = flag(None, "seed of the order of samples; --seed")
    reference_schedules: bool = flag(
        False, "schedules exactly as DeepSpeed 0.19.8 computes them, late arrivals included"
    )


@dataclass(frozen=True)
class CheckpointConfig:
    save: str | None = flag(None, "folder for checkpoints", metavar="FOLDER")
    load: str | None = flag(None, "folder to go on from; may be the one of --save", metavar="FOLDER")
    save_interval: int | None = flag(None, "save every so many steps, and at the end")
    save_retain_interval: int | None = flag(
        None, "keep only checkpoints at multiples of this, and the newest"
    )
    ckpt_step: int | None = flag(None, "load this step instead of the newest")
    finetune: bool = flag(False, "take only the weights from --load and start at step 0")
    exit_on_missing_checkpoint: bool = flag(False, "stop where --load holds no checkpoint")
    use_checkpoint_args: bool = flag(False, "take the model's shape from the checkpoint")
    override_opt_param_scheduler: bool = flag(
        False,
        "go on with a learning rate or schedule that differs from the checkpoint's",
        aliases=("--override-opt_param-scheduler",),
    )


@dataclass(frozen=True)
class LoggingConfig:
    log_interval: int = flag(100, "steps between log lines")
    eval_interval: int | None = flag(None, "steps between validations; at the end only")
    eval_iters: int = flag(100, "global batches of a validation; 0 is off")
    tensorboard_dir: str | None = flag(None, "folder for TensorBoard scalars", metavar="FOLDER")
    tensorboard_log_interval: int = flag(1, "steps between TensorBoard scalars")
    log_throughput: bool = flag(
        False, "log TFLOP/s, causal attention counted half, nothing recomputed counted, and MFU and HFU"
    )
    log_params_norm: bool = flag(False, "log the norm of the weights")
    metrics_file: str | None = flag(None, "one JSON record per step; <save>/metrics.jsonl", metavar="FILE")
    tensorboard_queue_size: int = flag(1000, "TensorBoard scalars that may wait to be written")
    log_memory_to_tensorboard: bool = flag(False, "memory as scalars, too")
    log_timers_to_tensorboard: bool = flag(False, "seconds by --timing-log-level as scalars, too")
    timing_log_level: int = flag(
        0, "time the parts of a step (1), and the parts of those (2); waits for the GPU", choices=(0, 1, 2)
    )
    timing_log_option: str = flag(
        "minmax", "times that are logged, of all ranks", choices=("max", "minmax", "all")
    )
    device_peak_tflops: float | None = flag(
        None, "TFLOP/s of one device, dense and in the run's precision, for MFU; known for many GPUs"
    )
    profile: bool = flag(False, "write a Chrome trace of some steps, by torch's profiler")
    profile_step_start: int = flag(10, "the profile begins after this step")
    profile_step_end: int = flag(12, "and ends after this one")
    profile_ranks: tuple[int, ...] = flag((0,), "ranks that are profiled", metavar="N")
    wandb_project: str | None = flag(None, "Weights & Biases project that gets the scalars", metavar="NAME")
    wandb_exp_name: str | None = flag(None, "name of the run there", metavar="NAME")
    wandb_entity: str | None = flag(None, "user or team that owns the project", metavar="NAME")
    wandb_save_dir: str | None = flag(None, "where wandb keeps its files; --save", metavar="FOLDER")


@dataclass(frozen=True)
class Config:
    """Everything a run depends on, apart from the number of ranks."""

    model: ModelConfig
    data: DataConfig
    tokenizer: TokenizerOptions
    training: TrainingConfig
    optimizer: OptimizerConfig
    data_efficiency: DataEfficiencyConfig
    checkpoint: CheckpointConfig
    logging: LoggingConfig
    config: str | None = flag(
        None, "YAML file of flags; flags on the command line win", aliases=("--yaml-cfg",), metavar="FILE"
    )


def resolve(config: Config, data_parallel_size: int) -> Config:
    """The configuration with every default that follows from other flags filled in."""
    model, training, efficiency = config.model, config.training, config.data_efficiency
    seq_length = config.data.seq_length
    inner = max(model.hidden_size * 8 // 3 // 64, 1) * 64 if model.swiglu else 4 * model.hidden_size
    ungrouped = not model.group_query_attention and model.num_query_groups == 1
    model = dataclasses.replace(
        model,
        ffn_hidden_size=_default(model.ffn_hidden_size, inner),
        kv_channels=_default(model.kv_channels, model.hidden_size // max(model.num_attention_heads, 1)),
        num_query_groups=model.num_attention_heads if ungrouped else model.num_query_groups,
        max_position_embeddings=_default(model.max_position_embeddings, seq_length),
        position_embedding_type="rope"
        if model.use_rotary_position_embeddings
        else model.position_embedding_type,
    )
    batch = _default(training.global_batch_size, training.micro_batch_size * data_parallel_size)
    training = dataclasses.replace(training, global_batch_size=batch)
    efficiency = dataclasses.replace(
        efficiency,
        random_ltd_max=_default(efficiency.random_ltd_max, seq_length),
        data_efficiency_seed=_default(efficiency.data_efficiency_seed, training.seed),
    )
    return dataclasses.replace(config, model=model, training=training, data_efficiency=efficiency)


def _default(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
