"""Rows as transformers makes them of the same texts, and how they are drawn."""

from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from megatron.data.wordpiece import tokens_of
from megatron.finetuning.examples import Examples
from megatron.finetuning.rows import encode, longest_first, rows_of
from megatron.parallel.slices import WHOLE
from tests.support.made_up_text import write_bert_vocabulary

TEXTS = ("the quick brown fox", "it doesn't mind", "jumps over the lazy dog, running back!", "", "un wanted")


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 40))
def test_the_longer_text_is_cut_first(first: int, second: int, room: int):
    kept = longest_first(np.array([[first, second]]), room)[0].tolist()
    wanted = [first, second]
    while sum(wanted) > room:  # token by token, and among equals the first text is cut
        wanted[wanted[0] < wanted[1]] -= 1
    assert kept == wanted or (
        sum(kept) == room and abs(kept[0] - kept[1]) == 1 and min(first, second) > room // 2
    )


@pytest.mark.parametrize("most", [6, 9, 12, 40])
@pytest.mark.parametrize("pairs", [False, True])
def test_rows_are_those_of_transformers(pairs: bool, most: int, tmp_path: Path):
    path = write_bert_vocabulary(tmp_path / "vocab.txt")
    tokenizer = build_tokenizer(TokenizerOptions("BertWordPieceLowerCase", vocab_file=path))
    texts = [(one, other) if pairs else (one,) for one in TEXTS for other in TEXTS[: len(TEXTS) * pairs or 1]]
    (tmp_path / "rows.tsv").write_text("text\n")
    examples = Examples(tmp_path / "rows.tsv", texts, None, [str(n) for n in range(len(texts))])
    corpus = encode(examples, tokenizer, tokens_of(tokenizer), most, typed=True)
    theirs = transformers.BertTokenizerFast.from_pretrained(str(tmp_path))
    wanted = theirs(
        *map(list, zip(*texts)),
        truncation="longest_first",
        max_length=most,
        padding=True,
        return_tensors="np",
    )
    found = rows_of(corpus, range(len(texts)), 0, int(corpus.lengths.max()), WHOLE)
    real = wanted["input_ids"].shape[1]
    assert found.tokens.shape[1] % 8 == 0 and found.tokens.shape[1] - real < 8
    assert np.array_equal(found.tokens[:, :real], wanted["input_ids"])
    assert np.array_equal(found.types[:, :real], wanted["token_type_ids"])
    assert np.array_equal(corpus.lengths, wanted["attention_mask"].sum(1))
    assert found.ends is None or found.ends[:, 0].tolist() == corpus.lengths.tolist()
