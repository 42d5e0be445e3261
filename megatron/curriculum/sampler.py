"""Curriculum over corpora: which windows a step draws.

Pacing never decreases, so every sample has one entry step: the first at which all metrics admit it. Sorted
by it, the pool of a step is a prefix. One metric or five, value or percentile: the same array. A blend's
weights choose the corpus, the curriculum acts inside each.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from megatron.base.errors import UserError
from megatron.base.keys import key
from megatron.base.random import shuffle
from megatron.curriculum.analysis_folder import (
    Analyses,
    find_analysis,
    identify,
    load_difficulty,
    open_analyses,
)
from megatron.curriculum.difficulty import sort_by_difficulty
from megatron.curriculum.draws import Chain, counts, draw_places, make_chain, weighted_chain
from megatron.data.corpora import Corpus
from megatron.schedule.data_efficiency import CurriculumMetric, DataEfficiency
from megatron.schedule.plan import Plan, Step

MOST_TOLD = 20
"""Corpora that have a line of their own in the log."""

Column = tuple[np.ndarray, np.ndarray]
"""The values of a metric, one a sample, and the sample ids from easy to hard."""

Columns = Callable[[CurriculumMetric], Column]


@dataclass(frozen=True)
class Pool:
    """The samples of one corpus by entry. `entry`: first step of every group; `order`: sample ids sorted
    by entry, or None where the pool is the whole corpus in order; `chain`: the groups' draws; `never`:
    samples that never enter; `seed`: of the permutations; `analyses`: what identifies its values and their
    order, by metric and file."""

    entry: np.ndarray
    order: np.ndarray | None
    chain: Chain
    never: int
    seed: int
    analyses: dict[str, str]


@dataclass(frozen=True)
class Sampler:
    """Draws of the whole run: a pure function of the step. Rank and batch split play no part."""

    corpora: list[Corpus]
    blend: Chain
    pools: list[Pool]
    seed: int


def make_sampler(
    corpora: list[tuple[float | None, Corpus]], efficiency: DataEfficiency, plan: Plan
) -> Sampler:
    """The sampler of a training run. UserError where an analysis is missing or the first pool is empty."""
    members = [corpus for _, corpus in corpora]
    weights = np.array(
        [corpus.windows if weight is None else weight for weight, corpus in corpora], np.float64
    )
    blend = weighted_chain(weights, efficiency.seed)

    @functools.cache
    def drawn_before(step: int) -> np.ndarray:
        """How many draws each corpus made before a step; asked for the few steps at which groups enter."""
        return counts(blend, plan.at(step).drawn_before)

    analyses = open_analyses(efficiency.difficulty_paths if efficiency.metrics else ())
    pools = [
        _make_pool(number, corpus, efficiency, analyses, plan, drawn_before)
        for number, corpus in enumerate(members)
    ]
    return Sampler(members, blend, pools, efficiency.seed)


def draw_batch(sampler: Sampler, step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Corpus numbers and sample ids (int64, one a sample of the global batch) of a step, in the batch's
    order."""
    first, last = step.drawn_before, step.drawn_before + step.batch_size
    before, after = counts(sampler.blend, first), counts(sampler.blend, last)
    members = np.repeat(np.arange(len(sampler.pools)), after - before)
    samples = np.empty(step.batch_size, np.int64)
    filled = 0
    for number in np.flatnonzero(after - before):
        part = samples[filled : filled + int(after[number] - before[number])]
        _draw(sampler.pools[number], int(before[number]), int(after[number]), step.number, part)
        filled += len(part)
    places = np.arange(step.batch_size)
    shuffle(places, np.uint64(key(sampler.seed, "batch", step.number)))
    return members[places], samples[places]


def describe_passes(sampler: Sampler, plan: Plan) -> list[str]:
    """One line a corpus, and one for all that are too many to tell: samples, tokens, and how often the run
    passes over it."""
    drawn = counts(sampler.blend, int(plan.consumed_samples[-1]))
    lines = []
    for corpus, pool, number in zip(sampler.corpora[:MOST_TOLD], sampler.pools, drawn):
        line = (
            f"{corpus.name}: {corpus.describe()}, {int(number):,} drawn, "
            f"{int(number) / corpus.windows:.2f} passes"
        )
        if pool.never:
            line += f"; {pool.never:,} samples are never admitted"
        lines.append(line)
    if others := sampler.corpora[MOST_TOLD:]:
        passes = [number / corpus.windows for corpus, number in zip(others, drawn[MOST_TOLD:])]
        lines.append(
            f"{len(others):,} more corpora: {sum(corpus.windows for corpus in others):,} samples, "
            f"{int(drawn[MOST_TOLD:].sum()):,} drawn, {min(passes):.2f} to {max(passes):.2f} passes"
        )
    return lines


def _draw(pool: Pool, first: int, last: int, step: int, out: np.ndarray) -> None:
    admitted = int(np.searchsorted(pool.entry, step, side="right"))
    draw_places(pool.chain, first, last, pool.seed, admitted, out)
    if pool.order is not None:
        out[:] = pool.order[out]


