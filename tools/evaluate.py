"""Loss, perplexity and bits per byte of a checkpoint, by corpus and split, at full length with nothing
dropped; of an encoder losses and accuracies of masks that are the same every time, of a vision transformer
those of the middles of images."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import dataclasses
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from megatron.base.errors import UserError
from megatron.base.files import whole_file, writable_file
from megatron.base.terminal import progress, show
from megatron.base.units import perplexity
from megatron.config.arguments import flag, parse, unused_flags
from megatron.config.config import Config, TokenizerOptions
from megatron.config.other_megatrons import OF_THE_CHECKPOINT
from megatron.data.corpora import SPLITS, Corpus
from megatron.data.images import ImageCorpus, as_classes
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.vocabulary import Vocabulary, find_vocabulary
from megatron.evaluation.losses import Weighted, window_sums
from megatron.evaluation.restore import Restored, require_same_tokenizer, restore, tokenizer_of
from megatron.evaluation.text_bytes import TextBytes, count_text
from megatron.model.bert import MLM_LOSS
from megatron.model.inputs import to_device
from megatron.parallel.mesh import Mesh
from megatron.parallel.slices import WHOLE
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.tasks.gpt import GPT_TASK

EXAMPLES = """\
  # the validation and test parts of the data it was trained on
  python tools/evaluate.py --load runs/small --splits valid test --output runs/small/evaluation.json

  # other texts; bits per byte compare models of different tokenizers
  python tools/evaluate.py --load runs/small --data-path books_text_document --split 0,0,1 --splits test

  # a vision transformer: loss, top-1 and top-5 accuracy, on other images of the same classes
  python tools/evaluate.py --load runs/vit --data-path photos --split 0,0,1 --splits test

  # an encoder: losses and accuracies of masked tokens and of pairs, on sentences
  python tools/evaluate.py --load runs/bert --data-path books_text_sentence --split 0,0,1 --splits test
"""

BYTES_FROM = {
    "proportion": "the tokenizer does not give back the text that it was given: the whole original has "
    "{factor:.4f} bytes for each that is decoded",
    "decoding": "the bytes of bits per byte are those of the decoded text; nothing says how many the "
    "original had, or the dataset is too large to compare",
}
FAR_FROM_ONE = 0.05
"""How far decoded bytes may be from the original's. The share that is lost differs from part to part of a
dataset, and beyond this it would be most of the difference between two models."""


@dataclass(frozen=True, kw_only=True)
class Options:
    load: str = flag(help="folder of checkpoints, or one checkpoint", metavar="FOLDER")
    tokenizer: TokenizerOptions
    splits: tuple[str, ...] = flag(("valid", "test"), "which parts", choices=SPLITS)
    data_path: tuple[str, ...] = flag((), "prefixes of .bin/.idx files; those it was trained on")
    split: str | None = flag(None, "shares of training, validation and test; those it was trained with")
    ckpt_step: int | None = flag(None, "step of the checkpoint; the newest")
    micro_batch_size: int = flag(16, "windows, an encoder's samples or images, at a time", at_least=1)
    max_windows: int | None = flag(
        None, "at most so many windows or samples of each corpus, from its start; all", at_least=1
    )
    output: str | None = flag(None, "also write the results as JSON", metavar="FILE")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES, foreign=OF_THE_CHECKPOINT)
    for line in unused_flags(Options, sys.argv[1:], OF_THE_CHECKPOINT):
        print(f"note: {line}", file=sys.stderr)
    if options.output:
        writable_file(options.output)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    restored = restore(options.load, options.ckpt_step, device)
    config, tokenizer = _with_tokenizer(restored, options)
    results = []
    for split, corpora in restored.task.open_splits(_with_data(config, options)).items():
        if split in options.splits:
            results += _evaluate(restored, _with_data(config, options), split, corpora, options, tokenizer)
    _require_scored(results, options, config.data.seq_length)
    if restored.task is GPT_TASK:
        _print(results, str(restored.folder))
        print(_unused(results))
        _explain_bytes(results)
    else:
        _print_samples(results, str(restored.folder))
    if options.output:
        content = {"checkpoint": str(restored.folder), "iteration": restored.manifest.iteration}
        with whole_file(options.output, "w") as file:
            json.dump(content | {"results": results}, file, indent=1)
            file.write("\n")


def _require_scored(results: list[dict[str, Any]], options: Options, length: int) -> None:
    """UserError where there is no sample, or no token of one that counts."""
    where = f"--splits {' '.join(options.splits)}"
    if not results:
        raise UserError(f"{where}: no sample of {length} tokens is there; change --split or --data-path")
    if not any(result["tokens"] for result in results):
        names = ", ".join(dict.fromkeys(result["corpus"] for result in results))
        raise UserError(
            f"{where}: nothing to score; --eod-mask-loss, with which the model was trained, masks every "
            f"token of {names}"
        )


def _with_data(config: Config, options: Options) -> Config:
    """The checkpoint's configuration with the data of the flags."""
    data = config.data
    if options.data_path:
        data = dataclasses.replace(
            data,
            data_path=options.data_path,
            train_data_path=(),
            valid_data_path=(),
            test_data_path=(),
            mock_data=False,
        )
    if options.split:
        data = dataclasses.replace(data, split=options.split)
    return dataclasses.replace(config, data=data)


