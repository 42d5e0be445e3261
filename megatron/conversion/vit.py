"""Vision transformers of Hugging Face's. A tensor of theirs has the same numbers in the same order and may
have another shape: the kernel [hidden, channels, patch, patch], and [CLS] and positions with a dimension of
one before them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from megatron.config.config import Config
from megatron.config.vision import VisionConfig
from megatron.conversion.bert import ACTIVATIONS, NAMES_OF_ACTIVATIONS
from megatron.conversion.family import Described, Family, require
from megatron.conversion.origins import Origin, origin, reshaped

HEAD = ("head.weight", "head.bias")
RESAMPLED = {2: "bilinear", 3: "bicubic"}
"""How images are resized, by the numbers of a preprocessor_config.json."""


def describe(content: Mapping[str, Any]) -> Described:
    """Values of our flags by name, and what has no like here. KeyError where something needed is missing."""
    height, width = _sides(content.get("image_size", 224))
    patch = _sides(content.get("patch_size", 16))
    flags = {
        "num_layers": content["num_hidden_layers"],
        "hidden_size": content["hidden_size"],
        "num_attention_heads": content["num_attention_heads"],
        "ffn_hidden_size": content["intermediate_size"],
        "img_h": height,
        "img_w": width,
        "patch_dim": patch[0],
        "num_channels": content.get("num_channels", 3),
        "num_classes": classes_in(content),
        "disable_qkv_bias": not content.get("qkv_bias", True),
        "norm_epsilon": content.get("layer_norm_eps", 1e-12),
        "hidden_dropout": content.get("hidden_dropout_prob", 0.0),
        "attention_dropout": content.get("attention_probs_dropout_prob", 0.0),
        "init_method_std": content.get("initializer_range", 0.02),
    }
    problems = []
    if patch[0] != patch[1]:
        problems.append(f"patch_size {list(patch)}: only square patches are known here")
    activation = content.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        problems.append(f"hidden_act {activation!r} is none of {known}, which are known here")
    labels = content.get("id2label") or {}
    if not isinstance(labels, Mapping) or not all(str(number).isdecimal() for number in labels):
        problems.append("id2label does not number its classes; bring the file again")
    return flags | ACTIVATIONS.get(activation, {}), problems


def classes_in(content: Mapping[str, Any]) -> int:
    """How many classes its head tells apart; transformers has two where nothing says it."""
    labels = content.get("id2label")
    return len(labels) if labels else int(content.get("num_labels", 2))


def names(flags: Mapping[str, Any]) -> dict[str, Origin]:
    """The origin of every tensor of ours in ViTForImageClassification."""
    hidden, patch, channels = flags["hidden_size"], flags["patch_dim"], flags["num_channels"]
    tokens = 1 + (flags["img_h"] // patch) * (flags["img_w"] // patch)
    embeddings, kernel = "vit.embeddings", (hidden, channels, patch, patch)
    projection = f"{embeddings}.patch_embeddings.projection"
    found = {
        "patches.projection.weight": reshaped(
            f"{projection}.weight", kernel, (hidden, math.prod(kernel[1:]))
        ),
        "patches.projection.bias": origin(f"{projection}.bias"),
        "patches.class_token": reshaped(f"{embeddings}.cls_token", (1, 1, hidden), (1, hidden)),
        "position_embeddings.weight": reshaped(
            f"{embeddings}.position_embeddings", (1, tokens, hidden), (tokens, hidden)
        ),
    }
    places = {"final_norm": "vit.layernorm", "head": "classifier"}
    for layer in range(flags["num_layers"]):
        there, here = f"vit.encoder.layer.{layer}.", f"layers.{layer}."
        for part in ("query", "key", "value"):
            place = f"{there}attention.attention.{part}"
            found[f"{here}attention.{part}.weight"] = origin(f"{place}.weight")
            if not flags["disable_qkv_bias"]:
                found[f"{here}attention.{part}.bias"] = origin(f"{place}.bias")
        places[f"{here}attention.projection"] = f"{there}attention.output.dense"
        places[f"{here}attention_norm"] = f"{there}layernorm_before"
        places[f"{here}mlp_norm"] = f"{there}layernorm_after"
        places[f"{here}mlp.up"] = f"{there}intermediate.dense"
        places[f"{here}mlp.down"] = f"{there}output.dense"
    return found | {
        f"{here}.{kind}": origin(f"{there}.{kind}")
        for here, there in places.items()
        for kind in ("weight", "bias")
    }


def state(config: Config, vocab_size: int) -> Described:
    """A configuration as a config.json."""
    model, vision = config.model, config.vision
    usual: dict[str, tuple[str, Any]] = {
        "position_embedding_type": (
            "--position-embedding-type other than learned_absolute",
            "learned_absolute",
        ),
        "normalization": ("--normalization RMSNorm", "LayerNorm"),
        "gated": ("a gated MLP", False),
        "disable_bias_linear": ("--disable-bias-linear", False),
        "disable_norm_bias": ("--disable-norm-bias", False),
        "apply_residual_connection_post_layernorm": ("--apply-residual-connection-post-layernorm", False),
        "num_query_groups": ("--group-query-attention", model.num_attention_heads),
        "kv_channels": ("--kv-channels", model.hidden_size // model.num_attention_heads),
    }
    problems = require(config, usual)
    if model.activation not in NAMES_OF_ACTIVATIONS:
        problems.append(f"the activation {model.activation}")
    return {
        "attention_probs_dropout_prob": model.attention_dropout,
        "hidden_act": NAMES_OF_ACTIVATIONS.get(model.activation),
        "hidden_dropout_prob": model.hidden_dropout,
        "hidden_size": model.hidden_size,
        "image_size": vision.img_h if vision.img_h == vision.img_w else [vision.img_h, vision.img_w],
        "initializer_range": model.init_method_std,
        "intermediate_size": model.ffn_hidden_size,
        "layer_norm_eps": model.norm_epsilon,
        "num_attention_heads": model.num_attention_heads,
        "num_channels": vision.num_channels,
        "num_hidden_layers": model.num_layers,
        "patch_size": vision.patch_dim,
        "qkv_bias": not vision.disable_qkv_bias,
    } | labels([f"LABEL_{number}" for number in range(vocab_size)]), problems


def labels(classes: Sequence[str]) -> dict[str, Any]:
    """How a config.json names its classes."""
    named = dict(enumerate(classes))
    return {
        "id2label": {str(number): name for number, name in named.items()},
        "label2id": {name: number for number, name in named.items()},
    }


def pixels(vision: VisionConfig) -> dict[str, Any]:
    """The preprocessor_config.json of the images that a model sees."""
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(vision.img_mean),
        "image_processor_type": "ViTImageProcessor",
        "image_std": list(vision.img_std),
        "resample": {name: number for number, name in RESAMPLED.items()}[vision.img_interpolation],
        "rescale_factor": 1 / 255,
        "size": {"height": vision.img_h, "width": vision.img_w},
    }


def classes_named(content: Mapping[str, Any]) -> list[str]:
    """The names of its classes, in their order."""
    named = content.get("id2label") or {str(number): f"LABEL_{number}" for number in range(2)}
    return [str(named[number]) for number in sorted(named, key=int)]


def _sides(value: Any) -> tuple[int, int]:
    """Height and width of one number or two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


VIT = Family("vit", describe, names, state, "ViTForImageClassification")
