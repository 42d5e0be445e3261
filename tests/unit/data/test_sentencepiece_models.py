"""Megatron's kinds of SentencePiece tokenizers against the library itself; models that are cut."""

from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from tests.support.made_up_text import TEXTS, write_sentencepiece


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return write_sentencepiece(tmp_path_factory.mktemp("sentencepiece") / "a.model")


def build(kind: str, path: str, engine: str = "auto") -> Tokenizer:
    return build_tokenizer(TokenizerOptions(tokenizer_type=kind, tokenizer_model=path), engine)


def rows(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    ids, lengths = tokenizer.encode_batch(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("engine", ["auto", "tokenizers"])
def test_ids_are_those_of_megatron(model, engine):
    library = sentencepiece.SentencePieceProcessor(model_file=model)
    texts = [*TEXTS, "names in text: </s><s>"]
    plain, llama = build("GPTSentencePieceTokenizer", model, engine), build("Llama2Tokenizer", model, engine)
    assert rows(plain, texts) == library.encode(texts)
    assert rows(llama, texts) == library.encode(texts, add_bos=True)
    assert rows(llama, [""]) == [[library.bos_id()]]
    assert (plain.eod, llama.eod, llama.vocab_size) == (library.eos_id(), library.eos_id(), 420)
    for text, ids in zip(TEXTS, rows(llama, TEXTS)):
        assert llama.decode(ids) == text
        assert llama.text_sizes([np.array(ids)]).tolist() == [len(text.encode())]


def test_two_names_of_one_thing_and_another(model):
    names = ("SentencePieceTokenizer", "GPTSentencePieceTokenizer", "Llama2Tokenizer")
    one, same, other = (build(name, model).identity() for name in names)
    assert one == same != other


def test_llama_needs_a_beginning(tmp_path):
    path = write_sentencepiece(tmp_path / "a.model", bos_id=-1)
    with pytest.raises(UserError, match="has no token that begins a text, which Llama2Tokenizer needs"):
        build("Llama2Tokenizer", path)


def test_a_cut_model_is_refused(model, tmp_path):
    content = Path(model).read_bytes()
    where = tmp_path / "cut.model"
    for size in (0, 1, 100, len(content) // 2, len(content) - 1):
        where.write_bytes(content[:size])
        with pytest.raises(UserError, match="is no SentencePiece model"):
            build("SentencePieceTokenizer", str(where))


def test_a_model_cut_where_the_library_reads_on(model, tmp_path):
    """Behind the last piece, and behind how it was trained, the rest is a whole message of its own."""
    content, where = Path(model).read_bytes(), tmp_path / "cut.model"
    read = 0
    for size in range(len(content) - 60, len(content)):
        where.write_bytes(content[:size])
        try:
            sentencepiece.SentencePieceProcessor(model_file=str(where))
        except RuntimeError:
            continue
        read += 1
        with pytest.raises(UserError, match=r"is cut: its [\d,]+ bytes do not say how it "):
            build("SentencePieceTokenizer", str(where))
    assert read
