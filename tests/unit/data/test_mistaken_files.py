"""Files that are given as another kind of tokenizer than they are."""

import base64
import json
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from tests.support.made_up_text import write_sentencepiece, write_tokenizer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    ranks = [f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256)]
    texts = {
        "tiktoken": "".join(ranks),
        "vocab": "<unk>\t0\n\u2581the\t-1.94486\n\u2581a\t-3.5e-1\n",
        "vocab.json": json.dumps({"a": 0, "b": 1}),
        "bert": "[PAD]\n[CLS]\n",
        "settings": json.dumps({"tokenizer_class": "GPT2Tokenizer", "eos_token": "</s>", "a": 1}),
        "tokens": json.dumps({"eos_token": {"content": "</s>"}}),
        "merges": "#version: 0.2\na b\n",
        "plain merges": "a b\nab c\nd e\n",
        "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "page": "<html>404</html>",
        "cut": json.dumps({"model": {"type": "BPE"}})[:-1],
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    made = {name: str(folder / name) for name in texts}
    (folder / "tokenizer").mkdir()
    made["tokenizer.json"] = write_tokenizer(folder / "tokenizer")
    return made | {"model": write_sentencepiece(folder / "a.model")}


@pytest.mark.parametrize(
    ("kind", "name", "way_out"),
    [
        ("SentencePieceTokenizer", "tiktoken", "give the tokenizer.json beside it"),
        ("Llama2Tokenizer", "tiktoken", "give the tokenizer.json beside it"),
        ("HuggingFaceTokenizer", "tiktoken", "give the tokenizer.json beside it"),
        ("GPTSentencePieceTokenizer", "vocab", "give the .model beside it"),
        ("GPTSentencePieceTokenizer", "tokenizer.json", "give --tokenizer-type HuggingFaceTokenizer"),
        ("HuggingFaceTokenizer", "model", "give --tokenizer-type GPTSentencePieceTokenizer"),
        ("HuggingFaceTokenizer", "vocab.json", "as --merge-file and --tokenizer-type GPT2BPETokenizer"),
        ("TikTokenizer", "tokenizer.json", "give --tokenizer-type HuggingFaceTokenizer"),
        ("TikTokenizer", "model", "give --tokenizer-type GPTSentencePieceTokenizer"),
        ("HuggingFaceTokenizer", "bert", "give it with --tokenizer-type BertWordPieceLowerCase"),
        ("HuggingFaceTokenizer", "settings", "give the tokenizer.json or the tokenizer.model beside it"),
        ("Llama2Tokenizer", "settings", "give the tokenizer.json or the tokenizer.model beside it"),
        ("HuggingFaceTokenizer", "tokens", "give the tokenizer.json or the tokenizer.model beside it"),
        ("HuggingFaceTokenizer", "merges", "as --vocab-file and --tokenizer-type GPT2BPETokenizer"),
        ("HuggingFaceTokenizer", "plain merges", "as --vocab-file and --tokenizer-type GPT2BPETokenizer"),
        ("HuggingFaceTokenizer", "pointer", "fetch it with git lfs pull"),
        ("GPTSentencePieceTokenizer", "pointer", "fetch it with git lfs pull"),
        ("TikTokenizer", "pointer", "fetch it with git lfs pull"),
        ("BertWordPieceCase", "pointer", "fetch it with git lfs pull"),
        ("SentencePieceTokenizer", "page", "bring the file again"),
        ("HuggingFaceTokenizer", "page", "bring the file again"),
        ("HuggingFaceTokenizer", "cut", "bring the file again"),
    ],
)
def test_the_kind_that_it_is_is_named(files: dict[str, str], kind: str, name: str, way_out: str) -> None:
    pattern = {"tiktoken_pattern": "v2"} if kind == "TikTokenizer" else {}
    with pytest.raises(UserError) as caught:
        build_tokenizer(TokenizerOptions(tokenizer_type=kind, tokenizer_model=files[name], **pattern))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{files[name]}: ") and problem.endswith(
        "TikTokenizer" if name == "tiktoken" else way_out
    )
    assert way_out in problem


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("version", "2.0"),
        ("pre_tokenizer", {"type": "Later"}),
        ("normalizer", {"type": "Later"}),
        ("model", {"type": "Later"}),
    ],
)
def test_a_tokenizer_json_of_a_later_library(
    files: dict[str, str], tmp_path: Path, part: str, value: object
) -> None:
    content = json.loads(Path(files["tokenizer.json"]).read_text(encoding="utf-8")) | {part: value}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"may know more than the \d+\.\d+\.\d+.* that is installed"):
        build_tokenizer(TokenizerOptions(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(path)))
