"""Evaluation and generation from checkpoints, blends, and the rarer flags of training, through the real
commands."""

import json
import math
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch

from megatron.data.indexed_dataset import IndexedDataset
from megatron.evaluation.restore import restore
from megatron.evaluation.text_bytes import TextBytes
from megatron.evaluation.windows import of_bytes
from megatron.report.evaluation_tables import explain_bytes
from megatron.tasks.gpt import GPT_TASK
from megatron.train.pretrain import pretrain
from tests.end_to_end.conftest import EFFICIENT, MODEL, SEQ_LENGTH, Prepared, records
from tests.support.commands import run_command

SHORT = [
    *MODEL,
    "--lr-warmup-iters",
    "0",
    "--lr-decay-iters",
    "40",
    "--hidden-dropout",
    "0",
    "--attention-dropout",
    "0",
]


def tokenizer_flags(prepared: Prepared) -> list[str]:
    return ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", prepared.tokenizer]


@pytest.fixture(scope="module")
def trained(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    words = [
        *SHORT,
        "--data-path",
        prepared.prefix,
        "--split",
        "90,5,5",
        "--train-iters",
        "40",
        "--save",
        str(folder),
    ]
    pretrain([*words, "--eval-interval", "20", "--eval-iters", "1000"], GPT_TASK, "", "")
    torch.set_flush_denormal(False)
    return folder


def test_evaluation_by_hand(prepared: Prepared, trained: Path, tmp_path: Path) -> None:
    """Loss, perplexity and bits per byte of the validation split, from logits of single windows and the
    decoded text."""
    output = tmp_path / "evaluation.json"
    said = run_command(
        "tools/evaluate.py", "--load", str(trained), *tokenizer_flags(prepared), "--output", str(output)
    ).stdout
    result = next(one for one in json.loads(output.read_text())["results"] if one["split"] == "valid")
    model, *_ = restore(str(trained), None, torch.device("cpu"))
    dataset = IndexedDataset(prepared.prefix)
    low, high = round(0.9 * len(dataset)), round(0.95 * len(dataset))
    tokens = np.concatenate(dataset[low:high]).astype(np.int64)
    total = scored = 0.0
    windows = (len(tokens) - 1) // SEQ_LENGTH
    for window in range(windows):
        ids = torch.from_numpy(tokens[window * SEQ_LENGTH : window * SEQ_LENGTH + SEQ_LENGTH + 1])
        logits = model.logits(ids[None, :-1])[0]
        total += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))
        scored += SEQ_LENGTH
    assert (result["windows"], result["tokens"]) == (windows, scored)
    unused = len(tokens) - 1 - int(scored)
    assert result["unused_tokens"] == unused and f"windows {unused} tokens of valid and " in said
    assert result["loss"] == pytest.approx(total / scored, rel=1e-6)
    assert result["perplexity"] == pytest.approx(math.exp(total / scored), rel=1e-5)
    text = tokenizers.Tokenizer.from_file(prepared.tokenizer).decode(
        tokens[1 : windows * SEQ_LENGTH + 1].tolist()
    )
    size = len(text.encode())
    assert result["bytes"] == size and result["bytes_from"] == "text"
    assert result["bits_per_byte"] == pytest.approx(total / math.log(2) / size, rel=1e-3)
    last = [record for record in records(trained) if record["kind"] == "valid"][-1]
    assert last["lm_loss"] == pytest.approx(result["loss"], rel=1e-6)
    assert last["windows"] == windows


