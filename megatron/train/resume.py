"""Leaving and taking up a run: what its checkpoints say of it, writing them, going on from them exactly."""

import dataclasses
import platform
from typing import Any

import numpy as np
import torch

from megatron.base.errors import UserError
from megatron.checkpoint.compare import resume_problems
from megatron.checkpoint.load import find_checkpoint, load_model, load_tensors, read_index
from megatron.checkpoint.save import retain, save_checkpoint
from megatron.config.optimizer import decay_horizon, warmup_horizon
from megatron.data.corpora import identity
from megatron.data.vocabulary import Vocabulary
from megatron.optim.optimizer import optimizer_state, restore_optimizer
from megatron.parallel.placement import box_of
from megatron.schedule.data_efficiency import saved_form
from megatron.train.loop import Run


def describe_run(run: Run, vocabulary: Vocabulary) -> dict[str, Any]:
    """What a checkpoint says of its run, besides the step: enough to refuse another run's, and to evaluate
    it."""
    decay = decay_horizon(run.config.optimizer, run.config.training)
    return {
        "config": dataclasses.asdict(run.config),
        "vocabulary": vocabulary._asdict(),
        "data": [identity(corpus) | {"weight": weight} for weight, corpus in run.splits["train"]],
        "analyses": [pool.analyses for pool in run.sampler.pools],
        "data_efficiency": saved_form(run.efficiency),
        "schedule": {
            "decay horizon": list(decay),
            "warm-up": list(warmup_horizon(run.config.optimizer, decay)),
        },
        "versions": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def resume(run: Run, about: dict[str, Any]) -> int:
    """Weights and optimizer from --load; returns the steps already done, with --skip-train the steps that
    the weights have seen. UserError where the checkpoint is of another run."""
    flags = run.config.checkpoint
    if not flags.load:
        return 0
    folder = find_checkpoint(flags.load, flags.ckpt_step)
    if folder is None:
        if flags.exit_on_missing_checkpoint or run.config.training.skip_train:
            given = "--exit-on-missing-checkpoint" if flags.exit_on_missing_checkpoint else "--skip-train"
            raise UserError(f"--load {flags.load} holds no checkpoint, and {given} is given")
        if run.mesh.prints_log:
            print(f"warning: --load {flags.load} holds no checkpoint yet; starting from scratch", flush=True)
        return 0
    index = read_index(folder)
    weights_only = flags.finetune or run.config.training.skip_train
    if not weights_only and (
        problems := resume_problems(index, about, run.plan, flags.override_opt_param_scheduler)
    ):
        raise UserError(*problems)
    load_model(run.model, folder, index, verify=run.mesh.first)
    if weights_only:
        return int(index["iteration"]) if run.config.training.skip_train else 0
    named = dict(run.model.named_parameters())
    if index["iteration"]:
        moments = load_tensors(folder, index, "optimizer.safetensors", verify=run.mesh.first)
        restore_optimizer(run.optimizer, named, moments, index["iteration"])
    if run.mesh.prints_log:
        print(f"loaded {folder}: going on after step {index['iteration']} of {run.plan.steps}", flush=True)
    return int(index["iteration"])


def save_run(run: Run, about: dict[str, Any], iteration: int) -> None:
    """Write a checkpoint of the steps done so far."""
    root = run.config.checkpoint.save or ""
    named = dict(run.model.named_parameters())
    moments = optimizer_state(run.optimizer, named)
    boxes = {name: box_of(parameter) for name, parameter in named.items()}
    boxes |= {name: boxes[name.split(".", 2)[2]] for name in moments}
    weights = {name: parameter.data for name, parameter in named.items()}
    files = {"model.safetensors": weights, "optimizer.safetensors": moments}
    past = {"totals": run.plan.totals(iteration), "plan": run.plan.digest(iteration)}
    folder = save_checkpoint(root, iteration, files, boxes, about | past)
    retain(root, run.config.checkpoint.save_retain_interval, iteration)
    print(f"saved {folder}", flush=True)
