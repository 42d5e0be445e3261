"""From a command line to a trained model: everything is checked and told before the first step."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from megatron.base.errors import UserError
from megatron.base.files import hold, writable_file, writable_folder
from megatron.base.keys import key
from megatron.batches.gpt import RowFormat
from megatron.checkpoint.save import clear_unfinished
from megatron.config.config import Config
from megatron.curriculum.sampler import describe_passes, make_sampler
from megatron.data.corpora import open_splits
from megatron.data.vocabulary import Vocabulary, find_vocabulary
from megatron.evaluation.losses import Weighted
from megatron.model.gpt import GPT
from megatron.optim.optimizer import make_optimizer
from megatron.parallel.data_parallel import GradientBuckets
from megatron.parallel.initialization import draw_parameters
from megatron.parallel.mesh import (
    Mesh,
    agree,
    launched_rank,
    repeat_exactly,
    start_mesh,
    stop_mesh,
    world_size,
)
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan, build_plan
from megatron.schedule.plan_summary import summarise
from megatron.train.announce import describe_for_reports, print_sizes, print_start
from megatron.train.configure import read_config
from megatron.train.log import Log, metrics_path, write_description
from megatron.train.loop import Run, train, validate
from megatron.train.resume import describe_run, resume, save_run

MakeModel = Callable[[Config, int, tuple[int, ...]], GPT]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run before its ranks meet: all that follows from the command line and the files."""

    config: Config
    efficiency: DataEfficiency
    plan: Plan
    splits: dict[str, Weighted]
    vocabulary: Vocabulary
    make_model: MakeModel

    @property
    def dropping(self) -> tuple[int, ...]:
        """Layers under random-LTD."""
        return self.efficiency.random_ltd.layers if self.efficiency.random_ltd else ()


def pretrain(argv: list[str], make_model: MakeModel, description: str, examples: str) -> None:
    """The command: parse, check, build, train, evaluate."""
    config, notes = read_config(argv, description, examples)
    prepared, more = prepare(config, make_model)
    if launched_rank() == world_size() - 1:
        print_start(config, prepared.plan, [*notes, *more])
    if config.training.dry_run:
        with torch.device("meta"):
            model = make_model(config, prepared.vocabulary.size, prepared.dropping)
        summary = summarise(config, prepared.efficiency, prepared.plan, world_size())
        print_sizes(model, summary | {"vocab_size": prepared.vocabulary.size})
        return
    if config.training.deterministic_mode:
        repeat_exactly()
    mesh = start_mesh(config.training.distributed_backend, config.training.distributed_timeout_minutes)
    with ExitStack() as held:
        for lock in _locks(config) if mesh.first else ():
            held.enter_context(hold(lock))
        _train(prepared, mesh)
    stop_mesh()


def prepare(config: Config, make_model: MakeModel) -> tuple[Prepared, list[str]]:
    """Open the data and compute the plan; also notes for the user."""
    efficiency, notes = describe(config)
    path = metrics_path(config)
    for folder in (config.checkpoint.save, path.parent if path else None, config.logging.tensorboard_dir):
        if folder and not config.training.dry_run:
            writable_folder(folder)
    if path and not config.training.dry_run:
        writable_file(path)
    splits = open_splits(config)
    if not splits["train"]:
        raise UserError("no data is left for training; raise its share in --split or give --train-data-path")
    if not splits["valid"] and config.logging.eval_interval and config.logging.eval_iters:
        raise UserError(
            f"no sample of {config.data.seq_length} tokens is left for validation; use more documents, "
            "raise its share in "
            f"--split {config.data.split}, give --valid-data-path, or set --eval-iters 0"
        )
    vocabulary = find_vocabulary(
        config.tokenizer, [corpus for part in splits.values() for _, corpus in part], config.data
    )
    plan = build_plan(config, efficiency, vocabulary.size)
    return Prepared(config, efficiency, plan, splits, vocabulary, make_model), notes


def _locks(config: Config) -> list[Path]:
    """Files whose locks keep other runs from this one's checkpoints and records."""
    if config.training.skip_train:
        return []
    save, records = config.checkpoint.save, config.logging.metrics_file
    places = [Path(save) / ".lock"] if save else []
    return places + [Path(records).with_name(f".{Path(records).name}.lock")] if records else places


def _train(prepared: Prepared, mesh: Mesh) -> None:
    config, plan = prepared.config, prepared.plan
    run = build(prepared, mesh)
    about = describe_run(run, prepared.vocabulary)
    if config.checkpoint.save and mesh.first and not config.training.skip_train:
        clear_unfinished(config.checkpoint.save)
    agree(
        "the run", _digest(run, about), mesh
    )  # and no rank looks for a checkpoint before the folder is clear
    start = resume(run, about)
    log = Log(config, prepared.efficiency, plan, mesh, start)
    if mesh.first and not config.training.skip_train:
        write_description(config, describe_for_reports(run, about, start))
    if mesh.prints_log:
        print("\n".join(describe_passes(run.sampler, plan)), flush=True)

    def save(iteration: int) -> Any:
        if mesh.first:
            save_run(run, about, iteration)

    done = start if config.training.skip_train else train(run, start, log, save)
    if done == plan.steps or config.training.skip_train:
        if not config.logging.eval_interval or done % config.logging.eval_interval or done == start:
            validate(run, done, log)
        validate(run, done, log, "test")
    log.close()


def build(prepared: Prepared, mesh: Mesh) -> Run:
    """Model, gradients, optimizer and sampler of a run at step 0."""
    config = prepared.config
    sampler = make_sampler(prepared.splits["train"], prepared.efficiency, prepared.plan)
    if mesh.device.type == "cpu":
        torch.set_flush_denormal(True)
    model = prepared.make_model(config, prepared.vocabulary.size, prepared.dropping)
    draw_parameters(model, config.training.seed)
    model.to(mesh.device)
    parameters = list(model.parameters())
    return Run(
        config=config,
        efficiency=prepared.efficiency,
        plan=prepared.plan,
        mesh=mesh,
        model=model,
        gradients=GradientBuckets(parameters, mesh),
        optimizer=make_optimizer(parameters, config.optimizer),
        sampler=sampler,
        splits=prepared.splits,
        row_format=RowFormat(
            data=config.data,
            vocab_size=prepared.vocabulary.size,
            eod=prepared.vocabulary.eod,
            reshape=prepared.efficiency.length_metric,
            reference_schedules=prepared.efficiency.reference_schedules,
            dropping=prepared.dropping,
            seed=config.training.seed,
        ),
    )


def _digest(run: Run, about: dict[str, Any]) -> int:
    """A 62-bit value that differs where configuration, data, difficulties or plan do."""
    plan = run.plan
    return (
        key(json.dumps(about, sort_keys=True), plan.digest(plan.steps), plan.learning_rate.tobytes().hex())
        >> 2
    )
