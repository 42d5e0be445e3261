"""Bytes of the scored text, against decoding token by token and against the original texts."""

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from megatron.data.corpora import Corpus, open_corpus, open_source
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation import text_bytes
from megatron.evaluation.text_bytes import count_text
from megatron.preprocess.preprocess import preprocess
from tests.support.made_up_text import (
    TEXTS,
    make_options,
    write_lines,
    write_metaspace,
    write_sentencepiece,
    write_tokenizer,
)

SHORT = ["fox", "The dog", "a  b", "naïve", "日本語", "", "x", "don't mind.\n", "emoji 👩‍💻", "<|endoftext|>"]
KINDS = ["byte-level", "bpe", "unigram", "metaspace", "llama json"]


def texts_for(kind: str) -> list[str]:
    """Metaspace alone does not tell a space at the beginning from the one that it puts there."""
    return [text for text in ["~", *TEXTS, *SHORT] if kind != "metaspace" or not text.startswith(" ")]


def files_of(kind: str, folder: Path) -> dict[str, str]:
    if kind == "byte-level":
        return {"tokenizer_type": "HuggingFaceTokenizer", "tokenizer_model": write_tokenizer(folder)}
    if kind in ("metaspace", "llama json"):
        path = write_metaspace(folder, legacy=kind == "llama json")
        return {"tokenizer_type": "HuggingFaceTokenizer", "tokenizer_model": path}
    size = 420 if kind == "bpe" else 370
    path = write_sentencepiece(folder / f"{kind}.model", kind, size)
    return {"tokenizer_type": "SentencePieceTokenizer", "tokenizer_model": path}


def prepare(folder: Path, texts: list[str], files: dict[str, str], **changes: Any) -> Tokenizer:
    """Write `out_text_document` and give its tokenizer."""
    path = write_lines(folder / "a.jsonl", texts)
    options = make_options(folder, path, **{"append_eod": True, "workers": 1, **files, **changes})
    preprocess(options)
    return build_tokenizer(options.tokenizer)


def opened(folder: Path, length: int, share: tuple[float, float] = (0.0, 1.0)) -> Corpus:
    corpus = open_corpus(open_source(str(folder / "out_text_document"), False), share, length, "test")
    assert corpus
    return corpus


def everything(ids: np.ndarray) -> np.ndarray:
    return np.ones(len(ids) - 1, bool)


