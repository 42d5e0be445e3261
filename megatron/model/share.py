"""What one rank has of a transformer: the sizes of its part of a layer, and the shapes of its parameters, in
closed form, so that a layout is priced before any rank starts."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from megatron.model.architecture import Architecture
from megatron.model.router import capacity
from megatron.parallel.layout import ONE, Layout
from megatron.parallel.stages import Stage

OWN = ("data", "context")
ALIKE = ("expert_data",)
"""Over these axes gradients are summed: of what all have that compute a layer, and of what those have that
hold the same experts."""


class Batch(NamedTuple):
    """The rows of a micro-batch, their length, and how many of their tokens a dropping layer keeps."""

    rows: int
    length: int
    kept_length: int


class Parameters(NamedTuple):
    """So many parameters of this shape on a rank; over which axes their gradients are summed."""

    rows: int
    columns: int
    sum_over: tuple[str, ...] = OWN
    copies: int = 1

    @property
    def elements(self) -> int:
        return self.copies * self.rows * self.columns

    def share(self, ranks: int) -> int:
        """Elements that the first of so many ranks has, which share them by rows."""
        return self.copies * -(-self.rows // ranks) * self.columns


@dataclass(frozen=True)
class Share:
    """A rank's share of a model. `dropping`: the layers under random-LTD; `weight_bytes`: of an element of
    weights, gradients and moments; `sum_bytes`: of an element of gradients while they are summed over ranks,
    where these are others; `defers`: the schedule leaves gradients of weights for later; `zero_stage`: what
    ranks with the same weights share, where there are several."""

    architecture: Architecture
    layout: Layout = ONE
    dropping: tuple[int, ...] = ()
    weight_bytes: int = 4
    sum_bytes: int | None = None
    defers: bool = False
    zero_stage: int = 0

    @property
    def gathers(self) -> bool:
        """Whether weights are gathered before they are used."""
        return self.zero_stage >= 2 and self.layout.sharing > 1

    def sharing(self, one: Parameters) -> int:
        """Ranks that share what they would hold alike of these parameters, where that is asked for: of
        experts none, where none share the rest."""
        if one.sum_over == ALIKE and self.layout.sharing > 1:
            return self.layout.sharing_experts
        return self.layout.sharing

    @property
    def element(self) -> int:
        """Bytes of an element of hidden states."""
        return 2 if self.architecture.precision else self.weight_bytes

    @property
    def summed(self) -> int:
        """Bytes of an element of gradients while they are summed."""
        return self.sum_bytes or self.weight_bytes

    @property
    def heads(self) -> int:
        return self.architecture.num_attention_heads // self.layout.tensor

    @property
    def queries(self) -> int:
        """Width of the queries."""
        return self.heads * self.architecture.kv_channels

    @property
    def few_groups(self) -> bool:
        """Whether there are fewer groups than ranks of the tensor axis, which then keep them whole."""
        return self.architecture.num_query_groups % self.layout.tensor > 0

    @property
    def keys(self) -> int:
        """Width of the keys that are computed here."""
        groups = 1 if self.few_groups else self.architecture.num_query_groups // self.layout.tensor
        return groups * self.architecture.kv_channels

    @property
    def inner(self) -> int:
        return self.architecture.ffn_hidden_size // self.layout.tensor

    @property
    def vocabulary(self) -> int:
        """Rows of the tables, of the ranks that have most."""
        return -(-self.architecture.padded_vocab_size // self.layout.tensor)

    @property
    def shares_tokens(self) -> bool:
        """Whether ranks of the tensor axis share the tokens between matrices."""
        return self.layout.sequence_parallel and self.layout.tensor > 1

    @property
    def parts_experts(self) -> bool:
        """Whether experts are shared in another way than the rest of a layer."""
        return self.layout.expert > 1 or self.layout.expert_matrices != self.layout.tensor

    @property
    def same_tokens(self) -> bool:
        """Whether the tensor axis has several ranks with the same tokens between matrices."""
        return self.layout.tensor > 1 and not self.shares_tokens

    def mixed(self, layer: int) -> bool:
        """Whether a layer's MLP is a mixture of experts."""
        mixture = self.architecture.mixture
        return mixture is not None and layer in mixture.layers

    def computed(self, length: int) -> int:
        """Tokens of a row whose queries are computed here."""
        return length // self.layout.context

    def held(self, length: int) -> int:
        """Tokens of a row whose hidden states are here between matrices."""
        return self.computed(length) // (self.layout.tensor if self.shares_tokens else 1)


