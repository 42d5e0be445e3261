"""GPT: embedding, layers, norm, and a head that is the embedding itself unless it is untied."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from megatron.model.architecture import Architecture
from megatron.model.balance import tally_sizes
from megatron.model.context import Beside, Context, Sight, make_context
from megatron.model.dropout import drop, salt, token_keys
from megatron.model.inputs import GPTInputs
from megatron.model.norm import make_norm
from megatron.model.rotary import rotary_table
from megatron.model.stack import Stack
from megatron.parallel.cross_entropy import cross_entropy_sum, token_losses
from megatron.parallel.layers import ONE_RANK, Embedding, Linear, VocabularyEmbedding, enter
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import add_constants
from megatron.parallel.stages import Stage, StageModule
from megatron.parallel.tally import Tally

LM_LOSS = "lm loss"
UNSCALED = {LM_LOSS: 1.0}


class GPT(StageModule):
    """A causal language model, or a stage of one; its tables are padded, and padded logits never count.
    `dropping`: the layers under random-LTD."""

    rotary_table: Tensor
    embedding_salt: Tensor
    entrances = ("token_losses", "logits")
    behind_layers = ("final_norm", "output_layer")

    def __init__(
        self,
        architecture: Architecture,
        dropping: tuple[int, ...] = (),
        mesh: Mesh = ONE_RANK,
        stage: Stage | None = None,
    ):
        stage = stage or Stage(range(architecture.num_layers))
        super().__init__(mesh, stage, architecture.hidden_size, architecture.precision)
        hidden, padded = architecture.hidden_size, architecture.padded_vocab_size
        positions, std = architecture.max_position_embeddings, architecture.init_method_std
        learned, tied = architecture.position_embedding_type == "learned_absolute", architecture.tied_head
        first, last = stage.first, stage.last
        shared = tied and first != last
        self.word_embeddings: VocabularyEmbedding | None = None
        self.position_embeddings: Embedding | None = None
        self.final_norm: nn.Module | None = None
        self.output_layer: Linear | None = None
        if first or (last and tied):
            self.word_embeddings = VocabularyEmbedding(padded, hidden, std=std, mesh=mesh, shared=shared)
        if first and learned:
            self.position_embeddings = Embedding(positions, hidden, std=std, mesh=mesh)
        self.layers = Stack(architecture, dropping, mesh, stage.layers)
        if last:
            self.final_norm = make_norm(architecture, mesh)
        if last and not tied:
            self.output_layer = Linear(hidden, padded, std=std, bias=False, split="outputs", mesh=mesh)
        self.vocab_size, self.table_size = architecture.vocab_size, padded
        self.dropout = architecture.hidden_dropout
        self.kernels_draw = self.layers.kernels_draw
        self.rotary = architecture.position_embedding_type == "rope"
        if architecture.mixture is not None:
            self.tally = Tally(tally_sizes(architecture.mixture), mesh.device)
        add_constants(self, lambda: _constants(architecture))

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
        beside = Beside(scales, self.tally) if self.tally.sizes and self.training else None
        hidden = self._hidden(inputs, step_key, received, beside)
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
        hidden = self._hidden(inputs, None, received)
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
        inputs = GPTInputs(tokens_BT, tokens_BT, rows, None, positions_BT, document_starts_BT)
        hidden = self._hidden(inputs, None)
        return hidden @ self._head()[: self.vocab_size].to(hidden.dtype).T

    def _head(self) -> Tensor:
        """The output matrix, padding included."""
        table = self.output_layer or self.word_embeddings
        assert table is not None
        return table.weight

    def seen(self, part_BT: Tensor) -> Tensor:
        """The places whose queries and losses are computed here."""
        if self.slices.context.size == 1:
            return part_BT
        return part_BT[:, self.slices.seen(part_BT.shape[1], part_BT.device)]

    def _hidden(
        self,
        inputs: GPTInputs,
        step_key: Tensor | None,
        received: Tensor | None = None,
        beside: Beside | None = None,
    ) -> Tensor:
        """Hidden states [B, T held, D] behind this stage; behind the last, normalised for the head."""
        length, positions, device = inputs.tokens.shape[1], inputs.positions, inputs.tokens.device
        if positions is None:
            positions = torch.arange(length, device=device)[None]
        keys = token_keys(step_key, inputs.rows, length) if step_key is not None and self.training else None
        rotary = self.rotary_table[positions].to(self.precision) if self.rotary else None
        sight = Sight(starts=inputs.document_starts)
        context = make_context(length, device, sight, rotary, keys, self.slices)
        context = context._replace(beside=beside)
        x_BTD = self._embedded(inputs, positions, context) if received is None else received
        kept, moves = (inputs.kept, inputs.moves) if self.training else (None, None)
        x_BTD = self.layers(x_BTD, context, kept, moves)
        return x_BTD if self.final_norm is None else self.final_norm(x_BTD)

    def _embedded(self, inputs: GPTInputs, positions: Tensor, context: Context) -> Tensor:
        assert self.word_embeddings is not None
        x_BTD = self.word_embeddings(self.seen(inputs.tokens), self.dtype)
        if self.position_embeddings is not None:
            if self.slices.both.size > 1:
                positions = positions[:, self.slices.held(context.length, positions.device)]
            x_BTD = x_BTD + self.position_embeddings(positions, self.dtype)
        return drop(x_BTD, self.dropout, context.held_keys, self.embedding_salt)


def _constants(architecture: Architecture) -> dict[str, Tensor]:
    """Tensors that follow from the architecture alone."""
    constants = {"embedding_salt": salt("embedding", 0)}
    if architecture.position_embedding_type == "rope":
        channels = int(architecture.kv_channels * architecture.rotary_percent)
        table = rotary_table(architecture.max_position_embeddings, channels, architecture.rotary_base)
        constants["rotary_table"] = table
    return constants
