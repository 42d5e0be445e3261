"""Losses of a checkpoint on windows of held-out splits, and of encoders on samples, at full length with
nothing dropped, with standard errors over windows."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from megatron.base.errors import UserError
from megatron.base.terminal import progress
from megatron.base.units import perplexity
from megatron.config.config import Config
from megatron.data.corpora import Corpus
from megatron.data.images import ImageCorpus, as_classes
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.vocabulary import Vocabulary, find_vocabulary
from megatron.evaluation.estimates import ratio_of_sums, require_numbers
from megatron.evaluation.losses import Weighted, window_sums
from megatron.evaluation.restore import Restored, require_same_tokenizer
from megatron.evaluation.text_bytes import TextBytes, count_text
from megatron.model.gpt import LM_LOSS
from megatron.model.inputs import to_device
from megatron.parallel.mesh import Mesh
from megatron.parallel.slices import WHOLE
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.tasks.gpt import GPT_TASK

FAR_FROM_ONE = 0.05
"""How far decoded bytes may be from the original's. The share that is lost differs from part to part of a
dataset, and beyond this it would be most of the difference between two models."""
SQUARES = 3
"""Columns behind the sums: of the first loss a², ab and b², with a the loss of a window and b its tokens."""


def evaluate_windows(
    restored: Restored,
    config: Config,
    split: str,
    corpora: Weighted,
    tokenizer: Tokenizer | None,
    max_windows: int | None,
    micro_batch_size: int,
    mesh: Mesh,
) -> list[dict[str, Any]]:
    """One result a corpus of a split. Bytes are counted by the rank that writes them alone. UserError where
    the model gives no numbers."""
    if not corpora:
        return []
    members = [_as_trained(restored, corpus) for _, corpus in corpora]
    vocabulary = _vocabulary(restored, config, members)
    counts = [min(corpus.windows, max_windows or corpus.windows) for corpus in members]
    sums = _sums(restored, config, vocabulary, members, counts, split, micro_batch_size, mesh)
    require_numbers(sums.numpy())
    names = list(restored.task.measures(config))
    results: list[dict[str, Any]] = [
        {"corpus": corpus.name, "split": split, "windows": count} | _result(names, count, part.tolist())
        for corpus, count, part in zip(members, counts, sums)
    ]
    if restored.task is not GPT_TASK:
        return results

    def is_scored(ids: np.ndarray) -> np.ndarray:
        return ids[:-1] != vocabulary.eod if config.data.eod_mask_loss else np.ones(len(ids) - 1, bool)

    for result, corpus, count, part in zip(results, members, counts, sums):
        text = None
        if tokenizer and not config.data.mock_data and mesh.first:
            text = count_text(corpus, tokenizer, count, is_scored, config.data.allow_trailing_bytes)
        result["unused_tokens"] = len(corpus.tokens) - 1 - count * corpus.seq_length
        loss, error = result["loss"], result["loss_error"]
        result |= of_bytes(part.tolist()[0], text, error / loss if loss and error is not None else None)
    return results


def _as_trained(restored: Restored, corpus: Corpus) -> Corpus:
    """Images with the numbers that their classes have in training."""
    if not isinstance(corpus, ImageCorpus):
        return corpus
    classes = tuple((restored.manifest.vocabulary.tokenizer or {})["classes"])
    try:
        return as_classes(corpus, classes)
    except UserError as error:
        if not restored.manifest.is_converted:
            raise
        names = ", ".join(classes[:3])
        way = f"the converted model calls its classes {names}, ...: give the folders of images these names"
        raise UserError(*(f"{problem.partition(';')[0]}; {way}" for problem in error.problems)) from None


def _vocabulary(restored: Restored, config: Config, members: list[Corpus]) -> Vocabulary:
    """The data's vocabulary, which is that of the model."""
    if isinstance(members[0], ImageCorpus):
        return restored.manifest.vocabulary
    require_same_tokenizer(restored, members, config.tokenizer)
    vocabulary = find_vocabulary(config.tokenizer, members, config.data)
    known = restored.manifest.vocabulary.size
    if vocabulary.size != known:
        raise UserError(
            f"{members[0].name} has a vocabulary of {vocabulary.size} tokens, the model one of {known}; "
            "name data of the model's tokenizer"
        )
    return vocabulary


def _sums(
    restored: Restored,
    config: Config,
    vocabulary: Vocabulary,
    members: list[Corpus],
    counts: list[int],
    title: str,
    micro_batch_size: int,
    mesh: Mesh,
) -> torch.Tensor:
    """Sums and counts of every loss over the first `counts` windows, and the squares of the first one, a row
    a corpus."""
    rows = restored.task.make_rows(config, DataEfficiency(), vocabulary)
    names = list(restored.task.measures(config))

    def measure(part: np.ndarray) -> torch.Tensor:
        inputs = to_device(rows.plain(members, part[:, 0], part[:, 1], WHOLE), mesh.device)
        found = restored.task.row_losses(restored.model, inputs)
        a, b = found[names[0]].unbind(1)
        return torch.cat([*(found[name] for name in names), torch.stack([a * a, a * b, b * b], 1)], 1)

    windows = np.concatenate(
        [np.stack([np.full(count, number), np.arange(count)], 1) for number, count in enumerate(counts)]
    )
    shape = (len(members), 2 * len(names) + SQUARES)
    with progress(title, len(windows), "windows", quiet=not mesh.first) as advance:
        return window_sums(measure, shape, windows, micro_batch_size, mesh, advance)


def _result(names: list[str], windows: int, sums: list[float]) -> dict[str, Any]:
    """A corpus in numbers; the first loss is the one that perplexity is of, where it is of tokens,
    and its error is over windows."""
    pairs, squares = list(zip(sums[:-SQUARES:2], sums[1:-SQUARES:2])), sums[-SQUARES:]
    means = {name: total / count if count else None for name, (total, count) in zip(names, pairs)}
    loss, (total, tokens) = means[names[0]], pairs[0]
    error = ratio_of_sums(windows, total, tokens, *squares).error if tokens else None
    likely = None if loss is None or names[0] != LM_LOSS else perplexity(loss)
    result = {
        "tokens": int(tokens),
        "loss": loss,
        "loss_error": error,
        "perplexity": likely,
        "perplexity_error": None if likely is None or error is None else likely * error,
    }
    return result | ({"losses": means} if len(means) > 1 else {})


def of_bytes(total: float, text: TextBytes | None, relative_error: float | None = None) -> dict[str, Any]:
    """The same for each byte of the text, of the sum of the losses, whose relative error is that of the mean
    loss."""
    known = text if text and text.size else None
    near = known is not None and abs(known.factor - 1) <= FAR_FROM_ONE
    bits = total / math.log(2) / known.size if known and near else None
    return {
        "bytes": round(known.size) if known else None,
        "bytes_from": known.source if known else None,
        "bytes_factor": known.factor if known else None,
        "bits_per_byte": bits,
        "bits_per_byte_error": None if bits is None or relative_error is None else bits * relative_error,
    }


def require_scored(results: list[dict[str, Any]], splits: Sequence[str], length: int) -> None:
    """UserError where there is no sample, or no token of one that counts."""
    where = f"--splits {' '.join(splits)}"
    if not results:
        raise UserError(f"{where}: no sample of {length} tokens is there; change --split or --data-path")
    if not any(result["tokens"] for result in results):
        names = ", ".join(dict.fromkeys(result["corpus"] for result in results))
        raise UserError(
            f"{where}: nothing to score; --eod-mask-loss, with which the model was trained, masks every "
            f"token of {names}; name other data"
        )
