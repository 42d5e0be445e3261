"""A layout that is ignored would train the same model, too: what every rank sends in a step, and how much of
the model it holds, against the formulas."""

import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron.parallel.mesh import Mesh
from megatron.parallel.pipeline import Links
from tests.support.parity import make_run, place_of, train_steps
from tests.support.ranks import handed_in, run_layout

LAYERS, ROWS, LENGTH, WIDTH, VOCABULARY, MICRO_BATCHES, BYTES = 4, 2, 64, 32, 56, 4, 8
FLAGS = (
    f"--num-layers {LAYERS} --hidden-size {WIDTH} --num-attention-heads 4 --seq-length {LENGTH} "
    f"--micro-batch-size {ROWS} --global-batch-size {{}} --train-iters 2 --make-vocab-size-divisible-by 8 "
    "--hidden-dropout 0 --attention-dropout 0 "
)
HIDDEN = ROWS * LENGTH * WIDTH * BYTES
LOSSES = 2 * ROWS * LENGTH * BYTES
"""Sums and logits of the labels of a micro-batch."""
TABLE = VOCABULARY * WIDTH * BYTES
LAYER_MATRICES = 12 * WIDTH * WIDTH
SPLIT_BIASES, WHOLE_VECTORS = 3 * WIDTH + 4 * WIDTH, 2 * WIDTH + 4 * WIDTH
LAYER = LAYER_MATRICES + SPLIT_BIASES + WHOLE_VECTORS
POSITIONS = LENGTH * WIDTH
WHOLE = VOCABULARY * WIDTH + POSITIONS + LAYERS * LAYER + 2 * WIDTH
"""Parameters of the model."""
ONCE = 3 * BYTES
"""Loss, wishes to stop and the norm, summed over all ranks."""


def step_traffic(mesh: Mesh, flags: str, data_parallel_size: int) -> tuple[dict[str, int], int]:
    """Bytes that this rank hands to each function of torch.distributed in the second step, and the elements
    of its parameters."""
    run = make_run(mesh, flags, torch.float64, data_parallel_size)
    train_steps(run, 1, 1)
    sent: Counter[str] = Counter()

    def count(owner: Any, name: str, tensor_of: Callable[..., torch.Tensor]) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **more: Any) -> Any:
            tensor = tensor_of(*arguments, **more)
            sent[name] += tensor.numel() * tensor.element_size()
            return function(*arguments, **more)

        setattr(owner, name, call)

    count(dist, "all_reduce", lambda tensor, **_: tensor)
    for name in ("all_gather_single", "reduce_scatter_single", "all_to_all_single"):
        count(dist, name, handed_in)
    count(dist, "batch_isend_irecv", lambda operations: operations[0].tensor)
    count(Links, "send", handed_in)
    train_steps(run, 2, 2)
    return dict(sent), sum(one.numel() for one in run.parameters.values())


