"""BERT and its successors: layers that see both sides, a head that tells masked tokens, and one that tells
whether two texts follow each other (arXiv 1810.04805, 1909.11942)."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.model.architecture import Architecture
from megatron.model.context import Sight
from megatron.model.inputs import BertInputs
from megatron.model.mlp import ACTIVATIONS
from megatron.model.norm import make_norm
from megatron.model.transformer import Texts, Transformer
from megatron.parallel.cross_entropy import cross_entropy_sum, token_scores
from megatron.parallel.layers import ONE_RANK, Linear, enter
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import add_parameter
from megatron.parallel.stages import Stage

MLM_LOSS, PAIR_LOSS = "lm loss", "sop loss"
MLM_ACCURACY, PAIR_ACCURACY = "lm accuracy", "sop accuracy"
UNSCALED = {MLM_LOSS: 1.0, PAIR_LOSS: 1.0}
HEAD_SUMS = ("data", "context", "tensor")
"""Over these axes gradients of the heads are summed: every rank of the tensor axis has all tokens, and the
part of their gradients that comes of its rows of the vocabulary."""


class Bert(Transformer):
    """An encoder, or a stage of one, with its heads. `dropping`: the layers under random-LTD."""

    entrances = ("scores", "logits")
    behind_layers = ("final_norm", "token_head", "pair_head")

    def __init__(
        self,
        architecture: Architecture,
        dropping: tuple[int, ...] = (),
        mesh: Mesh = ONE_RANK,
        stage: Stage | None = None,
    ):
        super().__init__(architecture, dropping, mesh, stage)
        self.token_head = TokenHead(architecture, mesh) if self.stage.last else None
        self.pair_head = PairHead(architecture, mesh) if self.stage.last and architecture.pair_head else None

    def forward(
        self,
        inputs: BertInputs,
        step_key: Tensor | None = None,
        scales: Mapping[str, float] = UNSCALED,
        received: Tensor | None = None,
    ) -> dict[str, Tensor] | Tensor:
        """Losses by name, each its scale · the sum over the masked tokens, or the pairs, that count here; of
        a stage before the last, its hidden states. `step_key` (int64 scalar) from (seed, step) keys dropout;
        None drops nothing. `received`: the hidden states of the stage before."""
        hidden = self.hidden(_texts(inputs), step_key, received, self.beside(scales))
        if not self.stage.last:
            return hidden
        assert self.token_head is not None
        flat = enter(hidden, self.mesh).flatten(0, 1)
        states, sizes = self.token_head(flat[inputs.masked]), (self.mesh.tensor, self.table_size)
        weights = inputs.weights.to(states.dtype)
        bias, scale = self.token_head.bias, scales[MLM_LOSS]
        table = (self._table(), inputs.labels, weights, self.vocab_size, scale)
        found = {MLM_LOSS: cross_entropy_sum(states, *table, *sizes, bias)}
        if self.pair_head is not None:
            losses, _ = self._pair_scores(flat, inputs)
            found[PAIR_LOSS] = losses.sum() * scales[PAIR_LOSS]
        return found

    @torch.no_grad()
    def scores(
        self, inputs: BertInputs, received: Tensor | None = None
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None] | Tensor:
        """Of the masked tokens [M] and of the pairs [S], if any, losses times weights, and weights of those
        that were told right; nothing dropped. Of a stage before the last, its hidden states."""
        hidden = self.hidden(_texts(inputs), None, received)
        if not self.stage.last:
            return hidden
        assert self.token_head is not None
        flat, axis = enter(hidden, self.mesh).flatten(0, 1), self.mesh.tensor
        states = self.token_head(flat[inputs.masked])
        sizes = (self.vocab_size, axis, self.table_size, self.token_head.bias)
        losses, right = token_scores(states, self._table(), inputs.labels, *sizes)
        told = (losses * inputs.weights, right * inputs.weights)
        return told, None if self.pair_head is None else self._pair_scores(flat, inputs)

    @torch.no_grad()
    def logits(self, texts: Texts) -> tuple[Tensor, Tensor | None]:
        """Logits [B, T, vocabulary] of every token, and of every row's pair [B, 2] where there is such a
        head; of a whole model on one rank, nothing dropped."""
        assert self.token_head is not None
        hidden = self.hidden(texts, None)
        table = self._table()[: self.vocab_size].to(hidden.dtype)
        logits = self.token_head(hidden) @ table.T + self.token_head.bias[: self.vocab_size].to(hidden.dtype)
        return logits, None if self.pair_head is None else self.pair_head(hidden[:, 0])

    def _pair_scores(self, flat_ND: Tensor, inputs: BertInputs) -> tuple[Tensor, Tensor]:
        """Losses of the pairs, and which were told right, weighted. The tensor axis has the same pairs on all
        of its ranks, of which the first one counts them."""
        assert self.pair_head is not None and inputs.firsts is not None
        assert inputs.pairs is not None and inputs.pair_weights is not None
        logits = self.pair_head(flat_ND[inputs.firsts])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        weights = inputs.pair_weights.to(logits.dtype) * (self.mesh.tensor.rank == 0)
        losses = F.cross_entropy(logits, inputs.pairs, reduction="none")
        return losses * weights, (logits.argmax(-1) == inputs.pairs) * weights

    def _table(self) -> Tensor:
        """The embedding, which is the head's matrix, too; padding included."""
        assert self.word_embeddings is not None
        return self.word_embeddings.weight


class Transform(nn.Module):
    """A matrix, an activation and a norm."""

    def __init__(self, architecture: Architecture, mesh: Mesh = ONE_RANK):
        super().__init__()
        self.dense = _whole(architecture, architecture.hidden_size, mesh, architecture.linear_bias)
        self.norm = make_norm(architecture, mesh, HEAD_SUMS)
        self.activation = ACTIVATIONS[architecture.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(x)))


class TokenHead(Transform):
    """A transform before the embedding is the matrix of logits; their bias [vocabulary], padding included."""

    bias: nn.Parameter

    def __init__(self, architecture: Architecture, mesh: Mesh = ONE_RANK):
        super().__init__(architecture, mesh)
        own = ("data", "context")
        add_parameter(
            self, "bias", (architecture.padded_vocab_size,), split=0, axis=mesh.tensor, sum_over=own
        )


class PairHead(nn.Module):
    """Logits from the hidden state of a first token; two of a pair: its second text follows, or does not."""

    salt: Tensor

    def __init__(
        self, architecture: Architecture, mesh: Mesh = ONE_RANK, outputs: int = 2, pools: bool = True
    ):
        super().__init__()
        self.pooler = _whole(architecture, architecture.hidden_size, mesh) if pools else None
        self.output = _whole(architecture, outputs, mesh)

    def forward(self, x: Tensor, change: Callable[[Tensor], Tensor] = lambda pooled: pooled) -> Tensor:
        """`change`: what is done to the pooled states, such as dropout."""
        return self.output(change(x if self.pooler is None else torch.tanh(self.pooler(x))))


def _whole(architecture: Architecture, outputs: int, mesh: Mesh, bias: bool = True) -> Linear:
    """A matrix that is whole on every rank of the tensor axis, which add up their gradients."""
    rows, std = slice(0, outputs), architecture.init_method_std
    return Linear(architecture.hidden_size, outputs, std=std, bias=bias, rows=rows, mesh=mesh)


def _texts(inputs: BertInputs) -> Texts:
    sight = Sight(False, inputs.starts, inputs.ends, padded_kept=inputs.padded_kept)
    positions, moves = inputs.positions, inputs.moves
    return Texts(inputs.tokens, inputs.rows, positions, inputs.types, sight, inputs.kept, moves)
