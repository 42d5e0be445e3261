"""A layout that is ignored would train the same model, too: what every rank sends in a step, and how much of
the model it holds, against the formulas by which a layout is priced."""

import dataclasses
import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron.model import layer_traffic
from megatron.parallel.mesh import Mesh
from megatron.parallel.pipeline import Links
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.prices import prices, share_of
from megatron.tasks.tasks import TASKS
from tests.support.configurations import make_config, make_plan
from tests.support.parity import make_run, place_of, train_steps
from tests.support.ranks import handed_in, run_layout
from tests.support.sentences import as_priced

MICRO_BATCHES = 4
FLAGS = (
    "--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length 64 --micro-batch-size 2 "
    "--global-batch-size {} --train-iters 2 --make-vocab-size-divisible-by 8 "
    "--hidden-dropout 0 --attention-dropout 0 "
)
KINDS = {
    "all_reduce": layer_traffic.SUM,
    "all_gather_single": layer_traffic.GATHER,
    "reduce_scatter_single": layer_traffic.SCATTER,
    "all_to_all_single": layer_traffic.EXCHANGE,
    "batch_isend_irecv": layer_traffic.RING,
    "send": layer_traffic.SEND,
}


def counted(mesh: Mesh, flags: str, data_parallel_size: int, task: str) -> tuple[dict[str, int], int]:
    """Bytes that this rank hands to each function of torch.distributed in the second step, and the elements
    of its parameters."""
    run = make_run(mesh, flags, torch.float64, data_parallel_size, task=task)
    run = as_priced(run) if task == "bert" else run
    train_steps(run, 1, 1)
    sent: Counter[str] = Counter()

    def count(owner: Any, name: str, tensor_of: Callable[..., torch.Tensor]) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **more: Any) -> Any:
            tensor = tensor_of(*arguments, **more)
            sent[KINDS[name]] += tensor.numel() * tensor.element_size()
            return function(*arguments, **more)

        setattr(owner, name, call)

    count(dist, "all_reduce", lambda tensor, **_: tensor)
    for name in ("all_gather_single", "reduce_scatter_single", "all_to_all_single"):
        count(dist, name, handed_in)
    count(dist, "batch_isend_irecv", lambda operations: operations[0].tensor)
    count(Links, "send", handed_in)
    train_steps(run, 2, 2)
    return dict(sent), sum(one.numel() for stage in run.stages for one in stage.parameters())


def formula(
    flags: str, layout: Any, data_parallel_size: int, task: str = "gpt"
) -> list[tuple[dict[str, int], int]]:
    """The same as it is priced, rank by rank."""
    config = make_config(flags, data_parallel_size)
    efficiency, _ = describe(config)
    share = dataclasses.replace(share_of(TASKS[task], config, efficiency, 50, layout), weight_bytes=8)
    by_stage = prices(config, share, make_plan(config, efficiency).at(2), "cpu")
    found = []
    for rank in range(layout.ranks):
        price, sent = by_stage[layout.place(rank)["pipeline"]], Counter[str]()
        for (_, kind), size in price.traffic.items():
            sent[kind] += size
        found.append((dict(sent), price.parameters))
    return found


