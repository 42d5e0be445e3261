"""The tasks as data: which files and columns hold texts and labels, and what is measured (GLUE: arXiv
1804.07461)."""

from typing import NamedTuple

from megatron.config.finetuning import GLUE

MATCHED, MISMATCHED = "dev_matched", "dev_mismatched"


class Split(NamedTuple):
    """Examples that are not trained on. `files`: names of one file, of which the first one there is taken;
    `submission`: the file of predictions that GLUE's server takes, "" where it takes none."""

    name: str
    files: tuple[str, ...]
    submission: str = ""


class LabelledTask(NamedTuple):
    """`texts`: columns of one text or two; `label`: column of the label, whose values are `labels`, none
    where it is a number between `bounds`; `metrics`: the first is the task's score; `train`: as in Split;
    `splits`: all others; `headless`: columns of files without a line of names, except for those of `named`;
    `picked`: beside an older name of the training file, a file of the two numbers of every pair that is not
    trained on; `broken_lines`: whether lines with too few columns are left out, as everybody does."""

    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    splits: tuple[Split, ...]
    train: tuple[str, ...] = ("train.tsv",)
    bounds: tuple[float, float] | None = None
    headless: tuple[str, ...] = ()
    named: tuple[str, ...] = ("test.tsv",)
    picked: str = ""
    broken_lines: bool = False


def _plain(name: str) -> tuple[Split, ...]:
    return Split("dev", ("dev.tsv",)), Split("test", ("test.tsv",), f"{name}.tsv")


BINARY, ENTAILMENT = ("0", "1"), ("entailment", "not_entailment")
BOTH = ("sentence1", "sentence2")
TASKS: dict[str, LabelledTask] = {
    "CoLA": LabelledTask(
        texts=("sentence",),
        label="label",
        labels=BINARY,
        metrics=("matthews", "accuracy"),
        splits=_plain("CoLA"),
        headless=("source", "label", "star", "sentence"),
    ),
    "SST-2": LabelledTask(("sentence",), "label", BINARY, ("accuracy",), _plain("SST-2")),
    "MRPC": LabelledTask(
        texts=("#1 String", "#2 String"),
        label="Quality",
        labels=BINARY,
        metrics=("accuracy", "f1"),
        train=("train.tsv", "msr_paraphrase_train.txt"),
        splits=(
            Split("dev", ("dev.tsv", "msr_paraphrase_train.txt")),
            Split("test", ("test.tsv", "msr_paraphrase_test.txt"), "MRPC.tsv"),
        ),
        picked="dev_ids.tsv",
    ),
    "STS-B": LabelledTask(BOTH, "score", (), ("spearman", "pearson"), _plain("STS-B"), bounds=(0.0, 5.0)),
    "QQP": LabelledTask(
        texts=("question1", "question2"),
        label="is_duplicate",
        labels=BINARY,
        metrics=("accuracy", "f1"),
        splits=_plain("QQP"),
        broken_lines=True,
    ),
    "MNLI": LabelledTask(
        texts=BOTH,
        label="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        splits=(
            Split(MATCHED, ("dev_matched.tsv",)),
            Split(MISMATCHED, ("dev_mismatched.tsv",)),
            Split("test_matched", ("test_matched.tsv",), "MNLI-m.tsv"),
            Split("test_mismatched", ("test_mismatched.tsv",), "MNLI-mm.tsv"),
        ),
    ),
    "QNLI": LabelledTask(("question", "sentence"), "label", ENTAILMENT, ("accuracy",), _plain("QNLI")),
    "RTE": LabelledTask(BOTH, "label", ENTAILMENT, ("accuracy",), _plain("RTE")),
    "WNLI": LabelledTask(BOTH, "label", BINARY, ("accuracy",), _plain("WNLI")),
}
assert tuple(TASKS) == GLUE

OWN_METRICS = {
    "classification": ("accuracy", "macro_f1", "matthews"),
    "regression": ("spearman", "pearson"),
}
