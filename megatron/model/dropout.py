"""Keyed dropout: a mask bit is a hash of (seed, step, layer, site, row, original position, channel), so it
does not depend on which rank computes a token, on the order of layers, or on what was drawn before."""

import functools

import torch
from torch import Tensor

from megatron.base.keys import key

_M1, _M2 = 0xFF51AFD7ED558CCD - (1 << 64), 0xC4CEB9FE1A85EC53 - (1 << 64)
_CHANNEL = -1640531527


def token_keys(step_key: int, rows_B: Tensor, length: int) -> Tensor:
    """A 64-bit key for every token of [rows, length]; `step_key` comes from (seed, step)."""
    places_T = torch.arange(length, device=rows_B.device)
    return _mix64(_signed(step_key) + (rows_B[:, None] << 32) + places_T)


def drop(x_BTD: Tensor, probability: float, keys_BT: Tensor | None, site: str, layer: int = 0) -> Tensor:
    """Zero each element with this probability and scale the others up; `keys_BT` None means none is
    dropped."""
    if keys_BT is None or not probability:
        return x_BTD
    low_BT = _mix64(keys_BT ^ _signed(key(site, layer))).to(torch.int32)
    channels_D = torch.arange(x_BTD.shape[-1], device=x_BTD.device, dtype=torch.int32) * _CHANNEL
    return _masked(x_BTD, low_BT[..., None] + channels_D, probability)


def drop_attention(weights_BHTT: Tensor, probability: float, keys_BT: Tensor | None, layer: int) -> Tensor:
    """Dropout of attention probabilities, keyed by query token, head and key token."""
    if keys_BT is None or not probability:
        return weights_BHTT
    salts_H = _head_salts(layer, weights_BHTT.shape[1], keys_BT.device)
    query_BHT = _mix64(keys_BT[:, None] ^ salts_H[:, None]).to(torch.int32)
    key_BT = _mix64(keys_BT ^ _signed(key("attention key", layer))).to(torch.int32)
    return _masked(weights_BHTT, query_BHT[..., None] + key_BT[:, None, None], probability)


@functools.cache
def _head_salts(layer: int, heads: int, device: torch.device) -> Tensor:
    """Made once, because copying them to a GPU would wait for it."""
    return torch.tensor([_signed(key("attention", layer, head)) for head in range(heads)], device=device)


def _masked(x: Tensor, bits: Tensor, probability: float) -> Tensor:
    threshold = round((probability - 0.5) * (1 << 32))
    return torch.where(_mix32(bits) >= threshold, x * (1 / (1 - probability)), 0.0)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


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
