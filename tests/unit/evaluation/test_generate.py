"""The text of generated tokens, and where it ends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation.generate import continuation, generate
from tests.support.made_up_text import TEXTS, write_metaspace, write_sentencepiece, write_tokenizer
from tests.support.models import make_model

KINDS = ["byte-level", "sentencepiece", "llama2", "metaspace", "llama json"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("tokenizers")
    model = write_sentencepiece(folder / "a.model")
    named = {
        "byte-level": ("HuggingFaceTokenizer", write_tokenizer(folder)),
        "sentencepiece": ("SentencePieceTokenizer", model),
        "llama2": ("Llama2Tokenizer", model),
        "metaspace": ("HuggingFaceTokenizer", write_metaspace(folder, legacy=False)),
        "llama json": ("HuggingFaceTokenizer", write_metaspace(folder, legacy=True)),
    }
    return {
        name: build_tokenizer(TokenizerOptions(tokenizer_type=kind, tokenizer_model=path))
        for name, (kind, path) in named.items()
    }


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode_batch([text])[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_between_prompt_and_continuation(made, kind):
    """Wherever the ids of a text are cut, the text of both parts is the text."""
    tokenizer = made[kind]
    for text in ["The quick brown fox", "x  y", "naïve café 日本"]:
        ids = ids_of(tokenizer, text)
        for cut in range(1, len(ids) + 1):
            before = tokenizer.decode(ids[:cut])
            if "\ufffd" not in before:
                assert before + continuation(tokenizer, ids[:cut], ids[cut:]) == text, (cut, before)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(words=st.lists(st.sampled_from(["a", "fox", "the", "Größe", "1,", "日本"]), min_size=2, max_size=6))
def test_a_space_between_words_stays(made, kind, words):
    tokenizer, first = made[kind], words[0]
    whole = " ".join(words)
    ids, prompt = ids_of(tokenizer, whole), ids_of(tokenizer, first)
    if ids[: len(prompt)] == prompt:
        assert first + continuation(tokenizer, prompt, ids[len(prompt) :]) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_not_glued_together(made, kind):
    tokenizer = made[kind]
    one, two = ids_of(tokenizer, "one end"), ids_of(tokenizer, "two")
    text = continuation(tokenizer, one[:3], [*one[3:], tokenizer.eod, *two])
    assert text.endswith(f"end{tokenizer.end.name}two")
    assert continuation(tokenizer, [tokenizer.eod], two) == "two"


def test_generation_stops_where_the_document_ends():
    model, generator = make_model("").float(), torch.Generator()
    rest = (torch.tensor([3, 5, 7]), 20, 16, 0.0, 0, 1.0, generator)
    ids = list(generate(model, *rest))
    assert len(ids) == 20
    for stop in set(ids):
        assert list(generate(model, *rest, stop)) == ids[: ids.index(stop)]
    assert list(generate(model, *rest, 100 if 100 not in ids else 99)) == ids


def test_texts_of_all_kinds_decode_to_themselves(made):
    for kind in KINDS:
        for text in TEXTS[:3]:
            assert made[kind].decode(ids_of(made[kind], text)) == text, kind
