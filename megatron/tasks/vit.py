"""Training a vision transformer: the classes of images."""

from functools import partial

import torch
from torch import Tensor, nn

from megatron.base.errors import UserError
from megatron.batches.augment import Augmentation
from megatron.batches.loader import Rows
from megatron.batches.vit import ViTFormat, make_batch, plain_batch
from megatron.config.bert import of_gpt
from megatron.config.config import Config
from megatron.config.vision import OF_TASK, VisionConfig, with_lengths
from megatron.data.corpora import more_of
from megatron.data.image_splits import classes_of, open_images
from megatron.data.vocabulary import Vocabulary
from megatron.model.inputs import ViTInputs
from megatron.model.vit import ACCURACY, LOSS, TOP5, ViT
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh
from megatron.parallel.stages import Stage
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.tasks.architecture import vit_architecture, vit_flops
from megatron.tasks.task import Data, Task


def open_data(config: Config) -> Data:
    """The images that the flags name, and their classes. UserError where training or validation has none."""
    splits = open_images(config)
    if not splits["train"]:
        raise UserError(f"no image is left for training; bring some, or {more_of(config.data, 'train')}")
    if not splits["valid"] and config.logging.eval_interval and config.logging.eval_iters:
        raise UserError(
            "no image is left for validation; bring a folder val beside train, "
            f"{more_of(config.data, 'valid')}, or set --eval-iters 0"
        )
    return Data(splits, vocabulary_of(classes_of(splits), config.vision))


def vocabulary_of(classes: tuple[str, ...], vision: VisionConfig) -> Vocabulary:
    """The classes as a vocabulary. UserError where the model shall tell fewer apart, or there is one."""
    asked = vision.num_classes or len(classes)
    if len(classes) < 2:
        raise UserError(
            f"all images are of the class {', '.join(classes)}, and a model tells several apart; bring "
            "images of others, or raise --classes-fraction"
        )
    if asked < len(classes):
        raise UserError(
            f"--num-classes {asked}: the images are of {len(classes)} classes; leave it out, or train a part "
            "of them by --classes-fraction"
        )
    return Vocabulary(asked, None, {"classes": list(classes)})


def make_rows(config: Config, efficiency: DataEfficiency, vocabulary: Vocabulary) -> Rows:
    """How images become rows. UserError where a curriculum would order or cut them."""
    names = [metric.name for metric in efficiency.metrics]
    if given := names + ([efficiency.length_metric] if efficiency.length_metric else []):
        raise UserError(
            f"the curriculum {', '.join(given)} is of texts: all images are equally long, and none has a "
            "difficulty; leave it out with pretrain_vit.py (random-LTD works)"
        )
    vision = config.vision
    row_format = ViTFormat(
        augmentation=Augmentation(
            height=vision.img_h,
            width=vision.img_w,
            crop_scale=vision.img_crop_scale,
            flip=vision.img_flip,
            interpolation=vision.img_interpolation,
            operations=vision.rand_augment,
            magnitude=vision.rand_augment_magnitude,
            eval_crop=vision.img_eval_crop,
        ),
        channels=vision.num_channels,
        length=config.data.seq_length,
        dropping=efficiency.dropping_layers,
        seed=config.training.seed,
        workers=vision.image_workers,
        bad_is_next=vision.on_bad_image == "next",
    )
    return Rows(partial(make_batch, row_format=row_format), partial(plain_batch, row_format=row_format))


def build_model(
    config: Config,
    vocab_size: int,
    dropping: tuple[int, ...] = (),
    mesh: Mesh = ONE_RANK,
    stage: Stage | None = None,
) -> ViT:
    """The model, or a stage of it, its weights not yet filled."""
    return ViT(vit_architecture(config, vocab_size), dropping, mesh, stage)


def row_losses(
    model: nn.Module, inputs: ViTInputs, received: Tensor | None = None
) -> dict[str, Tensor] | Tensor:
    """Loss and right answers with their counts [rows, 2] of every image; of a stage before the last, its
    hidden states."""
    assert isinstance(model, ViT)
    found = model.scores(inputs, received)
    if isinstance(found, Tensor):
        return found
    return {
        name: torch.stack([part.double(), torch.ones_like(part, dtype=torch.float64)], 1)
        for name, part in found.items()
    }


VIT_TASK = Task(
    name="vit",
    open_data=open_data,
    open_splits=open_images,
    make_rows=make_rows,
    build_model=build_model,
    losses=lambda config: {LOSS: lambda inputs: len(inputs.labels)},
    known_counts=lambda config, step: {LOSS: step.batch_size},
    measures=lambda config: (LOSS, ACCURACY, TOP5),
    row_losses=row_losses,
    row_flops=vit_flops,
    architecture=vit_architecture,
    layer_losses=lambda config: {},
    rules=(*OF_TASK, of_gpt),
    given=with_lengths,
)
