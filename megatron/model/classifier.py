"""An encoder whose head tells the class, or the value, of a text or of a pair of texts (arXiv 1810.04805)."""

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.model.architecture import Architecture
from megatron.model.bert import PairHead, Transform
from megatron.model.context import Sight
from megatron.model.dropout import drop, salt, token_keys
from megatron.model.inputs import ClassifierInputs
from megatron.model.transformer import Texts, Transformer
from megatron.parallel.layers import ONE_RANK, enter
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import add_constants
from megatron.parallel.stages import Stage

TASK_LOSS = "task loss"
UNSCALED = {TASK_LOSS: 1.0}
POOLER, MEAN = "pooler", "mean"


class Classifier(Transformer):
    """An encoder with `outputs` logits; one output is a value. `head`: before the last matrix stand BERT's
    pooler and tanh ("pooler"); or a matrix, an activation and a norm, as in ModernBERT, of the first token
    ("cls") or of the mean over all ("mean"). Tensors bear the names that they have in an encoder with heads
    for pairs and for masked tokens."""

    entrances = ("logits",)
    behind_layers = ("final_norm", "token_head", "pair_head")

    def __init__(
        self,
        architecture: Architecture,
        outputs: int,
        head: str = POOLER,
        mesh: Mesh = ONE_RANK,
        stage: Stage | None = None,
    ):
        super().__init__(replace(architecture, tied_head=False), (), mesh, stage)
        self.head = head
        self.token_head = None if head == POOLER else Transform(architecture, mesh)
        self.pair_head = PairHead(architecture, mesh, outputs, pools=head == POOLER)
        add_constants(self.pair_head, lambda: {"salt": salt("classifier", 0)})

    def forward(
        self,
        inputs: ClassifierInputs,
        step_key: Tensor | None = None,
        scales: Mapping[str, float] = UNSCALED,
        received: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss by its name: its scale · the sum over rows. `step_key` (int64 scalar) from (seed, step)
        keys dropout; None drops nothing."""
        losses = row_losses(self._scores(inputs, step_key), inputs)
        counts = float(self.mesh.tensor.rank == 0)  # the other ranks of the tensor axis have the same rows
        return {TASK_LOSS: losses.sum() * (scales[TASK_LOSS] * counts)}

    @torch.no_grad()
    def logits(self, inputs: ClassifierInputs) -> Tensor:
        """[rows, outputs], nothing dropped."""
        return self._scores(inputs, None)

    def _scores(self, inputs: ClassifierInputs, step_key: Tensor | None) -> Tensor:
        sight = Sight(False, ends=inputs.ends)
        hidden = self.hidden(Texts(inputs.tokens, inputs.rows, types=inputs.types, sight=sight), step_key)
        keys = None
        if step_key is not None and self.training:
            keys = token_keys(step_key, inputs.rows, 1)

        def dropped(pooled: Tensor) -> Tensor:
            return drop(pooled[:, None], self.dropout, keys, self.pair_head.salt)[:, 0]

        whole_BTD = enter(hidden, self.mesh)
        seen = _mean(whole_BTD, inputs.ends) if self.head == MEAN else whole_BTD[:, 0]
        return self.pair_head(seen if self.token_head is None else self.token_head(seen), dropped)


def _mean(hidden_BTD: Tensor, ends_B1: Tensor | None) -> Tensor:
    """Over the tokens of every row without its padding [B, D]."""
    if ends_B1 is None:
        return hidden_BTD.mean(1)
    is_real = torch.arange(hidden_BTD.shape[1], device=hidden_BTD.device) < ends_B1
    return (hidden_BTD * is_real[..., None]).sum(1) / ends_B1.to(hidden_BTD.dtype)


def row_losses(logits: Tensor, inputs: ClassifierInputs) -> Tensor:
    """Cross-entropy of every row, or of one output the squared error; [rows] in at least float32."""
    assert inputs.labels is not None
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[1] == 1:
        return (logits[:, 0] - inputs.labels.to(logits.dtype)).square()
    return F.cross_entropy(logits, inputs.labels, reduction="none")
