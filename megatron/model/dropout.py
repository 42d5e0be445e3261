"""Keyed dropout: a mask bit is a hash of (seed, step, layer, site, row, original position, channel), so it
does not depend on which rank computes a token, on the order of layers, or on what was drawn before.

Layer and site enter as salts, which are tensors made when a model is built: the forward pass computes no
key.
"""

import torch
from torch import Tensor

from megatron.base.keys import key, signed

_M1, _M2 = 0xFF51AFD7ED558CCD - (1 << 64), 0xC4CEB9FE1A85EC53 - (1 << 64)
_CHANNEL = -1640531527


def salt(*parts: int | str) -> Tensor:
    """The salt of a dropout site, int64 scalar."""
    return torch.tensor(signed(key(*parts)))


def token_keys(step_key: Tensor, rows_B: Tensor, length: int, places_BT: Tensor | None = None) -> Tensor:
    """A 64-bit key for every token of [rows, length]; `step_key` (int64 scalar) comes from (seed, step).
    Where a row holds several texts, `rows_B` [B, T] tells the number of each token's text, and `places_BT`
    its place there."""
    rows = rows_B if rows_B.dim() == 2 else rows_B[:, None]
    places = torch.arange(length, device=rows_B.device) if places_BT is None else places_BT
    return _mix64(step_key + (rows << 32) + places)


def drop(x_BTD: Tensor, probability: float, keys_BT: Tensor | None, site: Tensor) -> Tensor:
    """Zero each element with this probability and scale the others up; `keys_BT` None means none is dropped.
    `site`: its salt."""
    if keys_BT is None or not probability:
        return x_BTD
    return _masked(x_BTD, _bits(x_BTD, keys_BT, site), probability)


def jitter(x_BTD: Tensor, spread: float, keys_BT: Tensor | None, site: Tensor) -> Tensor:
    """Multiply each element by a factor from 1-spread to 1+spread, keyed as in `drop`."""
    if keys_BT is None or not spread:
        return x_BTD
    return x_BTD * (1 + spread / (1 << 31) * _bits(x_BTD, keys_BT, site).to(x_BTD.dtype))


def drop_attention(
    weights_BHQT: Tensor,
    probability: float,
    query_keys_BQ: Tensor,
    keys_BT: Tensor,
    heads_H: Tensor,
    site: Tensor,
) -> Tensor:
    """Dropout of attention probabilities, keyed by query token, head and key token. `heads_H`: a salt for
    every head; `site`: that of the key tokens."""
    if not probability:
        return weights_BHQT
    query_BHQ = _mix64(query_keys_BQ[:, None] ^ heads_H[:, None]).to(torch.int32)
    key_BT = _mix64(keys_BT ^ site).to(torch.int32)
    return _masked(weights_BHQT, _mix32(query_BHQ[..., None] + key_BT[:, None, None]), probability)


def _bits(x_BTD: Tensor, keys_BT: Tensor, site: Tensor) -> Tensor:
    """32 bits for each element, as int32."""
    low_BT = _mix64(keys_BT ^ site).to(torch.int32)
    channels_D = torch.arange(x_BTD.shape[-1], device=x_BTD.device, dtype=torch.int32) * _CHANNEL
    return _mix32(low_BT[..., None] + channels_D)


def _masked(x: Tensor, bits: Tensor, probability: float) -> Tensor:
    threshold = round((probability - 0.5) * (1 << 32))
    return torch.where(bits >= threshold, x * (1 / (1 - probability)), 0.0)


def _mix64(x: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 on int64, whose right shifts keep the sign and so are masked."""
    x = (x ^ ((x >> 33) & 0x7FFFFFFF)) * _M1
    x = (x ^ ((x >> 33) & 0x7FFFFFFF)) * _M2
    return x ^ ((x >> 33) & 0x7FFFFFFF)


def _mix32(x: Tensor) -> Tensor:
    """The 32-bit finaliser, on int32."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * -2048144789
    x = (x ^ ((x >> 13) & 0x7FFFF)) * -1028477387
    return x ^ ((x >> 16) & 0xFFFF)
