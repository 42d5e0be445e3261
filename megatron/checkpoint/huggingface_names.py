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
    a file has it: heads differ from class to class. `classifies`: it tells classes, or a value, of texts."""

    flags: dict[str, Any]
    names: dict[str, Origin]
    classifies: bool = False


CLASSIFIER = {f"pair_head.output.{kind}": Origin(f"classifier.{kind}") for kind in ("weight", "bias")}
"""The last matrix of a model that does."""
WHOLE = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "vocab_size",
)
FAR, NEAR = "full_attention", "sliding_attention"
USUAL_ANGLES = {"rope_type": "default", "partial_rotary_factor": 1.0}


def read_config_json(content: Mapping[str, Any]) -> Foreign:
    """What a config.json means here. UserError with everything that has no like here."""
    kind = content.get("model_type")
    if kind not in KINDS:
        raise UserError(f"model_type {kind!r} is none of {', '.join(KINDS)}, which are read here")
    describe, names = KINDS[kind]
    if missing := [name for name in WHOLE if name not in content]:
        raise UserError(f"says nothing of {missing[0]}, which a {kind} needs")
    if wrong := [name for name in WHOLE if type(content[name]) is not int or content[name] < 1]:
        raise UserError(*(f"{name} {content[name]!r} must be a whole number above 0" for name in wrong))
    flags, problems = describe(content)
    if problems:
        raise UserError(*problems)
    classifies = "ForSequenceClassification" in str(content.get("architectures"))
    return Foreign(flags, names(flags["num_layers"]) | (CLASSIFIER if classifies else {}), classifies)


def _number(content: Mapping[str, Any], name: str, usual: float) -> float:
    value = content.get(name, usual)
    if type(value) not in (int, float):
        raise UserError(f"{name} {value!r} must be a number")
    return float(value)


def _common(content: Mapping[str, Any], activation: str) -> tuple[dict[str, Any], list[str]]:
    flags = {
        "num_layers": content["num_hidden_layers"],
        "hidden_size": content["hidden_size"],
        "num_attention_heads": content["num_attention_heads"],
        "ffn_hidden_size": content["intermediate_size"],
        "max_position_embeddings": content["max_position_embeddings"],
        "seq_length": content["max_position_embeddings"],
        "init_method_std": _number(content, "initializer_range", 0.02),
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
        "norm_epsilon": _number(content, "layer_norm_eps", 1e-12),
        "hidden_dropout": _number(content, "hidden_dropout_prob", 0.1),
        "attention_dropout": _number(content, "attention_probs_dropout_prob", 0.1),
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
    near, bases = int(_number(content, "local_attention", 128)) // 2, _rotary_bases(content)
    flags |= {
        "bert_no_binary_head": True,
        "position_embedding_type": "rope",
        "rotary_base": bases["full_attention"],
        "local_rotary_base": bases["sliding_attention"],
        "geglu": True,
        "disable_bias_linear": True,
        "disable_norm_bias": True,
        "embedding_norm": True,
        "norm_epsilon": _number(content, "norm_eps", 1e-5),
        "window_size": f"{near},{near}",
        "window_attn_skip_freq": str(_near_layers(content)),
        "hidden_dropout": _number(content, "mlp_dropout", 0.0),
        "attention_dropout": _number(content, "attention_dropout", 0.0),
        "classifier_head": content.get("classifier_pooling", "cls"),
    }
    return flags, [*problems, *_unlike(content)]


def _unlike(content: Mapping[str, Any]) -> list[str]:
    """What a ModernBERT says that no flag here says."""
    names = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias", "rope_scaling")
    found = [
        f"{name} is set; only models without it have their like here" for name in names if content.get(name)
    ]
    inside, head = (content.get(f"{name}_activation", "gelu") for name in ("hidden", "classifier"))
    if head != inside:
        found.append(f"classifier_activation {head!r} and hidden_activation {inside!r} must be the same")
    if (pooling := content.get("classifier_pooling", "cls")) not in ("cls", "mean"):
        found.append(f"classifier_pooling {pooling!r} is none of cls, mean")
    for kind, angles in (content.get("rope_parameters") or {}).items():
        for name, value in (angles or {}).items():
            if name != "rope_theta" and value != USUAL_ANGLES.get(name):
                found.append(f"{name} {value!r} of {kind} has no like here")
    return found


def _near_layers(content: Mapping[str, Any]) -> list[int]:
    """1 for every layer with a window, as newer or older files say it."""
    layers, each = range(content["num_hidden_layers"]), content.get("global_attn_every_n_layers", 3)
    kinds = content.get("layer_types") or [NEAR if layer % each else FAR for layer in layers]
    if len(kinds) != len(layers) or not {*kinds} <= {FAR, NEAR}:
        raise UserError(f"layer_types {kinds} must be {FAR} or {NEAR} for each of {len(layers)} layers")
    return [int(kind == NEAR) for kind in kinds]


def _rotary_bases(content: Mapping[str, Any]) -> dict[str, float]:
    """Of both kinds of layers, as newer or older files say it."""
    older = {
        FAR: _number(content, "global_rope_theta", 160000.0),
        NEAR: _number(content, "local_rope_theta", 10000.0),
    }
    newer = content.get("rope_parameters") or {}
    return {kind: _number(newer.get(kind) or {}, "rope_theta", base) for kind, base in older.items()}


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
