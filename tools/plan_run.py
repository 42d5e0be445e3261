"""The plan of a training run before it is started: steps, lengths, tokens, FLOPs and learning rate, from
the run's own flags."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import csv
import dataclasses
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
from megatron.config.arguments import understand, unused_flags
from megatron.config.config import RULES, Config, Rule, complete
from megatron.config.flags import flag
from megatron.config.launch import rank_notes, ranks_a_node, unwrap
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.config.parallel import chunks_of, counted_letters, ranks_of_model, stage_texts
from megatron.config.scale import scale_notes
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.layout import Layout, layout_of
from megatron.parallel.schedules import SCHEDULES
from megatron.parallel.simulate import simulate
from megatron.report.cost import Machines, step_cost
from megatron.report.groups import group_notes, group_table, rank_table
from megatron.report.prices import (
    memory_table,
    miss_lines,
    model_line,
    step_lines,
    suggestion_lines,
    suggestion_table,
    traffic_table,
)
from megatron.report.suggest import Suggestion, read_machines, suggestions
from megatron.report.timeline import timeline
from megatron.schedule import data_efficiency_flags
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan, build_plan, fullest_step
from megatron.schedule.plan_layout import planned_problems
from megatron.schedule.plan_notes import plan_notes
from megatron.schedule.plan_summary import summarise, tables
from megatron.tasks.prices import batch_of, pipeline_of, prices, share_of, step_flops
from megatron.tasks.task import Task
from megatron.tasks.tasks import ABOUT, TASKS, task_of
from megatron.train.configure import with_model_of_checkpoint

MOST_ROWS = 10_000
DEVICE = "cuda"
"""Layouts are priced for GPUs, where logits are computed in larger chunks than on a CPU."""
SUGGESTED = 10
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

  BERT-large of the same paper at 1,049 B tokens, with both
    python tools/plan_run.py --task bert --num-layers 24 --hidden-size 1024 --num-attention-heads 16 \\
      --seq-length 512 --micro-batch-size 16 --global-batch-size 1024 --train-tokens 1048576000000 \\
      --lr 1e-4 --min-lr 1e-5 --lr-warmup-iters 10000 --lr-decay-style linear \\
      --apply-residual-connection-post-layernorm --vocab-size 30522 \\
      --curriculum \\
      vocab_rarity:difficulty=percentile,min=5,max=100,pacing=fixed_root,root=2,duration=960000 \\
      --curriculum seqlen_truncate:min=128,max=512,duration=960000,quantum=8 \\
      --random-ltd --random-ltd-min 128 --random-ltd-duration 2000000

  a launch command as it stands
    python tools/plan_run.py torchrun --nproc-per-node 8 pretrain_gpt.py --num-layers 24 ...

  how a pipeline of 4 ranks works through a step, and how long they wait
    python tools/plan_run.py torchrun --nproc-per-node 4 pretrain_gpt.py --pipeline-model-parallel-size 4 \\
      --pipeline-schedule zero-bubble --global-batch-size 64 --micro-batch-size 8 ... --timeline"""


@dataclass(frozen=True)
class Options(Config):
    """The flags of a training run, of which only those that shape the plan are needed, and a few more."""

    task: str | None = flag(None, ABOUT, choices=tuple(TASKS))
    output: str | None = flag(None, "folder for plan.csv, plan.json and plan.png", metavar="FOLDER")
    data_parallel_size: int = flag(1, "data-parallel ranks that will share a batch", at_least=1)
    timeline: bool = flag(False, "print who does what when in the last step's pipeline")
    ranks: bool = flag(False, "print where every rank sits")
    suggest_layout: tuple[str, ...] = flag(
        (), "print the layouts that fit on so many GPUs of so much memory, such as 64 80GiB", metavar="WORD"
    )
    gpus_per_node: int = flag(8, "GPUs of a machine, where no launch command says it", at_least=1)
    compute_efficiency: float = flag(
        0.5,
        "share of --device-peak-tflops (989 with --bf16 or --fp16, else 495) that is reached",
        above=0,
        at_most=1,
    )
    node_bandwidth: float = flag(450.0, "GB/s that a GPU sends inside a machine", above=0)
    network_bandwidth: float = flag(50.0, "GB/s that a GPU sends between machines", above=0)


