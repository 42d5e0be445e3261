"""A whole finetuning run in this process, what it leaves, and mistakes that leave nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from megatron.base.errors import UserError
from megatron.batches.loader import BatchShare
from megatron.checkpoint.manifest import read_manifest
from megatron.config.finetuning import FinetuningConfig
from megatron.finetuning.job import Job, own_task, read_job, tokens_notes
from megatron.finetuning.predictions import predictions_of
from megatron.finetuning.results import earlier_results
from megatron.finetuning.run import finetune, prepare
from megatron.finetuning.summary import summarise, table_of
from megatron.finetuning.sweep import own_words, parts_of, sweep
from megatron.finetuning.tasks import TASKS
from tests.support.labelled import bert_config, modern_config, texts_of, write_huggingface, write_own
from tests.unit.finetuning.test_examples import write_glue

SIZES = ["--train-iters", "3", "--micro-batch-size", "8", "--global-batch-size", "16", "--lr", "1e-3"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("labelled")
    return [*write_own(folder), "--load", str(write_huggingface(folder / "bert"))]


def job_of(words: list[str], save: Path, *more: str) -> Job:
    return read_job([*words, *SIZES, "--save", str(save), *more], "", "")


@pytest.fixture(autouse=True)
def numbers_as_before():
    yield
    torch.set_flush_denormal(False)


def test_it_learns_and_leaves_results_and_predictions(words, tmp_path, capsys):
    finetune(job_of(words, tmp_path / "run", "--train-iters", "60", "--save-model", "--lr", "3e-3"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    accuracy = results["metrics"]["test"]["accuracy"]
    assert min(accuracy, results["metrics"]["dev"]["accuracy"]) >= 0.9  # by chance 0.5, sd 0.11
    assert results["examples"] == {"train": 48, "dev": 20, "test": 20} and results["labels"] == ["0", "1"]
    header, *told = (tmp_path / "run" / "predictions" / "test.tsv").read_text().splitlines()
    right = {f"{number}\t{number % 2}" for number in range(20)}
    assert header == "index\tprediction" and len(told) == 20
    assert len(right.intersection(told)) == round(20 * accuracy)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert kinds == ["train"] * 60
    assert "task loss:" in capsys.readouterr().out
    again = job_of(words, tmp_path / "again", "--load", str(tmp_path / "run" / "model"), "--lr", "1e-9")
    finetune(again)
    assert earlier_results(tmp_path / "again", again)["metrics"] == results["metrics"]


def test_outputs_of_other_classes_or_of_another_task_begin_anew(words, tmp_path, capsys):
    """The classes are as many, and their order is another one."""
    finetune(job_of(words, tmp_path / "run", "--train-iters", "60", "--save-model", "--lr", "3e-3"))
    model = ["--load", str(tmp_path / "run" / "model"), "--lr", "1e-9"]
    for name in ("train", "valid", "test"):
        path = Path(words[words.index(f"--{name}-file") + 1])
        renamed = tmp_path / path.name  # 0 is called b now, and comes behind 1, which is called a
        text = path.read_text().replace('"label": 0', '"label": "b"').replace('"label": 1', '"label": "a"')
        renamed.write_text(text.replace("\t0\n", "\tb\n").replace("\t1\n", "\ta\n"))
        model += [f"--{name}-file", str(renamed)]
    outputs = {}
    for name, more in (("other", model), ("fresh", words[-2:] + ["--lr", "1e-9"]), ("same", model[:4])):
        capsys.readouterr()
        run_job = job_of(words, tmp_path / name, "--save-model", *more)
        finetune(run_job)
        said = capsys.readouterr().out
        ends = {"other": "begin anew", "fresh": "", "same": "go on"}[name]
        assert (f"; its outputs, for classification of 0, 1, {ends}" in said) == bool(ends)
        folder = next((tmp_path / name / "model").glob("iter_*"))
        manifest = read_manifest(folder)
        assert manifest.answers == list(run_job.answers)
        entry = manifest.tensors["pair_head.output.weight"]
        with safe_open(folder / entry.parts[0].file, "pt") as file:
            outputs[name] = file.get_tensor("pair_head.output.weight")
    torch.testing.assert_close(outputs["other"], outputs["fresh"], rtol=0, atol=1e-7)
    assert (outputs["same"] - outputs["fresh"]).abs().max() > 1e-2


def test_a_finetuned_model_measures_and_predicts_without_training(words, tmp_path, capsys):
    """Its results are those of its run, on other test texts, too."""
    finetune(job_of(words, tmp_path / "run", "--train-iters", "30", "--save-model", "--lr", "3e-3"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    model = ("--load", str(tmp_path / "run" / "model"), "--skip-train")
    capsys.readouterr()
    skipping = job_of(words, tmp_path / "skipping", *model)
    finetune(skipping)
    found = json.loads((tmp_path / "skipping" / "results.json").read_text())
    assert found["metrics"] == results["metrics"] and found["steps"] == 0
    for name in ("dev.tsv", "test.tsv"):
        told = [(tmp_path / one / "predictions" / name).read_text() for one in ("run", "skipping")]
        assert told[0] == told[1]
    assert not list((tmp_path / "skipping").glob("metrics.jsonl"))
    assert "plan:" not in capsys.readouterr().out
    with pytest.raises(UserError, match="differs in encoder, skip_train"):
        earlier_results(tmp_path / "run", skipping)
    with pytest.raises(UserError, match="differs in skip_train;"):
        earlier_results(tmp_path / "skipping", job_of(words, tmp_path, *model[:2]))


def test_a_finetuned_model_is_measured_on_examples_that_lack_some_of_its_classes(words, tmp_path):
    """Labels count by their names, and those that it does not know are told with those that it knows."""
    finetune(job_of(words, tmp_path / "run", "--train-iters", "30", "--save-model", "--lr", "3e-3"))
    model = ["--load", str(tmp_path / "run" / "model"), "--skip-train"]
    rows = Path(words[words.index("--train-file") + 1]).read_text().splitlines(keepends=True)
    ones = [row for row in rows if '"label": 1' in row]
    told = {}
    files = {"all": rows, "ones": ones, "other": [row.replace('"label": 1', '"label": "b"') for row in ones]}
    for name, lines in files.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(lines))
        same = [f"--{kind}-file={path}" for kind in ("train", "valid", "test")]
        job = job_of(words, tmp_path / name, *model, *same)
        if name == "other":
            said = "is finetuned for classification of 0, 1, and asked for classification of b; give its own"
            with pytest.raises(UserError, match=said):
                finetune(job)
            break
        assert job.task.labels == ("0", "1")
        finetune(job)
        lines = (tmp_path / name / "predictions" / "dev.tsv").read_text().splitlines()[1:]
        told[name] = [line.split("\t")[1] for line in lines]
    assert told["ones"] == told["all"][1::2] and set(told["all"]) == {"0", "1"}


def test_a_run_whose_rate_is_0_and_the_folder_of_a_run_are_told(words, tmp_path, capsys):
    """The one step of a decay is its last, whose rate is 0."""
    short = [*words, "--epochs", "0.1", "--save", str(tmp_path / "run"), "--save-model"]
    finetune(read_job(short, "", ""))
    said = capsys.readouterr().out
    assert "; the rate of every step is 0, and nothing is trained: give more --epochs" in said
    (problem,) = problems_of(words, tmp_path / "next", "--load", str(tmp_path / "run"))
    assert problem.endswith(f"is of a finetuning, whose model lies below it; give {tmp_path}/run/model")
    finetune(job_of(words, tmp_path / "longer"))
    assert "nothing is trained" not in capsys.readouterr().out


def test_the_case_of_known_classes_does_not_matter(tmp_path):
    """Those of Hugging Face are often capitals; the file's spelling counts in what is written."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x", "label": "negative"}\n{"text": "y", "label": "negative"}\n')
    flags = FinetuningConfig(
        load="", save="", task="classification", train_file=str(path), text_column="text"
    )
    assert own_task(flags, ("POSITIVE", "NEGATIVE")).labels == ("POSITIVE", "negative")
    with pytest.raises(UserError, match="has 1 label"):
        own_task(flags)


