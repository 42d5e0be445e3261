"""Saving and resuming a run: what its checkpoints say of it, writing them, going on from them exactly."""

import dataclasses
import json
import platform
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from megatron.base.errors import UserError
from megatron.base.terminal import print_line
from megatron.base.units import duration
from megatron.checkpoint.compare import resume_problems
from megatron.checkpoint.earlier import goes_on, set_aside
from megatron.checkpoint.load import (
    boxes_of,
    find_checkpoint,
    load_model,
    read_boxes,
    verify_files,
)
from megatron.checkpoint.manifest import Manifest, as_read, read_manifest
from megatron.checkpoint.meaning import custom_rises
from megatron.checkpoint.save import Files, own_tensors, retain, save_checkpoint
from megatron.checkpoint.saved_config import with_new_flags
from megatron.config.checkpoint import CheckpointConfig
from megatron.config.optimizer import decay_horizon, warmup_horizon
from megatron.conversion.pretrained import few, load_pretrained, open_pretrained, other_pixels
from megatron.conversion.to_ours import PADDED
from megatron.data.corpora import identity
from megatron.data.tokenizer import describe_identity
from megatron.optim.loss_scale import resumed
from megatron.optim.optimizer import SLOTS, optimizer_state, restore_optimizer
from megatron.parallel.layout import layout_of
from megatron.parallel.mesh import Mesh, share_bytes, together
from megatron.parallel.placement import Placement, whole
from megatron.parallel.ranks import world_size
from megatron.schedule.data_efficiency import saved_form
from megatron.train.places import find_together
from megatron.train.records import Start
from megatron.train.setup import Prepared, Run


