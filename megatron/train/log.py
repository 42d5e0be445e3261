"""What a run tells: Megatron's log line, TensorBoard scalars, and one JSON record an iteration in full
precision."""

import json
import math
import os
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from torch.utils.tensorboard import SummaryWriter

from megatron.base.files import whole_file, writable_folder
from megatron.config.config import Config
from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Plan


class Outcome(NamedTuple):
    """What a training step came to. `losses`: means by Megatron's name; `seconds`: wall time; `waited`: of
    it, for the loader."""

    losses: dict[str, float]
    grad_norm: float
    seconds: float
    waited: float
    loss_scale: float = 1.0
    skipped: bool = False
    params_norm: float | None = None


class Log:
    """Writes the records of a run, from `start`, the steps already done; what an earlier attempt wrote
    past it is cut off. With --skip-train only a --metrics-file that is asked for gets the evaluation,
    after what it holds."""

    def __init__(self, config: Config, efficiency: DataEfficiency, plan: Plan, mesh: Mesh, start: int):
        self.config, self.efficiency, self.plan, self.mesh = config, efficiency, plan, mesh
        self.since: list[Outcome] = []
        self.metrics: IO[str] | None = None
        self.boards: dict[str, SummaryWriter] = {}
        path, folder = metrics_path(config), config.logging.tensorboard_dir
        if mesh.first and config.training.skip_train:
            self.metrics = _append(path) if config.logging.metrics_file and path else None
        elif mesh.first:
            afresh = not start or config.checkpoint.ckpt_step is not None
            self.metrics = _open_metrics(path, start, start == plan.steps, afresh) if path else None
            self.boards = _open_boards(Path(folder), plan.totals(start), start) if folder else {}

    def train(self, iteration: int, outcome: Outcome) -> None:
        """Record a training step."""
        self.since.append(outcome)
        record = train_record(self.plan, iteration, outcome)
        self._write(record)
        if self.boards and iteration % self.config.logging.tensorboard_log_interval == 0:
            self._scalars(
                iteration, train_scalars(self.plan, iteration, outcome, self.mesh.world.size, self.efficiency)
            )
        first = iteration == 1
        if iteration % self.config.logging.log_interval == 0 or first or iteration == self.plan.steps:
            if self.mesh.prints_log:
                print(
                    log_line(
                        self.config, self.efficiency, self.plan, iteration, self.since, self.mesh.world.size
                    ),
                    flush=True,
                )
            self.since = []

    def validation(
        self, iteration: int, losses: dict[str, dict[str, float]], what: str = "validation"
    ) -> None:
        """Record mean losses by corpus; the one named "" is over all."""
        means = {name: found["lm loss"] for name, found in losses.items()}
        loss = means[""]
        kind = "valid" if what == "validation" else "test"
        totals = {} if self.config.training.skip_train else self.plan.totals(iteration)
        record = {
            "kind": kind,
            "iteration": iteration,
            **totals,
            "lm_loss": loss,
            "perplexity": perplexity(loss),
        }
        self._write(record | {"corpora": {name: value for name, value in means.items() if name}})
        for name, value in means.items():
            suffix = f"-{name}" if name else ""
            self._scalars(
                iteration,
                {f"lm loss {what}{suffix}": value, f"lm loss {what}{suffix} ppl": perplexity(value)},
            )
        if self.mesh.prints_log:
            print(validation_block(iteration, means, what), flush=True)

    def close(self) -> None:
        """Finish the files."""
        if self.metrics:
            self.metrics.close()
        for board in self.boards.values():
            board.close()

    def _write(self, record: dict[str, Any]) -> None:
        if self.metrics:
            self.metrics.write(json.dumps(record) + "\n")
            self.metrics.flush()

    def _scalars(self, iteration: int, scalars: dict[str, float]) -> None:
        for axis, board in self.boards.items():
            step = self.plan.totals(iteration)[f"consumed_{axis}"] if axis else iteration
            for name, value in scalars.items():
                board.add_scalar(f"{name} vs {axis}" if axis else name, value, step)


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
        "lm_loss": outcome.losses["lm loss"],
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


def train_scalars(
    plan: Plan, iteration: int, outcome: Outcome, ranks: int, efficiency: DataEfficiency
) -> dict[str, float]:
    """TensorBoard scalars of a training step, under Megatron's and DeepSpeed's names."""
    step = plan.at(iteration)
    scalars = {
        "learning-rate": step.learning_rate,
        "batch-size": float(step.batch_size),
        "lm loss": outcome.losses["lm loss"],
        "loss-scale": 1.0,
        "world-size": float(ranks),
        "grad-norm": outcome.grad_norm,
        "iteration-time": outcome.seconds,
        "throughput": float(plan.flops[iteration - 1]) / outcome.seconds / ranks / 1e12,
        "lm-loss-training/lm loss": outcome.losses["lm loss"],
        "learning-rate/learning-rate": step.learning_rate,
        "seqlen/actual_seq_length": float(step.sequence_length),
    }
    if efficiency.length_metric:
        scalars["seqlen/curriculum_seqlen"] = float(step.sequence_length)
    if efficiency.random_ltd:
        scalars["seqlen/random_ltd_reserved_length"] = float(step.kept_length)
    if outcome.params_norm is not None:
        scalars["params-norm"] = outcome.params_norm
    return scalars | {f"curriculum/{name}": float(cap) for name, cap in step.caps.items()}


