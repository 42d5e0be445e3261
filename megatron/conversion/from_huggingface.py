"""A folder of Hugging Face's written as a checkpoint of ours, tensor by tensor."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from megatron.base.errors import UserError
from megatron.base.files import whole_folder
from megatron.checkpoint.load import Box, boxes_of
from megatron.checkpoint.manifest import FileEntry, Manifest, Part, TensorEntry, as_read, write_manifest
from megatron.checkpoint.save import LATEST, folder_of
from megatron.checkpoint.tensor_file import write_parts
from megatron.config import experts, model, parallel
from megatron.config.config import Config, TokenizerOptions, complete
from megatron.conversion.folder import Folder, Reader
from megatron.conversion.origins import Origin, Shape, take, taken_shape
from megatron.data.tokenizer_files import keep_tokenizer
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Axis, Mesh
from megatron.parallel.placement import placements
from megatron.parallel.stages import stages_of
from megatron.tasks.tasks import TASKS

PADDED = ("word_embeddings.weight", "output_layer.weight", "token_head.bias")
"""Tensors with a row for every token, and zeros for tokens that there are not."""
LEFT_OUT = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")
"""What older files hold beside weights."""
OF_A_RUN = {"micro_batch_size": 1, "lr": 0.0}
"""What every configuration must have, and says nothing of a model."""
SHAPE_RULES = (*model.RULES, *parallel.RULES, *experts.RULES)


class Target(NamedTuple):
    """A checkpoint that is to be written: its flags, its vocabulary, the tokenizer that is kept with it, and
    how many ranks of each kind write files."""

    config: Config
    vocabulary: Vocabulary
    tokenizer: TokenizerOptions | None
    tensor: int = 1
    pipeline: int = 1


def configuration(folder: Folder, tensor: int, pipeline: int) -> Config:
    """The flags of the model. UserError where it cannot be cut for these ranks."""
    layout = {"tensor_model_parallel_size": tensor, "pipeline_model_parallel_size": pipeline}
    found: Config = complete(Config, OF_A_RUN | folder.theirs.flags | layout, (), 1, SHAPE_RULES)
    return found


def found_in(origins: Mapping[str, Origin], there: Iterable[str]) -> dict[str, Origin]:
    """The same origins by the names that a file has: the bare model leaves out the first word of each."""
    known = set(there)

    def spelled(name: str) -> str:
        bare = name.partition(".")[2]
        return bare if bare in known and name not in known else name

    return {mine: one._replace(names=tuple(map(spelled, one.names))) for mine, one in origins.items()}


def matched(folder: Folder) -> dict[str, Origin]:
    """The origin of every tensor, all there and nothing else beside them. UserError otherwise."""
    origins = found_in(folder.theirs.family.names(folder.theirs.flags), folder.tensors)
    used = {name for one in origins.values() for name in one.names}
    problems = [f"has no {name}" for name in sorted(used - folder.tensors.keys())]
    tied = {"lm_head.weight"} if not folder.theirs.flags["untie_embeddings_and_output_weights"] else set()
    more = sorted(name for name in folder.tensors.keys() - used - tied if not name.endswith(LEFT_OUT))
    problems += [f"has {name}, which has no like here" for name in more]
    if problems:
        rest = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{folder.path}: {'; '.join(problems[:3])}{rest}; bring the weights that the config.json is of"
        )
    return origins


def require_shapes(folder: Folder, origins: Mapping[str, Origin], whole: Mapping[str, Shape]) -> None:
    """UserError where a tensor of theirs has another shape than the config.json makes it."""
    vocabulary = folder.theirs.content["vocab_size"]
    for mine, one in origins.items():
        expected = whole[mine]
        if mine in PADDED:
            expected = (vocabulary, *expected[1:])
        for name in one.names:
            shape = folder.tensors[name].shape
            if taken_shape(one, shape) != expected:
                raise UserError(
                    f"{folder.tensors[name].file}: {name} has the shape {list(shape)}, and by config.json "
                    f"{mine} here is {list(expected)}; bring the files of one model"
                )


def boxes_by_file(target: Target, task: str) -> dict[str, dict[str, Box]]:
    """The tensors that every rank of the layout writes, by the names of the files."""
    stages = stages_of(target.config.parallel, target.config.model)
    count = target.tensor * target.pipeline
    files: dict[str, dict[str, Box]] = {}
    written: set[tuple[str, Shape]] = set()
    for rank in range(count):
        pipeline, tensor = divmod(rank, target.tensor)
        mesh = Mesh(tensor=Axis(tensor, target.tensor)) if target.tensor > 1 else ONE_RANK
        with torch.device("meta"):
            model = TASKS[task].build_model(target.config, target.vocabulary.size, (), mesh, stages[pipeline])
        boxes = boxes_of(dict(model.named_parameters()), placements(model))
        own = {name: box for name, box in boxes.items() if (name, box.offset) not in written}
        written |= {(name, box.offset) for name, box in own.items()}
        part = f"-{rank + 1:05d}-of-{count:05d}" if count > 1 else ""
        files[f"model{part}.safetensors"] = own
    return files


def write_ours(
    folder: Folder,
    save: Path,
    target: Target,
    advance: Callable[[int], None] = lambda size: None,
    check: Callable[[Path], None] = lambda written: None,
) -> Path:
    """Write a checkpoint of step 0, whole or not at all; its place. `advance` gets the bytes of every tensor
    that is written; `check` the folder before it comes to its place."""
    task, origins = folder.theirs.family.task, matched(folder)
    files = boxes_by_file(target, task)
    whole = {name: box.global_shape for boxes in files.values() for name, box in boxes.items()}
    require_shapes(folder, origins, whole)
    entries: dict[str, FileEntry] = {}
    tensors: dict[str, TensorEntry] = {}
    with whole_folder(save) as root, Reader(folder.tensors) as read:
        place = folder_of(root, 0)
        place.mkdir()
        for name, boxes in files.items():
            like = {
                mine: torch.empty(box.shape, dtype=folder.tensors[origins[mine].name].dtype, device="meta")
                for mine, box in boxes.items()
            }
            parts = functools.partial(_parts, origins, boxes, read, advance)
            entries[name] = FileEntry(*write_parts(place / name, like, parts))
            for mine, box in boxes.items():
                entry = TensorEntry(str(like[mine].dtype), box.global_shape, [])
                tensors.setdefault(mine, entry).parts.append(Part(name, box.offset, box.shape))
        manifest = _manifest(task, target)
        write_manifest(place, dataclasses.replace(manifest, files=entries, tensors=tensors))
        (root / LATEST).write_text("0\n", encoding="utf-8")
        if target.tokenizer is not None:
            for note in keep_tokenizer(str(root), target.tokenizer, (), target.vocabulary):
                raise UserError(f"{folder.path}: {note}")
        check(root)
    return folder_of(save, 0)


def _parts(
    origins: Mapping[str, Origin],
    boxes: Mapping[str, Box],
    read: Callable[[str], Tensor],
    advance: Callable[[int], None],
    name: str,
) -> Iterator[Tensor]:
    """A box of one of our tensors; rows beyond their vocabulary are zero."""
    box, whole = boxes[name], take(origins[name], read)
    padding = box.global_shape[0] - len(whole)
    if padding:
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
