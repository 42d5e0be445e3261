"""The text of generated tokens, and where it ends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.keys import key
from megatron.batches.gpt import document_inputs
from megatron.config.data import DataConfig
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation.generate import Choice, _choose, continuation, generate
from megatron.model.cache import Cache, Recall
from megatron.model.gpt import GPT
from tests.support.made_up_text import TEXTS, write_metaspace, write_sentencepiece, write_tokenizer
from tests.support.models import LENGTH, VOCAB, make_model, make_moved_model
from tools.generate_text import _altered

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


CONTEXT = 16
GREEDY = Choice(temperature=0.0)
KEYED = Choice(0.8, 20, 0.95, 7)
PROMPTS = [[3, 5, 7], [11, 2, 9, 4, 13, 6, 9, 8], [1], [17, 18, 19, 20, 21]]
MODELS_OF_THE_REPOSITORY = {
    "learned positions": "",
    "explicit attention": "--attention-backend unfused",
    "untied, biases everywhere": "--untie-embeddings-and-output-weights --openai-gelu",
    "rotary": "--position-embedding-type rope --normalization RMSNorm --swiglu --disable-bias-linear",
    "half rotary": "--position-embedding-type rope --rotary-percent 0.5",
    "grouped queries": "--position-embedding-type rope --group-query-attention --num-query-groups 2",
    "one group": "--group-query-attention --num-query-groups 1",
    "experts": "--num-experts 4 --moe-router-topk 2",
    "shared expert, capacity": "--num-experts 4 --moe-router-topk 1 --moe-expert-capacity-factor 1 "
    "--moe-shared-expert-intermediate-size 24 --position-embedding-type rope",
    "sinkhorn": "--num-experts 4 --moe-router-topk 1 --moe-router-load-balancing-type sinkhorn",
}


def evaluated(flags: str) -> GPT:
    return make_moved_model(flags).eval()


@pytest.mark.parametrize("flags", MODELS_OF_THE_REPOSITORY.values(), ids=MODELS_OF_THE_REPOSITORY)
@pytest.mark.parametrize("apart", [False, True], ids=["", "documents apart"])
def test_logits_with_a_cache_are_those_of_whole_rows(flags: str, apart: bool) -> None:
    """Rows of different lengths: first their prompts, padded, then pieces of several tokens and single
    ones."""
    model, generator = evaluated(flags), torch.Generator().manual_seed(3)
    lengths, steps = torch.tensor([3, 8, 1, 5]), [3, 1, 1, 2]
    whole = torch.randint(VOCAB, (4, 8 + sum(steps)), generator=generator)
    whole[:, ::4] = 9
    data = DataConfig(seq_length=LENGTH, reset_attention_mask=apart, reset_position_ids=apart)
    _, positions, starts = document_inputs(whole.numpy(), data, 9)
    wanted, cache = model.logits(whole, positions, starts), Cache(whole.shape[1])
    known = torch.zeros(4, dtype=torch.int64)
    for size in [8, *steps]:
        places = known[:, None] + torch.arange(size)
        sizes = lengths if not known.any() else torch.full((4,), size)
        where = [None if part is None else part.gather(1, places) for part in (positions, starts)]
        recall = Recall(cache, places, int(places.max()) + 1)
        found = model.next_logits(whole.gather(1, places), sizes - 1, recall, *where)
        known = known + sizes
        torch.testing.assert_close(found, wanted[torch.arange(4), known - 1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("flags", MODELS_OF_THE_REPOSITORY.values(), ids=MODELS_OF_THE_REPOSITORY)
@pytest.mark.parametrize("choice", [GREEDY, KEYED], ids=["greedy", "keyed"])
def test_tokens_are_the_same_with_a_cache_and_in_a_batch(flags: str, choice: Choice) -> None:
    """Texts become longer than what the model sees, and some end on their way."""
    model = evaluated(flags)
    alone = [
        generate(model, [prompt], 20, CONTEXT, choice, numbers=[number], cached=False)[0]
        for number, prompt in enumerate(PROMPTS)
    ]
    assert [len(ids) for ids in alone] == [20] * 4 and len({*map(tuple, alone)}) == 4
    assert generate(model, PROMPTS, 20, CONTEXT, choice) == alone
    one_by_one = [
        generate(model, [prompt], 20, CONTEXT, choice, numbers=[number])[0]
        for number, prompt in enumerate(PROMPTS)
    ]
    assert one_by_one == alone
    for stop in {alone[0][4], alone[1][9], alone[3][0]}:
        wanted = [ids[: ids.index(stop)] if stop in ids else ids for ids in alone]
        assert generate(model, PROMPTS, 20, CONTEXT, choice, stop) == wanted


def test_a_draw_is_of_the_seed_and_of_the_number_of_the_text() -> None:
    model = evaluated("")
    first, second = generate(model, [[3, 5], [3, 5]], 20, CONTEXT, KEYED)
    assert first != second
    assert generate(model, [[3, 5]], 20, CONTEXT, KEYED, numbers=[1]) == [second]
    assert generate(model, [[3, 5]], 20, CONTEXT, KEYED._replace(seed=8)) != [first]


def test_a_row_ends_where_its_caller_says() -> None:
    model = evaluated("")
    whole = generate(model, PROMPTS, 12, CONTEXT, GREEDY)
    found = generate(model, PROMPTS, 12, CONTEXT, GREEDY, ends=lambda row, ids: len(ids) == 2 * row + 1)
    assert found == [ids[: 2 * row + 1] for row, ids in enumerate(whole)]


def test_each_new_token_alone_is_computed() -> None:
    model, seen = evaluated(""), list[tuple[int, ...]]()
    layer = model.layers["1"]
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[:2])))
    generate(model, PROMPTS, 4, CONTEXT, GREEDY)
    assert seen == [(4, 8), (4, 1), (4, 1), (4, 1)]


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
    choice = Choice(temperature, top_k, top_p)
    draws = [_choose(LOGITS, choice, key(0, number)) for number in range(1000)]
    shares = torch.bincount(torch.tensor(draws), minlength=5) / 1000
    powers = torch.zeros(5)
    powers[allowed] = (LOGITS[allowed] / (temperature or 1)).exp()
    assert set(draws) == set(allowed)
    # the standard error of a share is at most sqrt(0.25 / 1000)
    torch.testing.assert_close(shares, powers / powers.sum(), rtol=0, atol=4 * (0.25 / 1000) ** 0.5)


def test_the_model_sees_the_last_tokens_of_its_context():
    model = make_model("").float()
    prompt = torch.tensor([3, 5, 7, 11, 13])
    ((first,),) = generate(model, [prompt.tolist()], 1, 3, GREEDY)
    assert first == int(model.logits(prompt[None, 2:])[0, -1].argmax())
    (three,) = generate(model, [prompt.tolist()], 3, 6, GREEDY)
    for _ in range(3):
        likeliest = model.logits(prompt[None, -6:])[0, -1].argmax()
        assert three.pop(0) == int(likeliest)
        prompt = torch.cat([prompt, likeliest[None]])


def test_a_document_of_the_prompt_does_not_see_the_one_before_it_where_training_kept_them_apart():
    """With both resets the second document is computed as if it stood alone."""
    model = make_model("").float()
    data = DataConfig(seq_length=16, reset_attention_mask=True, reset_position_ids=True)
    first, second = [3, 5, 9], [7, 11, 13]

    def documents(ids: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        _, positions, starts = document_inputs(ids.numpy(), data, 9)
        return positions, starts

    both, ids = torch.tensor([first + second]), torch.arange(len(first), 6)
    apart, alone = generate(model, [first + second, second], 20, 16, GREEDY, None, documents)
    assert apart[:10] == alone[:10]  # behind them the first document leaves what the model sees
    assert generate(model, [first + second], 20, 16, GREEDY, None, documents, cached=False) == [apart]
    seen = model.logits(both, *documents(both))[0, ids]
    torch.testing.assert_close(seen, model.logits(torch.tensor([second]))[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen, model.logits(both)[0, ids], atol=1e-3)


def test_texts_of_all_kinds_decode_to_themselves(made):
    for kind in KINDS:
        for text in TEXTS[:3]:
            assert made[kind].decode(ids_of(made[kind], text)) == text, kind


@pytest.mark.parametrize("temperature", [0.01, 1e-9, 1e-40, 1e-320])
@pytest.mark.parametrize("top_k, top_p", [(0, 1.0), (3, 0.9)])
def test_the_smallest_temperatures_take_the_likeliest_token(temperature, top_k, top_p):
    logits_V = torch.tensor([-3.0, 40.0, 41.0, 0.0])
    for seed in range(5):
        assert _choose(logits_V, Choice(temperature, top_k, top_p), key(seed)) == 2


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
