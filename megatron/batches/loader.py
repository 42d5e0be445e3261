"""From samples to inputs, whatever the task: its rows, a rank's share, and batches made ahead of time by a
background thread."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from megatron.base.errors import UserError
from megatron.curriculum.sampler import Sampler
from megatron.data.corpora import Corpus
from megatron.model.inputs import Inputs, pinned
from megatron.parallel.slices import WHOLE, Slices
from megatron.schedule.plan import Step

AHEAD = 2


@dataclass(frozen=True)
class BatchShare:
    """This rank's part of every batch: data-parallel rank, number of them, samples of a micro-batch, and its
    part of every sequence."""

    rank: int
    ranks: int
    micro_batch_size: int
    slices: Slices = WHOLE


class Rows(NamedTuple):
    """How samples become a task's inputs. `batch`: this rank's micro-batches of a step; `plain`: whole
    samples of corpora by their numbers, nothing cut or dropped, for evaluation, of which this rank has its
    part of every sequence."""

    batch: Callable[[Sampler, Step, BatchShare], list[Any]]
    plain: Callable[[list[Corpus], np.ndarray, np.ndarray, Slices], Any]


def batches(
    make: Callable[[Step], list[Inputs]], steps: Iterator[Step], pin: bool = False
) -> Iterator[tuple[Step, list[Inputs]]]:
    """Every step with its micro-batches by `make`, AHEAD of them made in the background. `pin`: they go to
    a GPU."""

    def prepare(step: Step) -> list[Inputs]:
        made = make(step)
        return [pinned(one) for one in made] if pin else made

    with ThreadPoolExecutor(1) as pool:
        waiting = []
        for step in steps:
            waiting.append((step, pool.submit(prepare, step)))
            if len(waiting) > AHEAD:
                ready, future = waiting.pop(0)
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()


def check_ids(ids: np.ndarray, vocab_size: int, corpora: list[Corpus], members: np.ndarray) -> None:
    """UserError where an id is none of the vocabulary, with the corpora that `members` names."""
    if ids.max() >= vocab_size or ids.min() < 0:
        names = sorted({corpora[member].name for member in members})
        raise UserError(
            f"{', '.join(names)}: the token id {int(ids.max() if ids.max() >= vocab_size else ids.min())} "
            "is outside the vocabulary "
            f"of {vocab_size}; name the tokenizer that made the file, or the right --vocab-size"
        )
