"""How many tokens there are and which one ends a document, from files, from flags, or from both where they
agree."""

import dataclasses
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.corpora import Corpus
from megatron.data.tokenizer import build_tokenizer
from megatron.data.vocabulary import endless, few_tokens, find_vocabulary, in_sentences, tell_vocabulary
from tests.support.configurations import make_config
from tests.support.corpora import make_corpus

MADE_UP = {"type": "made up", "vocab_size": 100}
SIDECAR = {"tokenizer": MADE_UP, "vocab_size": 100, "eod": 7}
NONE = TokenizerOptions()
NULL = TokenizerOptions(tokenizer_type="NullTokenizer", vocab_size=40)


def corpus(name: str = "a", sidecar: dict[str, Any] | None = None, **changes: Any) -> Corpus:
    """A corpus whose .json says `sidecar` with changes; without either it has none."""
    told = {**(sidecar or SIDECAR), **changes} if sidecar or changes else None
    return dataclasses.replace(make_corpus(4, 8, name=name), sidecar=told)


def problem(flags: TokenizerOptions, corpora: list[Corpus], data_flags: str = "") -> str:
    """The one thing that is wrong."""
    with pytest.raises(UserError) as caught:
        find_vocabulary(flags, corpora, make_config(data_flags).data)
    (only,) = caught.value.problems
    return only


def test_the_files_say_what_made_them() -> None:
    told = tell_vocabulary(NONE, [corpus(sidecar=SIDECAR), corpus("b")])
    assert told.vocabulary == (100, 7, MADE_UP)
    assert told.end == "documents end with a token (token 7), says a.json"
    named = tell_vocabulary(NONE, [corpus(eod_token="<end>")])
    assert named.end == "documents end with <end> (token 7), says a.json"
    unknown = tell_vocabulary(NONE, [corpus(eod=None)])
    assert unknown.vocabulary == (100, None, MADE_UP)
    assert unknown.end == "which token ends documents is unknown"


def test_an_end_that_nobody_has_appended_is_said_to_be_none() -> None:
    """The .json says so, whoever names the token."""
    bare = corpus(eod_token="<end>", append_eod=False)
    none = "documents end with no token, as they are preprocessed without --append-eod; with it they end with"
    assert tell_vocabulary(NONE, [bare]).end == f"{none} <end> (token 7), says a.json"
    identity = build_tokenizer(NULL).identity()
    same = corpus(tokenizer=identity, vocab_size=41, eod=40, append_eod=False)
    assert tell_vocabulary(NULL, [same]).end.startswith(f"{none} <eod> (token 40), ")
    appended = corpus(eod_token="<end>", append_eod=True)
    assert tell_vocabulary(NONE, [appended]).end == "documents end with <end> (token 7), says a.json"


def test_flags_that_would_find_no_end_of_a_document_are_told() -> None:
    bare, whole = corpus(append_eod=False), corpus("b", append_eod=True)
    for flags in ("--reset-attention-mask", "--reset-position-ids", "--eod-mask-loss"):
        data = make_config(flags).data
        (line,) = endless(data, [bare, whole, bare])
        assert line.startswith(f"warning: {flags} will find no end of a document in a, made without")
        assert endless(data, [whole, corpus(sidecar=SIDECAR), corpus()]) == []
    assert endless(make_config("").data, [bare]) == []
    both = make_config("--reset-position-ids --reset-attention-mask").data
    assert "warning: --reset-position-ids and --reset-attention-mask will " in endless(both, [bare])[0]


def test_the_tokenizer_of_the_flags_says_it_alone() -> None:
    """The end of a document of a NullTokenizer is one more id behind its 40."""
    told = tell_vocabulary(NULL, [corpus()])
    assert told.vocabulary == (41, 40, build_tokenizer(NULL).identity())
    assert "(token 40)" in told.end
    same = corpus(tokenizer=build_tokenizer(NULL).identity(), vocab_size=41, eod=40)
    assert find_vocabulary(NULL, [same]) == told.vocabulary


def test_a_number_of_tokens_suffices_where_nothing_else_is_known() -> None:
    assert find_vocabulary(TokenizerOptions(vocab_size=50), [corpus()]) == (50, None, None)
    assert problem(NONE, [corpus("b"), corpus("a")]).startswith("the vocabulary of a, b is unknown:")


