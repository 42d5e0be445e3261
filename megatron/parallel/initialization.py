"""First weights, drawn by name, so that any layout of ranks starts from the same ones."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from megatron.base.keys import key
from megatron.base.random import normal
from megatron.parallel.placement import Placement, fill_constants, placements


def initialize(model: nn.Module, seed: int) -> None:
    """Fill every parameter of a model, and all its constants."""
    initialize_weights(dict(model.named_parameters()), placements(model), seed)
    fill_constants(model)


def initialize_weights(parameters: dict[str, nn.Parameter], table: dict[str, Placement], seed: int) -> None:
    """Fill parameters, whole ones or parts, from (seed, their global names, places in the global tensors)."""

    def fill(item: tuple[str, nn.Parameter]) -> None:
        name, parameter = item
        placement = table[name]
        if not placement.std:
            parameter.data.fill_(placement.value)
            return
        shape = tuple(parameter.shape)
        numbers = normal(key(seed, name), placement.global_shape, placement.offset, shape)
        parameter.data.copy_(torch.from_numpy(numbers).mul_(placement.std))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, parameters.items()))
