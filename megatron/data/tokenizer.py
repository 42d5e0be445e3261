"""Tokenizers from local files, under Megatron's names. Nothing is ever fetched.

A kind of tokenizer is a function `(options, engine) -> Tokenizer` and an entry in `TOKENIZERS`. `options`
is anything with the attributes of `TokenizerOptions` in megatron/config/tokenizer.py.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from megatron.base.errors import UserError
from megatron.base.files import checksum
from megatron.data.bert_files import bert_wordpiece
from megatron.data.huggingface import gpt2_bpe, huggingface
from megatron.data.sentencepiece_models import llama2, sentencepiece_model
from megatron.data.tiktoken_files import tiktokenizer
from megatron.data.token_engines import numbers_engine
from megatron.data.tokenizer_value import EndOfDocument, Tokenizer


def build_tokenizer(options: Any, engine: str = "tokenizers") -> Tokenizer:
    """The tokenizer that the options name. `engine`: "tokenizers" is the reference library, "gigatoken"
    the fast one (UserError where it cannot), "auto" the fast one where it can."""
    if options.tokenizer_type not in TOKENIZERS:
        raise UserError(f"--tokenizer-type {options.tokenizer_type}: choose one of {', '.join(TOKENIZERS)}")
    tokenizer = TOKENIZERS[options.tokenizer_type](options, engine)
    if tokenizer.files and options.vocab_size not in (None, tokenizer.vocab_size):
        raise UserError(
            f"--vocab-size {options.vocab_size}: the tokenizer has {tokenizer.vocab_size} tokens; leave "
            "--vocab-size out"
        )
    return dataclasses.replace(tokenizer, sha256=tuple(map(checksum, tokenizer.files.values())))


def describe_identity(identity: dict[str, Any] | None, flags: Mapping[str, Any] | None = None) -> str:
    """A tokenizer's identity in words; `flags`: those that name its files, where they are known."""
    if not identity:
        return "an unknown tokenizer"
    named = (flags or {}).get
    paths = " and ".join(filter(None, map(named, ("tokenizer_model", "vocab_file", "merge_file"))))
    files = " ".join(str(one)[:12] for one in identity.get("sha256", ()))
    settings = " ".join(map(str, identity.get("settings", ())))
    return (
        f"a {identity.get('type')} of {identity.get('vocab_size')} tokens"
        + (f" in {paths}" if paths else "")
        + (f" (files {files}...)" if files else "")
        + (f" with {settings}" if settings else "")
    )


def describe_maker(sidecar: Mapping[str, Any]) -> str:
    """The tokenizer that made a dataset, in words, from what its .json says."""
    return describe_identity(sidecar.get("tokenizer"), sidecar.get("tokenizer_flags"))


def describe_end(end: EndOfDocument, appended: bool | None = True) -> str:
    """What ends a document, in words. `appended`: whether preprocessing put it there; None: unknown."""
    if appended is False:
        return (
            "documents end with no token, as they are preprocessed without --append-eod; with it they end "
            f"with {end.name} (token {end.id}), {end.reason}"
        )
    return f"documents end with {end.name} (token {end.id}), {end.reason}"


def describe_around(tokenizer: Tokenizer) -> str:
    """Which tokens of the tokenizer's files no document gets, in words; "" where there are none."""
    names = [name for name in dict.fromkeys(tokenizer.around) if name != tokenizer.end.name]
    if not names:
        return ""
    where = next(iter(tokenizer.files.values())).name
    return (
        f"note: {where} puts {' and '.join(names)} around every text; that is left out, as documents get the "
        "token of --append-eod alone. Write it into the texts where it is wanted"
    )


def _null(options: Any, engine: str) -> Tokenizer:
    """Texts of ids; the end-of-document token is one more id behind the vocabulary."""
    if not options.vocab_size or options.vocab_size < 1:
        raise UserError(
            f"--tokenizer-type {options.tokenizer_type} needs --vocab-size, the number of ids, at least 1"
        )
    name = "<eod>"
    if options.eod_token not in (None, name):
        raise UserError(
            f"--eod-token {options.eod_token}: that of NullTokenizer is {name}; leave the flag out"
        )
    if engine == "gigatoken":
        raise UserError(
            f"--tokenizer-engine gigatoken: {options.tokenizer_type} needs no engine; leave the flag out"
        )
    eod = options.vocab_size
    encode = numbers_engine(eod + 1)

    def decode(ids: Any) -> str:
        return " ".join(str(int(number)) for number in ids)

    return Tokenizer(
        kind=options.tokenizer_type,
        files={},
        engine="numbers",
        encode_batch=encode,
        reference=encode,
        decode=decode,
        vocab_size=eod + 1,
        end=EndOfDocument(eod, name, "the id behind the vocabulary"),
        pad=None,
        special_tokens={name: eod},
        vocabulary={name: eod},
        continues=lambda: np.zeros(eod + 1, bool),
        text_sizes=lambda rows: np.array([len(decode(row)) for row in rows], np.int64),
    )


TOKENIZERS: dict[str, Callable[[Any, str], Tokenizer]] = {
    "BertWordPieceLowerCase": bert_wordpiece,
    "BertWordPieceCase": bert_wordpiece,
    "HuggingFaceTokenizer": huggingface,
    "GPT2BPETokenizer": gpt2_bpe,
    "SentencePieceTokenizer": sentencepiece_model,
    "GPTSentencePieceTokenizer": sentencepiece_model,
    "Llama2Tokenizer": llama2,
    "TikTokenizer": tiktokenizer,
    "NullTokenizer": _null,
}
