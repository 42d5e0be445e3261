"""The flags of evaluation beside training, and of what is logged."""

import functools
from dataclasses import dataclass, fields

from megatron.config.flags import flag
from megatron.config.literal import is_variable

free_flag = functools.partial(flag, resume="free")

NEEDS = {
    "--tensorboard-dir or --wandb-project": (
        "tensorboard_log_interval",
        "log_memory_to_tensorboard",
        "log_timers_to_tensorboard",
    ),
    "--tensorboard-dir": ("tensorboard_queue_size",),
    "--wandb-project": ("wandb_exp_name", "wandb_entity", "wandb_save_dir"),
    "--timing-log-level 1 or 2": ("log_timers_to_tensorboard", "timing_log_option"),
    "--log-throughput": ("device_peak_tflops",),
    "--profile": ("profile_step_start", "profile_step_end", "profile_ranks"),
}
"""Flags that do nothing without another one."""


@dataclass(frozen=True)
class LoggingConfig:
    log_interval: int = free_flag(
        100,
        "steps between log lines",
        at_least=1,
        otherwise="a large number leaves the first line and the last",
    )
    eval_interval: int | None = free_flag(
        None,
        "steps between validations; at the end only",
        at_least=1,
        otherwise="leave it out to validate at the end alone; --eval-iters 0 turns validation off",
    )
    eval_iters: int = free_flag(
        100,
        "global batches of a validation, and of the test: the first windows of their split; 0 is off",
        at_least=0,
        otherwise="a large number takes all windows, and 0 is off",
    )
    tensorboard_dir: str | None = free_flag(None, "folder for TensorBoard scalars", metavar="FOLDER")
    tensorboard_log_interval: int = free_flag(1, "steps between TensorBoard scalars", at_least=1)
    log_throughput: bool = free_flag(
        False, "log TFLOP/s, causal attention counted half, nothing recomputed counted, and MFU and HFU"
    )
    log_params_norm: bool = free_flag(False, "log the norm of the weights")
    metrics_file: str | None = free_flag(
        None, "one JSON record per step; <save>/metrics.jsonl", metavar="FILE"
    )
    tensorboard_queue_size: int = free_flag(
        1000, "TensorBoard scalars that may wait to be written", at_least=1
    )
    log_memory_to_tensorboard: bool = free_flag(False, "memory as scalars, too")
    log_timers_to_tensorboard: bool = free_flag(False, "seconds by --timing-log-level as scalars, too")
    timing_log_level: int = free_flag(
        0, "time the parts of a step (1), and the parts of those (2); waits for the GPU", choices=(0, 1, 2)
    )
    timing_log_option: str = free_flag(
        "minmax", "times that are logged, of all ranks", choices=("max", "minmax", "all")
    )
    device_peak_tflops: float | None = free_flag(
        None,
        "TFLOP/s of one device, dense and in the run's precision, for MFU; known for many GPUs",
        above=0,
        at_most=1e6,
    )
    profile: bool = free_flag(False, "write a Chrome trace of some steps, by torch's profiler")
    profile_step_start: int = free_flag(10, "the profile begins after this step", at_least=0)
    profile_step_end: int = free_flag(12, "and ends after this one", at_least=1)
    profile_ranks: tuple[int, ...] = free_flag((0,), "ranks that are profiled", metavar="N", at_least=0)
    wandb_project: str | None = free_flag(
        None, "Weights & Biases project that gets the scalars, where wandb is installed", metavar="TEXT"
    )
    wandb_exp_name: str | None = free_flag(None, "name of the run there", metavar="TEXT")
    wandb_entity: str | None = free_flag(None, "user or team that owns the project", metavar="TEXT")
    wandb_save_dir: str | None = free_flag(None, "where wandb keeps its files; --save", metavar="FOLDER")


def idle_notes(logging: LoggingConfig) -> list[str]:
    """What is asked of the log and does nothing, as another flag is not given. An empty text asks nothing."""
    given = {field.name: (getattr(logging, field.name), field.default) for field in fields(logging)}
    asked = {name for name, (value, usual) in given.items() if value not in ("", usual)}
    met = {
        "--tensorboard-dir or --wandb-project": logging.tensorboard_dir or logging.wandb_project,
        "--tensorboard-dir": logging.tensorboard_dir,
        "--wandb-project": logging.wandb_project,
        "--timing-log-level 1 or 2": logging.timing_log_level,
        "--log-throughput": logging.log_throughput,
        "--profile": logging.profile,
    }
    idle = [
        (needed, [f"--{name.replace('_', '-')}" for name in names if name in asked])
        for needed, names in NEEDS.items()
        if not met[needed]
    ]
    return [f"{', '.join(flags)} without {needed} writes nothing" for needed, flags in idle if flags]


def _profile(logging: LoggingConfig) -> list[str]:
    start, end = logging.profile_step_start, logging.profile_step_end
    if not logging.profile or start < end:
        return []
    return [
        f"--profile-step-start {start} must be below --profile-step-end {end}; lower the one or raise "
        "the other"
    ]


def _wandb(logging: LoggingConfig) -> list[str]:
    """What a shell or Python would have read, and wandb takes for a name."""
    names = ("wandb_project", "wandb_exp_name", "wandb_entity")
    given = {name: getattr(logging, name) or "" for name in names}
    return [
        f"--{name.replace('_', '-')} {value}: is no name; write the name itself, or leave it out for none"
        for name, value in given.items()
        if value.lower() in ("none", "null", "true", "false") or is_variable(value)
    ]


def _records(logging: LoggingConfig) -> list[str]:
    """A table is asked for by the end of a name."""
    path = logging.metrics_file or ""
    if not path.lower().endswith((".csv", ".tsv")):
        return []
    return [f"--metrics-file {path}: JSON lines are written, and no table; give it a name in .jsonl"]


RULES = (_profile, _wandb, _records)
