"""The engine of a pipeline: a rank does the actions of a schedule and passes hidden states to the next stage
and gradients to the one before. Shapes follow from the batch, which all ranks of a pipeline know, so nothing
is agreed upon on the way. With one stage there is nobody to talk to, and a step is the accumulation of
gradients over its micro-batches."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron.parallel.deferred import Deferred
from megatron.parallel.mesh import Mesh
from megatron.parallel.schedules import FORWARD, INPUT, WEIGHT, Action

Forward = Callable[[int, int, Tensor | None], Any]
"""From chunk, micro-batch and received hidden states to those of the chunk, or to the last stage's result."""
Backward = Callable[[Any, Tensor | None], None]
"""From what `forward` gave and the gradient of its hidden states, None of the last stage's."""


class Links:
    """Messages to and from the neighbours of a rank in its pipeline. `dtype`: of hidden states."""

    def __init__(self, mesh: Mesh, chunks: int, dtype: torch.dtype):
        self.axis, self.device, self.dtype = mesh.pipeline, mesh.device, dtype
        self.stages = chunks * mesh.pipeline.size
        self.groups = mesh.edges
        self.sent: dict[int, tuple[dist.Work | None, Tensor]] = {}

    def send(self, tensor: Tensor, stage: int, tag: int) -> None:
        """Start sending to the rank of a stage. The tensor is kept until `forget` or `wait`, or its tag is
        used again: a message that nobody keeps may never be sent."""
        if tag in self.sent:
            self.forget(tag)
        there = stage % self.axis.size
        group = self.groups.get((self.axis.rank, there), self.axis.group)
        work = dist.isend(tensor, group=group, group_dst=self._place(there, group), tag=tag)
        self.sent[tag] = work, tensor

    def receive(self, shape: tuple[int, ...], stage: int, tag: int) -> Tensor:
        """What the rank of a stage sends."""
        there = stage % self.axis.size
        group = self.groups.get((there, self.axis.rank), self.axis.group)
        tensor = torch.empty(shape, dtype=self.dtype, device=self.device)
        dist.recv(tensor, group=group, group_src=self._place(there, group), tag=tag)
        return tensor

    def _place(self, there: int, group: dist.ProcessGroup | None) -> int:
        """A rank's place in the group of an edge, whose ranks ascend, or of the whole pipeline."""
        return there if group is self.axis.group else int(there > self.axis.rank)

    def forget(self, tag: int) -> None:
        """Keep a message no longer, which has arrived."""
        work, _ = self.sent.pop(tag)
        if work is not None:
            work.wait()

    def wait(self) -> None:
        """Until all that was sent has gone."""
        for tag in list(self.sent):
            self.forget(tag)


def run_schedule(
    actions: Iterable[Action],
    links: Links,
    shapes: Sequence[tuple[int, ...]],
    forward: Forward,
    backward: Backward,
    deferred: Deferred | None = None,
) -> None:
    """Do the actions of a step. `shapes`: of every micro-batch's hidden states on this rank."""
    work = _Work(links, shapes, forward, backward, deferred)
    for action in actions:
        if action.kind == FORWARD:
            work.go_forward(action)
        elif action.kind == WEIGHT:
            work.add_weight_gradients(action)
        else:
            work.go_back(action)
    links.wait()


class _Work:
    """A step on its way: what is held between the actions of a rank."""

    def __init__(
        self,
        links: Links,
        shapes: Sequence[tuple[int, ...]],
        forward: Forward,
        backward: Backward,
        deferred: Deferred | None,
    ):
        self.links, self.shapes, self.forward, self.backward = links, shapes, forward, backward
        self.deferred = deferred
        self.held: dict[Action, tuple[Tensor | None, Any]] = {}
        self.waiting: dict[int, list[Callable[[], None]]] = {}
        self.returned: deque[int] = deque()
        self.unread = links.stages + links.axis.size

    def go_forward(self, action: Action) -> None:
        """Receive, compute, send; of what is sent only the graph is kept."""
        stage, tag = self._stage(action)
        received = None
        if stage > 0:
            received = self.links.receive(self.shapes[action.micro_batch], stage - 1, tag).requires_grad_()
        output = self.forward(action.chunk, action.micro_batch, received)
        if stage < self.links.stages - 1:
            self.links.send(output.detach(), stage + 1, tag + 2)
            output.data = output.new_empty(1).expand(output.shape)
        self.held[action._replace(kind=FORWARD)] = received, output

    def go_back(self, action: Action) -> None:
        """Receive gradients, compute, send; those of weights wait where the action asks for that."""
        stage, tag = self._stage(action)
        received, output = self.held.pop(action._replace(kind=FORWARD))
        gradient = None
        if stage < self.links.stages - 1:
            gradient = self.links.receive(output.shape, stage + 1, tag + 1)
            self.links.forget(tag + 2)
        if self.deferred is not None and action.kind == INPUT:
            self.deferred.waiting = self.waiting[action.micro_batch] = []
        self.backward(output, gradient)
        if self.deferred is not None:
            self.deferred.waiting = None
        if received is not None and received.grad is not None:
            self._return(received.grad, stage - 1, tag - 1)

    def _return(self, gradient: Tensor, stage: int, tag: int) -> None:
        """Send a gradient, and keep the last ones alone: no rank but GPipe's holds more micro-batches than
        `unread`, so the others have been read."""
        self.links.send(gradient, stage, tag)
        self.returned.append(tag)
        if len(self.returned) > self.unread:
            self.links.forget(self.returned.popleft())

    def add_weight_gradients(self, action: Action) -> None:
        """Do what a backward pass has left."""
        for work in self.waiting.pop(action.micro_batch):
            work()

    def _stage(self, action: Action) -> tuple[int, int]:
        """The stage of a chunk, and the tag of what it receives in the forward pass; that of the gradients
        that it receives is one more."""
        stage = action.chunk * self.links.axis.size + self.links.axis.rank
        return stage, 2 * (action.micro_batch * self.links.stages + stage)


def run_forward(links: Links, shape: tuple[int, ...], forward: Callable[[int, Tensor | None], Any]) -> Any:
    """One micro-batch through all stages, without gradients: what the last stage gives, None elsewhere."""
    rank, ranks, found = links.axis.rank, links.axis.size, None
    for stage in range(rank, links.stages, ranks):
        received = links.receive(shape, stage - 1, stage) if stage else None
        output = forward(stage // ranks, received)
        if stage < links.stages - 1:
            links.send(output, stage + 1, stage + 1)
        else:
            found = output
    return found
