"""From a command line to a trained model: everything is checked and told before the first step."""

import dataclasses
import json
import time
from contextlib import ExitStack

from megatron.base.errors import UserError
from megatron.base.files import hold, require_room
from megatron.base.keys import key
from megatron.checkpoint.earlier import start_problems
from megatron.checkpoint.manifest import Manifest
from megatron.checkpoint.save import clear_unfinished
from megatron.config.config import Config
from megatron.curriculum.sampler import describe_passes
from megatron.data.tokenizer_files import keep_tokenizer
from megatron.parallel.layout import layout_of
from megatron.parallel.mesh import (
    Mesh,
    agree,
    device_of_rank,
    repeat_exactly,
    start_mesh,
    stop_mesh,
    wait_for_all,
)
from megatron.parallel.ranks import (
    joined_ranks,
    launch_notes,
    launched_rank,
    ranks_here,
    require_launch,
    world_size,
)
from megatron.parallel.roll_call import open_roll_call
from megatron.tasks.task import Task
from megatron.train.announce import (
    count_line,
    describe_for_reports,
    print_sizes,
    print_start,
    whole_size,
)
from megatron.train.configure import read_config
from megatron.train.log import Log, write_description
from megatron.train.loop import train, validate
from megatron.train.memory_estimate import BYTES_SAVED, check_memory, estimate_memory
from megatron.train.places import locks, require_shared
from megatron.train.resume import describe_run, keep_earlier, require_same_run, resume, start_from
from megatron.train.saving import Checkpoints
from megatron.train.setup import Prepared, Run, build, prepare


def pretrain(argv: list[str], task: Task, description: str, examples: str) -> None:
    """The command: parse, check, build, train, evaluate."""
    require_launch()
    run_training(*read_config(argv, description, examples, task.rules, task.given), task)


def run_training(config: Config, notes: list[str], task: Task) -> bool:
    """The same of a configuration, with notes for the user; whether its last step is done."""
    since = time.perf_counter()
    prepared, more = prepare(config, task)
    manifest = describe_run(prepared)
    require_same_run(prepared, manifest)
    if launched_rank() == world_size() - 1:
        print_start(prepared, [*notes, *more, *launch_notes()])
    if config.training.dry_run:
        print_sizes(prepared, world_size())
    if not config.training.skip_train:  # which takes less: no moments, and nothing for a backward pass
        line = _memory_line(prepared)
        if launched_rank() == world_size() - 1:
            print(line, flush=True)
    if config.training.dry_run:
        return False
    if config.training.deterministic_mode:
        repeat_exactly()
    training, layout = config.training, layout_of(config.parallel, world_size())
    with joined_ranks():
        mesh = start_mesh(training.distributed_backend, training.distributed_timeout_minutes, layout)
        roll = open_roll_call(mesh.world.rank, mesh.world.size, training.distributed_timeout_minutes)
    with joined_ranks(roll), ExitStack() as held:
        for lock in locks(config) if mesh.first else ():
            held.enter_context(hold(lock))
        if mesh.first and (late := start_problems(config.checkpoint, config.training.skip_train)):
            raise UserError(*late)  # another run has ended there while this one was getting ready
        done = _train(prepared, manifest, mesh, since)
    stop_mesh()
    return done == prepared.plan.steps


def _memory_line(prepared: Prepared) -> str:
    """What a rank will take of what is free; UserError where it does not fit."""
    training = prepared.config.training
    device = device_of_rank(training.distributed_backend)
    memory = estimate_memory(prepared, device, layout_of(prepared.config.parallel, world_size()))
    return check_memory(memory, device, ranks_here(), training.ignore_memory_estimate)


def _train(prepared: Prepared, manifest: Manifest, mesh: Mesh, since: float) -> int:
    """The last step done. `since`: when the run has begun, by time.perf_counter."""
    config, plan = prepared.config, prepared.plan
    run = build(prepared, mesh)
    if config.checkpoint.save and mesh.first and not config.training.skip_train:
        clear_unfinished(config.checkpoint.save)
    agree("the run", _digest(run, manifest), mesh)  # and no rank looks for a checkpoint in an unclear folder
    if config.checkpoint.save and not config.training.skip_train:
        require_shared(config.checkpoint.save, mesh)
    start = resume(run)
    if config.vision.pretrained_checkpoint and not (start.iteration or config.training.skip_train):
        start_from(run, config.vision.pretrained_checkpoint)
    wait_for_all(mesh)  # from here on all have read the checkpoint
    if config.checkpoint.save and mesh.first and not config.training.skip_train:
        if start.iteration < plan.steps:
            require_room(config.checkpoint.save, BYTES_SAVED * whole_size(run)[0], "a checkpoint of --save")
        keep_earlier(run, start)
        _keep_tokenizer(config.checkpoint.save, run)
    log = Log(config, prepared.efficiency, plan, mesh, start)
    if mesh.data.rank == mesh.context.rank == 0:
        print(count_line(run), flush=True)
    if mesh.first and not config.training.skip_train:
        write_description(config, describe_for_reports(run, manifest, start.iteration))
    if mesh.prints_log:
        print("\n".join(describe_passes(run.sampler, plan)), flush=True)

    done = begun = start.iteration
    if not config.training.skip_train:
        with Checkpoints(run, manifest, begun) as checkpoints:
            done = train(run, begun, log, checkpoints, since)
    if done == plan.steps or config.training.skip_train:
        if not config.logging.eval_interval or done % config.logging.eval_interval or done == begun:
            validate(run, done, log)
        validate(run, done, log, "test")
    log.close()
    return done


def _keep_tokenizer(root: str, run: Run) -> None:
    """Keep the tokenizer beside the checkpoints, or say why not."""
    sidecars = [corpus.sidecar for _, corpus in run.data.splits["train"] if corpus.sidecar]
    for note in keep_tokenizer(root, run.config.tokenizer, sidecars, run.data.vocabulary):
        print(f"note: {note}", flush=True)


def _digest(run: Run, manifest: Manifest) -> int:
    """A 62-bit value that differs where configuration, data, difficulties or plan do."""
    plan, words = run.plan, json.dumps(dataclasses.asdict(manifest), sort_keys=True)
    return key(words, plan.digest(plan.steps), plan.learning_rate.tobytes().hex()) >> 2
