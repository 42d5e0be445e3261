"""What a run tells: records of named numbers, each handed to every sink."""

import json
import os
from typing import Any

import torch

from megatron.base.files import whole_file
from megatron.base.terminal import print_line
from megatron.config.config import Config
from megatron.parallel.mesh import Mesh, gather_over
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Plan
from megatron.train.json_records import recorded_kinds
from megatron.train.log_line import log_line, validation_block
from megatron.train.memory import memory_line, memory_scalars
from megatron.train.places import metrics_path
from megatron.train.profile import Profile
from megatron.train.records import (
    Losses,
    Outcome,
    Record,
    Start,
    train_fields,
    train_scalars,
    validation_fields,
    validation_scalars,
)
from megatron.train.sinks import open_sinks
from megatron.train.throughput import Rates, device_name, device_peak, explain, rates
from megatron.train.timers import NOT_OF_A_STEP, Timers, Times, timing_block


class Log:
    """Tells of a run from its start; what an earlier attempt recorded past it is cut off. With --skip-train
    only a --metrics-file that is asked for gets the evaluation, after what it holds. All ranks call it alike;
    `timers` are for whoever runs the parts of a step."""

    def __init__(self, config: Config, efficiency: DataEfficiency, plan: Plan, mesh: Mesh, start: Start):
        self.config, self.efficiency, self.plan, self.mesh = config, efficiency, plan, mesh
        self.start, self.since = start, list[Outcome]()
        self.timers = Timers(config.logging.timing_log_level, mesh.device)
        self.profile = Profile(config, mesh)
        self.sinks = open_sinks(config, metrics_path(config), plan, mesh, start)
        self.peak: float | None = None
        if config.logging.log_throughput and not config.training.skip_train:
            name = device_name(mesh.device)
            self.peak = device_peak(config, name)
            if mesh.prints_log:
                print_line(explain(config, name, self.peak))
        self.timers.profiling = self.profile.after(start.iteration)

    def train(self, iteration: int, outcome: Outcome) -> None:
        """Record a training step."""
        flags = self.config.logging
        self.since.append(outcome)
        due = iteration % flags.log_interval == 0 or iteration in (1, self.plan.steps)
        times = self.timers.collect(self.mesh, len(self.since)) if due else {}
        if self.sinks:
            speed = rates(
                self.plan, iteration - 1, iteration, outcome.seconds, self.mesh.world.size, self.peak
            )
            scalars = self._timing_scalars(times)
            if iteration % flags.tensorboard_log_interval == 0:
                scalars |= self._scalars(iteration, outcome, speed)
            text = self._text(iteration, times) if due else ""
            self._write(Record(iteration, train_fields(self.plan, iteration, outcome, speed), scalars, text))
        if due:
            self.since = []
        second = min(self.start.iteration + 2, self.plan.steps)  # all is allocated by then
        if self.mesh.first and iteration == second:
            print_line(memory_line(self.mesh.world.rank, iteration, self.mesh.device))
        self.timers.profiling = self.profile.after(iteration)

    def validation(self, iteration: int, losses: Losses, windows: int, what: str = "validation") -> None:
        """Record mean losses over so many windows, by corpus and name; the corpus named "" is over all."""
        times = self.timers.collect(self.mesh, names=NOT_OF_A_STEP)
        skip_train = self.config.training.skip_train
        totals = self.start.totals if skip_train else self.plan.totals(iteration)
        kind, of = ("valid", "") if what == "validation" else ("test", " test")
        text = validation_block(iteration, losses, what)
        self._write(
            Record(
                iteration,
                validation_fields(kind, iteration, totals, losses, windows),
                validation_scalars(losses, what) | self._timing_scalars(times, of),
                "\n".join([text, *self._timing_lines(times)]),
            )
        )

    def lacks_validation(self, iteration: int) -> bool:
        """Whether the records know the training of a step and not its validation. All ranks call it alike."""
        path = metrics_path(self.config) if self.mesh.first else None
        kinds = recorded_kinds(path, iteration) if path else set()
        lacks = torch.tensor([float("train" in kinds and "valid" not in kinds)], device=self.mesh.device)
        return bool(gather_over(lacks, self.mesh.world).any())

    def close(self) -> None:
        """Finish the files."""
        self.profile.close()
        for sink in self.sinks:
            sink.close()

    def _write(self, record: Record) -> None:
        for sink in self.sinks:
            sink.write(record)

    def _scalars(self, iteration: int, outcome: Outcome, speed: Rates) -> dict[str, float]:
        ranks = self.mesh.world.size
        scalars = train_scalars(self.plan, iteration, outcome, ranks, self.efficiency, speed)
        if self.config.logging.log_memory_to_tensorboard:
            scalars |= memory_scalars(self.mesh.device)
        return scalars

    def _timing_scalars(self, times: Times, of: str = "") -> dict[str, float]:
        """Those of the test have names of their own: it comes at the step of the last validation."""
        asked = self.config.logging.log_timers_to_tensorboard
        return {f"{name}-time{of}": max(seconds) for name, seconds in times.items()} if asked else {}

    def _text(self, iteration: int, times: Times) -> str:
        line = log_line(
            self.config,
            self.efficiency,
            self.plan,
            iteration,
            self.since,
            self.mesh.world.size,
            self.peak,
        )
        return "\n".join([line, *self._timing_lines(times)])

    def _timing_lines(self, times: Times) -> list[str]:
        return [timing_block(times, self.config.logging.timing_log_option)] if times else []


def write_description(config: Config, description: dict[str, Any]) -> None:
    """`run.json` beside the records: what this run is, for reports."""
    path = metrics_path(config)
    if path:
        with whole_file(path.parent / "run.json", "w") as file:
            file.write(json.dumps(description, indent=1) + "\n")


def process_environment() -> dict[str, str]:
    """Settings of the process that change speed or numbers."""
    return {
        name: os.environ[name]
        for name in ("OMP_NUM_THREADS", "CUDA_DEVICE_MAX_CONNECTIONS", "NCCL_ALGO")
        if name in os.environ
    }
