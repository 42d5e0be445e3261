"""How many tokens a model has to know, and which one ends a document: from the tokenizer, the data's own
.json, or a flag."""

from typing import Any, NamedTuple

from megatron.base.errors import UserError
from megatron.config.config import DataConfig, TokenizerOptions
from megatron.config.flags import spelling
from megatron.data.corpora import Corpus
from megatron.data.tokenizer import build_tokenizer, describe_end, describe_identity
from megatron.data.tokenizer_value import EndOfDocument

OF_FLAGS = "the tokenizer of the flags"
MANY = 0.9
"""Of a model's tokens, which its own tokenizer has; models have some more for even matrices."""
UNKNOWN_END = "which token ends documents is unknown"


class Vocabulary(NamedTuple):
    """`size`: ids are below it; `eod`: the end-of-document id; `tokenizer`: what identifies the tokenizer.
    None: unknown."""

    size: int
    eod: int | None
    tokenizer: dict[str, Any] | None


class Told(NamedTuple):
    """A vocabulary, and how it is known in words what ends a document."""

    vocabulary: Vocabulary
    end: str


def find_vocabulary(
    flags: TokenizerOptions, corpora: list[Corpus], data: DataConfig | None = None
) -> Vocabulary:
    """The vocabulary of corpora under the tokenizer flags. UserError where they contradict each other, and
    where `data` asks for documents to be told apart and nothing says which token ends one."""
    return tell_vocabulary(flags, corpora, data).vocabulary


def tell_vocabulary(flags: TokenizerOptions, corpora: list[Corpus], data: DataConfig | None = None) -> Told:
    """The same, and what ends a document in words."""
    told = _agreed(flags, corpora)
    if told.vocabulary.eod is None and data and (wishes := _wishes(data)):
        raise UserError(
            f"{wishes}: which token ends a document is unknown; name the tokenizer, with --eod-token where "
            "it has none of the usual names"
        )
    return told


def endless(data: DataConfig, corpora: list[Corpus]) -> list[str]:
    """A warning where documents shall be told apart and preprocessing has put nothing at their ends."""
    names = dict.fromkeys(corpus.name for corpus in corpora if _appended(corpus) is False)
    if not names or not (wishes := _wishes(data)):
        return []
    return [
        f"warning: {wishes} will find no end of a document in {', '.join(names)}, made without --append-eod; "
        "preprocess the text again with it, or leave the flags out"
    ]


def few_tokens(tokenizer: int, model: int) -> list[str]:
    """What lets the tokenizer of another model be seen: it has far fewer tokens than the model."""
    if tokenizer >= MANY * model:
        return []
    return [f"the tokenizer has {tokenizer:,} tokens, and the model {model:,}"]


def in_sentences(corpora: list[Corpus]) -> list[str]:
    """A warning where a GPT is given datasets of sentences."""
    names = dict.fromkeys(one.name for one in corpora if (one.sidecar or {}).get("sentences"))
    if not names:
        return []
    return [
        f"warning: {', '.join(names)} is of sentences, made with --split-sentences for BERT: what stood "
        "between them may be missing, and --split parts documents; preprocess the text again without it"
    ]


def _wishes(data: DataConfig) -> str:
    """The flags that need to know where documents end, as far as they are given."""
    names = ("eod_mask_loss", "reset_position_ids", "reset_attention_mask")
    return " and ".join(spelling(name) for name in names if getattr(data, name))


def _appended(corpus: Corpus) -> bool | None:
    """Whether a token was put at the end of every document; None where nothing tells it."""
    return (corpus.sidecar or {}).get("append_eod")


def _agreed(flags: TokenizerOptions, corpora: list[Corpus]) -> Told:
    """What all sources say alike."""
    found = [(corpus.name, _of_sidecar(corpus)) for corpus in corpora if corpus.sidecar]
    made_by = {corpus.name: (corpus.sidecar or {}).get("tokenizer_flags") for corpus in corpora}
    made_by[OF_FLAGS] = vars(flags)
    if flags.tokenizer_type:
        tokenizer = build_tokenizer(flags)
        mine = Vocabulary(tokenizer.vocab_size, tokenizer.eod, tokenizer.identity())
        appended = False if any(_appended(corpus) is False for corpus in corpora) else None
        found.insert(0, (OF_FLAGS, Told(mine, describe_end(tokenizer.end, appended))))
    elif flags.vocab_size and not found:
        _require_same_end(flags, corpora)
        return Told(Vocabulary(flags.vocab_size, None, None), UNKNOWN_END)
    if not found:
        names = ", ".join(sorted({corpus.name for corpus in corpora}))
        raise UserError(
            f"the vocabulary of {names} is unknown: no .json lies beside it; give --tokenizer-type and "
            "its files, or --vocab-size"
        )
    _require_same_end(flags, corpora)
    name, told = found[0]
    first, verb, way = told.vocabulary, "by", "preprocess one of them again with the tokenizer of the other"
    if name == OF_FLAGS:
        verb, way = "is", "name the tokenizer that made the data, or preprocess it again"
    for other, (vocabulary, _) in found[1:]:
        if vocabulary.tokenizer != first.tokenizer:
            raise UserError(
                f"{other} was made by {describe_identity(vocabulary.tokenizer, made_by[other])}, and {name} "
                f"{verb} {describe_identity(first.tokenizer, made_by[name])}; {way}"
            )
        if vocabulary.eod != first.eod:
            raise UserError(
                f"documents of {other} end with token {vocabulary.eod}, and those of {name} with "
                f"{first.eod}; name the one of the data by --eod-token, or preprocess it again"
            )
    if flags.vocab_size and not flags.tokenizer_type and flags.vocab_size != first.size:
        raise UserError(
            f"--vocab-size {flags.vocab_size} contradicts {name}, whose vocabulary has {first.size} "
            "tokens; leave it out"
        )
    return told


def _require_same_end(flags: TokenizerOptions, corpora: list[Corpus]) -> None:
    """UserError where --eod-token, without a tokenizer that has it, is not the token that the data says."""
    if flags.eod_token is None or flags.tokenizer_type:
        return
    for corpus in corpora:
        end = (corpus.sidecar or {}).get("eod_token")
        if end is None:
            raise UserError(
                f"--eod-token {flags.eod_token}: {corpus.name} does not say which token that is; name its "
                "tokenizer by --tokenizer-type and its files, too, or leave it out"
            )
        if end != flags.eod_token:
            raise UserError(
                f"--eod-token {flags.eod_token} contradicts {corpus.name}, whose documents end with {end}; "
                "leave it out, or preprocess the text again with it"
            )


def _of_sidecar(corpus: Corpus) -> Told:
    sidecar = corpus.sidecar or {}
    vocabulary = Vocabulary(int(sidecar["vocab_size"]), sidecar.get("eod"), sidecar["tokenizer"])
    if vocabulary.eod is None:
        return Told(vocabulary, UNKNOWN_END)
    end = EndOfDocument(vocabulary.eod, sidecar.get("eod_token") or "a token", f"says {corpus.name}.json")
    return Told(vocabulary, describe_end(end, _appended(corpus)))
