"""Scores of continuations, against logits of single rows."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron.base.errors import UserError
from megatron.batches.gpt import document_inputs
from megatron.config.config import TokenizerOptions
from megatron.config.data import DataConfig
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation import domains
from megatron.evaluation.domains import score_domains
from megatron.evaluation.generate import Choice, generate
from megatron.evaluation.score import Pair, Scorer, begin_of, encode, encode_pairs, score, windows
from megatron.parallel.mesh import Mesh
from tests.support.made_up_text import TEXTS, write_tokenizer
from tests.support.models import VOCAB, make_moved_model
from tests.support.ranks import run_ranks

CONTEXT = 12
GENERATOR = torch.Generator().manual_seed(4)
PAIRS = [
    Pair(*(torch.randint(VOCAB, (size,), generator=GENERATOR).tolist() for size in sizes))
    for sizes in ((3, 2), (1, 1), (20, 4), (5, 7), (12, 1), (2, 11), (4, 30), (9, 12), (1, 0))
]
MODELS = [
    "",
    "--position-embedding-type rope --group-query-attention --num-query-groups 2",
    "--num-experts 4",
]


def apart(tokens: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    data = DataConfig(seq_length=CONTEXT, reset_attention_mask=True, reset_position_ids=True)
    return document_inputs(tokens.numpy(), data, 9)[1:]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return build_tokenizer(TokenizerOptions(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=path))


def test_every_token_is_told_once_with_as_much_before_it_as_fits() -> None:
    for pair in PAIRS:
        whole, told = [*pair.context, *pair.continuation], len(pair.context)
        for ids, count in windows(pair, CONTEXT):
            told += count
            assert ids == whole[max(told - CONTEXT - 1, 0) : told] and 0 < count <= CONTEXT
        assert told == len(whole)


@pytest.mark.parametrize("flags", MODELS)
@pytest.mark.parametrize("documents", [None, apart], ids=["", "documents apart"])
def test_scores_are_those_of_single_rows_on_any_ranks(tokenizer: Tokenizer, flags: str, documents) -> None:
    model = make_moved_model(flags).eval()
    scorer = Scorer(model, tokenizer, CONTEXT, documents, 3, Mesh())
    wanted = []
    for pair in PAIRS:
        total, likeliest = 0.0, True
        for ids, count in windows(pair, CONTEXT):
            row = torch.tensor([ids[:-1]])
            logits = model.logits(row, *(documents(row) if documents else ()))[0].log_softmax(-1)
            for place, label in zip(range(len(ids) - 1 - count, len(ids) - 1), ids[-count:]):
                total += logits[place, label].item()
                likeliest &= int(logits[place].argmax()) == label
        wanted.append((pytest.approx(total, rel=1e-12, abs=1e-12), likeliest))
    found = score(scorer, PAIRS)
    assert found == wanted and found[-1] == (0.0, True)
    assert score(scorer._replace(micro_batch_size=100), PAIRS) == wanted
    for ranks in (2, 3):
        assert run_ranks(ranks, lambda mesh: score(scorer._replace(mesh=mesh), PAIRS)) == [found] * ranks


def test_what_a_greedy_choice_gives_is_likeliest(tokenizer: Tokenizer) -> None:
    model = make_moved_model("").eval()
    scorer = Scorer(model, tokenizer, CONTEXT, None, 3, Mesh())
    best = int(model.logits(torch.tensor([[3, 5, 7]]))[0, -1].argmax())
    pairs = [Pair([3, 5, 7], [token]) for token in (best, (best + 1) % VOCAB)]
    assert [one.likeliest for one in score(scorer, pairs)] == [True, False]


def test_pairs_are_cut_where_the_context_ends(tokenizer: Tokenizer) -> None:
    def ids(text: str) -> list[int]:
        return tokenizer.encode_batch([text])[0].tolist()

    assert encode(tokenizer, TEXTS) == [ids(text) for text in TEXTS] and encode(tokenizer, []) == []
    texts = [
        ("The quick", " fox"),
        ("The quick ", "fox"),
        ("", "The"),
        ("  ", "The"),
        ("", "<|endoftext|>The"),
    ]
    found = encode_pairs(tokenizer, texts)
    whole, before = ids("The quick fox"), ids("The quick")
    assert found[0] == found[1] == (before, whole[len(before) :])
    assert found[2] == found[4] == ([tokenizer.eod], ids("The"))
    assert found[3] == ([tokenizer.eod], ids("  The"))
    begun = encode_pairs(tokenizer, texts, (7,))
    assert [(one.context[0], one.continuation) for one in begun[:4]] == [(7, one[1]) for one in found[:4]]
    assert [one.context[1:] for one in begun] == [before, before, [], [], []]


def test_the_token_before_every_text_is_asked_for_and_converted_weights_remind_of_it(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    def restored(**schedule: object) -> Any:
        return SimpleNamespace(folder="runs/llama", manifest=SimpleNamespace(is_converted=not schedule))

    begun = dataclasses.replace(tokenizer, around=("fox",), vocabulary={"fox": 7})
    assert begin_of(restored(), begun, "fox") == (7,) and not capsys.readouterr().err
    for one, made, told in ((begun, {}, 1), (begun, {"decay horizon": 1}, 0), (tokenizer, {}, 0)):
        assert begin_of(restored(**made), one, None) == ()
        assert capsys.readouterr().err.count("--bos-token 'fox' does so here") == told
    with pytest.raises(UserError, match="--bos-token <s>: the tokenizer of runs/llama has no such token"):
        begin_of(restored(), begun, "<s>")


def test_a_model_of_no_numbers_is_refused(tokenizer: Tokenizer) -> None:
    """NaN is above nothing and below nothing, so every question would be judged all the same."""
    model = make_moved_model("").eval()
    model.final_norm.weight.data.fill_(float("nan"))
    scorer = Scorer(model, tokenizer, CONTEXT, None, 3, Mesh())
    with pytest.raises(UserError, match=r"outputs are no numbers .*; name an older step by --ckpt-step"):
        score(scorer, PAIRS)
    with pytest.raises(UserError, match="outputs are no numbers"):
        generate(model, [[3, 5]], 2, CONTEXT, Choice())


def test_nothing_to_tell_is_certain(tokenizer: Tokenizer) -> None:
    scorer = Scorer(make_moved_model("").eval(), tokenizer, CONTEXT, None, 3, Mesh())
    assert score(scorer, [Pair([1], [])]) == [(0.0, True)] and score(scorer, []) == []


def test_a_domain_without_a_token_is_refused(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a tokenizer that drops white space, where all of a domain is blank."""
    scorer = Scorer(make_moved_model("").eval(), tokenizer, CONTEXT, None, 3, Mesh())
    monkeypatch.setattr(
        domains, "encode", lambda tokenizer, texts: [[3, 4] * bool(one.strip()) for one in texts]
    )
    assert score_domains(scorer, {"a": ["x", " "]})["a"].tokens.tolist() == [2, 0]
    with pytest.raises(UserError, match="--domains: the tokenizer makes no token of the texts of b; leave"):
        score_domains(scorer, {"a": ["x"], "b": [" ", "  "]})
