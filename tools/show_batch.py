"""What a step of a training run would draw: its lengths, its samples with their difficulties, and their text,
or the images with their classes."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from megatron.base.errors import UserError
from megatron.base.terminal import show
from megatron.batches.loader import BatchShare
from megatron.config.arguments import understand, unused_flags
from megatron.config.config import RULES, Config, Rule, complete
from megatron.config.flags import flag
from megatron.config.launch import rank_notes, unwrap
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.curriculum.analysis_folder import find_analysis, load_column, open_analyses
from megatron.curriculum.sampler import Sampler, draw_batch
from megatron.data.images import ImageCorpus
from megatron.data.tokenizer_files import tokenizer_of_data
from megatron.model.inputs import BertInputs, GPTInputs, ViTInputs
from megatron.schedule import data_efficiency_flags
from megatron.schedule.data_efficiency import RESHAPE, DataEfficiency
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan, Step
from megatron.schedule.plan_notes import plan_notes
from megatron.tasks.tasks import ABOUT, TASKS, task_of
from megatron.train.configure import with_model_of_checkpoint
from megatron.train.setup import Prepared, join

EXAMPLES = """\
  the flags of the run, the step, and the tokenizer that makes text of ids; without, that of the data
    python tools/show_batch.py --step 1000 \\
      --tokenizer-type HuggingFaceTokenizer --tokenizer-model tokenizer.json \\
      --data-path my_text_document --num-layers 4 --hidden-size 128 --num-attention-heads 4 ...

  of an encoder, what the model sees of its samples, and what it is to tell
    python tools/show_batch.py python pretrain_bert.py --data-path my_text_sentence ... --step 1000

  of a vision transformer, which images and classes they are
    python tools/show_batch.py python pretrain_vit.py --data-path pictures ... --step 1000

  a launch command as it stands; the batch does not depend on the number of ranks
    python tools/show_batch.py torchrun --nproc-per-node 8 pretrain_gpt.py --num-layers 24 ... --step 70000"""

Decode = Callable[[np.ndarray], str]
WIDTH = 180
"""Of what is no terminal: room for three columns of text."""
SECOND = ("follows", "does not follow")
"""What the second text of a pair does."""


@dataclass(frozen=True, kw_only=True)
class Options(Config):
    task: str | None = flag(None, ABOUT, choices=tuple(TASKS))
    step: int = flag(help="the step to show, from 1", at_least=1)
    rows: int = flag(8, "rows of the batch to show, from its first", at_least=1)
    characters: int = flag(240, "text of a row to show at most", at_least=1)
    data_parallel_size: int = flag(1, "ranks, where the batch size follows from them", at_least=1)


class Row(NamedTuple):
    """A row of the global batch, or an encoder's sample: its number, its corpus and sample, its ids, and the
    positions that the first dropping layer keeps, or None where nothing is dropped. `told`: places whose
    tokens are to be told, and these; `second`: what the second text is to the first one, in words."""

    number: int
    corpus: int
    sample: int
    tokens: np.ndarray
    kept: np.ndarray | None
    told: tuple[np.ndarray, np.ndarray] | None = None
    second: str = ""


def main(argv: list[str] | None = None) -> None:
    """Print the batch of the step that these flags ask for."""
    words = sys.argv[1:] if argv is None else argv
    of_ranks, argv = rank_notes(words), unwrap(words)
    values, problems = understand(Options, argv, __doc__ or "", EXAMPLES, FOREIGN_FLAGS)
    values, notes_of_model = with_model_of_checkpoint(values)
    problems += data_efficiency_flags.switched_off(values)
    task = task_of(words, values.get("task"), values)
    rules: tuple[Rule, ...] = (*RULES, *data_efficiency_flags.RULES, *task.rules)
    config: Options = complete(Options, task.given(values), problems, rules=rules)
    alone = dataclasses.replace(config.bert, bert_pack=False)  # where samples share rows, each is the same
    config = dataclasses.replace(config, bert=alone)
    efficiency, notes = describe(config)
    prepared = join(task, config, efficiency, task.open_data(config))
    plan, sampler = prepared.plan, prepared.sampler
    notes += notes_of_model + of_ranks + plan_notes(config, efficiency, plan)
    for note in [*unused_flags(Options, argv, FOREIGN_FLAGS), *notes]:
        print(f"note: {note}", file=sys.stderr)
    if config.step > plan.steps:
        raise UserError(f"--step {config.step} is past the run's {plan.steps} steps; lower it")
    step = plan.at(config.step)
    share = BatchShare(0, 1, config.training.micro_batch_size)
    made = prepared.rows.batch(sampler, step, share)
    every: Iterator[Row] = _rows(sampler, step, made, config, efficiency)
    architecture = prepared.task.architecture(config, 0)
    if architecture.pictures is not None:
        show(_step_table(plan, step, efficiency), _image_table(sampler, step, made, config, efficiency))
        return
    if architecture.encoder:
        every = iter(sorted(_samples(sampler, step, made), key=lambda row: row.number))
    rows = itertools.islice(every, config.rows)
    show(_step_table(plan, step, efficiency), _row_table(list(rows), prepared, config), elsewhere=WIDTH)


def _rows(
    sampler: Sampler, step: Step, made: list[GPTInputs], config: Options, efficiency: DataEfficiency
) -> Iterator[Row]:
    """The rows of the global batch, in order."""
    members, samples = draw_batch(sampler, step)
    micro = config.training.micro_batch_size
    for first, inputs in zip(range(0, step.batch_size, micro), made):
        origins = _origins(efficiency, config.data.seq_length, step.sequence_length, micro)
        for place, (number, origin) in enumerate(zip(inputs.rows.tolist(), origins)):
            sample = first + origin
            kept = inputs.kept[0, place].numpy() if inputs.kept is not None else None
            tokens = inputs.tokens[place].numpy()
            yield Row(number, int(members[sample]), int(samples[sample]), tokens, kept)


def _origins(efficiency: DataEfficiency, full: int, length: int, micro: int) -> list[int]:
    """Of every row of a micro-batch, the number of its sample there. Reshaping makes several rows of a
    sample; with --reference-schedules the tails of all samples come last, and may be left out."""
    if efficiency.length_metric != RESHAPE or length == full:
        return list(range(micro))
    if efficiency.reference_schedules:
        return np.repeat(np.arange(micro), (full + 1) // (length + 1)).tolist() + list(range(micro))
    return np.repeat(np.arange(micro), full // length).tolist()


def _samples(sampler: Sampler, step: Step, made: list[BertInputs]) -> Iterator[Row]:
    """The samples of an encoder's batch, each as far as its text goes."""
    members, samples = draw_batch(sampler, step)
    for inputs in made:
        rows, width = inputs.tokens.shape
        ends = np.full(rows, width) if inputs.ends is None else inputs.ends[:, 0].numpy()
        row_of, place = np.divmod(inputs.masked.numpy(), width)
        pairs = [""] * rows if inputs.pairs is None else [SECOND[one] for one in inputs.pairs.tolist()]
        for row, number in enumerate(inputs.rows.tolist()):
            tokens, mine = inputs.tokens[row, : ends[row]].numpy(), row_of == row
            kept = inputs.kept[0, row].numpy() if inputs.kept is not None else None
            yield Row(
                number,
                int(members[number]),
                int(samples[number]),
                tokens,
                kept if kept is None else kept[kept < len(tokens)],
                (place[mine], inputs.labels.numpy()[mine]),
                pairs[row],
            )


