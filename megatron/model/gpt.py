"""GPT: embedding, layers, norm, and a head that is the embedding itself unless it is untied."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from megatron.model.architecture import Architecture
from megatron.model.context import make_context
from megatron.model.dropout import drop, salt, token_keys
from megatron.model.inputs import GPTInputs
from megatron.model.norm import make_norm
from megatron.model.rotary import rotary_table
from megatron.model.stack import Stack
from megatron.parallel.cross_entropy import cross_entropy_sum, token_losses
from megatron.parallel.layers import Embedding, Linear
from megatron.parallel.placement import add_constants

LM_LOSS = "lm loss"
UNSCALED = {LM_LOSS: 1.0}


class GPT(nn.Module):
    """A causal language model; its tables are padded, and padded logits never count. `dropping`: the
    layers under random-LTD."""

    rotary_table: Tensor
    embedding_salt: Tensor

    def __init__(self, architecture: Architecture, dropping: tuple[int, ...] = ()):
        super().__init__()
        hidden, padded = architecture.hidden_size, architecture.padded_vocab_size
        positions, std = architecture.max_position_embeddings, architecture.init_method_std
        learned = architecture.position_embedding_type == "learned_absolute"
        self.word_embeddings = Embedding(padded, hidden, std=std)
        self.position_embeddings = Embedding(positions, hidden, std=std) if learned else None
        self.layers = Stack(architecture, dropping)
        self.final_norm = make_norm(architecture)
        self.output_layer = None if architecture.tied_head else Linear(hidden, padded, std=std, bias=False)
        self.vocab_size, self.dropout = architecture.vocab_size, architecture.hidden_dropout
        self.dtype = torch.bfloat16 if architecture.bf16 else None
        self.kernels_draw = self.layers.kernels_draw
        self.rotary = architecture.position_embedding_type == "rope"
        add_constants(self, lambda: _constants(architecture))

    def forward(
        self, inputs: GPTInputs, step_key: Tensor | None = None, scales: Mapping[str, float] = UNSCALED
    ) -> dict[str, Tensor]:
        """Losses by name, each its scale · the sum over the tokens that count. `step_key` (int64 scalar) from
        (seed, step) keys dropout; None drops nothing."""
        hidden = self._hidden(inputs, step_key)
        weights = inputs.loss_mask.flatten() if inputs.loss_mask is not None else None
        labels, scale = inputs.labels.flatten(), scales[LM_LOSS]
        loss = cross_entropy_sum(hidden.flatten(0, 1), self._head(), labels, weights, self.vocab_size, scale)
        return {LM_LOSS: loss}

    @torch.no_grad()
    def token_losses(self, inputs: GPTInputs) -> Tensor:
        """Loss of every token [B, T], nothing dropped."""
        hidden, labels = self._hidden(inputs, None).flatten(0, 1), inputs.labels
        return token_losses(hidden, self._head(), labels.flatten(), self.vocab_size).view_as(labels)

    @torch.no_grad()
    def logits(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, document_starts_BT: Tensor | None = None
    ) -> Tensor:
        """Logits [B, T, vocabulary] of token rows, nothing dropped; positions and documents as in the inputs
        of training."""
        rows = torch.arange(len(tokens_BT), device=tokens_BT.device)
        inputs = GPTInputs(tokens_BT, tokens_BT, rows, None, positions_BT, document_starts_BT)
        hidden = self._hidden(inputs, None)
        return hidden @ self._head()[: self.vocab_size].to(hidden.dtype).T

    def _head(self) -> Tensor:
        """The output matrix, padding included."""
        return self.word_embeddings.weight if self.output_layer is None else self.output_layer.weight

    def _hidden(self, inputs: GPTInputs, step_key: Tensor | None) -> Tensor:
        """Normalised hidden states [B, T, D] before the head."""
        length, positions = inputs.tokens.shape[1], inputs.positions
        if positions is None:
            positions = torch.arange(length, device=inputs.tokens.device)[None]
        keys = token_keys(step_key, inputs.rows, length) if step_key is not None and self.training else None
        x_BTD = self.word_embeddings(inputs.tokens, self.dtype)
        if self.position_embeddings is not None:
            x_BTD = x_BTD + self.position_embeddings(positions, self.dtype)
        x_BTD = drop(x_BTD, self.dropout, keys, self.embedding_salt)
        rotary = self.rotary_table[positions].to(x_BTD.dtype) if self.rotary else None
        kept = inputs.kept if self.training else None
        return self.final_norm(self.layers(x_BTD, make_context(rotary, inputs.document_starts, keys), kept))


def _constants(architecture: Architecture) -> dict[str, Tensor]:
    """Tensors that follow from the architecture alone."""
    constants = {"embedding_salt": salt("embedding", 0)}
    if architecture.position_embedding_type == "rope":
        channels = int(architecture.kv_channels * architecture.rotary_percent)
        table = rotary_table(architecture.max_position_embeddings, channels, architecture.rotary_base)
        constants["rotary_table"] = table
    return constants
