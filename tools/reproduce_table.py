"""A table of the paper on this machine: data, a learning rate for the first row, runs of all rows and seeds,
and a page with the paper's figures beside ours. What is finished is not done again, and the same command goes
on after a stop."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as Shown

from megatron.base.cores import usable_cores
from megatron.base.errors import UserError
from megatron.base.files import hold, whole_file, writable_folder
from megatron.base.terminal import print_line, show, stop_by_signals
from megatron.base.units import count_of, duration, short
from megatron.config.arguments import parse
from megatron.config.finetuning import seeds_of
from megatron.config.flags import flag
from megatron.reproduce.corpora import identity
from megatron.reproduce.measures import MEASURES
from megatron.reproduce.outcome import best_factor, edge_of, goal_grid, grid, sentences, warnings
from megatron.reproduce.pages import Told, html, markdown
from megatron.reproduce.pictures import pictures
from megatron.reproduce.plans import HARDWARE, Hardware, plan_row, price
from megatron.reproduce.runs import (
    SOURCE,
    SOURCE_SEED,
    Places,
    Run,
    Size,
    earlier_record,
    make_run,
)
from megatron.reproduce.table import Table, read_table
from megatron.reproduce.work import do_runs, prepare

EXAMPLES = """\
  bash scripts/reproduce/table_gpt.sh --dry-run
  bash scripts/reproduce/table_gpt.sh --seeds 1-3 --rows baseline composed
  python tools/reproduce_table.py --table scripts/reproduce/vit.yaml --folder runs/reproduce"""


@dataclass(frozen=True)
class Options:
    table: str = flag(help="the table's rows and figures", metavar="FILE.yaml")
    scale: str = flag("mini", "size of the runs", choices=("mini", "small", "full"))
    scale_steps: int | None = flag(None, "steps are divided by so many; what the table says", at_least=1)
    seeds: str = flag("1-3", "seeds, such as 1-3 or 1,5", of_several="give them as 1-3 or 1,5")
    rates: tuple[float, ...] = flag(
        (),
        "learning rates to try on the first row with the first seed, times its recipe's; the table's",
        above=0,
    )
    rows: tuple[str, ...] = flag((), "rows to do, also with commas between; all", metavar="NAME ...")
    workers: int | None = flag(None, "runs at a time; as many as there are cores", at_least=1)
    folder: str = flag("runs/reproduce", "for runs, records and pages; tables share it", metavar="FOLDER")
    data: str | None = flag(None, "folder of the data; data/ below --folder", metavar="FOLDER")
    keep_checkpoints: bool = flag(False, "keep the checkpoints of finished runs")
    dry_run: bool = flag(False, "tell what the runs and the paper's would cost, and start nothing")
    gflops: float = flag(20.0, "GFLOP/s of a core, to estimate time before a run has ended", above=0)
    gpu_price: tuple[str, ...] = flag((), "dollars a GPU-hour, such as A100=2.5", metavar="NAME=DOLLARS ...")
    gpu_efficiency: float = flag(0.4, "share of a GPU's peak that is reached", above=0, at_most=1)


def main(argv: list[str] | None = None) -> None:
    """Prices, or data, runs and pages."""
    words = sys.argv[1:] if argv is None else argv
    options: Options = parse(Options, words, description=__doc__ or "", examples=EXAMPLES)
    table = read_table(Path(options.table))
    size, names = Size(options.scale, options.scale_steps), _names(table, options.rows)
    _require_scaled(table, names, options.scale)
    if options.dry_run:
        _dry_run(table, options, names, size)
        return
    folder = Path(options.folder)
    places = Places(Path(options.data or folder / "data").absolute(), folder.absolute())
    stop_by_signals()
    with hold(writable_folder(folder) / ".lock"):
        try:
            _work(table, options, names, size, places)
        except KeyboardInterrupt:
            print_line("stopped; the same command goes on")
            raise


def _work(table: Table, options: Options, names: tuple[str, ...], size: Size, places: Places) -> None:
    """Do what has no record, then write the pages."""
    seeds, factors = seeds_of(options.seeds), _factors(table, options)
    tried = {one: make_run(table, table.first, seeds[0], one, size, places) for one in factors}
    failed = _do(list(tried.values()), table, options, size, places) if len(tried) > 1 else {}
    way = "the same command goes on"
    if failed:
        way += ", or, with --rates, one without a rate that is too high"
    factor, rates = _tuned(table, tried, places)
    runs = [make_run(table, name, seed, factor, size, places) for seed in seeds for name in names]
    if not failed:
        failed = _do(runs, table, options, size, places)
    _write(table, options, names, _records(runs, places), rates, places)
    if failed:
        lines = [f"{name}: {why}" for name, why in failed.items()]
        raise UserError(*lines, f"{count_of(len(failed), 'run')} failed; {way}")


def _names(table: Table, asked: Sequence[str]) -> tuple[str, ...]:
    """Rows to do, in the order of the table; like seeds they may have commas between."""
    asked = [name for word in asked for name in word.split(",") if name]
    if unknown := [name for name in asked if name not in table.rows]:
        raise UserError(f"--rows {', '.join(unknown)}: choose of {', '.join(table.rows)}")
    return tuple(name for name in table.rows if not asked or name in asked)


def _require_scaled(table: Table, names: Sequence[str], scale: str) -> None:
    """UserError where a row is a share of a recipe that is not scaled, which has no shorter durations."""
    shares = [name for name in names if table.rows[name].share != 1]
    if shares and scale == "full":
        raise UserError(
            f"--scale full: {', '.join(shares)} are shares of recipes, which scaling shortens; choose "
            "another --scale, or other --rows"
        )


def _factors(table: Table, options: Options) -> tuple[float, ...]:
    return tuple(dict.fromkeys(options.rates or table.rates))


def _do(runs: Sequence[Run], table: Table, options: Options, size: Size, places: Places) -> dict[str, str]:
    """Those of the runs that have no record, with the data and weights that they begin with; why some have
    failed, by name."""
    todo = {run.name: run for run in runs if earlier_record(places, run) is None}
    if not todo:
        return {}
    sources = _sources(table, size, places)
    prepare(dict.fromkeys(step for run in [*sources, *todo.values()] for step in run.steps), places.data)
    rest = (places, options.workers or usable_cores(), options.keep_checkpoints, options.gflops * 1e9)
    if sources and table.source:
        print_line("the weights to begin with are to be made")
        told = identity([table.source_data], places.data)
        if failed := do_runs([(run, table.source.recipe) for run in sources], told, *rest):
            return failed
    print_line(f"{len(todo)} of {len(runs)} runs are to be done")
    told = identity(table.kinds, places.data)
    return do_runs([(run, table.rows[run.row].recipe) for run in todo.values()], told, *rest)


def _sources(table: Table, size: Size, places: Places) -> list[Run]:
    """The run whose weights all others begin with, where it is to be done."""
    if table.source is None:
        return []
    source = make_run(table, SOURCE, SOURCE_SEED, 1.0, size, places)
    there = list((places.runs / source.name).glob("iter_*")) and earlier_record(places, source)
    return [] if there else [source]


def _tuned(table: Table, told: dict[float, Run], places: Places) -> tuple[float, dict[float, float]]:
    """The factor of the rate with the best quality of those tried, and what each came to."""
    if len(told) == 1:
        return next(iter(told)), {}
    measure = table.measures[0]
    records = {factor: earlier_record(places, run) for factor, run in told.items()}
    found = {factor: float(one["quality"][measure]) for factor, one in records.items() if one}
    if not found:
        return 1.0, {}
    return best_factor(found, MEASURES[measure].sign), found


def _records(runs: Sequence[Run], places: Places) -> dict[str, dict[int, dict[str, Any]]]:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        if record := earlier_record(places, run):
            found.setdefault(run.row, {})[run.seed] = record
    return found


def _write(
    table: Table,
    options: Options,
    names: tuple[str, ...],
    records: dict[str, dict[int, dict[str, Any]]],
    rates: dict[float, float],
    places: Places,
) -> None:
    """The two pages with their figures, and the sentences on the terminal."""
    machine = next((str(one["machine"]) for by in records.values() for one in by.values()), "no machine yet")
    steps = options.scale_steps or table.scale_steps
    scale = f"--scale {options.scale}" + (f" --scale-steps {steps}" if steps else "")
    about = f"Runs of {scale}, seeds {options.seeds}; {machine}."
    command = shlex.join(["python", "tools/reproduce_table.py", *sys.argv[1:]])
    lines = sentences(table, records, names)
    drawn = pictures(table, records, names)
    notes = [*warnings(records), *edge_of(rates, MEASURES[table.measures[0]].sign)]
    told = Told(
        title=table.title,
        paper=table.paper,
        about=about,
        sentences=lines,
        grid=grid(table, records, names),
        goal=goal_grid(table, records),
        pictures=drawn,
        rates=rates,
        notes=notes,
        command=command,
    )
    files = {f"{table.name}.html": html(told).encode(), f"{table.name}.md": markdown(told).encode()}
    for name, data in (files | {one.name: one.png for one in drawn}).items():
        with whole_file(places.folder / name) as file:
            file.write(data)
    for line in [*lines, *notes]:
        print_line(line)
    print(f"wrote {options.folder}/{table.name}.html and .md with their figures")


def _dry_run(table: Table, options: Options, names: Sequence[str], size: Size) -> None:
    """What every row computes here, and what it would cost at the paper's size."""
    hardware = _hardware(options.gpu_price)
    here = Shown(
        title=f"{table.title}: one run of a row here, and at full size on {count_of(table.gpus, 'GPU')}"
    )
    heads = ["row", "tokens", "FLOPs", "hours", "paper: GPU-hours"]
    heads += [f"{name}: {what}" for name in hardware for what in ("GPU-hours", "$")]
    for head in heads:
        here.add_column(head, justify="left" if head == "row" else "right", overflow="fold")
    for name in names:
        row = table.rows[name]
        planned = plan_row(table, row, *size)
        hours = planned.flops / (options.gflops * 1e9) / 3600
        costs = [price(table, row, one, options.gpu_efficiency) for one in hardware.values()]
        told = [f"{number:,.0f}" if number >= 10 else f"{number:.2g}" for one in costs for number in one]
        paper = f"{row.paper['hours'] * table.gpus:,}" if "hours" in row.paper else "-"
        here.add_row(name, short(planned.tokens), f"{planned.flops:.3g}", f"{hours:.2f}", paper, *told)
    show(here)
    workers = options.workers or usable_cores()
    seeds, tried = len(seeds_of(options.seeds)), _factors(table, options)
    seconds = _flops(table, options, names, size) / (options.gflops * 1e9)
    print(
        f"here: {seeds} seeds and {len(tried)} rates on {workers} cores take about "
        f"{duration(seconds / workers)} at {options.gflops:g} GFLOP/s a core, without evaluation"
    )
    prices = ", ".join(f"{name} ${one.dollars:g}" for name, one in hardware.items())
    print(f"assumed: {prices} a GPU-hour as of 2026-11, {options.gpu_efficiency:.0%} of the peak in 16 bits")


def _flops(table: Table, options: Options, names: Sequence[str], size: Size) -> float:
    """Of all runs: rows and seeds, the grid of rates, and the weights to begin with."""
    tried = len(_factors(table, options))
    times = dict.fromkeys(names, len(seeds_of(options.seeds)))
    if tried > 1:
        times[table.first] = times.get(table.first, 0) + tried - (table.first in names)
    found = sum(plan_row(table, table.rows[name], *size).flops * count for name, count in times.items())
    return found + (plan_row(table, table.source, *size).flops if table.source else 0)


def _hardware(told: Sequence[str]) -> dict[str, Hardware]:
    """All hardware, with the prices that are given."""
    found = dict(HARDWARE)
    for pair in told:
        name, _, dollars = pair.partition("=")
        try:
            found[name] = found[name]._replace(dollars=float(dollars))
        except (KeyError, ValueError):
            raise UserError(
                f"--gpu-price {pair}: write NAME=DOLLARS with one of {', '.join(found)}"
            ) from None
    return found


if __name__ == "__main__":
    run_command(main)
