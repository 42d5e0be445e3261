"""The encoders of Hugging Face transformers in our words: what a config.json says as flags, and where every
tensor of ours lies among theirs. Pure functions of the file's content."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from megatron.base.errors import UserError

ACTIVATIONS = {"gelu": {}, "gelu_new": {"openai_gelu": True}, "gelu_pytorch_tanh": {"openai_gelu": True}}
"""Flags of the activations that both know."""


class Origin(NamedTuple):
    """A tensor of theirs, or one of `parts` equal runs of its rows."""

    name: str
    part: int = 0
    parts: int = 1


class Foreign(NamedTuple):
    """A model of theirs: values of our flags by name, and the origin of every tensor of ours, whether or not
    a file has it: heads differ from class to class."""

    flags: dict[str, Any]
    names: dict[str, Origin]


def read_config_json(content: Mapping[str, Any]) -> Foreign:
    """What a config.json means here. UserError with everything that has no like here."""
    kind = content.get("model_type")
    if kind not in KINDS:
        raise UserError(f"model_type {kind!r} is none of {', '.join(KINDS)}, which are read here")
    describe, names = KINDS[kind]
    try:
        flags, problems = describe(content)
    except KeyError as error:
        raise UserError(f"says nothing of {error.args[0]}, which a {kind} needs") from None
    if problems:
        raise UserError(*problems)
    return Foreign(flags, names(flags["num_layers"]))


def _common(content: Mapping[str, Any], activation: str) -> tuple[dict[str, Any], list[str]]:
    flags = {
        "num_layers": content["num_hidden_layers"],
        "hidden_size": content["hidden_size"],
        "num_attention_heads": content["num_attention_heads"],
        "ffn_hidden_size": content["intermediate_size"],
        "max_position_embeddings": content["max_position_embeddings"],
        "seq_length": content["max_position_embeddings"],
        "init_method_std": content.get("initializer_range", 0.02),
    }
    found = content.get(activation, "gelu")
    if found not in ACTIVATIONS:
        return flags, [f"{activation} {found!r} is none of {', '.join(ACTIVATIONS)}, which are known here"]
    return flags | ACTIVATIONS[found], []


def _bert(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The BERT of 2018."""
    flags, problems = _common(content, "hidden_act")
    usual = {"position_embedding_type": "absolute", "type_vocab_size": 2, "is_decoder": False}
    for name, value in usual.items():
        if content.get(name, value) != value:
            problems.append(f"{name} {content[name]!r} has no like here; only {value!r} has")
    flags |= {
        "apply_residual_connection_post_layernorm": True,
        "norm_epsilon": content.get("layer_norm_eps", 1e-12),
        "hidden_dropout": content.get("hidden_dropout_prob", 0.1),
        "attention_dropout": content.get("attention_probs_dropout_prob", 0.1),
    }
    return flags, problems


def _bert_names(layers: int) -> dict[str, Origin]:
    """A layer's last norm there is the next layer's first one here."""
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
    names = {
        "word_embeddings.weight": Origin("bert.embeddings.word_embeddings.weight"),
        "position_embeddings.weight": Origin("bert.embeddings.position_embeddings.weight"),
        "type_embeddings.weight": Origin("bert.embeddings.token_type_embeddings.weight"),
        "token_head.bias": Origin("cls.predictions.bias"),
    }
    return names | {
        f"{here}.{kind}": Origin(f"{there}.{kind}")
        for here, there in places.items()
        for kind in ("weight", "bias")
    }


def _modern(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """ModernBERT (arXiv 2412.13663)."""
    flags, problems = _common(content, "hidden_activation")
    for name in ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"):
        if content.get(name):
            problems.append(f"{name} is set; only models without it have their like here")
    each, near = content.get("global_attn_every_n_layers", 3), content.get("local_attention", 128) // 2
    bases = _rotary_bases(content)
    flags |= {
        "bert_no_binary_head": True,
        "position_embedding_type": "rope",
        "rotary_base": bases["full_attention"],
        "local_rotary_base": bases["sliding_attention"],
        "geglu": True,
        "disable_bias_linear": True,
        "disable_norm_bias": True,
        "embedding_norm": True,
        "norm_epsilon": content.get("norm_eps", 1e-5),
        "window_size": f"{near},{near}",
        "window_attn_skip_freq": str([int(layer % each > 0) for layer in range(flags["num_layers"])]),
        "hidden_dropout": content.get("mlp_dropout", 0.0),
        "attention_dropout": content.get("attention_dropout", 0.0),
    }
    return flags, problems


def _rotary_bases(content: Mapping[str, Any]) -> dict[str, float]:
    """Of both kinds of layers, as newer or older files say it."""
    older = {
        "full_attention": content.get("global_rope_theta", 160000.0),
        "sliding_attention": content.get("local_rope_theta", 10000.0),
    }
    newer = content.get("rope_parameters") or {}
    return {kind: float((newer.get(kind) or {}).get("rope_theta", base)) for kind, base in older.items()}


def _modern_names(layers: int) -> dict[str, Origin]:
    names = {
        "word_embeddings.weight": Origin("model.embeddings.tok_embeddings.weight"),
        "layers.0.attention_norm.weight": Origin("model.embeddings.norm.weight"),
        "final_norm.weight": Origin("model.final_norm.weight"),
        "token_head.dense.weight": Origin("head.dense.weight"),
        "token_head.norm.weight": Origin("head.norm.weight"),
        "token_head.bias": Origin("decoder.bias"),
    }
    for layer in range(layers):
        there, here = f"model.layers.{layer}.", f"layers.{layer}."
        for number, part in enumerate(("query", "key", "value")):
            names[f"{here}attention.{part}.weight"] = Origin(f"{there}attn.Wqkv.weight", number, 3)
        for number, part in enumerate(("gate", "up")):
            names[f"{here}mlp.{part}.weight"] = Origin(f"{there}mlp.Wi.weight", number, 2)
        names[f"{here}attention.projection.weight"] = Origin(f"{there}attn.Wo.weight")
        names[f"{here}mlp.down.weight"] = Origin(f"{there}mlp.Wo.weight")
        names[f"{here}mlp_norm.weight"] = Origin(f"{there}mlp_norm.weight")
        if layer:
            names[f"{here}attention_norm.weight"] = Origin(f"{there}attn_norm.weight")
    return names


Describe = Callable[[Mapping[str, Any]], tuple[dict[str, Any], list[str]]]
KINDS: dict[str, tuple[Describe, Callable[[int], dict[str, Origin]]]] = {
    "bert": (_bert, _bert_names),
    "modernbert": (_modern, _modern_names),
}


def found_in(names: Mapping[str, Origin], there: Iterable[str]) -> dict[str, Origin]:
    """The tensors of ours that a file has, whatever class of theirs has written it: a bare encoder leaves out
    the first word of every name, and older files call a norm's weight and bias gamma and beta."""
    known = {_usual(name): name for name in there}
    found = {}
    for mine, origin in names.items():
        bare = origin.name.partition(".")[2]
        for name in (origin.name, bare):
            if name in known:
                found[mine] = origin._replace(name=known[name])
                break
    return found


def _usual(name: str) -> str:
    if name.endswith("LayerNorm.gamma"):
        return name.removesuffix("gamma") + "weight"
    return name.removesuffix("beta") + "bias" if name.endswith("LayerNorm.beta") else name