def main(argv: list[str] | None = None) -> None:
    """Print the plan of the run that these flags describe, and write it where --output says."""
    words = sys.argv[1:] if argv is None else argv
    ranks_of_node, of_ranks, argv = ranks_a_node(words), rank_notes(words), unwrap(words)
    values, problems = understand(Options, argv, __doc__ or "", EXAMPLES, FOREIGN_FLAGS)
    values, notes_of_model = with_model_of_checkpoint(values)
    problems += data_efficiency_flags.switched_off(values)
    task = task_of(words, values.get("task"), values)
    # A plan depends on no token, no weight and no log, so that rules about them have nothing to ask for.
    # But a split that is none is refused by the run, too.
    apart = {*data.RULES, *checkpoint.RULES, *logging.RULES} - {data.known_split}
    rules: list[Rule] = [rule for rule in RULES if rule not in apart]
    every: list[Rule] = [*rules, *data_efficiency_flags.RULES, *task.rules]
    config: Options = complete(Options, task.given(values), problems, rules=every)
    efficiency, notes = describe(config)
    vocab_size = config.tokenizer.vocab_size or 0
    task.make_rows(config, efficiency, Vocabulary(vocab_size, None, None))  # refuses what it cannot draw
    wanted = read_machines(config.suggest_layout) if config.suggest_layout else None
    plan = build_plan(config, efficiency, task.row_flops(config, efficiency, vocab_size))
    if (problems := planned_problems(config, plan, config.data_parallel_size)) and not wanted:
        raise UserError(*problems)
    layout = layout_of(config.parallel, config.data_parallel_size * ranks_of_model(config.parallel))
    machines = _machines(config, ranks_of_node or config.gpus_per_node)
    notes += notes_of_model + of_ranks + group_notes(layout, machines.ranks_a_node)
    notes += plan_notes(config, efficiency, plan)
    summary = summarise(config, efficiency, plan, config.data_parallel_size)
    if config.output:
        _write(Path(config.output), plan, efficiency, summary)
    scaling = scale_notes(Options, argv, FOREIGN_FLAGS)
    for note in [*scaling, *unused_flags(Options, argv, FOREIGN_FLAGS), *notes]:
        print(f"note: {note}", file=sys.stderr)
    show(*tables(summary))
    if wanted:
        _suggest(task, config, efficiency, plan, machines, *wanted)
    else:
        _price(task, config, efficiency, plan, layout, machines)
    if config.timeline:
        print("\n".join(_timeline(config, plan)))
    if config.output:
        print(f"wrote plan.csv, plan.json and plan.png to {config.output}")


def _machines(config: Options, ranks_of_node: int) -> Machines:
    """The machines that a step is priced on."""
    halved = config.training.bf16 or config.training.fp16
    peak = config.logging.device_peak_tflops or (989.0 if halved else 495.0)
    bandwidths = (config.node_bandwidth * 1e9, config.network_bandwidth * 1e9)
    return Machines(peak * 1e12, config.compute_efficiency, *bandwidths, ranks_of_node)


def _price(
    task: Task, config: Options, efficiency: DataEfficiency, plan: Plan, layout: Layout, machines: Machines
) -> None:
    """Memory, traffic and time of the layout in the step whose layers compute most."""
    step, vocab_size = fullest_step(plan), config.tokenizer.vocab_size or 0
    share = share_of(task, config, efficiency, vocab_size, layout)
    found = prices(config, share, step, DEVICE)
    fullest = max(found, key=lambda one: one.total)
    parts = [memory_table(found, batch_of(config, step))]
    if layout.ranks > 1:
        parts += [traffic_table(share, fullest, machines), group_table(layout, machines.ranks_a_node)]
    if config.ranks:
        parts.append(rank_table(layout, machines.ranks_a_node))
    pipeline = pipeline_of(config, share, step)
    model, hardware = step_flops(task, config, efficiency, vocab_size, step)
    cost = step_cost(share, fullest, hardware, pipeline.bubble, machines)
    show(*parts)
    assumed = _assumed(config, machines)
    lines = step_lines(step.number, cost, pipeline, hardware, model, layout.ranks, assumed)
    print("\n".join([model_line(share), *lines]))


def _suggest(
    task: Task,
    config: Options,
    efficiency: DataEfficiency,
    plan: Plan,
    machines: Machines,
    devices: int,
    memory: int,
) -> None:
    """The layouts that fit, or what would help."""
    vocab_size, step = config.tokenizer.vocab_size or 0, fullest_step(plan)

    def found(config: Config, devices: int) -> list[Suggestion]:
        return suggestions(task, config, efficiency, vocab_size, plan, step, devices, machines, DEVICE)

    every = found(config, devices)
    if fits := [one for one in every if one.price.total <= memory]:
        show(suggestion_table(fits[:SUGGESTED], memory))
        print("\n".join(suggestion_lines(fits[:SUGGESTED])))
        print(
            f"{len(fits)} of {len(every)} layouts fit; {exact(devices)} devices; {_assumed(config, machines)}"
        )
        return
    smaller = dataclasses.replace(config, training=dataclasses.replace(config.training, micro_batch_size=1))
    tries = {"--micro-batch-size 1": (smaller, devices)} if config.training.micro_batch_size > 1 else {}
    tries |= {f"{exact(devices * 2**more)} devices": (config, devices * 2**more) for more in (1, 2, 3)}
    helped = [
        words for words, one in tries.items() if any(each.price.total <= memory for each in found(*one))
    ]
    print("\n".join(miss_lines(every, memory, helped[:2])))


def _assumed(config: Options, machines: Machines) -> str:
    whose = (
        "" if config.logging.device_peak_tflops else " (an H100's, where --device-peak-tflops is not given)"
    )
    return (
        f"assumed: {machines.efficiency:.0%} of {machines.peak / 1e12:g} TFLOP/s{whose}, "
        f"{machines.inside / 1e9:g} GB/s inside "
        f"and {machines.between / 1e9:g} GB/s between machines of {machines.ranks_a_node}, no overlap"
    )


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
