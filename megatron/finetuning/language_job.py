"""From a command line to a run of language modelling: its GPT, its texts and its configuration, checked."""

import dataclasses
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from megatron.base.errors import UserError, collect_problems
from megatron.batches.loader import Rows
from megatron.checkpoint.load import find_checkpoint
from megatron.config import language_model
from megatron.config.arguments import understand, unused_flags
from megatron.config.config import RULES, Config, Rule, TokenizerOptions, complete
from megatron.config.finetuning import LM, of_positions
from megatron.config.flags import flags_of, spelling
from megatron.config.language_model import BATCH, RATE, LanguageModelConfig, LanguageModelFlags
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.config.scale import scale_notes
from megatron.config.training import UNITS
from megatron.data.corpora import open_splits, require_samples
from megatron.data.vocabulary import Vocabulary, few_tokens
from megatron.finetuning.base_model import Base, open_base
from megatron.finetuning.text_files import count_tokens, open_text, tokenized, with_ends
from megatron.schedule import data_efficiency_flags
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.tasks.gpt import GPT_TASK, make_rows
from megatron.tasks.task import Data, Task
from megatron.train.configure import count_replicas, model_of_checkpoint

STOPS = tuple(f"train_{unit}" for unit in UNITS)
OF_DROPOUT = ("hidden_dropout", "attention_dropout")
"""Flags that stand for the checkpoint's own."""
OF_NUMBERS = ("model", "training", "optimizer", "data_efficiency", "experts")
"""Groups of flags that change what a run comes to."""
OF_DATA = ("seq_length", "eod_mask_loss", "reset_position_ids", "reset_attention_mask")


@dataclass(frozen=True)
class _OwnFlags:
    finetuning: LanguageModelConfig


@dataclass(frozen=True)
class LanguageJob:
    """A run of language modelling before its ranks meet. `load`: as it is given; `files`, `prefixes`: by
    split, the texts and their tokens; `steps_of_epoch`: in which every block of the training text is drawn
    once; `whole`: every validation scores all of its text."""

    flags: LanguageModelConfig
    config: Config
    base: Base
    load: str
    files: dict[str, str]
    prefixes: dict[str, str]
    steps_of_epoch: int
    whole: bool
    cache: Path
    notes: tuple[str, ...] = ()

    smaller_is_better = True

    @property
    def save(self) -> str:
        return self.config.checkpoint.save or ""

    @property
    def shared_words(self) -> list[str]:
        """What all runs of a sweep are given."""
        return [f"--cache={self.cache}"]

    def with_rate(self, rate: float, seed: int) -> "LanguageJob":
        """The same with another learning rate and seed."""
        efficiency, old = self.config.data_efficiency, self.config.training.seed
        if efficiency.data_efficiency_seed == old:
            efficiency = dataclasses.replace(efficiency, data_efficiency_seed=seed)
        config = dataclasses.replace(
            self.config,
            optimizer=dataclasses.replace(self.config.optimizer, lr=rate),
            training=dataclasses.replace(self.config.training, seed=seed),
            data_efficiency=efficiency,
        )
        return dataclasses.replace(self, config=config)

    def describe(self) -> dict[str, Any]:
        """What two runs have in common that come to the same results, as JSON gives it back."""
        found = {
            "task": self.flags.task,
            "base": self.base.fingerprint,
            "random_init": self.flags.random_init,
            "tokenizer": self.base.tokenizer.identity(),
            "data": {split: Path(prefix).name for split, prefix in self.prefixes.items()},
            "flags": {
                one.name: getattr(getattr(self.config, one.group), one.name)
                for one in flags_of(Config)
                if one.name in (*STOPS, *OF_DATA)
                or (one.group in OF_NUMBERS and one.field.metadata["resume"] != "free")
            },
        }
        return dict(json.loads(json.dumps(found)))


def is_language(argv: list[str]) -> bool:
    """Whether a command line asks for language modelling, in whatever case."""
    words = [word.lower() for word in argv]
    return f"--task={LM}" in words or ("--task", LM) in pairwise(words)


