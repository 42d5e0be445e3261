"""Rules between flags. Every broken rule is a line that names the flag, the value and the way out; all are
told together."""

from importlib.util import find_spec

from megatron.config.config import Config
from megatron.config.horizon import UNITS, decay_horizon, warmup_horizon


def problems(config: Config, data_parallel_size: int) -> list[str]:
    """What is wrong with a resolved configuration on so many data-parallel ranks."""
    return [
        *_model(config),
        *_batch(config, data_parallel_size),
        *_limits(config),
        *_optimizer(config),
        *_tail(config),
        *_data(config),
        *_rest(config),
        *_efficiency(config),
        *_logging(config),
    ]


def _model(config: Config) -> list[str]:
    model, found = config.model, []
    for name in ("num_layers", "hidden_size", "num_attention_heads", "make_vocab_size_divisible_by"):
        if getattr(model, name) < 1:
            found.append(f"{_flag(name)} {getattr(model, name)} must be at least 1")
    if found:
        return found
    if model.hidden_size < model.num_attention_heads and not model.kv_channels:
        return [
            f"--hidden-size {model.hidden_size} is below --num-attention-heads "
            f"{model.num_attention_heads}; give --kv-channels"
        ]
    for name in ("ffn_hidden_size", "kv_channels"):
        if (getattr(model, name) or 0) < 1:
            found.append(f"{_flag(name)} {getattr(model, name)} must be at least 1")
    if found:
        return found
    if (
        model.hidden_size % model.num_attention_heads
        and model.kv_channels == model.hidden_size // model.num_attention_heads
    ):
        found.append(
            f"--hidden-size {model.hidden_size} is no multiple of --num-attention-heads "
            f"{model.num_attention_heads}; "
            "change one of them or give --kv-channels"
        )
    if model.num_query_groups != model.num_attention_heads and not model.group_query_attention:
        found.append(f"--num-query-groups {model.num_query_groups} needs --group-query-attention")
    elif model.num_query_groups < 1 or model.num_attention_heads % model.num_query_groups:
        found.append(
            f"--num-query-groups {model.num_query_groups} does not divide --num-attention-heads "
            f"{model.num_attention_heads}"
        )
    rotating = int((model.kv_channels or 0) * model.rotary_percent)
    if model.position_embedding_type == "rope" and (rotating % 2 or rotating < 2 or model.rotary_percent > 1):
        found.append(
            "--position-embedding-type rope turns channels in pairs, and --kv-channels "
            f"{model.kv_channels} with "
            f"--rotary-percent {model.rotary_percent} leaves {rotating}; make that even"
        )
    if (model.max_position_embeddings or 0) < config.data.seq_length:
        found.append(
            f"--max-position-embeddings {model.max_position_embeddings} is below --seq-length "
            f"{config.data.seq_length}; raise it"
        )
    for name in ("init_method_std", "norm_epsilon", "rotary_base"):
        if getattr(model, name) < 0:
            found.append(f"{_flag(name)} {getattr(model, name)} must not be negative")
    for name in ("hidden_dropout", "attention_dropout"):
        if not 0 <= getattr(model, name) < 1:
            found.append(f"{_flag(name)} {getattr(model, name)} must be in [0, 1)")
    if model.swiglu and model.openai_gelu:
        found.append("--swiglu and --openai-gelu are two activations; give only one")
    return found


def _batch(config: Config, data_parallel_size: int) -> list[str]:
    training, found = config.training, []
    micro, batch = training.micro_batch_size, training.global_batch_size or 0
    if config.data.seq_length < 1:
        found.append(f"--seq-length {config.data.seq_length} must be at least 1")
    if micro < 1:
        return [*found, f"--micro-batch-size {micro} must be at least 1"]
    if batch < 1:
        return [*found, f"--global-batch-size {batch} must be at least 1"]
    share = micro * data_parallel_size
    ways = f"--micro-batch-size {micro} x {data_parallel_size} data-parallel ranks = {share}"
    if batch % share:
        found.append(f"--global-batch-size {batch} is no multiple of {ways}; change one of them")
    if not training.rampup_batch_size:
        return found
    if len(training.rampup_batch_size) != 3:
        return [*found, "--rampup-batch-size takes three numbers: start, increment, samples"]
    start, increment, samples = training.rampup_batch_size
    if start < 1 or increment < 1 or samples < 0 or start > batch or (batch - start) % increment:
        found.append(
            f"--rampup-batch-size {start} {increment} {samples}: the increment must lead from the start "
            f"to --global-batch-size {batch}"
        )
    elif start % share or increment % share:
        found.append(f"--rampup-batch-size {start} {increment}: both must be multiples of {ways}")
    return found


