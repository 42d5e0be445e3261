"""Where the log goes: a list of sinks, each of which takes from a record what it can show."""

import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from torch.utils.tensorboard import SummaryWriter

from megatron.base.errors import UserError
from megatron.base.files import whole_file, writable_folder
from megatron.base.terminal import print_line
from megatron.checkpoint.earlier import WANDB_ID, run_id
from megatron.config.config import Config
from megatron.parallel.mesh import Mesh
from megatron.schedule.plan import Plan
from megatron.train.event_files import cut_events
from megatron.train.json_records import JsonRecords, cut_records
from megatron.train.places import start_in
from megatron.train.records import Record, Start

AXES = ("", "samples", "tokens")


class Sink(Protocol):
    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


def open_sinks(config: Config, path: Path | None, plan: Plan, mesh: Mesh, start: Start) -> list[Sink]:
    """This rank's sinks from `start` on: files on the first rank, lines and Weights & Biases on the one
    that prints. `path`: of the JSON records. With --skip-train only a --metrics-file is added to."""
    sinks: list[Sink] = []
    flags, training = config.logging, not config.training.skip_train
    run = run_id(config.checkpoint.save) if mesh.first and training else ""
    if mesh.first and path and (training or flags.metrics_file):
        if training:
            here = start_in(path, start, run)
            cut_records(path, here.kept, here.afresh)
        sinks.append(JsonRecords(path, start.iteration if training else None))
    if mesh.first and flags.tensorboard_dir and training:
        folder = writable_folder(flags.tensorboard_dir)
        here = start_in(folder, start, run)
        totals = plan.totals(here.kept)
        limits = {axis: totals[f"consumed_{axis}"] if axis else here.kept for axis in AXES}
        cut_events(folder, limits, here.afresh)
        sinks.append(Dispensable("TensorBoard", TensorBoard(folder, flags.tensorboard_queue_size)))
    if mesh.prints_log and flags.wandb_project and training and _wandb_is_there(flags.wandb_project):
        sinks.append(Dispensable("Weights & Biases", WeightsAndBiases(config, start.afresh)))
    if mesh.prints_log:
        sinks.append(Lines())
    return sinks


def _wandb_is_there(project: str) -> bool:
    """Whether wandb can be imported. It leaves a folder of its own name where it runs, which Python takes
    for an empty package: that one has no origin."""
    spec = find_spec("wandb")
    if spec is not None and spec.origin is not None:
        return True
    print(f"warning: --wandb-project {project} is not used: install it by pip install wandb", flush=True)
    return False


@contextmanager
def _nobody_to_ask() -> Iterator[None]:
    """No terminal to read from: without a login wandb would ask there and wait, and so would all ranks."""
    terminal = sys.stdin
    with open(os.devnull, encoding="utf-8") as sys.stdin:
        try:
            yield
        finally:
            sys.stdin = terminal


class Dispensable:
    """A sink without which training goes on, as no step is worth less for it: that it fails is told once."""

    def __init__(self, name: str, sink: Sink):
        self.name, self.sink = name, sink
        self.works = True

    def write(self, record: Record) -> None:
        self._try(lambda: self.sink.write(record))

    def close(self) -> None:
        self._try(self.sink.close)

    def _try(self, work: Callable[[], None]) -> None:
        if not self.works:
            return
        try:
            work()
        except Exception as error:  # whatever the library raises where its process, server or disk is gone
            self.works = False
            why = " ".join(str(error).split()) or type(error).__name__
            print_line(f"warning: {self.name} gets nothing more of this run, which goes on: {why}")


class Lines:
    """Standard output."""

    def write(self, record: Record) -> None:
        if record.text:
            print_line(record.text)

    def close(self) -> None:
        pass


class TensorBoard:
    """Scalars over iterations, and as `<name> vs samples` and `<name> vs tokens` over what was consumed."""

    def __init__(self, folder: Path, queue: int):
        threading.excepthook = partial(_tell_in_thread, threading.excepthook)
        self.board = SummaryWriter(str(folder), max_queue=queue)

    def write(self, record: Record) -> None:
        for axis in AXES:
            step = record.fields[f"consumed_{axis}"] if axis else record.iteration
            for name, value in record.scalars.items():
                self.board.add_scalar(f"{name} vs {axis}" if axis else name, value, step)
        if record.text:  # so that a run that is killed lacks no point before the last line of its log
            self.board.flush()

    def close(self) -> None:
        self.board.close()


def _tell_in_thread(others: Callable[[Any], object], error: Any) -> None:
    """What the system refuses to TensorBoard's thread is raised again by its next call, and told there. The
    errors of all other threads go to `others`."""
    of_the_board = type(error.thread).__module__.partition(".")[0] == "tensorboard"
    if not (of_the_board and isinstance(error.exc_value, OSError)):
        others(error)


def wandb_folder(config: Config) -> str:
    """Where wandb keeps its files; a flag comes before the environment."""
    return config.logging.wandb_save_dir or os.environ.get("WANDB_DIR") or config.checkpoint.save or "."


def _switched_off() -> Literal["disabled"] | None:
    """The mode of wandb where WANDB_DISABLED asks for none, which wandb itself knows no more."""
    asked = os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on")
    return "disabled" if asked and "WANDB_MODE" not in os.environ else None


class WeightsAndBiases:
    """The scalars over iterations, in one run of wandb however often training is taken up: its id lies in
    the --save folder, unless WANDB_RUN_ID names another run. What an earlier attempt logged past the
    checkpoint stays, as wandb's steps only grow."""

    def __init__(self, config: Config, afresh: bool):
        import wandb

        memory = Path(config.checkpoint.save, WANDB_ID) if config.checkpoint.save else None
        flags, named = config.logging, os.environ.get("WANDB_RUN_ID")
        known = memory and memory.is_file() and not afresh and not named
        try:
            with _nobody_to_ask():
                self.run = wandb.init(
                    project=flags.wandb_project,
                    name=flags.wandb_exp_name or None,
                    entity=flags.wandb_entity or None,
                    dir=str(writable_folder(wandb_folder(config))),
                    id=memory.read_text(encoding="utf-8").strip() if memory and known else named,
                    resume="allow",
                    mode=_switched_off(),
                    config=dataclasses.asdict(config),
                )
        except wandb.Error as error:
            why = " ".join(str(error).split())
            raise UserError(
                f"--wandb-project {flags.wandb_project}: wandb does not start ({why}); set "
                "WANDB_MODE=offline to go without its server, or leave the flag out"
            ) from None
        if memory and not known:
            with whole_file(memory, "w") as file:
                file.write(f"{self.run.id}\n")

    def write(self, record: Record) -> None:
        if record.scalars:
            with _torn_down_else():
                self.run.log(record.scalars, step=record.iteration)

    def close(self) -> None:
        with _torn_down_else():
            self.run.finish()


@contextmanager
def _torn_down_else() -> Iterator[None]:
    """What wandb raises where its process is gone it would raise again when Python ends, unless it is torn
    down."""
    try:
        yield
    except Exception:
        import wandb

        with suppress(Exception):
            wandb.teardown()
        raise