def test_another_tokenizer_is_refused(prepared: Prepared, trained: Path, tmp_path: Path) -> None:
    other = str(tmp_path / "tokenizer.json")
    run_command(
        "tools/train_tokenizer.py", "--input", prepared.text, "--vocab-size", "600", "--output", other
    )
    for tool in (["tools/evaluate.py"], ["tools/generate_text.py", "--prompt", "x"]):
        flags = [
            "--load",
            str(trained),
            "--tokenizer-type",
            "HuggingFaceTokenizer",
            "--tokenizer-model",
            other,
        ]
        said = run_command(*tool, *flags, status=2).stderr
        assert "the model was trained with a HuggingFaceTokenizer of 1024 tokens" in said
        assert f"and the flags name a HuggingFaceTokenizer of 600 tokens in {other} (files" in said
    words = [
        *SHORT,
        "--data-path",
        prepared.prefix,
        "--train-iters",
        "1",
        "--tokenizer-type",
        "HuggingFaceTokenizer",
        "--tokenizer-model",
        other,
    ]
    said = run_command("pretrain_gpt.py", *words, status=2).stderr
    assert f"tokens in {prepared.tokenizer} (files" in said and f"600 tokens in {other} (files" in said
    assert "name the tokenizer that made the data" in said


def test_data_of_another_tokenizer_is_refused_with_the_way_out(
    prepared: Prepared, trained: Path, tmp_path: Path
) -> None:
    """No flag named a tokenizer, so none is blamed; and the flags that are shown are those that help."""
    text, other = tmp_path / "a.jsonl", str(tmp_path / "tokenizer.json")
    text.write_text(Path(prepared.text).read_text(encoding="utf-8")[:200_000].rpartition("\n")[0])
    run_command("tools/train_tokenizer.py", "--input", str(text), "--vocab-size", "600", "--output", other)
    make = ["tools/preprocess_data.py", "--input", str(text), "--workers", "1", "--output-prefix"]
    named = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model"]
    run_command(*make, str(tmp_path / "other"), *named, other)
    judge = ["tools/evaluate.py", "--load", str(trained), "--max-windows", "2", "--data-path"]
    said = run_command(*judge, str(tmp_path / "other_text_document"), status=2).stderr
    kept = next((trained / "tokenizer").iterdir()) / "tokenizer.json"
    assert f"was made by a HuggingFaceTokenizer of 600 tokens in {other} (files" in said
    assert f"the model was trained with a HuggingFaceTokenizer of 1024 tokens in {kept} (files" in said
    assert "the flags" not in said
    way = shlex.split(said.rpartition("preprocess its text again with that one: ")[2])
    assert way[:4] == [*named, str(kept)]
    run_command(*make, str(tmp_path / "same"), *way)
    run_command(*judge, str(tmp_path / "same_text_document"))


def test_generation_repeats_itself_and_greedy_takes_the_likeliest(
    prepared: Prepared, trained: Path, tmp_path: Path
) -> None:
    def generated(*flags: str) -> str:
        words = [
            "--load",
            str(trained),
            *tokenizer_flags(prepared),
            "--prompt",
            "import ",
            "--num-tokens",
            "12",
            "--output",
            str(tmp_path / "t"),
        ]
        run_command("tools/generate_text.py", *words, *flags)
        return (tmp_path / "t").read_text().rstrip("\n")

    assert generated("--seed", "3") == generated("--seed", "3") != generated("--seed", "4")
    model, *_ = restore(str(trained), None, torch.device("cpu"))
    tokenizer = tokenizers.Tokenizer.from_file(prepared.tokenizer)
    ids = tokenizer.encode("import ").ids
    start = len(ids)
    for _ in range(12):
        ids.append(int(model.logits(torch.tensor([ids]))[0, -1].argmax()))
    assert generated("--temperature", "0") == (
        "import " + tokenizer.decode(ids[start:], skip_special_tokens=False)
    ).rstrip("\n")
    assert generated("--top-k", "1") == generated("--temperature", "0")


def test_blends_train_and_validate_each_corpus(prepared: Prepared, tmp_path: Path) -> None:
    flags = [*tokenizer_flags(prepared), "--append-eod"]
    run_command(
        "tools/preprocess_data.py",
        "--input",
        prepared.text,
        "--output-prefix",
        str(tmp_path / "b"),
        "--shuffle-documents",
        "7",
        *flags,
    )
    other = str(tmp_path / "b_text_document")
    words = [
        *SHORT,
        "--data-path",
        "3",
        prepared.prefix,
        "1",
        other,
        "--split",
        "90,5,5",
        "--train-iters",
        "6",
        "--eval-iters",
        "2",
    ]
    output = run_command(
        "pretrain_gpt.py", *words, "--save", str(tmp_path / "run"), "--eval-interval", "6"
    ).stdout
    assert "36 drawn" in output and "12 drawn" in output
    valid = next(record for record in records(tmp_path / "run") if record["kind"] == "valid")
    assert set(valid["corpora"]) == {prepared.prefix, other}


