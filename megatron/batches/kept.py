"""Which tokens random-LTD keeps: uniform draws keyed by (seed, step, layer, row), so that they are the same
on any number of ranks."""

import numpy as np

from megatron.base.compiled import compiled
from megatron.base.keys import key
from megatron.base.random import choose, draw


def choose_kept(
    dropping: tuple[int, ...], rows: np.ndarray, lengths: np.ndarray, kept_length: int, seed: int, step: int
) -> np.ndarray:
    """Ascending positions [dropping layers, rows, kept_length] that every dropping layer keeps of rows of
    these numbers and lengths, int64. Of a shorter row it keeps all, and of what is behind it as many as are
    missing."""
    out = np.empty((len(dropping), len(rows), kept_length), np.int64)
    state = np.uint64(key(seed, "random_ltd", step))
    _choose_all(state, np.array(dropping), rows, np.broadcast_to(lengths, rows.shape).astype(np.int64), out)
    return out


@compiled()
def _choose_all(seed, layers, rows, lengths, out):
    for i in range(len(layers)):
        for j in range(len(rows)):
            most = min(lengths[j], out.shape[2])
            choose(lengths[j], out[i, j, :most], draw(draw(seed, layers[i]), rows[j]))
            for place in range(most, out.shape[2]):
                out[i, j, place] = lengths[j] + place - most
