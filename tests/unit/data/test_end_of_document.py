"""Which token ends documents, and settings beside a tokenizer that are of another one."""

import dataclasses
import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer, describe_end
from tests.support.made_up_text import write_sentencepiece


def write(
    folder: Path, special: list[str], added: list[str], text: str = "grain wet cold"
) -> TokenizerOptions:
    """A byte-level BPE with these special tokens and tokens that are added but not special."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=special
    )
    tokenizer.train_from_iterator([text] * 20, trainer)
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in added])
    tokenizer.save(str(folder / "tokenizer.json"))
    return TokenizerOptions(
        tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(folder / "tokenizer.json")
    )


def end(options: TokenizerOptions, token: str | None = None) -> str:
    return describe_end(build_tokenizer(dataclasses.replace(options, eod_token=token)).end)


def test_a_special_token_before_an_html_tag(tmp_path):
    options = write(tmp_path, ["<pad>", "<eos>", "<bos>"], ["<s>", "</s>"])
    assert end(options) == "documents end with <eos> (token 1), the only usual name among the special tokens"
    assert "</s>" in end(options, "</s>") and "named by --eod-token" in end(options, "</s>")


def test_an_added_token_before_text(tmp_path):
    options = write(tmp_path, ["<pad>"], ["<eos>"], "a </s> b")
    assert "<eos>" in end(options) and "among the added tokens" in end(options)


def test_a_name_that_merges_make_is_text(tmp_path):
    options = write(tmp_path, ["<pad>"], [], "</s>")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("</s>").ids == [tokenizer.token_to_id("</s>")]
    assert end(options).endswith("the only usual name among the tokens")


@pytest.mark.parametrize(
    "special, added",
    [(["<eos>", "</s>"], []), ([], ["[EOD]", "<|endoftext|>"]), (["<eos>", "</s>"], ["[EOD]"])],
)
def test_two_candidates_are_refused_with_a_way_to_choose(tmp_path, special, added):
    options = write(tmp_path, special, added)
    with pytest.raises(UserError, match=r"any of .* and .* could end documents.*choose with --eod-token"):
        end(options)
    for name in special + added:
        assert name in end(options, name)


def test_the_configuration_names_it(tmp_path):
    options = write(tmp_path, ["<eos>", "</s>"], ["<end>"])
    beside = tmp_path / "tokenizer_config.json"
    beside.write_text(
        json.dumps({"eos_token": {"content": "<end>"}, "add_eos_token": False, "unk_token": None})
    )
    assert "<end>" in end(options) and "named by tokenizer_config.json" in end(options)
    assert "</s>" in end(options, "</s>")


@pytest.mark.parametrize(
    "config, message",
    [
        ({"eos_token": "<|im_end|>"}, r"eos_token <\|im_end\|>, which is no token there"),
        ({"pad_token": {"content": "[PAD]"}}, r"pad_token \[PAD\], which is no token there"),
        (
            {"additional_special_tokens": ["<eos>", "<extra>"]},
            "additional_special_tokens <extra>, which is no",
        ),
        ({"added_tokens_decoder": {"7": {"content": "<eos>"}}}, "<eos> as token 7, which is 0 there"),
        ({"added_tokens_decoder": {"900": {"content": "<new>"}}}, "<new> as token 900, which is none there"),
    ],
)
@pytest.mark.parametrize("token", [None, "<eos>"])
def test_a_configuration_of_another_tokenizer_is_refused(tmp_path, config, message, token):
    options = write(tmp_path, ["<eos>"], [])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"is not of the tokenizer in tokenizer\.json .*{message}"):
        end(options, token)


def test_a_word_for_a_place_is_no_token(tmp_path):
    """As CodeLlama's settings have it, for the place that is to be filled."""
    options = write(tmp_path, ["<s>", "</s>"], [])
    words = {"eos_token": "</s>", "fill_token": "<FILL_ME>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(words))
    assert "</s>" in end(options)


def test_sentencepiece_names_its_own(tmp_path):
    path = write_sentencepiece(tmp_path / "a.model", user_defined_symbols=["<eos>", "<end>"])
    options = TokenizerOptions(tokenizer_type="SentencePieceTokenizer", tokenizer_model=path)
    assert end(options) == "documents end with </s> (token 2), named by the model itself"
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    assert "<end>" in end(options)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    with pytest.raises(UserError, match=r"is not of the tokenizer in a\.model .*<\|im_end\|>"):
        end(options)


def test_sentencepiece_without_its_own(tmp_path):
    path = write_sentencepiece(tmp_path / "a.model", eos_id=-1, control_symbols=["<eos>"])
    options = TokenizerOptions(tokenizer_type="GPTSentencePieceTokenizer", tokenizer_model=path)
    assert "<eos>" in end(options) and "among the control tokens" in end(options)


def test_tokens_that_were_added_later_and_are_lost_are_told(tmp_path):
    """Beside a tokenizer.json they may lie, as it has its own."""
    path, beside = write_sentencepiece(tmp_path / "tokenizer.model"), tmp_path / "added_tokens.json"
    options = TokenizerOptions(tokenizer_type="SentencePieceTokenizer", tokenizer_model=path)
    beside.write_text('{"</s>": 2, "<s>": 1}')
    assert "</s>" in end(options)
    beside.write_text('{"</s>": 2, "<|im_start|>": 32000}')
    with pytest.raises(
        UserError, match=r"has <\|im_start\|>, and tokenizer.model has not; write a tokenizer.json"
    ):
        end(options)
    assert "<eos>" in end(write(tmp_path, ["<eos>"], []))
    beside.write_text("[")
    with pytest.raises(UserError, match=r"added_tokens.json: cannot be read"):
        end(options)