def test_separate_files_for_every_split(prepared: Prepared, tmp_path: Path) -> None:
    words = [
        *SHORT,
        "--train-data-path",
        prepared.prefix,
        "--valid-data-path",
        prepared.prefix,
        "--train-iters",
        "2",
        "--eval-iters",
        "1",
    ]
    pretrain([*words, "--save", str(tmp_path)], GPT_TASK, "", "")
    assert [record["kind"] for record in records(tmp_path)] == ["train", "train", "valid"]


def test_the_models_shape_comes_from_the_checkpoint(
    prepared: Prepared, trained: Path, tmp_path: Path
) -> None:
    words = [
        "pretrain_gpt.py",
        "--data-path",
        prepared.prefix,
        "--split",
        "90,5,5",
        "--train-iters",
        "40",
        "--num-layers",
        "9",
    ]
    words += ["--seq-length", "64", "--micro-batch-size", "2", "--global-batch-size", "8", "--lr", "1e-3"]
    words += [
        "--load",
        str(trained),
        "--use-checkpoint-args",
        "--skip-train",
        "--metrics-file",
        str(tmp_path / "metrics.jsonl"),
    ]
    assert "the model's flags are those of" in run_command(*words, "--eval-iters", "1000").stdout
    valid, *_ = records(tmp_path)
    last = [record for record in records(trained) if record["kind"] == "valid"][-1]
    assert valid["lm_loss"] == pytest.approx(last["lm_loss"], rel=1e-6)


def test_a_missing_checkpoint_is_told_or_refused(prepared: Prepared, tmp_path: Path) -> None:
    words = [
        "pretrain_gpt.py",
        *SHORT,
        "--data-path",
        prepared.prefix,
        "--train-iters",
        "1",
        "--eval-iters",
        "0",
        "--load",
        str(tmp_path / "x"),
    ]
    same = ("--save", str(tmp_path / "x"))
    assert "holds no checkpoint yet; starting from scratch" in run_command(*words, *same).stdout
    words[-1] = str(tmp_path / "y")
    for more in (
        [],
        ["--save", words[-1], "--exit-on-missing-checkpoint"],
        ["--save", words[-1], "--finetune"],
    ):
        assert "holds no checkpoint, and " in run_command(*words, *more, status=2).stderr
    assert not (tmp_path / "y").exists()


def test_dry_run_tells_the_plan_and_makes_nothing(prepared: Prepared, tmp_path: Path) -> None:
    words = [
        "pretrain_gpt.py",
        *SHORT,
        "--data-path",
        prepared.prefix,
        "--train-tokens",
        "100000",
        "--save",
        str(tmp_path / "run"),
        "--dry-run",
    ]
    output = run_command(*words).stdout
    assert "parameters over a vocabulary of 1,024" in output and "effective tokens" in output
    assert re.search(rf"^{prepared.prefix}: .* drawn, \d+\.\d\d passes$", output, re.MULTILINE)
    assert re.search(r"^memory a rank: about \d\.\d\d GiB .* for 2 rows of 64 tokens", output, re.MULTILINE)
    large = ["--num-layers", "400", "--hidden-size", "12288"]
    assert "it does not fit" in run_command(*words, *large, status=2).stderr
    assert "parameters over" in run_command(*words, *large, "--ignore-memory-estimate").stdout
    missing = [*EFFICIENT, "--difficulty-path", str(tmp_path / "none")]
    assert str(tmp_path / "none") in run_command(*words, *missing, status=2).stderr
    assert not list(tmp_path.iterdir())


