"""How many tokens a model has to know, and which one ends a document: from the tokenizer, the data's own
.json, or a flag."""

from typing import Any, NamedTuple

from megatron.base.errors import UserError
from megatron.config.config import DataConfig, TokenizerOptions
from megatron.data.corpora import Corpus
from megatron.data.tokenizer import build_tokenizer, describe_identity

OF_FLAGS = "the tokenizer of the flags"


class Vocabulary(NamedTuple):
    """`size`: ids are below it; `eod`: the end-of-document id; `tokenizer`: what identifies the tokenizer.
    None: unknown."""

    size: int
    eod: int | None
    tokenizer: dict[str, Any] | None


def find_vocabulary(
    flags: TokenizerOptions, corpora: list[Corpus], data: DataConfig | None = None
) -> Vocabulary:
    """The vocabulary of corpora under the tokenizer flags. UserError where they contradict each other, and
    where `data` asks for documents to be told apart and nothing says which token ends one."""
    vocabulary = _agreed(flags, corpora)
    wishes = [
        name
        for name in ("eod_mask_loss", "reset_position_ids", "reset_attention_mask")
        if data and getattr(data, name)
    ]
    if wishes and vocabulary.eod is None:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in wishes)
        raise UserError(
            f"{names}: which token ends a document is unknown; name the tokenizer, with --eod-token where "
            "it has none of the usual names"
        )
    return vocabulary


def _agreed(flags: TokenizerOptions, corpora: list[Corpus]) -> Vocabulary:
    """What all sources say alike."""
    found = [(corpus.name, _of_sidecar(corpus.sidecar)) for corpus in corpora if corpus.sidecar]
    if flags.tokenizer_type:
        tokenizer = build_tokenizer(flags)
        found.insert(0, (OF_FLAGS, Vocabulary(tokenizer.vocab_size, tokenizer.eod, tokenizer.identity())))
    elif flags.vocab_size and not found:
        return Vocabulary(flags.vocab_size, None, None)
    if not found:
        names = ", ".join(sorted({corpus.name for corpus in corpora}))
        raise UserError(
            f"the vocabulary of {names} is unknown: no .json lies beside it; give --tokenizer-type and "
            "its files, or --vocab-size"
        )
    name, first = found[0]
    verb = "is" if name == OF_FLAGS else "by"
    for other, vocabulary in found[1:]:
        if vocabulary.tokenizer != first.tokenizer:
            raise UserError(
                f"{other} was made by {describe_identity(vocabulary.tokenizer)}, and {name} {verb} "
                f"{describe_identity(first.tokenizer)}; "
                "name the tokenizer that made the data, or preprocess it again"
            )
    if flags.vocab_size and not flags.tokenizer_type and flags.vocab_size != first.size:
        raise UserError(
            f"--vocab-size {flags.vocab_size} contradicts {name}, whose vocabulary has {first.size} "
            "tokens; leave it out"
        )
    return first


def _of_sidecar(sidecar: dict[str, Any]) -> Vocabulary:
    tokenizer = sidecar["tokenizer"]
    return Vocabulary(int(sidecar["vocab_size"]), sidecar.get("eod"), tokenizer)