def expected(layout: str) -> list[tuple[dict[str, int], int]]:
    """The same by formula, rank by rank."""
    inner = LAYERS * (LAYER_MATRICES + SPLIT_BIASES)
    half = VOCABULARY * WIDTH // 2 + POSITIONS + LAYERS * WHOLE_VECTORS + 2 * WIDTH + inner // 2
    slices = (POSITIONS + LAYERS * WHOLE_VECTORS + 2 * WIDTH) * BYTES
    gradients = {"all_reduce": WHOLE * BYTES + ONCE}
    match layout:
        case "tp2":  # both ways of every layer twice, behind the embedding and before the head
            sums = MICRO_BATCHES * (4 * LAYERS + 2) * HIDDEN
            one = {"all_reduce": sums + ONCE, "all_gather_single": MICRO_BATCHES * LOSSES}
            return [(one, half)] * 2
        case "tp2+sp":  # a gather of halves for every scattered sum of wholes
            both = MICRO_BATCHES * (4 * LAYERS + 2) * HIDDEN
            gathers = both // 2 + MICRO_BATCHES * LOSSES
            sums = slices + ONCE
            one = {"all_gather_single": gathers, "reduce_scatter_single": both, "all_reduce": sums}
            return [(one, half)] * 2
        case "cp2 allgather":  # keys and values, of which this rank has half
            pairs = MICRO_BATCHES * LAYERS * HIDDEN
            one = {"all_gather_single": pairs, "reduce_scatter_single": 2 * pairs, **gradients}
            return [(one, WHOLE)] * 2
        case "cp2 a2a":  # query, key, value and result, each half of a hidden state, there and back
            pairs = MICRO_BATCHES * LAYERS * 2 * 4 * HIDDEN // 2
            return [({"all_to_all_single": pairs, "all_reduce": WHOLE * BYTES + ONCE}, WHOLE)] * 2
        case "cp2 p2p":  # one turn forward with keys and values, two back with their gradients, too
            turns = MICRO_BATCHES * LAYERS * (HIDDEN + 2 * 2 * HIDDEN)
            return [({"batch_isend_irecv": turns, **gradients}, WHOLE)] * 2
        case "pp2":  # hidden states forward, gradients back, and once the tied table
            sums, layers = TABLE + ONCE, WHOLE - POSITIONS - VOCABULARY * WIDTH - 2 * WIDTH
            one = {"send": MICRO_BATCHES * HIDDEN, "all_reduce": sums}
            first, last = (VOCABULARY * WIDTH + layers // 2 + more for more in (POSITIONS, 2 * WIDTH))
            return [(one, first), (one, last)]
        case "zero dp2":  # sums of all gradients scattered, and of the weights the own half
            one = {"reduce_scatter_single": WHOLE * BYTES, "all_gather_single": WHOLE * BYTES // 2}
            return [(one | {"all_reduce": ONCE}, WHOLE)] * 2
        case "zero-2 dp2":  # sums of all gradients with every micro-batch, all weights once
            sums = MICRO_BATCHES * WHOLE * BYTES
            one = {"reduce_scatter_single": sums, "all_gather_single": WHOLE * BYTES // 2}
            return [(one | {"all_reduce": ONCE}, WHOLE // 2)] * 2
        case "zero-3 dp2" | "zero-3 dp4 hybrid":  # weights of layers twice with every micro-batch
            sums, gathers = MICRO_BATCHES * WHOLE * BYTES, MICRO_BATCHES * (WHOLE + LAYERS * LAYER) * BYTES
            one = {"reduce_scatter_single": sums, "all_gather_single": gathers // 2}
            if layout == "zero-3 dp2":
                return [(one | {"all_reduce": ONCE}, WHOLE // 2)] * 2
            return [(one | {"all_reduce": WHOLE * BYTES // 2 + ONCE}, WHOLE // 2)] * 4
        case "zero dp4 hybrid":  # sums of the rows between the two shares
            one = {"reduce_scatter_single": WHOLE * BYTES, "all_gather_single": WHOLE * BYTES // 2}
            return [(one | {"all_reduce": WHOLE * BYTES // 2 + ONCE}, WHOLE)] * 4
        case _:  # dp2: all gradients once
            return [(gradients, WHOLE)] * 2


LAYOUTS = {
    "tp2": "--tensor-model-parallel-size 2 ",
    "tp2+sp": "--tensor-model-parallel-size 2 --sequence-parallel ",
    "cp2 allgather": "--context-parallel-size 2 --cp-comm-type allgather ",
    "cp2 a2a": "--context-parallel-size 2 --cp-comm-type a2a ",
    "cp2 p2p": "--context-parallel-size 2 --cp-comm-type p2p ",
    "pp2": "--pipeline-model-parallel-size 2 ",
    "dp2": "--dp 2",
    "zero dp2": "--use-distributed-optimizer --dp 2",
    "zero dp4 hybrid": "--use-distributed-optimizer --num-distributed-optimizer-instances 2 --dp 4",
    "zero-2 dp2": "--data-parallel-sharding-strategy optim_grads --dp 2",
    "zero-3 dp2": "--use-torch-fsdp2 --dp 2",
    "zero-3 dp4 hybrid": "--use-torch-fsdp2 --num-distributed-optimizer-instances 2 --dp 4",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_traffic_and_parameters_of_every_rank(layout: str) -> None:
    more, place, replicas = place_of(LAYOUTS[layout])
    flags = FLAGS.format(ROWS * MICRO_BATCHES * replicas) + more
    assert run_layout(place, step_traffic, flags, replicas) == expected(layout)


def held_bytes(mesh: Mesh, flags: str, data_parallel_size: int) -> int:
    """Bytes of all tensors that a run has added to this process, behind its first step."""

    def alive() -> int:
        gc.collect()
        tensors = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
        local = [getattr(one, "_local_tensor", one).untyped_storage() for one in tensors]
        return sum({one._cdata: one.nbytes() for one in local}.values())

    before = alive()
    run = make_run(mesh, flags, torch.float64, data_parallel_size)
    train_steps(run, 1, 1)
    assert run.parameters  # which are all here now
    return alive() - before


@pytest.mark.parametrize(
    ("layout", "copies"),
    [
        ("dp2", 4),
        ("zero dp2", 2 + 2 / 2),
        ("zero-2 dp2", 4 / 2),
        ("zero-3 dp2", 4 / 2),
        ("zero-3 dp4 hybrid", 4 / 2),
    ],
)
def test_a_rank_holds_its_share_of_weights_gradients_and_moments(layout: str, copies: float) -> None:
    """Weights, gradients and two moments are four copies of the model, of which a rank has what ZeRO says
    (arXiv 1910.02054, figure 1). Keys of dropout and counts of steps are below a KiB."""
    more, place, replicas = place_of(LAYOUTS[layout])
    flags = FLAGS.format(ROWS * MICRO_BATCHES * replicas) + more
    for found in run_layout(place, held_bytes, flags, replicas):
        assert 0 <= found - copies * WHOLE * BYTES < 1024