def test_a_run_from_yaml_and_a_deepspeed_json_equals_one_from_flags(
    prepared: Prepared, tmp_path: Path
) -> None:
    metric = {
        "difficulty_type": "value",
        "clustering_type": "single_cluster",
        "schedule_type": "fixed_linear",
    }
    schedule = {"total_curriculum_step": 6, "difficulty_step": 8}
    length = metric | {
        "min_difficulty": 16,
        "max_difficulty": 64,
        "schedule_config": schedule,
        "index_to_sample_path": "dummy",
    }
    sampling = {
        "enabled": True,
        "curriculum_learning": {"enabled": True, "curriculum_metrics": {"seqlen_truncate": length}},
    }
    dropping = {
        "enabled": True,
        "total_layer_num": 4,
        "random_ltd_layer_num": 2,
        "random_ltd_layer_id": [1, 2],
        "random_ltd_schedule": {
            "min_value": 16,
            "max_value": 64,
            "schedule_type": "fixed_linear",
            "schedule_config": {"require_steps": 8, "seq_per_step": 8},
        },
    }
    section = {
        "enabled": True,
        "seed": 1234,
        "data_sampling": sampling,
        "data_routing": {"enabled": True, "random_ltd": dropping},
    }
    (tmp_path / "ds.json").write_text(json.dumps({"train_batch_size": 8, "data_efficiency": section}))
    (tmp_path / "run.yaml").write_text(
        f"model:\n  num_layers: 4\ndata-efficiency-config: {tmp_path}/ds.json\ntrain_iters: "
        "10\neval_iters: 0\n"
    )
    words = [*SHORT[2:], "--data-path", prepared.prefix]
    pretrain(
        [*words, "--config", str(tmp_path / "run.yaml"), "--save", str(tmp_path / "a")], GPT_TASK, "", ""
    )
    flags = [
        "--curriculum",
        "seqlen_truncate:min=16,max=64,duration=6,quantum=8",
        "--random-ltd",
        "--random-ltd-min",
        "16",
    ]
    flags += [
        "--random-ltd-duration",
        "8",
        "--random-ltd-quantum",
        "8",
        "--train-iters",
        "10",
        "--eval-iters",
        "0",
    ]
    pretrain([*words, "--num-layers", "4", *flags, "--save", str(tmp_path / "b")], GPT_TASK, "", "")
    assert records(tmp_path / "a") == records(tmp_path / "b")


def test_the_tokenizer_stays_with_the_run(prepared: Prepared, trained: Path, tmp_path: Path) -> None:
    """A run of data alone, whose tokenizer and data's description are gone when it is judged."""
    (folder,) = (trained / "tokenizer").iterdir()
    assert (folder / "tokenizer.json").read_bytes() == Path(prepared.tokenizer).read_bytes()
    run = tmp_path / "moved"
    shutil.copytree(trained, run)
    for name in (".bin", ".idx", ".json"):
        shutil.copy(f"{prepared.prefix}{name}", tmp_path / f"copy{name}")
    data = ["--load", str(run), "--data-path", str(tmp_path / "copy"), "--splits", "valid", "--output"]
    plain = [*data, str(tmp_path / "plain.json")]
    assert "note" not in run_command("tools/evaluate.py", *plain).stderr
    named = [*data, str(tmp_path / "named.json"), *tokenizer_flags(prepared)]
    run_command("tools/evaluate.py", *named)
    results = [json.loads((tmp_path / f"{name}.json").read_text())["results"] for name in ("plain", "named")]
    assert results[0] == results[1] and results[0][0]["bytes_from"] == "text"
    words = [
        "tools/generate_text.py",
        "--load",
        str(run / "iter_0000040"),
        "--prompt",
        "import",
        "--seed",
        "3",
    ]
    assert run_command(*words).stdout == run_command(*words, *tokenizer_flags(prepared)).stdout
    assert "--tokenizer-type is missing" in run_command(*words, "--eod-token", "x", status=2).stderr
    shutil.rmtree(run / "tokenizer")
    assert "--tokenizer-type is required" in run_command(*words, status=2).stderr
    note = run_command("tools/evaluate.py", *data, str(tmp_path / "none.json")).stderr
    assert "no tokenizer is kept in" in note and "no bits per byte" in note
    with open(next((trained / "tokenizer").iterdir()) / "tokenizer.json", "rb") as file:
        content = file.read()
    (run / "tokenizer" / folder.name).mkdir(parents=True)
    for path in folder.iterdir():
        shutil.copy(path, run / "tokenizer" / folder.name)
    (run / "tokenizer" / folder.name / "tokenizer.json").write_bytes(content + b" ")
    assert "is damaged (tokenizer.json is not the file" in run_command(*words, status=2).stderr


