"""What a finetuned model tells of examples: logits of all rows, predictions, and files of them as GLUE's
server takes them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from megatron.base.files import whole_folder
from megatron.evaluation.losses import evaluating
from megatron.finetuning.examples import Examples
from megatron.finetuning.rows import ExampleCorpus, rows_of
from megatron.finetuning.tasks import LabelledTask
from megatron.model.classifier import Classifier
from megatron.model.inputs import to_device
from megatron.parallel.mesh import Mesh, sum_over
from megatron.parallel.slices import slices_of


def all_logits(
    model: Classifier, corpus: ExampleCorpus, outputs: int, micro_batch_size: int, mesh: Mesh
) -> np.ndarray:
    """Logits of every row, float64 [rows, outputs], on all ranks. Rows of like length go together, and the
    ranks share them; a rank without any computes others for nothing, as it may hold a part of the weights."""
    found = torch.zeros((corpus.windows, outputs), dtype=torch.float64, device=mesh.device)
    order, size = np.argsort(corpus.lengths, kind="stable"), micro_batch_size
    with evaluating(model):
        for start in range(0, corpus.windows, size * mesh.data.size):
            first = start + mesh.data.rank * size
            mine = order[first : first + size]
            part = mine if len(mine) else order[:1]
            inputs = rows_of(corpus, part, 0, int(corpus.lengths[part].max()), slices_of(mesh))
            logits = model.logits(to_device(inputs, mesh.device)).double()
            if len(mine) and mesh.tensor.rank == 0:  # its other ranks have the same
                found[torch.from_numpy(mine).to(mesh.device)] = logits
    return sum_over(found, mesh.world).cpu().numpy()


def predictions_of(logits: np.ndarray, task: LabelledTask) -> np.ndarray:
    """Numbers of classes, or values within the task's bounds [rows]."""
    if task.labels:
        return logits.argmax(1)
    return np.clip(logits[:, 0], *(task.bounds or (-np.inf, np.inf)))


def write_predictions(
    folder: Path, task: LabelledTask, files: dict[str, Examples], told: dict[str, np.ndarray]
) -> None:
    """A TSV file a split, all or none, under the name that GLUE's server knows or that of the split."""
    names = {split.name: split.submission or f"{split.name}.tsv" for split in task.splits}
    with whole_folder(folder) as place:
        for split, values in told.items():
            lines = "\n".join(_lines(task, files[split], values))
            (place / names[split]).write_text(lines + "\n", encoding="utf-8")


def _lines(task: LabelledTask, examples: Examples, told: np.ndarray) -> Iterator[str]:
    yield "index\tprediction"
    for name, value in zip(examples.names, told):
        cell = task.labels[int(value)] if task.labels else format(float(value), ".3f")
        yield f"{_cell(name)}\t{_cell(cell)}"


def _cell(text: str) -> str:
    """JSON may have tabs and line ends where a TSV has no room for them."""
    return " ".join(text.split())