def _with_tokenizer(restored: Restored, options: Options) -> tuple[Config, Tokenizer | None]:
    """The checkpoint's configuration with its tokenizer, wherever that is found."""
    found = tokenizer_of(restored, options.tokenizer)
    if found is None:
        without = f"note: no tokenizer is kept in {options.load}, and without --tokenizer-type and its files"
        if restored.task is GPT_TASK:
            print(f"{without} there are no bits per byte", file=sys.stderr)
        size = None if restored.config.tokenizer.tokenizer_type else restored.config.tokenizer.vocab_size
        return dataclasses.replace(restored.config, tokenizer=TokenizerOptions(vocab_size=size)), None
    tokenizer, named = found
    return dataclasses.replace(restored.config, tokenizer=named), tokenizer


def _evaluate(
    restored: Restored,
    config: Config,
    split: str,
    corpora: Weighted,
    options: Options,
    tokenizer: Tokenizer | None,
) -> list[dict[str, Any]]:
    """One result a corpus of a split."""
    if not corpora:
        return []
    members = [_as_trained(restored, corpus) for _, corpus in corpora]
    vocabulary = _vocabulary(restored, config, members)
    counts = [min(corpus.windows, options.max_windows or corpus.windows) for corpus in members]
    sums = _sums(restored, config, vocabulary, members, counts, split, options.micro_batch_size)
    names = list(restored.task.measures(config))
    if restored.task is not GPT_TASK:
        return [
            {"corpus": corpus.name, "split": split, "windows": count} | _result(names, part.tolist())
            for corpus, count, part in zip(members, counts, sums)
        ]

    def is_scored(ids: np.ndarray) -> np.ndarray:
        return ids[:-1] != vocabulary.eod if config.data.eod_mask_loss else np.ones(len(ids) - 1, bool)

    texts = [
        count_text(corpus, tokenizer, windows, is_scored, config.data.allow_trailing_bytes)
        if tokenizer and not config.data.mock_data
        else None
        for corpus, windows in zip(members, counts)
    ]
    unused = [
        len(corpus.tokens) - 1 - windows * corpus.seq_length for corpus, windows in zip(members, counts)
    ]
    return [
        {"corpus": corpus.name, "split": split, "windows": count, "unused_tokens": rest}
        | _result(names, part.tolist())
        | _of_bytes(part.tolist()[0], text)
        for corpus, count, rest, part, text in zip(members, counts, unused, sums, texts)
    ]


def _as_trained(restored: Restored, corpus: Corpus) -> Corpus:
    """Images with the numbers that their classes have in training."""
    if not isinstance(corpus, ImageCorpus):
        return corpus
    return as_classes(corpus, tuple((restored.manifest.vocabulary.tokenizer or {})["classes"]))


