"""Tools on the checkpoints and the batches of encoders, through the real commands."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from megatron.batches.bert import BertFormat, plain_batch
from megatron.evaluation.restore import restore
from megatron.model.bert import Bert
from megatron.model.context import Sight
from megatron.model.transformer import Texts
from megatron.parallel.slices import WHOLE
from megatron.tasks.bert import BERT_TASK, open_samples
from megatron.train.pretrain import pretrain
from tests.end_to_end.conftest import EFFICIENT, MODEL, SEQ_LENGTH, Prepared, records
from tests.support.commands import run_command
from tools import show_batch

DATA = ["--split", "90,5,5", "--train-iters", "30", "--hidden-dropout", "0", "--attention-dropout", "0"]
NAMES = ["lm loss", "sop loss", "lm accuracy", "sop accuracy"]


@pytest.fixture(scope="module")
def trained(prepared_sentences: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    words = [*MODEL, *DATA, "--data-path", prepared_sentences.prefix, "--save", str(folder)]
    pretrain([*words, "--eval-interval", "30", "--eval-iters", "1000"], BERT_TASK, "", "")
    torch.set_flush_denormal(False)
    return folder


def evaluated(trained: Path, output: Path, *more: str) -> dict[str, dict[str, Any]]:
    """Results by split."""
    words = ["--load", str(trained), "--output", str(output), *more]
    said = run_command("tools/evaluate.py", *words).stdout
    for name in ("samples", "masked", "lm loss", "sop accuracy"):
        assert name in said
    assert "bits per byte" not in said and "behind the last windows" not in said
    return {one["split"]: one for one in json.loads(output.read_text())["results"]}


def test_evaluation_by_hand(trained: Path, tmp_path: Path) -> None:
    """From the logits of single samples; and as the last validation of training has it."""
    found = evaluated(trained, tmp_path / "evaluation.json")
    assert set(found) == {"valid", "test"}
    restored = restore(str(trained), None, torch.device("cpu"))
    model, config = restored.model, restored.config
    assert isinstance(model, Bert)
    ((_, corpus),) = open_samples(config)["valid"]
    rows = BertFormat(config.bert, config.sentences.pair, SEQ_LENGTH, (), config.training.seed)
    totals, tokens = dict.fromkeys(NAMES, 0.0), 0
    for sample in range(corpus.windows):
        inputs = plain_batch([corpus], np.zeros(1, np.int64), np.array([sample]), WHOLE, rows)
        sight = Sight(False, ends=inputs.ends)
        logits, pair = model.logits(Texts(inputs.tokens, inputs.rows, types=inputs.types, sight=sight))
        told, labels = logits[0][inputs.masked], inputs.labels
        assert pair is not None and inputs.pairs is not None
        totals["lm loss"] += float(F.cross_entropy(told, labels, reduction="sum"))
        totals["lm accuracy"] += int((told.argmax(-1) == labels).sum())
        totals["sop loss"] += float(F.cross_entropy(pair, inputs.pairs))
        totals["sop accuracy"] += int((pair.argmax(-1) == inputs.pairs).sum())
        tokens += len(labels)
    counts = dict(zip(NAMES, (tokens, corpus.windows) * 2))
    valid = found["valid"]
    assert (valid["windows"], valid["tokens"]) == (corpus.windows, tokens)
    assert valid["losses"] == pytest.approx(
        {name: totals[name] / counts[name] for name in NAMES}, rel=1e-5, abs=1e-9
    )
    assert valid["loss"] == valid["losses"]["lm loss"]
    assert valid["perplexity"] == pytest.approx(math.exp(valid["loss"]))
    (last,) = [record for record in records(trained) if record["kind"] == "valid"]
    of_record = {name: last[name.replace(" ", "_")] for name in NAMES}
    assert of_record == pytest.approx(valid["losses"], rel=1e-5)


def test_masks_are_the_same_at_any_batch_size_and_data_may_be_others(
    prepared_sentences: Prepared, trained: Path, tmp_path: Path
) -> None:
    few = ["--max-windows", "20", "--splits", "test"]
    first = evaluated(trained, tmp_path / "a.json", *few, "--micro-batch-size", "7")["test"]
    second = evaluated(trained, tmp_path / "b.json", *few)["test"]
    assert first["tokens"] == second["tokens"] and first["windows"] == 20
    assert first["losses"] == pytest.approx(second["losses"], rel=1e-5)
    others = ["--data-path", prepared_sentences.prefix, "--split", "0,0,1", "--splits", "test"]
    assert evaluated(trained, tmp_path / "c.json", *others)["test"]["windows"] > 10 * first["windows"]


def test_data_of_another_tokenizer_is_refused(prepared: Prepared, trained: Path) -> None:
    words = ["--load", str(trained), "--data-path", prepared.prefix, "--split", "0,0,1"]
    said = run_command("tools/evaluate.py", *words, status=2).stderr
    assert said.startswith(f"error: {prepared.prefix}") and said.count("\n") == 1


def test_what_an_encoder_cannot_do_is_told(trained: Path, tmp_path: Path) -> None:
    generated = run_command("tools/generate_text.py", "--load", str(trained), "--prompt", "a", status=2)
    assert generated.stderr.endswith("is a model of the task bert, which continues no text; name a GPT's\n")
    words = ["--load", str(trained), "--save", str(tmp_path / "new"), "--num-experts", "4"]
    said = run_command("tools/upcycle_checkpoint.py", *words, status=2).stderr
    assert said.endswith("are built by pretrain_gpt.py alone; name a checkpoint of a GPT\n")
    assert said.count("\n") == generated.stderr.count("\n") == 1 and not (tmp_path / "new").exists()


def shown(capsys: pytest.CaptureFixture[str], prepared: Prepared, *more: str) -> str:
    """What tools/show_batch.py prints of two rows of step 12."""
    words = [*MODEL, *DATA, "--data-path", prepared.prefix, "--step", "12", "--rows", "2", *more]
    show_batch.main(["python", "pretrain_bert.py", *words])
    return capsys.readouterr().out


def rows_of(said: str) -> list[list[str]]:
    """The cells of every row of the table, which go over several lines."""
    parts = said[said.index("┡") :].split("├")
    lines = ([line.split("│")[1:-1] for line in part.splitlines() if "│" in line] for part in parts)
    return [[" ".join(map(str.strip, cells)).strip() for cells in zip(*part)] for part in lines]


def test_a_batch_is_shown_as_the_model_sees_it(
    prepared_sentences: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    efficient = [*EFFICIENT, "--difficulty-path", prepared_sentences.difficulty, "--characters", "1000"]
    said = shown(capsys, prepared_sentences, *efficient)
    rows = rows_of(said)
    assert "rows of " in said and "my_text_sentence\n" in re.sub(" +\n", "\n", said) and "…" not in said
    ends = said.splitlines()[-1].strip("└┘").split("┴")
    assert min(map(len, ends[-3:])) >= 24  # text, what is to be told, and what a layer computes
    assert [row[0] for row in rows] == ["0", "1"]
    for _, sample, rarity, tokens, second, text, told, kept in rows:
        assert int(sample) >= 0 and int(rarity) > 0
        assert second in ("follows", "does not follow")
        places = [int(place) for place in re.findall(r"(?:^|, )(\d+): ", told)]
        assert places == sorted(places) and all(0 < place < int(tokens) for place in places)
        assert text.startswith("[CLS]") and text.count("[MASK]") <= len(places)
        assert "[SEP]" in text and 0 < len(kept) < len(text)


def test_samples_are_shown_alike_where_they_share_rows_or_are_grouped(
    prepared_sentences: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--short-seq-prob", "0.6", "--random-ltd", "--random-ltd-min", "16"]
    short += ["--random-ltd-duration", "20", "--random-ltd-quantum", "8"]
    alone = shown(capsys, prepared_sentences, *short)
    assert shown(capsys, prepared_sentences, *short, "--bert-pack") == alone
    assert shown(capsys, prepared_sentences, *short, "--bert-group-lengths") == alone
    single = shown(capsys, prepared_sentences, *short, "--bert-no-binary-head")
    assert "second text" not in single and "to be told" in single
