"""From a command line to a finetuning run: its encoder, its examples and its configuration, all checked."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.errors import UserError, collect_problems
from megatron.config import finetuning
from megatron.config.arguments import understand
from megatron.config.config import RULES, Config, complete
from megatron.config.finetuning import (
    OWN,
    FinetuneFlags,
    FinetuningConfig,
    of_positions,
    of_skipping,
    refused,
    with_defaults,
)
from megatron.config.flags import flags_of
from megatron.config.foreign import Foreign
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.vocabulary import few_tokens
from megatron.data.wordpiece import tokens_of
from megatron.finetuning.examples import Examples, classes_of, picked_lines, read_examples
from megatron.finetuning.rows import ExampleCorpus, encode
from megatron.finetuning.source import Source, open_source
from megatron.finetuning.tasks import OWN_METRICS, TASKS, LabelledTask, Split
from megatron.train.configure import count_replicas

TRAIN = "train"
OF_THE_MODEL = ("seq_length", "hidden_dropout", "attention_dropout", "attention_backend", "classifier_head")
"""Flags of finetuning that stand for the checkpoint's own."""
OF_NUMBERS = ("model", "bert", "training", "optimizer")
"""Groups of flags that change what a run comes to."""
OTHER_WORDS = {
    "pretrained-checkpoint": Foreign((), "the encoder to begin with is named by --load"),
    **dict.fromkeys(
        ("train-data", "valid-data"),
        Foreign(
            (), "give --data-path for a task of GLUE, or --train-file and --valid-file for files of your own"
        ),
    ),
}
"""Flags of Megatron-LM's tasks/main.py."""
MOST_UNKNOWN = 0.9
"""Of the training texts' tokens, where a tokenizer knows so little of them that it must be another's."""
STOPS = tuple(f"train_{unit}" for unit in finetuning.UNITS)
FREE_ELSEWHERE = (*STOPS, "classifier_head")
"""Flags that change it here, and that pretraining may resume with otherwise."""


@dataclass(frozen=True)
class _OwnFlags:
    finetuning: FinetuningConfig


@dataclass(frozen=True)
class Job:
    """A finetuning run before its ranks meet. `files`: the examples of "train" and of every split that is
    there; `corpora`: these as rows."""

    flags: FinetuningConfig
    config: Config
    source: Source
    task: LabelledTask
    files: dict[str, Examples]
    corpora: dict[str, ExampleCorpus]

    smaller_is_better = False
    """Whether of a task's score the least is the best."""

    @property
    def save(self) -> str:
        return self.flags.save

    @property
    def load(self) -> str:
        return self.flags.load

    @property
    def shared_words(self) -> list[str]:
        """What all runs of a sweep are given."""
        return []

    @property
    def outputs(self) -> int:
        return len(self.task.labels) or 1

    @property
    def answers(self) -> tuple[str, ...]:
        """What the outputs mean: the task, and its classes in order."""
        return (self.flags.task, *self.task.labels)

    def with_rate(self, rate: float, seed: int) -> "Job":
        """The same with another learning rate and seed."""
        config = dataclasses.replace(
            self.config,
            optimizer=dataclasses.replace(self.config.optimizer, lr=rate),
            training=dataclasses.replace(self.config.training, seed=seed),
            data_efficiency=dataclasses.replace(self.config.data_efficiency, data_efficiency_seed=seed),
        )
        return dataclasses.replace(self, config=config)

    def describe(self) -> dict[str, Any]:
        """What two runs have in common that come to the same results, as JSON gives it back."""
        return {
            "task": self.flags.task,
            "columns": [*self.task.texts, self.task.label],
            "labels": list(self.task.labels),
            "encoder": self.source.fingerprint,
            "random_init": self.flags.random_init,
            **({"skip_train": True} if self.config.training.skip_train else {}),
            "tokenizer": self.source.tokenizer.identity(),
            "seq_length": self.config.data.seq_length,
            "flags": {
                one.name: getattr(getattr(self.config, one.group), one.name)
                for one in flags_of(Config)
                if one.group in OF_NUMBERS
                and (one.field.metadata["resume"] != "free" or one.name in FREE_ELSEWHERE)
            },
            "data": {name: corpus.source for name, corpus in self.corpora.items()},
        }


