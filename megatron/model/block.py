"""One transformer layer: attention and MLP, each normalised before and added to the residual stream."""

from torch import Tensor, nn

from megatron.config.config import ModelConfig
from megatron.model.attention import Attention
from megatron.model.context import Context
from megatron.model.dropout import drop
from megatron.model.mlp import MLP
from megatron.model.norm import make_norm


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); `layer` is its number in the whole model."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, layer)
        self.mlp_norm = make_norm(config)
        self.mlp = MLP(config)
        self.dropout, self.layer = config.hidden_dropout, layer

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        update = self.attention(self.attention_norm(x_BTD), context)
        x_BTD = x_BTD + drop(update, self.dropout, context.dropout_keys, "attention output", self.layer)
        update = self.mlp(self.mlp_norm(x_BTD))
        return x_BTD + drop(update, self.dropout, context.dropout_keys, "mlp output", self.layer)
