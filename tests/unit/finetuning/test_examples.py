"""GLUE's files exactly as GLUE packs them, and files of the user's own."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.config.finetuning import FinetuningConfig
from megatron.finetuning.examples import Examples, classes_of, read_examples, read_rows
from megatron.finetuning.job import _read_files
from megatron.finetuning.predictions import write_predictions
from megatron.finetuning.tasks import TASKS, LabelledTask

MNLI = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
    "sentence2_parse\tsentence1\tsentence2"
)
MNLI_ROW = "0\t1\t1e\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tOne.\tTwo."
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
STSB_ROW = "0\tmain\tMSR\t2012\t1\tnone\tnone\tA plane.\tAn air plane."
PAIR, QNLI = "index\tsentence1\tsentence2", "index\tquestion\tsentence"
QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
FILES = {
    "CoLA": {
        "train.tsv": 'gj04\t1\t\tThey "drank.\ngj04\t0\t*\tThey drank the pub.',
        "dev.tsv": "gj04\t1\t\tA sailor.",
        "test.tsv": "index\tsentence\n0\tBill whistled.\n1\tIt is.",
    },
    "SST-2": {
        "train.tsv": "sentence\tlabel\nhide new secretions \t0\ncontains no wit \t1",
        "dev.tsv": "sentence\tlabel\nit 's charming\t1",
        "test.tsv": "index\tsentence\n0\tuneasy mishmash .",
    },
    "MRPC": {
        "train.tsv": f'\ufeff{MRPC}\n1\t70\t71\tAmrozi said "the.\tReferring to him\n0\t2\t3\ta\tb',
        "dev.tsv": f"{MRPC}\n1\t5\t6\tc\td",
        "test.tsv": "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\te\tf",
    },
    "STS-B": {
        "train.tsv": f"{STSB}\tscore\n{STSB_ROW}\t5.000\n{STSB_ROW}\t0.5",
        "dev.tsv": f"{STSB}\tscore\n{STSB_ROW}\t3.8",
        "test.tsv": f"{STSB}\n{STSB_ROW}",
    },
    "QQP": {
        "train.tsv": f'{QQP}\n13\t1\t2\tHow "is\tWhat\t1\n14\tbroken\n15\t3\t4\tWhy\tWho\t0',
        "dev.tsv": f"{QQP}\n20\t1\t2\tHow\tWhat\t0",
        "test.tsv": "id\tquestion1\tquestion2\n7\tWould\tShould",
    },
    "MNLI": {
        "train.tsv": f"{MNLI}\tlabel1\tgold_label\n{MNLI_ROW}\tneutral\tneutral\n{MNLI_ROW}\tx\tentailment",
        "dev_matched.tsv": f"{MNLI}\tlabel1\tlabel2\tgold_label\n{MNLI_ROW}\tx\tx\tcontradiction",
        "dev_mismatched.tsv": f"{MNLI}\tlabel1\tlabel2\tgold_label\n{MNLI_ROW}\tx\tx\tentailment",
        "test_matched.tsv": f"{MNLI}\n{MNLI_ROW}",
        "test_mismatched.tsv": f"{MNLI}\n{MNLI_ROW.replace('0', '9847', 1)}",
    },
    "QNLI": {
        "train.tsv": f"{QNLI}\tlabel\n0\tWhen?\tThen.\tentailment\n1\tWho?\tNo.\tnot_entailment",
        "dev.tsv": f"{QNLI}\tlabel\n0\tWhat?\tThat.\tnot_entailment",
        "test.tsv": f"{QNLI}\n0\tWhich?\tThis.",
    },
    "RTE": {
        "train.tsv": f"{PAIR}\tlabel\n0\tA.\tB.\tnot_entailment\r\n1\tC.\tD.\tentailment\r\n",
        "dev.tsv": f"{PAIR}\tlabel\n0\tA.\tB.\tentailment",
        "test.tsv": f"{PAIR}\n0\tA.\tB.",
    },
    "WNLI": {
        "train.tsv": f"{PAIR}\tlabel\n0\tA.\tB.\t1\n1\tC.\tD.\t0",
        "dev.tsv": f"{PAIR}\tlabel\n0\tA.\tB.\t0",
        "test.tsv": f"{PAIR}\n0\tA.\tB.",
    },
}
WANTED = {
    "CoLA": ([('They "drank.',), ("They drank the pub.",)], [1, 0], [1]),
    "SST-2": ([("hide new secretions ",), ("contains no wit ",)], [0, 1], [1]),
    "MRPC": ([('Amrozi said "the.', "Referring to him"), ("a", "b")], [1, 0], [1]),
    "STS-B": ([("A plane.", "An air plane.")] * 2, [5.0, 0.5], [3.8]),
    "QQP": ([('How "is', "What"), ("Why", "Who")], [1, 0], [0]),
    "MNLI": ([("One.", "Two.")] * 2, [1, 0], [2]),
    "QNLI": ([("When?", "Then."), ("Who?", "No.")], [0, 1], [1]),
    "RTE": ([("A.", "B."), ("C.", "D.")], [1, 0], [0]),
    "WNLI": ([("A.", "B."), ("C.", "D.")], [1, 0], [0]),
}
SUBMISSIONS = {
    "CoLA": {"CoLA.tsv": "index\tprediction\n0\t0\n1\t1\n"},
    "STS-B": {"STS-B.tsv": "index\tprediction\n0\t0.000\n"},
    "QQP": {"QQP.tsv": "index\tprediction\n7\t0\n"},
    "MNLI": {
        "MNLI-m.tsv": "index\tprediction\n0\tentailment\n",
        "MNLI-mm.tsv": "index\tprediction\n9847\tentailment\n",
    },
    "RTE": {"RTE.tsv": "index\tprediction\n0\tentailment\n"},
}


def write_glue(folder: Path, name: str, **changed: str) -> FinetuningConfig:
    for file, text in (FILES[name] | changed).items():
        (folder / file).write_text(text, encoding="utf-8")
    return FinetuningConfig(name, "", "", data_path=str(folder))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_of_glue_is_read_as_it_is_packed(name: str, tmp_path: Path):
    texts, labels, dev = WANTED[name]
    task, files = _read_files(write_glue(tmp_path, name))
    assert list(files) == ["train", *(split.name for split in task.splits)]
    assert files["train"].texts == texts and files["train"].labels.tolist() == labels
    assert files[task.splits[0].name].labels.tolist() == dev
    assert files["train"].left_out == (name == "QQP")
    for split in task.splits:
        assert (files[split.name].labels is None) == bool(split.submission)


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_predictions_have_glues_names_and_labels(name: str, tmp_path: Path):
    task, files = _read_files(write_glue(tmp_path, name))
    told = {one.name: [n % 2 for n, _ in enumerate(files[one.name].names)] for one in task.splits}
    write_predictions(tmp_path / "told", task, files, told)
    for file, text in SUBMISSIONS[name].items():
        assert (tmp_path / "told" / file).read_text() == text


def test_the_folder_above_a_tasks_is_told(tmp_path: Path):
    (tmp_path / "RTE").mkdir()
    flags = dataclasses.replace(write_glue(tmp_path / "RTE", "RTE"), data_path=str(tmp_path))
    wanted = f"--data-path {tmp_path}: holds no train.tsv; give {tmp_path}/RTE, which is a folder"
    with pytest.raises(UserError, match=f"^{wanted}$"):
        _read_files(flags)


def test_the_test_files_may_be_missing(tmp_path: Path):
    flags = write_glue(tmp_path, "RTE")
    (tmp_path / "test.tsv").unlink()
    assert list(_read_files(flags)[1]) == ["train", "dev"]


def test_mrpc_as_microsoft_packs_it(tmp_path: Path):
    rows = ["1\t1\t2\ta\tb", "0\t3\t4\tc\td", "1\t5\t6\te\tf"]
    (tmp_path / "msr_paraphrase_train.txt").write_text("\r\n".join([f"\ufeff{MRPC}", *rows]))
    (tmp_path / "msr_paraphrase_test.txt").write_text("\r\n".join([f"\ufeff{MRPC}", "0\t7\t8\tg\th"]))
    (tmp_path / "dev_ids.tsv").write_text("3\t4\n9\t9\n")
    _, files = _read_files(FinetuningConfig("MRPC", "", "", data_path=str(tmp_path)))
    assert files["train"].texts == [("a", "b"), ("e", "f")]
    assert files["dev"].texts == [("c", "d")] and files["dev"].labels.tolist() == [0]
    assert files["test"].labels.tolist() == [0]


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        (
            "dev.tsv",
            "index\tsentence1\tlabel\n0\tA.\tentailment",
            "has no column sentence2; those there",
        ),
        (
            "dev.tsv",
            f"{PAIR}\tlabel\n0\tA.\tB.\tneutral",
            "line 2 has the label 'neutral'",
        ),
        (
            "dev.tsv",
            f"{PAIR}\tlabel\n0\tA.\tB.",
            "line 2 has 3 columns, and 4 are expected",
        ),
        ("dev.tsv", f"{PAIR}\tlabel\n", "holds no example"),
        ("train.tsv", f"{PAIR}\n0\tA.\tB.", "has no column label"),
    ],
)
def test_an_odd_file_is_one_line(file: str, text: str, problem: str, tmp_path: Path):
    with pytest.raises(UserError) as error:
        _read_files(write_glue(tmp_path, "RTE", **{file: text}))
    (line,) = error.value.problems
    assert line.startswith(str(tmp_path / file)) and problem in line


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path):
    flags = write_glue(tmp_path, "RTE")
    (tmp_path / "train.tsv").unlink()
    (tmp_path / "dev.tsv").write_bytes(b"index\tsentence1\xff")
    with pytest.raises(UserError) as error:
        _read_files(flags)
    missing, broken = error.value.problems
    assert "train.tsv: does not exist" in missing and "dev.tsv: byte 16 is no UTF-8" in broken


def test_scores_out_of_bounds_are_refused(tmp_path: Path):
    for score in ("5.1", "nan", "high"):
        with pytest.raises(UserError, match="the task wants a number from 0 to 5"):
            _read_files(write_glue(tmp_path, "STS-B", **{"dev.tsv": f"{STSB}\tscore\n{STSB_ROW}\t{score}"}))


def own(tmp_path: Path, train: list[dict], valid: list[dict], **flags: str) -> tuple[LabelledTask, dict]:
    paths = {}
    for name, rows in (("train", train), ("valid", valid)):
        paths[f"{name}_file"] = str(tmp_path / f"{name}.jsonl")
        Path(paths[f"{name}_file"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    task, files = _read_files(
        FinetuningConfig(**{"task": "classification", "load": "", "save": ""} | paths | flags)
    )
    return task, files


def test_own_labels_are_those_of_the_training_file(tmp_path: Path):
    train = [{"text": "a", "label": label} for label in (10, 9, 10)]
    task, files = own(tmp_path, train, [{"text": "b", "label": 9.0}])
    assert task.labels == ("9", "10") and files["train"].labels.tolist() == [1, 0, 1]
    assert files["dev"].labels.tolist() == [0] and files["dev"].names == ["0"]
    named = [row | {"id": f"n{number}"} for number, row in enumerate(train)]
    assert own(tmp_path, train, [*named, *train])[1]["dev"].names == ["n0", "n1", "n2", "3", "4", "5"]
    words = [{"text": "a", "label": label} for label in ("no", "yes", True)]
    assert own(tmp_path, words, words)[0].labels == ("no", "true", "yes")


def test_own_labels_that_training_has_not_are_refused(tmp_path: Path):
    train = [{"text": "a", "label": label} for label in ("x", "y")]
    with pytest.raises(UserError, match=r"valid.jsonl: line 1 has the label 'z', and the task knows x, y"):
        own(tmp_path, train, [{"text": "b", "label": "z"}])
    with pytest.raises(UserError, match="has 1 label in the column label, and a classification needs two"):
        own(tmp_path, train[:1], train)
    with pytest.raises(UserError, match=r"train.jsonl: holds no example; name a file with some$"):
        own(tmp_path, [], train)
    with pytest.raises(UserError, match="line 2 has no text"):
        own(tmp_path, [*train[:1], {"label": "y"}], train)


ODD_ROWS = {
    "an empty label": ([{"text": "a", "label": " "}], "line 1 has an empty label"),
    "several labels": ([{"text": "a", "label": [0, 2]}], "line 1 has several values in label, where one"),
    "several words": ([{"text": ["a", "b"], "label": 1}], "line 1 has several values in text, where one"),
    "half a pair": ([{"text": "a \ud800", "label": 1}], "line 1 is no JSON"),
}


@pytest.mark.parametrize("name", ODD_ROWS)
def test_odd_rows_of_own_files_are_one_line(name: str, tmp_path: Path):
    rows, wanted = ODD_ROWS[name]
    with pytest.raises(UserError, match=wanted):
        own(tmp_path, rows, rows)


def test_what_is_nested_too_deep_is_one_line(tmp_path: Path):
    path = tmp_path / "deep.jsonl"
    path.write_text('{"text": "a", "label": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(UserError, match="line 1 is no JSON"):
        classes_of(path, TASKS["CoLA"])


def test_labels_that_are_almost_numbers_are_words(tmp_path: Path):
    rows = [{"text": "a", "label": label} for label in ("--5", "7", "1" * 5000)]
    assert own(tmp_path, rows, rows)[0].labels == ("--5", "1" * 5000, "7")


def test_empty_lines_amid_examples_are_told(tmp_path: Path):
    """Those at the end are no examples, and of JSON they never are."""
    path = tmp_path / "dev.tsv"
    path.write_text("\nsentence\tlabel\na\t1\n\n\t\nb\t0\n\n\n")
    found = read_examples(path, TASKS["SST-2"], must_be_labelled=True)
    assert (found.texts, found.left_out) == ([("a",), ("b",)], 2)
    (tmp_path / "dev.jsonl").write_text('{"sentence": "a", "label": 1}\n\n{"sentence": "b", "label": 0}\n')
    found = read_examples(tmp_path / "dev.jsonl", TASKS["SST-2"], must_be_labelled=True)
    assert (len(found.texts), found.left_out) == (2, 0)


def test_a_used_column_that_is_there_twice_is_refused(tmp_path: Path):
    path = tmp_path / "train.tsv"
    path.write_text("sentence\tlabel\tsentence\na\t1\tb\n")
    with pytest.raises(UserError, match="has several columns sentence; give each a name of its own"):
        list(read_rows(path, TASKS["SST-2"]))


def test_a_column_without_a_name_does_not_name_examples(tmp_path: Path):
    path = tmp_path / "dev.tsv"
    path.write_text("\tsentence\tlabel\n41\ta\t1\n57\tb\t0\n")
    assert read_examples(path, TASKS["SST-2"], True).names == ["0", "1"]


def test_predictions_have_no_tabs_or_line_ends_inside_a_cell(tmp_path: Path):
    rows = [{"text": "a", "label": label, "id": "x\ty\nz"} for label in ("p\tq", "r")]
    task, files = own(tmp_path, rows, rows)
    write_predictions(tmp_path / "told", task, files, {"dev": np.array([0, 1])})
    text = (tmp_path / "told" / "dev.tsv").read_text()
    assert text == "index\tprediction\nx y z\tp q\nx y z\tr\n"


def test_own_values_are_of_a_regression(tmp_path: Path):
    rows = [{"a": "x", "b": "y", "score": value} for value in (0.5, -3)]
    flags = {"text_column": "a", "second_text_column": "b", "label_column": "score", "task": "regression"}
    task, files = own(tmp_path, rows, rows, **flags)
    assert not task.labels and files["dev"].labels.tolist() == [0.5, -3.0]
    assert isinstance(files["train"], Examples) and files["train"].texts == [("x", "y")] * 2


def test_a_test_file_whose_labels_are_none_is_told_the_way_out(tmp_path: Path):
    """-1 stands for no label in the test parts of many data sets; half of the labels are a mistake."""
    task = LabelledTask(("text",), "label", ("0", "1"), (), ())
    path = tmp_path / "test.jsonl"
    path.write_text('{"text": "a", "label": -1}\n')
    with pytest.raises(UserError, match=r"label '-1', .* or leave the column label out, and the file"):
        read_examples(path, task, False)
    with pytest.raises(UserError, match=r"label '-1', .* or leave the line out$"):
        read_examples(path, task, True)
    path.write_text('{"text": "a", "label": null}\n{"text": "b", "label": 1}\n')
    with pytest.raises(UserError, match="line 2 has a label, the first one none; give it to all or none"):
        read_examples(path, task, False)
    path.write_text('{"text": "a", "label": null}\n{"text": "b"}\n')
    assert read_examples(path, task, False).labels is None


OWN = LabelledTask(("text",), "label", ("0", "1"), ("accuracy",), ())


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.tsv", "text\tlabel\nx\t\ny\t "), ("a.jsonl", '{"text": "x", "label": ""}')],
)
def test_a_test_file_of_empty_labels_is_predicted_alone(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_examples(tmp_path / name, OWN, must_be_labelled=False).labels is None
    with pytest.raises(UserError, match="has an empty label"):
        read_examples(tmp_path / name, OWN, must_be_labelled=True)
    (tmp_path / "b.tsv").write_text("text\tlabel\nx\t1\ny\t")
    with pytest.raises(UserError, match="line 3 has an empty label"):
        read_examples(tmp_path / "b.tsv", OWN, must_be_labelled=False)


def test_columns_without_a_line_of_names_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("x\t1\ny\t0\n")
    with pytest.raises(UserError, match="no column label; those there, which are the first line's: x, 1; "):
        classes_of(tmp_path / "a.tsv", OWN)
