"""Random-LTD (arXiv 2211.11586) for a model of Hugging Face's, by one call.

    dropping = random_ltd_for(model, maximum=1024, duration=10_000)
    for step in range(1, steps + 1):
        dropping.step = step
        ...

Modules, parameters and checkpoints keep their names: only the layers' `forward` is another one, and the
model's own is not touched. Draws and kept lengths are those of the training commands.
"""

import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from megatron.base.errors import UserError
from megatron.batches.kept import choose_kept
from megatron.library.kept_arguments import HIDDEN, argument_names, kept_arguments
from megatron.library.layer_stack import KNOWN_LAYERS, choose_layers, entrance, find_stack
from megatron.schedule.pacing import Pacing, levels, pacing_problems

PLACE = "_random_ltd"
"""The attribute of a layer that drops: its `Dropping`, which of the dropping layers it is, and the `forward`
of its own that it had, if any."""


def random_ltd_for(
    model: nn.Module,
    *,
    maximum: int,
    duration: int,
    minimum: int = 128,
    quantum: int = 16,
    layers: str | Iterable[int] | None = None,
    seed: int = 1234,
    rank: int = 0,
    ranks: int = 1,
    layer_types: Iterable[str] = KNOWN_LAYERS,
) -> "Dropping":
    """Let the middle layers of a model compute `minimum` tokens of every row at step 1, and linearly more
    until step `duration` + 1, from which on they compute all of `maximum`, the tokens of a whole row.

    `model`: the module that the training loop calls, or that DDP, FSDP, PEFT or the Trainer calls for it.
    `layers`: from 0, such as "1-22"; all but the first and the last unless told. `quantum`: kept lengths are
    multiples of it. `rank`, `ranks`: data-parallel rank and number of them, so that every row of the global
    batch has draws of its own. `layer_types`: class names of layers. UserError, one line a problem, where
    this cannot be."""
    stack = find_stack(model, layer_types)
    chosen = choose_layers(layers, len(stack.layers))
    pacing = Pacing("fixed_linear", minimum, maximum, duration, quantum)
    problems = pacing_problems(pacing, "random-LTD")
    if minimum < 1:
        problems.append(f"random-LTD: minimum {minimum} must be at least 1 token")
    if not 0 <= rank < ranks:
        problems.append(f"random-LTD: rank {rank} is none of {ranks} ranks, which count from 0")
    if taken := [number for number in chosen if PLACE in stack.layers[number].__dict__]:
        problems.append(f"random-LTD: layers {taken} of {stack.name} drop already; remove() that first")
    if problems:
        raise UserError(*problems)
    return Dropping(entrance(model, stack), stack.layers, chosen, pacing, seed, rank, ranks)


FORGOTTEN = (
    "random-LTD: the weights have changed, and the step is still {}, so that kept lengths do not grow; set "
    "`step` before every optimizer step, or give a Trainer callbacks=[RandomLTDCallback(dropping)]"
)


