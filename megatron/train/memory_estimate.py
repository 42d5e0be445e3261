"""How much memory a rank will take, before it takes any: a step of the model with tensors that have a shape
and no content, counted by what they would hold."""

import dataclasses
import os
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from megatron.base.errors import UserError
from megatron.batches.loader import BatchShare
from megatron.config.config import Config
from megatron.config.parallel import GRADIENTS, NOTHING, OPTIMIZER, WEIGHTS
from megatron.model.inputs import to_device
from megatron.parallel.layout import ONE, Layout
from megatron.schedule.plan import Step
from megatron.tasks.architecture import precision_of
from megatron.train.setup import Prepared

FEW_LAYERS = 4
GIB = 2**30


class Memory(NamedTuple):
    """Bytes of a rank. `activations`: the most that is there beside the others, in the largest micro-batch
    of `rows` rows of `length` tokens; `copies`: what --async-save writes, where that is the same memory."""

    weights: int
    gradients: int
    moments: int
    activations: int
    rows: int
    length: int
    copies: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations + self.copies


def estimate_memory(prepared: Prepared, device: torch.device, layout: Layout = ONE) -> Memory:
    """What a rank will hold at its fullest. A model of many layers is reckoned from few: what each
    kind of layer adds is the same for all of it."""
    step, inputs = _largest_micro_batch(prepared)
    layers = prepared.config.model.num_layers
    dropping = len(prepared.efficiency.dropping_layers)
    mixture = prepared.config.experts.num_experts > 1  # whose layers may differ
    if layers <= FEW_LAYERS or mixture:
        weights, peak = _simulate(prepared, inputs, layers, dropping, device)
    else:
        least, whole = np.array(_simulate(prepared, inputs, 2, 0, device)), layers - dropping
        each = np.array(_simulate(prepared, inputs, 3, 0, device)) - least
        total = least + (whole - 2) * each
        if dropping:
            total += dropping * (np.array(_simulate(prepared, inputs, 3, 1, device)) - least)
        weights, peak = total.tolist()
    activations = (peak - 2 * weights) // (layout.tensor * layout.context)
    weights //= layout.tensor * layout.pipeline
    holders = layout.data * layout.context
    held = _held(prepared.config, weights, holders // layout.instances)
    copied = prepared.config.checkpoint.async_save and device.type == "cpu"
    copies = 3 * weights // holders if copied else 0  # of what several ranks hold each writes a share
    return Memory(*held, activations, step.rows, step.sequence_length, copies)


def _held(config: Config, weights: int, ranks: int) -> tuple[int, int, int]:
    """Bytes of weights, gradients and moments of a rank that shares a stage's weights with so many. Where the
    weights are shared, too, those of the layer at work and its gradients come on top."""
    strategy = config.parallel.data_parallel_sharding_strategy
    share = weights // ranks
    if strategy in (NOTHING, OPTIMIZER):
        return weights, weights, 2 * (weights if strategy == NOTHING else share)
    half = precision_of(config.training) is not None
    whole = weights // (2 if half else 1) if strategy == GRADIENTS and ranks > 1 else 0
    return share + whole, share, 2 * share


def check_memory(memory: Memory, device: torch.device, local_ranks: int, ignore: bool) -> str:
    """The estimate in a line; UserError where it does not fit into what is free, unless that is ignored."""
    free = free_memory(device)
    sharing = local_ranks if device.type == "cpu" else 1
    names = ("weights", "gradients", "moments", "activations", *(["copies"] if memory.copies else []))
    parts = {name: getattr(memory, name) for name in names}
    words = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
    line = (
        f"memory a rank: about {memory.total / GIB:.2f} GiB ({words}) for {memory.rows} rows of "
        f"{memory.length} tokens"
    )
    if free is None:
        return line
    ranks = f" for {sharing} ranks" if sharing > 1 else ""
    line += f"; {free / GIB:.2f} GiB are free{ranks}"
    if memory.total * sharing > free and not ignore:
        raise UserError(
            f"{line}: it does not fit; lower --micro-batch-size or --seq-length, add --recompute-granularity "
            "full, take a smaller model, or try it with --ignore-memory-estimate"
        )
    return line


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process may still take on a device; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_machine_free(), *map(_group_free, _control_groups())]
    return min((size for size in found if size is not None), default=None)


def _machine_free() -> int | None:
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pages = os.sysconf_names.get("SC_PHYS_PAGES")
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") if pages else None


def _control_groups() -> list[Path]:
    """Folders of the control groups that this process is in, as containers and schedulers limit it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            inside = Path(path.lstrip("/"))
            folders += [Path("/sys/fs/cgroup", controllers, part) for part in (inside, *inside.parents)]
    return folders


def _group_free(folder: Path) -> int | None:
    """What a control group's limit leaves; files that it has cached can go, those in use, too."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most != "max":
            cached = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
            return max(int(most) - now + cached, 0)
    return None


def _largest_micro_batch(prepared: Prepared) -> tuple[Step, Any]:
    """The first micro-batch of the step with the longest rows, by what its layers compute, as a step of its
    own."""
    plan, size = prepared.plan, prepared.config.training.micro_batch_size
    work = (plan.rows / plan.batch_size) * (plan.sequence_length + plan.kept_length)
    step = plan.at(int(np.argmax(work)) + 1)
    alone = step._replace(batch_size=size, rows=step.rows * size // step.batch_size, drawn_before=0)
    return alone, prepared.rows.batch(prepared.sampler, alone, BatchShare(0, 1, size))[0]


def _simulate(
    prepared: Prepared, inputs: Any, layers: int, dropping: int, device: torch.device
) -> tuple[int, int]:
    """Bytes of the weights, and the most bytes at once in a forward and backward pass with all gradients
    there, of a model with so many layers."""
    config = prepared.config
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, num_layers=layers))
    task, vocab_size = prepared.task, prepared.data.vocabulary.size
    scales = dict.fromkeys(task.losses, 1.0)
    with FakeTensorMode() as fake, torch.device(device), _Live() as live:
        model = task.build_model(config, vocab_size, tuple(range(1, 1 + dropping))).train()
        weights = _bytes(model)
        if config.parallel.data_parallel_sharding_strategy in (GRADIENTS, WEIGHTS):
            _cast(model.layers, model.precision)  # before they are gathered, so that layers keep no casts
        simulated = _bytes(model)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        shapes = type(inputs)(*(fake.from_tensor(one) if torch.is_tensor(one) else one for one in inputs))
        step_key = torch.zeros((), dtype=torch.int64)
        losses = model(to_device(shapes, device), step_key, scales)
        torch.autograd.backward(list(losses.values()))
    return weights, live.most + 2 * (weights - simulated)


def _cast(layers: nn.Module, precision: torch.dtype) -> None:
    for module in layers.modules():
        for name, one in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(one.detach().to(precision)))


def _bytes(model: nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in model.parameters())


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, and the most of them at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        number = storage._cdata
        if number not in self.known:
            self.known.add(number)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, number, storage.nbytes())

    def _forget(self, number: int, size: int) -> None:
        self.known.discard(number)
        self.now -= size
