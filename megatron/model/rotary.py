"""Rotary positions (arXiv 2104.09864): a token's angles follow its own position, wherever it stands in the
batch."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LLAMA3_POSITIONS, LLAMA3_SLOW, LLAMA3_FAST = 8192, 1.0, 4.0
"""Positions that Llama 3 was first trained on; frequencies that go round less often in them than the slow
number are divided, those that go round more often than the fast one stay, others lie between."""


class Stretch(NamedTuple):
    """How angles are stretched to longer texts. `positions`: every position is divided by it (arXiv
    2306.15595); `llama3`: low frequencies are, as in Llama 3.1, where it is above 0."""

    positions: float = 1.0
    llama3: float = 0.0


UNSTRETCHED = Stretch()


def rotary_table(positions: int, channels: int, base: float, stretch: Stretch = UNSTRETCHED) -> Tensor:
    """Cosines and sines (float64) [positions, 2, channels/2] of the angles of a head's rotating channels."""
    frequency = base ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    if stretch.llama3:
        rounds = LLAMA3_POSITIONS * frequency / (2 * math.pi)
        keeps = ((rounds - LLAMA3_SLOW) / (LLAMA3_FAST - LLAMA3_SLOW)).clamp(0, 1)
        frequency = frequency * (keeps + (1 - keeps) / stretch.llama3)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * (frequency / stretch.positions)
    return torch.stack([angles.cos(), angles.sin()], 1)


def rotate(x_BHTK: Tensor, rotary_BT2R: Tensor) -> Tensor:
    """Rotate channel i with channel i + R by angle i, for the first 2R channels of a head; the others
    pass."""
    cosine, sine = rotary_BT2R[:, None].unbind(-2)
    half = cosine.shape[-1]
    first, second, rest = x_BHTK.split([half, half, x_BHTK.shape[-1] - 2 * half], -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine, rest], -1)
