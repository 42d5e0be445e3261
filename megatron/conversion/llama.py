"""LLaMA and its like: rotary positions, RMSNorm, a gated MLP, and no biases, but for those of Qwen2's
queries, keys and values. Mixtral's MLPs are mixtures of experts."""

from collections.abc import Callable, Mapping
from typing import Any

from megatron.config.config import Config
from megatron.config.experts import expert_layers
from megatron.conversion.family import Described, Family, expect, require
from megatron.conversion.origins import Origin, origin
from megatron.model.rotary import LLAMA3_FAST, LLAMA3_POSITIONS, LLAMA3_SLOW

NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "projection": "o_proj"}
MLP = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
EXPERTS = {"gate": "w1", "up": "w3", "down": "w2"}
LLAMA3 = {
    "low_freq_factor": LLAMA3_SLOW,
    "high_freq_factor": LLAMA3_FAST,
    "original_max_position_embeddings": LLAMA3_POSITIONS,
}


def describe(content: Mapping[str, Any]) -> Described:
    """What all of them have in common as flags."""
    problems = expect(
        content,
        {"hidden_act": "silu", "mlp_bias": False, "attention_bias": False, "partial_rotary_factor": 1.0},
    )
    positions, window = content["max_position_embeddings"], content.get("sliding_window")
    if window is not None and content.get("use_sliding_window", True) and window < positions:
        problems.append(
            f"sliding_window {window} has no like here, and is none in texts that are no longer; for "
            f'such texts write "max_position_embeddings": {window} into the file'
        )
    heads, groups = content["num_attention_heads"], content.get("num_key_value_heads")
    flags = {
        "num_layers": content["num_hidden_layers"],
        "hidden_size": content["hidden_size"],
        "num_attention_heads": heads,
        "kv_channels": content.get("head_dim") or content["hidden_size"] // heads,
        "group_query_attention": groups not in (None, heads),
        "num_query_groups": groups or heads,
        "ffn_hidden_size": content["intermediate_size"],
        "max_position_embeddings": positions,
        "seq_length": positions,
        "position_embedding_type": "rope",
        "normalization": "RMSNorm",
        "norm_epsilon": content.get("rms_norm_eps", 1e-6),
        "swiglu": True,
        "disable_bias_linear": True,
        "init_method_std": content.get("initializer_range", 0.02),
        "hidden_dropout": 0.0,
        "attention_dropout": content.get("attention_dropout", 0.0),
        "untie_embeddings_and_output_weights": not content.get("tie_word_embeddings", False),
    }
    rotary, more = _rotary(content)
    return flags | rotary, problems + more


def _rotary(content: Mapping[str, Any]) -> Described:
    """Base and stretch of the angles, as newer or older files say them."""
    found = dict(content.get("rope_parameters") or content.get("rope_scaling") or {})
    base = found.get("rope_theta", content.get("rope_theta", 10000.0))
    kind = found.get("rope_type", found.get("type", "default"))
    flags: dict[str, Any] = {"rotary_base": float(base)}
    if kind == "default":
        return flags, []
    if kind == "linear":
        return flags | {"rotary_seq_len_interpolation_factor": float(found["factor"])}, []
    if kind == "llama3":
        problems = [f"rope_scaling: {words}" for words in expect(found, LLAMA3)]
        return flags | {"use_rope_scaling": True, "rope_scaling_factor": float(found["factor"])}, problems
    return flags, [
        f"rope_scaling of the type {kind!r} has no like here; only default, linear and llama3 have"
    ]


def where_silent(
    describe: Callable[[Mapping[str, Any]], Described], usual: Mapping[str, Any]
) -> Callable[[Mapping[str, Any]], Described]:
    """The same, where what a config.json does not say is what its class in transformers takes then."""
    return lambda content: describe({**usual, **content})


def describe_qwen2(content: Mapping[str, Any]) -> Described:
    """The same with biases."""
    flags, problems = describe(content)
    return flags | {"add_qkv_bias": True}, problems


