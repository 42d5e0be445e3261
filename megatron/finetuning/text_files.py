"""Text files as corpora: tokens in a cache, and held-out text of which every token counts once."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from megatron.base.errors import UserError
from megatron.base.files import checksum, wait_for
from megatron.base.folders import or_nearest
from megatron.base.units import count_of
from megatron.batches.loader import Rows
from megatron.config.config import TokenizerOptions
from megatron.data.corpora import Corpus, Source, open_corpus
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.tokenizer_value import Tokenizer
from megatron.model.inputs import GPTInputs
from megatron.parallel.slices import Slices
from megatron.preprocess.preprocess import PreprocessOptions, preprocess

OTHER_WAYS = {
    "choose with --json-keys": "call it text",
    "leave such lines out with --on-bad-line skip": "leave the line out",
    "use fewer --workers": "run less beside it",
}
"""Of mistakes in a file, in the place of those that are flags of tools/preprocess_data.py."""


def tokenized(path: str, tokenizer: Tokenizer, options: TokenizerOptions, cache: Path) -> str:
    """The prefix of a file's tokens, which the cache keeps by what is in it. A .txt file is one stream; the
    documents of a .jsonl file end with the end-of-document token."""
    if not Path(path).is_file():
        raise UserError(f"{path}: is no file{or_nearest(path)}")
    documents = path.endswith(".jsonl")
    words = f"{checksum(Path(path))} {tokenizer.identity()} {tokenizer.eod} {documents}"
    prefix = cache / f"{Path(path).stem}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"
    whole = f"{prefix}_text_document"
    with wait_for(cache / ".lock"):
        if not Path(f"{whole}.idx").is_file():
            _preprocess(
                PreprocessOptions(
                    input=(path,), output_prefix=str(prefix), tokenizer=options, append_eod=documents
                )
            )
    return whole


def _preprocess(options: PreprocessOptions) -> None:
    """Write the tokens. UserError with ways out that finetuning has."""
    try:
        preprocess(options)
    except UserError as error:
        problems = list(error.problems)
        for theirs, ours in OTHER_WAYS.items():
            problems = [problem.replace(theirs, ours) for problem in problems]
        raise UserError(*problems) from None


def count_tokens(prefix: str) -> int:
    """Tokens of a dataset."""
    return len(IndexedDataset(prefix).tokens)


def count_words(path: str) -> int:
    """Words of a text file, as white space parts them."""
    with open(path, encoding="utf-8-sig") as file:
        return sum(len(line.split()) for line in file)


@dataclass(frozen=True)
class WholeText(Corpus):
    """All tokens of a text: the last window is filled up with token 0, which `told` leaves out. `told`:
    tokens that have one before them."""

    told: int = 0


def open_whole(source: Source, seq_length: int) -> WholeText:
    """The windows of a dataset and what is left behind them. UserError where it has no two tokens."""
    tokens = np.asarray(source.dataset.tokens)
    told = len(tokens) - 1
    if told < 1:
        raise UserError(
            f"{source.dataset.prefix}: has {count_of(len(tokens), 'token')}, and perplexity needs two; give "
            "more text to --valid-file or --test-file, whichever it is of"
        )
    windows = -(-told // seq_length)
    return WholeText(
        name=str(source.dataset.prefix),
        tokens=np.pad(tokens, (0, windows * seq_length - told)),
        windows=windows,
        seq_length=seq_length,
        sequences=(0, len(source.dataset)),
        source=source.fingerprint,
        sidecar=source.sidecar,
        told=told,
    )


def open_text(seq_length: int) -> Callable[[Source, tuple[float, float], str], Corpus | None]:
    """How the samples of a split are made: training drops what is left behind the last whole window."""

    def open_share(source: Source, share: tuple[float, float], split: str) -> Corpus | None:
        if split == "train":
            return open_corpus(source, share, seq_length, split)
        return open_whole(source, seq_length)

    return open_share


def with_ends(rows: Rows) -> Rows:
    """The same rows, where evaluation leaves out what only fills the last window."""

    def plain(corpora: list[Corpus], members: np.ndarray, samples: np.ndarray, slices: Slices) -> GPTInputs:
        inputs: GPTInputs = rows.plain(corpora, members, samples, slices)
        told = np.array([getattr(corpora[member], "told", np.inf) for member in members])
        places = samples[:, None] * inputs.labels.shape[1] + np.arange(inputs.labels.shape[1])
        counts = torch.from_numpy((places < told[:, None]).astype(np.float32))
        mask = counts if inputs.loss_mask is None else inputs.loss_mask * counts
        return inputs._replace(loss_mask=mask)

    return Rows(rows.batch, plain)
