"""The images that the flags name, in training, validation and test."""

import hashlib
from pathlib import Path

import numpy as np

from megatron.base.errors import UserError, collect_problems
from megatron.base.keys import key
from megatron.base.random import draw_each
from megatron.config.config import Config
from megatron.config.vision import CLASSES
from megatron.data.cifar import find_cifar
from megatron.data.corpora import SPLITS, Splits, made_up, parse_blend, sources_of
from megatron.data.image_folders import find_folders
from megatron.data.images import Files, ImageCorpus, ImageSet, Records, as_classes, make_corpus

MOCK_IMAGES = 256
Parts = dict[str, ImageSet]
"""Images by split, or all under ""."""


def open_images(config: Config) -> Splits:
    """Weights and corpora of every split; all have the classes of training, or of what there is without it.
    UserError tells of all folders."""
    splits: Splits = {split: [] for split in SPLITS}
    opened: dict[str, Parts] = {}
    problems: list[str] = []
    for split, (flag, paths, share) in sources_of(config.data).items():
        for weight, path in [] if config.data.mock_data else parse_blend(paths, flag):
            with collect_problems(problems):
                if path not in opened:
                    opened[path] = {}  # so that a mistake is told once
                    opened[path] = _open(Path(path), config.vision.valid_labels)
                if (corpus := _corpus(config, path, opened[path], split, share)) is not None:
                    splits[split].append((weight, corpus))
    if problems:
        raise UserError(*problems)
    if opened and not any(_is_labelled(part) for parts in opened.values() for part in parts.values()):
        _refuse_labels(config.vision.valid_labels)
    if config.data.mock_data:
        splits |= {split: [(None, _mock(config, split))] for split in made_up(config.data)}
    return _of_same_classes(splits, config.vision.classes_fraction)


def classes_of(splits: Splits) -> tuple[str, ...]:
    """Names of the classes, as numbers count them."""
    corpora = [corpus for blend in splits.values() for _, corpus in blend]
    return corpora[0].classes if corpora and isinstance(corpora[0], ImageCorpus) else ()


def _open(folder: Path, valid_labels: str | None) -> Parts:
    found: Parts = {}
    found.update(find_cifar(folder))
    if not found:
        found.update(find_folders(folder, valid_labels))
    return found


def _is_labelled(images: ImageSet) -> bool:
    """Whether a file tells their classes: they lie in no folders of classes."""
    return isinstance(images, Files) and "/" not in images.paths[0]


def _refuse_labels(valid_labels: str | None) -> None:
    if valid_labels:
        raise UserError(
            f"--valid-labels {valid_labels}: is not used, as all images lie in folders of classes, or in "
            "files that tell their classes; leave it out, or name the images that it is of by "
            "--valid-data-path"
        )


def _corpus(
    config: Config, path: str, parts: Parts, split: str, share: tuple[float, float]
) -> ImageCorpus | None:
    """A split of one set of images: its own part of that name, or the share of all of them. Images are in a
    random order that follows from their names alone."""
    images = parts.get(split) if "" not in parts else parts[""]
    if images is None:
        return None
    order = keyed_order(images)
    low, high = (0, len(order)) if "" not in parts else (round(bound * len(order)) for bound in share)
    order = order[low:high]
    if split == "train":
        order = _part_of_each(images.labels[order], order, config.vision.data_per_class_fraction)
    if not len(order):
        return None
    return make_corpus(path, images, order, (low, high), config.data.seq_length)


def keyed_order(images: ImageSet) -> np.ndarray:
    """Images by hashes of their names, so that a range of them is a fair sample, also of a folder in which
    classes lie one behind the other."""
    if isinstance(images, Files):
        hashes = [
            hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
            for path in images.paths
        ]
        return np.argsort(np.frombuffer(b"".join(hashes), np.uint64), kind="stable")
    return np.argsort(draw_each(np.uint64(key("images")), np.arange(len(images.labels))), kind="stable")


def _part_of_each(labels: np.ndarray, order: np.ndarray, fraction: float) -> np.ndarray:
    """The first images of every class, at least one of each."""
    if fraction == 1:
        return order
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    room = np.maximum((counts * fraction).astype(np.int64), 1)
    kept = by_class[np.arange(len(labels)) - before < room[labels[by_class]]]
    return order[np.sort(kept)]


def _of_same_classes(splits: Splits, fraction: float) -> Splits:
    """The same with the classes of training in one order, of which images of the first are left, or of all
    splits where there is no training."""
    names = [
        {
            corpus.classes[number]
            for _, corpus in splits[split]
            if isinstance(corpus, ImageCorpus)
            for number in (range(len(corpus.classes)))
        }
        for split in SPLITS
    ]
    every = sorted(names[0] or names[1] | names[2])
    classes = tuple(every[: max(int(len(every) * fraction), 1)])
    found: Splits = {}
    for split, blend in splits.items():
        members = [(weight, _limited(corpus, classes, fraction)) for weight, corpus in blend]
        found[split] = [(weight, corpus) for weight, corpus in members if corpus.windows]
    return found


def _limited(corpus: object, classes: tuple[str, ...], fraction: float) -> ImageCorpus:
    """A corpus with these classes; where they are a share of all, without images of the others."""
    assert isinstance(corpus, ImageCorpus)
    if fraction < 1:
        known = np.isin(np.array(corpus.classes), np.array(classes))[corpus.labels]
        order = corpus.order[known]
        corpus = make_corpus(corpus.name, corpus.images, order, corpus.sequences, corpus.seq_length)
    return as_classes(corpus, classes)


def _mock(config: Config, split: str) -> ImageCorpus:
    """Made-up images of stripes, one pattern a class, with noise."""
    vision = config.vision
    classes = vision.num_classes or CLASSES
    shape = (vision.num_channels, vision.img_h, vision.img_w)
    generator = np.random.Generator(np.random.Philox(key(config.training.seed, "mock", split)))
    labels = generator.integers(0, classes, MOCK_IMAGES)
    waves = draw_each(np.uint64(key("mock classes")), np.arange(2 * classes)).reshape(classes, 2) % 5 + 1
    places = np.meshgrid(np.arange(shape[1]) / shape[1], np.arange(shape[2]) / shape[2], indexing="ij")
    phase = np.tensordot(waves[labels].astype(float), np.stack(places), 1)
    pattern = 127 + 80 * np.sin(2 * np.pi * phase)[:, None] + generator.normal(0, 30, (MOCK_IMAGES, *shape))
    rows = np.stack([np.zeros(MOCK_IMAGES, np.int64), np.arange(MOCK_IMAGES)], 1)
    names = tuple(f"{number:0{len(str(classes - 1))}d}" for number in range(classes))
    table = np.clip(pattern, 0, 255).astype(np.uint8)
    images = Records(f"mock {split}", (table,), rows, labels, names, f"mock-{classes}")
    order = np.arange(MOCK_IMAGES)
    return make_corpus(f"mock {split}", images, order, (0, MOCK_IMAGES), config.data.seq_length)