def read_language_job(argv: list[str], description: str, examples: str) -> LanguageJob:
    """The run of a command line. UserError with every problem of its flags, or of its files."""
    values, problems = understand(LanguageModelFlags, argv, description, examples, FOREIGN_FLAGS)
    problems, replicas = count_replicas(values, problems + data_efficiency_flags.switched_off(values))
    own = [field.name for field in dataclasses.fields(LanguageModelConfig)]
    given = {name: value for name, value in values.items() if name not in own}
    problems += [f"{spelling(name)} is required" for name in ("load", "save") if not given.get(name)]
    if given.get("eval_iters") == 0:
        problems.append("--eval-iters 0: leaves no perplexity to tell; leave it out, and all text is scored")
    flags = complete(_OwnFlags, values, problems, None, language_model.RULES).finetuning
    save = Path(given["save"])
    cache = Path(flags.cache) if flags.cache else save.parent / "cache"
    base = open_base(given["load"], given.get("ckpt_step"), _tokenizer_options(given), cache)
    prefixes = _tokens(flags, base, cache)
    given, notes = _values(given, flags, base, replicas)
    if long := of_positions(given, _positions(base)):
        raise UserError(*problems, *long)
    given |= {f"{split}_data_path": (prefix,) for split, prefix in prefixes.items()}
    blocks = _blocks(prefixes["train"], given)
    steps_of_epoch = -(-blocks // int(given["global_batch_size"]))
    whole = "eval_iters" not in given
    if "epochs" in values or not any(given.get(name) for name in STOPS):
        notes += _set_length(given, flags.epochs, steps_of_epoch)
    given.setdefault("eval_interval", steps_of_epoch)
    given.setdefault("eval_iters", _every_batch(prefixes, given))
    rules: tuple[Rule, ...] = (*RULES, *data_efficiency_flags.RULES, *GPT_TASK.rules)
    config = complete(Config, GPT_TASK.given(given), problems, replicas, rules)
    notes += [*scale_notes(LanguageModelFlags, argv, FOREIGN_FLAGS)]
    notes += unused_flags(LanguageModelFlags, argv, FOREIGN_FLAGS)
    notes += few_tokens(base.tokenizer.vocab_size, base.vocabulary.size)
    files, load = _files(flags), values["load"]
    return LanguageJob(flags, config, base, load, files, prefixes, steps_of_epoch, whole, cache, tuple(notes))


def language_task(vocabulary: Vocabulary) -> Task:
    """Pretraining a GPT, where all of a held-out text is scored."""

    def open_data(config: Config) -> Data:
        splits = open_splits(config, open_text(config.data.seq_length))
        require_samples(config, splits)
        return Data(splits, vocabulary)

    def rows(config: Config, efficiency: DataEfficiency, vocabulary: Vocabulary) -> Rows:
        return with_ends(make_rows(config, efficiency, vocabulary))

    return dataclasses.replace(GPT_TASK, open_data=open_data, make_rows=rows, by_itself=True)


def _files(flags: LanguageModelConfig) -> dict[str, str]:
    files = {"train": flags.train_file, "valid": flags.valid_file, "test": flags.test_file}
    return {split: path for split, path in files.items() if path}


def _tokens(flags: LanguageModelConfig, base: Base, cache: Path) -> dict[str, str]:
    """The tokens of every file. UserError tells of all files."""
    problems: list[str] = []
    found = {}
    for split, path in _files(flags).items():
        with collect_problems(problems):
            found[split] = tokenized(path, base.tokenizer, base.options, cache)
    if problems:
        raise UserError(*problems)
    return found


def _tokenizer_options(values: dict[str, Any]) -> TokenizerOptions:
    names = {field.name for field in dataclasses.fields(TokenizerOptions)}
    return TokenizerOptions(**{name: value for name, value in values.items() if name in names})


def _values(
    given: dict[str, Any], flags: LanguageModelConfig, base: Base, replicas: int
) -> tuple[dict[str, Any], list[str]]:
    """The values of the flags of pretraining: those given, those of the checkpoint, and where the run begins
    or goes on; notes for the user."""
    found = given | {"load": base.root, "ckpt_step": base.step, "use_checkpoint_args": True}
    model, notes = model_of_checkpoint(found, OF_DROPOUT)
    found |= {name: value for name, value in model.items() if value is not None}
    found |= {name: value for name, value in vars(base.options).items() if value not in (None, ())}
    found.setdefault("seq_length", base.config.data.seq_length)
    found.setdefault("lr", RATE)
    found.setdefault("global_batch_size", found.get("micro_batch_size", 0) * replicas or BATCH)
    found.setdefault("micro_batch_size", max(int(found["global_batch_size"]) // replicas, 1))
    goes_on = find_checkpoint(given["save"], None, tell=lambda _: None) is not None
    found["finetune"] = not goes_on and not flags.random_init
    if goes_on:
        found |= {"load": given["save"], "ckpt_step": None}
    elif flags.random_init:
        found |= {"load": given["save"], "ckpt_step": None, "use_checkpoint_args": False}
    if not given.get("skip_train"):
        found.setdefault("metrics_file", str(Path(given["save"]) / "metrics.jsonl"))
    return {name: value for name, value in found.items() if value is not None}, notes


def _positions(base: Base) -> int | None:
    """How many positions a model has learned; None where they are no table."""
    model = base.config.model
    learned = model.position_embedding_type == "learned_absolute"
    return model.max_position_embeddings if learned else None


def _blocks(prefix: str, given: dict[str, Any]) -> int:
    """Whole blocks of the training text. UserError where there is none."""
    tokens, length = count_tokens(prefix), int(given["seq_length"])
    if tokens <= length:
        raise UserError(
            f"--train-file: has {tokens:,} tokens, and a block needs {length + 1:,}; give more text, or a "
            "smaller --seq-length"
        )
    return (tokens - 1) // length


def _set_length(given: dict[str, Any], epochs: float, steps_of_epoch: int) -> list[str]:
    """Stop after as many effective tokens as so many epochs have; a note where that replaces a flag."""
    left_out = [name for name in STOPS if given.pop(name, None)]
    steps = max(round(epochs * steps_of_epoch), 1)
    given["train_tokens"] = steps * int(given["global_batch_size"]) * int(given["seq_length"])
    why = f"--num-train-epochs {epochs:g} says how long the run is, so left out: "
    return [why + ", ".join(map(spelling, left_out))] if left_out else []


def _every_batch(prefixes: dict[str, str], given: dict[str, Any]) -> int:
    """Global batches in which every held-out text fits."""
    held_out = [count_tokens(prefix) - 1 for split, prefix in prefixes.items() if split != "train"]
    return max(-(-max(held_out) // (int(given["seq_length"]) * int(given["global_batch_size"]))), 1)