def describe_run(prepared: Prepared) -> Manifest:
    """What a checkpoint says of its run, at step 0."""
    decay = decay_horizon(prepared.config.optimizer, prepared.config.training)
    warmup = warmup_horizon(prepared.config.optimizer, decay)
    versions = {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
    return as_read(
        Manifest(
            task=prepared.task.name,
            config=dataclasses.asdict(prepared.config),
            vocabulary=prepared.data.vocabulary,
            data=[identity(corpus) | {"weight": weight} for weight, corpus in prepared.data.splits["train"]],
            analyses=[pool.analyses for pool in prepared.sampler.pools],
            data_efficiency=saved_form(prepared.efficiency),
            schedule={"decay horizon": list(decay), "warm-up": list(warmup)},
            versions=versions,
        )
    )


def require_same_run(prepared: Prepared, mine: Manifest) -> None:
    """UserError where --load resumes, and holds a checkpoint of another run."""
    flags = prepared.config.checkpoint
    if not flags.load or flags.finetune or prepared.config.training.skip_train:
        return
    folder = find_checkpoint(flags.load, flags.ckpt_step, tell=lambda _: None)
    if folder is None:
        return
    saved = read_manifest(folder)
    if saved.is_converted:
        raise UserError(
            f"--load {flags.load}: {folder.name} holds converted weights, and no run to go on with; take its "
            "weights alone by --finetune"
        )
    saved = dataclasses.replace(saved, config=with_new_flags(saved.config, folder))
    override = flags.override_opt_param_scheduler
    replicas = layout_of(prepared.config.parallel, world_size()).data
    if problems := resume_problems(saved, mine, prepared.plan, override, replicas):
        raise UserError(*problems)


def resume(run: Run) -> Start:
    """Weights and optimizer from --load, which is of this run unless only its weights are asked for."""
    flags, skip_train = run.config.checkpoint, run.config.training.skip_train
    start = Start(0, run.plan.totals(0))
    if not flags.load:
        return start
    tell = partial(print, flush=True) if run.mesh.prints_log else lambda _: None
    folder = find_together(flags.load, flags.ckpt_step, tell, run.mesh)
    if folder is None:
        tell(f"note: --load {flags.load} holds no checkpoint yet; starting from scratch")
        return start
    saved = read_manifest(folder)
    weights_only = flags.finetune or skip_train
    verify_files(folder, saved, run.mesh, "model" if weights_only else "")
    names = share_bytes(json.dumps([*run.parameters, *run.states]).encode(), run.mesh)
    known = {name for one in names for name in json.loads(one)}
    together(lambda: _read(run, folder, saved, weights_only, known), run.mesh)
    if weights_only:
        for line in other_tokens(folder, saved, run):
            tell(line)
        return Start(saved.iteration, saved.totals) if skip_train else start
    tell(f"loaded {folder}: going on after step {saved.iteration} of {run.plan.steps}")
    back = flags.ckpt_step is not None or folder == Path(flags.load)
    kept = saved.iteration if goes_on(flags) else 0
    return Start(saved.iteration, run.plan.totals(saved.iteration), kept, afresh=back or not kept)


def other_tokens(folder: Path, saved: Manifest, run: Run) -> list[str]:
    """A warning where weights are taken that know another tokenizer, or other classes, than the data."""
    theirs, mine = saved.vocabulary.tokenizer or {}, run.data.vocabulary.tokenizer or {}
    if (told := theirs.get("classes")) and (known := mine.get("classes")) and [*told] != [*known]:
        return [
            f"warning: the head of {folder} tells {few(told)}, and the images are of {few(known)}, each "
            "taken for the one in its place; unless they are the same, give --pretrained-checkpoint instead "
            "of --load and --finetune"
        ]
    if theirs == mine or "type" not in theirs or "type" not in mine:  # of images they are classes
        return []
    return [
        f"warning: the weights of {folder} were trained with {describe_identity(theirs)}, and the data was "
        f"made by {describe_identity(mine)}, so that they may take its tokens for others; preprocess the "
        "text with the tokenizer of the weights, unless both give the same ids"
    ]


def require_same_words(folder: Path, saved: Manifest, run: Run) -> None:
    """UserError where the weights are a model of other flags in nothing but how many tokens it knows."""
    theirs, mine, there = saved.vocabulary.size, run.data.vocabulary.size, saved.tensors
    shapes = {name: one.global_shape for name, one in run.placements.items() if name in there}
    other = {name for name, shape in shapes.items() if there[name].global_shape != shape}
    if theirs != mine and other and other <= {*PADDED}:
        raise UserError(
            f"{folder}: its weights know {theirs:,} tokens, and the vocabulary of the data has {mine:,}; "
            "preprocess the text with the tokenizer of the weights, or begin anew without --load"
        )


def start_from(run: Run, path: str) -> None:
    """Fill the weights of a vision transformer with those of another one."""
    architecture = run.task.architecture(run.config, run.data.vocabulary.size)
    assert architecture.pictures is not None
    grid, notes = architecture.pictures.grid, list[str]()

    def read() -> bytes:
        nonlocal notes
        source = open_pretrained(path)
        classes = tuple((run.data.vocabulary.tokenizer or {}).get("classes", ()))
        notes = load_pretrained(source, run.parameters, run.placements, grid, classes)
        notes += other_pixels(source, run.config.vision)
        return b""

    together(read, run.mesh)
    if run.mesh.prints_log:
        print("\n".join([f"weights of {path}", *(f"note: {one}" for one in notes)]), flush=True)


def _read(run: Run, folder: Path, saved: Manifest, weights_only: bool, known: set[str]) -> bytes:
    """Fill this rank's weights, and moments where there are any."""
    require_same_words(folder, saved, run)
    load_model(run.parameters | run.states, run.placements | whole(run.states), folder, saved, known)
    if weights_only:
        return b""
    if saved.loss_scale:
        run.scaler.state = resumed(saved.loss_scale, run.config.optimizer)
    if updates := saved.iteration - run.scaler.state.skipped_steps:
        updated = run.gradients.parameters
        boxes = boxes_of(updated, run.gradients.placements)
        wanted = {f"optimizer.{slot}.{name}": box for name, box in boxes.items() for slot in SLOTS}
        restore_optimizer(run.optimizer, updated, read_boxes(folder, saved, wanted), updates)
    return b""


def keep_earlier(run: Run, start: Start) -> None:
    """Set aside what the --save folder holds and this run does not go on from."""
    aside = set_aside(run.config.checkpoint, start.iteration)
    if aside is not None:
        print(f"note: the checkpoints of an earlier run in this place are kept in {aside}", flush=True)


class Content(NamedTuple):
    """What a checkpoint is made of: tensors that this rank writes, their places, and what is said of them."""

    files: Files
    table: dict[str, Placement]
    manifest: Manifest


def content_of(run: Run, mine: Manifest, iteration: int) -> Content:
    """The content of a checkpoint of the steps done so far. Its tensors are those of the run itself."""
    weights = {name: one.detach() for name, one in (run.parameters | run.states).items()}
    moments = optimizer_state(run.optimizer, run.gradients.parameters)
    table = (
        run.placements
        | whole(run.states)
        | {name: run.gradients.placements[name.split(".", 2)[2]] for name in moments}
    )
    files = own_tensors({"model": weights, "optimizer": moments}, table, run.mesh)
    totals, plan = run.plan.totals(iteration), run.plan.digest(iteration)
    rises = custom_rises(run.efficiency, run.plan, iteration)
    scale = run.scaler.state._asdict() if run.config.training.fp16 else {}
    manifest = dataclasses.replace(
        mine, iteration=iteration, totals=totals, plan=plan, rises=rises, loss_scale=scale
    )
    return Content(files, table, manifest)


def write_checkpoint(flags: CheckpointConfig, content: Content, mesh: Mesh, how: str = "") -> None:
    """Write a checkpoint, then delete those that are not to be kept. `how`: more to tell of it."""
    root, iteration, before = flags.save or "", content.manifest.iteration, time.perf_counter()
    folder = save_checkpoint(root, *content, mesh)
    if not mesh.first:
        return
    retain(root, flags.save_retain_interval, iteration, print_line)
    took = f"in {duration(time.perf_counter() - before)}{how}"
    print_line(
        f"saved {folder} {took}\n  successfully saved checkpoint from iteration {iteration:7d} to {root}"
    )


def save_run(run: Run, mine: Manifest, iteration: int) -> None:
    """Write a checkpoint of the steps done so far."""
    write_checkpoint(run.config.checkpoint, content_of(run, mine, iteration), run.mesh)
