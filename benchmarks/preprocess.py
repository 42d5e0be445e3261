"""Speed of tools/preprocess_data.py, from JSON lines to .bin/.idx, beside a worker pool as Megatron's tool
has it.

The corpus is all that tools/collect_corpus.py finds on this machine; the tokenizer is a byte-level BPE
trained on a part of it. The pool encodes one line a call (chunks of 32) with HF tokenizers; it and the
reference engine run on a part of the corpus, for their speed does not depend on its size. All outputs are
compared.

python benchmarks/preprocess.py --workers 2
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import itertools
import json
import multiprocessing
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import adopt_orphans, processor_seconds_of_children
from megatron.base.errors import UserError
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.data.index_builder import IndexedDatasetBuilder
from megatron.data.indexed_dataset import token_dtype

TOOLS = Path(__file__).parents[1] / "tools"
Way = tuple[str, Callable[[str, str], None]]
"""A file of text, and what makes a dataset of it at a prefix."""
Rounds = dict[str, list[tuple[float, float]]]
"""Seconds and processor seconds of every round, by way."""


@dataclass(frozen=True)
class Options:
    workers: int = flag(2, "worker processes")
    vocab_size: int = flag(32768, "size of the vocabulary")
    part: float = flag(30.0, "text that the slow ways encode", metavar="MB")
    rounds: int = flag(3, "repetitions")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        whole, part, model = (f"{folder}/{name}" for name in ("whole.jsonl", "part.jsonl", "tokenizer.json"))
        run_tool("collect_corpus", "--output", whole, "--max-size", "1000")
        take(whole, part, int(options.part * 1e6))
        run_tool(
            "train_tokenizer",
            "--input",
            whole,
            "--vocab-size",
            options.vocab_size,
            "--max-bytes",
            "1e8",
            "--output",
            model,
        )
        ways: dict[str, Way] = {
            "pool of one line a call, HF tokenizers": (
                part,
                lambda source, target: pool(source, target, model, options),
            ),
            "this tool, --tokenizer-engine tokenizers": (
                part,
                lambda *paths: _preprocess(*paths, model, options, "tokenizers"),
            ),
            "this tool, the same part": (part, lambda *paths: _preprocess(*paths, model, options, "auto")),
            "this tool, the whole corpus": (
                whole,
                lambda *paths: _preprocess(*paths, model, options, "auto"),
            ),
        }
        seconds = measure(ways, folder, options)
        print_speeds(options, ways, seconds)
        require_equal([f"{folder}/{number}_text_document" for number in range(3)])


def measure(ways: dict[str, Way], folder: str, options: Options) -> Rounds:
    """Seconds and processor seconds of every way in every round, process start included. A round goes
    through all, so that all see the same machine."""
    adopt_orphans()
    seconds: Rounds = {name: [] for name in ways}
    for _ in range(options.rounds):
        for number, (name, (source, way)) in enumerate(ways.items()):
            began = time.perf_counter()
            taken = processor_seconds_of_children(lambda: way(source, f"{folder}/{number}"))  # noqa: B023
            seconds[name].append((time.perf_counter() - began, taken))
            print(f"{name}: {seconds[name][-1][0]:.2f} s, of processors {taken:.2f} s", file=sys.stderr)
    return seconds


def pool(source: str, target: str, model: str, options: Options) -> None:
    """Megatron's scheme: workers get lines and give lists of ids, the parent adds one document after
    another."""
    started = multiprocessing.Pool(options.workers, _start, (model,))
    output = IndexedDatasetBuilder(f"{target}_text_document", token_dtype(options.vocab_size))
    with started as workers, output as builder, open(source, encoding="utf-8") as lines:
        for ids in workers.imap(_encode, lines, 32):
            builder.add_document(ids, [len(ids)] if ids else [])


_library: Any = None


def _start(model: str) -> None:
    import tokenizers

    global _library
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _library = tokenizers.Tokenizer.from_file(model)


def _encode(line: str) -> list[int]:
    ids = _library.encode(json.loads(line)["text"], add_special_tokens=False).ids
    return [*ids, 0] if ids else ids


def _preprocess(source: str, target: str, model: str, options: Options, engine: str) -> None:
    tokenizer = (
        "--tokenizer-type",
        "HuggingFaceTokenizer",
        "--tokenizer-model",
        model,
        "--tokenizer-engine",
        engine,
    )
    run_tool(
        "preprocess_data",
        "--input",
        source,
        "--output-prefix",
        target,
        "--append-eod",
        "--overwrite",
        "--workers",
        options.workers,
        *tokenizer,
    )


def run_tool(name: str, *words: object) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOLS / f"{name}.py"), *map(str, words)], capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"tools/{name}.py failed:\n{done.stderr}")


def take(source: str, target: str, size: int) -> None:
    """About `size` bytes of the lines of a file, evenly spread over it."""
    stride = max(os.path.getsize(source) // size, 1)
    with open(source, "rb") as lines, open(target, "wb") as file:
        file.writelines(itertools.islice(lines, 0, None, stride))


def require_equal(prefixes: list[str]) -> None:
    for ending in (".bin", ".idx"):
        first, *others = [Path(prefix + ending).read_bytes() for prefix in prefixes]
        if any(other != first for other in others):
            raise UserError(f"the outputs differ in {ending}")


def print_speeds(
    options: Options, ways: dict[str, Way], seconds: dict[str, list[tuple[float, float]]]
) -> None:
    """The fastest round of every way, and the median over the rounds of its speed against the pool's in
    the same round."""
    measured = {name: (os.path.getsize(source) / 1e6, seconds[name]) for name, (source, _) in ways.items()}
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({platform.machine()}), load average "
        f"{load}, {options.rounds} rounds\n"
    )
    print(
        "| | input MB | seconds | MB/s | processor seconds | MB a processor second | against the pool | "
        "in processor time |\n|---|---|---|---|---|---|---|---|"
    )
    pool_size, pool_seconds = next(iter(measured.values()))
    for name, (size, rounds) in measured.items():
        ratios = (
            statistics.median(
                size / mine[which] / (pool_size / its[which]) for mine, its in zip(rounds, pool_seconds)
            )
            for which in (0, 1)
        )
        wall, taken = map(min, zip(*rounds))
        print(
            f"| {name} | {size:.0f} | {wall:.2f} | {size / wall:.1f} | {taken:.2f} | {size / taken:.1f} | "
            + " | ".join(f"{ratio:.1f}x" for ratio in ratios)
            + " |"
        )


if __name__ == "__main__":
    run_command(main)
