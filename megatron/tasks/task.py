"""What is trained, as one value: everything in which a GPT, a BERT and a ViT differ."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from megatron.batches.loader import Rows
from megatron.config.config import Config, Rule
from megatron.data.corpora import Splits
from megatron.data.vocabulary import Vocabulary
from megatron.model.architecture import Architecture
from megatron.parallel.stages import StageModule
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import RowFlops, Step


class Data(NamedTuple):
    """The corpora of every split, and the vocabulary of them all. `note`: what is told of them before the
    run, such as what ends a document."""

    splits: Splits
    vocabulary: Vocabulary
    note: str = ""


@dataclass(frozen=True)
class Task:
    """The functions of a task.

    `open_data`: the corpora that the flags name and their vocabulary, for training, which needs some of them;
    `open_splits`: the corpora alone, whatever of them is there.

    Its model, or a stage of it, gives `forward(inputs, step_key, scales, received)`: losses by name, each its
    scale · a sum; before the last stage hidden states of `received_shape`, which the next stage has received.
    Its parameters are made by `add_parameter`. `build_model`: from the configuration, the vocabulary's size,
    the dropping layers, the mesh and the stage (one rank, and the whole model, where they are left out).

    `losses`: for every loss of the model by Megatron's name, how many items of a micro-batch it is a sum
    over; each loss is divided by its own count over the global batch. `known_counts`: these counts of a
    whole step where the plan alone says them, else None. `measures`: what evaluation tells, the losses
    first; `row_losses`: sum and count [rows, 2] of each for every row, float64, nothing dropped, or hidden
    states like `forward`. `rules`: what is wrong with flags for this task; `given`: the values of flags that
    are given, with those that follow from them in this task alone.
    `goes_on`: a stopped run goes on from its last checkpoint; `by_itself`: without a change of its command.
    `row_flops`: what a row costs; `architecture`: the plain values that the model is built from, by which its
    layouts are priced; both from the configuration and the vocabulary's size. `layer_losses`: losses that
    layers add by themselves, by name, and how many layers do; the model's `tally` has their sums over
    rows."""

    name: str
    open_data: Callable[[Config], Data]
    open_splits: Callable[[Config], Splits]
    make_rows: Callable[[Config, DataEfficiency, Vocabulary], Rows]
    build_model: Callable[..., StageModule]
    losses: Callable[[Config], Mapping[str, Callable[[Any], int]]]
    known_counts: Callable[[Config, Step], dict[str, int] | None]
    measures: Callable[[Config], tuple[str, ...]]
    row_losses: Callable[..., Any]
    row_flops: Callable[[Config, DataEfficiency, int], RowFlops]
    architecture: Callable[[Config, int], Architecture]
    layer_losses: Callable[[Config], Mapping[str, int]]
    rules: tuple[Rule, ...] = ()
    given: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values
    goes_on: bool = True
    by_itself: bool = False
