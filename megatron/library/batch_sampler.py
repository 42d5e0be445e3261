"""The curriculum for a torch DataLoader over any map-style dataset.

    sampler = CurriculumBatchSampler(len(dataset), 64, steps, curriculum=[...], difficulties=...)
    for step, batch in enumerate(DataLoader(dataset, batch_sampler=sampler), sampler.first_step):
        batch = cut(batch, sampler.length_at(step))

Draws, pacing and texts of a curriculum are those of the training commands: nothing has a state, so a run
goes on at any step, and workers, prefetching and pinning change nothing.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils import data

from megatron.base.errors import UserError
from megatron.curriculum.difficulty import sort_by_difficulty
from megatron.curriculum.draws import weighted_chain
from megatron.curriculum.sampler import Sampler, draw_batch, make_pool
from megatron.schedule.data_efficiency import RESHAPE, TRUNCATE, CurriculumMetric, DataEfficiency
from megatron.schedule.data_efficiency_flags import metric_from_spec
from megatron.schedule.data_efficiency_rules import broken_rules
from megatron.schedule.plan import Step, checked_levels

AGAIN = (
    "curriculum: the loop begins at step {} again and gives the same batches; one loop is the whole run: let "
    "steps count those of all epochs, or give start_at the step to go on with"
)


class CurriculumBatchSampler(data.Sampler[list[int]]):
    """Lists of sample numbers, one a micro-batch of this rank, from `first_step` to the last of `steps`.

    One loop over it is the whole run, of however many epochs; a second one begins at `first_step` again, with
    a warning.
    `samples`: of the dataset. `batch_size`: of a step on all ranks. `curriculum`: texts as --curriculum takes
    them, such as "vocab_rarity:difficulty=percentile,min=10,max=100,duration=80". `difficulties`: by metric,
    one whole number a sample. `micro_batch_size`: a rank's share of the batch unless told. UserError, one
    line a problem, for what does not fit."""

    def __init__(
        self,
        samples: int,
        batch_size: int,
        steps: int,
        curriculum: Iterable[str | CurriculumMetric] = (),
        difficulties: Mapping[str, np.ndarray] | None = None,
        *,
        rank: int = 0,
        ranks: int = 1,
        micro_batch_size: int | None = None,
        seed: int = 1234,
        reference_schedules: bool = False,
    ):
        self.batch_size, self.steps, self.rank, self.ranks = batch_size, steps, rank, ranks
        self.micro_batch_size = micro_batch_size or max(batch_size // max(ranks, 1), 1)
        self.first_step = 1
        self._done_from = 0
        problems = _shares(self, samples)
        metrics = _metrics(curriculum, reference_schedules, problems)
        values = {metric.name: metric for metric in metrics if metric.name != TRUNCATE}
        problems += _columns_problems(values, difficulties or {}, samples)
        if problems:
            raise UserError(*problems)
        lengths = [metric for metric in metrics if metric.name == TRUNCATE]
        ordering = tuple(values[name] for name in sorted(values))
        efficiency = DataEfficiency(ordering, seed=seed, reference_schedules=reference_schedules)
        self._lengths = _levels(lengths[0], steps, reference_schedules) if lengths else None
        self._sampler = _make_sampler(samples, efficiency, difficulties or {}, steps, batch_size)

    def start_at(self, step: int) -> "CurriculumBatchSampler":
        """Begin with this step, from 1, in the next loop over it; returns itself."""
        if not 1 <= step <= self.steps + 1:
            raise UserError(f"curriculum: step {step} is none of 1 to {self.steps}, and not the one behind")
        self.first_step = step
        return self

    def batch_at(self, step: int) -> np.ndarray:
        """Sample numbers (int64 [batch_size]) of a step on all ranks. UserError for a step that is none."""
        length = self.length_at(step) or 0
        before = (step - 1) * self.batch_size
        draws = Step(step, self.batch_size, length, length, self.batch_size, before, 0.0, {})
        return draw_batch(self._sampler, draws)[1]

    def length_at(self, step: int) -> int | None:
        """Tokens that a row has at a step by seqlen_truncate; None where there is none. UserError for a step
        that is none, as 0 is, with which enumerate() begins unless told."""
        if not 1 <= step <= self.steps:
            raise UserError(
                f"curriculum: step {step} is none of 1 to {self.steps}; count by enumerate(loader, "
                "sampler.first_step)"
            )
        return None if self._lengths is None else int(self._lengths[step - 1])

    def __len__(self) -> int:
        of_step = self.batch_size // (self.ranks * self.micro_batch_size)
        return (self.steps + 1 - self.first_step) * of_step

    def __iter__(self) -> Iterator[list[int]]:
        size, first = self.micro_batch_size, self.first_step
        if self._done_from == first:
            warnings.warn(AGAIN.format(first), stacklevel=2)
        for step in range(first, self.steps + 1):
            batch = self.batch_at(step)
            for start in range(self.rank * size, self.batch_size, self.ranks * size):
                yield batch[start : start + size].tolist()
        self._done_from = first


def cut(batch: Any, length: int | None) -> Any:
    """The batch with rows of at most `length` tokens: tensors and arrays of two axes or more are cut along
    the second, in dicts, lists and tuples, too, which stay what they are. None cuts nothing. UserError where
    there is nothing with two axes, so that rows would stay as long as they are."""
    if length is None:
        return batch
    if not _has_rows(batch):
        raise UserError(
            "curriculum: the batch has no tensor [rows, tokens] to cut; where samples are lists, as those of "
            "datasets are, give with_format('torch') or a collate_fn that makes tensors"
        )
    return _cut(batch, length)


def _has_rows(batch: Any) -> bool:
    if isinstance(batch, Mapping):
        return any(map(_has_rows, batch.values()))
    if isinstance(batch, list | tuple):
        return any(map(_has_rows, batch))
    return isinstance(batch, Tensor | np.ndarray) and batch.ndim > 1


def _cut(batch: Any, length: int) -> Any:
    if isinstance(batch, Tensor | np.ndarray):
        return batch[:, :length] if batch.ndim > 1 else batch
    if isinstance(batch, Mapping):
        return _like(batch, {name: _cut(value, length) for name, value in batch.items()})
    if hasattr(batch, "_fields"):  # a named tuple, which takes its values one by one
        return type(batch)(*(_cut(value, length) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_cut(value, length) for value in batch)
    return batch


def _like(batch: Mapping[str, Any], values: dict[str, Any]) -> Any:
    """Values in a mapping of the kind that a collator gave, as a BatchEncoding that goes to a device; a dict
    where it cannot be made of one."""
    try:
        return type(batch)(values)  # type: ignore[call-arg]
    except TypeError:
        return values


def _shares(sampler: CurriculumBatchSampler, samples: int) -> list[str]:
    """What is wrong with how ranks share a batch, or with there being none."""
    batch_size, ranks, micro_batch_size = sampler.batch_size, sampler.ranks, sampler.micro_batch_size
    if not isinstance(samples, int | np.integer):
        return [f"curriculum: samples is a {type(samples).__name__}; give their number, len(dataset)"]
    if samples < 1:
        return [f"curriculum: a dataset of {samples} samples; give one that holds some"]
    if sampler.steps < 1 or batch_size < 1 or micro_batch_size < 1:
        return [f"curriculum: {sampler.steps} steps of {batch_size} samples; both must be at least 1"]
    if not 0 <= sampler.rank < ranks:
        return [f"curriculum: rank {sampler.rank} is none of {ranks} ranks, which count from 0"]
    if batch_size % (ranks * micro_batch_size):
        return [
            f"curriculum: batch size {batch_size} is no multiple of {ranks} ranks times micro-batch size "
            f"{micro_batch_size}; change one of them"
        ]
    return []


def _metrics(
    curriculum: Iterable[str | CurriculumMetric], reference_schedules: bool, problems: list[str]
) -> list[CurriculumMetric]:
    if isinstance(curriculum, str):
        curriculum = [curriculum]
    told = [metric_from_spec(one, problems, []) if isinstance(one, str) else one for one in curriculum]
    metrics = [metric for metric in told if metric]
    if any(metric.name == RESHAPE for metric in metrics):
        problems.append(f"curriculum {RESHAPE}: a loader gives one row a sample; choose {TRUNCATE}")
    largest = max((max(metric.pacing.maximum, *metric.pacing.values, 1) for metric in metrics), default=1)
    problems += broken_rules(metrics, None, largest, 0, reference_schedules)
    return metrics


def _columns_problems(
    metrics: Iterable[str], difficulties: Mapping[str, np.ndarray], samples: int
) -> list[str]:
    problems = []
    for name in metrics:
        values = difficulties.get(name)
        if values is None:
            held = ", ".join(difficulties) or "nothing"
            problems.append(f"curriculum {name}: difficulties hold {held}; measure() gives them")
        elif np.shape(values) != (samples,) or np.asarray(values).dtype.kind not in "iu":
            problems.append(
                f"curriculum {name}: difficulties are {np.asarray(values).dtype} {np.shape(values)} for "
                f"{samples} samples; give one whole number for each"
            )
    return problems


def _levels(metric: CurriculumMetric, steps: int, reference_schedules: bool) -> np.ndarray:
    return checked_levels(metric.pacing, f"curriculum {metric.name}", 1, steps, reference_schedules, True)


def _make_sampler(
    samples: int,
    efficiency: DataEfficiency,
    difficulties: Mapping[str, np.ndarray],
    steps: int,
    batch_size: int,
) -> Sampler:
    """The draws of a run over one corpus, whose pool is made from values in memory."""

    def columns(metric: CurriculumMetric) -> tuple[np.ndarray, np.ndarray]:
        values = np.asarray(difficulties[metric.name]).astype(np.int64, copy=False)
        return values, sort_by_difficulty(values)

    caps = {one.name: _levels(one, steps, efficiency.reference_schedules) for one in efficiency.metrics}
    pool = make_pool(
        "the dataset", samples, efficiency, columns, caps, steps, lambda step: (step - 1) * batch_size
    )
    return Sampler([], weighted_chain(np.array([float(samples)]), efficiency.seed), [pool], efficiency.seed)