def _limits(config: Config) -> list[str]:
    training, found = config.training, []
    limits = {unit: getattr(training, f"train_{unit}") for unit in UNITS}
    if all(value is None for value in limits.values()):
        found.append("nothing says when to stop; give --train-iters, --train-samples or --train-tokens")
    found += [
        f"--train-{unit} {value} must be at least 1"
        for unit, value in limits.items()
        if value is not None and value < 1
    ]
    for name in ("log_interval", "tensorboard_log_interval", "eval_interval"):
        value = getattr(config.logging, name)
        if value is not None and value < 1:
            found.append(f"{_flag(name)} {value} must be at least 1")
    for name in ("save_interval", "save_retain_interval"):
        value = getattr(config.checkpoint, name)
        if value is not None and value < 1:
            found.append(f"{_flag(name)} {value} must be at least 1")
    if config.logging.eval_iters < 0:
        found.append(f"--eval-iters {config.logging.eval_iters} must not be negative")
    return found


def _optimizer(config: Config) -> list[str]:
    optimizer, found = config.optimizer, []
    if optimizer.lr <= 0 or not 0 <= optimizer.min_lr <= optimizer.lr:
        found.append(f"--lr {optimizer.lr} must be positive and --min-lr {optimizer.min_lr} between 0 and it")
    decays = [f"--lr-decay-{unit}" for unit in UNITS if getattr(optimizer, f"lr_decay_{unit}") is not None]
    if len(decays) > 1:
        found.append(f"{' and '.join(decays)} are given; the decay has one unit")
    warmups = [f"--lr-warmup-{unit}" for unit in UNITS if getattr(optimizer, f"lr_warmup_{unit}")]
    if optimizer.lr_warmup_fraction is not None:
        warmups.append("--lr-warmup-fraction")
        if not 0 <= optimizer.lr_warmup_fraction < 1:
            found.append(f"--lr-warmup-fraction {optimizer.lr_warmup_fraction} must be in [0, 1)")
    if len(warmups) > 1:
        found.append(f"{' and '.join(warmups)} are given; the warm-up has one unit")
    for unit in UNITS:
        decay, warmup = getattr(optimizer, f"lr_decay_{unit}"), getattr(optimizer, f"lr_warmup_{unit}")
        horizon = decay if decay is not None else getattr(config.training, f"train_{unit}")
        if decay is not None and decay < 1:
            found.append(f"--lr-decay-{unit} {decay} must be at least 1")
        elif warmup < 0 or (warmup and horizon is not None and warmup > horizon):
            found.append(f"--lr-warmup-{unit} {warmup} must lie within the decay of {horizon} {unit}")
    for name in ("adam_beta1", "adam_beta2"):
        if not 0 <= getattr(optimizer, name) < 1:
            found.append(f"{_flag(name)} {getattr(optimizer, name)} must be in [0, 1)")
    for name in ("clip_grad", "weight_decay", "adam_eps"):
        if getattr(optimizer, name) < 0:
            found.append(f"{_flag(name)} {getattr(optimizer, name)} must not be negative")
    if not 0 <= optimizer.lr_warmup_init <= optimizer.lr:
        found.append(f"--lr-warmup-init {optimizer.lr_warmup_init} must be between 0 and --lr {optimizer.lr}")
    return found


def _tail(config: Config) -> list[str]:
    """Rules of decays that need more than an end."""
    optimizer = config.optimizer
    decay = decay_horizon(optimizer, config.training)
    unit, last = decay.unit, getattr(optimizer, f"lr_wsd_decay_{decay.unit}")
    if optimizer.lr_decay_style == "WSD" and not last:
        return [
            f"--lr-decay-style WSD decays over {unit} here and needs --lr-wsd-decay-{unit}; "
            "for another unit give --lr-decay-tokens, -samples or -iters and --lr-wsd-decay-tokens, "
            "-samples or -iters alike"
        ]
    if optimizer.lr_decay_style == "WSD" and last > decay.amount:
        return [f"--lr-wsd-decay-{unit} {last} is longer than the decay of {decay.amount} {unit}"]
    if optimizer.lr_decay_style != "WSD" and any(getattr(optimizer, f"lr_wsd_decay_{one}") for one in UNITS):
        return [
            f"--lr-wsd-decay-* do nothing with --lr-decay-style {optimizer.lr_decay_style}; give "
            "--lr-decay-style WSD, or leave them out"
        ]
    if optimizer.lr_decay_style == "inverse-square-root" and not warmup_horizon(optimizer, decay).amount:
        return [
            "--lr-decay-style inverse-square-root falls from the end of the warm-up; give "
            "--lr-warmup-tokens, -samples or -iters"
        ]
    return []


