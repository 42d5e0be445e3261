"""GPT: embedding, layers, norm, and a head that is the embedding itself unless it is untied."""

import torch
from torch import Tensor, nn

from megatron.base.keys import key
from megatron.config.config import Config
from megatron.model.context import make_context
from megatron.model.dropout import drop, token_keys
from megatron.model.inputs import GPTInputs
from megatron.model.norm import make_norm
from megatron.model.rotary import rotary_table
from megatron.model.stack import Stack
from megatron.parallel.cross_entropy import cross_entropy_sum, token_losses
from megatron.parallel.layers import Embedding, Linear


class GPT(nn.Module):
    """A causal language model over `vocab_size` tokens; its tables are padded, and padded logits never
    count."""

    def __init__(self, config: Config, vocab_size: int, dropping: tuple[int, ...] = ()):
        super().__init__()
        model = config.model
        padded = -(-vocab_size // model.make_vocab_size_divisible_by) * model.make_vocab_size_divisible_by
        positions = model.max_position_embeddings or 0
        self.word_embeddings = Embedding(padded, model.hidden_size, std=model.init_method_std)
        self.position_embeddings = (
            Embedding(positions, model.hidden_size, std=model.init_method_std)
            if model.position_embedding_type == "learned_absolute"
            else None
        )
        self.layers = Stack(model, dropping, config.training.recompute_granularity == "full")
        self.final_norm = make_norm(model)
        self.output_layer = (
            Linear(model.hidden_size, padded, std=model.init_method_std, bias=False)
            if model.untie_embeddings_and_output_weights
            else None
        )
        self.vocab_size, self.dropout = vocab_size, model.hidden_dropout
        self.dtype = torch.bfloat16 if config.training.bf16 else None
        rotating = int((model.kv_channels or 0) * model.rotary_percent)
        table = (
            rotary_table(positions, rotating, model.rotary_base)
            if model.position_embedding_type == "rope"
            else None
        )
        self.rotary_turns: Tensor | None
        self.register_buffer("rotary_turns", table, persistent=False)

    def forward(self, batch: GPTInputs, step_key: int | None = None, scale: float = 1.0) -> Tensor:
        """scale · sum of the loss over the batch's tokens. `step_key` from (seed, step) keys dropout; None
        drops nothing."""
        hidden = self._hidden(batch, step_key)
        weights = batch.loss_mask.flatten() if batch.loss_mask is not None else None
        return cross_entropy_sum(
            hidden.flatten(0, 1), self._head(), batch.labels.flatten(), weights, self.vocab_size, scale
        )

    @torch.no_grad()
    def losses(self, batch: GPTInputs) -> Tensor:
        """Loss of every token [B, T], nothing dropped."""
        hidden = self._hidden(batch, None)
        return token_losses(
            hidden.flatten(0, 1), self._head(), batch.labels.flatten(), self.vocab_size
        ).view_as(batch.labels)

    @torch.no_grad()
    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, vocabulary] of plain token rows, nothing dropped."""
        rows = torch.arange(len(tokens_BT), device=tokens_BT.device)
        hidden = self._hidden(GPTInputs(tokens_BT, tokens_BT, rows), None)
        return hidden @ self._head()[: self.vocab_size].to(hidden.dtype).T

    def _head(self) -> Tensor:
        """The output matrix, padding included."""
        return self.word_embeddings.weight if self.output_layer is None else self.output_layer.weight

    def _hidden(self, batch: GPTInputs, step_key: int | None) -> Tensor:
        """Normalised hidden states [B, T, D] before the head."""
        length = batch.tokens.shape[1]
        positions = (
            batch.positions
            if batch.positions is not None
            else torch.arange(length, device=batch.tokens.device)[None]
        )
        keys, batch_key = None, 0
        if step_key is not None and self.training:
            keys, batch_key = token_keys(step_key, batch.rows, length), key(step_key, batch.first_row)
        x_BTD = self.word_embeddings(batch.tokens, self.dtype)
        if self.position_embeddings is not None:
            x_BTD = x_BTD + self.position_embeddings(positions, self.dtype)
        x_BTD = drop(x_BTD, self.dropout, keys, "embedding")
        turns = self.rotary_turns[positions].to(x_BTD.dtype) if self.rotary_turns is not None else None
        kept = batch.kept if self.training else None
        return self.final_norm(
            self.layers(x_BTD, make_context(turns, batch.documents, keys, batch_key), kept)
        )
