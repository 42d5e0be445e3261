"""A model of another program written as a checkpoint of ours, tensor by tensor."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from megatron.base.errors import UserError
from megatron.base.files import whole_folder
from megatron.checkpoint.load import Box, boxes_of
from megatron.checkpoint.manifest import FileEntry, Manifest, Part, TensorEntry, as_read, write_manifest
from megatron.checkpoint.save import LATEST, folder_of
from megatron.checkpoint.tensor_file import write_parts
from megatron.config import bert, experts, model, parallel
from megatron.config.config import Config, Rule, TokenizerOptions, complete
from megatron.conversion.folder import Like
from megatron.conversion.origins import Origin, Shape, take, taken_shape
from megatron.data.tokenizer_files import keep_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Axis, Mesh
from megatron.parallel.placement import placements
from megatron.parallel.stages import stages_of

PADDED = ("word_embeddings.weight", "output_layer.weight", "token_head.bias")
"""Tensors with a row for every token, and zeros for tokens that there are not."""
OF_A_RUN = {"micro_batch_size": 1, "lr": 0.0}
"""What every configuration must have, and says nothing of a model."""
SHAPE_RULES = (*model.RULES, *parallel.RULES, *experts.RULES, *bert.RULES)
Read = Callable[[str], Tensor]


class Source(NamedTuple):
    """A model before it is read. `flags`: of its shape, by our names; `vocab_size`: rows of its tables, of
    which with `padded` some may be no tokens; `origins`: of every tensor of ours; `tensors`: types and shapes
    of theirs; `reader`: opens them to be read by name; `classes`: of a
    classifier."""

    path: Path
    task: str
    flags: dict[str, Any]
    vocab_size: int
    origins: dict[str, Origin]
    tensors: Mapping[str, Like]
    reader: Callable[[], AbstractContextManager[Read]]
    padded: bool = False
    classes: tuple[str, ...] = ()

    @property
    def used(self) -> list[Like]:
        """The tensors of theirs that are read."""
        names = {name for one in self.origins.values() for name in one.names}
        return [self.tensors[name] for name in sorted(names)]

    @property
    def parameters(self) -> int:
        return sum(math.prod(one.shape) for one in self.used)

    @property
    def bytes(self) -> int:
        return sum(one.dtype.itemsize * math.prod(one.shape) for one in self.used)


class Target(NamedTuple):
    """A checkpoint that is to be written: its flags, its vocabulary, the tokenizer that is kept with it, and
    how many ranks of each kind write files."""

    config: Config
    vocabulary: Vocabulary
    tokenizer: TokenizerOptions | None
    tensor: int = 1
    pipeline: int = 1


def configuration(
    source: Source,
    given: Callable[[dict[str, Any]], dict[str, Any]],
    rules: Iterable[Rule],
    tensor: int,
    pipeline: int,
) -> Config:
    """The flags of the model. `given`, `rules`: as its task has them. UserError where it cannot be cut for
    these ranks."""
    layout = {"tensor_model_parallel_size": tensor, "pipeline_model_parallel_size": pipeline}
    try:
        found: Config = complete(
            Config, given(OF_A_RUN | source.flags | layout), (), 1, (*SHAPE_RULES, *rules)
        )
    except UserError as error:
        raise UserError(*(_of_a_given_model(source, problem) for problem in error.problems)) from None
    return found


def _of_a_given_model(source: Source, problem: str) -> str:
    """What the rules of training say of a model whose shape cannot be changed, by the flags of conversion."""
    fact = told = problem.partition("; ")[0]
    for axis in ("tensor", "pipeline"):
        fact = fact.replace(f"--{axis}-model-parallel-size", f"--target-{axis}-parallel-size")
    way = "bring the files of one model" if fact == told else "give another number of ranks, such as 1"
    return f"{source.path}: {fact}; {way}"


def vocabulary_of(source: Source, tokenizer: Tokenizer) -> Vocabulary:
    """The tokens of the model. UserError where the tokenizer has more of them."""
    if tokenizer.vocab_size > source.vocab_size:
        raise UserError(
            f"{source.path}: the tokenizer has {tokenizer.vocab_size:,} tokens, and the model "
            f"{source.vocab_size:,}; bring the files of one model"
        )
    size = tokenizer.vocab_size if source.padded else source.vocab_size
    return Vocabulary(size, tokenizer.eod, tokenizer.identity())


def write_ours(
    source: Source,
    save: Path,
    target: Target,
    build_model: Callable[..., nn.Module],
    advance: Callable[[int], None] = lambda size: None,
    check: Callable[[Path], None] = lambda written: None,
) -> Path:
    """Write a checkpoint of step 0, whole or not at all; its place. `advance` gets the bytes of every tensor
    that is written; `check` the folder before it comes to its place; `build_model`: as a task has it."""
    files = boxes_by_file(target, build_model)
    _require_shapes(source, {name: box for boxes in files.values() for name, box in boxes.items()})
    entries: dict[str, FileEntry] = {}
    tensors: dict[str, TensorEntry] = {}
    with whole_folder(save) as root, source.reader() as read:
        place = folder_of(root, 0)
        place.mkdir()
        for name, boxes in files.items():
            like = {
                mine: torch.empty(box.shape, dtype=_type(source, mine), device="meta")
                for mine, box in boxes.items()
            }
            parts = functools.partial(_parts, source.origins, boxes, read, advance)
            entries[name] = FileEntry(*write_parts(place / name, like, parts))
            for mine, box in boxes.items():
                entry = TensorEntry(str(like[mine].dtype), box.global_shape, [])
                tensors.setdefault(mine, entry).parts.append(Part(name, box.offset, box.shape))
        manifest = _manifest(source.task, target)
        write_manifest(place, dataclasses.replace(manifest, files=entries, tensors=tensors))
        (root / LATEST).write_text("0\n", encoding="utf-8")
        if target.tokenizer is not None:
            for note in keep_tokenizer(str(root), target.tokenizer, (), target.vocabulary):
                raise UserError(f"{source.path}: {note}")
        check(root)
    return folder_of(save, 0)


def boxes_by_file(target: Target, build_model: Callable[..., nn.Module]) -> dict[str, dict[str, Box]]:
    """The tensors that every rank of the layout writes, by the names of the files."""
    stages = stages_of(target.config.parallel, target.config.model)
    count = target.tensor * target.pipeline
    files: dict[str, dict[str, Box]] = {}
    written: set[tuple[str, Shape]] = set()
    for rank in range(count):
        pipeline, tensor = divmod(rank, target.tensor)
        mesh = Mesh(tensor=Axis(tensor, target.tensor)) if target.tensor > 1 else ONE_RANK
        with torch.device("meta"):
            built = build_model(target.config, target.vocabulary.size, (), mesh, stages[pipeline])
        boxes = boxes_of(dict(built.named_parameters()), placements(built))
        own = {name: box for name, box in boxes.items() if (name, box.offset) not in written}
        written |= {(name, box.offset) for name, box in own.items()}
        part = f"-{rank + 1:05d}-of-{count:05d}" if count > 1 else ""
        files[f"model{part}.safetensors"] = own
    return files


def _type(source: Source, mine: str) -> torch.dtype:
    return source.tensors[source.origins[mine].name].dtype


def _require_shapes(source: Source, boxes: Mapping[str, Box]) -> None:
    """UserError where the model has a tensor that theirs has not, or one of another shape."""
    if lacking := sorted(boxes.keys() - source.origins.keys()):
        raise UserError(
            f"{source.path}: has nothing for {', '.join(lacking[:3])}, which the model has here; bring the "
            "files of one model"
        )
    if more := sorted(source.origins.keys() - boxes.keys()):
        names = ", ".join(source.origins[mine].name for mine in more[:3])
        raise UserError(
            f"{source.path}: has {names}, which a model of its settings has not here; bring the files of one "
            "model"
        )
    for mine, one in source.origins.items():
        expected = boxes[mine].global_shape
        if mine in PADDED:
            expected = (source.vocab_size, *expected[1:])
        for name in one.names:
            shape = source.tensors[name].shape
            if taken_shape(one, shape) != expected:
                raise UserError(
                    f"{source.tensors[name].file}: {name} has the shape {list(shape)}, and by its settings "
                    f"{mine} here is {list(expected)}; bring the files of one model"
                )


def _parts(
    origins: Mapping[str, Origin],
    boxes: Mapping[str, Box],
    read: Read,
    advance: Callable[[int], None],
    name: str,
) -> Iterator[Tensor]:
    """A box of one of our tensors; rows beyond their vocabulary are zero, and rows beyond ours left out."""
    box, whole = boxes[name], take(origins[name], read)
    padding = box.global_shape[0] - len(whole)
    if padding > 0:
        whole = torch.cat([whole, whole.new_zeros((padding, *whole.shape[1:]))])
    part = whole[tuple(slice(start, start + size) for start, size in zip(box.offset, box.shape))]
    yield part
    advance(part.nbytes)


def _manifest(task: str, target: Target) -> Manifest:
    return as_read(
        Manifest(
            task=task,
            config=dataclasses.asdict(target.config),
            vocabulary=target.vocabulary,
            data=[],
            analyses=[],
            data_efficiency={},
            schedule={},
            versions={"torch": torch.__version__},
        )
    )
