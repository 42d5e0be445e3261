"""Finetuning as a task of the engine: rows of labelled texts, and an encoder with a head for their labels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from megatron.batches.loader import Rows
from megatron.config.config import Config
from megatron.finetuning.rows import make_batch, plain_batch
from megatron.model.classifier import TASK_LOSS, Classifier, row_losses
from megatron.model.inputs import ClassifierInputs
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh
from megatron.parallel.stages import Stage
from megatron.tasks.architecture import bert_architecture, bert_flops
from megatron.tasks.task import Data, Task

ACCURACY = "task accuracy"


def finetuning_task(outputs: int, open_data: Callable[[Config], Data]) -> Task:
    """The task of telling one of so many classes, or of one output a value."""
    told = (TASK_LOSS, ACCURACY) if outputs > 1 else (TASK_LOSS,)

    def build_model(
        config: Config,
        vocab_size: int,
        dropping: tuple[int, ...] = (),
        mesh: Mesh = ONE_RANK,
        stage: Stage | None = None,
    ) -> Classifier:
        return Classifier(
            bert_architecture(config, vocab_size), outputs, config.bert.classifier_head, mesh, stage
        )

    return Task(
        name="finetune",
        open_data=open_data,
        open_splits=lambda config: open_data(config).splits,
        make_rows=lambda config, efficiency, vocabulary: Rows(make_batch, plain_batch),
        build_model=build_model,
        losses=lambda config: {TASK_LOSS: lambda inputs: len(inputs.tokens)},
        known_counts=lambda config, step: {TASK_LOSS: step.batch_size},
        measures=lambda config: told,
        row_losses=measured_rows,
        row_flops=lambda config, efficiency, vocab_size: bert_flops(config, efficiency, 0),
        architecture=bert_architecture,
        layer_losses=lambda config: {},
        goes_on=False,
    )


def measured_rows(model: nn.Module, inputs: ClassifierInputs, received: Tensor | None = None) -> Any:
    """Loss and right answers with their counts [rows, 2] of every row, nothing dropped."""
    assert isinstance(model, Classifier) and inputs.labels is not None
    logits = model.logits(inputs)
    right = logits.argmax(1) == inputs.labels
    parts = {TASK_LOSS: row_losses(logits, inputs).double(), ACCURACY: right.double()}
    return {name: torch.stack([part, torch.ones_like(part)], 1) for name, part in parts.items()}
