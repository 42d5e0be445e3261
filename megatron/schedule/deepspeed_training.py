"""What a DeepSpeed JSON says of batches, precision, optimizer and learning rate: it must be what the flags
say, which alone count."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from megatron.base.errors import UserError
from megatron.config.data_efficiency import DataEfficiencyConfig
from megatron.config.optimizer import Horizon, OptimizerConfig, decay_horizon, warmup_horizon
from megatron.config.parallel import ParallelConfig, zero_stage
from megatron.config.training import TrainingConfig
from megatron.schedule.deepspeed_json import read_deepspeed_json

TOTAL, MICRO, STEPS = "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"
STAGE = "zero_optimization.stage"
DECAYS = {"WarmupLR": "constant", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}
"""What follows the warm-up in the schedules of DeepSpeed that flags can ask for."""
CHANGING = ("amp", "torch_autocast", "progressive_layer_drop", "elasticity", "quantize_training")
"""Sections that change the numbers of a run where they are enabled."""
PARTED = ("sparse_attention", "compression_training")
"""Such sections without a switch of their own: what is given of the first counts, and of the second what is
enabled in its parts."""
SECTIONS = ("fp16", "bf16", "bfloat16", "optimizer", "scheduler", "zero_optimization", *CHANGING, *PARTED)
COMPARED = {TOTAL, MICRO, STEPS, "gradient_clipping", "data_efficiency", *SECTIONS}
PARAMS = {
    "optimizer": {
        *("lr", "betas", "eps", "weight_decay", "max_grad_norm"),
        *("adam_w_mode", "bias_correction", "amsgrad"),
    },
    "scheduler": {
        *("warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "warmup_type", "total_num_steps"),
        *("warmup_min_ratio", "cos_min_ratio"),
    },
}

PRECISION = {
    "fp16": {
        *("enabled", "loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis"),
        *("min_loss_scale", "consecutive_hysteresis"),
    },
    "bf16": {"enabled"},
    "bfloat16": {"enabled"},
}
"""What is compared of sections of precision."""
OF_MEMORY = ("offload", "cpu_offload", "zero_quantized", "zero_hpz", "mics")
"""How keys of zero_optimization begin that ask for more than its stage; others tune it."""


class Pair(NamedTuple):
    """A key of the JSON with its value, and what the flags say: the words for it, and the value."""

    key: str
    theirs: Any
    flag: str
    mine: Any


INSTEAD = {
    "tensorboard": "--tensorboard-dir",
    "wandb": "--wandb-project",
    "csv_monitor": "--metrics-file",
    "flops_profiler": "--log-throughput",
    "wall_clock_breakdown": "--timing-log-level",
}
"""Flags that do what keys ask for."""


def _instead(key: str, value: Any) -> str:
    """The flag to give for a key that asks for something."""
    on = value.get("enabled") is True if isinstance(value, dict) else value
    return f"; give {INSTEAD[key]}" if on and key in INSTEAD else ""


def unused_keys(path: str, content: dict[str, Any]) -> list[str]:
    """Lines about what is neither read nor compared."""
    unused = [key for key in content if key not in COMPARED]
    for section, known in PARAMS.items():
        unused += [f"{section}.params.{key}" for key in _at(content, section, "params") if key not in known]
    for section, known in PRECISION.items():
        inner = _at(content, section)
        others = [] if inner.get("enabled") is False else inner.keys() - known
        unused += [f"{section}.{key}" for key in others]
    shared = _at(content, "zero_optimization")
    unused += [f"zero_optimization.{key}" for key in shared if key.startswith(OF_MEMORY)]
    notes = [f"{path}: {key} is not used{_instead(key, content.get(key))}" for key in sorted(unused)]
    warms_up = _at(content, "scheduler").get("type") in DECAYS
    if warms_up and "warmup_type" not in _at(content, "scheduler", "params"):
        notes.append(f"{path}: without a warmup_type DeepSpeed's warm-up is logarithmic; here it is linear")
    if warms_up and "warmup_max_lr" not in _at(content, "scheduler", "params"):
        notes.append(f"{path}: without a warmup_max_lr DeepSpeed's rate rises to 0.001; here to --lr")
    return notes


def clipping_notes(data_efficiency: DataEfficiencyConfig) -> list[str]:
    """A note where a whole configuration of DeepSpeed clips nothing, for runs that do not say --clip-grad."""
    path = data_efficiency.data_efficiency_config
    content = read_deepspeed_json(path) if path else {}
    clipped = content.get("gradient_clipping", _at(content, "optimizer", "params").get("max_grad_norm"))
    if clipped is not None or not content.keys() & {TOTAL, MICRO}:
        return []
    return [
        f"{path}: without gradient_clipping most versions of DeepSpeed clip no gradient; here --clip-grad "
        "counts, and 0 clips none"
    ]


def contradictions(
    training: TrainingConfig,
    optimizer: OptimizerConfig,
    data_efficiency: DataEfficiencyConfig,
    parallel: ParallelConfig,
    data_parallel_size: int,
) -> list[str]:
    """Where the JSON says something else than the flags, or than itself, as a rule over their groups."""
    path = data_efficiency.data_efficiency_config
    try:
        content = read_deepspeed_json(path) if path else {}
    except UserError:
        return []  # told where it is described
    pairs = [
        *_batches(content, training, data_parallel_size),
        *_precision(content, training, optimizer),
        Pair(STAGE, _at(content, "zero_optimization").get("stage"), "--zero-stage", zero_stage(parallel)),
        *_optimizer(content, optimizer),
        *_scheduler(content, training, optimizer),
    ]
    found = _own_batches(content, data_parallel_size)
    found += [
        f"{key} {json.dumps(theirs)} and {flag} {mine if isinstance(mine, str) else json.dumps(mine)} "
        "differ; make them agree"
        for key, theirs, flag, mine in pairs
        if theirs not in (None, "auto") and not _equal(theirs, mine)
    ]
    found += [f"{key} must be a section" for key in SECTIONS if not isinstance(content.get(key, {}), dict)]
    enabled = [name for name in CHANGING if _at(content, name).get("enabled") not in (None, False, "auto")]
    enabled += [name for name in PARTED if _switched_on(content.get(name), not name.startswith("sparse"))]
    ways = "disable it, or take it out"
    found += [f"{name} is enabled, and it is not part of this version; {ways}" for name in enabled]
    return [f"--data-efficiency-config {path}: {line}" for line in found]


def _batches(content: dict[str, Any], training: TrainingConfig, ranks: int) -> Iterator[Pair]:
    total, micro = training.global_batch_size, training.micro_batch_size
    yield Pair(TOTAL, content.get(TOTAL), "--global-batch-size", total)
    yield Pair(MICRO, content.get(MICRO), "--micro-batch-size", micro)
    if total % (micro * ranks) == 0:  # else told by a rule of the flags
        words = f"--global-batch-size {total} / (--micro-batch-size {micro} x {ranks} data-parallel ranks) ="
        yield Pair(STEPS, content.get(STEPS), words, total // (micro * ranks))


def _own_batches(content: dict[str, Any], ranks: int) -> list[str]:
    """Where the three batch numbers of a JSON contradict each other."""
    numbers = [content.get(name) for name in (TOTAL, MICRO, STEPS)]
    whole = [number for number in numbers if isinstance(number, int)]
    if len(whole) < 3 or whole[0] == whole[1] * whole[2] * ranks:
        return []
    total, micro, steps = whole
    return [
        f"{TOTAL} {total} is not {MICRO} {micro} x {STEPS} {steps} x {ranks} data-parallel ranks = "
        f"{micro * steps * ranks}; change one of them"
    ]


def _precision(
    content: dict[str, Any], training: TrainingConfig, optimizer: OptimizerConfig
) -> Iterator[Pair]:
    """Loss scaling is compared where the run has it; DeepSpeed's patience is renewed by a window alone."""
    for name, mine in (("bf16", training.bf16), ("bfloat16", training.bf16), ("fp16", training.fp16)):
        yield Pair(f"{name}.enabled", _at(content, name).get("enabled"), f"--{name[:4]}", mine)
    scaling = _at(content, "fp16")
    power = math.log2(optimizer.initial_loss_scale)
    flags = {
        "loss_scale": ("--loss-scale", optimizer.loss_scale),
        "initial_scale_power": ("--initial-loss-scale as a power of 2,", power),
        "loss_scale_window": ("--loss-scale-window", optimizer.loss_scale_window),
        "hysteresis": ("--hysteresis", optimizer.hysteresis),
        "min_loss_scale": ("--min-loss-scale", optimizer.min_loss_scale),
        "consecutive_hysteresis": ("--hysteresis is renewed", False),
    }
    for name, (flag, value) in flags.items() if training.fp16 else ():
        yield Pair(f"fp16.{name}", scaling.get(name), flag, value)


