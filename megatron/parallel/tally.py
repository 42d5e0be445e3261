"""What layers add up in a step beside the loss: losses of their own, and counts."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Tally:
    """Named sums of a step of the whole model, float64, of which every rank adds its own part. `sizes`: how
    many numbers each name has."""

    def __init__(self, sizes: Mapping[str, int], device: torch.device):
        self.sizes = dict(sizes)
        self.sums = torch.zeros(sum(sizes.values()), dtype=torch.float64, device=device)

    def zero(self) -> None:
        """Forget the last step."""
        self.sums.zero_()

    def add(self, found: Mapping[str, Tensor]) -> None:
        """Add to the sums of these names."""
        parts = self.parts()
        for name, values in found.items():
            parts[name].add_(values.to(parts[name]))

    def parts(self, sums: Tensor | None = None) -> dict[str, Tensor]:
        """The sums by name, as views; or other ones of the same names."""
        return dict(zip(self.sizes, (self.sums if sums is None else sums).split(list(self.sizes.values()))))
