"""GPT-2: learned positions, and linear layers whose matrices are [inputs, outputs], query, key and value in
one."""

from collections.abc import Mapping
from typing import Any

from megatron.config.config import Config
from megatron.conversion.family import Described, Family, expect, require
from megatron.conversion.origins import Origin, origin

ACTIVATIONS = {
    "gelu_new": {"openai_gelu": True},
    "gelu_pytorch_tanh": {"openai_gelu": True},
    "gelu_fast": {"openai_gelu": True},
    "gelu": {},
    "relu2": {"squared_relu": True},
}
"""Flags of the activations that both know."""
NAMES_OF_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "squared_relu": "relu2"}


def describe(content: Mapping[str, Any]) -> Described:
    """A config.json as flags."""
    problems = expect(
        content,
        {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    )
    activation = content.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        problems.append(f"activation_function {activation!r} is none of {', '.join(ACTIVATIONS)}")
    flags = {
        "num_layers": content["n_layer"],
        "hidden_size": content["n_embd"],
        "num_attention_heads": content["n_head"],
        "ffn_hidden_size": content.get("n_inner") or 4 * content["n_embd"],
        "max_position_embeddings": content["n_positions"],
        "seq_length": content["n_positions"],
        "norm_epsilon": content.get("layer_norm_epsilon", 1e-5),
        "init_method_std": content.get("initializer_range", 0.02),
        "hidden_dropout": content.get("resid_pdrop", 0.1),
        "attention_dropout": content.get("attn_pdrop", 0.1),
        "untie_embeddings_and_output_weights": not content.get("tie_word_embeddings", True),
    }
    return flags | ACTIVATIONS.get(activation, {}), problems


def names(flags: Mapping[str, Any]) -> dict[str, Origin]:
    """The origin of every tensor."""
    found = {
        "word_embeddings.weight": origin("transformer.wte.weight"),
        "position_embeddings.weight": origin("transformer.wpe.weight"),
    }
    for kind in ("weight", "bias"):
        found[f"final_norm.{kind}"] = origin(f"transformer.ln_f.{kind}")
        for layer in range(flags["num_layers"]):
            found |= _layer(layer, kind)
    if flags.get("untie_embeddings_and_output_weights"):
        found["output_layer.weight"] = origin("lm_head.weight")
    return found


def _layer(layer: int, kind: str) -> dict[str, Origin]:
    here, there, matrix = f"layers.{layer}.", f"transformer.h.{layer}.", kind == "weight"
    found = {
        f"{here}attention_norm.{kind}": origin(f"{there}ln_1.{kind}"),
        f"{here}mlp_norm.{kind}": origin(f"{there}ln_2.{kind}"),
        f"{here}attention.projection.{kind}": origin(f"{there}attn.c_proj.{kind}", transposed=matrix),
        f"{here}mlp.up.{kind}": origin(f"{there}mlp.c_fc.{kind}", transposed=matrix),
        f"{here}mlp.down.{kind}": origin(f"{there}mlp.c_proj.{kind}", transposed=matrix),
    }
    for place, part in enumerate(("query", "key", "value")):
        cut = {"of": 3, "start": place, "stop": place + 1, "transposed": matrix}
        found[f"{here}attention.{part}.{kind}"] = origin(f"{there}attn.c_attn.{kind}", **cut)
    return found


def state(config: Config, vocab_size: int) -> Described:
    """A configuration as a config.json."""
    model = config.model
    problems = require(
        config,
        {
            "position_embedding_type": (
                "--position-embedding-type other than learned_absolute",
                "learned_absolute",
            ),
            "normalization": ("--normalization RMSNorm", "LayerNorm"),
            "disable_norm_bias": ("--disable-norm-bias", False),
            "gated": ("a gated MLP", False),
            "disable_bias_linear": ("--disable-bias-linear", False),
            "num_query_groups": ("--group-query-attention", model.num_attention_heads),
            "kv_channels": ("--kv-channels", model.hidden_size // model.num_attention_heads),
            "apply_residual_connection_post_layernorm": (
                "--apply-residual-connection-post-layernorm",
                False,
            ),
        },
    )
    if config.experts.num_experts > 1:
        problems.append("--num-experts")
    content = {
        "activation_function": NAMES_OF_ACTIVATIONS.get(model.activation, model.activation),
        "attn_pdrop": model.attention_dropout,
        "embd_pdrop": model.hidden_dropout,
        "initializer_range": model.init_method_std,
        "layer_norm_epsilon": model.norm_epsilon,
        "n_embd": model.hidden_size,
        "n_head": model.num_attention_heads,
        "n_inner": model.ffn_hidden_size,
        "n_layer": model.num_layers,
        "n_positions": model.max_position_embeddings,
        "resid_pdrop": model.hidden_dropout,
        "tie_word_embeddings": not model.untie_embeddings_and_output_weights,
        "vocab_size": vocab_size,
    }
    return content, problems


GPT2 = Family("gpt", describe, names, state, "GPT2LMHeadModel")