def _optimizer(content: dict[str, Any], mine: OptimizerConfig) -> Iterator[Pair]:
    kind, params = _at(content, "optimizer").get("type"), _at(content, "optimizer", "params")
    named = mine.optimizer if str(kind).lower() in ("adam", "adamw") else kind
    yield Pair("optimizer.type", named, "--optimizer", mine.optimizer)
    yield Pair("gradient_clipping", content.get("gradient_clipping"), "--clip-grad", mine.clip_grad)
    flags = {
        "lr": ("--lr", mine.lr),
        "betas": ("--adam-beta1 and --adam-beta2", [mine.adam_beta1, mine.adam_beta2]),
        "eps": ("--adam-eps", mine.adam_eps),
        "weight_decay": ("--weight-decay", mine.weight_decay),
        "max_grad_norm": ("--clip-grad", mine.clip_grad),
        "adam_w_mode": ("AdamW's", True),
        "bias_correction": ("AdamW's", True),
        "amsgrad": ("AdamW's", False),
    }
    for name, (flag, value) in flags.items():
        yield Pair(f"optimizer.params.{name}", params.get(name), flag, value)


def _scheduler(content: dict[str, Any], training: TrainingConfig, mine: OptimizerConfig) -> Iterator[Pair]:
    kind, params = _at(content, "scheduler").get("type"), _at(content, "scheduler", "params")
    style = mine.lr_decay_style
    agrees = DECAYS.get(str(kind)) == style
    yield Pair("scheduler.type", style if agrees else kind, "--lr-decay-style", style)
    decay = decay_horizon(mine, training)
    warmup = warmup_horizon(mine, decay)
    flags = [
        ("warmup_max_lr", "--lr", mine.lr),
        ("warmup_min_lr", "--lr-warmup-init", mine.lr_warmup_init),
        ("warmup_min_ratio", "--lr-warmup-init / --lr =", mine.lr_warmup_init / mine.lr),
        ("cos_min_ratio", "--min-lr / --lr =", mine.min_lr / mine.lr),
        ("warmup_type", "the flags' warm-up", "linear"),
        ("warmup_num_steps", "the flags' warm-up", _in_steps(warmup, training)),
        ("total_num_steps", "the flags' decay", _in_steps(decay, training)),
    ]
    if kind == "WarmupDecayLR":  # which ends where its warm-up began
        flags.append(("warmup_min_lr", "--min-lr", mine.min_lr))
    for name, flag, value in flags if kind in DECAYS else ():
        yield Pair(f"scheduler.params.{name}", params.get(name), flag, value)


