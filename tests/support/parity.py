"""Runs of small models on any layout of ranks, and how far they are from one rank: curriculum, random-LTD,
dropout, accumulation and clipping are on."""

import dataclasses
import itertools
import math
import re
from functools import cache, partial
from typing import Any, NamedTuple

import torch

from megatron.batches.loader import BatchShare
from megatron.config.parallel import ranks_of_model
from megatron.data.vocabulary import Vocabulary
from megatron.model.router import Router, Routing
from megatron.parallel.layout import Layout, layout_of
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import whole
from megatron.parallel.slices import slices_of
from megatron.parallel.stages import StageModule
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.task import Data, Task
from megatron.tasks.tasks import TASKS
from megatron.train.setup import Run, build, join
from megatron.train.step import train_step
from tests.support.configurations import make_config
from tests.support.corpora import make_corpus
from tests.support.ranks import run_layout

BASE = (
    "--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length 64 --global-batch-size 8 "
    "--micro-batch-size 2 --train-iters 20 --lr 1e-3 --lr-warmup-iters 2 --clip-grad 0.5 "
    "--init-method-std 0.1 --make-vocab-size-divisible-by 8 --hidden-dropout 0.1 "
    "--random-ltd --random-ltd-min 16 --random-ltd-quantum 16 --random-ltd-duration 18 "
)
SEQTRU = "--curriculum seqlen_truncate:min=32,max=64,duration=16,quantum=16 "
SEQRES = "--curriculum seqlen_reshape:min=32,max=64,duration=16,quantum=16 "
LLAMA = (
    "--position-embedding-type rope --normalization RMSNorm --swiglu --disable-bias-linear "
    "--untie-embeddings-and-output-weights --num-query-groups 2 --group-query-attention "
)
DOCUMENTS = "--eod-mask-loss --reset-attention-mask --reset-position-ids "
MODELS = {
    "gpt": SEQTRU + "--attention-dropout 0.1 ",
    "llama": SEQRES + LLAMA + "--attention-dropout 0 ",
    "documents": SEQTRU
    + DOCUMENTS
    + "--attention-dropout 0.1 --recompute-granularity full --recompute-num-layers 2 ",
    "llama documents": SEQTRU + DOCUMENTS + LLAMA + "--attention-dropout 0 ",
}


EXPERTS = (
    "--num-experts 4 --moe-layer-freq [0,1]*2 --moe-ffn-hidden-size 48 --moe-z-loss-coeff 1e-2 "
    "--moe-input-jitter-eps 0.05 --attention-dropout 0.1 "
)
MIXTURES = {
    "experts": SEQTRU + EXPERTS + "--moe-aux-loss-coeff 0.1 ",
    "experts limited": SEQRES
    + LLAMA
    + EXPERTS
    + "--moe-aux-loss-coeff 0.1 --moe-router-load-balancing-type seq_aux_loss --moe-group-size 1 "
    "--moe-router-score-function sigmoid --moe-router-enable-expert-bias --moe-expert-capacity-factor 1.0 "
    "--moe-shared-expert-intermediate-size 16 --recompute-granularity full ",
    "experts sinkhorn": SEQTRU
    + EXPERTS
    + "--moe-router-load-balancing-type sinkhorn --moe-expert-capacity-factor 1.25 "
    "--moe-token-drop-policy position ",
    "experts global": SEQTRU
    + EXPERTS
    + "--moe-aux-loss-coeff 0.1 --moe-router-load-balancing-type global_aux_loss --moe-router-num-groups 2 "
    "--moe-router-group-topk 1 --moe-router-pre-softmax ",
}
ENCODER = "--mask-prob 0.2 --norm-epsilon 1e-12 "
ENCODERS = {
    "bert": SEQTRU + ENCODER + "--apply-residual-connection-post-layernorm --attention-dropout 0.1 ",
    "bert grouped": ENCODER
    + "--bert-pair nsp --bert-group-lengths --short-seq-prob 0.6 --masking static --bert-passes 2 "
    "--attention-dropout 0.1 --recompute-granularity full --recompute-num-layers 2 ",
    "encoder packed": ENCODER
    + "--bert-no-binary-head --bert-pack --short-seq-prob 0.6 --position-embedding-type rope --geglu "
    "--rotary-base 500 --local-rotary-base 90 --disable-bias-linear --disable-norm-bias --embedding-norm "
    "--window-size 5,3 --window-attn-skip-freq [0,1,1,0] --attention-dropout 0.1 ",
}
IMAGES = "--img-h 36 --img-w 28 --patch-dim 4 --num-classes 7 --label-smoothing 0.1 "
VITS = {
    "vit": IMAGES + "--rand-augment 1 --attention-dropout 0.1 ",
    "vit grey": IMAGES
    + "--num-channels 1 --disable-qkv-bias --attention-dropout 0 --recompute-granularity full "
    "--recompute-num-layers 2 ",
}
"""Of images with 63 patches, and so of 64 tokens."""
EVERY = MODELS | MIXTURES | ENCODERS | VITS
STEPS = 20
"""Of all these runs; a shorter one goes through the same lengths, kept lengths and rates in fewer."""


