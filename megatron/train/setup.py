"""A run before its first step: what follows from the configuration and the files, then model, gradients and
optimizer."""

from dataclasses import dataclass

import torch
from torch import nn

from megatron.base.errors import UserError
from megatron.base.files import writable_file, writable_folder
from megatron.batches.loader import Rows
from megatron.checkpoint.earlier import start_problems
from megatron.config.config import Config
from megatron.curriculum.sampler import Sampler, make_sampler
from megatron.data.corpora import unevaluated
from megatron.data.vocabulary import endless
from megatron.optim.optimizer import make_optimizer
from megatron.parallel.data_parallel import GradientBuckets
from megatron.parallel.initialization import initialize
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import placements
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan, build_plan
from megatron.schedule.plan_notes import plan_notes
from megatron.tasks.task import Data, Task
from megatron.train.places import metrics_path


@dataclass(frozen=True)
class Prepared:
    """A run before its ranks meet: all that follows from the command line and the files."""

    task: Task
    config: Config
    efficiency: DataEfficiency
    data: Data
    plan: Plan
    sampler: Sampler
    rows: Rows


@dataclass(frozen=True)
class Run(Prepared):
    """Everything that a training run works with."""

    mesh: Mesh
    model: nn.Module
    gradients: GradientBuckets
    optimizer: torch.optim.AdamW


def prepare(config: Config, task: Task) -> tuple[Prepared, list[str]]:
    """Open the data and the analyses, and compute the plan; also notes for the user."""
    efficiency, notes = describe(config)
    if problems := start_problems(config.checkpoint, config.training.skip_train):
        raise UserError(*problems)
    if not config.training.dry_run:
        _check_places(config)
    data = task.open_data(config)
    prepared = join(task, config, efficiency, data)
    notes += [*plan_notes(config, efficiency, prepared.plan), *unevaluated(config, data.splits)]
    corpora = [corpus for blend in data.splits.values() for _, corpus in blend]
    return prepared, [*notes, *filter(None, [data.end]), *endless(config.data, corpora)]


def join(task: Task, config: Config, efficiency: DataEfficiency, data: Data) -> Prepared:
    """What follows from flags and data."""
    plan = build_plan(config, efficiency, task.row_flops(config, efficiency, data.vocabulary.size))
    return Prepared(
        task=task,
        config=config,
        efficiency=efficiency,
        data=data,
        plan=plan,
        sampler=make_sampler(data.splits["train"], efficiency, plan),
        rows=task.make_rows(config, efficiency, data.vocabulary),
    )


def _check_places(config: Config) -> None:
    """Whether everything can be written that the run will write."""
    path = metrics_path(config)
    for folder in (config.checkpoint.save, path.parent if path else None, config.logging.tensorboard_dir):
        if folder:
            writable_folder(folder)
    if path:
        writable_file(path)


def build(prepared: Prepared, mesh: Mesh) -> Run:
    """The run at step 0."""
    task, config = prepared.task, prepared.config
    if mesh.device.type == "cpu":
        torch.set_flush_denormal(True)
    model = task.build_model(config, prepared.data.vocabulary.size, prepared.efficiency.dropping_layers)
    initialize(model, config.training.seed)
    model.to(mesh.device)
    return Run(
        **vars(prepared),
        mesh=mesh,
        model=model,
        gradients=GradientBuckets(dict(model.named_parameters()), placements(model), mesh),
        optimizer=make_optimizer(list(model.parameters()), config.optimizer),
    )
