"""Texts that do not come back from their tokens are told, with the place and what was lost."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from megatron.preprocess.preprocess import preprocess
from megatron.preprocess.round_trip import first_change
from tests.support.made_up_text import make_options, write_lines

BYTES = pre_tokenizers.ByteLevel.alphabet()
TEXT = pre_tokenizers.ByteLevel(add_prefix_space=False)
WORDS = [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=True)]


def train(path, alphabet, pre_tokenizer) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a cab, a cad"], trainer)
    tokenizer.save(str(path))


@pytest.mark.parametrize(
    "alphabet, pre_tokenizer, said",
    [
        (BYTES, TEXT, None),
        (BYTES, pre_tokenizers.ByteLevel(add_prefix_space=True), None),
        (BYTES, pre_tokenizers.Sequence(WORDS), "'a  cab ü, a cad' comes back as 'a cab ü , a cad'"),
        (
            [],
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            "'a  cab ü, a cad' comes back as 'a  cab , a cad'",
        ),
    ],
    ids=["every byte", "a space before the text", "spaces are lost", "bytes are lost"],
)
def test_what_a_tokenizer_loses_is_told(tmp_path, capsys, alphabet, pre_tokenizer, said):
    texts = ["a cab", "a  cab ü, a cad"]
    path = write_lines(tmp_path / "corpus.jsonl", texts)
    options = make_options(tmp_path, path)
    train(tmp_path / "tokenizer.json", alphabet, pre_tokenizer)
    preprocess(options)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
    assert len(notes) == (said is not None)
    if said:
        assert notes[0].startswith("note: 1 of the 2 documents that were decoded again have changed")
        assert f"corpus.jsonl, line 2, where {said}" in notes[0]


def test_a_space_behind_an_added_token_is_told_with_a_way_out_that_keeps_text(tmp_path, capsys):
    """add_prefix_space puts a space before every piece between added tokens, also in a BPE of all bytes."""
    path = write_lines(tmp_path / "corpus.jsonl", ["a cab", "my abcs and defs"])
    for prefix_space, said in ((True, "'my abcs and defs' comes back as 'my abc s and defs'"), (False, "")):
        train(tmp_path / "tokenizer.json", BYTES, pre_tokenizers.ByteLevel(add_prefix_space=prefix_space))
        tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        tokenizer.add_tokens(["abc"])
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        preprocess(make_options(tmp_path, path))
        out = capsys.readouterr().out
        assert (said in out and "without a normalizer and add_prefix_space" in out) == prefix_space


def test_the_first_change_is_shown_with_what_is_around_it():
    assert first_change(" a b", "a b") == ""
    assert first_change("x" * 50 + "é" + "y" * 50, "x" * 50 + "y" * 50) == repr("x" * 10 + "é" + "y" * 29) + (
        " comes back as " + repr("x" * 10 + "y" * 30)
    )
