"""ModernBERT (arXiv 2412.13663): rotary positions, gated MLPs, no biases, and windows in most layers."""

from collections.abc import Mapping
from typing import Any

from megatron.base.errors import UserError
from megatron.config.bert import window, window_layers
from megatron.config.config import Config
from megatron.conversion.bert import NAMES_OF_ACTIVATIONS, common, number, shape
from megatron.conversion.family import Described, Family, require
from megatron.conversion.origins import Origin, origin

FAR, NEAR = "full_attention", "sliding_attention"
USUAL_ANGLES = {"rope_type": "default", "partial_rotary_factor": 1.0}


def describe(content: Mapping[str, Any]) -> Described:
    """ModernBERT (arXiv 2412.13663)."""
    flags, problems = common(content, "hidden_activation")
    near, bases = int(number(content, "local_attention", 128)) // 2, _rotary_bases(content)
    flags |= {
        "bert_no_binary_head": True,
        "position_embedding_type": "rope",
        "rotary_base": bases["full_attention"],
        "local_rotary_base": bases["sliding_attention"],
        "geglu": True,
        "disable_bias_linear": True,
        "disable_norm_bias": True,
        "embedding_norm": True,
        "norm_epsilon": number(content, "norm_eps", 1e-5),
        "window_size": f"{near},{near}",
        "window_attn_skip_freq": str(_near_layers(content)),
        "hidden_dropout": number(content, "mlp_dropout", 0.0),
        "attention_dropout": number(content, "attention_dropout", 0.0),
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
        FAR: number(content, "global_rope_theta", 160000.0),
        NEAR: number(content, "local_rope_theta", 10000.0),
    }
    newer = content.get("rope_parameters") or {}
    return {kind: number(newer.get(kind) or {}, "rope_theta", base) for kind, base in older.items()}


def names(flags: Mapping[str, Any]) -> dict[str, Origin]:
    """The origin of every tensor."""
    found = {
        "word_embeddings.weight": origin("model.embeddings.tok_embeddings.weight"),
        "layers.0.attention_norm.weight": origin("model.embeddings.norm.weight"),
        "final_norm.weight": origin("model.final_norm.weight"),
        "token_head.dense.weight": origin("head.dense.weight"),
        "token_head.norm.weight": origin("head.norm.weight"),
        "token_head.bias": origin("decoder.bias"),
    }
    for layer in range(flags["num_layers"]):
        there, here = f"model.layers.{layer}.", f"layers.{layer}."
        for place, part in enumerate(("query", "key", "value")):
            cut = {"of": 3, "start": place, "stop": place + 1}
            found[f"{here}attention.{part}.weight"] = origin(f"{there}attn.Wqkv.weight", **cut)
        for place, part in enumerate(("gate", "up")):
            cut = {"of": 2, "start": place, "stop": place + 1}
            found[f"{here}mlp.{part}.weight"] = origin(f"{there}mlp.Wi.weight", **cut)
        found[f"{here}attention.projection.weight"] = origin(f"{there}attn.Wo.weight")
        found[f"{here}mlp.down.weight"] = origin(f"{there}mlp.Wo.weight")
        found[f"{here}mlp_norm.weight"] = origin(f"{there}mlp_norm.weight")
        if layer:
            found[f"{here}attention_norm.weight"] = origin(f"{there}attn_norm.weight")
    return found


def state(config: Config, vocab_size: int) -> Described:
    """A configuration as a config.json."""
    model, bert = config.model, config.bert
    usual: dict[str, tuple[str, Any]] = {
        "apply_residual_connection_post_layernorm": ("--apply-residual-connection-post-layernorm", False),
        "position_embedding_type": ("--position-embedding-type other than rope", "rope"),
        "rotary_percent": ("--rotary-percent", 1.0),
        "rotary_seq_len_interpolation_factor": ("--rotary-seq-len-interpolation-factor", 1.0),
        "use_rope_scaling": ("--use-rope-scaling", False),
        "normalization": ("--normalization RMSNorm", "LayerNorm"),
        "geglu": ("an MLP without --geglu", True),
        "disable_bias_linear": ("linear layers without --disable-bias-linear", True),
        "disable_norm_bias": ("norms without --disable-norm-bias", True),
        "add_qkv_bias": ("--add-qkv-bias", False),
        "num_query_groups": ("--group-query-attention", model.num_attention_heads),
        "kv_channels": ("--kv-channels", model.hidden_size // model.num_attention_heads),
    }
    problems = require(config, usual)
    if not config.sentences.bert_no_binary_head:
        problems.append("a head over pairs")
    if not bert.embedding_norm:
        problems.append("a model without --embedding-norm")
    sides, near = window(bert) or (0, 0), window_layers(bert, model.num_layers)
    if not near or sides[0] != sides[1]:
        problems.append("layers without a --window-size of two equal sides")
    kinds = [NEAR if layer in near else FAR for layer in range(model.num_layers)]
    angles = {FAR: model.rotary_base, NEAR: bert.local_rotary_base}
    return {
        **shape(config, vocab_size),
        "attention_bias": False,
        "attention_dropout": model.attention_dropout,
        "decoder_bias": True,
        "global_attn_every_n_layers": _every(kinds),
        "hidden_activation": NAMES_OF_ACTIVATIONS.get(model.activation),
        "classifier_activation": NAMES_OF_ACTIVATIONS.get(model.activation),
        "layer_types": kinds,
        "local_attention": 2 * sides[0],
        "mlp_bias": False,
        "mlp_dropout": model.hidden_dropout,
        "embedding_dropout": model.hidden_dropout,
        "norm_bias": False,
        "norm_eps": model.norm_epsilon,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": base} for kind, base in angles.items()
        },
    }, problems


def _every(kinds: list[str]) -> int:
    """Which layers see all, as older versions read it."""
    far = [layer for layer, kind in enumerate(kinds) if kind == FAR]
    return far[1] if len(far) > 1 else len(kinds)


MODERNBERT = Family("bert", describe, names, state, "ModernBertForMaskedLM")
