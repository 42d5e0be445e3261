"""A run before its first step: what follows from the configuration and the files, then model, gradients and
optimizer."""

from dataclasses import dataclass

import torch
from torch import nn

from megatron.base.files import writable_file, writable_folder
from megatron.batches.loader import Rows
from megatron.config.config import Config
from megatron.curriculum.sampler import Sampler, make_sampler
from megatron.optim.optimizer import make_optimizer
from megatron.parallel.data_parallel import GradientBuckets
from megatron.parallel.initialization import initialize
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import placements
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan, build_plan
from megatron.tasks.task import Data, Task
from megatron.train.log import metrics_path


@dataclass(frozen=True)
class Prepared:
    """A run before its ranks meet: all that follows from the command line and the files."""

    task: Task
    config: Config
    efficiency: DataEfficiency
    data: Data
    plan: Plan


@dataclass(frozen=True)
class Run(Prepared):
    """Everything that a training run works with."""

    mesh: Mesh
    model: nn.Module
    gradients: GradientBuckets
    optimizer: torch.optim.AdamW
    sampler: Sampler
    rows: Rows


def prepare(config: Config, task: Task) -> tuple[Prepared, list[str]]:
    """Open the data and compute the plan; also notes for the user."""
    efficiency, notes = describe(config)
    if not config.training.dry_run:
        _check_places(config)
    data = task.open_data(config)
    plan = build_plan(config, efficiency, task.row_flops(config, efficiency, data.vocabulary.size))
    return Prepared(task, config, efficiency, data, plan), [*notes, *filter(None, [data.end])]


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
    task, config, efficiency, data = prepared.task, prepared.config, prepared.efficiency, prepared.data
    sampler = make_sampler(data.splits["train"], efficiency, prepared.plan)
    if mesh.device.type == "cpu":
        torch.set_flush_denormal(True)
    model = task.build_model(config, data.vocabulary.size, efficiency.dropping_layers)
    initialize(model, config.training.seed)
    model.to(mesh.device)
    return Run(
        task=task,
        config=config,
        efficiency=efficiency,
        data=data,
        plan=prepared.plan,
        mesh=mesh,
        model=model,
        gradients=GradientBuckets(dict(model.named_parameters()), placements(model), mesh),
        optimizer=make_optimizer(list(model.parameters()), config.optimizer),
        sampler=sampler,
        rows=task.make_rows(config, efficiency, data.vocabulary),
    )