class Dropping:
    """Random-LTD on a model. Set `step`, from 1, before the forward passes of every optimizer step, or
    micro-batches of one step draw as if they were one long batch."""

    def __init__(
        self,
        model: nn.Module,
        stack: list[nn.Module],
        layers: tuple[int, ...],
        pacing: Pacing,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ):
        self.layers, self.pacing, self.seed, self.rank, self.ranks = layers, pacing, seed, rank, ranks
        self.layer_tokens = self.effective_tokens = self.tokens = 0
        self._stack = stack
        self._mask: Tensor | None = None
        self._told = False
        self._hooks = (
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end),
        )
        for i, number in enumerate(layers):
            layer = stack[number]
            layer.__dict__[PLACE] = (self, i, layer.__dict__.get("forward"))
            layer.__dict__["forward"] = types.MethodType(forward, layer)
        self.step = 1

    @property
    def step(self) -> int:
        """The optimizer step, from 1; setting it begins a new batch."""
        return self._step

    @step.setter
    def step(self, number: int) -> None:
        if number < 1:
            raise UserError(f"random-LTD: step {number}: steps count from 1")
        self._step = number
        self._rows_before = self._rows_taken = 0
        self._kept: Tensor | None = None
        self._weight: tuple[int, int] | None = None

    @property
    def kept_length(self) -> int:
        """Tokens of a row that a dropping layer computes at this step; a shorter row is computed whole."""
        return int(levels(self.pacing, self._step - 1, 1)[0])

    def remove(self) -> None:
        """Give the layers back as they were; those that are back already stay so."""
        for hook in self._hooks:
            hook.remove()
        places = [self._stack[number].__dict__ for number in self.layers]
        for place in (one for one in places if one.get(PLACE, (None,))[0] is self):
            _, _, before = place.pop(PLACE)
            del place["forward"]
            if before is not None:
                place["forward"] = before

    @torch.compiler.disable  # draws and counts are no graph
    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a forward pass of the model: its rows come after those of the pass before."""
        if _computing_again():
            return
        self._rows_before += self._rows_taken * self.ranks
        self._rows_taken, self._kept = 0, None
        if model.training and torch.is_grad_enabled():
            self._warn_of_a_step_that_stays()
        mask = _given(model, args, kwargs).get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 3:  # of several texts in a row, as for multiple choice
            mask = mask.flatten(0, 1)
        self._mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        caches = [one for one in (*args, *kwargs.values()) if hasattr(one, "get_seq_length")]
        if model.training and any(int(cache.get_seq_length()) for cache in caches):
            raise UserError(
                "random-LTD: the model gets cached tokens; call eval() before it generates, and train "
                "without past_key_values"
            )

    def _warn_of_a_step_that_stays(self) -> None:
        """Once, where an optimizer has changed the layers' weights since an earlier pass of this step. The
        first weight that is trained stands for all. Those that are no plain parameters, as FSDP's are none,
        change at other times, too."""
        every = (one for layer in self._stack for one in layer.parameters() if type(one) is nn.Parameter)
        weight = next((one for one in every if one.requires_grad), None)
        if self._told or weight is None:
            return
        before, self._weight = self._weight, (id(weight), weight._version)  # by id, as a copy has others
        if before is None or before[0] != id(weight) or before == self._weight:
            return
        if self.kept_length < self.pacing.maximum:
            warnings.warn(FORGOTTEN.format(self._step), stacklevel=2)
            self._told = True

    @torch.compiler.disable
    def _end(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Behind a forward pass of the model: when the gradient of what it has made comes, and before layers
        below are computed again, the positions of this pass are brought back, as other passes may have come
        in between. Autograd ends the later of two passes before it begins the earlier."""
        kept = self._kept

        def bring_back(gradient: Tensor) -> None:
            self._kept = kept

        for one in _tensors(output) if kept is not None else ():
            if one.grad_fn is not None:  # a parameter that is returned would keep the hooks of all steps
                one.register_hook(bring_back)

    @torch.compiler.disable
    def kept_of(self, number: int, x_BTD: Tensor) -> Tensor | None:
        """Positions [B, R] that the dropping layer of this place keeps, ascending; None for all. A layer
        that is computed again in a backward pass keeps those of its own pass, which `_end` brings back."""
        rows, length = x_BTD.shape[:2]
        wanted = self.kept_length  # behind the schedule all, whatever the longest row was said to be
        kept_length = length if wanted >= self.pacing.maximum else min(wanted, length)
        if not self._rows_taken:
            self._count(rows, length, kept_length)
        if kept_length == length:
            return None
        if self._kept is None:
            numbers = self._rows_before + self.rank * rows + np.arange(rows)
            self._kept = self._draw(numbers, length, kept_length)
        return self._kept[number].to(x_BTD.device, non_blocking=True)

    def _count(self, rows: int, length: int, kept_length: int) -> None:
        layers, dropping = len(self._stack), len(self.layers)
        of_row = length * (layers - dropping) + kept_length * dropping
        self._rows_taken = rows
        self.tokens += rows * length
        self.layer_tokens += rows * of_row
        self.effective_tokens += rows * (of_row // layers)

    def _draw(self, numbers: np.ndarray, length: int, kept_length: int) -> Tensor:
        """[dropping layers, B, R], of tokens that are no padding where there are so many. Padding comes
        behind them in `order`, on whichever side of a row it is."""
        if self._mask is None or self._mask.shape != (len(numbers), length):
            lengths = np.array(length)
            return torch.from_numpy(
                choose_kept(self.layers, numbers, lengths, kept_length, self.seed, self._step)
            )
        real = self._mask.bool().cpu()
        order = torch.argsort(~real, dim=1, stable=True)
        places = choose_kept(self.layers, numbers, real.sum(1).numpy(), kept_length, self.seed, self._step)
        order = order.expand(len(self.layers), -1, -1)
        return order.gather(2, torch.from_numpy(places)).sort(dim=2).values


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of what a model returns: in containers that torch knows, and in objects of other kinds."""
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            yield leaf
        elif hasattr(leaf, "__dict__"):
            yield from (one for one in tree_leaves(vars(leaf)) if isinstance(one, Tensor))


def _computing_again() -> bool:
    """Whether autograd runs, so that a layer is computed again for its checkpoint."""
    return bool(torch._C._current_graph_task_id() != -1)


def _given(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names, as far as the model names what it takes by position."""
    return dict(zip(argument_names(model), args)) | kwargs


def forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The `forward` of a layer that drops: its own on the kept tokens, the others as they came. A
    checkpoint of the layer's own forward lies inside, and keeps the kept tokens alone. One that lies around
    it, or around several layers, computes the same tokens again."""
    dropping, number, before = layer.__dict__[PLACE]
    own = before if before is not None else types.MethodType(type(layer).forward, layer)
    if not layer.training:
        return own(*args, **kwargs)
    x_BTD = args[0] if args else kwargs[HIDDEN]
    kept_BR = dropping.kept_of(number, x_BTD)
    if kept_BR is None:
        return own(*args, **kwargs)
    inside, named = kept_arguments(layer, args, kwargs, kept_BR)
    out = own(*inside, **named)
    if isinstance(out, tuple):
        return (_put(x_BTD, out[0], kept_BR), *out[1:])
    return _put(x_BTD, out, kept_BR)


def _put(x_BTD: Tensor, y_BRD: Tensor, kept_BR: Tensor) -> Tensor:
    index_BRD = kept_BR[..., None].expand(-1, -1, x_BTD.shape[-1])
    return x_BTD.scatter(1, index_BRD, y_BRD.to(x_BTD.dtype))
