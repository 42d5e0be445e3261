"""A run before its first step: what follows from the configuration and the files, then model, gradients and
optimizer."""

import os
import shutil
from dataclasses import dataclass

import torch
from torch import nn

from megatron.base.errors import UserError
from megatron.base.files import writable_file, writable_folder
from megatron.batches.loader import Rows
from megatron.checkpoint.earlier import start_problems
from megatron.config.config import Config
from megatron.conversion.pretrained import pretrained_problems
from megatron.curriculum.sampler import Sampler, make_sampler
from megatron.data.corpora import unevaluated
from megatron.data.vocabulary import endless
from megatron.model.experts import Experts
from megatron.model.stack import compile_layers
from megatron.optim.loss_scale import LossScaler, first_loss_scale
from megatron.optim.optimizer import make_optimizer
from megatron.parallel.data_parallel import GradientBuckets
from megatron.parallel.deferred import Deferred
from megatron.parallel.fully_sharded import FullyShardedBuckets, make_gradients
from megatron.parallel.initialization import initialize_weights
from megatron.parallel.layers import Linear
from megatron.parallel.layout import layout_of
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import Placement, fill_constants, states
from megatron.parallel.ranks import local_rank, world_size
from megatron.parallel.stages import Stage, StageModule, stages_of
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan, build_plan
from megatron.schedule.plan_layout import layout_problems
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
    """Everything that a training run works with. `stages`: this rank's runs of layers, one but for an
    interleaved pipeline."""

    mesh: Mesh
    stages: tuple[StageModule, ...]
    gradients: GradientBuckets
    optimizer: torch.optim.Optimizer
    scaler: LossScaler
    deferred: Deferred | None = None

    @property
    def model(self) -> StageModule:
        """The whole model, where one rank has all layers."""
        (model,) = self.stages
        return model

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """This rank's part of every parameter that it has, by its global name."""
        return self.gradients.held

    @property
    def states(self) -> dict[str, torch.Tensor]:
        """What else its layers keep from step to step, by global names; every rank has it whole."""
        return {name: one for stage in self.stages for name, one in states(stage).items()}

    @property
    def placements(self) -> dict[str, Placement]:
        """Where these parts lie."""
        return self.gradients.held_placements


def prepare(config: Config, task: Task) -> tuple[Prepared, list[str]]:
    """Open the data and the analyses, and compute the plan; also notes for the user."""
    efficiency, notes = describe(config)
    problems = start_problems(config.checkpoint, config.training.skip_train)
    if problems := [*problems, *pretrained_problems(config), *_compiler(config)]:
        raise UserError(*problems)
    if not config.training.dry_run and local_rank() == 0:  # one of them removes what a mistake leaves empty
        _check_places(config)
    data = task.open_data(config)
    prepared = join(task, config, efficiency, data)
    if problems := layout_problems(config, prepared.plan, layout_of(config.parallel, world_size()).data):
        raise UserError(*problems)
    notes += [*plan_notes(config, efficiency, prepared.plan), *unevaluated(config, data.splits)]
    corpora = [corpus for blend in data.splits.values() for _, corpus in blend]
    notes += _idle_gpus(config.training.distributed_backend)
    return prepared, [*notes, *filter(None, [data.note]), *endless(config.data, corpora)]


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


def _compiler(config: Config) -> list[str]:
    """What --compile lacks on this machine."""
    names = (os.environ.get("CXX", "g++"), "clang++", "c++")
    if not config.training.compile or any(map(shutil.which, names)):
        return []
    return ["--compile needs a C++ compiler, and there is no g++ here; install one, or leave --compile out"]


def _idle_gpus(backend: str | None) -> list[str]:
    """A note that GPUs are here which a run does not use."""
    if backend != "gloo" or not torch.cuda.is_available():
        return []
    return ["--distributed-backend gloo computes on the CPU, though a GPU is here; leave it out to use it"]


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
    config = prepared.config
    if mesh.device.type == "cpu":
        torch.set_flush_denormal(True)
    stages = tuple(_stage(prepared, mesh, one) for one in _stages(config, mesh))
    strategy = config.parallel.data_parallel_sharding_strategy
    sent_as = torch.bfloat16 if config.training.grad_reduce_in_bf16 else None
    gradients = make_gradients(stages, mesh, strategy, sent_as)
    initialize_weights(gradients.held, gradients.held_placements, config.training.seed)
    for stage in stages:
        fill_constants(stage)
    deferred = _deferred(config, stages, gradients)
    optimizer = make_optimizer(gradients.parameters, config.optimizer, config.training.apex)
    return Run(
        **vars(prepared),
        mesh=mesh,
        stages=stages,
        gradients=gradients,
        optimizer=optimizer,
        scaler=LossScaler(first_loss_scale(config.optimizer, config.training)),
        deferred=deferred,
    )


def _stage(prepared: Prepared, mesh: Mesh, stage: Stage) -> StageModule:
    """The layers of a stage, without memory for their weights."""
    config, vocab_size = prepared.config, prepared.data.vocabulary.size
    with torch.device("meta"):
        model = prepared.task.build_model(
            config, vocab_size, prepared.efficiency.dropping_layers, mesh, stage
        )
    if config.training.compile:
        compile_layers(model.layers)
    return model


def _stages(config: Config, mesh: Mesh) -> list[Stage]:
    """This rank's runs of layers."""
    return stages_of(config.parallel, config.model)[mesh.pipeline.rank :: mesh.pipeline.size]


def _deferred(config: Config, stages: tuple[StageModule, ...], gradients: GradientBuckets) -> Deferred | None:
    """Where layers leave the gradients of weights: all layers, where a schedule splits the backward pass; and
    experts where they add to them in place, as gradients are whole and in the precision of products."""
    splits, exact = config.parallel.pipeline_schedule == "zero-bubble", stages[0].dtype is None
    if not splits and (not exact or isinstance(gradients, FullyShardedBuckets)):
        return None
    deferred = Deferred(gradients.ready)
    for stage in stages:
        for module in stage.modules():
            if isinstance(module, Experts) or (splits and isinstance(module, Linear)):
                module.deferred = deferred
    return deferred
