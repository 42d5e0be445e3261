"""One transformer layer: attention, and an MLP or a mixture of experts, each normalised before and added to
the residual stream."""

from torch import Tensor, nn

from megatron.model.architecture import Architecture
from megatron.model.attention import Attention
from megatron.model.context import Context
from megatron.model.dropout import drop, salt
from megatron.model.experts import MixtureOfExperts
from megatron.model.mlp import MLP
from megatron.model.norm import make_norm
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import add_constants


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); `layer` is its number in the whole model. Where
    residuals are taken after the norm it is norm(x) + attention(norm(x)) and so on: the layer of arXiv
    1810.04805, whose last norm is the first one of the next layer."""

    attention_salt: Tensor
    mlp_salt: Tensor

    def __init__(self, architecture: Architecture, layer: int, mesh: Mesh = ONE_RANK):
        super().__init__()
        self.attention_norm = make_norm(architecture, mesh)
        self.attention = Attention(architecture, layer, mesh)
        self.mlp_norm = make_norm(architecture, mesh)
        mixture = architecture.mixture
        mixed = mixture is not None and layer in mixture.layers
        self.mlp = MixtureOfExperts(architecture, layer, mesh) if mixed else MLP(architecture, mesh)
        self.dropout = architecture.hidden_dropout
        self.after_norm = architecture.residual_after_norm
        self.after_first_norm = self.after_norm or (architecture.embedding_norm and layer == 0)
        add_constants(
            self,
            lambda: {
                "attention_salt": salt("attention output", layer),
                "mlp_salt": salt("mlp output", layer),
            },
        )

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        normed = self.attention_norm(x_BTD)
        update = self.attention(normed, context)
        x_BTD = normed if self.after_first_norm else x_BTD
        x_BTD = x_BTD + drop(update, self.dropout, context.held_keys, self.attention_salt)
        normed = self.mlp_norm(x_BTD)
        update = self.mlp(normed, context)
        x_BTD = normed if self.after_norm else x_BTD
        return x_BTD + drop(update, self.dropout, context.held_keys, self.mlp_salt)
