"""What a layer of a Hugging Face model is called with, for its kept tokens alone: everything that belongs to
a token goes with it."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from megatron.base.errors import UserError

HIDDEN = "hidden_states"
CACHES = ("past_key_values", "past_key_value", "layer_past", "cache_position")
SWITCHES = ("use_cache", "output_attentions")
PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "cu_seqlens", "max_length_q", "max_length_k")
WHOLE = ("encoder_hidden_states",)
"""Arguments that do not go along the sequence, whatever their shape."""


def argument_names(module: nn.Module) -> list[str]:
    """The names of what a layer takes by position, hidden states first, or of what a model takes."""
    parameters = inspect.signature(type(module).forward).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in positional][1:]


def kept_arguments(
    layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], kept_BR: Tensor
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments of the same call on the kept tokens (ascending positions). UserError
    where one of them goes along the sequence and is not known."""
    names = argument_names(layer)
    x_BTD = args[0] if args else kwargs[HIDDEN]
    length, name = x_BTD.shape[1], type(layer).__name__
    if str(attention_kind(layer)).startswith("flash"):
        _refuse_what_flash_cannot(layer, kwargs, length)

    def kept(argument: str, value: Any) -> Any:
        if argument == HIDDEN:
            return take(value, kept_BR)
        if argument in CACHES:
            return None
        if argument in SWITCHES:
            return value and False
        if argument in PACKED and value is not None:
            raise UserError(f"random-LTD: {name} gets packed rows by {argument}; pack by an attention mask")
        if argument.endswith("attention_mask"):
            return _mask(value, kept_BR, length, f"{name} {argument}", argument.startswith("encoder"))
        if argument == "position_ids" and str(attention_kind(layer)).startswith("flash"):
            return None  # which that kernel would read as packed rows, and nothing else in a layer reads
        if argument in ("position_ids", "position_embeddings"):
            return _positions(value, kept_BR)
        if argument not in WHOLE and _goes_along(value, length):
            raise UserError(
                f"random-LTD: {name} gets {argument} along the sequence, which is not known here; call the "
                "model without it"
            )
        return value

    return (
        [kept(names[i] if i < len(names) else f"argument {i}", value) for i, value in enumerate(args)],
        {argument: kept(argument, value) for argument, value in kwargs.items()},
    )


def take(x: Tensor, kept_BR: Tensor) -> Tensor:
    """The kept tokens [B, R, ...] of x [B or 1, T, ...]."""
    x = x.expand(len(kept_BR), *x.shape[1:])
    index = kept_BR.reshape(*kept_BR.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(-1, -1, *x.shape[2:]))


def attention_kind(layer: nn.Module) -> str | None:
    """The implementation of attention that a layer's configuration names; None where it has none."""
    for module in layer.modules():
        config = getattr(module, "config", None)
        if kind := getattr(config, "_attn_implementation", None):
            return str(kind)
    return None


def _positions(value: Any, kept_BR: Tensor) -> Any:
    """Positions [B or 1, T], and cosines and sines [B or 1, T, D], each row's own."""
    if isinstance(value, tuple | list):
        return type(value)(take(one, kept_BR) for one in value)
    return None if value is None else take(value, kept_BR)


def _mask(mask: Any, kept_BR: Tensor, length: int, name: str, of_encoder: bool) -> Any:
    """A mask [B or 1, H or 1, T or 1, T] or [B, T], whatever its type, for the kept queries and keys. None
    stays None: kept tokens keep their order, so that a causal sight stays causal."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise UserError(f"random-LTD: {name} is a {type(mask).__name__}; load the model with sdpa or eager")
    if mask.ndim == 2 and not of_encoder:
        return take(mask, kept_BR)
    if mask.ndim != 4 or (mask.shape[-1] != length and not of_encoder):
        raise UserError(
            f"random-LTD: {name} has the shape {tuple(mask.shape)} for {length} tokens; train without cached "
            "keys, and with a mask of the tokens alone"
        )
    row = torch.arange(mask.shape[0], device=mask.device)[:, None, None]
    query = kept_BR[:, :, None] if mask.shape[2] > 1 else torch.zeros_like(kept_BR[:, :1, None])
    key = torch.arange(mask.shape[-1], device=mask.device) if of_encoder else kept_BR[:, None, :]
    return mask[row, :, query, key].movedim(-1, 1)


def _refuse_what_flash_cannot(layer: nn.Module, kwargs: Mapping[str, Any], length: int) -> None:
    """Flash attention knows windows and packed rows by the places of tokens, which dropping moves."""
    configured = [module for module in layer.modules() if hasattr(module, "config")]
    windows = (  # of the layer's own where it says one, as not every layer need have the model's
        getattr(module, "sliding_window", getattr(module.config, "sliding_window", None))
        for module in configured
    )
    positions = kwargs.get("position_ids")
    packed = isinstance(positions, Tensor) and bool((positions.diff(dim=-1) != 1).any())
    if packed or any(isinstance(window, int) and window < length for window in windows):
        raise UserError(
            f"random-LTD: {type(layer).__name__} has a window or packed rows, which flash attention loses "
            "with dropped tokens; load the model with attn_implementation='sdpa'"
        )


def _goes_along(value: Any, length: int) -> bool:
    """Whether a tensor, or one of several, has as many entries along an axis as the sequence has tokens."""
    if isinstance(value, tuple | list):
        return any(_goes_along(one, length) for one in value)
    return isinstance(value, Tensor) and value.ndim > 1 and length in value.shape
