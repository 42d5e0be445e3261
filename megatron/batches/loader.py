"""Batches, made ahead of time by a background thread."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from megatron.model.inputs import Inputs, pinned
from megatron.schedule.plan import Step

AHEAD = 2


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