@pytest.mark.parametrize("append_eod", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_all_but_the_first_token_is_the_text(tmp_path, kind, append_eod):
    """A window of all tokens scores all but the first, which is one byte here."""
    texts = texts_for(kind)
    tokenizer = prepare(tmp_path, texts, files_of(kind, tmp_path), append_eod=append_eod)
    size = sum(len(text.encode()) for text in texts)
    corpus = opened(tmp_path, 1)
    assert tokenizer.decode(corpus.tokens[:1]) in ("~", "")  # "" is ▁ alone
    first = len(tokenizer.decode(corpus.tokens[:1]))
    count = count_text(corpus, tokenizer, corpus.windows, everything, False)
    assert (count.size, count.source) == (size - first, "text")


def by_single_tokens(
    corpus: Corpus, tokenizer: Tokenizer, documents: list[list[int]], first: int
) -> list[int]:
    """Bytes of every token of a corpus that starts at token `first` of its documents."""
    sizes = []
    for ids in documents:
        text = ids[:-1] if ids and ids[-1] == tokenizer.eod else ids
        ends = [int(tokenizer.text_sizes([np.array(text[:n], int)])[0]) for n in range(len(text) + 1)]
        sizes += np.diff(ends).tolist() + [0] * (len(ids) - len(text))
    return sizes[first : first + len(corpus.tokens)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["byte-level", "bpe", "metaspace"])
def test_windows_and_splits_of_documents(tmp_path, kind, masked):
    """Windows that begin and end inside documents and characters, splits that begin inside one."""
    tokenizer = prepare(tmp_path, texts_for(kind) * 2, files_of(kind, tmp_path), max_sequence_length=7)
    dataset = open_source(str(tmp_path / "out_text_document"), False).dataset
    bounds = dataset.document_indices.tolist()
    documents = [
        [int(one) for sequence in dataset[low:high] for one in sequence]
        for low, high in itertools.pairwise(bounds)
    ]

    def is_scored(ids: np.ndarray) -> np.ndarray:
        return ids[:-1] != tokenizer.eod if masked else everything(ids)

    for share in ((0.0, 1.0), (0.3, 0.61), (0.5, 1.0)):
        for length in (1, 5, 64):
            corpus = opened(tmp_path, length, share)
            first = int(dataset.sequence_lengths[: corpus.sequences[0]].sum())
            sizes = by_single_tokens(corpus, tokenizer, documents, first)
            for windows in {1, corpus.windows // 2 or 1, corpus.windows}:
                ids = corpus.tokens[: windows * length + 1].astype(int)
                expected = int((np.array(sizes[1 : len(ids)]) * is_scored(ids)).sum())
                count = count_text(corpus, tokenizer, windows, is_scored, False)
                assert (count.size, count.source) == (expected, "text")


def test_a_tokenizer_that_lowers_case_and_strips(tmp_path):
    """What it gives back is shorter than the text; the whole of a dataset counts as its text."""
    words = ["[UNK]", "[EOD]", *(chr(n) for n in range(33, 127)), *("##" + chr(n) for n in range(33, 127))]
    model = models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]", "[EOD]"])
    path = str(tmp_path / "wordpiece.json")
    tokenizer.save(path)
    texts = ["Größe   NAÏVE", "The Quick   brown", "fox"] * 50
    files = {"tokenizer_type": "HuggingFaceTokenizer", "tokenizer_model": path}
    mine = prepare(tmp_path, texts, files)
    corpus = opened(tmp_path, 1)
    count = count_text(corpus, mine, corpus.windows, everything, False)
    size = sum(len(text.encode()) for text in texts)
    assert count.source == "proportion" and size * 0.99 < count.size < size
    decoded = sum(len(text.encode()) for text in ["[UNK] naive", "the quick brown", "fox"] * 50)
    assert count.factor == pytest.approx(size / decoded)
    half = count_text(corpus, mine, corpus.windows // 2, everything, False)
    assert half.size == pytest.approx(size / 2, rel=0.02)


def test_data_that_nothing_is_said_of(tmp_path):
    """Without the .json file special tokens are no text, and the bytes are the decoded ones."""
    tokenizer = prepare(tmp_path, ["~", "The dog", "fox"], files_of("byte-level", tmp_path))
    os.unlink(tmp_path / "out_text_document.json")
    corpus = opened(tmp_path, 1)
    count = count_text(corpus, tokenizer, corpus.windows, everything, False)
    assert (count.size, count.source) == (len("The dog") + len("fox"), "decoding")


def test_special_tokens_inside_a_document_are_no_text_either(tmp_path):
    """Data that was packed elsewhere, whose documents say nothing of the texts in them."""
    tokenizer = prepare(tmp_path, ["~", "The dog", "fox"], files_of("byte-level", tmp_path))
    os.unlink(tmp_path / "out_text_document.json")
    path, tokens = tmp_path / "out_text_document.bin", opened(tmp_path, 1).tokens.copy()
    place = tokens.tolist().index(tokenizer.encode_batch(["The dog"])[0].tolist()[1])
    tokens[place] = tokenizer.eod
    path.write_bytes(tokens.tobytes())
    left = [one for one in tokens[1:].tolist() if one != tokenizer.eod]
    corpus = opened(tmp_path, 1)
    count = count_text(corpus, tokenizer, corpus.windows, everything, False)
    assert (count.size, count.source) == (len(tokenizer.decode(left)), "decoding")
    assert 0 < count.size < len("The dog") + len("fox")


def test_an_older_file_without_a_number_of_bytes(tmp_path):
    tokenizer = prepare(tmp_path, ["~", "The dog", "fox"], files_of("bpe", tmp_path))
    corpus = opened(tmp_path, 1)
    assert corpus.sidecar
    del corpus.sidecar["text_bytes"]
    assert count_text(corpus, tokenizer, corpus.windows, everything, False).source == "decoding"


def test_a_large_dataset_is_not_compared(tmp_path, monkeypatch):
    tokenizer = prepare(tmp_path, ["~", "The dog", "fox"], files_of("bpe", tmp_path))
    monkeypatch.setattr(text_bytes, "CHECKED_TOKENS", 4)
    corpus = opened(tmp_path, 1)
    count = count_text(corpus, tokenizer, corpus.windows, everything, False)
    assert (count.size, count.source) == (11, "decoding")  # ~ is two tokens, ▁ and itself