def expert_tokens(share: Share, rows: int, length: int) -> int:
    """Tokens for which a rank computes its part of experts: its own, and those of the ranks that have other
    parts of the same matrices and other tokens."""
    return rows * share.held(length) * (1 if share.same_tokens else share.layout.expert_matrices)


def routed_rows(share: Share, rows: int, length: int) -> int:
    """Rows that a rank's part of experts computes of so many rows of a batch, where all have equal loads."""
    mixture, tokens = share.architecture.mixture, expert_tokens(share, rows, length)
    assert mixture is not None
    if not (mixture.padded and mixture.capacity):
        return int(tokens * mixture.top * min(mixture.capacity or 1, 1))
    groups = mixture.batch_groups
    room = groups * capacity(mixture, rows // groups * length)
    if not share.same_tokens:
        room *= share.layout.expert_matrices
    return mixture.experts * min(room, tokens)


def told_tokens(share: Share, tokens: int) -> int:
    """How many of these tokens have a loss."""
    return math.ceil(share.architecture.told * tokens)


def layer_parameters(share: Share, count: int = 1, mixed: bool = False) -> list[Parameters]:
    """The parameters of a layer, or of so many, whose MLPs are mixtures of experts where they are `mixed`."""
    one, hidden = share.architecture, share.architecture.hidden_size
    tokens = (*OWN, "tensor") if share.shares_tokens else OWN
    few, groups = share.few_groups, one.num_query_groups * one.kv_channels
    keys = groups if few else share.keys
    of_keys = (*OWN, "tensor") if few else OWN
    norms = 2 * _of_norm(one)
    found = [
        Parameters(hidden, 1, tokens, norms * count),
        Parameters(share.queries, hidden, OWN, count),
        Parameters(keys, hidden, of_keys, 2 * count),
        Parameters(hidden, share.queries, OWN, count),
        *(_mixture(share, count, tokens) if mixed else _mlp(share, share.inner, count, tokens)),
    ]
    if one.qkv_bias:
        found += [Parameters(share.queries, 1, OWN, count), Parameters(keys, 1, of_keys, 2 * count)]
    if one.linear_bias:
        found.append(Parameters(hidden, 1, tokens, count))
    return found


def _mlp(share: Share, inner: int, count: int, tokens: tuple[str, ...]) -> list[Parameters]:
    """Of dense MLPs of this inner width."""
    one, hidden = share.architecture, share.architecture.hidden_size
    inwards = (2 if one.gated else 1) * count
    found = [Parameters(inner, hidden, OWN, inwards), Parameters(hidden, inner, OWN, count)]
    if one.linear_bias:
        found += [Parameters(inner, 1, OWN, inwards), Parameters(hidden, 1, tokens, count)]
    return found


def _mixture(share: Share, count: int, tokens: tuple[str, ...]) -> list[Parameters]:
    """Of routers and stacked experts, and of shared ones."""
    one, hidden, mixture = share.architecture, share.architecture.hidden_size, share.architecture.mixture
    assert mixture is not None
    count_held, inner = mixture.experts // share.layout.expert, mixture.inner // share.layout.expert_matrices
    inwards = (2 if one.gated else 1) * count
    alike = ALIKE if share.parts_experts else OWN
    found = [
        Parameters(mixture.experts, hidden, tokens, count),
        Parameters(inner, count_held * hidden, alike, inwards),
        Parameters(hidden, count_held * inner, alike, count),
    ]
    if one.linear_bias:
        found.append(Parameters(count_held, inner, alike, inwards))
        found.append(Parameters(mixture.experts, hidden, tokens, count))
    if mixture.shared:
        found += _mlp(share, mixture.shared // share.layout.tensor, count, tokens)
    return found


def stage_layers(share: Share, stage: Stage) -> list[Parameters]:
    """The parameters of a stage's layers."""
    mixed = len([layer for layer in stage.layers if share.mixed(layer)])
    found = layer_parameters(share, len(stage.layers) - mixed) if mixed < len(stage.layers) else []
    return found + (layer_parameters(share, mixed, mixed=True) if mixed else [])


def stage_parameters(share: Share, stage: Stage) -> list[Parameters]:
    """The parameters of a stage, those of its layers first."""
    one, found = share.architecture, stage_layers(share, stage)
    tokens = (*OWN, "tensor") if share.shares_tokens else OWN
    if one.pictures is not None:
        return found + _ends_of_pictures(share, stage)
    shared = one.tied_head and stage.first != stage.last
    if stage.first or (stage.last and one.tied_head):
        own = (*OWN, "embedding") if shared else OWN
        found.append(Parameters(share.vocabulary, one.hidden_size, own))
    if stage.first and one.position_embedding_type == "learned_absolute":
        found.append(Parameters(one.max_position_embeddings, one.hidden_size, tokens))
    if stage.first and one.pair_head:
        found.append(Parameters(2, one.hidden_size, tokens))
    if stage.last:
        found.append(Parameters(one.hidden_size, 1, tokens, _of_norm(one)))
    if stage.last and one.encoder:
        found += _encoder_heads(share)
    if stage.last and not one.tied_head:
        found.append(Parameters(share.vocabulary, one.hidden_size))
    return found


def _ends_of_pictures(share: Share, stage: Stage) -> list[Parameters]:
    """Of the embedding of patches, [CLS] and positions, and of the last norm and the head over classes."""
    one, hidden, alike = share.architecture, share.architecture.hidden_size, (*OWN, "tensor")
    assert one.pictures is not None
    found = []
    if stage.first:
        found += [Parameters(hidden, one.pictures.patch_size), Parameters(hidden, 1), Parameters(1, hidden)]
        found.append(Parameters(one.max_position_embeddings, hidden))
    if stage.last:
        found.append(Parameters(hidden, 1, OWN, _of_norm(one)))
        found += [Parameters(one.vocab_size, hidden, alike), Parameters(one.vocab_size, 1, alike)]
    return found


def _of_norm(architecture: Architecture) -> int:
    """Vectors of a norm."""
    return 2 if architecture.normalization == "LayerNorm" and architecture.norm_bias else 1


def _encoder_heads(share: Share) -> list[Parameters]:
    """Of the heads over masked tokens and over pairs, whole on every rank but for the bias of logits."""
    one, hidden, alike = share.architecture, share.architecture.hidden_size, (*OWN, "tensor")
    found = [Parameters(hidden, hidden, alike), Parameters(hidden, 1, alike, _of_norm(one))]
    found += [Parameters(hidden, 1, alike)] if one.linear_bias else []
    found.append(Parameters(share.vocabulary, 1))
    if one.pair_head:
        found += [Parameters(hidden, hidden, alike), Parameters(2, hidden, alike)]
        found += [Parameters(hidden, 1, alike), Parameters(2, 1, alike)]
    return found


def model_parameters(share: Share) -> tuple[int, int]:
    """Parameters of the whole model, and how many of them compute a token: of experts, those that a token
    chooses."""
    alone, one = replace(share, layout=ONE), share.architecture
    total = elements(stage_parameters(alone, Stage(range(one.num_layers))))
    mixture = one.mixture
    if mixture is None:
        return total, total
    router, shared = mixture.experts * one.hidden_size, replace(mixture, experts=0, top=0)
    without = replace(alone, architecture=replace(one, mixture=shared))
    experts = elements(layer_parameters(alone, mixed=True)) - elements(layer_parameters(without, mixed=True))
    idle = (experts - router) * (mixture.experts - mixture.top) // mixture.experts
    return total, total - len(mixture.layers) * idle


def elements(parameters: Iterable[Parameters]) -> int:
    """Elements of all of them."""
    return sum(one.elements for one in parameters)