def _decoder(prepared: Prepared) -> Decode:
    """From ids to text, by the tokenizer of the flags or of the data; without one the ids themselves."""
    sidecars = [corpus.sidecar for corpus in prepared.sampler.corpora if corpus.sidecar]
    why = "no --tokenizer-type is given, and the data names no tokenizer"
    try:
        found = tokenizer_of_data(prepared.config.tokenizer, sidecars, prepared.data.vocabulary)
    except UserError as error:
        found, why = None, error.problems[0]
    if found is None:
        print(f"note: ids are shown, not text: {why}", file=sys.stderr)
        return lambda ids: " ".join(map(str, ids.tolist()))
    return found[0].decode


def _step_table(plan: Plan, step: Step, efficiency: DataEfficiency) -> Table:
    """What the plan says of the step."""
    table = Table(title=f"step {step.number:,} of {plan.steps:,}", title_justify="left", show_header=False)
    units = {one.name: " %" if one.difficulty == "percentile" else "" for one in efficiency.metrics}
    facts = {
        "samples": f"{step.batch_size:,}, after {step.drawn_before:,} in earlier steps",
        "rows": f"{step.rows:,} of {step.sequence_length:,} tokens",
        "learning rate": f"{step.learning_rate:.6g}",
        **{f"admitted {name}": f"up to {cap:,}{units[name]}" for name, cap in step.caps.items()},
    }
    if efficiency.random_ltd:
        layers = len(efficiency.dropping_layers)
        facts["random-LTD"] = f"{layers} layers compute {step.kept_length:,} tokens of a row"
    for name, text in facts.items():
        table.add_row(name, text)
    return table


