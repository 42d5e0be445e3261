"""Speed of tools/preprocess_data.py --split-sentences, from JSON lines to .bin/.idx of BERT's WordPiece,
beside a worker pool as Megatron's tool has it.

The corpus is all that tools/collect_corpus.py finds on this machine; the vocabulary is trained on a part of
it. The pool splits one line a call by nltk's Punkt, without parameters of a language, which nltk would
download, into a file, and encodes one sentence of it a call by transformers: by BERT's tokenizer in Python,
of which Megatron's own is another copy, or by the fast one. It and the reference engine run on a part of the
corpus. The outputs of the engines are compared.

python benchmarks/preprocess_sentences.py --workers 2
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import json
import multiprocessing
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.preprocess import Options, Way, measure, print_speeds, require_equal, run_tool, take
from megatron.config.arguments import parse
from megatron.data.index_builder import IndexedDatasetBuilder
from megatron.data.indexed_dataset import token_dtype

KIND = "BertWordPieceLowerCase"


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__)
    import nltk  # noqa: F401  (where it is missing, it is told here, and not by every worker)

    with tempfile.TemporaryDirectory() as folder:
        whole, part, vocabulary = (f"{folder}/{name}" for name in ("whole.jsonl", "part.jsonl", "vocab.txt"))
        run_tool("collect_corpus", "--output", whole, "--max-size", "1000")
        take(whole, part, int(options.part * 1e6))
        words = ("--model", "wordpiece", "--vocab-size", options.vocab_size, "--max-bytes", "1e7")
        run_tool("train_tokenizer", "--input", part, "--output", vocabulary, *words)

        def preprocess(source: str, target: str, engine: str = "auto") -> None:
            flags = ("--split-sentences", "--append-eod", "--overwrite", "--workers", options.workers)
            kind = ("--tokenizer-type", KIND, "--vocab-file", vocabulary, "--tokenizer-engine", engine)
            run_tool("preprocess_data", "--input", source, "--output-prefix", target, *flags, *kind)

        ways: dict[str, Way] = {
            "pool of one line a call, nltk and BERT's tokenizer in Python": (
                part,
                lambda *paths: pool(*paths, vocabulary, options, in_python=True),
            ),
            "the same with `BertTokenizerFast`": (
                part,
                lambda *paths: pool(*paths, vocabulary, options, in_python=False),
            ),
            "this tool, --tokenizer-engine tokenizers": (
                part,
                lambda *paths: preprocess(*paths, "tokenizers"),
            ),
            "this tool, the same part": (part, preprocess),
            "this tool, the whole corpus": (whole, preprocess),
        }
        seconds = measure(ways, folder, options)
        print_speeds(options, ways, seconds)
        require_equal([f"{folder}/{number}_text_sentence" for number in (2, 3)])


def pool(source: str, target: str, vocabulary: str, options: Options, in_python: bool) -> None:
    """Megatron's scheme: workers get lines and give sentences, which the parent writes to a file; then they
    get its lines and give lists of ids, and the parent adds one document after another."""
    split = f"{target}_split.jsonl"
    started = multiprocessing.Pool(options.workers, _start, (vocabulary, in_python))
    output = IndexedDatasetBuilder(f"{target}_text_sentence", token_dtype(options.vocab_size))
    with started as workers, output as builder:
        with open(source, encoding="utf-8") as lines, open(split, "w", encoding="utf-8") as file:
            file.writelines(workers.imap(_split_line, lines, 32))
        with open(split, encoding="utf-8") as lines:
            _add(builder, workers.imap(_encode, lines, 32))


def _add(builder: IndexedDatasetBuilder, documents: Iterable[list[list[int]]]) -> None:
    for rows in documents:
        builder.add_document(np.array([one for row in rows for one in row]), [len(row) for row in rows])


_split: Any = None
_library: Any = None


def _start(vocabulary: str, in_python: bool) -> None:
    from nltk.tokenize.punkt import PunktSentenceTokenizer
    from transformers import BertTokenizerFast
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    global _split, _library
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _split = PunktSentenceTokenizer().tokenize
    if in_python:
        _library = BertTokenizerLegacy(vocabulary, model_max_length=1 << 30)
    else:
        _library = BertTokenizerFast.from_pretrained(os.path.dirname(vocabulary), model_max_length=1 << 30)


def _split_line(line: str) -> str:
    return json.dumps({"text": _split(json.loads(line)["text"])}) + "\n"


def _encode(line: str) -> list[list[int]]:
    rows = [_library(one, add_special_tokens=False)["input_ids"] for one in json.loads(line)["text"]]
    rows = [row for row in rows if row]
    return [*rows[:-1], [*rows[-1], _library.sep_token_id]] if rows else []


if __name__ == "__main__":
    run_command(main)