def in_steps(flags: str, steps: int) -> str:
    """The flags of a run of so many steps, with the durations of its schedules in proportion."""
    lengths = re.compile(r"(--train-iters |duration[= ])(\d+)")
    return lengths.sub(lambda one: f"{one[1]}{int(one[2]) * steps // STEPS}", flags)


class Curve(NamedTuple):
    """Losses and gradient norms by step, at last this rank's part of every weight with its place, and a hash
    of which experts it has chosen for its tokens."""

    points: torch.Tensor
    weights: dict[str, tuple[tuple[int, ...], torch.Tensor]]
    choices: int = 0


def make_run(
    mesh: Mesh,
    flags: str,
    precision: torch.dtype,
    data_parallel_size: int,
    vocab_size: int = 50,
    length: int = 64,
    task: str = "gpt",
) -> Run:
    """The run of these flags at step 0, in training mode, over samples of `length` tokens."""
    config = make_config(flags, data_parallel_size)
    efficiency, _ = describe(config)
    corpora = {"train": [(None, make_corpus(160, length))], "valid": [], "test": []}
    ours = TASKS[task]
    precise = dataclasses.replace(ours, build_model=partial(_model, precision, ours))
    windows = Data(corpora, Vocabulary(vocab_size, 0, None))
    data = windows if task == "gpt" else ours.open_data(config)
    return build(join(precise, config, efficiency, data), mesh)


def train_steps(run: Run, first: int, last: int) -> torch.Tensor:
    """Losses, and behind them the gradient norm, of the steps first to last."""
    mesh, size = run.mesh, run.config.training.micro_batch_size
    share = BatchShare(mesh.data.rank, mesh.data.size, size, slices_of(mesh))
    points = []
    for number in range(first, last + 1):
        step = run.plan.at(number)
        result = train_step(run, step, run.rows.batch(run.sampler, step, share))
        points.append((*result.losses.values(), result.grad_norm))
    return torch.tensor(points, dtype=torch.float64)


def train(
    mesh: Mesh, flags: str, precision: torch.dtype, data_parallel_size: int, task: str = "gpt"
) -> Curve:
    """A whole run."""
    run = make_run(mesh, flags, precision, data_parallel_size, task=task)
    choices = hash_choices(run)
    points = train_steps(run, 1, run.plan.steps)
    table, held = run.placements | whole(run.states), run.parameters | run.states
    weights = {name: (table[name].offset, one.detach()) for name, one in held.items()}
    return Curve(points, weights, int(choices) if mesh.sequence_parallel or mesh.tensor.rank == 0 else 0)


