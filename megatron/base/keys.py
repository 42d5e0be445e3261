"""Keys of random draws: 64-bit integers made from a seed and what the draw is for, e.g. `key(seed,
"layers.3.mlp.up.weight")`.

The mixer is the finaliser of MurmurHash3 over a Weyl sequence (the construction of SplitMix64), here in
plain Python, so that whoever needs a key alone waits for no compiler; `random.py` has it for arrays.
"""

import hashlib

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)


def key(*parts: int | str) -> int:
    """A 64-bit key from whole numbers and names; the order of the parts matters."""
    state = 0
    for part in parts:
        if isinstance(part, str):
            part = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
        state = _mix(((state + GOLDEN) & MASK) ^ _mix((int(part) + 1) & MASK))
    return state


def signed(number: int) -> int:
    """The same 64 bits as a signed number, as int64 tensors hold them."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _mix(x: int) -> int:
    """A bijection of 64-bit integers whose output bits all depend on all input bits."""
    x = ((x ^ (x >> 33)) * MULTIPLIERS[0]) & MASK
    x = ((x ^ (x >> 33)) * MULTIPLIERS[1]) & MASK
    return x ^ (x >> 33)