def _make_pool(
    number: int,
    corpus: Corpus,
    efficiency: DataEfficiency,
    analyses: Analyses,
    plan: Plan,
    drawn_before: Callable[[int], np.ndarray],
) -> Pool:
    def columns(metric: CurriculumMetric) -> Column:
        return load_difficulty(find_analysis(analyses, corpus, metric.name), metric.name, corpus.windows)

    pool = make_pool(
        corpus.name,
        corpus.windows,
        efficiency,
        columns,
        plan.caps,
        plan.steps,
        lambda step: int(drawn_before(step)[number]),
        number,
    )
    checksums: dict[str, str] = {}
    for metric in efficiency.metrics:
        checksums |= identify(find_analysis(analyses, corpus, metric.name), metric.name)
    return dataclasses.replace(pool, analyses=checksums)


def make_pool(
    name: str,
    samples: int,
    efficiency: DataEfficiency,
    columns: Columns,
    caps: dict[str, np.ndarray],
    steps: int,
    drawn_before: Callable[[int], int],
    number: int = 0,
) -> Pool:
    """The pool of so many samples, the corpus of this number, under the caps of all steps. `drawn_before`:
    how many draws it has made before a step. UserError where step 1 admits none."""
    if not efficiency.metrics:
        size, entry, order = np.array([samples]), np.array([1]), None
    elif len(efficiency.metrics) == 1:
        size, entry, order = _by_one(efficiency, columns, caps)
    else:
        size, entry, order = _by_many(samples, efficiency, columns, caps, steps)
    if not len(entry) or entry[0] > 1:
        raise UserError(_empty_pool(name, efficiency, columns))
    start = np.array([drawn_before(int(step)) for step in entry], np.int64)
    chain = make_chain(size, start, key(efficiency.seed, "pool", number))
    never = samples - int(size.sum())
    return Pool(entry, order, chain, never, key(efficiency.seed, "draws", number), {})


def _rises(caps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different levels of a metric's caps and the first step (from 1) of each."""
    steps = np.concatenate([[0], np.flatnonzero(np.diff(caps)) + 1])
    return caps[steps], steps + 1


def _cuts(
    levels: np.ndarray,
    metric: CurriculumMetric,
    values: np.ndarray,
    order: np.ndarray,
    reference_schedules: bool,
) -> np.ndarray:
    """How many samples of the order each level admits."""
    total = len(order)
    if metric.difficulty == "percentile":
        highest = metric.pacing.maximum or max(metric.pacing.values, default=1)
        top = highest if reference_schedules else 100
        return np.array(
            [
                total
                if level >= top
                else total // top * level
                if reference_schedules
                else total * level // top
                for level in (max(int(level), 0) for level in levels)
            ]
        )
    return np.array([_count_up_to(level, values, order) for level in levels])


def _count_up_to(level: int, values: np.ndarray, order: np.ndarray) -> int:
    """How many samples have a value of at most `level`, by bisection along the order."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if values[order[middle]] <= level else (low, middle)
    return low


def _by_one(
    efficiency: DataEfficiency, columns: Columns, caps: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups are slices of the analysis' own order, which stays on disk: nothing is sorted at start-up."""
    (metric,) = efficiency.metrics
    values, order = columns(metric)
    levels, entry = _rises(caps[metric.name])
    size = np.diff(_cuts(levels, metric, values, order, efficiency.reference_schedules), prepend=0)
    return size[size > 0], entry[size > 0], order


def _by_many(
    samples: int, efficiency: DataEfficiency, columns: Columns, caps: dict[str, np.ndarray], last_step: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sample enters when the last of its metrics admits it; sorted by (entry, id)."""
    never = last_step + 1
    entries = np.zeros(samples, np.int32)
    for metric in efficiency.metrics:
        values, order = columns(metric)
        levels, steps = _rises(caps[metric.name])
        mine = np.full(samples, never, np.int32)
        cuts = _cuts(levels, metric, values, order, efficiency.reference_schedules)
        for first, last, step in zip([0, *cuts], cuts, steps):
            mine[order[first:last]] = step
        np.maximum(entries, mine, out=entries)
    size = np.bincount(entries)[:never]
    steps = np.flatnonzero(size)
    return size[steps], steps, sort_by_difficulty(entries)


def _empty_pool(name: str, efficiency: DataEfficiency, columns: Columns) -> str:
    """Why no sample is admitted at step 1, with the smallest minimum of every metric that would admit one."""
    hints = []
    for metric in efficiency.metrics:
        values, order = columns(metric)
        least = -(-100 // len(order)) if metric.difficulty == "percentile" else int(values[order[0]])
        hints.append(f"{metric.name} ({metric.difficulty}): min {least} admits its easiest sample")
    together = "; together they must admit one sample" if len(hints) > 1 else ""
    return f"{name}: the curriculum admits no sample at step 1; raise a minimum: {', '.join(hints)}{together}"
