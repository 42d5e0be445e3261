"""The flags that name a tokenizer, in training and in every tool."""

import dataclasses
from dataclasses import dataclass

from megatron.base.errors import UserError
from megatron.config.flags import flag, spelling
from megatron.config.values import flatten


@dataclass(frozen=True)
class TokenizerOptions:
    """How a tokenizer is named, in training and in every tool."""

    tokenizer_type: str | None = flag(
        None,
        "kind of tokenizer; the data's .json file says it where this does not",
        choices=(
            "BertWordPieceLowerCase",
            "BertWordPieceCase",
            "HuggingFaceTokenizer",
            "GPT2BPETokenizer",
            "SentencePieceTokenizer",
            "GPTSentencePieceTokenizer",
            "Llama2Tokenizer",
            "TikTokenizer",
            "NullTokenizer",
        ),
        follows=lambda tokenizer: (
            "GPT2BPETokenizer" if tokenizer.vocab_file and tokenizer.merge_file else None
        ),
        resume="meaning",
    )
    tokenizer_model: str | None = flag(
        None,
        "tokenizer.json, its folder, a SentencePiece .model, or TikTokenizer's .json or .tiktoken",
        metavar="FILE",
        resume="meaning",
    )
    vocab_file: str | None = flag(
        None, "vocab.json of GPT2BPETokenizer, or BERT's vocab.txt", metavar="FILE", resume="meaning"
    )
    merge_file: str | None = flag(None, "merges.txt of GPT2BPETokenizer", metavar="FILE", resume="meaning")
    eod_token: str | None = flag(
        None,
        "text of the end-of-document token; what the tokenizer's files name, or else the one usual name",
        resume="meaning",
    )
    vocab_size: int | None = flag(
        None,
        "number of ids of NullTokenizer or of data without a .json file; of TikTokenizer, whose default is "
        "131072, with its special tokens",
        at_least=1,
        resume="meaning",
    )
    tiktoken_pattern: str | None = flag(
        None, "how TikTokenizer cuts words; Megatron's patterns", choices=("v1", "v2"), resume="meaning"
    )
    tiktoken_num_special_tokens: int = flag(
        1000, "ids before TikTokenizer's first text token", at_least=3, resume="meaning"
    )
    tiktoken_special_tokens: tuple[str, ...] = flag(
        (),
        "the first of these special tokens by name; <unk> <s> </s>",
        aliases=("--tokenizer-special-tokens",),
        metavar="TEXT",
        resume="meaning",
    )


def _kind_of_files(tokenizer: TokenizerOptions) -> list[str]:
    if tokenizer.tokenizer_type:
        return []
    found = []
    if model := tokenizer.tokenizer_model:
        kind = "SentencePieceTokenizer" if model.endswith(".model") else "HuggingFaceTokenizer"
        found.append(f"--tokenizer-model {model} needs --tokenizer-type, such as {kind}")
    if tokenizer.vocab_file or tokenizer.merge_file:
        given, missing = ("vocab", "merge") if tokenizer.vocab_file else ("merge", "vocab")
        path = tokenizer.vocab_file or tokenizer.merge_file
        bert = "; a vocab.txt needs --tokenizer-type BertWordPieceLowerCase or BertWordPieceCase"
        found.append(
            f"--{given}-file {path} needs --{missing}-file: GPT2BPETokenizer reads both"
            + (bert if given == "vocab" else "")
        )
    return found


def _of_tiktokenizer(tokenizer: TokenizerOptions) -> list[str]:
    """No other tokenizer follows these flags, and no data that names its own does."""
    if tokenizer.tokenizer_type == "TikTokenizer":
        return []
    fields = [field for field in dataclasses.fields(TokenizerOptions) if field.name.startswith("tiktoken_")]
    given = {field.name: getattr(tokenizer, field.name) for field in fields}
    return [
        f"{spelling(field.name)} {' '.join(map(str, flatten(given[field.name])))} is of TikTokenizer alone; "
        "leave it out, or give --tokenizer-type TikTokenizer with --tokenizer-model"
        for field in fields
        if given[field.name] != field.default
    ]


BERT_KINDS = ("BertWordPieceLowerCase", "BertWordPieceCase")
READ_BY = {
    "vocab_file": ("GPT2BPETokenizer", *BERT_KINDS),
    "merge_file": ("GPT2BPETokenizer",),
    "tokenizer_model": (
        *("HuggingFaceTokenizer", "SentencePieceTokenizer", "GPTSentencePieceTokenizer", "Llama2Tokenizer"),
        *("TikTokenizer", *BERT_KINDS),
    ),
}


def require_type(tokenizer: TokenizerOptions, instead: str, *allowed: str) -> None:
    """UserError where flags but the `allowed` ones are given without the type that says how to read them, so
    that `instead` is the tokenizer."""
    usual = TokenizerOptions()
    given = [name for name, value in vars(tokenizer).items() if value != getattr(usual, name)]
    names = [spelling(name) for name in given if name not in allowed]
    if tokenizer.tokenizer_type is None and names:
        raise UserError(f"{' and '.join(names)}: --tokenizer-type is missing; without it {instead} is taken")


def unread_files(tokenizer: TokenizerOptions) -> list[str]:
    """Files that are given beside a type that does not read them, or reads another."""
    kind = tokenizer.tokenizer_type
    if kind is None:
        return []
    found = [
        f"{spelling(name)} {value}: {kind} does not read it; leave it out, or give another --tokenizer-type"
        for name, kinds in READ_BY.items()
        if (value := getattr(tokenizer, name, None)) and kind not in kinds
    ]
    if kind in BERT_KINDS and tokenizer.vocab_file and tokenizer.tokenizer_model:
        found.append(
            f"--vocab-file {tokenizer.vocab_file} and --tokenizer-model {tokenizer.tokenizer_model}: {kind} "
            "reads one of them; leave the other out"
        )
    return found


RULES = (_kind_of_files, _of_tiktokenizer)
