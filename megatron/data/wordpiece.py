"""The tokens that a masked language model needs: those around its sentences, the mask, and which tokens
continue the word before them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.corpora import Corpus, is_made_up
from megatron.data.end_of_document import read_config
from megatron.data.tokenizer import describe_identity
from megatron.data.tokenizer_files import tokenizer_of_data
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.vocabulary import find_vocabulary

NAMES = {
    "cls": ("[CLS]", "<cls>", "<s>"),
    "sep": ("[SEP]", "<sep>", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "pad": ("[PAD]", "<pad>"),
}
"""The usual names of BERT's tokens, and of RoBERTa's and its like."""


class BertTokens(NamedTuple):
    """Ids of the tokens before a sample, between and behind its sentences, for a hidden token, and for what
    fills a row up; whether each token continues the word of the token before it, bool [vocab_size], and
    whether that is known."""

    cls: int
    sep: int
    mask: int
    pad: int
    continues: np.ndarray
    words_known: bool = True


def bert_tokens(options: TokenizerOptions, corpora: Sequence[Corpus]) -> BertTokens:
    """These tokens of the tokenizer of the flags, or else of the one that made the data. Made-up data has the
    last four ids of its vocabulary for them. UserError where no tokenizer is known, or it lacks one."""
    vocabulary = find_vocabulary(options, list(corpora))
    if options.tokenizer_type is None and corpora and all(map(is_made_up, corpora)):
        if vocabulary.size < len(NAMES) + 1:
            raise UserError(
                f"--vocab-size {vocabulary.size} must be at least {len(NAMES) + 1} for BERT: four ids are "
                "[CLS], [SEP], [MASK] and [PAD]"
            )
        cls, sep, mask, pad = range(vocabulary.size - len(NAMES), vocabulary.size)
        return BertTokens(cls, sep, mask, pad, np.zeros(vocabulary.size, bool))
    sidecars = [corpus.sidecar for corpus in corpora if corpus.sidecar]
    found = tokenizer_of_data(options, sidecars, vocabulary)
    if found is None or not found[0].files:
        what = describe_identity(vocabulary.tokenizer) if vocabulary.tokenizer else "--vocab-size alone"
        raise UserError(
            f"BERT needs to know [CLS], [SEP], [MASK] and [PAD], and {what} has no such tokens; name a "
            "tokenizer by --tokenizer-type, such as BertWordPieceLowerCase with --vocab-file vocab.txt, and "
            "preprocess the text with it"
        )
    return tokens_of(found[0])


def tokens_of(tokenizer: Tokenizer) -> BertTokens:
    """These tokens of one tokenizer: those that its tokenizer_config.json names, or else the usual names."""
    path = next(iter(tokenizer.files.values()))
    config = read_config(path)
    ids = {role: _find(role, config, tokenizer.vocabulary) for role in NAMES}
    if missing := [role for role, number in ids.items() if number is None]:
        usual = ", ".join(" or ".join(NAMES[role]) for role in missing)
        raise UserError(
            f"{path}: has no token {usual}, which BERT needs; use the tokenizer of a BERT, or train one with "
            "tools/train_tokenizer.py --model wordpiece"
        )
    continues = tokenizer.continues()
    none = np.zeros(tokenizer.vocab_size, bool)
    return BertTokens(
        **ids,  # type: ignore[arg-type]
        continues=none if continues is None else continues,
        words_known=continues is not None,
    )


def _find(role: str, config: Mapping[str, Any], vocabulary: Mapping[str, int]) -> int | None:
    named: Any = config.get(f"{role}_token")
    named = named.get("content") if isinstance(named, dict) else named
    return next((vocabulary[name] for name in (named, *NAMES[role]) if name in vocabulary), None)
