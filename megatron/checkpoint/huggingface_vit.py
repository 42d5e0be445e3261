"""Vision transformers of Hugging Face transformers in our words, beside the encoders of
`huggingface_names.py`: what a config.json of the model_type vit says as flags, and where every tensor of ours
lies. Pure functions.

A tensor of theirs has the same numbers in the same order and may have another shape: the kernel [hidden,
channels, patch, patch], and [CLS] and positions with a dimension of one before them.
"""

from collections.abc import Mapping
from typing import Any

from megatron.checkpoint.huggingface_names import ACTIVATIONS, Origin

HEAD = ("head.weight", "head.bias")


def describe(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
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
    return flags | ACTIVATIONS.get(activation, {}), problems


def classes_in(content: Mapping[str, Any]) -> int:
    """How many classes its head tells apart; transformers has two where nothing says it."""
    labels = content.get("id2label")
    return len(labels) if labels else int(content.get("num_labels", 2))


def names_of(layers: int, qkv_bias: bool = True) -> dict[str, Origin]:
    """The origin of every tensor of ours in ViTForImageClassification."""
    embeddings = "vit.embeddings"
    places = {
        "patches.projection": f"{embeddings}.patch_embeddings.projection",
        "final_norm": "vit.layernorm",
        "head": "classifier",
    }
    names = {
        "patches.class_token": Origin(f"{embeddings}.cls_token"),
        "position_embeddings.weight": Origin(f"{embeddings}.position_embeddings"),
    }
    for layer in range(layers):
        there, here = f"vit.encoder.layer.{layer}.", f"layers.{layer}."
        for part in ("query", "key", "value"):
            place = f"{there}attention.attention.{part}"
            names[f"{here}attention.{part}.weight"] = Origin(f"{place}.weight")
            if qkv_bias:
                names[f"{here}attention.{part}.bias"] = Origin(f"{place}.bias")
        places[f"{here}attention.projection"] = f"{there}attention.output.dense"
        places[f"{here}attention_norm"] = f"{there}layernorm_before"
        places[f"{here}mlp_norm"] = f"{there}layernorm_after"
        places[f"{here}mlp.up"] = f"{there}intermediate.dense"
        places[f"{here}mlp.down"] = f"{there}output.dense"
    for here, there in places.items():
        for kind in ("weight", "bias"):
            names[f"{here}.{kind}"] = Origin(f"{there}.{kind}")
    return names


def _sides(value: Any) -> tuple[int, int]:
    """Height and width of one number or two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
