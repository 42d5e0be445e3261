"""The flags that name a tokenizer, in training and in every tool."""

from dataclasses import dataclass

from megatron.config.arguments import flag


@dataclass(frozen=True)
class TokenizerOptions:
    """How a tokenizer is named, in training and in every tool."""

    tokenizer_type: str | None = flag(
        None,
        "kind of tokenizer; the data's .json file says it where this does not",
        choices=("HuggingFaceTokenizer", "GPT2BPETokenizer", "SentencePieceTokenizer", "NullTokenizer"),
        resume="meaning",
    )
    tokenizer_model: str | None = flag(
        None, "tokenizer.json, its folder, or a SentencePiece .model", metavar="FILE", resume="meaning"
    )
    vocab_file: str | None = flag(None, "vocab.json of GPT2BPETokenizer", metavar="FILE", resume="meaning")
    merge_file: str | None = flag(None, "merges.txt of GPT2BPETokenizer", metavar="FILE", resume="meaning")
    eod_token: str | None = flag(
        None, "text of the end-of-document token; found by its usual names", resume="meaning"
    )
    vocab_size: int | None = flag(
        None, "number of ids of NullTokenizer, or of data without a .json file", at_least=1, resume="meaning"
    )


RULES = ()
