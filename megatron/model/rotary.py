"""Rotary positions (arXiv 2104.09864): a token's angles follow its own position, wherever it stands in the batch."""

import torch
from torch import Tensor


def rotary_table(positions: int, channels: int, base: float) -> Tensor:
    """Angles (float64) [positions, channels/2] of the rotating channels of a head."""
    frequency = base ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    return torch.arange(positions, dtype=torch.float64)[:, None] * frequency


def rotate(x_BHTK: Tensor, angles_BTR: Tensor) -> Tensor:
    """Turn channel i with channel i + R by angle i, for the first 2R channels of a head; the others pass."""
    cosine, sine = (part[:, None].to(x_BHTK.dtype) for part in (angles_BTR.cos(), angles_BTR.sin()))
    half = angles_BTR.shape[-1]
    first, second, rest = x_BHTK.split([half, half, x_BHTK.shape[-1] - 2 * half], -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine, rest], -1)