def hash_choices(run: Run) -> torch.Tensor:
    """From now on a sum of hashes of every token's key and experts, int64: ranks add their own tokens."""
    total = torch.zeros((), dtype=torch.int64)

    def add(router: torch.nn.Module, arguments: Any, routing: Routing) -> None:
        numbers = (routing.experts + 1) * 65599 ** torch.arange(routing.experts.shape[-1])
        total.add_(((arguments[1].held_keys ^ router.site) * (2 * numbers.sum(-1) + 1)).sum())

    for router in (one for stage in run.stages for one in stage.modules() if isinstance(one, Router)):
        router.register_forward_hook(add)
    return total


def _model(precision: torch.dtype, task: Task, *arguments: Any) -> StageModule:
    model = task.build_model(*arguments)
    model.to(precision).train()
    return model


@cache
def one_rank(model: str, precision: torch.dtype, steps: int) -> Curve:
    """The run that every layout repeats."""
    flags = in_steps(BASE + EVERY[model], steps)
    (curve,) = run_layout(Layout(), train, flags, precision, 1, task_of(model))
    return curve


def task_of(model: str) -> str:
    """What a model is trained for."""
    return "bert" if model in ENCODERS else "vit" if model in VITS else "gpt"


def place_of(layout: str) -> tuple[str, Layout, int]:
    """Flags of a layout without `--dp N`, the layout of its ranks, and N."""
    flags, _, replicas = layout.partition("--dp ")
    data_parallel_size = int(replicas or 1)
    config = make_config(BASE + flags, data_parallel_size)
    ranks = data_parallel_size * ranks_of_model(config.parallel)
    return flags, layout_of(config.parallel, ranks), data_parallel_size


def deviations(
    model: str, layout: str, precision: torch.dtype, steps: int = STEPS
) -> tuple[float, float, float]:
    """Largest relative deviations of losses and gradient norm, and largest one of a weight, from one rank;
    infinite where another expert was chosen for a token in double precision."""
    more, place, data_parallel_size = place_of(layout)
    flags = in_steps(BASE + EVERY[model], steps) + more
    task = task_of(model)
    curves: list[Curve] = run_layout(place, train, flags, precision, data_parallel_size, task)
    wanted, weight = one_rank(model, precision, steps), 0.0
    worst = torch.zeros(wanted.points.shape[1], dtype=torch.float64)
    for curve in curves:
        worst = torch.maximum(worst, ((curve.points - wanted.points) / wanted.points).abs().amax(0))
        for name, (offset, part) in curve.weights.items():
            _, one = wanted.weights[name]
            box = tuple(slice(low, low + size) for low, size in zip(offset, part.shape))
            if part.numel():
                weight = max(weight, float((one[box] - part).abs().max()))
    *losses, norm = worst.tolist()
    if precision == torch.float64 and (sum(one.choices for one in curves) - wanted.choices) % 2**64:
        return math.inf, norm, weight
    return max(losses), norm, weight


