"""A folder of Hugging Face's: its config.json, its safetensors files, and the tokenizer beside them."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megatron.base.errors import UserError
from megatron.base.files import lfs_problem
from megatron.checkpoint.made_elsewhere import ADAPTER, WAY_OF_ADAPTERS, made_elsewhere
from megatron.config.tokenizer import TokenizerOptions
from megatron.conversion.families import Theirs, read_content
from megatron.conversion.origins import Origin
from megatron.conversion.vit import RESAMPLED, VIT
from megatron.data.bert_files import read_vocabulary, upper_case
from megatron.data.end_of_document import read_config

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PIXELS = "preprocessor_config.json"
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TOKENIZERS = {
    "tokenizer.json": ("HuggingFaceTokenizer", "tokenizer_model"),
    "tokenizer.model": ("GPTSentencePieceTokenizer", "tokenizer_model"),
    "vocab.json": ("GPT2BPETokenizer", "vocab_file"),
}
"""The types of tokenizers by their files, and the flags that name these; the first file that is there."""
LEFT_OUT = (
    *(".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"),
    *("embeddings.position_ids", "embeddings.token_type_ids"),
)
"""What older files hold beside weights, of whatever type."""


class Like(NamedTuple):
    """A tensor of theirs before it is read: its file, shape and type; what reads it, where that is known of
    it alone."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor] | None = None


class Folder(NamedTuple):
    """A model in a folder. `tensors`: by their names."""

    path: Path
    theirs: Theirs
    tensors: dict[str, Like]


def open_folder(path: str | Path) -> Folder:
    """The model of a folder, by the headers of its files; says that an adapter beside it is left out.
    UserError where there is none that is known."""
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        way = WAY_OF_ADAPTERS if (folder / ADAPTER).is_file() else made_elsewhere(folder)
        raise UserError(
            f"{folder}: holds no {CONFIG}; {way or 'name a folder that save_pretrained has written'}"
        )
    try:
        theirs = read_content(_json(folder / CONFIG))
    except UserError as error:
        raise UserError(*(f"{folder / CONFIG}: {problem}" for problem in error.problems)) from None
    if (folder / PIXELS).is_file() and theirs.family is VIT:
        theirs = theirs._replace(
            flags=theirs.flags | pixels_of(folder / PIXELS, theirs.flags["num_channels"])
        )
    tensors: dict[str, Like] = {}
    for file in _files(folder):
        tensors |= _header(file)
    if (folder / ADAPTER).is_file():
        print(f"note: {folder / ADAPTER}: is left out: {WAY_OF_ADAPTERS}", file=sys.stderr)
    return Folder(folder, theirs, tensors)


def pixels_of(path: Path, channels: int) -> dict[str, Any]:
    """What a model of images subtracts from the channels of its pixels, and divides them by; values that are
    all equal are of any number of channels. And how images are resized, where that is known here. UserError
    where the file says no such numbers."""
    try:
        content = _json(path)
        name = RESAMPLED.get(content.get("resample", 0))
        resized = {"img_interpolation": name} if name else {}
        if content.get("do_normalize") is False:  # its numbers are not used then, and need not be there
            return resized | {"img_mean": (0.0,) * channels, "img_std": (1.0,) * channels}
        named = {"img_mean": content["image_mean"], "img_std": content["image_std"]}
        numbers = {flag: tuple(float(one) for one in values) for flag, values in named.items()}
        same = {flag: one[:1] * channels if len({*one}) == 1 else one for flag, one in numbers.items()}
        return resized | same
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: tells no image_mean and image_std ({error}); bring the file again, or move it away and "
            "give --img-mean and --img-std in training"
        ) from None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({error}); bring the file again") from None
    if not isinstance(content, dict):
        raise UserError("is no JSON object; bring the file again")
    return content


