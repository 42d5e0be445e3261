"""tools/show_batch.py shows what training draws."""

import re

import pytest

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.corpora import open_splits
from megatron.data.tokenizer import build_tokenizer
from tests.end_to_end.conftest import EFFICIENT, MODEL, Prepared
from tests.support.configurations import make_config
from tools.show_batch import main

RESHAPE = "--curriculum=seqlen_reshape:min=16,max=64,duration=15,quantum=16"


def flags(prepared: Prepared, *more: str) -> list[str]:
    tokenizer = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", prepared.tokenizer]
    data = ["--data-path", prepared.prefix, "--split", "90,5,5"]
    return [*MODEL, *data, *tokenizer, "--train-iters", "30", *more]


def test_rows_are_the_windows_of_the_samples_that_are_named(
    prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text of a row is the beginning of its sample's window, cut to the step's length."""
    main(flags(prepared, *EFFICIENT, "--difficulty-path", prepared.difficulty, "--step", "12", "--rows", "1"))
    said = capsys.readouterr().out
    assert "step 12 of 30" in said
    length = int(re.search(r"8 of (\d+) tokens", said).group(1))
    sample = int(re.search(r"│ +0 │ +([\d,]+) │", said).group(1).replace(",", ""))
    config = make_config(f"--seq-length 64 --mock-data false --data-path {prepared.prefix} --split 90,5,5")
    ((_, corpus),) = open_splits(config)["train"]
    tokenizer = build_tokenizer(TokenizerOptions("HuggingFaceTokenizer", prepared.tokenizer))
    text = tokenizer.decode(corpus.window(sample, 0, length)[:-1])
    lines = [line.split("│") for line in said.partition("what layer 1 computes")[2].splitlines()]
    shown = "".join("".join(cells[4] for cells in lines if len(cells) == 7).split())
    assert shown and shown == "".join(text.split())[: len(shown)]
    assert "what layer 1 computes" in said and "vocab_rarity" in said
    words = flags(
        prepared, *EFFICIENT, "--difficulty-path", prepared.difficulty, "--step", "12", "--rows", "1"
    )
    for name in ("--tokenizer-type", "--tokenizer-model"):  # the data says which tokenizer made it
        del words[words.index(name) : words.index(name) + 2]
    main(words)
    assert capsys.readouterr().out == said


def test_a_launch_command_and_any_number_of_ranks_show_the_same(
    prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    words = flags(prepared, RESHAPE, "--step", "3", "--rows", "6")
    main(words)
    alone = capsys.readouterr().out
    main(["torchrun", "--nproc-per-node", "4", "pretrain_gpt.py", *words])
    assert capsys.readouterr().out == alone
    samples = re.findall(r"│ +\d+ │ +([\d,]+) │", alone)
    assert len(samples) == 6 and len(set(samples)) == 2, "a sample of 64 tokens makes four rows of 16"


def test_a_step_past_the_end_is_refused(prepared: Prepared) -> None:
    with pytest.raises(UserError, match="--step 31 is past the run's 30 steps"):
        main(flags(prepared, "--step", "31"))


def test_rows_of_the_reference_reshaping_name_their_samples(
    prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole pieces of a micro-batch come first, then the tails of all its samples; every row stands in the
    window of the sample that is named."""
    main(
        flags(
            prepared,
            RESHAPE,
            "--reference-schedules",
            "--micro-batch-size",
            "4",
            "--step",
            "8",
            "--rows",
            "99",
        )
    )
    said = capsys.readouterr().out
    config = make_config(f"--seq-length 64 --mock-data false --data-path {prepared.prefix} --split 90,5,5")
    ((_, corpus),) = open_splits(config)["train"]
    tokenizer = build_tokenizer(TokenizerOptions("HuggingFaceTokenizer", prepared.tokenizer))
    rows: list[tuple[int, str]] = []
    for cells in (line.split("│") for line in said.partition("text")[2].splitlines()):
        if len(cells) == 5:
            if cells[1].strip():
                rows.append((int(cells[2].replace(",", "")), ""))
            rows[-1] = (rows[-1][0], rows[-1][1] + "".join(cells[3].split()))
    assert len(rows) > 8
    for sample, shown in rows:
        window = "".join(tokenizer.decode(corpus.window(sample)).split())
        assert len(shown) > 20 and shown[:-4] in window, sample  # the last characters may be an ellipsis
