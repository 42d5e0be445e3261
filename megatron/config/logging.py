"""The flags of evaluation beside training, and of what is logged."""

import functools
from dataclasses import dataclass

from megatron.config.arguments import flag

free_flag = functools.partial(flag, resume="free")


@dataclass(frozen=True)
class LoggingConfig:
    log_interval: int = free_flag(100, "steps between log lines", at_least=1)
    eval_interval: int | None = free_flag(None, "steps between validations; at the end only", at_least=1)
    eval_iters: int = free_flag(100, "global batches of a validation; 0 is off", at_least=0)
    tensorboard_dir: str | None = free_flag(None, "folder for TensorBoard scalars", metavar="FOLDER")
    tensorboard_log_interval: int = free_flag(1, "steps between TensorBoard scalars", at_least=1)
    log_throughput: bool = free_flag(
        False, "log TFLOP/s, causal attention counted half, nothing recomputed counted"
    )
    log_params_norm: bool = free_flag(False, "log the norm of the weights")
    metrics_file: str | None = free_flag(
        None, "one JSON record per step; <save>/metrics.jsonl", metavar="FILE"
    )


RULES = ()
