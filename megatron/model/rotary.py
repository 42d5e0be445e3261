"""Rotary positions (arXiv 2104.09864): a token's angles follow its own position, wherever it stands in the
batch."""

import torch
from torch import Tensor


def rotary_table(positions: int, channels: int, base: float) -> Tensor:
    """Cosines and sines (float64) [positions, 2, channels/2] of the angles of a head's rotating channels."""
    frequency = base ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequency
    return torch.stack([angles.cos(), angles.sin()], 1)


def rotate(x_BHTK: Tensor, rotary_BT2R: Tensor) -> Tensor:
    """Rotate channel i with channel i + R by angle i, for the first 2R channels of a head; the others
    pass."""
    cosine, sine = rotary_BT2R[:, None].unbind(-2)
    half = cosine.shape[-1]
    first, second, rest = x_BHTK.split([half, half, x_BHTK.shape[-1] - 2 * half], -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine, rest], -1)