def _data(config: Config) -> list[str]:
    data, found = config.data, []
    separate = data.train_data_path or data.valid_data_path or data.test_data_path
    if sum(map(bool, (data.data_path, separate, data.mock_data))) != 1:
        found.append("give the data once: --data-path, or --train-data-path and its fellows, or --mock-data")
    if separate and not data.train_data_path:
        found.append("--valid-data-path and --test-data-path go with --train-data-path")
    if data.mock_data and config.tokenizer.vocab_size is None:
        found.append("--mock-data needs --vocab-size, the number of made-up tokens")
    if config.tokenizer.vocab_size is not None and config.tokenizer.vocab_size < 1:
        found.append(f"--vocab-size {config.tokenizer.vocab_size} must be at least 1")
    return found


def _rest(config: Config) -> list[str]:
    checkpoint, found = config.checkpoint, []
    interval, retain = checkpoint.save_interval, checkpoint.save_retain_interval
    for name in ("save_interval", "save_retain_interval"):
        if getattr(checkpoint, name) is not None and not checkpoint.save:
            found.append(f"{_flag(name)} {getattr(checkpoint, name)} needs --save FOLDER")
    if interval and retain and retain % interval:
        found.append(
            f"--save-retain-interval {retain} is no multiple of --save-interval {interval}, so none would "
            "be kept"
        )
    for name in ("ckpt_step", "finetune", "use_checkpoint_args", "exit_on_missing_checkpoint"):
        if getattr(checkpoint, name) not in (None, False) and not checkpoint.load:
            found.append(f"{_flag(name)} needs --load FOLDER")
    if config.training.skip_train and not checkpoint.load:
        found.append("--skip-train evaluates a checkpoint; give --load FOLDER")
    for name in ("exit_interval", "exit_duration_in_mins", "distributed_timeout_minutes"):
        value = getattr(config.training, name)
        if value is not None and value <= 0:
            found.append(f"{_flag(name)} {value} must be above 0")
    return found


def _efficiency(config: Config) -> list[str]:
    """Flags that would do nothing."""
    flags, found = config.data_efficiency, []
    described = flags.random_ltd or flags.data_efficiency_config
    if not described and (flags.random_ltd_duration is not None or flags.random_ltd_layers is not None):
        found.append("--random-ltd-duration and --random-ltd-layers do nothing without --random-ltd")
    if flags.difficulty_path and not flags.curriculum and not flags.data_efficiency_config:
        found.append(
            f"--difficulty-path {flags.difficulty_path[0]} does nothing without a --curriculum that "
            "orders by it"
        )
    return found


def _logging(config: Config) -> list[str]:
    logging, found = config.logging, []
    start, end = logging.profile_step_start, logging.profile_step_end
    if logging.profile and start < 0:
        found.append(f"--profile-step-start {start} must not be negative")
    if logging.profile and start >= end:
        found.append(
            f"--profile-step-start {start} must be below --profile-step-end {end}; lower the one or raise "
            "the other"
        )
    if logging.profile and min(logging.profile_ranks) < 0:
        found.append(f"--profile-ranks {min(logging.profile_ranks)} must not be negative")
    if logging.device_peak_tflops is not None and logging.device_peak_tflops <= 0:
        found.append(f"--device-peak-tflops {logging.device_peak_tflops} must be above 0")
    if logging.tensorboard_queue_size < 1:
        found.append(f"--tensorboard-queue-size {logging.tensorboard_queue_size} must be at least 1")
    if logging.wandb_project and not config.training.dry_run and not _installed("wandb"):
        found.append(
            f"--wandb-project {logging.wandb_project} needs the package wandb; install it by pip install "
            "wandb, or leave the flag out"
        )
    return found


def _installed(package: str) -> bool:
    """Whether a package can be imported. wandb leaves a folder of its own name where it runs, which Python
    takes for an empty package: that one has no origin."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
