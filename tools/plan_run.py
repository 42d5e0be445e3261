"""The plan of a training run before it is started: steps, lengths, tokens, FLOPs and learning rate, from
the run's own flags."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.errors import UserError
from megatron.base.files import whole_file
from megatron.base.terminal import show
from megatron.base.units import exact
from megatron.config import checkpoint, data, logging
from megatron.config.arguments import flag, understand, unused_flags
from megatron.config.config import RULES, Config, Rule, complete
from megatron.config.launch import unwrap
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.config.parallel import chunks_of, counted_letters, stage_texts
from megatron.parallel.schedules import SCHEDULES
from megatron.parallel.simulate import simulate
from megatron.report.timeline import timeline
from megatron.schedule import data_efficiency_flags
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan, build_plan
from megatron.schedule.plan_layout import layout_problems
from megatron.schedule.plan_notes import plan_notes
from megatron.schedule.plan_summary import summarise, tables
from megatron.tasks.architecture import gpt_flops

MOST_ROWS = 10_000
COLUMNS = (
    "batch_size",
    "sequence_length",
    "kept_length",
    "rows",
    "consumed_samples",
    "consumed_tokens",
    "raw_tokens",
    "drawn_tokens",
    "layer_tokens",
    "flops",
    "learning_rate",
)
EXAMPLES = """\
  the 1.3B recipe of arXiv 2212.03597: curriculum and random-LTD at 300 B effective tokens
    python tools/plan_run.py --num-layers 24 --hidden-size 2048 --num-attention-heads 16 --seq-length 2048 \\
      --micro-batch-size 8 --global-batch-size 512 --train-tokens 300e9 \\
      --lr 2e-4 --min-lr 1e-6 --lr-warmup-tokens 3e9 --lr-decay-style cosine \\
      --curriculum \\
      vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,duration=110000 \\
      --curriculum seqlen_truncate:min=80,max=2048,duration=110000,quantum=8 \\
      --random-ltd --random-ltd-min 128 --random-ltd-duration 200000 --output plan_1.3b

  a launch command as it stands
    python tools/plan_run.py torchrun --nproc-per-node 8 pretrain_gpt.py --num-layers 24 ...

  how a pipeline of 4 ranks works through a step, and how long they wait
    python tools/plan_run.py torchrun --nproc-per-node 4 pretrain_gpt.py --pipeline-model-parallel-size 4 \\
      --pipeline-schedule zero-bubble --global-batch-size 64 --micro-batch-size 8 ... --timeline"""


@dataclass(frozen=True)
class Options(Config):
    """The flags of a training run, of which only those that shape the plan are needed, and three more."""

    output: str | None = flag(None, "folder for plan.csv, plan.json and plan.png", metavar="FOLDER")
    data_parallel_size: int = flag(1, "data-parallel ranks that will share a batch", at_least=1)
    timeline: bool = flag(False, "print who does what when in the last step's pipeline")


def main(argv: list[str] | None = None) -> None:
    """Print the plan of the run that these flags describe, and write it where --output says."""
    argv = unwrap(sys.argv[1:] if argv is None else argv)
    values, problems = understand(Options, argv, __doc__ or "", EXAMPLES, FOREIGN_FLAGS)
    # A plan depends on no token, no checkpoint and no log, so that rules about them have nothing to ask for.
    apart = (*data.RULES, *checkpoint.RULES, *logging.RULES)
    rules: list[Rule] = [*(rule for rule in RULES if rule not in apart), *data_efficiency_flags.RULES]
    config: Options = complete(Options, values, problems, rules=rules)
    efficiency, notes = describe(config)
    plan = build_plan(config, efficiency, gpt_flops(config, efficiency, config.tokenizer.vocab_size or 0))
    if problems := layout_problems(config, plan, config.data_parallel_size):
        raise UserError(*problems)
    notes += plan_notes(config, efficiency, plan)
    summary = summarise(config, efficiency, plan, config.data_parallel_size)
    if config.output:
        _write(Path(config.output), plan, efficiency, summary)
    for note in [*unused_flags(Options, argv, FOREIGN_FLAGS), *notes]:
        print(f"note: {note}", file=sys.stderr)
    show(*tables(summary))
    if config.timeline:
        print("\n".join(_timeline(config, plan)))
    if config.output:
        print(f"wrote plan.csv, plan.json and plan.png to {config.output}")


def _timeline(config: Options, plan: Plan) -> list[str]:
    """The last step's pipeline. A stage takes as long as it has layers; embedding and head count where the
    flags count them."""
    flags, schedule = config.parallel, config.parallel.pipeline_schedule
    ranks, chunks = flags.pipeline_model_parallel_size, chunks_of(flags, config.model)
    micro_batches = plan.batch_size[-1] // (config.training.micro_batch_size * config.data_parallel_size)
    stages = stage_texts(flags, config.model)
    work = [sum(map(text.count, counted_letters(flags))) for text in stages]
    simulation = simulate(SCHEDULES[schedule], ranks, int(micro_batches), chunks, work=work)
    title = f"Step {exact(plan.steps)} by the schedule {schedule}: {micro_batches} micro-batches through"
    return timeline(simulation, f"{title} {' | '.join(stages)}")


def _write(folder: Path, plan: Plan, efficiency: DataEfficiency, summary: dict[str, Any]) -> None:
    """(Imported here because matplotlib takes a while to start, and needs a folder that it can write to.)"""
    from megatron.report.figures import png
    from megatron.report.plan_figure import plan_figure

    image = png(plan_figure(plan, efficiency, summary["num_layers"]))
    with whole_file(folder / "plan.csv", "w") as file:
        csv.writer(file, lineterminator="\n").writerows(csv_rows(plan))
    with whole_file(folder / "plan.json", "w") as file:
        json.dump(summary, file, indent=2)
        file.write("\n")
    with whole_file(folder / "plan.png") as file:
        file.write(image)


def csv_rows(plan: Plan) -> Iterator[Sequence[Any]]:
    """A header and one row a step; of a long run about MOST_ROWS, with every step at which a length
    changes."""
    written = _written_steps(plan)
    columns = [
        written + 1,
        *(getattr(plan, name)[written] for name in COLUMNS),
        *(values[written] for values in plan.caps.values()),
    ]
    yield ["step", *COLUMNS, *(f"cap.{name}" for name in plan.caps)]
    yield from zip(*(column.tolist() for column in columns))


def _written_steps(plan: Plan) -> np.ndarray:
    """Indices of the steps that the CSV shows."""
    if plan.steps <= MOST_ROWS:
        return np.arange(plan.steps)
    from megatron.report.figures import thin

    changes = np.flatnonzero(np.diff(plan.sequence_length) | np.diff(plan.kept_length)) + 1
    return np.union1d(changes, thin(plan.steps, max(MOST_ROWS - len(changes), 2)))


if __name__ == "__main__":
    run_command(main)