def _row_table(rows: list[Row], prepared: Prepared, config: Options) -> Table:
    """One line a row: where it comes from, how difficult its sample is, and its text."""
    sampler, efficiency = prepared.sampler, prepared.efficiency
    decode, metrics = _decoder(prepared), [metric.name for metric in efficiency.metrics]
    analyses = open_analyses(efficiency.difficulty_paths if metrics else ())
    dropping, told = (any(getattr(row, name) is not None for row in rows) for name in ("kept", "told"))
    pairs = any(row.second for row in rows)
    alone = len(sampler.corpora) == 1  # and needs no column
    title = f"rows of {sampler.corpora[0].name}" if alone else "rows"
    table = Table(title=title, title_justify="left", show_lines=True)
    of_samples = ["tokens"] * told + ["second text"] * pairs
    words = ["text", *["to be told"] * told]
    for name in ("row", *(() if alone else ("corpus",)), "sample", *metrics, *of_samples):
        left = name in ("corpus", "second text")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for name in (*words, *([f"what layer {efficiency.dropping_layers[0]} computes"] if dropping else [])):
        table.add_column(name)
    for row in rows:
        corpus = sampler.corpora[row.corpus]
        columns = [
            load_column(find_analysis(analyses, corpus, name), name, corpus.windows) for name in metrics
        ]
        table.add_row(
            f"{row.number:,}",
            *(() if alone else (corpus.name,)),
            f"{row.sample:,}",
            *(f"{int(column[row.sample]):,}" for column in columns),
            *([f"{len(row.tokens):,}"] * told),
            *([row.second] * pairs),
            *(Text(text[: config.characters]) for text in _texts(row, decode, dropping)),
        )
    return table


def _image_table(
    sampler: Sampler, step: Step, made: list[ViTInputs], config: Options, efficiency: DataEfficiency
) -> Table:
    """One line an image: where it comes from, its class, and the patches that the first dropping layer
    computes."""
    table = Table(title="rows", title_justify="left", show_lines=True)
    for name in ("row", "corpus", "sample"):
        table.add_column(name, justify="left" if name == "corpus" else "right")
    for name in ("class", "image"):
        table.add_column(name)
    if any(inputs.kept is not None for inputs in made):
        table.add_column(f"what layer {efficiency.dropping_layers[0]} computes")
    for member, sample, row in itertools.islice(
        zip(*draw_batch(sampler, step), _kept_rows(made)), config.rows
    ):
        number, kept = row
        corpus = sampler.corpora[member]
        assert isinstance(corpus, ImageCorpus)
        name = corpus.images.name(int(corpus.order[sample]))
        words = [corpus.classes[corpus.labels[sample]], name, *_patches(kept)]
        table.add_row(f"{number:,}", corpus.name, f"{sample:,}", *map(Text, words))
    return table


def _kept_rows(made: list[ViTInputs]) -> Iterator[tuple[int, list[int] | None]]:
    """The numbers of all rows, and the positions kept of each, or None where nothing is dropped."""
    for inputs in made:
        for place, number in enumerate(inputs.rows.tolist()):
            yield number, inputs.kept[0, place].tolist() if inputs.kept is not None else None


def _patches(kept: list[int] | None) -> Iterator[str]:
    """Kept positions in words, of which 0 is [CLS]'s."""
    if kept is not None:
        first = ["[CLS]"] if kept[0] == 0 else []
        yield ", ".join([*first, *(str(position) for position in kept if position)])


def _texts(row: Row, decode: Decode, dropping: bool) -> Iterator[str]:
    """A row's text, what is to be told, and what is left of the text where some rows drop tokens."""
    yield decode(row.tokens)
    if row.told is not None:
        yield ", ".join(f"{place}: {decode(label[None])}" for place, label in zip(*row.told))
    if dropping:
        yield decode(row.tokens if row.kept is None else row.tokens[row.kept])


if __name__ == "__main__":
    run_command(main)
