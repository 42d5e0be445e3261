"""What a run tells: Megatron's log line, TensorBoard scalars, and one JSON record an iteration in full precision."""

import json
import math
import os
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.tensorboard import SummaryWriter

from megatron.config import Config
from megatron.data_efficiency import DataEfficiency
from megatron.files import whole_file, writable_folder
from megatron.parallel.mesh import Mesh
from megatron.plan import Plan


class Outcome(NamedTuple):
    """What a training step came to. `loss`: mean over its tokens; `seconds`: wall time; `waited`: of it, for the loader."""

    loss: float
    grad_norm: float
    seconds: float
    waited: float
    params_norm: float | None = None


class Log:
    """Writes the records of a run, from `start`, the steps already done; what an earlier attempt wrote past it is cut off."""

    def __init__(self, config: Config, efficiency: DataEfficiency, plan: Plan, mesh: Mesh, start: int):
        self.config, self.efficiency, self.plan, self.mesh = config, efficiency, plan, mesh
        self.since: list[Outcome] = []
        path = metrics_path(config)
        self.metrics = _open_metrics(path, start) if path and mesh.first else None
        folder = config.logging.tensorboard_dir
        self.board = SummaryWriter(str(writable_folder(folder)), purge_step=start + 1) if folder and mesh.first else None

    def train(self, iteration: int, outcome: Outcome) -> None:
        """Record a training step."""
        self.since.append(outcome)
        record = train_record(self.plan, iteration, outcome)
        self._write(record)
        if self.board and iteration % self.config.logging.tensorboard_log_interval == 0:
            self._scalars(iteration, train_scalars(self.plan, iteration, outcome, self.mesh.world_size, self.efficiency))
        first = iteration == 1
        if iteration % self.config.logging.log_interval == 0 or first or iteration == self.plan.steps:
            if self.mesh.speaks:
                print(log_line(self.config, self.efficiency, self.plan, iteration, self.since, self.mesh.world_size), flush=True)
            self.since = []

    def validation(self, iteration: int, losses: dict[str, float], what: str = "validation") -> None:
        """Record mean losses by corpus; the one named "" is over all."""
        loss = losses[""]
        kind = "valid" if what == "validation" else "test"
        record = {"kind": kind, "iteration": iteration, **self.plan.totals(iteration), "lm_loss": loss, "perplexity": perplexity(loss)}
        self._write(record | {"corpora": {name: value for name, value in losses.items() if name}})
        for name, value in losses.items():
            suffix = f"-{name}" if name else ""
            self._scalars(iteration, {f"lm loss {what}{suffix}": value, f"lm loss {what}{suffix} ppl": perplexity(value)})
        if self.mesh.speaks:
            print(validation_block(iteration, losses, what), flush=True)

    def close(self) -> None:
        """Finish the files."""
        if self.metrics:
            self.metrics.close()
        if self.board:
            self.board.close()

    def _write(self, record: dict[str, Any]) -> None:
        if self.metrics:
            self.metrics.write(json.dumps(record) + "\n")
            self.metrics.flush()

    def _scalars(self, iteration: int, scalars: dict[str, float]) -> None:
        if not self.board:
            return
        totals = self.plan.totals(iteration)
        for name, value in scalars.items():
            self.board.add_scalar(name, value, iteration)
            self.board.add_scalar(f"{name} vs samples", value, totals["consumed_samples"])
            self.board.add_scalar(f"{name} vs tokens", value, totals["consumed_tokens"])


def metrics_path(config: Config) -> Path | None:
    """Where the records go: --metrics-file, else metrics.jsonl in the --save folder."""
    if config.logging.metrics_file:
        return Path(config.logging.metrics_file)
    return Path(config.checkpoint.save) / "metrics.jsonl" if config.checkpoint.save else None


def perplexity(loss: float) -> float:
    """exp(loss), cut at exp(20) as Megatron does."""
    return math.exp(min(20.0, loss))


def train_record(plan: Plan, iteration: int, outcome: Outcome) -> dict[str, Any]:
    """The JSON record of a training step."""
    step = plan.at(iteration)
    return {
        "kind": "train",
        "iteration": iteration,
        **plan.totals(iteration),
        "lm_loss": outcome.loss,
        "learning_rate": step.learning_rate,
        "grad_norm": outcome.grad_norm,
        "seq_length": step.sequence_length,
        "kept_length": step.kept_length,
        "batch_size": step.batch_size,
        "caps": step.caps,
        "ms_per_iteration": outcome.seconds * 1e3,
        "ms_waiting_for_data": outcome.waited * 1e3,
        "tokens_per_second": step.rows * step.sequence_length / outcome.seconds,
    }


