"""Images as samples: what a split of them is, and how one is read by Pillow.

(torchvision would read them, too. Its wheels do not import beside a CPU's build of torch.)
"""

import contextlib
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

from megatron.base.errors import UserError
from megatron.data.corpora import Corpus

MODES = {1: "L", 3: "RGB"}
DAMAGED_EXIF = "(Possibly )?corrupt EXIF|Tag data larger than file"
"""How warnings of Pillow's begin about EXIF data that then says nothing."""
warnings.filterwarnings("ignore", DAMAGED_EXIF)
FEW = 3
"""Names that a message tells of many."""


class Files(NamedTuple):
    """Images that are files of a folder, `paths` below it."""

    folder: Path
    paths: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    fingerprint: str

    def name(self, number: int) -> str:
        return str(self.folder / self.paths[number])

    def open(self, number: int) -> Image.Image:
        return Image.open(self.folder / self.paths[number])


class Records(NamedTuple):
    """Images that are rows of tables of pixels, [images, channels, height, width] each, `title` of which
    names them; `places`: table and row of each image."""

    title: str
    tables: tuple[np.ndarray, ...]
    places: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    fingerprint: str

    def name(self, number: int) -> str:
        return f"{self.title}, image {number}"

    def open(self, number: int) -> Image.Image:
        table, row = self.places[number]
        pixels = np.moveaxis(self.tables[table][row], 0, -1)
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


ImageSet = Files | Records
"""Images by their numbers. `labels`: the class of each, a number in `classes`."""


@dataclass(frozen=True, kw_only=True)
class ImageCorpus(Corpus):
    """A split of one set of images. Sample i is the image `order[i]` of `images`, and `labels[i]` the
    number of its class in `classes`."""

    images: ImageSet
    order: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def describe(self) -> str:
        """Its samples in words."""
        return f"{self.windows:,} images of {len(np.unique(self.labels)):,} classes"


def make_corpus(
    name: str, images: ImageSet, order: np.ndarray, share: tuple[int, int], length: int
) -> ImageCorpus:
    """The corpus of these images, whose labels are those of `images` themselves until `as_classes` gives
    others. `share`: the range of all images that the split is of; `length`: tokens of an image."""
    return ImageCorpus(
        name=name,
        tokens=None,
        windows=len(order),
        seq_length=length,
        sequences=share,
        source=images.fingerprint,
        images=images,
        order=order,
        labels=images.labels[order].astype(np.int64),
        classes=images.classes,
    )


def as_classes(corpus: ImageCorpus, classes: tuple[str, ...]) -> ImageCorpus:
    """The same with the numbers that its classes have among these. UserError where it has images of
    others."""
    if corpus.classes == classes:
        return corpus
    places = {name: number for number, name in enumerate(classes)}
    numbers = np.array([places.get(name, -1) for name in corpus.classes], np.int64)
    labels = numbers[corpus.labels]
    if len(strange := np.unique(corpus.labels[labels < 0])):
        names = [corpus.classes[number] for number in strange[:FEW]]
        more = f" and {len(strange) - FEW} more" if len(strange) > FEW else ""
        raise UserError(
            f"{corpus.name}: has images of {', '.join(names)}{more}, which training has none of; leave them "
            "out, or bring images to train them on"
        )
    return replace(corpus, labels=labels, classes=classes)


def read_image(corpus: ImageCorpus, sample: int, channels: int, bad_is_next: bool = False) -> Image.Image:
    """A sample in colours or shades of grey. UserError where it cannot be decoded; with `bad_is_next` a note,
    and the next one that can."""
    for number in range(corpus.windows):
        place = int(corpus.order[(sample + number) % corpus.windows])
        try:
            return _decoded(corpus.images, place, channels)
        except UserError as error:
            if not bad_is_next:
                raise
            print(f"note: {error.problems[0].partition(';')[0]}; the next image takes its place", flush=True)
    raise UserError(f"{corpus.name}: none of its images can be decoded; bring them again")


def _decoded(images: ImageSet, number: int, channels: int) -> Image.Image:
    try:
        with images.open(number) as image:
            image.load()
            return in_mode(upright(image), MODES[channels])
    except Exception as error:  # whatever Pillow's many decoders raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{images.name(number)}: cannot be decoded ({why}); mend or remove it, or give --on-bad-image "
            "next"
        ) from None


def upright(image: Image.Image) -> Image.Image:
    """The image as it is shown: cameras write in its EXIF data how it is to be turned. What is damaged there
    says nothing."""
    with contextlib.suppress(Exception):  # whatever Pillow raises of such data
        ImageOps.exif_transpose(image, in_place=True)  # (else an upright one is copied)
    return image


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image in 8 bits a channel; transparency is left out. ValueError where it has no such values."""
    if image.mode == mode:
        return image.copy()
    if image.mode.startswith("I"):  # of 16 bits a pixel the upper half is kept; 32 hold any numbers
        numbers = np.asarray(image).astype(np.int64)
        bits = 0 if image.mode == "I" and numbers.max() < 256 else 8
        return Image.fromarray(np.clip(numbers >> bits, 0, 255).astype(np.uint8)).convert(mode)
    if image.mode == "F":
        raise ValueError("its pixels are fractions")
    if image.mode == "LAB":  # which Pillow converts by its profiles alone
        profiles = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))
        image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB") or image
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert(mode)


def digest(words: Sequence[str], numbers: np.ndarray | None = None) -> str:
    """A short fingerprint of names, and of numbers."""
    found = hashlib.sha256("\n".join(words).encode("utf-8", "surrogateescape"))
    if numbers is not None:
        found.update(np.ascontiguousarray(numbers).tobytes())
    return found.hexdigest()[:32]
