"""Vision transformers: patches of an image and a token before them, whose last hidden state tells its class
(arXiv 2010.11929)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.model.architecture import Architecture, Pictures
from megatron.model.context import Sight
from megatron.model.inputs import ViTInputs
from megatron.model.transformer import Texts, Transformer
from megatron.parallel.layers import ONE_RANK, Linear, enter
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import add_constants, add_parameter
from megatron.parallel.stages import Stage

LOSS, ACCURACY, TOP5 = "loss", "accuracy", "top5 accuracy"
UNSCALED = {LOSS: 1.0}
SIGHT = Sight(causal=False)


class ViT(Transformer):
    """A vision transformer, or a stage of one; its vocabulary are the classes. `dropping`: the layers under
    random-LTD, which may drop [CLS] like any other token."""

    entrances = ("scores", "logits")
    behind_layers = ("final_norm", "head")

    def __init__(
        self,
        architecture: Architecture,
        dropping: tuple[int, ...] = (),
        mesh: Mesh = ONE_RANK,
        stage: Stage | None = None,
    ):
        super().__init__(architecture, dropping, mesh, stage)
        assert architecture.pictures is not None
        self.smoothing, classes = architecture.pictures.smoothing, architecture.vocab_size
        self.head: Linear | None = None
        if self.stage.last:
            every = slice(0, classes)  # the matrix is whole on every rank of the tensor axis
            self.head = Linear(
                architecture.hidden_size,
                classes,
                std=architecture.init_method_std,
                bias=True,
                rows=every,
                mesh=mesh,
            )

    def forward(
        self,
        inputs: ViTInputs,
        step_key: Tensor | None = None,
        scales: Mapping[str, float] = UNSCALED,
        received: Tensor | None = None,
    ) -> dict[str, Tensor] | Tensor:
        """The loss by its name: its scale · the sum over images; of a stage before the last, its hidden
        states. `step_key` (int64 scalar) from (seed, step) keys dropout; None drops nothing. `received`: the
        hidden states of the stage before."""
        hidden = self.hidden(_texts(inputs), step_key, received)
        if not self.stage.last:
            return hidden
        losses = self._losses(self._logits(hidden), inputs.labels, self.smoothing)
        counts = float(self.mesh.tensor.rank == 0)  # the other ranks of the tensor axis have the same images
        return {LOSS: losses.sum() * (scales[LOSS] * counts)}

    @torch.no_grad()
    def scores(self, inputs: ViTInputs, received: Tensor | None = None) -> dict[str, Tensor] | Tensor:
        """Of every image [B] its loss, and whether its class is the likeliest one, or one of the likeliest
        five; nothing dropped or smoothed. Of a stage before the last, its hidden states."""
        hidden = self.hidden(_texts(inputs), None, received)
        if not self.stage.last:
            return hidden
        logits = self._logits(hidden)
        likeliest = logits.topk(min(5, logits.shape[1])).indices == inputs.labels[:, None]
        losses = self._losses(logits, inputs.labels)
        return {LOSS: losses, ACCURACY: likeliest[:, 0], TOP5: likeliest.any(1)}

    @torch.no_grad()
    def logits(self, inputs: ViTInputs) -> Tensor:
        """[B, classes], of a whole model, nothing dropped."""
        return self._logits(self.hidden(_texts(inputs), None))

    def _add_token_embeddings(self, architecture: Architecture) -> None:
        assert architecture.pictures is not None
        self.patches: Patches | None = None
        if self.stage.first:
            self.patches = Patches(
                architecture.pictures, architecture.hidden_size, architecture.init_method_std, self.mesh
            )

    def _of_tokens(self, texts: Texts) -> Tensor:
        assert self.patches is not None and texts.pixels is not None
        return self.patches(texts.pixels, self.precision)

    def _logits(self, hidden_BTD: Tensor) -> Tensor:
        """In at least float32."""
        assert self.head is not None
        logits = self.head(enter(hidden_BTD[:, 0], self.mesh))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @staticmethod
    def _losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


class Patches(nn.Module):
    """Hidden states of [CLS] and of an image's patches, which one matrix makes of their pixels: a convolution
    whose steps are as long as its kernel is wide."""

    class_token: nn.Parameter
    scale: Tensor
    shift: Tensor

    def __init__(self, pictures: Pictures, hidden_size: int, std: float, mesh: Mesh = ONE_RANK):
        super().__init__()
        self.patch = pictures.patch
        self.projection = Linear(pictures.patch_size, hidden_size, std=std, bias=True, mesh=mesh)
        add_parameter(self, "class_token", (1, hidden_size), sum_over=mesh.sum_over, std=std)
        add_constants(self, lambda: _normalisation(pictures))

    def forward(self, pixels: Tensor, precision: torch.dtype) -> Tensor:
        """From uint8 [B, channels, height, width] to [B, 1 + patches, D] in this precision."""
        kind = self.projection.weight.dtype
        normal = pixels.to(kind) * self.scale.to(kind) + self.shift.to(kind)
        found = self.projection(unfolded(normal, self.patch).to(precision))
        first = self.class_token.to(precision).expand(len(found), 1, -1)
        return torch.cat([first, found], 1)


def unfolded(image_BCHW: Tensor, patch: int) -> Tensor:
    """The patches of images from left to right and from top to bottom, each as its channels' rows: [B,
    patches, channels · patch²]."""
    images, channels, height, width = image_BCHW.shape
    grid = image_BCHW.view(images, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def resized_positions(table: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """A table of positions [1 + patches, D] for another grid of patches: bicubic between those of patches, as
    transformers' `interpolate_pos_encoding` has it. That of [CLS] stays."""
    first, of_patches = table[:1], table[1:]
    grid_1DHW = of_patches.view(*before, -1).permute(2, 0, 1)[None]
    found = F.interpolate(grid_1DHW, size=after, mode="bicubic", align_corners=False)
    return torch.cat([first, found[0].permute(1, 2, 0).reshape(-1, table.shape[1])])


def _normalisation(pictures: Pictures) -> dict[str, Tensor]:
    """Factor and summand that make (pixel / 255 - mean) / std of a pixel, by channel."""
    mean, std = (torch.tensor(part, dtype=torch.float64) for part in (pictures.mean, pictures.std))
    return {"scale": (1 / (255 * std))[:, None, None], "shift": (-mean / std)[:, None, None]}


def _texts(inputs: ViTInputs) -> Texts:
    return Texts(inputs.tokens, inputs.rows, sight=SIGHT, kept=inputs.kept, pixels=inputs.pixels)
