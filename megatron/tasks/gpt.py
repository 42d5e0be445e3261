"""Pretraining a GPT: the next token of windows of a token stream."""

from functools import partial

import torch
from torch import Tensor, nn

from megatron.batches.gpt import RowFormat, make_batch, plain_batch
from megatron.batches.loader import Rows
from megatron.config.bert import of_gpt
from megatron.config.config import Config
from megatron.config.vision import of_text
from megatron.data.corpora import open_splits, require_samples
from megatron.data.vocabulary import Vocabulary, in_sentences, tell_vocabulary
from megatron.model.gpt import GPT, LM_LOSS
from megatron.model.inputs import GPTInputs
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh
from megatron.parallel.stages import Stage
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Step
from megatron.tasks.architecture import gpt_architecture, gpt_flops, mixture_of
from megatron.tasks.task import Data, Task


def open_data(config: Config) -> Data:
    """The corpora that the flags name, and their vocabulary."""
    splits = open_splits(config)
    require_samples(config, splits)
    corpora = [corpus for members in splits.values() for _, corpus in members]
    vocabulary, end = tell_vocabulary(config.tokenizer, corpora, config.data)
    return Data(splits, vocabulary, "\n".join([end, *in_sentences(corpora)]))


def make_rows(config: Config, efficiency: DataEfficiency, vocabulary: Vocabulary) -> Rows:
    """How windows become rows."""
    row_format = RowFormat(
        data=config.data,
        vocab_size=vocabulary.size,
        eod=vocabulary.eod,
        length_metric=efficiency.length_metric,
        reference_schedules=efficiency.reference_schedules,
        dropping=efficiency.dropping_layers,
        seed=config.training.seed,
    )
    return Rows(partial(make_batch, row_format=row_format), partial(plain_batch, row_format=row_format))


def build_model(
    config: Config,
    vocab_size: int,
    dropping: tuple[int, ...] = (),
    mesh: Mesh = ONE_RANK,
    stage: Stage | None = None,
) -> GPT:
    """The model, or a stage of it, its weights not yet filled."""
    return GPT(gpt_architecture(config, vocab_size), dropping, mesh, stage)


def known_counts(config: Config, step: Step) -> dict[str, int] | None:
    """Every token of every row counts, unless a mask says otherwise."""
    return None if config.data.eod_mask_loss else {LM_LOSS: step.rows * step.sequence_length}


def layer_losses(config: Config) -> dict[str, int]:
    """Those of layers with experts."""
    mixture = mixture_of(config)
    return {name: len(mixture.layers) for name, _ in mixture.losses} if mixture else {}


def token_weights(inputs: GPTInputs) -> Tensor:
    """1 for every token whose loss counts, else 0; float32 [B, T]."""
    labels = inputs.labels
    return torch.ones_like(labels, dtype=torch.float32) if inputs.loss_mask is None else inputs.loss_mask


def row_losses(
    model: nn.Module, inputs: GPTInputs, received: Tensor | None = None
) -> dict[str, Tensor] | Tensor:
    """Loss and tokens [rows, 2] of every row, as far as they are computed here; of a stage before the last,
    its hidden states."""
    assert isinstance(model, GPT)
    losses = model.token_losses(inputs, received)
    if not model.stage.last:
        return losses
    weights = model.seen(token_weights(inputs))
    return {LM_LOSS: torch.stack([part.double().sum(1) for part in (losses * weights, weights)], 1)}


GPT_TASK = Task(
    name="gpt",
    open_data=open_data,
    open_splits=open_splits,
    make_rows=make_rows,
    build_model=build_model,
    losses=lambda config: {LM_LOSS: GPTInputs.loss_tokens},
    known_counts=known_counts,
    measures=lambda config: (LM_LOSS,),
    row_losses=row_losses,
    row_flops=gpt_flops,
    architecture=gpt_architecture,
    layer_losses=layer_losses,
    rules=(of_gpt, of_text),
)