def read_job(argv: list[str], description: str, examples: str) -> Job:
    """The run of a command line. UserError with every problem of its flags, or of its files."""
    values, problems = understand(FinetuneFlags, argv, description, examples, OTHER_WORDS)
    values, more = refused(values)
    problems += [*more, *of_skipping(values)]
    problems, replicas = count_replicas(values, problems)
    given: dict[str, Any] = with_defaults(values, replicas)
    if not _stops(values):
        given["train_samples"] = 1  # until the examples are counted
    flags, source = FinetuningConfig("", "", ""), None
    told: list[str] = []
    with collect_problems(told):
        flags = complete(_OwnFlags, given, problems, None, finetuning.RULES).finetuning
    if given.get("load"):
        with collect_problems(told):
            source = open_source(given["load"], given.get("ckpt_step"), _tokenizer_options(given))
    if source is not None and (long := of_positions(given, positions_of(source))):
        told += long
        given["seq_length"] = None
    config = complete(Config, _values(given, source), told, replicas, RULES)
    assert source is not None
    known = source.classes_of(flags.task) if config.training.skip_train else ()
    task, files = _read_files(flags, known)
    marks, typed, most = tokens_of(source.tokenizer), bool(config.sentences.pair), config.data.seq_length
    corpora = {name: encode(one, source.tokenizer, marks, most, typed) for name, one in files.items()}
    if (share := unknown_share(corpora[TRAIN], source)) > MOST_UNKNOWN:
        raise UserError(
            f"--load {flags.load}: to its tokenizer of {source.tokenizer.vocab_size:,} tokens {share:.0%} of "
            f"the training texts are [UNK], and the model has {source.vocabulary.size:,}; bring the model's "
            "own vocabulary there, or name its tokenizer by --tokenizer-type and its files"
        )
    if not _stops(values):
        samples = max(round(flags.epochs * corpora[TRAIN].windows), 1)
        training = dataclasses.replace(config.training, train_samples=samples)
        config = dataclasses.replace(config, training=training)
    return Job(flags, config, source, task, files, corpora)


def _stops(values: dict[str, Any]) -> bool:
    return any(values.get(name) is not None for name in STOPS)


def _tokenizer_options(values: dict[str, Any]) -> TokenizerOptions:
    names = {field.name for field in dataclasses.fields(TokenizerOptions)}
    return TokenizerOptions(**{name: value for name, value in values.items() if name in names})


def _values(given: dict[str, Any], source: Source | None) -> dict[str, Any]:
    """The values of a training run's flags: of the checkpoint, and of the command line. Those of an encoder
    that could not be read are unknown."""
    mine = {field.name for field in dataclasses.fields(FinetuningConfig)}
    found = {name: value for name, value in given.items() if name not in mine or name in OF_THE_MODEL}
    found.setdefault("metrics_file", str(Path(given.get("save") or "") / "metrics.jsonl"))
    if given.get("skip_train"):
        found["load"] = given.get("load")
    found["data_path"] = (given.get("data_path") or given.get("train_file") or "",)
    if given.get("save_model"):
        found["save"] = str(Path(given.get("save") or "") / "model")
    if source is None:
        return dict.fromkeys(("num_layers", "hidden_size", "num_attention_heads", "seq_length")) | found
    options = {name: value for name, value in vars(source.options).items() if value not in (None, ())}
    flags = {name: value for name, value in source.flags.items() if value is not None}
    return flags | found | options


