"""The flags of the model's shape, what follows from them, and the rules between them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from megatron.config.data import DataConfig
from megatron.config.flags import flag, spelling

ANGLES = (
    *("rotary_base", "rotary_percent", "rotary_seq_len_interpolation_factor"),
    *("use_rope_scaling", "rope_scaling_factor"),
)
"""Flags of rotary angles."""
EXPLICIT = ("unfused", "local")
"""Backends of attention that write its weights out."""


def explicit_attention(attention_backend: str, attention_dropout: float) -> bool:
    """Whether attention's weights are written out in a training step: where they are dropped by key, too."""
    by_key = attention_backend == "auto" and attention_dropout > 0
    return by_key or attention_backend in EXPLICIT


@dataclass(frozen=True)
class ModelConfig:
    num_layers: int = flag(help="transformer layers", at_least=1)
    hidden_size: int = flag(help="width of the residual stream", at_least=1)
    num_attention_heads: int = flag(help="attention heads of a layer", at_least=1)
    ffn_hidden_size: int = flag(
        None,
        "inner width of the MLP; 4·hidden, or of a gated one 8/3·hidden rounded down to 64",
        at_least=1,
        follows=lambda model: (
            max(model.hidden_size * 8 // 3 // 64, 1) * 64
            if model.swiglu or model.geglu
            else 4 * model.hidden_size
        ),
    )
    kv_channels: int = flag(
        None,
        "width of one head; hidden size / heads",
        at_least=1,
        follows=lambda model: model.hidden_size // model.num_attention_heads,
    )
    group_query_attention: bool = flag(False, "heads share keys and values in groups", resume="meaning")
    num_query_groups: int = flag(
        1,
        "groups of --group-query-attention",
        at_least=1,
        follows=lambda model: 1 if model.group_query_attention else model.num_attention_heads,
    )
    max_position_embeddings: int = flag(
        None,
        "positions that the model knows; the sequence length",
        follows=lambda data: data.seq_length,
        resume="meaning",
    )
    position_embedding_type: str = flag(
        "learned_absolute",
        "how a token knows its place",
        choices=("learned_absolute", "rope", "none"),
        follows=lambda model: "rope" if model.use_rotary_position_embeddings else "learned_absolute",
    )
    use_rotary_position_embeddings: bool = flag(
        False, "the older name of --position-embedding-type rope", resume="meaning"
    )
    rotary_base: float = flag(10000.0, "base of the rotary angles", at_least=0, resume="meaning")
    rotary_percent: float = flag(
        1.0, "share of a head's channels that rotate", at_least=0, at_most=1, resume="meaning"
    )
    rotary_seq_len_interpolation_factor: float = flag(
        1.0, "rotary positions are divided by this, for texts longer than those of earlier training", above=0
    )
    use_rope_scaling: bool = flag(False, "rotary angles of Llama 3.1, stretched to longer texts")
    rope_scaling_factor: float = flag(8.0, "factor of --use-rope-scaling", above=0, resume="meaning")
    normalization: str = flag(
        "LayerNorm", "normalisation before attention and MLP", choices=("LayerNorm", "RMSNorm")
    )
    apply_residual_connection_post_layernorm: bool = flag(
        False, "residuals are taken behind the norms, as in the BERT of arXiv 1810.04805"
    )
    norm_epsilon: float = flag(1e-5, "added to the variance in normalisation", at_least=0)
    swiglu: bool = flag(False, "gated MLP with SiLU instead of GELU")
    geglu: bool = flag(False, "gated MLP with GELU")
    openai_gelu: bool = flag(
        False, "GELU by its tanh approximation, as Megatron's fused kernel computes it by default"
    )
    squared_relu: bool = flag(False, "the square of ReLU instead of GELU")
    disable_bias_linear: bool = flag(False, "no biases in the linear layers")
    disable_norm_bias: bool = flag(False, "no biases in LayerNorm")
    add_qkv_bias: bool = flag(
        False, "biases for queries, keys and values in spite of --disable-bias-linear", resume="meaning"
    )
    untie_embeddings_and_output_weights: bool = flag(
        False, "an output matrix of its own instead of the embedding"
    )
    make_vocab_size_divisible_by: int = flag(
        128, "the vocabulary is padded to a multiple of this; padded logits never count", at_least=1
    )
    hidden_dropout: float = flag(0.1, "dropout after the embedding, attention and MLP", at_least=0, below=1)
    attention_dropout: float = flag(
        0.1,
        "dropout of attention probabilities; not 0 takes the explicit attention, which is slower",
        at_least=0,
        below=1,
    )
    init_method_std: float = flag(0.02, "standard deviation of the initial weights", at_least=0)
    attention_backend: str = flag(
        "auto",
        "auto: fused, or explicit where attention dropout is not 0",
        choices=("auto", "flash", "fused", "unfused", "local"),
        resume="free",
    )

    @property
    def activation(self) -> str:
        """The MLP's activation, as mlp.py names it."""
        if self.squared_relu:
            return "squared_relu"
        return "silu" if self.swiglu else "gelu_tanh" if self.openai_gelu else "gelu"

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two factors."""
        return self.swiglu or self.geglu


def _heads(model: ModelConfig) -> list[str]:
    hidden, heads = model.hidden_size, model.num_attention_heads
    if hidden % heads == 0 or model.kv_channels != hidden // heads:
        return []
    if hidden < heads:
        return [f"--hidden-size {hidden} is below --num-attention-heads {heads}; give --kv-channels"]
    return [
        f"--hidden-size {hidden} is no multiple of --num-attention-heads {heads}; change one of them or "
        "give --kv-channels"
    ]


def _query_groups(model: ModelConfig) -> list[str]:
    groups, heads = model.num_query_groups, model.num_attention_heads
    if groups != heads and not model.group_query_attention:
        return [f"--num-query-groups {groups} needs --group-query-attention; give it, or leave the other out"]
    if heads % groups:
        return [f"--num-query-groups {groups} does not divide --num-attention-heads {heads}; take a divisor"]
    return []


def _rotary(model: ModelConfig) -> list[str]:
    rotating = int(model.kv_channels * model.rotary_percent)
    if model.position_embedding_type != "rope" or (rotating and rotating % 2 == 0) or not model.kv_channels:
        return []
    return [
        f"--position-embedding-type rope turns channels in pairs, and --kv-channels {model.kv_channels} with "
        f"--rotary-percent {model.rotary_percent} leaves {rotating}; make that even, and at least 2"
    ]


def without_idle_angles(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a model that is there without those of angles that turn nothing in it: nobody gives them
    now, so that no rule can ask to leave them out."""
    turns = flags.get("position_embedding_type") == "rope" or flags.get("use_rotary_position_embeddings")
    idle = () if turns and flags.get("use_rope_scaling") else ("rope_scaling_factor",) if turns else ANGLES
    return {name: value for name, value in flags.items() if name not in idle}


def _idle_angles(model: ModelConfig) -> list[str]:
    """Flags of rotary angles where nothing rotates, and the factor of a stretch that is not asked for."""
    usual = {one.name: one.default for one in fields(ModelConfig)}
    given = [name for name in ANGLES if getattr(model, name) != usual[name]]
    if model.position_embedding_type != "rope":
        return [
            f"{spelling(name)} needs --position-embedding-type rope; give that, or leave {spelling(name)} out"
            for name in given
        ]
    if "rope_scaling_factor" in given and not model.use_rope_scaling:
        return [
            f"--rope-scaling-factor {model.rope_scaling_factor} needs --use-rope-scaling; give it, or leave "
            "this out"
        ]
    return []


def _one_kind_of_positions(model: ModelConfig) -> list[str]:
    if model.use_rotary_position_embeddings and model.position_embedding_type != "rope":
        return [
            f"--use-rotary-position-embeddings and --position-embedding-type {model.position_embedding_type} "
            "contradict each other; give only one"
        ]
    return []


def _positions(model: ModelConfig, data: DataConfig) -> list[str]:
    if model.max_position_embeddings < data.seq_length:
        return [
            f"--max-position-embeddings {model.max_position_embeddings} is below --seq-length "
            f"{data.seq_length}; raise the one or lower the other"
        ]
    return []


def _one_activation(model: ModelConfig) -> list[str]:
    named = {
        "swiglu": model.swiglu,
        "geglu": model.geglu,
        "openai-gelu": model.openai_gelu,
        "squared-relu": model.squared_relu,
    }
    given = [f"--{name}" for name, chosen in named.items() if chosen]
    if len(given) < 2:
        return []
    return [f"{' and '.join(given)} are {'two' if len(given) == 2 else 'several'} activations; give only one"]


RULES = (_heads, _query_groups, _rotary, _idle_angles, _one_kind_of_positions, _positions, _one_activation)
