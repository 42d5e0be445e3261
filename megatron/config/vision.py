"""The flags of vision transformers and of their images, and the rules between them."""

import dataclasses
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from megatron.config.data import DataConfig
from megatron.config.experts import ExpertsConfig
from megatron.config.flags import flag, spelling
from megatron.config.model import ModelConfig
from megatron.config.parallel import ParallelConfig
from megatron.config.tokenizer import TokenizerOptions

CLASSES = 1000
"""Of made-up images, as many as ImageNet has."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Means and standard deviations of ImageNet's channels, as most models on images take them."""
HELD_OUT = ("val", "valid", "validation", "dev")
"""What the folder of a dataset's validation is called."""


@dataclass(frozen=True)
class VisionConfig:
    img_h: int = flag(224, "height of the images that the model sees, in pixels", at_least=1)
    img_w: int = flag(224, "their width", at_least=1)
    num_channels: int = flag(3, "3 for colours, 1 for shades of grey", choices=(1, 3))
    patch_dim: int = flag(16, "side of a square patch, in pixels", at_least=1)
    num_classes: int | None = flag(
        None, "classes that the model tells apart; as many as the data has", at_least=2, resume="meaning"
    )
    disable_qkv_bias: bool = flag(False, "no biases of queries, keys and values; other matrices keep theirs")
    img_mean: tuple[float, ...] = flag(
        (),
        "mean of every channel, where 1 is white; ImageNet's, and 0.5 of grey",
        follows=lambda vision: IMAGENET[0] if vision.num_channels == 3 else (0.5,),
    )
    img_std: tuple[float, ...] = flag(
        (),
        "standard deviation of every channel; ImageNet's, and 0.5 of grey",
        above=0,
        follows=lambda vision: IMAGENET[1] if vision.num_channels == 3 else (0.5,),
    )
    img_crop_scale: float = flag(
        0.08, "least share of an image that a random crop of it has; 1: no crop", above=0, at_most=1
    )
    img_flip: float = flag(0.5, "share of training images that are mirrored", at_least=0, at_most=1)
    img_interpolation: str = flag("bilinear", "how images are resized", choices=("bilinear", "bicubic"))
    rand_augment: int = flag(0, "operations of RandAugment on a training image", at_least=0)
    rand_augment_magnitude: int = flag(9, "how strong these are, of 30", at_least=0, at_most=30)
    img_eval_crop: float = flag(
        0.875, "side of the middle that validation sees, of the whole image's", above=0, at_most=1
    )
    label_smoothing: float = flag(
        0.0, "share of a label that all classes have alike in training", at_least=0, below=1
    )
    classes_fraction: float = flag(
        1.0, "share of the classes that are trained, the first by name", above=0, at_most=1
    )
    data_per_class_fraction: float = flag(
        1.0, "share of every class's training images that are trained", above=0, at_most=1
    )
    valid_labels: str | None = flag(
        None,
        "file with the classes of validation images that lie in no folders of classes",
        metavar="FILE",
        resume="meaning",
    )
    on_bad_image: str = flag(
        "stop",
        "what happens where a file is no image: the run stops, or takes the next image",
        choices=("stop", "next"),
        resume="free",
    )
    image_workers: int = flag(2, "threads that read and augment images", at_least=1, resume="free")
    pretrained_checkpoint: str | None = flag(
        None,
        "start from these weights: a checkpoint, or a folder of Hugging Face's; with another number of "
        "classes the head is new",
        metavar="FOLDER",
        resume="free",
    )


SHAPE = ("img_h", "img_w", "patch_dim")
OF_THE_MODEL = ("img_h", "img_w", "num_channels", "patch_dim", "disable_qkv_bias", "img_mean", "img_std")
"""Flags of this group that say what the model is, and not what it is fed."""