def _read_files(
    flags: FinetuningConfig, known: tuple[str, ...] = ()
) -> tuple[LabelledTask, dict[str, Examples]]:
    """The task and the examples of its files. UserError tells of all files."""
    task = own_task(flags, known) if flags.task in OWN else TASKS[flags.task]
    folder = Path(flags.data_path or "")
    if flags.data_path and not folder.is_dir():
        raise UserError(f"--data-path {folder}: is no folder; name the one with the files of {flags.task}")
    if (
        flags.data_path
        and (folder / flags.task).is_dir()
        and not _first(folder, Split(TRAIN, task.train)).is_file()
    ):
        raise UserError(
            f"--data-path {folder}: holds no {task.train[0]}; give {folder / flags.task}, which is a folder"
        )
    train, picked = _first(folder, Split(TRAIN, task.train)), None
    if task.picked and train.name == task.train[-1]:
        picked = picked_lines(train, folder / task.picked, task)
    problems: list[str] = []
    files: dict[str, Examples] = {}
    for split in (Split(TRAIN, task.train), *task.splits):
        if split.submission and not any((folder / name).is_file() for name in split.files):
            continue
        with collect_problems(problems):
            path = _first(folder, split)
            keep = picked[split.name != TRAIN] if picked and path == train else None
            files[split.name] = read_examples(path, task, not split.name.startswith("test"), keep)
    if problems:
        raise UserError(*problems)
    return task, files


def _first(folder: Path, split: Split) -> Path:
    """The first of the files that is there; of none the first, which reading then misses."""
    paths = [folder / name for name in split.files]
    return next((path for path in paths if path.is_file()), paths[0])


def own_task(flags: FinetuningConfig, known: tuple[str, ...] = ()) -> LabelledTask:
    """The task of files of the user's own, whose training file says which labels there are; `known`: the
    classes of a model that is measured as it is, of which the file may lack some."""
    texts = tuple(filter(None, (flags.text_column, flags.second_text_column)))
    named = {"dev": flags.valid_file, "test": flags.test_file}
    splits = tuple(Split(name, (path,)) for name, path in named.items() if path)
    train = flags.train_file or ""
    task = LabelledTask(texts, flags.label_column, (), OWN_METRICS[flags.task], splits, (train,))
    if flags.task == "regression":
        return task
    found = classes_of(Path(train), task, least=1 if known else 2)
    here = {one.casefold(): one for one in found}
    if here.keys() < {one.casefold() for one in known}:
        return task._replace(labels=tuple(here.get(one.casefold(), one) for one in known))
    return task._replace(labels=found)


def positions_of(source: Source) -> int | None:
    """How many positions a model has learned; None where they are no table."""
    learned = source.flags.get("position_embedding_type") in (None, "learned_absolute")
    return source.flags.get("max_position_embeddings") if learned else None


def unknown_share(corpus: ExampleCorpus, source: Source) -> float:
    """The share of [UNK] among the tokens of texts."""
    unknown = np.count_nonzero(corpus.tokens == _unknown(source.tokenizer.vocabulary))
    marks = corpus.windows + corpus.texts  # [CLS] of a row, and [SEP] behind each of its texts
    return float(unknown) / max(len(corpus.tokens) - marks, 1)


def _unknown(vocabulary: Mapping[str, int]) -> int:
    """The id of what is none of a vocabulary's tokens; -1 where it has none."""
    return next((vocabulary[name] for name in ("[UNK]", "<unk>") if name in vocabulary), -1)


def tokens_notes(job: Job) -> list[str]:
    """What lets a wrong tokenizer be seen: tokens of the model that it lacks, and what it does not know."""
    mine, models = job.source.tokenizer.vocab_size, job.source.vocabulary.size
    share = unknown_share(job.corpora[TRAIN], job.source)
    notes = [f"note: {line}" for line in few_tokens(mine, models)]
    if share:
        notes.append(f"{share:.2%} of the tokens of the training texts are [UNK]")
    return notes


def lengths_note(job: Job) -> str:
    """How many rows may be cut; "" where none is."""
    most, parts = job.config.data.seq_length, []
    for name, corpus in job.corpora.items():
        if full := int(np.count_nonzero(corpus.lengths == most)):
            rows = "training" if name == TRAIN else name
            parts.append(f"{full:,} of {corpus.windows:,} {rows} rows")
    return f"{', '.join(parts)} have all {most} tokens, and may be cut" if parts else ""
