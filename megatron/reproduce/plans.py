"""The plans of rows, scaled and in full, and what they would cost on GPUs."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from megatron.base.errors import UserError
from megatron.config import checkpoint, data, logging
from megatron.config.arguments import understand
from megatron.config.config import RULES, Config, Rule, complete
from megatron.config.flags import flag
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.parallel.layout import layout_of
from megatron.report.cost import Machines, step_cost
from megatron.reproduce.table import Row, Table
from megatron.schedule import data_efficiency_flags
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan, build_plan, fullest_step
from megatron.tasks.prices import micro_batches, pipeline_of, prices, share_of, step_flops
from megatron.tasks.task import Task
from megatron.tasks.tasks import TASKS

RECIPES = Path(__file__).parents[2] / "recipes"
STEPS = {"mini": 200, "small": 10, "full": 1}
"""What --scale divides steps by, where nothing else says it."""


class Hardware(NamedTuple):
    """FLOP/s of 16 bits, bytes a second inside a machine of 8 and between machines, dollars a GPU-hour."""

    peak: float
    inside: float
    between: float
    dollars: float


HARDWARE = {
    "V100": Hardware(125e12, 150e9, 12.5e9, 2.78),
    "A100": Hardware(312e12, 300e9, 25e9, 4.10),
    "H100": Hardware(989e12, 450e9, 50e9, 6.88),
}
"""V100: the paper's $46.3K for 64 times 260 hours. The others are assumed, as of 2026-11."""


@dataclass(frozen=True)
class Options(Config):
    """The flags of a training run, planned without its ranks."""

    data_parallel_size: int = flag(1, "data-parallel ranks that will share a batch", at_least=1)


class Planned(NamedTuple):
    """A run in advance. `given`: the values of flags that its recipe and its table say, scaled."""

    given: dict[str, Any]
    task: Task
    config: Config
    efficiency: DataEfficiency
    plan: Plan
    vocabulary: int

    @property
    def flops(self) -> float:
        return float(self.plan.flops.sum())

    @property
    def rate(self) -> float:
        return self.config.optimizer.lr

    @property
    def ordered(self) -> bool:
        """Whether samples are drawn by difficulty."""
        return bool(self.plan.caps)

    @property
    def tokens(self) -> int:
        return int(self.plan.consumed_tokens[-1])


def recipe_path(table: Table, row: Row) -> Path:
    """A file beside the table, or below recipes/. UserError where there is none."""
    places = [folder / f"{row.recipe}.yaml" for folder in (table.folder, RECIPES)]
    if found := next((path for path in places if path.is_file()), None):
        return found
    there = " and no ".join(map(str, places))
    raise UserError(f"{table.name}: recipe {row.recipe}: there is no {there}; name another")


def recipe_flags(table: Table, row: Row, scale: str, scale_steps: int | None) -> list[str]:
    """The flags that shape a row at a scale. The share of its tokens shortens all its durations."""
    words = ["--config", str(recipe_path(table, row)), "--scale", scale]
    if steps := divided(table, row, scale, scale_steps):
        words += ["--scale-steps", str(steps)]
    more = [] if scale == "full" else [*(table.flags if row is not table.source else ()), *row.flags]
    return [*words, *more]


def divided(table: Table, row: Row, scale: str, scale_steps: int | None) -> int | None:
    """What a row's steps are divided by; None: what its recipe says, or nothing at full scale."""
    given = scale_steps or (table.scale_steps if scale == "mini" else None)
    if scale == "full" or (row.share == 1 and not given):
        return None
    return max(round((given or _own_steps(recipe_path(table, row)) or STEPS[scale]) / row.share), 1)


@cache
def _own_steps(recipe: Path) -> int | None:
    """What a recipe says itself that its steps are divided by."""
    found: int | None = understand(Options, ["--config", str(recipe)], "", "", FOREIGN_FLAGS)[0].get(
        "scale_steps"
    )
    return found


def plan_row(table: Table, row: Row, scale: str, scale_steps: int | None = None) -> Planned:
    """The plan of a row."""
    vocabulary = table.vocabulary[scale == "full"]
    words = recipe_flags(table, row, scale, scale_steps)
    words += [] if table.task == "vit" else ["--vocab-size", str(vocabulary)]
    return _planned(table.task, tuple(words), vocabulary)


@cache
def _planned(name: str, words: tuple[str, ...], vocabulary: int) -> Planned:
    task = TASKS[name]
    values, problems = understand(Options, list(words), "", "", FOREIGN_FLAGS)
    # a plan depends on no token, no checkpoint and no log
    apart = (*data.RULES, *checkpoint.RULES, *logging.RULES)
    rules: list[Rule] = [rule for rule in RULES if rule not in apart]
    every: list[Rule] = [*rules, *data_efficiency_flags.RULES, *task.rules]
    config: Options = complete(Options, task.given(values), problems, rules=every)
    efficiency, _ = describe(config)
    plan = build_plan(config, efficiency, task.row_flops(config, efficiency, vocabulary))
    return Planned(values, task, config, efficiency, plan, vocabulary)


class Price(NamedTuple):
    """Of a row at full size."""

    gpu_hours: float
    dollars: float


def price(table: Table, row: Row, hardware: Hardware, efficiency: float) -> Price:
    """GPU-hours on the paper's number of GPUs by the model of megatron/report/cost.py: the time of the
    fullest step, times what all steps compute against it."""
    planned = plan_row(table, row, "full")
    task, config, vocabulary = planned.task, planned.config, planned.vocabulary
    layout = layout_of(config.parallel, table.gpus)
    step = fullest_step(planned.plan)
    if not micro_batches(config, layout, step):
        raise UserError(
            f"{table.name}: {row.recipe} has a batch of {step.batch_size} at full size, too few for "
            f"{table.gpus} GPUs with {config.training.micro_batch_size} samples each; give it a smaller "
            "micro_batch_size"
        )
    share = share_of(task, config, planned.efficiency, vocabulary, layout)
    fullest = max(prices(config, share, step, "cuda"), key=lambda one: one.total)
    machines = Machines(hardware.peak, efficiency, hardware.inside, hardware.between, 8)
    model, computed = step_flops(task, config, planned.efficiency, vocabulary, step)
    bubble = pipeline_of(config, share, step).bubble
    seconds = step_cost(share, fullest, computed, bubble, machines).seconds
    hours = seconds * planned.flops / model * row.share * table.gpus / 3600
    return Price(hours, hours * hardware.dollars)