def _files(folder: Path) -> list[Path]:
    """The files of the weights. UserError where they are none, or one is missing."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        if (folder / ADAPTER).is_file():
            raise UserError(f"{folder}: has no {WEIGHTS}; {WAY_OF_ADAPTERS}")
        if any(folder.glob("model-*-of-*.safetensors")):
            raise UserError(
                f"{folder / INDEX}: is missing, and the weights lie in several files (the folder holds "
                f"{held}); bring it from where they came from"
            )
        anew = "save the model anew by save_pretrained, which writes safetensors"
        raise UserError(
            f"{folder}: has neither {WEIGHTS} nor {INDEX} (it holds {held}); {made_elsewhere(folder) or anew}"
        )
    try:
        names = sorted({str(name) for name in _json(folder / INDEX)["weight_map"].values()})
    except (UserError, KeyError, AttributeError) as error:
        raise UserError(f"{folder / INDEX}: is no index of weights ({error}); bring the file again") from None
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(
                f"{folder / name}: is missing, and {INDEX} names it; bring all files of the model"
            )
    return [folder / name for name in names]


def _header(file: Path) -> dict[str, Like]:
    found = {}
    with opened(file) as content:
        names: list[str] = list(content.keys())
        for name in (one for one in names if not one.endswith(LEFT_OUT)):
            part = content.get_slice(name)
            if part.get_dtype() not in TYPES:
                raise UserError(
                    f"{file}: {name} is of the type {part.get_dtype()}, and known are {', '.join(TYPES)}; "
                    "save it in one of these"
                )
            found[name] = Like(file, tuple(part.get_shape()), TYPES[part.get_dtype()])
    return found


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A safetensors file; UserError where it is damaged."""
    if problem := lfs_problem(file):
        raise UserError(problem)
    try:
        with safe_open(file, "pt") as content:
            yield content
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: cannot be read ({error}); bring the file again") from None


class Reader:
    """Tensors by their names, one at a time; files stay open until it is closed."""

    def __init__(self, tensors: dict[str, Like]):
        self.tensors, self.held, self.files = tensors, ExitStack(), dict[Path, Any]()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *error: object) -> None:
        self.held.close()

    def __call__(self, name: str) -> Tensor:
        file = self.tensors[name].file
        if file not in self.files:
            self.files[file] = self.held.enter_context(opened(file))
        tensor: Tensor = self.files[file].get_tensor(name)
        return tensor


def spelled_as(origins: Mapping[str, Origin], there: Iterable[str]) -> dict[str, Origin]:
    """The same origins by the names that a file has: a bare model leaves out the first word of each, and
    older files call a norm's weight and bias gamma and beta."""
    known = {_usual(name): name for name in there}

    def spelled(name: str) -> str:
        bare = name.partition(".")[2]
        return known.get(name, known.get(bare, name))

    return {mine: one._replace(names=tuple(map(spelled, one.names))) for mine, one in origins.items()}


def _usual(name: str) -> str:
    if name.endswith("LayerNorm.gamma"):
        return name.removesuffix("gamma") + "weight"
    return name.removesuffix("beta") + "bias" if name.endswith("LayerNorm.beta") else name


def tokenizer_in(folder: Path) -> TokenizerOptions | None:
    """The options that name the tokenizer of a folder; None where there is none."""
    for name, (kind, flag) in TOKENIZERS.items():
        if (folder / name).is_file():
            files: dict[str, Any] = {flag: str(folder / name)}
            if name == "vocab.json":
                files["merge_file"] = str(folder / "merges.txt")
            return TokenizerOptions(tokenizer_type=kind, **files)
    if (folder / "vocab.txt").is_file():
        path = folder / "vocab.txt"
        lower = read_config(path).get("do_lower_case", not upper_case(read_vocabulary(path)))
        kind = f"BertWordPiece{'LowerCase' if lower else 'Case'}"
        return TokenizerOptions(tokenizer_type=kind, vocab_file=str(path))
    return None
