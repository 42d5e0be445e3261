"""The layers of a Hugging Face model, found by the names of their classes: no import of transformers."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from megatron.base.errors import UserError
from megatron.config.values import parse_list
from megatron.library.kept_arguments import argument_names

KNOWN_LAYERS = (
    "GPT2Block",
    "GPTNeoXLayer",
    "LlamaDecoderLayer",
    "MistralDecoderLayer",
    "Qwen2DecoderLayer",
    "Qwen3DecoderLayer",
    "MixtralDecoderLayer",
    "BertLayer",
    "RobertaLayer",
    "ElectraLayer",
    "ModernBertEncoderLayer",
    "ViTLayer",
    "DeiTLayer",
    "Dinov2Layer",
)
"""Classes of transformers whose layers map hidden states [B, T, D] to the same shape, and whose other
arguments `kept_arguments` knows."""
ENTRIES = {"input_ids", "pixel_values"}
"""What the models around them are called with."""


class Stack(NamedTuple):
    """The layers of a model in their order, and the name of the list that holds them."""

    name: str
    layers: list[nn.Module]


def find_stack(model: nn.Module, layer_types: Iterable[str]) -> Stack:
    """The one list of layers whose classes, or what they inherit from, have these names. UserError where a
    model has none or several."""
    known = set(layer_types)
    lists = {name: part for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and part}
    found = [
        Stack(name, list(part)) for name, part in lists.items() if all(known & _names(one) for one in part)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"random-LTD: {type(model).__name__} has {len(found)} lists of layers, "
            f"{', '.join(stack.name for stack in found)}; give the part of the model that holds one of them"
        )
    there = sorted({type(one).__name__ for part in lists.values() for one in part})
    raise UserError(
        f"random-LTD: {type(model).__name__} has no layers of a known class; its lists hold "
        f"{', '.join(there) or 'nothing'}, known are {', '.join(sorted(known))}; name another by layer_types"
    )


def entrance(model: nn.Module, stack: Stack) -> nn.Module:
    """The innermost part of a model around its layers that is called with tokens or pixels, as what wraps a
    model may call the `forward` of the part below past its hooks; the model itself where there is none."""
    words = stack.name.split(".")[:-1]
    around = [model.get_submodule(".".join(words[:count])) for count in range(len(words) + 1)]
    return next((part for part in reversed(around) if ENTRIES & {*argument_names(part)}), model)


def choose_layers(layers: str | Iterable[int] | None, count: int) -> tuple[int, ...]:
    """Numbers of layers from 0, ascending, from "1-22", from numbers, or all but the first and the last.
    UserError where there are none, or where one is not in the model."""
    try:
        wanted = range(1, count - 1) if layers is None else layers
        numbers = sorted(set(parse_list(wanted) if isinstance(wanted, str) else wanted))
    except ValueError:
        raise UserError(
            f"random-LTD: layers {layers!r}: write rising numbers and ranges, such as 1-22 or 1,3,5"
        ) from None
    if not numbers:
        raise UserError(f"random-LTD: {count} layers leave none in the middle; name some by layers")
    if numbers[0] < 0 or numbers[-1] >= count:
        raise UserError(f"random-LTD: layers {layers!r} are outside 0-{count - 1}; name others")
    return tuple(numbers)


def _names(module: nn.Module) -> set[str]:
    return {kind.__name__ for kind in type(module).__mro__}
