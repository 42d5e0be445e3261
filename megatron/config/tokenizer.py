"""The flags that name a tokenizer, in training and in every tool."""

import dataclasses
from dataclasses import dataclass

from megatron.config.flags import flag, spelling
from megatron.config.values import flatten

ELSEWHERE = {
    "HuggingFaceTokenizer, with the tokenizer.json or its folder by --tokenizer-model": "HFTokenizer "
    "HFTokenizerFast HFGPT2Tokenizer HFGPT2TokenizerFast HFGPTNeoXTokenizerFast HFLlamaTokenizer "
    "PretrainedFromHF HuggingFace HF AutoTokenizer PreTrainedTokenizerFast Llama3Tokenizer LlamaTokenizer "
    "LlamaTokenizerFast Qwen2Tokenizer Qwen2TokenizerFast GPTNeoXTokenizer GPTNeoXTokenizerFast "
    "GPT2Tokenizer GPT2TokenizerFast MistralTokenizer GemmaTokenizer T5Tokenizer SFTTokenizer",
    "GPTSentencePieceTokenizer, with the .model by --tokenizer-model": "SPMTokenizer SentencePiece spm",
    "TikTokenizer, with the list of tokens by --tokenizer-model": "TiktokenTokenizer tiktoken",
    "BertWordPieceLowerCase, or BertWordPieceCase, which keeps capitals": "BertTokenizer BertTokenizerFast "
    "BertWordPiece BertWordPieceTokenizer WordPiece",
    "NullTokenizer": "NullMultimodalTokenizer",
}
"""What other programs call our types."""


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
        elsewhere=ELSEWHERE,
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


def unread_files(tokenizer: TokenizerOptions) -> list[str]:
    """Files that are given beside a type that does not read them, or reads another."""
    kind = tokenizer.tokenizer_type
    if kind is None:
        return []
    reads = [name for name, kinds in READ_BY.items() if kind in kinds]
    given = any(getattr(tokenizer, name, None) for name in reads)
    joined = (" or " if kind in BERT_KINDS else " and ").join(map(spelling, reads))
    files = "files" if len(reads) > 1 and kind not in BERT_KINDS else "file"
    way = f"give its {files} by {joined}, or" if reads and not given else "leave it out, or give"
    found = [
        f"{spelling(name)} {value}: {kind} does not read it; {way} another --tokenizer-type"
        for name, kinds in READ_BY.items()
        if (value := getattr(tokenizer, name, None)) and kind not in kinds
    ]
    if kind in BERT_KINDS and tokenizer.vocab_file and tokenizer.tokenizer_model:
        found.append(
            f"--vocab-file {tokenizer.vocab_file} and --tokenizer-model {tokenizer.tokenizer_model}: {kind} "
            "reads one of them; leave the other out"
        )
    return found


def in_vain(tokenizer: TokenizerOptions, alone: tuple[str, ...] = (), instead: str = "") -> list[str]:
    """What would do nothing in a tool: files that the type does not read; without a type all flags but those
    that count `alone`. `instead`: what the tool takes without a type, in words."""
    if tokenizer.tokenizer_type:
        return unread_files(tokenizer)
    given = [
        spelling(field.name)
        for field in dataclasses.fields(TokenizerOptions)
        if getattr(tokenizer, field.name) != field.default and field.name not in alone
    ]
    return [f"{' and '.join(given)}: --tokenizer-type is missing{instead}"] if given else []


RULES = (_kind_of_files, _of_tiktokenizer)
