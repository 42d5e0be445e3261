"""The flags of a run's batches, length and machines, what follows from them, and the rules between them."""

from dataclasses import dataclass

from megatron.base.apex import find_apex, uses_apex
from megatron.config.flags import flag
from megatron.config.model import ModelConfig
from megatron.config.parallel import ParallelConfig

UNITS = ("tokens", "samples", "iters")
NO_STEP = (
    "--load FOLDER --skip-train evaluates without training, --dry-run shows a run, and one without an end is "
    "given a large number"
)


@dataclass(frozen=True)
class TrainingConfig:
    micro_batch_size: int = flag(help="samples of one forward pass on one rank", at_least=1, resume="free")
    global_batch_size: int = flag(
        None,
        "samples of one step, whatever the number of ranks; micro batch size · data-parallel ranks",
        at_least=1,
        follows=lambda training, data_parallel_size: training.micro_batch_size * data_parallel_size,
    )
    rampup_batch_size: tuple[int, ...] = flag(
        (), "start, increment and samples of a growing batch size", metavar="N", resume="meaning"
    )
    train_iters: int | None = flag(
        None, "stop after so many steps", at_least=1, resume="free", otherwise=NO_STEP
    )
    train_samples: int | None = flag(
        None, "stop after so many samples", at_least=1, resume="free", otherwise=NO_STEP
    )
    train_tokens: int | None = flag(
        None,
        "stop after so many effective tokens, i.e. layer tokens / layers",
        at_least=1,
        resume="free",
        otherwise=NO_STEP,
    )
    exit_interval: int | None = flag(
        None,
        "save and stop at a step that is a multiple of this",
        above=0,
        resume="free",
        otherwise="leave it out to train to the end",
    )
    exit_duration_in_mins: float | None = flag(
        None,
        "save and stop so many minutes after the command was started",
        above=0,
        resume="free",
        otherwise="leave it out for no limit",
    )
    seed: int = flag(1234, "of weights, draws and dropout")
    bf16: bool = flag(False, "compute in bfloat16; weights and gradients stay in fp32")
    fp16: bool = flag(False, "the same in float16, with a scaled loss")
    grad_reduce_in_bf16: bool = flag(
        False, "with --bf16: gradients are summed over ranks in bfloat16: half the bytes, fewer digits"
    )
    recompute_granularity: str | None = flag(
        None,
        "what is computed again in the backward pass to save memory: whole layers, or attention's weights "
        "where dropout writes them out",
        choices=("full", "selective"),
        resume="free",
        otherwise="leave it out to compute nothing again",
    )
    recompute_method: str = flag(
        "uniform",
        "with full: all layers, in runs whose inputs alone are kept, or a block of the first of every stage",
        choices=("uniform", "block"),
        resume="free",
    )
    recompute_num_layers: int = flag(
        1,
        "layers of such a run, or of the block",
        at_least=1,
        resume="free",
        otherwise="leave --recompute-granularity out to compute nothing again",
    )
    distributed_backend: str | None = flag(
        None, "nccl on GPUs, gloo elsewhere", choices=("nccl", "gloo"), resume="free"
    )
    distributed_timeout_minutes: float = flag(
        10.0, "how long a rank waits for the others", above=0, at_most=1e6, resume="free"
    )
    deterministic_mode: bool = flag(
        False, "on GPUs, only kernels that repeat their results to the bit; a CPU always does", resume="free"
    )
    compile: bool = flag(
        False,
        "layers by torch.compile: the first steps take minutes, and the later ones less time and memory",
        resume="free",
    )
    apex: bool = flag(
        None,
        "AdamW and LayerNorm by NVIDIA's apex; where it is found beside a GPU, unless it says false",
        follows=lambda training: not training.compile and uses_apex(),
        resume="free",
    )
    ignore_memory_estimate: bool = flag(
        False, "start even where the memory that the run will take seems not to be there", resume="free"
    )
    skip_train: bool = flag(False, "no training, only the evaluation of --load", resume="free")
    dry_run: bool = flag(False, "print the plan, sizes and FLOPs of the run, then stop", resume="free")


def _share(training: TrainingConfig, data_parallel_size: int) -> tuple[int, str]:
    """Samples of one forward pass on all ranks, and the words for it."""
    share = training.micro_batch_size * data_parallel_size
    ranks = f"{data_parallel_size} data-parallel ranks"
    return share, f"--micro-batch-size {training.micro_batch_size} x {ranks} = {share}"


def _batch(training: TrainingConfig, data_parallel_size: int) -> list[str]:
    share, words = _share(training, data_parallel_size)
    if training.global_batch_size % share:
        return [
            f"--global-batch-size {training.global_batch_size} is no multiple of {words}; change one of them"
        ]
    return []


def _rampup(training: TrainingConfig, data_parallel_size: int) -> list[str]:
    batch, (share, words) = training.global_batch_size, _share(training, data_parallel_size)
    if not training.rampup_batch_size:
        return []
    if len(training.rampup_batch_size) != 3:
        return ["--rampup-batch-size takes three numbers: start, increment, samples"]
    start, increment, samples = training.rampup_batch_size
    if start < 1 or increment < 1 or samples < 0 or start > batch or (batch - start) % increment:
        return [
            f"--rampup-batch-size {start} {increment} {samples}: the increment must lead from the start "
            f"to --global-batch-size {batch}"
        ]
    if start % share or increment % share:
        return [f"--rampup-batch-size {start} {increment}: both must be multiples of {words}"]
    return []


def _stop(training: TrainingConfig) -> list[str]:
    if all(getattr(training, f"train_{unit}") is None for unit in UNITS):
        return ["nothing says when to stop; give --train-iters, --train-samples or --train-tokens"]
    return []


def _recompute(training: TrainingConfig, model: ModelConfig) -> list[str]:
    number = training.recompute_num_layers
    if number > model.num_layers:
        return [f"--recompute-num-layers {number} is more than --num-layers {model.num_layers}; lower it"]
    if training.recompute_granularity != "full" and (number > 1 or training.recompute_method != "uniform"):
        return [
            "--recompute-method and --recompute-num-layers need --recompute-granularity full; give it, or "
            "leave them out"
        ]
    return []


def _compile(training: TrainingConfig, parallel: ParallelConfig) -> list[str]:
    found = []
    if training.apex:
        found.append("--apex, whose kernels cannot be compiled; leave --compile or --apex out")
    if parallel.pipeline_schedule == "zero-bubble":
        found.append(
            "--pipeline-schedule zero-bubble, which parts backward passes; take 1f1b, or leave --compile out"
        )
    if parallel.context_parallel_size > 1 and "p2p" in parallel.cp_comm_type:
        found.append(
            "--cp-comm-type p2p, whose ring is no graph; take allgather or a2a, or leave --compile out"
        )
    return [f"--compile does not go with {line}" for line in found if training.compile]


def _apex(training: TrainingConfig) -> list[str]:
    try:
        if training.apex:
            find_apex()
    except ImportError as error:
        return [
            f"--apex: NVIDIA's apex is not found ({error}); build it from its source, as apex on PyPI is "
            "another project, or leave --apex out"
        ]
    return []


def _one_precision(training: TrainingConfig) -> list[str]:
    found = (
        ["--bf16 and --fp16 are given; a run has one precision, so leave one of them out"]
        if training.bf16 and training.fp16
        else []
    )
    if training.grad_reduce_in_bf16 and not training.bf16:
        found.append("--grad-reduce-in-bf16 needs --bf16; give it, or leave the other out")
    return found


RULES = (_compile, _apex, _one_precision, _batch, _rampup, _stop, _recompute)
