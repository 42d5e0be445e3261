"""GPT: causal layers, and a head that is the embedding itself unless it is untied."""

from collections.abc import Mapping

import torch
from torch import Tensor

from megatron.model.architecture import Architecture
from megatron.model.cache import Recall
from megatron.model.context import Sight
from megatron.model.inputs import GPTInputs
from megatron.model.transformer import Texts, Transformer
from megatron.parallel.cross_entropy import cross_entropy_sum, token_losses, token_scores
from megatron.parallel.layers import ONE_RANK, Linear, enter
from megatron.parallel.mesh import Mesh
from megatron.parallel.stages import Stage

LM_LOSS = "lm loss"
UNSCALED = {LM_LOSS: 1.0}


class GPT(Transformer):
    """A causal language model, or a stage of one; padded logits never count. `dropping`: the layers under
    random-LTD."""

    entrances = ("token_losses", "logits")
    behind_layers = ("final_norm", "output_layer")

    def __init__(
        self,
        architecture: Architecture,
        dropping: tuple[int, ...] = (),
        mesh: Mesh = ONE_RANK,
        stage: Stage | None = None,
    ):
        super().__init__(architecture, dropping, mesh, stage)
        self.output_layer: Linear | None = None
        if self.stage.last and not architecture.tied_head:
            padded, std = architecture.padded_vocab_size, architecture.init_method_std
            self.output_layer = Linear(
                architecture.hidden_size, padded, std=std, bias=False, split="outputs", mesh=mesh
            )

    def forward(
        self,
        inputs: GPTInputs,
        step_key: Tensor | None = None,
        scales: Mapping[str, float] = UNSCALED,
        received: Tensor | None = None,
    ) -> dict[str, Tensor] | Tensor:
        """Losses by name, each its scale · the sum over the tokens that count here; of a stage before the
        last, its hidden states. `step_key` (int64 scalar) from (seed, step) keys dropout; None drops nothing.
        `received`: the hidden states of the stage before."""
        hidden = self.hidden(_texts(inputs), step_key, received, self.beside(scales))
        if not self.stage.last:
            return hidden
        weights = self.seen(inputs.loss_mask).flatten() if inputs.loss_mask is not None else None
        labels, scale = self.seen(inputs.labels).flatten(), scales[LM_LOSS]
        flat, axis = enter(hidden, self.mesh).flatten(0, 1), self.mesh.tensor
        sizes = (self.vocab_size, scale, axis, self.table_size)
        loss = cross_entropy_sum(flat, self._head(), labels, weights, *sizes)
        return {LM_LOSS: loss}

    @torch.no_grad()
    def token_losses(self, inputs: GPTInputs, received: Tensor | None = None) -> Tensor:
        """Loss of every token whose query is computed here [B, T seen], nothing dropped; of a stage before
        the last, its hidden states."""
        hidden = self.hidden(_texts(inputs), None, received)
        if not self.stage.last:
            return hidden
        labels, flat = self.seen(inputs.labels), enter(hidden, self.mesh).flatten(0, 1)
        sizes = (self.vocab_size, self.mesh.tensor, self.table_size)
        losses = token_losses(flat, self._head(), labels.flatten(), *sizes)
        return losses.view_as(labels)

    @torch.no_grad()
    def logits(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, document_starts_BT: Tensor | None = None
    ) -> Tensor:
        """Logits [B, T, vocabulary] of token rows, of a whole model on one rank, nothing dropped; positions
        and documents as in the inputs of training."""
        rows = torch.arange(len(tokens_BT), device=tokens_BT.device)
        hidden = self.hidden(
            Texts(tokens_BT, rows, positions_BT, sight=Sight(starts=document_starts_BT)), None
        )
        return self._logits(hidden)

    @torch.no_grad()
    def next_logits(
        self,
        tokens_BT: Tensor,
        last_B: Tensor,
        recall: Recall | None,
        positions_BT: Tensor | None = None,
        document_starts_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, vocabulary] of what follows the token `last` of every row, as `logits` gives them, of
        tokens that follow those in the cache of `recall`, and are put there, too."""
        rows = torch.arange(len(tokens_BT), device=tokens_BT.device)
        sight = Sight(starts=document_starts_BT)
        hidden = self.hidden(Texts(tokens_BT, rows, positions_BT, sight=sight, recall=recall), None)
        return self._logits(hidden[rows, last_B])

    @torch.no_grad()
    def scores(
        self,
        tokens_BT: Tensor,
        rows_N: Tensor,
        places_N: Tensor,
        labels_N: Tensor,
        positions_BT: Tensor | None = None,
        document_starts_BT: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Of tokens `labels` [N] that stand behind these places of rows: log-probabilities, and whether none
        is likelier. All else as in `logits`."""
        rows = torch.arange(len(tokens_BT), device=tokens_BT.device)
        hidden = self.hidden(
            Texts(tokens_BT, rows, positions_BT, sight=Sight(starts=document_starts_BT)), None
        )
        losses, likeliest = token_scores(hidden[rows_N, places_N], self._head(), labels_N, self.vocab_size)
        return -losses, likeliest

    def _logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self._head()[: self.vocab_size].to(hidden.dtype).T

    def _head(self) -> Tensor:
        """The output matrix, padding included."""
        table = self.output_layer or self.word_embeddings
        assert table is not None
        return table.weight


def _texts(inputs: GPTInputs) -> Texts:
    sight = Sight(starts=inputs.document_starts)
    return Texts(inputs.tokens, inputs.rows, inputs.positions, None, sight, inputs.kept, inputs.moves)
