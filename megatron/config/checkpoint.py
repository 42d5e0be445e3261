"""The flags of checkpoints, and the rules between them."""

import functools
from dataclasses import dataclass

from megatron.config.flags import NEWEST, flag, spelling
from megatron.config.training import TrainingConfig

free_flag = functools.partial(flag, resume="free")


@dataclass(frozen=True)
class CheckpointConfig:
    save: str | None = free_flag(None, "folder for checkpoints", metavar="FOLDER")
    load: str | None = free_flag(None, "folder to go on from; may be the one of --save", metavar="FOLDER")
    save_interval: int | None = free_flag(
        None,
        "save every so many steps, and at the end",
        at_least=1,
        otherwise="leave it out to save at the end alone, and --save, too, to save nothing",
    )
    save_retain_interval: int | None = free_flag(
        None,
        "keep only checkpoints at multiples of this, and the newest",
        at_least=1,
        otherwise="leave it out to keep all of them",
    )
    async_save: bool = free_flag(
        False, "write checkpoints beside the training, which waits only for a copy of them"
    )
    ckpt_step: int | None = free_flag(
        None,
        "load this step instead of the newest",
        at_least=0,
        otherwise=NEWEST,
    )
    finetune: bool = free_flag(
        False,
        "take only the weights from --load and start at step 0",
        otherwise="the weights are those of --load FOLDER beside it; a ViT starts from others, also Hugging "
        "Face's, by --pretrained-checkpoint FOLDER alone",
    )
    exit_on_missing_checkpoint: bool = free_flag(False, "stop where --load holds no checkpoint")
    use_checkpoint_args: bool = free_flag(False, "take the model's shape from the checkpoint")
    overwrite_run: bool = free_flag(
        False, "start anew in a --save folder that holds another run, whose results are set aside there"
    )
    override_opt_param_scheduler: bool = free_flag(
        False,
        "go on with a learning rate or schedule that differs from the checkpoint's",
        aliases=("--override-opt_param-scheduler",),
    )


def _save(checkpoint: CheckpointConfig, training: TrainingConfig) -> list[str]:
    found: list[str] = []
    if training.skip_train:  # which saves nothing: the command of a run evaluates it with one flag more
        return found
    for name in ("save_interval", "save_retain_interval"):
        if getattr(checkpoint, name) is not None and not checkpoint.save:
            found.append(f"{spelling(name)} {getattr(checkpoint, name)} needs --save FOLDER")
    for name in ("async_save", "overwrite_run"):
        if getattr(checkpoint, name) and not checkpoint.save:
            found.append(f"{spelling(name)} needs --save FOLDER")
    return found


def _retain(checkpoint: CheckpointConfig) -> list[str]:
    interval, retain = checkpoint.save_interval, checkpoint.save_retain_interval
    if interval and retain and retain % interval:
        return [
            f"--save-retain-interval {retain} is no multiple of --save-interval {interval}, so none would "
            "be kept; take a multiple"
        ]
    return []


def _load(checkpoint: CheckpointConfig) -> list[str]:
    names = ("ckpt_step", "finetune", "use_checkpoint_args", "exit_on_missing_checkpoint")
    given = [name for name in names if getattr(checkpoint, name) not in (None, False)]
    return [] if checkpoint.load else [f"{spelling(name)} needs --load FOLDER" for name in given]


def _something_to_evaluate(training: TrainingConfig, checkpoint: CheckpointConfig) -> list[str]:
    if training.skip_train and not checkpoint.load:
        return ["--skip-train evaluates a checkpoint; give --load FOLDER"]
    return []


RULES = (_save, _retain, _load, _something_to_evaluate)
