"""Keyed, counter-based randomness: every draw is a function of a key and a position, so nothing has a state
to save.

Keys are made in `keys.py`.
"""

import numpy as np

from megatron.base.compiled import compiled
from megatron.base.keys import GOLDEN, MULTIPLIERS

_GOLDEN = np.uint64(GOLDEN)
_M1, _M2 = map(np.uint64, MULTIPLIERS)
_S33, _S32, _S11 = np.uint64(33), np.uint64(32), np.uint64(11)
_ONE, _ZERO = np.uint64(1), np.uint64(0)


@compiled(inline="always")
def mix(x):
    """A bijection of 64-bit integers whose output bits all depend on all input bits."""
    x = np.uint64(x)
    x = (x ^ (x >> _S33)) * _M1
    x = (x ^ (x >> _S33)) * _M2
    return x ^ (x >> _S33)


@compiled("uint64(uint64, uint64)", inline="always")
def draw(key, counter):
    """64 random bits of a key at a position (counter)."""
    return mix(np.uint64(key) + (np.uint64(counter) + _ONE) * _GOLDEN)


@compiled("int64(int64, int64, uint64)")
def permute(index, size, key):
    """Where `index` goes in the keyed permutation of [0, size): a Feistel network of 6 rounds over the
    next power of two, walked until it lands inside. Sizes below 16 leave so few bits to a round that not
    every order is as likely."""
    bits = _ZERO
    while (_ONE << bits) < np.uint64(size):
        bits += _ONE
    low, high = bits >> _ONE, bits - (bits >> _ONE)
    x = np.uint64(index)
    while True:
        left, right = low, high
        for round_ in range(6):
            upper, lower = x >> right, x & ((_ONE << right) - _ONE)
            upper ^= draw(np.uint64(key) + np.uint64(round_), lower) & ((_ONE << left) - _ONE)
            x = (lower << left) | upper
            left, right = right, left
        if x < np.uint64(size):
            return np.int64(x)


@compiled("void(int64[:], uint64)")
def shuffle(values, key):
    """Shuffle a one-dimensional array in place by a key (Fisher-Yates)."""
    for i in range(len(values) - 1, 0, -1):
        j = np.int64(draw(key, i) % np.uint64(i + 1))
        values[i], values[j] = values[j], values[i]


@compiled("void(int64, int64[:], uint64)")
def choose(length, out, key):
    """Fill `out` with len(out) of the positions [0, length), uniform without replacement, ascending
    (selection sampling).

    length < 2^32; the chance of every subset is exact to 2^-32 a position."""
    wanted, found = len(out), 0
    for position in range(length):
        if ((draw(key, position) >> _S32) * np.uint64(length - position)) >> _S32 < np.uint64(wanted - found):
            out[found] = position
            found += 1
            if found == wanted:
                return


@compiled()
def draw_each(key, counters):
    """64 random bits of a key at each of these positions."""
    out = np.empty(len(counters), np.uint64)
    for i in range(len(counters)):
        out[i] = draw(key, np.uint64(counters[i]))
    return out


@compiled()
def _normal(key, first, out):
    scale = 2.0**-53
    for i in range(len(out)):
        a = draw(key, first + i)
        b = mix(a ^ _GOLDEN)
        radius = np.sqrt(-2.0 * np.log((np.float64(a >> _S11) + 0.5) * scale))
        out[i] = radius * np.cos(2.0 * np.pi * np.float64(b >> _S11) * scale)


def normal(
    key: int, global_shape: tuple[int, ...], offset: tuple[int, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """Standard normal numbers (float64) of the box `offset, shape` inside a tensor of `global_shape`: any
    box can be drawn alone and equals that part of the whole."""
    out = np.empty(shape)
    rows = out.reshape(-1, shape[-1]) if shape else out.reshape(1, 1)
    strides = np.cumprod([1, *reversed(global_shape[1:])])[::-1] if global_shape else np.array([], int)
    for number, index in enumerate(np.ndindex(*shape[:-1])):
        place = [*index, 0] if shape else []
        first = sum(int(stride) * (start + step) for stride, start, step in zip(strides, offset, place))
        _normal(np.uint64(key), first, rows[number])
    return out