def test_an_encoder_without_a_classifier_measures_nothing(words, tmp_path):
    with pytest.raises(UserError, match="bert has no classifier of 2 outputs; give the folder model of a"):
        finetune(job_of(words, tmp_path / "run", "--skip-train"))
    assert not (tmp_path / "run").exists()


def test_help_has_no_flag_that_is_refused(capsys):
    with pytest.raises(SystemExit):
        read_job(["--help"], "", "")
    shown = capsys.readouterr().out
    assert "--skip-train" in shown and "--tensor-model-parallel-size" in shown
    for name in ("--dry-run", "--pipeline-model-parallel-size", "--cp-comm-type", "--decoder-first"):
        assert name not in shown


def test_a_tokenizer_that_does_not_know_the_texts_is_told_or_refused(words, tmp_path):
    """As the five tokens that transformers 5 saves of a BertTokenizerFast(vocab_file=...)."""
    folder = write_huggingface(tmp_path / "bert")
    vocabulary = (folder / "vocab.txt").read_text().splitlines()
    assert tokens_notes(job_of(words, tmp_path / "run")) == []
    words = [*words, "--load", str(folder)]
    few = [token for token in vocabulary if "x" not in token or token.startswith("[")]
    (folder / "vocab.txt").write_text("\n".join(few) + "\n")
    lines = Path(words[words.index("--train-file") + 1]).read_text().splitlines()
    job, texts = job_of(words, tmp_path / "run"), [json.loads(line)["sentence"] for line in lines]
    lost, pieces = " ".join(texts).count("fox"), sum(job.source.tokenizer.encode_batch(texts)[1])
    share, *_ = [line for line in tokens_notes(job) if "of the training texts are [UNK]" in line]
    assert share.startswith(f"{lost / pieces:.2%} of the tokens") and lost
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) + "\n")
    (line,) = problems_of(words, tmp_path / "run")
    assert "to its tokenizer of 5 tokens 100% of the training texts are [UNK]" in line