def train_scalars(plan: Plan, iteration: int, outcome: Outcome, ranks: int, efficiency: DataEfficiency) -> dict[str, float]:
    """TensorBoard scalars of a training step, under Megatron's and DeepSpeed's names."""
    step = plan.at(iteration)
    scalars = {
        "learning-rate": step.learning_rate,
        "batch-size": float(step.batch_size),
        "lm loss": outcome.loss,
        "loss-scale": 1.0,
        "world-size": float(ranks),
        "grad-norm": outcome.grad_norm,
        "iteration-time": outcome.seconds,
        "throughput": float(plan.flops[iteration - 1]) / outcome.seconds / ranks / 1e12,
        "lm-loss-training/lm loss": outcome.loss,
        "learning-rate/learning-rate": step.learning_rate,
        "seqlen/actual_seq_length": float(step.sequence_length),
    }
    if efficiency.shape:
        scalars["seqlen/curriculum_seqlen"] = float(step.sequence_length)
    if efficiency.random_ltd:
        scalars["seqlen/random_ltd_reserved_length"] = float(step.kept_length)
    if outcome.params_norm is not None:
        scalars["params-norm"] = outcome.params_norm
    return scalars | {f"curriculum/{name}": float(cap) for name, cap in step.caps.items()}


def log_line(config: Config, efficiency: DataEfficiency, plan: Plan, iteration: int, outcomes: list[Outcome], ranks: int) -> str:
    """One line in Megatron's form: the mean loss and time since the last line, everything else of this step."""
    step, totals, last = plan.at(iteration), plan.totals(iteration), outcomes[-1]
    seconds = sum(outcome.seconds for outcome in outcomes) / len(outcomes)
    loss = sum(outcome.loss for outcome in outcomes) / len(outcomes)
    teraflops = float(plan.flops[iteration - 1]) / last.seconds / ranks / 1e12
    parts = [
        f" [{datetime.now():%Y-%m-%d %H:%M:%S.%f}] iteration {iteration:8d}/{plan.steps:8d}",
        f"consumed samples: {totals['consumed_samples']:12d}",
        f"consumed tokens: {totals['consumed_tokens']:12d}",
        f"elapsed time per iteration (ms): {seconds * 1e3:.1f}",
    ]
    if config.logging.log_throughput:
        parts.append(f"throughput per GPU (TFLOP/s/GPU): {teraflops:.1f}")
    parts += [
        f"learning rate: {step.learning_rate:.6E}",
        f"global batch size: {step.batch_size:5d}",
        f"lm loss: {loss:.6E}",
        "loss scale: 1.0",
        f"grad norm: {last.grad_norm:.3f}",
    ]
    if last.params_norm is not None:
        parts.append(f"params norm: {last.params_norm:.3f}")
    parts += ["number of skipped iterations:   0", "number of nan iterations:   0"]
    if efficiency.shape:
        parts.append(f"curriculum seqlen: {step.sequence_length}")
    parts += [f"curriculum {name}: {cap}" for name, cap in step.caps.items()]
    if efficiency.random_ltd:
        parts.append(f"random ltd reserved length: {step.kept_length}")
    tokens = step.rows * step.sequence_length / last.seconds
    parts += [
        f"actual seqlen: {step.sequence_length}",
        f"samples per second: {step.batch_size / last.seconds:.3f}",
        f"tokens per gpu per second (tgs): {tokens / ranks:.3f}",
        f"TFLOPs: {teraflops:.2f}",
    ]
    return " | ".join(parts) + " |"


def validation_block(iteration: int, losses: dict[str, float], what: str) -> str:
    """Megatron's validation lines, framed by dashes."""
    lines = []
    for name, loss in losses.items():
        corpus = f" on {name}" if name else ""
        lines.append(f" {what} loss at iteration {iteration}{corpus} | lm loss value: {loss:.6E} | lm loss PPL: {perplexity(loss):.6E} | ")
    frame = "-" * max(map(len, lines))
    return "\n".join([frame, *lines, frame])


def _open_metrics(path: Path, start: int) -> Any:
    """The records file, opened to append after the records of the first `start` steps."""
    writable_folder(path.parent)
    if path.is_file():
        with whole_file(path, "w") as kept:
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    keep = json.loads(line)["iteration"] <= start
                except (ValueError, KeyError, TypeError):
                    keep = False
                if keep and start:
                    kept.write(line + "\n")
    return open(path, "a", encoding="utf-8", buffering=1)


def write_description(config: Config, about: dict[str, Any]) -> None:
    """`run.json` beside the records: what this run is, for reports."""
    path = metrics_path(config)
    if path:
        with whole_file(path.parent / "run.json", "w") as file:
            file.write(json.dumps(about, indent=1) + "\n")


def process_environment() -> dict[str, str]:
    """Settings of the process that change speed or numbers."""
    return {name: os.environ[name] for name in ("OMP_NUM_THREADS", "CUDA_DEVICE_MAX_CONNECTIONS", "NCCL_ALGO") if name in os.environ}