TENSOR, CONTEXT = "--tensor-model-parallel-size 2 ", "--context-parallel-size 2 --cp-comm-type "
GROUPS = "--group-query-attention --num-query-groups "
EP, ETP = "--expert-model-parallel-size ", "--expert-tensor-parallel-size "
ALL = "--num-experts 4 --moe-router-topk 4 "
IN_BF16 = "--bf16 --grad-reduce-in-bf16 "
LAYOUTS = {
    "tp2": TENSOR,
    "tp2+sp": TENSOR + "--sequence-parallel ",
    "tp4, few groups": "--tensor-model-parallel-size 4 " + GROUPS + "2 ",
    "cp2 allgather": CONTEXT + "allgather ",
    "cp2 allgather, groups": CONTEXT + "allgather " + GROUPS + "2 ",
    "cp2 a2a": CONTEXT + "a2a ",
    "cp2 a2a, few groups": CONTEXT + "a2a " + GROUPS + "1 ",
    "cp2 p2p": CONTEXT + "p2p ",
    "pp2": "--pipeline-model-parallel-size 2 ",
    "pp2 interleaved": "--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2 ",
    "dp2": "--dp 2",
    "zero dp2": "--use-distributed-optimizer --dp 2",
    "zero dp4 hybrid": "--use-distributed-optimizer --num-distributed-optimizer-instances 2 --dp 4",
    "zero-2 dp2": "--data-parallel-sharding-strategy optim_grads --dp 2",
    "zero-3 dp2": "--use-torch-fsdp2 --dp 2",
    "zero-3 dp4 hybrid": "--use-torch-fsdp2 --num-distributed-optimizer-instances 2 --dp 4",
    "zero-3 tp2+sp·dp2": TENSOR + "--sequence-parallel --use-torch-fsdp2 --dp 2",
    "zero-3 pp2·cp2": "--pipeline-model-parallel-size 2 " + CONTEXT + "allgather --use-torch-fsdp2 ",
    "zero dp4, rows that do not divide": "--use-distributed-optimizer --hidden-size 36 --dp 4",
    "sums in bfloat16": IN_BF16 + "--pipeline-model-parallel-size 2 --dp 2",
    "sums in bfloat16, zero dp4 hybrid": IN_BF16
    + "--use-distributed-optimizer --num-distributed-optimizer-instances 2 --dp 4",
    "sums in bfloat16, zero tp2+sp·dp2": IN_BF16
    + TENSOR
    + "--sequence-parallel --use-distributed-optimizer --dp 2",
    "sums in bfloat16, zero-3 dp2": IN_BF16 + "--use-torch-fsdp2 --dp 2",
    "tp2·dp2": TENSOR + "--dp 2",
    "zero tp2+sp·dp2": TENSOR + "--sequence-parallel --use-distributed-optimizer --dp 2",
    "tp2·pp2": TENSOR + "--pipeline-model-parallel-size 2 ",
    "tp2+sp·cp2": TENSOR + "--sequence-parallel " + CONTEXT + "allgather ",
    "cp2·dp2, llama": CONTEXT
    + "p2p --position-embedding-type rope --normalization RMSNorm --swiglu --disable-bias-linear "
    "--untie-embeddings-and-output-weights --dp 2",
    "tp2, recomputed": TENSOR + "--recompute-granularity full ",
    "tp2, recomputed in runs, dropout": TENSOR
    + "--recompute-granularity full --recompute-num-layers 2 --hidden-dropout 0.1 ",
    "tp2+sp, a block recomputed": TENSOR
    + "--sequence-parallel --recompute-granularity full --recompute-method block --recompute-num-layers 3 ",
    "cp2 allgather, recomputed": CONTEXT + "allgather --recompute-granularity full ",
    "cp2 p2p, recomputed": CONTEXT + "p2p --recompute-granularity full ",
    "tp2, random-LTD": TENSOR + "--random-ltd --random-ltd-min 16 --random-ltd-duration 100 ",
    "experts, tp2": TENSOR + ALL,
    "experts, tp2+sp, losses, shared": TENSOR
    + ALL
    + "--sequence-parallel --moe-aux-loss-coeff 0.1 --moe-z-loss-coeff 0.1 --moe-layer-freq 2 "
    "--moe-shared-expert-intermediate-size 16 ",
    "experts, cp2 of full experts": CONTEXT + "p2p " + ALL + "--moe-expert-capacity-factor 1.5 ",
    "experts, cp2 by sinkhorn": CONTEXT + "allgather " + ALL + "--moe-router-load-balancing-type sinkhorn ",
    "ep2": ALL + EP + "2 --dp 2",
    "ep2·dp2, recomputed": ALL + EP + "2 --recompute-granularity full --dp 4",
    "ep2 allgather": ALL + EP + "2 --moe-token-dispatcher-type allgather --dp 2",
    "tp2·ep2": TENSOR + ALL + EP + "2 --dp 2",
    "tp2+sp·ep2, recomputed": TENSOR
    + ALL
    + EP
    + "2 --sequence-parallel --recompute-granularity full --disable-bias-linear --dp 2",
    "tp2+sp·ep2 whole experts": TENSOR + ALL + EP + "2 " + ETP + "1 --sequence-parallel ",
    "ep2, padded": "--num-experts 4 --moe-router-topk 2 --moe-expert-capacity-factor 1.25 "
    "--moe-pad-expert-input-to-capacity --expert-model-parallel-size 2 --dp 2",
    "expert tensor 2·ep2, zero": ALL + EP + "2 " + ETP + "2 --use-distributed-optimizer --dp 4",
    "ep2·dp2 zero-3": ALL + EP + "2 --use-torch-fsdp2 --dp 4",
    "ep2 zero-3": ALL + EP + "2 --use-torch-fsdp2 --dp 2",
    "ep2·dp2 zero hybrid": ALL
    + EP
    + "2 --use-distributed-optimizer --num-distributed-optimizer-instances 2 --dp 4",
}
"""With experts, every token goes to all of them: so all ranks exchange the same number of tokens."""


