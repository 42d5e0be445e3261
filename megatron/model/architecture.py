"""The shape of a transformer, as plain values."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Mixture:
    """The experts of the layers `layers`. `inner`, `shared`: inner widths of an expert, and of the one that
    computes all tokens (0: there is none); `top`: experts of a token; `softmax`: scores are that, over all
    experts where `before`, over the chosen ones else, or sigmoids; `factor`: of their weights; `groups`,
    `top_groups`: of experts; `precision`: of a router at least; `balance`: Megatron's name of the way, with
    `bias_rate` above 0 by a bias, too; `losses`: factors of losses by their names; `capacity`: times the even
    share, 0 for any number, by `drop_policy`; `batch_groups`: of a micro-batch's rows, over each of which
    experts are balanced and have their capacity; `gathers_tokens`: ranks that share experts gather all
    tokens, and do not exchange them; `padded`: every expert computes as many rows as its capacity."""

    layers: tuple[int, ...]
    experts: int
    inner: int
    shared: int
    top: int
    softmax: bool
    before: bool
    factor: float
    groups: int
    top_groups: int
    precision: torch.dtype
    jitter: float
    balance: str
    bias_rate: float
    losses: tuple[tuple[str, float], ...]
    capacity: float
    drop_policy: str
    batch_groups: int
    gathers_tokens: bool = False
    padded: bool = False


@dataclass(frozen=True)
class Pictures:
    """The images of a vision transformer, in pixels, and the side of their square patches. `mean`, `std`: of
    every channel, where 1 is white; `smoothing`: the share of a label that all classes have alike."""

    height: int
    width: int
    channels: int
    patch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    smoothing: float = 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """Patches from top to bottom, and from left to right."""
        return self.height // self.patch, self.width // self.patch

    @property
    def patch_size(self) -> int:
        """Numbers of a patch."""
        return self.channels * self.patch**2


@dataclass(frozen=True)
class Architecture:
    """Everything that a model is built from. `kv_channels`: width of a head; `ffn_hidden_size`: inner
    width of the MLP; `activation`: an entry of `ACTIVATIONS` in mlp.py, two factors of it where `gated`;
    `qkv_bias`: queries, keys and values have biases, `linear_bias`: all other matrices of layers;
    `vocab_size`: tokens that there are, `padded_vocab_size`: rows of the tables; `precision`: of activations,
    where it is not that of the weights; `apex`: LayerNorm by NVIDIA's apex. In the backward pass are computed
    again: `recomputed_layers`, in runs of `recompute_run` whose inputs alone are kept; with
    `recompute_attention` attention's explicit weights. `mixture`: of experts, where there are any.
    `encoder`: attention sees both sides, and the head tells masked tokens; `pair_head`: and whether two texts
    follow each other. `residual_after_norm`: what is added to the residual stream is added to it as the norm
    has left it; `embedding_norm`: in the first attention alone. `near_layers`: those that see a `window`
    alone, whose angles have the base `near_rotary_base`. `rotary_interpolation`, `rope_scaling`: how angles
    are stretched, as rotary.py has it. `told`: the share of tokens that have a loss. `pictures`: of a vision
    transformer, whose vocabulary are the classes."""

    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_query_groups: int
    kv_channels: int
    ffn_hidden_size: int
    vocab_size: int
    padded_vocab_size: int
    max_position_embeddings: int
    position_embedding_type: str
    rotary_base: float
    rotary_percent: float
    normalization: str
    norm_epsilon: float
    activation: str
    gated: bool
    linear_bias: bool
    qkv_bias: bool
    tied_head: bool
    hidden_dropout: float
    attention_dropout: float
    attention_backend: str
    init_method_std: float
    precision: torch.dtype | None
    apex: bool
    recomputed_layers: tuple[int, ...]
    recompute_run: int
    recompute_attention: bool
    mixture: Mixture | None = None
    encoder: bool = False
    pair_head: bool = False
    residual_after_norm: bool = False
    embedding_norm: bool = False
    norm_bias: bool = True
    near_layers: tuple[int, ...] = ()
    window: tuple[int, int] | None = None
    near_rotary_base: float = 10000.0
    rotary_interpolation: float = 1.0
    rope_scaling: float = 0.0
    told: float = 1.0
    pictures: Pictures | None = None
