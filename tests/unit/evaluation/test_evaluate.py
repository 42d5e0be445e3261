"""tools/evaluate.py beside the loss of windows: domains, questions, comparisons, and mistakes."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from megatron.base.errors import UserError
from megatron.config.arguments import parse, unused_flags
from megatron.config.evaluation import DomainOptions, QuestionOptions, without_effect
from megatron.data.corpora import identity
from megatron.data.index_builder import IndexedDatasetBuilder
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.tokenizer import build_tokenizer
from megatron.evaluation.asked import ask
from megatron.evaluation.restore import restore
from megatron.evaluation.results import earlier_results, set_aside, with_earlier
from megatron.evaluation.score import make_scorer
from megatron.parallel.mesh import CPU, Mesh
from megatron.preprocess.preprocess import preprocess
from megatron.tasks.gpt import GPT_TASK
from tests.support.checkpoints import kept_with, tokenizer_in, trained
from tests.support.made_up_text import make_options, write_lines
from tests.support.ranks import run_ranks
from tests.unit.evaluation.test_items import DOCUMENTS
from tools.evaluate import FOREIGN, Options, _opened, main

CONTEXT = 16


class Made(NamedTuple):
    """A checkpoint, another one of another tokenizer, and the documents as a dataset and as lines."""

    run: str
    other: str
    prefix: str
    lines: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("evaluate")
    records = [{"text": text, "kind": "ab"[n % 2]} for n, text in enumerate(DOCUMENTS) if text]
    lines = write_lines(folder / "held_out.jsonl", records)
    for name, size in (("run", 400), ("other", 300)):
        options = tokenizer_in(folder / f"of_{name}", size)
        trained(folder / name, options, more="--init-method-std 0.3", seed=size)
        kept_with(folder / name, options)
    written = make_options(
        folder / "of_run", lines, append_eod=True, workers=1, output_prefix=str(folder / "held_out")
    )
    preprocess(written)
    return Made(str(folder / "run"), str(folder / "other"), str(folder / "held_out_text_document"), lines)


def evaluate(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
    main()


def results(monkeypatch: pytest.MonkeyPatch, path: Path, *words: str) -> dict[str, Any]:
    evaluate(monkeypatch, *words, "--output", str(path))
    return json.loads(path.read_text())


def test_losses_of_windows_have_errors_over_windows(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--load", made.run, "--data-path", made.prefix, "--split", "0,0,1", "--splits", "test"]
    (found,) = results(monkeypatch, tmp_path / "a.json", *words)["results"]
    model, tokens = restore(made.run, None, CPU).model, IndexedDataset(made.prefix).tokens
    count = (len(tokens) - 1) // CONTEXT
    ids = torch.from_numpy(
        np.stack([tokens[n * CONTEXT : (n + 1) * CONTEXT + 1] for n in range(count)]).astype(np.int64)
    )
    losses = F.cross_entropy(model.logits(ids[:, :-1]).transpose(1, 2), ids[:, 1:], reduction="none").mean(1)
    error = losses.std().item() / math.sqrt(count)
    assert found["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert found["loss_error"] == pytest.approx(error, rel=1e-4)
    assert found["bits_per_byte_error"] / found["bits_per_byte"] == pytest.approx(error / found["loss"], 1e-4)
    assert f"{found['loss']:.4f} ± {error:.4f}" in capsys.readouterr().out


def test_domains_are_of_every_document(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand: each document from an end-of-document token on."""
    words = ["--load", made.run, "--domains", made.lines, "--domain-key", "kind"]
    found = results(monkeypatch, tmp_path / "a.json", *words)["domains"]
    restored = restore(made.run, None, CPU)
    tokenizer = build_tokenizer(tokenizer_in(Path(made.run).parent / "of_run"))
    texts = [text for text in DOCUMENTS if text]
    for number, one in enumerate(found):
        sums = []
        for text in [text for place, text in enumerate(DOCUMENTS) if text and place % 2 == number]:
            ids = [tokenizer.eod, *tokenizer.encode_batch([text])[0].tolist()]
            loss, first = 0.0, 1
            while first < len(ids):
                last = min(first + CONTEXT, len(ids))
                seen = torch.tensor(ids[max(last - CONTEXT - 1, 0) : last])
                logits = restored.model.logits(seen[None, :-1])[0]
                loss += float(F.cross_entropy(logits[first - last :], seen[first - last :], reduction="sum"))
                first = last
            sums.append((loss, len(ids) - 1, len(text.encode())))
        loss, tokens, size = np.sum(sums, axis=0)
        assert (one["domain"], one["documents"], one["tokens"]) == ("ab"[number], len(sums), tokens)
        assert one["loss"] == pytest.approx(loss / tokens, rel=1e-5)
        assert one["bits_per_byte"] == pytest.approx(loss / math.log(2) / size, rel=1e-5)
        assert one["perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-4)
        assert 0 < one["bits_per_byte_error"] < one["bits_per_byte"]
    assert sum(one["documents"] for one in found) == len(texts)
    (few,) = results(monkeypatch, tmp_path / "b.json", *words[:4], "--max-documents", "3")["domains"]
    assert (few["domain"], few["documents"]) == (made.lines, 3)
    said = capsys.readouterr().out
    assert f"{few['loss']:.4f} ± {few['loss_error']:.4f}" in said


def test_answers_are_counted_and_compared_item_by_item(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--cloze", "30", "--multiple-choice", "30", "--data-path", made.prefix, "--split", "0,0,1"]
    words = ["--load", made.run, *asked, "--domains", made.lines, "--compare", made.other]
    found = results(monkeypatch, tmp_path / "a.json", *words)
    cloze, choice = found["questions"]["cloze"], found["questions"]["multiple choice"]
    assert (cloze["items"], choice["items"]) == (30, 30)
    assert cloze["perplexity"] == pytest.approx(math.exp(cloze["loss"]))
    p = choice["acc"]
    assert choice["acc_error"] == pytest.approx(math.sqrt(p * (1 - p) / 29)) and 0 <= choice["acc_norm"] <= 1
    said = capsys.readouterr().out
    assert f"{100 * p:.2f} ± {100 * choice['acc_error']:.2f}" in said and "minus" in said
    again = results(monkeypatch, tmp_path / "b.json", *words[:-1], made.run, "--micro-batch-size", "3")
    assert all(not value for one in again["compared"].values() for value in one.values())
    assert again["questions"]["cloze"] == pytest.approx(cloze, rel=1e-5)
    assert set(found["compared"]) == {made.lines, "cloze", "multiple choice"}
    cut = [line.partition(" texts are longer than ")[2].split("'s ")[0] for line in said.splitlines()]
    assert [one for one in cut if one] == ["the model", "the model of --compare"] * 2


def test_any_number_of_ranks_gives_the_same_numbers(made: Made) -> None:
    restored = restore(made.run, None, CPU)
    tokenizer = build_tokenizer(tokenizer_in(Path(made.run).parent / "of_run"))
    config = restored.config
    data = dataclasses.replace(config.data, data_path=(made.prefix,), split="0,0,1", mock_data=False)
    splits = GPT_TASK.open_splits(dataclasses.replace(config, data=data))
    corpora = [corpus for _, corpus in splits["test"]]

    def work(mesh: Mesh) -> dict[str, Any]:
        scorer = make_scorer(restored, tokenizer, 4, mesh, "--cloze")
        questions = QuestionOptions(cloze=20, multiple_choice=20)
        return ask(scorer, scorer, corpora, data, DomainOptions(domains=(made.lines,)), questions)

    alone = work(Mesh())
    assert run_ranks(2, work) == [alone, alone]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--cloze 5 --data-path {prefix} --split 1,0,0", "--splits hold no document"),
        ("--domains {lines} --domain-key nothing", "choose with --json-key, or of domains with --domain-key"),
        ("--domains nowhere.jsonl", "--domains nowhere.jsonl: no such file"),
        ("--cloze -1", "--cloze -1 must not be negative"),
        ("--lm-eval arc_easy --limit 0", "--limit 0.0 must be above 0"),
        ("--lm-eval arc_easy --limit 1.5", "--limit 1.5: give a whole number of questions, or below 1 a"),
    ],
)
def test_mistakes(made: Made, words: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(monkeypatch, "--load", made.run, *words.format(**made._asdict()).split())
    (problem,) = caught.value.problems
    assert told in problem and "\n" not in problem


def test_data_that_was_made_again_since_the_training_is_told(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its shares are cut elsewhere, so that what is held out may have been trained on."""
    prefix = str(tmp_path / "a")
    rng = np.random.default_rng(0)
    for lengths, told in (([50] * 30, False), ([50] * 40, True)):
        with IndexedDatasetBuilder(prefix, np.uint16) as builder:
            builder.add_documents(rng.integers(0, 300, sum(lengths)), lengths)
        restored = restore(made.run, None, CPU)
        data = dataclasses.replace(
            restored.config.data, data_path=(prefix,), split="80,10,10", mock_data=False
        )
        config = dataclasses.replace(restored.config, data=data)
        if not told:
            trained_on = [identity(corpus) for _, corpus in GPT_TASK.open_splits(config)["train"]]
        manifest = dataclasses.replace(restored.manifest, data=trained_on)
        restored = restored._replace(manifest=manifest)
        _opened(restored, config, parse(Options, ["--load", made.run], description=""), Mesh())
        assert (
            f"note: {prefix}: not the data that the checkpoint was trained on" in capsys.readouterr().err
        ) == told
        _opened(
            restored,
            config,
            parse(Options, ["--load", made.run, "--data-path", prefix], description=""),
            Mesh(),
        )
        assert not capsys.readouterr().err
        for ending in (".bin", ".idx"):
            Path(prefix + ending).unlink()


def test_what_is_no_gpt_or_has_no_tokenizer_is_refused(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "plain")
    with pytest.raises(UserError, match="--lm-eval: needs the tokenizer, and none is kept with"):
        evaluate(monkeypatch, "--load", str(tmp_path / "plain"), "--lm-eval", "arc_easy")
    restored = restore(made.run, None, CPU)
    encoder = restored._replace(model=torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match=r"--cloze: .* is a model of the task gpt, which continues no text"):
        make_scorer(encoder, None, 1, Mesh(), "--cloze")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "megatron.evaluation.harness", raising=False)
    with pytest.raises(UserError, match=r"--lm-eval: the package lm-eval is not installed: .*\[eval\]"):
        evaluate(monkeypatch, "--load", made.run, "--lm-eval", "arc_easy")


def test_the_length_of_windows_is_that_of_training() -> None:
    argv = ["--load", "run", "--seq-length", "64"]
    assert parse(Options, argv, description="", foreign=FOREIGN) == parse(Options, argv[:2], description="")
    assert unused_flags(Options, argv, FOREIGN) == [
        "not used here: --seq-length (windows are as long as the sequences that it was trained on)"
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--limit 9 --num-fewshot 2", "--lm-eval is not asked for: --num-fewshot, --limit"),
        ("--max-windows 5 --cloze 3", "the loss of windows is not asked for: --max-windows"),
        (
            "--seed 3 --domains x",
            "--cloze, --multiple-choice and --lm-eval are not asked for: --seed",
        ),
        (
            "--splits valid --domains y",
            "--cloze, --multiple-choice and the loss of windows are not asked for: --splits",
        ),
        (
            "--compare z",
            "--cloze, --multiple-choice and --domains are not asked for: --compare",
        ),
        ("--seed 3 --lm-eval x", ""),
    ],
)
def test_flags_that_do_nothing_are_told(
    words: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="nowhere"):  # which is told after it
        evaluate(monkeypatch, "--load", "nowhere", *words.split())
    assert capsys.readouterr().err == (f"note: without effect, as {told}\n" if told else "")
    assert without_effect(["splits", "max_windows"], []) == without_effect(["seed"], ["--cloze"]) == []


def test_a_file_keeps_what_it_holds_of_the_same_weights(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["--load", made.run, "--data-path", made.prefix, "--split", "0,0,1", "--splits", "test"]
    first = results(monkeypatch, tmp_path / "a.json", *words)
    both = results(monkeypatch, tmp_path / "a.json", *words, "--cloze", "5")
    assert both["results"] == first["results"] and both["questions"]["cloze"]["items"] == 5
    other = results(monkeypatch, tmp_path / "a.json", "--load", made.other, "--domains", made.lines)
    assert other["results"] == [] and "questions" not in other  # of another checkpoint it is replaced


def test_earlier_results_are_of_the_same_weights(tmp_path: Path) -> None:
    """A run that was done anew has the same folder and step, and other weights."""
    path, mine = tmp_path / "a.json", {"checkpoint": "run/iter_1", "iteration": 1, "fingerprint": "a"}
    lambada = {"lm_eval": {"lambada_openai": {"results": 1}}, "paper_mean": {"value": 2}}
    there = mine | lambada | {"questions": {}, "compared": {}, "compared_with": "x", "results": [3]}
    path.write_text(json.dumps(there))
    assert earlier_results(str(path), mine) == there
    assert earlier_results(str(path), mine | {"checkpoint": "./run/iter_1"}) == there
    for other in (mine | {"fingerprint": "b"}, mine | {"iteration": 2}):
        assert earlier_results(str(path), other) == {}
    assert set_aside(str(path)) == set_aside(str(tmp_path / "none")) == ""
    for number in (1, 2):
        path.write_text(json.dumps({name: there[name] for name in there if name != "fingerprint"}))
        assert earlier_results(str(path), mine) == earlier_results(str(tmp_path / "none"), mine) == {}
        kept = tmp_path / f"a.earlier{number}.json"
        assert set_aside(str(path)).endswith(f"so it is not gone on with; it is kept as {kept}")
        assert not path.exists() and json.loads(kept.read_text())["results"] == [3]
    more = {"lm_eval": {"piqa": {"results": 4}}, "results": []}
    found = with_earlier(mine | more, there)
    assert [*found["lm_eval"]] == ["lambada_openai", "piqa"] and found["results"] == [3]
    assert "paper_mean" not in found and found["compared_with"] == "x"
    assert "compared" not in with_earlier(mine | {"questions": {"cloze": 1}}, there)
