"""Which layers lie on which stage of a pipeline."""

from typing import NamedTuple


class Stage(NamedTuple):
    """A run of layers of a model, with the embedding before the first of all and the head behind the last."""

    layers: range
    first: bool = True
    last: bool = True


def even_stages(layers: int, stages: int) -> list[Stage]:
    """As many layers on every stage."""
    each = layers // stages
    return [
        Stage(range(number * each, (number + 1) * each), number == 0, number == stages - 1)
        for number in range(stages)
    ]