def describe_mixtral(content: Mapping[str, Any]) -> Described:
    """The weights of a token's experts are those of a softmax over them alone."""
    flags, problems = describe(content)
    balance = content.get("router_aux_loss_coef", 0.001)
    return flags | {
        "num_experts": content["num_local_experts"],
        "moe_router_topk": content.get("num_experts_per_tok", 2),
        "moe_ffn_hidden_size": content["intermediate_size"],
        "moe_router_load_balancing_type": "aux_loss" if balance else "none",
        "moe_aux_loss_coeff": balance,
        "moe_input_jitter_eps": content.get("router_jitter_noise") or None,
    }, problems


def names(flags: Mapping[str, Any]) -> dict[str, Origin]:
    """The origin of every tensor."""
    found = {
        "word_embeddings.weight": origin("model.embed_tokens.weight"),
        "final_norm.weight": origin("model.norm.weight"),
    }
    if flags["untie_embeddings_and_output_weights"]:
        found["output_layer.weight"] = origin("lm_head.weight")
    experts = flags.get("num_experts", 1)
    for layer in range(flags["num_layers"]):
        here, there = f"layers.{layer}.", f"model.layers.{layer}."
        for mine, theirs in NORMS.items():
            found[f"{here}{mine}.weight"] = origin(f"{there}{theirs}.weight")
        for mine, theirs in ATTENTION.items():
            found[f"{here}attention.{mine}.weight"] = origin(f"{there}self_attn.{theirs}.weight")
            if flags.get("add_qkv_bias") and mine != "projection":
                found[f"{here}attention.{mine}.bias"] = origin(f"{there}self_attn.{theirs}.bias")
        found |= _experts(here, there, experts) if experts > 1 else _mlp(here, there)
    return found


def _mlp(here: str, there: str) -> dict[str, Origin]:
    return {f"{here}mlp.{mine}.weight": origin(f"{there}mlp.{hers}.weight") for mine, hers in MLP.items()}


def _experts(here: str, there: str, count: int) -> dict[str, Origin]:
    block = f"{there}block_sparse_moe."
    found = {f"{here}mlp.router.weight": origin(f"{block}gate.weight")}
    for mine, theirs in EXPERTS.items():
        each = tuple(f"{block}experts.{number}.{theirs}.weight" for number in range(count))
        found[f"{here}mlp.experts.{mine}"] = Origin(each, stacked=True)
    return found


def state(config: Config, vocab_size: int) -> Described:
    """What all of them have in common as a config.json."""
    model = config.model
    problems = require(
        config,
        {
            "position_embedding_type": ("--position-embedding-type other than rope", "rope"),
            "rotary_percent": ("--rotary-percent", 1.0),
            "normalization": ("--normalization LayerNorm", "RMSNorm"),
            "swiglu": ("an MLP without --swiglu", True),
            "disable_bias_linear": ("linear layers without --disable-bias-linear", True),
            "apply_residual_connection_post_layernorm": (
                "--apply-residual-connection-post-layernorm",
                False,
            ),
        },
    )
    if model.use_rope_scaling and model.rotary_seq_len_interpolation_factor != 1:
        problems.append("--use-rope-scaling beside --rotary-seq-len-interpolation-factor")
    content = {
        "attention_dropout": model.attention_dropout,
        "head_dim": model.kv_channels,
        "hidden_act": "silu",
        "hidden_size": model.hidden_size,
        "initializer_range": model.init_method_std,
        "intermediate_size": model.ffn_hidden_size,
        "max_position_embeddings": model.max_position_embeddings,
        "num_attention_heads": model.num_attention_heads,
        "num_hidden_layers": model.num_layers,
        "num_key_value_heads": model.num_query_groups,
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": not model.untie_embeddings_and_output_weights,
        "vocab_size": vocab_size,
    }
    return content | _rotary_content(config), problems


