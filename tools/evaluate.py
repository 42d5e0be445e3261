"""Loss, perplexity and bits per byte of a checkpoint, by corpus and split, at full length with nothing
dropped."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from megatron.base.errors import UserError
from megatron.base.files import whole_file, writable_file
from megatron.base.terminal import progress, show
from megatron.checkpoint.manifest import Manifest
from megatron.config.arguments import flag, parse
from megatron.config.config import Config, TokenizerOptions
from megatron.data.corpora import SPLITS, open_splits
from megatron.data.vocabulary import find_vocabulary
from megatron.evaluation.losses import Weighted, window_sums
from megatron.evaluation.restore import Restored, restore, tokenizer_of
from megatron.model.inputs import GPTInputs, to_device
from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.tasks.gpt import token_weights
from megatron.train.records import perplexity

EXAMPLES = """\
  # the validation and test parts of the data it was trained on
  python tools/evaluate.py --load runs/small --splits valid test --output runs/small/evaluation.json

  # other texts, with bits per byte, which compare models of different tokenizers
  python tools/evaluate.py --load runs/small --data-path books_text_document --split 0,0,1 --splits test \\
      --tokenizer-type HuggingFaceTokenizer --tokenizer-model tokenizer.json
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    load: str = flag(help="folder of checkpoints, or one checkpoint", metavar="FOLDER")
    tokenizer: TokenizerOptions
    splits: tuple[str, ...] = flag(("valid", "test"), "which parts", choices=SPLITS)
    data_path: tuple[str, ...] = flag((), "prefixes of .bin/.idx files; those it was trained on")
    split: str | None = flag(None, "shares of training, validation and test; those it was trained with")
    ckpt_step: int | None = flag(None, "step of the checkpoint; the newest")
    micro_batch_size: int = flag(16, "windows at a time", at_least=1)
    max_windows: int | None = flag(
        None, "at most so many windows of each corpus, from its start; all", at_least=1
    )
    output: str | None = flag(None, "also write the results as JSON", metavar="FILE")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES)
    if options.output:
        writable_file(options.output)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    restored = restore(options.load, options.ckpt_step, device)
    token_bytes = _token_bytes(options, restored.manifest, device)
    results = []
    config = _with_data(restored.config, options)
    for split, corpora in open_splits(config).items():
        if split in options.splits:
            results += _evaluate(restored, config, split, corpora, options, token_bytes)
    if not results:
        raise UserError(
            f"--splits {' '.join(options.splits)}: no data is there; change --split or --data-path"
        )
    _print(results, str(restored.folder))
    if options.output:
        with whole_file(options.output, "w") as file:
            step = restored.manifest.iteration
            json.dump(
                {"checkpoint": str(restored.folder), "iteration": step, "results": results}, file, indent=1
            )
            file.write("\n")


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


def _token_bytes(options: Options, manifest: Manifest, device: torch.device) -> torch.Tensor | None:
    """Bytes of text behind every token, float64 [vocabulary]; None without a tokenizer."""
    if not options.tokenizer.tokenizer_type:
        print("note: without --tokenizer-type and its files there are no bits per byte", file=sys.stderr)
        return None
    tokenizer = tokenizer_of(manifest, options.tokenizer)
    return torch.from_numpy(tokenizer.token_bytes()).to(device, torch.float64)


def _evaluate(
    restored: Restored,
    config: Config,
    split: str,
    corpora: Weighted,
    options: Options,
    token_bytes: torch.Tensor | None,
) -> list[dict[str, Any]]:
    """One result a corpus of a split."""
    if not corpora:
        return []
    vocabulary = find_vocabulary(config.tokenizer, [corpus for _, corpus in corpora], config.data)
    known = restored.manifest.vocabulary.size
    if vocabulary.size != known:
        raise UserError(
            f"{corpora[0][1].name} has a vocabulary of {vocabulary.size} tokens, the model one of {known}"
        )
    rows = restored.task.make_rows(config, DataEfficiency(), vocabulary)
    members = [corpus for _, corpus in corpora]
    device = next(restored.model.parameters()).device

    def measure(part: np.ndarray) -> torch.Tensor:
        inputs = to_device(rows.plain(members, part[:, 0], part[:, 1]), device)
        found = restored.task.row_losses(restored.model, inputs)
        sums = [found[name] for name in restored.task.losses]
        return torch.cat([*sums, _text_bytes(inputs, token_bytes, sums[0])], 1)

    counts = [min(corpus.windows, options.max_windows or corpus.windows) for corpus in members]
    windows = np.concatenate(
        [np.stack([np.full(count, number), np.arange(count)], 1) for number, count in enumerate(counts)]
    )
    with progress(split, len(windows), "windows") as advance:
        shape = (len(members), 2 * len(restored.task.losses) + 1)
        sums = window_sums(measure, shape, windows, options.micro_batch_size, Mesh(device), advance)
    names = list(restored.task.losses)
    return [_result(corpus.name, split, names, part.tolist()) for corpus, part in zip(members, sums)]


def _text_bytes(inputs: Any, token_bytes: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """Float64 [rows, 1]: bytes of text that the scored tokens of a GPT stand for; 0 where nobody knows."""
    if token_bytes is None or not isinstance(inputs, GPTInputs):
        return torch.zeros_like(like[:, :1])
    return (token_weights(inputs) * token_bytes[inputs.labels]).double().sum(1, keepdim=True)


def _result(corpus: str, split: str, names: list[str], sums: list[float]) -> dict[str, Any]:
    """A corpus in numbers; the first loss is the one that perplexity and bits per byte are of."""
    *pairs, text = sums
    means = {name: total / count for name, total, count in zip(names, pairs[::2], pairs[1::2])}
    loss, tokens = means[names[0]], pairs[1]
    result = {
        "corpus": corpus,
        "split": split,
        "tokens": int(tokens),
        "loss": loss,
        "perplexity": perplexity(loss),
        "bytes": int(text) or None,
        "bits_per_byte": pairs[0] / math.log(2) / text if text else None,
    }
    return result | ({"losses": means} if len(means) > 1 else {})


def _print(results: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title)
    for heading in ("corpus", "split", "tokens", "loss", "perplexity", "bits per byte"):
        table.add_column(heading, justify="left" if heading in ("corpus", "split") else "right")
    for result in results:
        bits = f"{result['bits_per_byte']:.4f}" if result["bits_per_byte"] is not None else "-"
        row = (
            result["corpus"],
            result["split"],
            f"{result['tokens']:,}",
            f"{result['loss']:.4f}",
            f"{result['perplexity']:.2f}",
            bits,
        )
        table.add_row(*row)
    show(table)


if __name__ == "__main__":
    run_command(main)