def test_a_number_of_tokens_must_be_that_of_the_files() -> None:
    assert find_vocabulary(TokenizerOptions(vocab_size=100), [corpus(sidecar=SIDECAR)]).size == 100
    for size in (99, 101):
        assert problem(TokenizerOptions(vocab_size=size), [corpus(sidecar=SIDECAR)]).startswith(
            f"--vocab-size {size} contradicts a, whose vocabulary has 100 tokens"
        )


def test_an_end_of_documents_must_be_that_of_the_files() -> None:
    """Without a tokenizer of the flags, the text of a token has its number from the data alone."""
    mine, unknown = corpus(eod_token="<end>"), corpus("b", sidecar=SIDECAR)
    same, other = TokenizerOptions(eod_token="<end>"), TokenizerOptions(eod_token="<x>")
    assert find_vocabulary(same, [mine]).eod == 7
    assert problem(other, [mine]) == (
        "--eod-token <x> contradicts a, whose documents end with <end>; leave it out, or preprocess the text "
        "again with it"
    )
    for flags in (same, TokenizerOptions(eod_token="<end>", vocab_size=100)):
        for corpora in ([unknown], [corpus("b")] if flags.vocab_size else [mine, unknown]):
            assert problem(flags, corpora).startswith("--eod-token <end>: b does not say which token that is")


def test_sources_that_disagree_are_told_by_name() -> None:
    first, other = corpus(sidecar=SIDECAR), corpus("b", tokenizer={"type": "other", "vocab_size": 100})
    assert problem(NONE, [first, corpus("c"), other]) == (
        "b was made by a other of 100 tokens, and a by a made up of 100 tokens; preprocess one of them again "
        "with the tokenizer of the other"
    )
    assert problem(NULL, [first]) == (
        "a was made by a made up of 100 tokens, and the tokenizer of the flags is a NullTokenizer of 41 "
        "tokens; name the tokenizer that made the data, or preprocess it again"
    )
    paths = {"tokenizer_type": "GPT2BPETokenizer", "vocab_file": "/x/v.json", "merge_file": "/x/m.txt"}
    known = corpus(tokenizer=MADE_UP | {"sha256": ["0123456789abcdef"]}, tokenizer_flags=paths)
    assert problem(NULL, [known]).startswith(
        "a was made by a made up of 100 tokens in /x/v.json and /x/m.txt (files 0123456789ab...), and"
    )
    assert problem(NONE, [first, corpus("b", eod=8)]).startswith(
        "documents of b end with token 8, and those of a with 7;"
    )
    assert find_vocabulary(NONE, [first, corpus("b", sidecar=SIDECAR)]) == (100, 7, MADE_UP)


def test_flags_of_documents_need_to_know_what_ends_one() -> None:
    unknown = [corpus(eod=None)]
    flags = ("--eod-mask-loss", "--reset-position-ids", "--reset-attention-mask")
    for some in (*((flag,) for flag in flags), flags[1:], flags):
        assert problem(NONE, unknown, " ".join(some)).startswith(
            f"{' and '.join(some)}: which token ends a document is unknown;"
        )
        known = make_config(" ".join(some)).data
        assert find_vocabulary(NONE, [corpus(sidecar=SIDECAR)], known).eod == 7
        assert find_vocabulary(NONE, [corpus(sidecar={**SIDECAR, "eod": 0})], known).eod == 0
    assert find_vocabulary(NONE, unknown, make_config("").data).eod is None


def test_a_gpt_on_sentences_is_warned() -> None:
    of_sentences = corpus("a", sentences={"splitter": "nupunkt"})
    assert in_sentences([corpus("b"), corpus("c", sentences=None), corpus("d", None)]) == []
    (warning,) = in_sentences([of_sentences, corpus("b"), of_sentences])
    assert warning.startswith("warning: a is of sentences, made with --split-sentences for BERT: ")


def test_a_tokenizer_of_far_fewer_tokens_than_the_model_is_told() -> None:
    assert few_tokens(400, 1024) == ["the tokenizer has 400 tokens, and the model 1,024"]
    assert few_tokens(1000, 1024) == []
