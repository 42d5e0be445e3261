"""The BERT of 2018: post-norm layers, learned positions, and heads over masked tokens and pairs."""

from collections.abc import Mapping
from typing import Any

from megatron.base.errors import UserError
from megatron.config.config import Config
from megatron.conversion.family import Described, Family, require
from megatron.conversion.origins import Origin, origin

TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
ACTIVATIONS: dict[str, dict[str, bool]] = {"gelu": {}} | {name: {"openai_gelu": True} for name in TANH}
"""Flags of the activations that both know."""
NAMES_OF_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu"}


def number(content: Mapping[str, Any], name: str, usual: float) -> float:
    """A setting that is a number. UserError where it is none."""
    value = content.get(name, usual)
    if type(value) not in (int, float):
        raise UserError(f"{name} {value!r} must be a number")
    return float(value)


def common(content: Mapping[str, Any], activation: str) -> Described:
    """What both kinds of encoders say alike."""
    flags = {
        "num_layers": content["num_hidden_layers"],
        "hidden_size": content["hidden_size"],
        "num_attention_heads": content["num_attention_heads"],
        "ffn_hidden_size": content["intermediate_size"],
        "max_position_embeddings": content["max_position_embeddings"],
        "seq_length": content["max_position_embeddings"],
        "init_method_std": number(content, "initializer_range", 0.02),
    }
    found = content.get(activation, "gelu")
    if found not in ACTIVATIONS:
        return flags, [f"{activation} {found!r} is none of {', '.join(ACTIVATIONS)}, which are known here"]
    return flags | ACTIVATIONS[found], []


def describe(content: Mapping[str, Any]) -> Described:
    """The BERT of 2018."""
    flags, problems = common(content, "hidden_act")
    usual = {"position_embedding_type": "absolute", "type_vocab_size": 2, "is_decoder": False}
    for name, value in usual.items():
        if content.get(name, value) != value:
            problems.append(f"{name} {content[name]!r} has no like here; only {value!r} has")
    flags |= {
        "apply_residual_connection_post_layernorm": True,
        "norm_epsilon": number(content, "layer_norm_eps", 1e-12),
        "hidden_dropout": number(content, "hidden_dropout_prob", 0.1),
        "attention_dropout": number(content, "attention_probs_dropout_prob", 0.1),
    }
    return flags, problems


def names(flags: Mapping[str, Any]) -> dict[str, Origin]:
    """The origin of every tensor. A layer's last norm there is the next layer's first one here."""
    layers = flags["num_layers"]
    places = {
        "layers.0.attention_norm": "bert.embeddings.LayerNorm",
        "pair_head.pooler": "bert.pooler.dense",
        "pair_head.output": "cls.seq_relationship",
        "token_head.dense": "cls.predictions.transform.dense",
        "token_head.norm": "cls.predictions.transform.LayerNorm",
    }
    for layer in range(layers):
        there, here = f"bert.encoder.layer.{layer}.", f"layers.{layer}."
        for part in ("query", "key", "value"):
            places[f"{here}attention.{part}"] = f"{there}attention.self.{part}"
        places[f"{here}attention.projection"] = f"{there}attention.output.dense"
        places[f"{here}mlp_norm"] = f"{there}attention.output.LayerNorm"
        places[f"{here}mlp.up"] = f"{there}intermediate.dense"
        places[f"{here}mlp.down"] = f"{there}output.dense"
        behind = f"layers.{layer + 1}.attention_norm" if layer < layers - 1 else "final_norm"
        places[behind] = f"{there}output.LayerNorm"
    found = {
        "word_embeddings.weight": origin("bert.embeddings.word_embeddings.weight"),
        "position_embeddings.weight": origin("bert.embeddings.position_embeddings.weight"),
        "type_embeddings.weight": origin("bert.embeddings.token_type_embeddings.weight"),
        "token_head.bias": origin("cls.predictions.bias"),
    }
    return found | {
        f"{here}.{kind}": origin(f"{there}.{kind}")
        for here, there in places.items()
        for kind in ("weight", "bias")
    }


def state(config: Config, vocab_size: int) -> Described:
    """A configuration as a config.json."""
    model, bert = config.model, config.bert
    usual: dict[str, tuple[str, Any]] = {
        "apply_residual_connection_post_layernorm": (
            "layers without --apply-residual-connection-post-layernorm",
            True,
        ),
        "position_embedding_type": (
            "--position-embedding-type other than learned_absolute",
            "learned_absolute",
        ),
        "normalization": ("--normalization RMSNorm", "LayerNorm"),
        "gated": ("a gated MLP", False),
        "disable_bias_linear": ("--disable-bias-linear", False),
        "disable_norm_bias": ("--disable-norm-bias", False),
        "num_query_groups": ("--group-query-attention", model.num_attention_heads),
        "kv_channels": ("--kv-channels", model.hidden_size // model.num_attention_heads),
    }
    problems = require(config, usual)
    if model.activation not in NAMES_OF_ACTIVATIONS:
        problems.append(f"the activation {model.activation}")
    if config.sentences.bert_no_binary_head:
        problems.append("--bert-no-binary-head")
    if bert.window_size or bert.embedding_norm:
        problems.append("--window-size or --embedding-norm")
    return {
        **shape(config, vocab_size),
        "attention_probs_dropout_prob": model.attention_dropout,
        "hidden_act": NAMES_OF_ACTIVATIONS.get(model.activation),
        "hidden_dropout_prob": model.hidden_dropout,
        "layer_norm_eps": model.norm_epsilon,
        "type_vocab_size": 2,
    }, problems


def shape(config: Config, vocab_size: int) -> dict[str, Any]:
    """What both kinds of encoders say alike."""
    model = config.model
    return {
        "hidden_size": model.hidden_size,
        "initializer_range": model.init_method_std,
        "intermediate_size": model.ffn_hidden_size,
        "max_position_embeddings": model.max_position_embeddings,
        "num_attention_heads": model.num_attention_heads,
        "num_hidden_layers": model.num_layers,
        "tie_word_embeddings": True,
        "vocab_size": vocab_size,
    }


BERT = Family("bert", describe, names, state, "BertForPreTraining")