MIXED = "--num-experts 4 --moe-layer-freq 2 --moe-ffn-hidden-size 48 --moe-aux-loss-coeff 0.1 "
SHARED = "--moe-shared-expert-intermediate-size 16 "
LAYOUTS |= {
    "experts, dp2": MIXED + "--dp 2",
    "experts, tp2": MIXED + SHARED + TENSOR,
    "experts, tp2+sp, recomputed": MIXED
    + SHARED
    + TENSOR
    + "--sequence-parallel --recompute-granularity full ",
    "experts, cp2, capacity": MIXED + CONTEXT + "allgather --moe-expert-capacity-factor 1.0 ",
    "experts, tp2+sp, sinkhorn": MIXED
    + TENSOR
    + "--sequence-parallel --moe-router-load-balancing-type sinkhorn --moe-aux-loss-coeff 0 "
    "--moe-expert-capacity-factor 1.0 --moe-token-drop-policy position ",
    "experts, tp2, recomputed": MIXED + SHARED + TENSOR + "--recompute-granularity full ",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_traffic_and_parameters_of_every_rank(layout: str) -> None:
    more, place, replicas = place_of(LAYOUTS[layout])
    flags = FLAGS.format(2 * MICRO_BATCHES * replicas) + more
    assert run_layout(place, counted, flags, replicas, "gpt") == formula(flags, place, replicas)


FIRST = "--apply-residual-connection-post-layernorm --vocab-size 50 --short-seq-prob 0 "
MODERN = (
    "--position-embedding-type rope --geglu --disable-bias-linear --disable-norm-bias --embedding-norm "
    "--bert-no-binary-head --window-size 9,9 --window-attn-skip-freq [0,1,1,0] --vocab-size 50 "
    "--short-seq-prob 0 --mask-prob 0.3 "
)
OF_ENCODERS = [
    *((layout, FIRST) for layout in ("tp2", "tp2+sp", "pp2", "pp2 interleaved", "tp2·pp2", "zero dp2")),
    *((layout, FIRST) for layout in ("cp2 allgather", "zero-3 tp2+sp·dp2", "tp2, random-LTD")),
    *((layout, MODERN) for layout in ("tp2+sp", "pp2", "tp2+sp·cp2", "cp2 a2a", "dp2", "zero-3 dp2")),
    *((layout, MODERN) for layout in ("tp2, recomputed in runs, dropout", "sums in bfloat16")),
]


@pytest.mark.parametrize(("layout", "model"), OF_ENCODERS)
def test_traffic_and_parameters_of_encoders(layout: str, model: str) -> None:
    more, place, replicas = place_of(model + LAYOUTS[layout])
    flags = FLAGS.format(2 * MICRO_BATCHES * replicas) + more
    assert run_layout(place, counted, flags, replicas, "bert") == formula(flags, place, replicas, "bert")


def test_the_formulas_by_hand() -> None:
    """A hidden state is 2 x 64 x 32 numbers of 8 bytes; two ways of four layers twice, behind the embedding
    and before the head, and a pair of numbers a token for the loss."""
    more, place, _ = place_of(LAYOUTS["tp2"])
    sent, parameters = formula(FLAGS.format(8) + more, place, 1)[0]
    hidden, losses = 2 * 64 * 32 * 8, 2 * 2 * 64 * 8
    assert sent == {"all_reduce": 4 * (4 * 4 + 2) * hidden + 3 * 8, "all_gather": 4 * losses}
    inside = 4 * (12 * 32 * 32 + 3 * 32 + 4 * 32)
    assert parameters == 56 * 32 // 2 + 64 * 32 + inside // 2 + 4 * 6 * 32 + 2 * 32


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
    flags = FLAGS.format(2 * MICRO_BATCHES * replicas) + more
    _, parameters = formula(flags, place, replicas)[0]
    for found in run_layout(place, held_bytes, flags, replicas):
        assert 0 <= found - copies * parameters * 8 < 1024