def log_line(
    config: Config,
    efficiency: DataEfficiency,
    plan: Plan,
    iteration: int,
    outcomes: list[Outcome],
    ranks: int,
) -> str:
    """One line in Megatron's form: means and rates since the last line (`outcomes`), everything else of
    this step."""
    step, totals, last, count = plan.at(iteration), plan.totals(iteration), outcomes[-1], len(outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    loss = sum(outcome.losses["lm loss"] for outcome in outcomes) / count
    since = slice(iteration - count, iteration)
    samples, tokens = plan.batch_size[since].sum(), (plan.rows[since] * plan.sequence_length[since]).sum()
    teraflops = plan.flops[since].sum() / seconds / ranks / 1e12
    parts = [
        f" [{datetime.now():%Y-%m-%d %H:%M:%S.%f}] iteration {iteration:8d}/{plan.steps:8d}",
        f"consumed samples: {totals['consumed_samples']:12d}",
        f"consumed tokens: {totals['consumed_tokens']:12d}",
        f"elapsed time per iteration (ms): {seconds / count * 1e3:.1f}",
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
    if efficiency.length_metric:
        parts.append(f"curriculum seqlen: {step.sequence_length}")
    parts += [f"curriculum {name}: {cap}" for name, cap in step.caps.items()]
    if efficiency.random_ltd:
        parts.append(f"random ltd reserved length: {step.kept_length}")
    parts += [
        f"actual seqlen: {step.sequence_length}",
        f"samples per second: {samples / seconds:.3f}",
        f"tokens per gpu per second (tgs): {tokens / seconds / ranks:.3f}",
        f"TFLOPs: {teraflops:.2f}",
    ]
    return " | ".join(parts) + " |"


def validation_block(iteration: int, losses: dict[str, float], what: str) -> str:
    """Megatron's validation lines, framed by dashes."""
    lines = []
    for name, loss in losses.items():
        corpus = f" on {name}" if name else ""
        lines.append(
            f" {what} loss at iteration {iteration}{corpus} | lm loss value: {loss:.6E} | lm loss PPL: "
            f"{perplexity(loss):.6E} | "
        )
    frame = "-" * max(map(len, lines))
    return "\n".join([frame, *lines, frame])


def _open_metrics(path: Path, start: int, finished: bool, afresh: bool) -> IO[str]:
    """The records file, opened to append after the records of the first `start` steps. `finished`: the
    last validation will be repeated; `afresh`: what is cut off belongs to another run, and the old file is
    kept under another name."""
    writable_folder(path.parent)
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _is_past(line, start, finished)]
        if afresh and len(kept) < len(lines):
            aside = path.with_name(f"{path.stem}.until-{datetime.now():%Y%m%d-%H%M%S}{path.suffix}")
            path.rename(aside)
            print(f"note: the records of an earlier run in this place are kept as {aside}", flush=True)
        with whole_file(path, "w") as file:
            file.writelines(line + "\n" for line in kept)
    return _append(path)


def _append(path: Path) -> IO[str]:
    return open(path, "a", encoding="utf-8", buffering=1)


def _is_past(line: str, start: int, finished: bool) -> bool:
    """Whether a record is of the first `start` steps and will not be written again."""
    try:
        record = json.loads(line)
        return bool(
            record["iteration"] < start
            or (record["iteration"] == start and not (finished and record["kind"] != "train"))
        )
    except (ValueError, KeyError, TypeError):
        return False


def _open_boards(folder: Path, totals: dict[str, int], start: int) -> dict[str, SummaryWriter]:
    """TensorBoard writers by axis: iterations ("") in the folder itself, samples and tokens in folders
    inside, because each hides what an earlier attempt wrote past its own count."""
    past = {"": start, "samples": totals["consumed_samples"], "tokens": totals["consumed_tokens"]}
    return {
        axis: SummaryWriter(str(writable_folder(folder / axis)), purge_step=count + 1)
        for axis, count in past.items()
    }


def write_description(config: Config, about: dict[str, Any]) -> None:
    """`run.json` beside the records: what this run is, for reports."""
    path = metrics_path(config)
    if path:
        with whole_file(path.parent / "run.json", "w") as file:
            file.write(json.dumps(about, indent=1) + "\n")


def process_environment() -> dict[str, str]:
    """Settings of the process that change speed or numbers."""
    return {
        name: os.environ[name]
        for name in ("OMP_NUM_THREADS", "CUDA_DEVICE_MAX_CONNECTIONS", "NCCL_ALGO")
        if name in os.environ
    }