def _in_steps(horizon: Horizon, training: TrainingConfig) -> float | str:
    """A horizon as a number of steps, or in words where none follows from its unit."""
    unit, amount = horizon
    if unit == "samples" and not training.rampup_batch_size:
        return amount / training.global_batch_size
    return amount if unit == "iters" or not amount else f"{amount:g} {unit}"


def _at(content: dict[str, Any], *names: str) -> dict[str, Any]:
    """An inner section; empty where there is none."""
    for name in names:
        inner = content.get(name)
        content = inner if isinstance(inner, dict) else {}
    return content


def _equal(theirs: Any, mine: Any) -> bool:
    """Whether two values are the same; numbers are, where only their writing differs."""
    if isinstance(mine, list):
        return isinstance(theirs, list) and len(theirs) == len(mine) and all(map(_equal, theirs, mine))
    if isinstance(theirs, bool) or isinstance(mine, bool) or not isinstance(theirs, int | float):
        return type(theirs) is type(mine) and theirs == mine
    return not isinstance(mine, str) and math.isclose(theirs, mine, rel_tol=1e-9)


def _switched_on(section: Any, in_parts: bool) -> bool:
    """Whether a section is given; `in_parts`: whether something is enabled at any depth of it."""
    if not in_parts or not isinstance(section, dict):
        return bool(section) and section != "auto"
    on = section.get("enabled") not in (None, False, "auto")
    return on or any(isinstance(inner, dict) and _switched_on(inner, True) for inner in section.values())
