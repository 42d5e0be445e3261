"""What a rank's tensors really take: the bytes of all that are alive, and the most of them at once."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while this mode is on, and are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self.known: dict[int, Any] = {}

    @property
    def now(self) -> int:
        """Asked for anew, as fully_shard lets go of memory by making storages smaller."""
        alive = [reference() for reference in list(self.known.values())]
        return sum(storage.nbytes() for storage in alive if storage is not None)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and not hasattr(tensor, "_local_tensor"):  # a DTensor's own
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        number = storage._cdata
        if number not in self.known:
            self.known[number] = weakref.ref(storage, lambda _: self.known.pop(number, None))
            self.most = max(self.most, self.now)
