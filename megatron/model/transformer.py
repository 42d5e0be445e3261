"""What a GPT, a BERT and a ViT have in common: embeddings, layers, and the norm behind them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from megatron.model.architecture import Architecture
from megatron.model.balance import tally_sizes
from megatron.model.cache import Recall
from megatron.model.context import CAUSAL, Beside, Context, Sight, context_behind, make_context
from megatron.model.dropout import drop, salt, token_keys
from megatron.model.norm import make_norm
from megatron.model.rotary import Stretch, rotary_table
from megatron.model.stack import Stack
from megatron.parallel.layers import ONE_RANK, Embedding, VocabularyEmbedding
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import add_constants
from megatron.parallel.slices import Moves
from megatron.parallel.stages import Stage, StageModule
from megatron.parallel.tally import Tally

TOKEN_TYPES = 2


class Texts(NamedTuple):
    """Rows of tokens [B, T] as layers need to know them. `rows` [B]: their numbers in the global batch, which
    key dropout, or [B, T] where a row holds several texts; `positions` [B, T], None where they count from 0;
    `types` [B, T]: of tokens, or None; `sight`: which tokens see which; `kept`, `moves`: the positions that
    random-LTD keeps, and how they come to the ranks that compute them; `recall`: where they follow tokens of
    their rows that are not computed again; `pixels`: of images, whose patches are the tokens."""

    tokens: Tensor
    rows: Tensor
    positions: Tensor | None = None
    types: Tensor | None = None
    sight: Sight = CAUSAL
    kept: Tensor | None = None
    moves: tuple[Moves, ...] | None = None
    recall: Recall | None = None
    pixels: Tensor | None = None


class Transformer(StageModule):
    """Embeddings, layers and their last norm, or a stage of them; tables are padded. `dropping`: the layers
    under random-LTD."""

    rotary_table: Tensor
    near_rotary_table: Tensor
    embedding_salt: Tensor

    def __init__(
        self,
        architecture: Architecture,
        dropping: tuple[int, ...] = (),
        mesh: Mesh = ONE_RANK,
        stage: Stage | None = None,
    ):
        stage = stage or Stage(range(architecture.num_layers))
        super().__init__(mesh, stage, architecture.hidden_size, architecture.precision)
        hidden, std = architecture.hidden_size, architecture.init_method_std
        self.word_embeddings: VocabularyEmbedding | None = None
        self.position_embeddings: Embedding | None = None
        self.type_embeddings: Embedding | None = None
        self.final_norm: nn.Module | None = None
        self._add_token_embeddings(architecture)
        if stage.first and architecture.position_embedding_type == "learned_absolute":
            positions = architecture.max_position_embeddings
            self.position_embeddings = Embedding(positions, hidden, std=std, mesh=mesh)
        if stage.first and architecture.pair_head:
            self.type_embeddings = Embedding(TOKEN_TYPES, hidden, std=std, mesh=mesh)
        self.layers = Stack(architecture, dropping, mesh, stage.layers)
        if stage.last:
            self.final_norm = make_norm(architecture, mesh)
        self.vocab_size, self.table_size = architecture.vocab_size, architecture.padded_vocab_size
        self.dropout = architecture.hidden_dropout
        self.kernels_draw = self.layers.kernels_draw
        self.rotary = architecture.position_embedding_type == "rope"
        self.window = architecture.window if architecture.near_layers else None
        if architecture.mixture is not None:
            self.tally = Tally(tally_sizes(architecture.mixture), mesh.device)
        add_constants(self, lambda: _constants(architecture))

    def _add_token_embeddings(self, architecture: Architecture) -> None:
        """What makes hidden states of tokens on this stage."""
        stage, tied = self.stage, architecture.tied_head
        shared = tied and stage.first != stage.last
        if stage.first or (stage.last and tied):
            self.word_embeddings = VocabularyEmbedding(
                architecture.padded_vocab_size,
                architecture.hidden_size,
                std=architecture.init_method_std,
                mesh=self.mesh,
                shared=shared,
            )

    def hidden(
        self,
        texts: Texts,
        step_key: Tensor | None,
        received: Tensor | None = None,
        beside: Beside | None = None,
    ) -> Tensor:
        """Hidden states [B, T held, D] behind this stage; behind the last, normalised for the head.
        `step_key` (int64 scalar) from (seed, step) keys dropout; None drops nothing. `received`: the hidden
        states of the stage before."""
        length, positions, device = texts.tokens.shape[1], texts.positions, texts.tokens.device
        recall = texts.recall
        if positions is None:
            positions = torch.arange(length, device=device)[None] if recall is None else recall.places
        sight, keys, near = texts.sight, None, None
        if step_key is not None and self.training:
            keys = token_keys(step_key, texts.rows, length, positions if texts.rows.dim() == 2 else None)
        if self.window is not None:
            sight = sight._replace(places=positions, window=self.window)
            near = self._angles(self.near_rotary_table, positions) if self.rotary else None
        rotary = self._angles(self.rotary_table, positions) if self.rotary else None
        if recall is None:
            context = make_context(length, device, sight, rotary, keys, self.slices, near)
            context = context._replace(beside=beside)
        else:
            context = context_behind(recall, sight.starts, rotary)
        x_BTD = self._embedded(texts, positions, context) if received is None else received
        kept, moves = (texts.kept, texts.moves) if self.training else (None, None)
        x_BTD = self.layers(x_BTD, context, kept, moves)
        return x_BTD if self.final_norm is None else self.final_norm(x_BTD)

    def beside(self, scales: Mapping[str, float]) -> Beside | None:
        """What layers add up beside their hidden states in training, where they do."""
        return Beside(scales, self.tally) if self.tally.sizes and self.training else None

    def seen(self, part_BT: Tensor) -> Tensor:
        """The places whose queries and losses are computed here."""
        if self.slices.context.size == 1:
            return part_BT
        return part_BT[:, self.slices.seen(part_BT.shape[1], part_BT.device)]

    def _angles(self, table: Tensor, positions: Tensor) -> Tensor:
        return table[positions].to(self.precision)

    def _embedded(self, texts: Texts, positions: Tensor, context: Context) -> Tensor:
        x_BTD, types = self._of_tokens(texts), texts.types
        if self.slices.both.size > 1:
            held = self.slices.held(context.length, positions.device)
            positions, types = positions[:, held], None if types is None else types[:, held]
        if self.position_embeddings is not None:
            x_BTD = x_BTD + self.position_embeddings(positions, self.dtype)
        if self.type_embeddings is not None:
            assert types is not None
            x_BTD = x_BTD + self.type_embeddings(types, self.dtype)
        return drop(x_BTD, self.dropout, context.held_keys, self.embedding_salt)

    def _of_tokens(self, texts: Texts) -> Tensor:
        """Hidden states of the tokens [B, T held, D], whatever their places."""
        assert self.word_embeddings is not None
        return self.word_embeddings(self.seen(texts.tokens), self.dtype)


def _constants(architecture: Architecture) -> dict[str, Tensor]:
    """Tensors that follow from the architecture alone."""
    constants = {"embedding_salt": salt("embedding", 0)}
    if architecture.position_embedding_type == "rope":
        channels = int(architecture.kv_channels * architecture.rotary_percent)
        positions = architecture.max_position_embeddings
        stretch = Stretch(architecture.rotary_interpolation, architecture.rope_scaling)
        base = architecture.rotary_base
        constants["rotary_table"] = rotary_table(positions, channels, base, stretch)
        if architecture.near_layers:
            near = rotary_table(positions, channels, architecture.near_rotary_base)
            constants["near_rotary_table"] = near
    return constants
