"""Loss on held-out windows: full length, nothing dropped, the same windows every time."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from megatron.base.terminal import Advance
from megatron.batches.loader import Rows
from megatron.config.config import Config
from megatron.curriculum.draws import counts, weighted_chain
from megatron.data.corpora import Corpus
from megatron.model.inputs import to_device
from megatron.parallel.mesh import Mesh, sum_over
from megatron.parallel.pipeline import Links, run_forward
from megatron.parallel.slices import slices_of
from megatron.parallel.stages import StageModule
from megatron.tasks.task import Task

Weighted = list[tuple[float | None, Corpus]]
Measure = Callable[[np.ndarray], Tensor | None]
"""From windows [rows, 2] (corpus, window): float64 [rows, columns], to be summed over rows; None on a rank
that has only computed a part of the way there."""


class CutOff(Exception):
    """Some rank wishes to stop while windows are scored."""


def never() -> bool:
    """No wish to stop."""
    return False


def first_windows(corpora: Weighted, wanted: int, seed: int) -> np.ndarray:
    """Pairs (corpus, window) of about `wanted` windows: the first ones of every corpus, by the blend's
    weights."""
    weights = np.array(
        [corpus.windows if weight is None else weight for weight, corpus in corpora], np.float64
    )
    shares = counts(weighted_chain(weights, seed), wanted)
    return np.concatenate(
        [
            np.stack([np.full(count, number), np.arange(count)], 1)
            for number, (_, corpus) in enumerate(corpora)
            for count in [min(int(shares[number]), corpus.windows)]
        ]
    )


def validation_windows(config: Config, corpora: Weighted) -> np.ndarray:
    """The windows that every validation of a run scores: the first --eval-iters global batches of them."""
    wanted = config.logging.eval_iters * config.training.global_batch_size
    if not corpora or not wanted:
        return np.zeros((0, 2), np.int64)
    return first_windows(corpora, wanted, config.training.seed)


def mean_losses(
    task: Task,
    config: Config,
    stages: tuple[StageModule, ...],
    rows: Rows,
    corpora: Weighted,
    windows: np.ndarray,
    micro_batch_size: int,
    mesh: Mesh,
    should_stop: Callable[[], bool] = never,
) -> dict[str, dict[str, float | None]]:
    """Mean of every measure by corpus name, and over all under ""; None where nothing was scored. The ranks
    share the work. CutOff on all of them where `should_stop` comes true on one."""
    names, members = list(task.measures(config)), [corpus for _, corpus in corpora]
    links = Links(mesh, len(stages), stages[0].precision)

    def measure(part: np.ndarray) -> Tensor | None:
        slices = slices_of(mesh)
        inputs = to_device(rows.plain(members, part[:, 0], part[:, 1], slices), mesh.device)
        shape = stages[0].received_shape(*inputs.tokens.shape)

        def forward(chunk: int, received: Tensor | None) -> Any:
            return task.row_losses(stages[chunk], inputs, received)

        found = run_forward(links, shape, forward)
        return torch.cat([found[name] for name in names], 1) if found is not None else None

    shape = (len(members), 2 * len(names))
    with ExitStack() as held:
        for stage in stages:
            held.enter_context(evaluating(stage))
        try:
            sums = window_sums(measure, shape, windows, micro_batch_size, mesh, should_stop=should_stop)
        except CutOff:
            links.wait()
            raise
    links.wait()
    means = {"": _means(names, sums.sum(0))}
    if len(corpora) > 1:
        means |= {corpus.name: _means(names, part) for corpus, part in zip(members, sums) if part[1] > 0}
    return means


def _means(names: list[str], sums: Tensor) -> dict[str, float | None]:
    """Mean losses from alternating sums and counts."""
    pairs = sums.view(-1, 2).tolist()
    return {name: total / count if count else None for name, (total, count) in zip(names, pairs)}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and then as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def window_sums(
    measure: Measure,
    shape: tuple[int, int],
    windows: np.ndarray,
    micro_batch_size: int,
    mesh: Mesh,
    advance: Advance = lambda amount, note="": None,
    should_stop: Callable[[], bool] = never,
) -> Tensor:
    """Float64 [corpora, columns] = `shape`: what `measure` gives for the windows of every corpus, summed,
    the ranks sharing the work. At the end those with fewer windows measure the first one for nothing, as
    others may need what they hold of the weights, and tensors of equal shapes. CutOff where `should_stop`
    comes true on a rank."""
    look = _cut_off_by(should_stop, mesh)
    sums = torch.zeros(shape, dtype=torch.float64, device=mesh.device)
    size = micro_batch_size
    for start in range(0, len(windows), mesh.data.size * size):
        look()
        first = start + mesh.data.rank * size
        part = windows[first : first + size]
        missing = min(size, len(windows) - start) - len(part)
        rows = measure(np.concatenate([part, windows[:1].repeat(missing, 0)]))
        if rows is not None and mesh.tensor.rank == 0:  # its other ranks have the same
            for corpus in np.unique(part[:, 0]):
                of_corpus = torch.from_numpy(part[:, 0] == corpus).to(rows.device)
                sums[corpus] += rows[: len(part)][of_corpus].sum(0)
        advance(len(part) * mesh.data.size)
    return sum_over(sums, mesh.world).cpu()


def _cut_off_by(should_stop: Callable[[], bool], mesh: Mesh) -> Callable[[], None]:
    """A function that all ranks call before every micro-batch: CutOff where one of them wishes to stop. They
    tell each other before the first one and then about once a second, all before the same one, since they
    agree on how long the last ones took."""
    before, count, left = time.perf_counter(), 1, 0

    def look() -> None:
        nonlocal before, count, left
        left -= 1
        if left >= 0:
            return
        now = time.perf_counter()
        told = torch.tensor([should_stop(), now - before], dtype=torch.float64, device=mesh.device)
        wishes, seconds = sum_over(told, mesh.world).tolist()
        if wishes:
            raise CutOff
        count = max(1, min(2 * count, int(count * mesh.world.size / max(seconds, 1e-9))))
        before, left = now, count - 1

    return look