def _vocabulary(restored: Restored, config: Config, members: list[Corpus]) -> Vocabulary:
    """The data's vocabulary, which is that of the model."""
    if isinstance(members[0], ImageCorpus):
        return restored.manifest.vocabulary
    require_same_tokenizer(restored, members, config.tokenizer)
    vocabulary = find_vocabulary(config.tokenizer, members, config.data)
    known = restored.manifest.vocabulary.size
    if vocabulary.size != known:
        raise UserError(
            f"{members[0].name} has a vocabulary of {vocabulary.size} tokens, the model one of {known}"
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
) -> torch.Tensor:
    """Sums and counts of every loss over the first `counts` windows, a row a corpus."""
    rows = restored.task.make_rows(config, DataEfficiency(), vocabulary)
    names = restored.task.measures(config)
    device = next(restored.model.parameters()).device

    def measure(part: np.ndarray) -> torch.Tensor:
        inputs = to_device(rows.plain(members, part[:, 0], part[:, 1], WHOLE), device)
        found = restored.task.row_losses(restored.model, inputs)
        return torch.cat([found[name] for name in names], 1)

    windows = np.concatenate(
        [np.stack([np.full(count, number), np.arange(count)], 1) for number, count in enumerate(counts)]
    )
    shape = (len(members), 2 * len(names))
    with progress(title, len(windows), "windows") as advance:
        return window_sums(measure, shape, windows, micro_batch_size, Mesh(device), advance)


def _result(names: list[str], sums: list[float]) -> dict[str, Any]:
    """A corpus in numbers; the first loss is the one that perplexity is of, where it is of tokens."""
    pairs = list(zip(sums[::2], sums[1::2]))
    means = {name: total / count if count else None for name, (total, count) in zip(names, pairs)}
    loss, (_, tokens) = means[names[0]], pairs[0]
    result = {
        "tokens": int(tokens),
        "loss": loss,
        "perplexity": None if loss is None or names[0] != MLM_LOSS else perplexity(loss),
    }
    return result | ({"losses": means} if len(means) > 1 else {})


def _of_bytes(total: float, text: TextBytes | None) -> dict[str, Any]:
    """The same for each byte of the text, of the sum of the losses."""
    known = text if text and text.size else None
    near = known is not None and abs(known.factor - 1) <= FAR_FROM_ONE
    return {
        "bytes": round(known.size) if known else None,
        "bytes_from": known.source if known else None,
        "bytes_factor": known.factor if known else None,
        "bits_per_byte": total / math.log(2) / known.size if known and near else None,
    }


def _unused(results: list[dict[str, Any]]) -> str:
    """What lies behind the last windows, in words."""
    rest = Counter[str]()
    for result in results:
        rest[result["split"]] += result["unused_tokens"]
    parts = " and ".join(f"{tokens:,} tokens of {split}" for split, tokens in rest.items())
    return f"behind the last windows {parts} are not scored"


def _print(results: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title)
    for heading in ("corpus", "split", "windows", "tokens", "loss", "perplexity", "bits per byte"):
        table.add_column(heading, justify="left" if heading in ("corpus", "split") else "right")
    for result in results:
        numbers = [
            "-" if result[name] is None else format(result[name], form)
            for name, form in (("loss", ".4f"), ("perplexity", ".2f"), ("bits_per_byte", ".4f"))
        ]
        counts = [f"{result[name]:,}" for name in ("windows", "tokens")]
        table.add_row(result["corpus"], result["split"], *counts, *numbers)
    show(table)


def _print_samples(results: list[dict[str, Any]], title: str) -> None:
    """Of an encoder: every loss, and the share of masked tokens and of pairs that were told right; of
    a vision transformer the shares of images."""
    table = Table(title=title)
    losses = [result.get("losses") or {} for result in results]
    told = "masked" if MLM_LOSS in losses[0] else "told"
    for heading in ("corpus", "split", "samples", told, *losses[0]):
        table.add_column(heading, justify="left" if heading in ("corpus", "split") else "right")
    for result, means in zip(results, losses):
        numbers = ["-" if mean is None else f"{mean:.4f}" for mean in means.values()]
        counts = [f"{result[name]:,}" for name in ("windows", "tokens")]
        table.add_row(result["corpus"], result["split"], *counts, *numbers)
    show(table)


def _explain_bytes(results: list[dict[str, Any]]) -> None:
    """Say where bytes are not those of the text itself."""
    for result in results:
        if result["bytes_from"] not in BYTES_FROM:
            continue
        line = BYTES_FROM[result["bytes_from"]].format(factor=result["bytes_factor"])
        if result["bits_per_byte"] is None:
            line += "; that is too far from 1 for bits per byte"
        elif result["bytes_from"] == "proportion":
            line += "; the bytes of the scored part are taken in that proportion"
        print(f"note: {result['corpus']}: {line}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