def tokens_of(vision: VisionConfig) -> int:
    """Tokens of an image: its patches, and [CLS]."""
    return (vision.img_h // vision.patch_dim) * (vision.img_w // vision.patch_dim) + 1


def with_lengths(values: dict[str, Any]) -> dict[str, Any]:
    """The given values of a ViT's flags, with the length of its rows and the number of its outputs where they
    are not given, as they follow from its images; unknown where these are refused."""
    shape = {name: values.get(name, VisionConfig.__dataclass_fields__[name].default) for name in SHAPE}
    known = None not in shape.values()
    length = tokens_of(VisionConfig(**shape)) if known else None
    found = {"seq_length": length} | values
    if outputs := values.get("num_classes") or (CLASSES if values.get("mock_data") else None):
        found = {"vocab_size": outputs} | found
    return found


def _images(vision: VisionConfig) -> list[str]:
    found = [
        f"{spelling(name)} {getattr(vision, name)} is no multiple of --patch-dim {vision.patch_dim}; change "
        "one of them"
        for name in ("img_h", "img_w")
        if getattr(vision, name) % vision.patch_dim
    ]
    for name in ("img_mean", "img_std"):
        if len(numbers := getattr(vision, name)) != vision.num_channels:
            found.append(
                f"{spelling(name)} {' '.join(map(str, numbers))}: give a number for each channel of "
                f"--num-channels {vision.num_channels}"
            )
    if vision.rand_augment_magnitude != 9 and not vision.rand_augment:
        found.append(
            f"--rand-augment-magnitude {vision.rand_augment_magnitude} needs --rand-augment; give it, or "
            "leave this out"
        )
    return found


def _tokens(vision: VisionConfig, data: DataConfig, model: ModelConfig) -> list[str]:
    length, problems = tokens_of(vision), _images(vision)
    given = {"--seq-length": data.seq_length, "--max-position-embeddings": model.max_position_embeddings}
    return [
        f"{name} {value}: an image of {vision.img_h} x {vision.img_w} pixels has {length} tokens, its "
        "patches and [CLS]; leave it out"
        for name, value in given.items()
        if value != length and not problems and (name == "--seq-length" or data.seq_length == length)
    ]


TEXT = ("tokenizer_type", "tokenizer_model", "vocab_file", "eod_token")


def _data(vision: VisionConfig, data: DataConfig, tokenizer: TokenizerOptions) -> list[str]:
    found = []
    names = [PurePath(path).name for path in data.data_path]
    if len(names) == 2 and names[0] == "train" and names[1] in HELD_OUT:
        found.append(
            f"--data-path {' '.join(data.data_path)}: would train on both; give the folder that holds them, "
            "or --train-data-path and --valid-data-path"
        )
    asked = vision.num_classes or (CLASSES if data.mock_data else None)
    words = {name: getattr(tokenizer, name) for name in TEXT}
    words["vocab_size"] = tokenizer.vocab_size if tokenizer.vocab_size != asked else None
    for name in ("eod_mask_loss", "reset_position_ids", "reset_attention_mask", "allow_trailing_bytes"):
        words[name] = getattr(data, name)
    if given := [spelling(name) for name, value in words.items() if value]:
        found.append(f"{', '.join(given)}: images have no tokens of text; leave it out")
    return found


def of_vit(model: ModelConfig, parallel: ParallelConfig, experts: ExpertsConfig) -> list[str]:
    """What a vision transformer's run cannot have."""
    found = []
    if model.position_embedding_type != "learned_absolute":
        found.append(
            f"--position-embedding-type {model.position_embedding_type}: patches lie in two directions, and "
            "only learned_absolute is built for them; leave it out"
        )
    if model.untie_embeddings_and_output_weights:
        found.append("--untie-embeddings-and-output-weights: patches have no table of tokens; leave it out")
    shared = {
        "--sequence-parallel": parallel.sequence_parallel,
        f"--context-parallel-size {parallel.context_parallel_size}": parallel.context_parallel_size > 1,
    }
    if given := [name for name, value in shared.items() if value]:
        found.append(
            f"{', '.join(given)}: the patches and [CLS] of an image are no number that ranks could share; "
            "leave it out, and share the model by tensors, layers or replicas"
        )
    if experts.num_experts > 1:
        found.append("--num-experts: mixtures of experts are built by pretrain_gpt.py alone; leave it out")
    return found


def of_text(vision: VisionConfig) -> list[str]:
    """Flags of images, which do nothing in a run on text."""
    plain = {"img_mean": IMAGENET[0], "img_std": IMAGENET[1]}
    given = [
        field.name
        for field in dataclasses.fields(VisionConfig)
        if getattr(vision, field.name) not in (plain.get(field.name), field.default)
    ]
    found = []
    if "pretrained_checkpoint" in given:
        given.remove("pretrained_checkpoint")
        found.append("--pretrained-checkpoint: give --load FOLDER --finetune to start from its weights")
    words = ", ".join(map(spelling, given))
    return [*found, f"{words}: belongs to pretrain_vit.py; leave it out"] if given else found


OF_TASK = (_images, _tokens, _data, of_vit)
"""Rules of a vision transformer's run."""
