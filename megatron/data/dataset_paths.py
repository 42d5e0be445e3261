"""Whether a path is that of a dataset, and what may be meant where it is not."""

import glob
import os
import re

from megatron.base.errors import UserError
from megatron.base.files import lfs_problem
from megatron.base.folders import nearest
from megatron.config.values import as_words, converts

AGAIN = "make the dataset again, or copy it again if it came from elsewhere"

NO_TEXT = (".npy", ".npz", ".pt", ".pth", ".safetensors", ".arrow", ".tfrecord", ".tfrecords", ".mds", ".ds")
"""Endings of files in which other programs keep tokens."""
MEANT_AS_WEIGHT = re.compile(r"[-+]?\d*[.,]?\d+([.,:*]?|\s?%|/\d+|[eE][-+]?|[oO]\d*)")
"""A share, a fraction, a number with a decimal comma or a letter for a digit; hardly a path."""


def require_files(prefix: str) -> None:
    """UserError unless `<prefix>.bin` and `<prefix>.idx` are files."""
    paths = [prefix + ending for ending in (".bin", ".idx")]
    missing = [path for path in paths if not os.path.isfile(path)]
    if problems := [problem for path in paths if (problem := _dangling(path) or lfs_problem(path))]:
        raise UserError(*problems)
    if len(missing) == 2:
        what = (
            "is a folder, no dataset"
            if os.path.isdir(prefix)
            else f"no dataset here, {missing[0]} and {missing[1]} do not exist"
        )
        raise UserError(f"{prefix}: {what}; {_what_to_give(prefix)}")
    if missing:
        raise UserError(f"{missing[0]}: does not exist, though the other file of the dataset does; {AGAIN}")


def _dangling(path: str) -> str:
    """What is wrong with a link that leads nowhere; "" where it is none."""
    if not os.path.islink(path) or os.path.exists(path):
        return ""
    return f"{path}: leads to {os.readlink(path)}, where there is no file; mend or remove it"


def _what_to_give(prefix: str) -> str:
    """How to name the dataset that is meant, or how to make it."""
    stem, ending = os.path.splitext(prefix)
    if ending in (".bin", ".idx"):
        return f"leave out the ending: {stem}"
    if part := re.match(r"(train|valid|test)\w*=", prefix):
        return f"give the datasets of each part by its own flag, as --{part[1]}-data-path has them"
    if blend := as_words(prefix, lambda word: os.path.isfile(word + ".idx")):
        return blend
    starts = [os.path.join(prefix, "")] if os.path.isdir(prefix) else [f"{prefix}_", f"{stem}_"]
    paths = {path for start in starts for path in glob.glob(glob.escape(start) + "*.idx")}
    found = sorted(path.removesuffix(".idx") for path in paths)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return f"there {'are' if len(found) > 1 else 'is'} {', '.join(found[:3])}{more}"
    if converts(prefix, float):
        return "a number is a weight where one stands before every prefix: W1 P1 W2 P2 ..."
    if not os.path.exists(prefix) and (meant := nearest(prefix, ".idx")):
        return f"did you mean {meant}?"
    if MEANT_AS_WEIGHT.fullmatch(prefix):
        return "a weight is a number alone, such as 0.3 or 30, before every prefix: W1 P1 W2 P2 ..."
    if os.path.isfile(prefix) and ending in NO_TEXT:
        return f"{ending} is not read; make one of the texts that it came from with tools/preprocess_data.py"
    if os.path.isfile(prefix):
        return "make one of this text with tools/preprocess_data.py"
    return "give the common path of both files without .bin and .idx"