def test_nothing_to_score(tmp_path: Path) -> None:
    """A validation set of end-of-document tokens alone, all of which --eod-mask-loss masks."""
    for name, texts in (("text", ["1 2 3 4 5 6 7"] * 20), ("ends", ["50 50 50 50 50 50 50"] * 20)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines)
        null = ["--tokenizer-type", "NullTokenizer", "--vocab-size", "50", "--workers", "1"]
        inputs = ["--input", str(tmp_path / f"{name}.jsonl"), "--output-prefix", str(tmp_path / name)]
        run_command("tools/preprocess_data.py", *inputs, *null)
    paths = [str(tmp_path / f"{name}_text_document") for name in ("text", "ends")]
    words = [
        *SHORT,
        "--train-data-path",
        paths[0],
        "--eod-mask-loss",
        "--train-iters",
        "1",
        "--eval-iters",
        "0",
    ]
    pretrain([*words, "--seq-length", "8", "--save", str(tmp_path / "run")], GPT_TASK, "", "")
    words = ["tools/evaluate.py", "--load", str(tmp_path / "run"), "--splits", "test", "--split", "0,0,1"]
    error = run_command(*words, "--data-path", paths[1], status=2).stderr
    assert error.count("\n") == 1 and "nothing to score" in error
    output = tmp_path / "both.json"
    done = run_command(*words, "--data-path", *paths, "--output", str(output))
    text, ends = json.loads(output.read_text())["results"]
    assert text["tokens"] > 0 and text["bits_per_byte"] > 0
    assert (ends["tokens"], ends["loss"], ends["perplexity"], ends["bits_per_byte"]) == (0, None, None, None)
    assert "nan" not in done.stdout.lower()


def test_generation_keeps_documents_apart_as_training_did(prepared: Prepared, tmp_path: Path) -> None:
    """The text of a second document is that of this document alone."""
    data = ["--data-path", prepared.prefix, *tokenizer_flags(prepared)]
    apart = ["--reset-attention-mask", "--reset-position-ids", "--train-iters", "1", "--eval-iters", "0"]
    pretrain([*SHORT, *data, *apart, "--save", str(tmp_path / "run")], GPT_TASK, "", "")

    def text(prompt: str) -> str:
        words = [
            "--load",
            str(tmp_path / "run"),
            "--prompt",
            prompt,
            "--num-tokens",
            "8",
            "--temperature",
            "0",
        ]
        return run_command("tools/generate_text.py", *words, "--ignore-eod").stdout.removeprefix(prompt)

    assert text("a first one<|endoftext|>import os") == text("import os")


def test_bytes_that_are_far_from_the_decoded_ones_give_no_bits_per_byte(capsys) -> None:
    """A share of the text that a tokenizer loses differs from part to part."""
    results = [
        {"corpus": "books"} | of_bytes(70.0, TextBytes(400.0, "proportion", factor))
        for factor in (1.01, 1.25)
    ]
    assert results[0]["bits_per_byte"] == pytest.approx(70 / math.log(2) / 400)
    assert (results[1]["bits_per_byte"], results[1]["bytes_factor"]) == (None, 1.25)
    explain_bytes(results)
    near, far = capsys.readouterr().err.splitlines()
    assert "1.0100 bytes for each" in near and near.endswith("in that proportion")
    assert "1.2500 bytes for each" in far and far.endswith("too far from 1 for bits per byte")