TENSOR = "--tensor-model-parallel-size {} "
CONTEXT = "--context-parallel-size {} --cp-comm-type {} "
PIPELINE = "--pipeline-model-parallel-size {} "
SP = "--sequence-parallel "
ZERO = "--use-distributed-optimizer "
ZERO2 = "--data-parallel-sharding-strategy optim_grads "
ZERO3 = "--use-torch-fsdp2 "
EP = "--expert-model-parallel-size {} "
ETP = "--expert-tensor-parallel-size {} "
HYBRID = "--num-distributed-optimizer-instances 2 "
LAYOUTS: dict[str, str] = {
    "tp2": TENSOR.format(2),
    "tp4": TENSOR.format(4),
    "tp2+sp": TENSOR.format(2) + SP,
    "pp2": PIPELINE.format(2),
    "pp4": PIPELINE.format(4),
    "pp2 gpipe": PIPELINE.format(2) + "--pipeline-schedule gpipe",
    "pp2 interleaved": PIPELINE.format(2) + "--num-virtual-stages-per-pipeline-rank 2",
    "pp2 zero-bubble": PIPELINE.format(2) + "--pipeline-schedule zero-bubble",
    "pp2 uneven": PIPELINE.format(2) + "--decoder-first-pipeline-num-layers 1",
    "pp4 ends apart": PIPELINE.format(4) + "--pipeline-model-parallel-layout 'E|t|ttt|L'",
    "cp2 allgather": CONTEXT.format(2, "allgather"),
    "cp2 a2a": CONTEXT.format(2, "a2a"),
    "cp2 p2p": CONTEXT.format(2, "p2p"),
    "cp4 allgather": CONTEXT.format(4, "allgather"),
    "cp4 p2p": CONTEXT.format(4, "p2p"),
    "dp2": "--dp 2",
    "tp2·pp2": TENSOR.format(2) + PIPELINE.format(2),
    "tp2·dp2": TENSOR.format(2) + "--dp 2",
    "tp2+sp·cp2": TENSOR.format(2) + SP + CONTEXT.format(2, "allgather"),
    "pp2·cp2": PIPELINE.format(2) + CONTEXT.format(2, "a2a"),
    "tp2·pp2·dp2": TENSOR.format(2) + PIPELINE.format(2) + "--dp 2",
    "pp2·dp2 zero-bubble": PIPELINE.format(2) + "--pipeline-schedule zero-bubble --dp 2",
    "zero dp2": ZERO + "--dp 2",
    "zero cp2": ZERO + CONTEXT.format(2, "p2p"),
    "zero cp2·dp2": ZERO + CONTEXT.format(2, "allgather") + "--dp 2",
    "zero tp2·dp2": ZERO + TENSOR.format(2) + "--dp 2",
    "zero tp2+sp·dp2": ZERO + TENSOR.format(2) + SP + "--dp 2",
    "zero pp2·dp2": ZERO + PIPELINE.format(2) + "--dp 2",
    "zero pp2·dp2 zero-bubble": ZERO + PIPELINE.format(2) + "--pipeline-schedule zero-bubble --dp 2",
    "zero dp4 hybrid": ZERO + HYBRID + "--dp 4",
    "zero-2 dp2": ZERO2 + "--dp 2",
    "zero-3 dp2": ZERO3 + "--dp 2",
    "zero-3 tp2·dp2": ZERO3 + TENSOR.format(2) + "--dp 2",
    "zero-2 tp2+sp·dp2": ZERO2 + TENSOR.format(2) + SP + "--dp 2",
    "zero-3 pp2·dp2": ZERO3 + PIPELINE.format(2) + "--dp 2",
    "zero-2 pp2·dp2 interleaved": ZERO2
    + PIPELINE.format(2)
    + "--num-virtual-stages-per-pipeline-rank 2 --dp 2",
    "zero-3 cp2": ZERO3 + CONTEXT.format(2, "p2p"),
    "zero-3 dp4 hybrid": ZERO3 + HYBRID + "--dp 4",
}
OF_EXPERTS = {
    "ep2": EP.format(2) + "--dp 2",
    "ep4": EP.format(4) + "--dp 4",
    "ep2 allgather": EP.format(2) + "--moe-token-dispatcher-type allgather --dp 2",
    "ep2·dp2": EP.format(2) + "--dp 4",
    "tp2·ep2": TENSOR.format(2) + EP.format(2) + "--dp 2",
    "tp2+sp·ep2": TENSOR.format(2) + SP + EP.format(2) + "--dp 2",
    "tp2+sp·ep2 whole experts": TENSOR.format(2) + SP + EP.format(2) + ETP.format(1),
    "pp2·ep2": PIPELINE.format(2) + EP.format(2) + "--dp 2",
    "pp2·ep2 zero-bubble": PIPELINE.format(2) + EP.format(2) + "--pipeline-schedule zero-bubble --dp 2",
    "cp2·ep2": CONTEXT.format(2, "p2p") + EP.format(2),
    "ep2 zero": ZERO + EP.format(2) + "--dp 2",
    "ep2·dp2 zero": ZERO + EP.format(2) + "--dp 4",
    "ep2 zero-3": ZERO3 + EP.format(2) + "--dp 2",
    "ep2·dp2 zero-3": ZERO3 + EP.format(2) + "--dp 4",
    "ep2·dp2 zero-2 hybrid": ZERO2 + HYBRID + EP.format(2) + "--dp 4",
    "tp2+sp·ep2·dp2": TENSOR.format(2) + SP + EP.format(2) + "--dp 4",
    "expert tensor 2": ETP.format(2) + "--dp 2",
    "expert tensor 2·ep2": ETP.format(2) + EP.format(2) + "--dp 4",
}
"""Layouts that share experts."""
PADDED = {
    "ep2 padded": EP.format(2) + "--moe-pad-expert-input-to-capacity --dp 2",
    "tp2+sp·ep2 padded": TENSOR.format(2) + SP + EP.format(2) + "--moe-pad-expert-input-to-capacity --dp 2",
}
"""Those whose experts compute as many rows as they have room for."""
TWICE = {"tp2", "pp2", "cp2 p2p", "zero dp2"}
"""Layouts that are tried with all models; the others with one each, in turn."""