def _rotary_content(config: Config) -> dict[str, Any]:
    """As newer and as older versions read it."""
    model, scaling = config.model, None
    if model.use_rope_scaling:
        scaling = {"rope_type": "llama3", "factor": model.rope_scaling_factor, **LLAMA3}
    elif model.rotary_seq_len_interpolation_factor != 1:
        scaling = {"rope_type": "linear", "factor": model.rotary_seq_len_interpolation_factor}
    newer = (scaling or {"rope_type": "default"}) | {"rope_theta": model.rotary_base}
    return {"rope_theta": model.rotary_base, "rope_scaling": scaling, "rope_parameters": newer}


def _dense(problems: list[str], config: Config, qkv_bias: bool) -> list[str]:
    if config.experts.num_experts > 1:
        problems = [*problems, "--num-experts"]
    if config.model.add_qkv_bias != qkv_bias:
        problems = [*problems, "--add-qkv-bias" if config.model.add_qkv_bias else "no --add-qkv-bias"]
    return problems


def state_llama(config: Config, vocab_size: int) -> Described:
    """A configuration as a config.json of LLaMA."""
    content, problems = state(config, vocab_size)
    return content | {"attention_bias": False, "mlp_bias": False}, _dense(problems, config, False)


def state_qwen2(config: Config, vocab_size: int) -> Described:
    """The same of Qwen2, whose heads are as wide as the hidden states have room for."""
    content, problems = state(config, vocab_size)
    model = config.model
    if model.kv_channels != model.hidden_size // model.num_attention_heads:
        problems.append("--kv-channels")
    return content | {"use_sliding_window": False}, _dense(problems, config, True)


def state_mixtral(config: Config, vocab_size: int) -> Described:
    """The same of Mixtral, all of whose layers have experts."""
    content, problems = state(config, vocab_size)
    flags = config.experts
    usual: dict[str, tuple[Callable[[Any], bool], str]] = {
        "moe_router_score_function": (lambda value: value == "softmax", "scores that are no softmax"),
        "moe_router_pre_softmax": (lambda value: not value, "--moe-router-pre-softmax"),
        "moe_router_topk_scaling_factor": (lambda value: value in (None, 1), "a factor of experts' weights"),
        "moe_router_num_groups": (lambda value: value in (None, 1), "--moe-router-num-groups"),
        "moe_shared_expert_intermediate_size": (lambda value: not value, "a shared expert"),
        "moe_router_enable_expert_bias": (lambda value: not value, "--moe-router-enable-expert-bias"),
        "moe_router_load_balancing_type": (lambda value: value != "sinkhorn", "sinkhorn"),
    }
    problems += [words for name, (fits, words) in usual.items() if not fits(getattr(flags, name))]
    if len(expert_layers(flags, config.model.num_layers)) != config.model.num_layers:
        problems.append("layers without experts")
    return content | {
        "intermediate_size": flags.moe_ffn_hidden_size or config.model.ffn_hidden_size,
        "num_experts_per_tok": flags.moe_router_topk,
        "num_local_experts": flags.num_experts,
        "router_aux_loss_coef": flags.moe_aux_loss_coeff,
        "router_jitter_noise": flags.moe_input_jitter_eps or 0.0,
        "sliding_window": None,
    }, problems + (["--add-qkv-bias"] if config.model.add_qkv_bias else [])


LLAMA_TAKES = {"max_position_embeddings": 2048}
MISTRAL_TAKES = {"num_key_value_heads": 8, "sliding_window": 4096}
QWEN2_TAKES = {"num_key_value_heads": 32, "use_sliding_window": False}
MIXTRAL_TAKES = {"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6}
"""What their classes take where a file does not say it, and others take something else."""

LLAMA = Family("gpt", where_silent(describe, LLAMA_TAKES), names, state_llama, "LlamaForCausalLM")
MISTRAL = Family("gpt", where_silent(describe, MISTRAL_TAKES), names, None, "MistralForCausalLM")
QWEN2 = Family("gpt", where_silent(describe_qwen2, QWEN2_TAKES), names, state_qwen2, "Qwen2ForCausalLM")
MIXTRAL = Family(
    "gpt", where_silent(describe_mixtral, MIXTRAL_TAKES), names, state_mixtral, "MixtralForCausalLM"
)