def test_results_that_are_there_are_kept_and_those_of_another_run_refused(words, tmp_path, capsys):
    finetune(job_of(words, tmp_path))
    before = (tmp_path / "results.json").stat().st_mtime_ns
    finetune(job_of(words, tmp_path, "--log-interval", "7"))
    assert "is there already; dev accuracy" in capsys.readouterr().out
    assert (tmp_path / "results.json").stat().st_mtime_ns == before
    other = str(write_huggingface(tmp_path / "other", seed=4))
    changed = job_of(words, tmp_path, "--lr", "2e-3", "--train-iters", "2", "--random-init", "--load", other)
    with pytest.raises(
        UserError, match=r"differs in encoder, random_init, --train-iters, --lr; choose another --save"
    ):
        finetune(changed)


def test_a_stopped_run_says_that_it_begins_anew(words, tmp_path, capsys):
    save = ("--exit-interval", "2", "--save-model")
    with pytest.raises(UserError, match="stopped before the end, without results; the same command begins"):
        finetune(job_of(words, tmp_path, *save))
    assert capsys.readouterr().out.endswith("stopped at iteration 2 of 3\n")
    assert not (tmp_path / "results.json").exists()


def test_pairs_of_glue_in_two_validations(words, tmp_path):
    write_glue(tmp_path, "MNLI")
    load = words[words.index("--load") + 1]
    glue = ["--task", "MNLI", "--data-path", str(tmp_path), "--load", load, "--bf16", "--eval-interval", "2"]
    finetune(job_of(glue, tmp_path / "run"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["metrics"]) == ["dev_matched", "dev_mismatched"]
    told = sorted(path.name for path in (tmp_path / "run" / "predictions").iterdir())
    assert told == ["MNLI-m.tsv", "MNLI-mm.tsv", "dev_matched.tsv", "dev_mismatched.tsv"]
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert kinds == ["train", "train", "valid", "train"]


def test_values_are_predicted_within_their_bounds(words, tmp_path):
    write_glue(tmp_path, "STS-B")
    load = words[words.index("--load") + 1]
    job = job_of(["--task", "STS-B", "--data-path", str(tmp_path), "--load", load], tmp_path / "run")
    finetune(job)
    assert job.outputs == 1
    (_, line) = (tmp_path / "run" / "predictions" / "STS-B.tsv").read_text().splitlines()
    assert 0 <= float(line.split("\t")[1]) <= 5 and len(line) == len("0\t0.000")


def test_predictions_are_the_likeliest_class_or_a_value_within_bounds():
    logits = np.array([[-1.0], [2.5], [7.0]])
    assert predictions_of(logits, TASKS["STS-B"]).tolist() == [0.0, 2.5, 5.0]
    assert predictions_of(logits, TASKS["STS-B"]._replace(bounds=None)).tolist() == [-1.0, 2.5, 7.0]
    assert predictions_of(np.array([[0.0, 1.0, 0.5], [3.0, 2.0, 1.0]]), TASKS["MNLI"]).tolist() == [1, 0]


def test_ranks_share_a_batch_in_micro_batches_of_one_width(words, tmp_path):
    prepared = prepare(job_of(words, tmp_path))
    step = prepared.plan.at(2)
    wanted = prepared.rows.batch(prepared.sampler, step, BatchShare(0, 1, 16))
    assert len(wanted) == 1 and len(wanted[0].tokens) == 16
    found = [prepared.rows.batch(prepared.sampler, step, BatchShare(rank, 2, 4)) for rank in (0, 1)]
    parts = [part for turn in zip(*found) for part in turn]
    assert [len(part.tokens) for part in parts] == [4] * 4
    for name in ("tokens", "labels", "types", "rows"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(wanted[0], name))


CLASSIFIERS = [
    (transformers.BertForSequenceClassification, bert_config, {}),
    (transformers.ModernBertForSequenceClassification, modern_config, {"classifier_pooling": "cls"}),
    (transformers.ModernBertForSequenceClassification, modern_config, {"classifier_pooling": "mean"}),
]


@pytest.mark.parametrize(("kind", "config", "more"), CLASSIFIERS)
def test_a_classifier_of_hugging_faces_goes_on_where_it_was(kind, config, more, words, tmp_path, capsys):
    """With a rate of next to nothing its predictions are those of transformers."""
    folder = write_huggingface(tmp_path / "theirs", kind=kind, config=config, **more)
    job = job_of(words, tmp_path / "run", "--load", str(folder), "--lr", "1e-12", "--train-iters", "1")
    finetune(job)
    assert f"from {folder}; its outputs, which name no task, go on\n" in capsys.readouterr().out
    corpus, other = job.corpora["test"], kind.from_pretrained(folder).eval()
    with torch.no_grad():
        rows = [corpus.tokens[start:end] for start, end in zip(corpus.starts, corpus.starts[1:])]
        logits = torch.cat([other(torch.from_numpy(row)[None].long()).logits for row in rows])
    assert logits.diff().abs().min() > 1e-4  # none is told by a hair
    lines = (tmp_path / "run" / "predictions" / "test.tsv").read_text().splitlines()[1:]
    assert lines == [f"{number}\t{told}" for number, told in enumerate(logits.argmax(1).tolist())]


@pytest.mark.parametrize(
    ("names", "said"), [("10", "of 1, 0, go on in the order of"), ("ab", "of a, b, go on")]
)
def test_a_classifier_that_names_its_outputs_in_another_order_tells_the_same_classes(
    names, said, words, tmp_path, capsys
):
    """Other names than the labels' are told, and taken as they stand."""
    told = []
    for name, more in (("plain", {}), ("named", {"id2label": dict(enumerate(names))})):
        folder = write_huggingface(tmp_path / name, kind=CLASSIFIERS[0][0], config=bert_config, **more)
        job = job_of(words, tmp_path / f"run_{name}", "--load", str(folder), "--skip-train")
        finetune(job)
        told.append((tmp_path / f"run_{name}" / "predictions" / "test.tsv").read_text().splitlines()[1:])
    assert f"its outputs, {said}" in capsys.readouterr().out
    other = {"0": "1", "1": "0"} if names == "10" else {"0": "0", "1": "1"}
    assert told[1] == [f"{line[:-1]}{other[line[-1]]}" for line in told[0]]


@pytest.mark.parametrize(
    ("kind", "words_of_head"),
    [
        (transformers.ModernBertForMaskedLM, ""),
        (transformers.ModernBertModel, ", which has no such head: that begins anew, too"),
        (transformers.ModernBertForTokenClassification, ""),
    ],
)
def test_the_head_of_a_modern_bert_is_taken_and_a_classifier_of_another_task_is_not(
    kind, words_of_head, words, tmp_path, capsys
):
    folder = write_huggingface(tmp_path / "theirs", kind=kind, config=modern_config)
    finetune(job_of(words, tmp_path / "run", "--load", str(folder)))
    assert f"from {folder}{words_of_head}\n" in capsys.readouterr().out


def problems_of(words: list[str], save: Path, *more: str) -> list[str]:
    with pytest.raises(UserError) as error:
        job_of(words, save, *more)
    assert not save.exists()
    return list(error.value.problems)


MISTAKES = {
    ("--task", "RTE"): ["--train-file and --valid-file and --test-file: belong to", "needs --data-path"],
    ("--task", "XYZ"): ["--task XYZ: choose one of"],
    ("--seeds", "3-1", "--sweep-lr", "a"): ["--sweep-lr a: write rates", "--seeds 3-1: write at most"],
    ("--parallel", "2"): ["--parallel is of sweeps"],
    ("--train-file", "a.csv"): ["--train-file a.csv: is read by its ending"],
    ("--pipeline-model-parallel-size", "2", "--cp-comm-type", "a2a"): [
        "--cp-comm-type, --pipeline-model-parallel-size: finetuning shares batches and matrices; leave"
    ],
    ("--pretrained-checkpoint", "x", "--train-data", "y"): [
        "--pretrained-checkpoint x is refused: the encoder to begin with is named by --load",
        "--train-data y is refused: give --data-path for a task of GLUE, or --train-file and",
    ],
    ("--dry-run",): ["--dry-run: belongs to pretraining; leave it out"],
    ("--skip-train", "--seeds", "1-2", "--random-init"): ["leave --random-init and --seeds out"],
    ("--random-ltd", "--lr", "-1"): ["--random-ltd", "--lr -1.0 must"],
    ("--seq-length", "99"): [
        "--seq-length 99: the model of --load knows 24 positions; give at most 24",
    ],
    ("--load", "nowhere", "--clip-grad", "-1"): ["--clip-grad -1.0", "--load nowhere: holds no checkpoint"],
}


@pytest.mark.parametrize("flags", MISTAKES, ids=" ".join)
def test_mistakes_in_flags_are_told_together(flags, words, tmp_path):
    found = problems_of(words, tmp_path / "run", *flags)
    assert len(found) == len(MISTAKES[flags])
    for line, wanted in zip(found, MISTAKES[flags]):
        assert wanted in line


def test_a_folder_that_is_no_encoder_is_one_line(words, tmp_path):
    (tmp_path / "gpt").mkdir()
    config = tmp_path / "gpt" / "config.json"
    for content, wanted in (
        ({"model_type": "gpt2"}, "model_type 'gpt2' is none of bert, modernbert"),
        ({"model_type": "bert"}, "says nothing of num_hidden_layers"),
        ([1], "is no config.json of a model"),
    ):
        config.write_text(json.dumps(content))
        (line,) = problems_of(words, tmp_path / "run", "--load", str(tmp_path / "gpt"))
        assert line.startswith(str(config)) and wanted in line


def test_weights_that_are_missing_or_of_another_model_are_one_line(words, tmp_path):
    folder = write_huggingface(tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"has no bert.encoder.layer.2.attention"):
        finetune(job_of(words, tmp_path / "run", "--load", str(folder)))
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(UserError, match=r"has the shape \[48, 32\], and the config.json makes it \[40, 32\]"):
        finetune(job_of(words, tmp_path / "run", "--load", str(folder)))
    assert not (tmp_path / "run").exists()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (line,) = problems_of(words, tmp_path / "other", "--load", str(folder))
    assert "has no model.safetensors (it holds config.json, pytorch_model.bin, vocab.txt)" in line


def test_weights_that_are_no_numbers_are_told_before_they_are_trained(words, tmp_path):
    """It is not the rate that is wrong."""
    folder = write_huggingface(tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    name = next(one for one in weights if "layer.1.intermediate.dense.weight" in one)
    weights[name][3, 2] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"bert: its weights layers.1.mlp.* hold what is no finite number"):
        finetune(job_of(words, tmp_path / "run", "--load", str(folder)))
    assert not (tmp_path / "run").exists()


def test_epochs_are_passes_over_the_examples(words, tmp_path):
    flags = [word for word in SIZES if word not in ("--train-iters", "3")]
    job = read_job([*words, *flags, "--save", str(tmp_path), "--epochs", "2.5"], "", "")
    assert job.config.training.train_samples == 120
    assert job.config.optimizer.lr_warmup_fraction == 0.1 and job.config.optimizer.weight_decay == 0.1
    usual = read_job([*words, "--save", str(tmp_path)], "", "").config
    assert usual.training.global_batch_size == usual.training.micro_batch_size == 32
    assert usual.optimizer.lr == 2e-5 and usual.training.train_samples == 144


def test_a_sweep_is_its_runs_and_their_medians(words, tmp_path):
    job = job_of(words, tmp_path, "--sweep-lr", "1e-3,2e-3", "--seeds", "1-3")
    parts = parts_of(job)
    assert [part.folder.name for part in parts[:2]] == ["lr0.001_seed1", "lr0.001_seed2"] and len(parts) == 6
    found = {
        part: {"metrics": {"dev": {"accuracy": value}}, "seconds": 1}
        for part, value in zip(parts, (0.5, 0.7, 0.9, 0.8, 0.6, 0.7))
    }
    told = summarise(job, found)
    one = told["rates"]["0.001"]["dev accuracy"]
    assert one == {
        "median": 0.7,
        "standard_deviation": pytest.approx(0.2),
        "least": 0.5,
        "most": 0.9,
        "seeds": 3,
    }
    assert told["best_lr"] == 0.001 and told["score"] == "dev accuracy"
    assert table_of(told).row_count == 2


def test_the_command_of_a_run_has_no_flags_of_the_sweep():
    words = [
        "finetune.py",
        "--seeds",
        "1-3",
        "--lr",
        "1",
        "--sweep_lr=1,2",
        "--task",
        "RTE",
        "--parallel",
        "2",
    ]
    flags = FinetuningConfig("RTE", "", "", seeds="1-3", sweep_lr="1,2", parallel=2)
    assert own_words(words, flags) == ["finetune.py", "--lr", "1", "--task", "RTE"]
    with pytest.raises(UserError, match="--sweep-lr: give it on the command line"):
        own_words(["finetune.py", "--config", "my.yaml", "--seeds", "1-3", "--parallel", "2"], flags)


def test_runs_of_a_sweep_have_places_of_their_own(words, tmp_path):
    job = job_of(words, tmp_path / "run", "--sweep-lr", "1.0000001e-3,1.0000002e-3")
    assert len({part.folder for part in parts_of(job)}) == 2
    shared = ("--metrics-file", str(tmp_path / "a"), "--tensorboard-dir", str(tmp_path / "b"))
    with pytest.raises(UserError, match="--metrics-file: the runs") as error:
        sweep(job_of(words, tmp_path / "run", "--seeds", "1-2", *shared), ["finetune.py", "--seeds", "1-2"])
    assert len(error.value.problems) == 2 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content",
    [
        '{"run": ',
        "null",
        "[1]",
        '{"run": [], "metrics": {}}',
        '{"run": {"flags": null}, "metrics": {}, "seconds": 1}',
        '{"run": {"flags": {}}, "metrics": {"dev": 5}, "seconds": 1}',
        '{"run": {"flags": {}}, "metrics": {"dev": {"accuracy": "high"}}, "seconds": 1}',
        '{"run": {"flags": {}}, "metrics": {}}',
    ],
)
def test_damaged_results_are_one_line(content, words, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results.json: is no file of results; move it away"):
        earlier_results(tmp_path, job_of(words, tmp_path))


def test_results_of_other_columns_are_of_another_run(words, tmp_path):
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("train", "valid")}
    for number, path in enumerate(paths.values()):
        rows = zip(texts_of(["0", "1"] * 8, number), texts_of(["1", "0"] * 8, number), [0, 1] * 8)
        path.write_text("".join(json.dumps(dict(zip("abc", row))) + "\n" for row in rows))
    load = words[words.index("--load") + 1]
    own = ["--task", "classification", "--load", load, "--label-column", "c", "--text-column"]
    own = [*(word for name, path in paths.items() for word in (f"--{name}-file", str(path))), *own]
    finetune(job_of([*own, "a"], tmp_path / "run"))
    with pytest.raises(UserError, match="of another run, which differs in columns, data;"):
        earlier_results(tmp_path / "run", job_of([*own, "b"], tmp_path / "run"))


def test_a_model_that_tells_no_numbers_has_no_results(words, tmp_path):
    """The update of the last step is behind its loss, which alone training looks at."""
    job = job_of(words, tmp_path / "run", "--train-iters", "1", "--lr", "1e38", "--clip-grad", "0")
    with pytest.raises(UserError, match="tells no numbers of dev, so there are no results; lower --lr"):
        finetune(job)
    assert not list((tmp_path / "run").glob("[a-ln-z]*"))  # metrics.jsonl alone