MIXED = [
    *((layout, "experts") for layout in ("dp2", "tp2", "tp2+sp", "pp2 zero-bubble", "zero-3 dp2")),
    *((layout, "experts limited") for layout in ("tp2+sp", "cp2 allgather", "zero dp2", "pp2")),
    *((layout, "experts sinkhorn") for layout in ("tp2", "cp2 p2p")),
    *((layout, "experts global") for layout in ("cp2 a2a", "dp2")),
    ("tp2+sp·cp2", "experts limited"),
    *zip(OF_EXPERTS, itertools.cycle(MIXTURES)),
    *zip(PADDED, ("experts sinkhorn", "experts limited")),
]
"""Layouts and the models with experts that each is tried with."""
OF_ENCODERS = (
    "tp2",
    "tp2+sp",
    "pp2",
    "pp2 interleaved",
    "pp2 zero-bubble",
    "pp4 ends apart",
    "cp2 allgather",
    "cp2 a2a",
    "cp4 allgather",
    "dp2",
    "tp2·pp2",
    "tp2+sp·cp2",
    "tp2·pp2·dp2",
    "zero dp2",
    "zero cp2·dp2",
    "zero tp2+sp·dp2",
    "zero-3 dp2",
    "zero-3 tp2·dp2",
    "zero-2 pp2·dp2 interleaved",
)
ALL_ENCODERS = ("tp2+sp", "pp2", "cp2 allgather", "zero dp2", "zero-3 dp2")
"""Layouts that are tried with all encoders."""
ENCODED = [
    *((layout, model) for layout in ALL_ENCODERS for model in ENCODERS),
    *zip([layout for layout in OF_ENCODERS if layout not in ALL_ENCODERS], itertools.cycle(ENCODERS)),
]
"""Layouts and the encoders that each is tried with."""

OF_VITS = (
    "tp2",
    "pp2",
    "pp2 zero-bubble",
    "pp4 ends apart",
    "dp2",
    "tp2·pp2",
    "tp2·dp2",
    "zero dp2",
    "zero tp2·dp2",
    "zero-2 pp2·dp2 interleaved",
    "zero-3 dp2",
    "zero-3 tp2·dp2",
)
SEEN = [
    *((layout, model) for layout in ("tp2", "pp2", "zero-3 dp2") for model in VITS),
    *zip([layout for layout in OF_VITS if layout not in ("tp2", "pp2", "zero-3 dp2")], itertools.cycle(VITS)),
]
"""Layouts and the vision transformers that each is tried with: none that shares tokens."""


def pairs() -> list[tuple[str, str]]:
    """Layouts and the models that each is tried with."""
    models = list(MODELS)
    chosen = {name: models if name in TWICE else [models[n % len(models)]] for n, name in enumerate(LAYOUTS)}
    return [(name, model) for name, each in chosen.items() for model in each]
