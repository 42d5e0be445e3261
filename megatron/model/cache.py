"""Keys and values of tokens that a model has computed, so that generation computes new ones alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass
class Cache:
    """By layer the keys and values [B, groups, capacity, K] of rows of at most `capacity` tokens, each at its
    place in its row. What lies behind a row's last token is padding, which no token sees."""

    capacity: int
    held: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def put(
        self, layer: int, places_BT: Tensor, end: int, keys_BGTK: Tensor, value_BGTK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Keep those of the tokens at these places, and give those of all places before `end`."""
        if layer not in self.held:
            rows, groups, _, size = keys_BGTK.shape
            shape = (rows, groups, self.capacity, size)
            self.held[layer] = keys_BGTK.new_zeros(shape), value_BGTK.new_zeros(shape)
        index = places_BT[:, None, :, None].expand(len(keys_BGTK), *keys_BGTK.shape[1:])
        for whole, new in zip(self.held[layer], (keys_BGTK, value_BGTK)):
            whole.scatter_(2, index, new)
        keys, value = (whole[:, :, :end] for whole in self.held[layer])
        return keys, value

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        for layer, pair in self.held.items():
            index = torch.tensor(rows, device=pair[0].device)
            keys, value = (whole.index_select(0, index) for whole in pair)
            self.held[layer] = keys, value


class Recall(NamedTuple):
    """Where tokens computed now stand in their rows, `places` [B, T]; the places of all rows are before
    `end`. `cache`: of the tokens before them."""

    cache: Cache
    places: Tensor
    end: int
