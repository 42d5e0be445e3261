"""What is said of flags that name a tokenizer."""

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import parse
from megatron.config.tokenizer import ELSEWHERE, TokenizerOptions, in_vain
from megatron.curriculum.analyze_dataset import AnalysisOptions


def problem(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(TokenizerOptions, list(words), description="")
    (found,) = caught.value.problems
    return found


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("HFTokenizer", "HuggingFaceTokenizer, with the tokenizer.json"),
        ("pretrainedfromhf", "HuggingFaceTokenizer, with the tokenizer.json"),
        ("Llama3Tokenizer", "HuggingFaceTokenizer, with the tokenizer.json"),
        ("SPMTokenizer", "GPTSentencePieceTokenizer, with the .model"),
        ("BertTokenizer", "BertWordPieceLowerCase, or BertWordPieceCase"),
    ],
)
def test_what_other_programs_call_a_type_is_told(theirs: str, ours: str) -> None:
    assert problem("--tokenizer-type", theirs).startswith(f"--tokenizer-type {theirs}: here it is {ours}")


def test_their_names_are_none_of_ours() -> None:
    choices = TokenizerOptions.__dataclass_fields__["tokenizer_type"].metadata["choices"]
    words = [word.lower() for names in ELSEWHERE.values() for word in names.split()]
    assert len({*words}) == len(words) and not {*words} & {one.lower() for one in choices}
    assert "choose one of BertWordPieceLowerCase" in problem("--tokenizer-type", "CharLevelTokenizer")


def test_what_counts_alone_is_not_in_vain() -> None:
    given = TokenizerOptions(vocab_size=7, eod_token="x", tokenizer_model="m")
    assert in_vain(given, ("vocab_size", "eod_token"), "; so") == [
        "--tokenizer-model: --tokenizer-type is missing; so"
    ]
    assert in_vain(given)[0].startswith("--tokenizer-model and --eod-token and --vocab-size: ")
    assert in_vain(TokenizerOptions()) == []
    read = TokenizerOptions(tokenizer_type="HuggingFaceTokenizer", tokenizer_model="m", eod_token="x")
    assert in_vain(read) == []


def test_a_vocab_and_its_merges_say_the_type_in_every_tool() -> None:
    bare = ["--data-path=d", "--seq-length=8", "--output-dir=o"]
    given = parse(AnalysisOptions, [*bare, "--vocab-file=v.json", "--merge-file=m.txt"], description="")
    assert given.tokenizer.tokenizer_type == "GPT2BPETokenizer" and not in_vain(given.tokenizer)
    assert parse(AnalysisOptions, bare, description="").tokenizer.tokenizer_type is None
