"""Images that lie in a folder for each class, and those of ImageNet's validation, which may lie in one with a
file of their classes."""

import csv
import re
from pathlib import Path

import numpy as np

from megatron.base.errors import UserError
from megatron.base.folders import holds_file, list_folder, or_nearest
from megatron.base.terminal import print_note
from megatron.config.vision import HELD_OUT
from megatron.data.images import Files, digest

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
OTHER = "file of another kind"
PARTS = {"train": ("train", "training"), "valid": HELD_OUT, "test": ("test", "testing")}
"""How the parts of a data set are called, in letters of any case."""
DEVKIT = "meta.mat"


def find_folders(folder: Path, valid_labels: str | None = None) -> dict[str, Files]:
    """The images of "train", "valid" and "test" where the folder has such parts, of which "train" is one;
    else all under "". UserError where there are none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder{or_nearest(str(folder))}")
    there = [one for one in folder.iterdir() if one.is_dir()]
    there.sort(key=lambda one: (one.name != one.name.lower(), one))  # small letters first
    found = {
        split: [one for name in names for one in there if one.name.lower() == name]
        for split, names in PARTS.items()
    }
    if not found["train"]:
        return {"": _in_classes(folder, paths := _images(folder)) or _labelled(folder, paths, valid_labels)}
    train = found["train"][0]
    taken = {train, *found["valid"][:1], *found["test"][:1]}
    if others := [one.name for one in there if one not in taken and holds_file(one, _is_image)]:
        print_note(f"{folder}: {', '.join(others)} beside {train.name} left out")
    parts = {"train": _in_classes(train, paths := _images(train)) or _without_classes(train, paths)}
    for split in ("valid", "test"):
        for place in found[split][:1]:
            part = _in_classes(place, paths := _images(place), may_be_empty=True)
            if part is None and split == "test":
                print_note(f"{place}: holds no folders of classes, and is left out")
            else:
                parts[split] = part or _labelled(place, paths, valid_labels, parts["train"].classes)
    return parts


def _in_classes(folder: Path, every: list[str], may_be_empty: bool = False) -> Files | None:
    """Images by the folder that they are in; None where some are in none."""
    paths = [path for path in every if "/" in path]
    if len(paths) < len(every) or not every:
        if paths:
            loose = next(path for path in every if "/" not in path)
            raise UserError(
                f"{folder / loose}: lies beside folders of classes; move it into that of its class, or away"
            )
        return None
    names = np.array([path.partition("/")[0] for path in paths])
    classes, labels = np.unique(names, return_inverse=True)
    there = {one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")}
    if (empty := sorted(there - {*classes.tolist()} - {"__MACOSX"})) and not may_be_empty:
        raise UserError(f"{folder / empty[0]}: holds no image; remove the folder, or bring its images")
    return Files(folder, paths, labels, tuple(classes.tolist()), digest(paths))


def _images(folder: Path) -> list[str]:
    """Paths of the images below a folder, sorted. Says what else is there, so one asks once."""

    def judge(path: str) -> str:
        return "" if _is_image(path) else OTHER

    start = len(str(folder).rstrip("/")) + 1
    return [path[start:] for path in list_folder(str(folder).rstrip("/"), judge)]


def _is_image(path: str) -> bool:
    return Path(path).suffix.lower() in ENDINGS


def _without_classes(folder: Path, paths: list[str]) -> Files:
    if not paths:
        raise UserError(f"{folder}: holds no image; name a folder with a folder for each class")
    raise UserError(
        f"{folder}: its images lie in no folders of classes; put those of every class into a folder of its "
        "own, such as cat/1.jpg and dog/1.jpg"
    )


def _labelled(
    folder: Path, paths: list[str], valid_labels: str | None, classes: tuple[str, ...] = ()
) -> Files:
    """Images of one folder, whose classes a file tells."""
    if valid_labels is None or not paths:
        if paths and classes:
            raise UserError(
                f"{folder}: its images lie in no folders of classes; name the file that tells their classes "
                "by --valid-labels"
            )
        return _without_classes(folder, paths)
    names = read_labels(Path(valid_labels), [Path(path).stem for path in paths], classes)
    known, labels = np.unique(np.array(names), return_inverse=True)
    return Files(folder, paths, labels, tuple(known.tolist()), digest(paths, labels))


def read_labels(path: Path, stems: list[str], classes: tuple[str, ...] = ()) -> list[str]:
    """The class of every image, by the files' names without ending. A line is an image and its class, as in
    Kaggle's LOC_val_solution.csv or in Caffe's val.txt, where it is a number of `classes` from 0; or the
    class alone, in the images' order, as in the devkit's ground truth, whose numbers `meta.mat` beside it
    explains. UserError where a line is none, or images are missing."""
    if not path.is_file():
        raise UserError(f"--valid-labels {path}: is no file{or_nearest(str(path))}")
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    known = {*stems}
    rows = [_row(path, number, line, known) for number, line in enumerate(lines, 1) if line.strip()]
    if rows and all(len(words) == 1 for _, words in rows):
        names = [words[0] for _, words in rows]
        if len(names) != len(stems):
            raise UserError(
                f"{path}: tells {len(names):,} classes, and there are {len(stems):,} images; bring both of "
                "one data set"
            )
        return _of_devkit(path, names) if names[0].isdigit() else names
    found = {}
    for number, words in rows:
        if len(words) < 2:
            raise UserError(f"{path}:{number}: must be an image and its class, not {' '.join(words)!r}")
        image = Path(words[0])
        found[image.stem if image.suffix.lower() in ENDINGS else image.name] = words[1]
    if missing := [stem for stem in stems if stem not in found]:
        more = _more(len(missing) - 1)
        raise UserError(f"{path}: tells no class of {missing[0]}{more}; add it, or move these images away")
    names = [found[stem] for stem in stems]
    if classes and all(name.isdigit() and int(name) < len(classes) for name in names):
        return [classes[int(name)] for name in names]
    return names


def _row(path: Path, number: int, line: str, stems: set[str]) -> tuple[int, list[str]]:
    """The number of a line, and its cells. UserError where it has none."""
    try:
        return number, _cells(line.strip(), stems)
    except csv.Error as error:
        raise UserError(f"{path}:{number}: cannot be read ({error}); mend its quotes") from None


def _cells(line: str, stems: set[str]) -> list[str]:
    """An image and its class, or a class alone. Where tabs part them, or commas behind what names an image,
    they may hold spaces, and the boxes that Kaggle has behind a class are left out."""
    for parted in "\t,":
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=parted))]
        image = Path(cells[0])
        is_image = image.suffix.lower() in ENDINGS or image.name in stems or len(line.split()) == 1
        if len(cells) > 1 and (parted == "\t" or is_image):
            return [cells[0], re.sub(r"^(\S+)(?: +\d+){4}(?: .*)?$", r"\1", cells[1])]
    quoted = len(cells) == 1 and line[0] == line[-1] == '"'
    return cells if quoted else line.split()


def _more(count: int) -> str:
    return f" and of {count:,} more images" if count else ""


def _of_devkit(path: Path, numbers: list[str]) -> list[str]:
    """Names of ImageNet's classes from the devkit's numbers."""
    from scipy.io import loadmat  # (which takes a while to import)

    meta = path.parent / DEVKIT
    if not meta.is_file():
        raise UserError(
            f"{path}: numbers classes as ImageNet's devkit, whose {DEVKIT} is not beside it; copy it there"
        )
    try:
        synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
        ids = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}
        return [ids[int(number)] for number in numbers]
    except Exception as error:  # whatever scipy raises where a file is damaged
        raise UserError(f"{meta}: does not name the classes of {path} ({error}); bring it again") from None
