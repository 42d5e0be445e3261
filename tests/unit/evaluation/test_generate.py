"""The text of generated tokens, and where it ends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.batches.gpt import document_inputs
from megatron.config.arguments import parse, unused_flags
from megatron.config.data import DataConfig
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation.generate import _choose, continuation, generate
from tests.support.made_up_text import TEXTS, write_metaspace, write_sentencepiece, write_tokenizer
from tests.support.models import make_model
from tools.generate_text import FOREIGN, Options, _altered, main

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


LOGITS = torch.tensor([1.0, 3.0, 0.0, 2.0, -1.0])


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "allowed"),
    [
        (1.0, 0, 1.0, [1, 3, 0, 2, 4]),
        (2.0, 0, 1.0, [1, 3, 0, 2, 4]),
        (1.0, 2, 1.0, [1, 3]),
        (1.0, 0, 0.6, [1]),  # probabilities .636, .234, .086, .032, .012
        (1.0, 0, 0.65, [1, 3]),
        (1.0, 0, 0.9, [1, 3, 0]),
        (2.0, 3, 0.65, [1, 3]),  # .429, .260, .158, .096, .058
        (0.0, 0, 1.0, [1]),
    ],
)
def test_tokens_are_drawn_by_their_probabilities(
    temperature: float, top_k: int, top_p: float, allowed: list[int]
) -> None:
    """Softmax at a temperature, over the likeliest tokens alone where asked, by frequency of 1000 draws."""
    generator = torch.Generator().manual_seed(0)
    draws = [int(_choose(LOGITS, temperature, top_k, top_p, generator)) for _ in range(1000)]
    shares = torch.bincount(torch.tensor(draws), minlength=5) / 1000
    powers = torch.zeros(5)
    powers[allowed] = (LOGITS[allowed] / (temperature or 1)).exp()
    assert set(draws) == set(allowed)
    # the standard error of a share is at most sqrt(0.25 / 1000)
    torch.testing.assert_close(shares, powers / powers.sum(), rtol=0, atol=4 * (0.25 / 1000) ** 0.5)


def test_the_model_sees_the_last_tokens_of_its_context():
    model = make_model("").float()
    prompt = torch.tensor([3, 5, 7, 11, 13])
    (first,) = generate(model, prompt, 1, 3, 0.0, 0, 1.0, torch.Generator())
    assert first == int(model.logits(prompt[None, 2:])[0, -1].argmax())
    three = list(generate(model, prompt, 3, 6, 0.0, 0, 1.0, torch.Generator()))
    for _ in range(3):
        likeliest = model.logits(prompt[None, -6:])[0, -1].argmax()
        assert three.pop(0) == int(likeliest)
        prompt = torch.cat([prompt, likeliest[None]])


def test_a_document_of_the_prompt_does_not_see_the_one_before_it_where_training_kept_them_apart():
    """With both resets the second document is computed as if it stood alone."""
    model = make_model("").float()
    data = DataConfig(seq_length=16, reset_attention_mask=True, reset_position_ids=True)
    first, second = torch.tensor([3, 5, 9]), torch.tensor([7, 11, 13])

    def documents(ids: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return document_inputs(ids.numpy(), data, 9)[1:]

    chosen = (1, 16, 0.0, 0, 1.0, torch.Generator(), None)
    both, ids = torch.cat([first, second]), torch.arange(len(first), 6)
    (apart,) = generate(model, both, *chosen, documents)
    assert apart == int(model.logits(second[None])[0, -1].argmax())
    seen = model.logits(both[None], *documents(both[None]))[0, ids]
    torch.testing.assert_close(seen, model.logits(second[None])[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen, model.logits(both[None])[0, ids], atol=1e-3)


def test_texts_of_all_kinds_decode_to_themselves(made):
    for kind in KINDS:
        for text in TEXTS[:3]:
            assert made[kind].decode(ids_of(made[kind], text)) == text, kind


@pytest.mark.parametrize("temperature", [0.01, 1e-9, 1e-40, 1e-320])
@pytest.mark.parametrize("top_k, top_p", [(0, 1.0), (3, 0.9)])
def test_the_smallest_temperatures_take_the_likeliest_token(temperature, top_k, top_p):
    logits_V = torch.tensor([-3.0, 40.0, 41.0, 0.0])
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        assert _choose(logits_V, temperature, top_k, top_p, generator).item() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_comes_back_is_not_altered(made, kind):
    for prompt in ["", "The fox", " naïve  日本\n", "a"]:
        assert _altered(made[kind], prompt, ids_of(made[kind], prompt)) == ""


def test_a_prompt_that_its_tokenizer_alters_is_told(tmp_path):
    model = write_sentencepiece(tmp_path / "a.model", byte_fallback=False)
    tokenizer = build_tokenizer(
        TokenizerOptions(tokenizer_type="SentencePieceTokenizer", tokenizer_model=model)
    )
    assert _altered(tokenizer, "the 犬", ids_of(tokenizer, "the 犬")).startswith(
        "'the 犬' comes back as 'the "
    )
    numbers = build_tokenizer(TokenizerOptions(tokenizer_type="NullTokenizer", vocab_size=9))
    assert _altered(numbers, "1  2", ids_of(numbers, "1  2")) == ""


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--out-seq-length 12", "num_tokens", 12),
        ("--max_new_tokens 12", "num_tokens", 12),
        ("--maximum_tokens 12", "num_tokens", 12),
        ("--tokens-to-generate 12", "num_tokens", 12),
        ("--greedy", "temperature", 0.0),
        ("--genfile a.txt", "output", "a.txt"),
    ],
)
def test_flags_that_others_generate_with_are_read(words: str, name: str, value: object) -> None:
    argv = f"--load run {words}".split()
    assert getattr(parse(Options, argv, description="", foreign=FOREIGN), name) == value
    (note,) = unused_flags(Options, argv, FOREIGN)
    assert note.startswith(f"read {words} as --{name.replace('_', '-')} ")


def test_a_launch_script_of_training_generates() -> None:
    """Model and layout are those of the checkpoint, whatever the flags say."""
    words = (
        "--tensor-model-parallel-size 2 --num-layers 4 --hidden_size 64 --seq-length 32 --micro-batch-size 1"
    )
    argv = f"--load run {words}".split()
    assert parse(Options, argv, description="", foreign=FOREIGN) == parse(Options, argv[:2], description="")
    (note,) = unused_flags(Options, argv, FOREIGN)
    assert note.startswith("not used here: --tensor-model-parallel-size, --num-layers, --hidden_size (the ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--num-samples 10", "--num-samples 10 is refused: give --prompt once for each text"),
        ("--text-gen-type unconditional", "or none for a text from its beginning"),
        ("--top_p 0.0 --top_k 0", "--top-p 0 would leave no token; give 1 for all, or --temperature 0"),
    ],
)
def test_flags_that_others_generate_with_are_refused_with_a_way_out(
    words: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["generate_text.py", "--load", "run", *words.split()])
    with pytest.raises(UserError) as caught:
        main()
    (problem,) = caught.value.problems
    assert told in problem
