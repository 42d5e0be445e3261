"""Flags of Megatron-LM and Megatron-DeepSpeed that this repository reads but does not have.

Those that only tune what is not needed here, or save memory, are accepted and said to be unused. Those
that would change the numbers, or ask for something that does not work yet, are refused unless their value
is the one that changes nothing.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Foreign(NamedTuple):
    """A flag of another Megatron that is read but does nothing here. `accepted`: the values that change no
    number; None stands for any value. `why` is told to the user."""

    accepted: tuple[str, ...] | None
    why: str


def foreign_problems(raw: Mapping[str, Any], foreign: Mapping[str, Foreign]) -> list[str]:
    """Flags of another Megatron that are given values which would change something."""
    problems = []
    for name, entry in foreign.items():
        values = raw.get("foreign-" + name)
        if values is not None and entry.accepted is not None and " ".join(values) not in entry.accepted:
            problems.append(f"--{name} {' '.join(values)}".rstrip() + f" is refused: {entry.why}")
    return problems


def _unused(why: str, *names: str) -> dict[str, Foreign]:
    return {name: Foreign(None, why) for name in names}


def _refused(why: str, **accepted: str) -> dict[str, Foreign]:
    return {
        name.replace("_", "-"): Foreign((*value.split(), "false"), why) for name, value in accepted.items()
    }


FOREIGN_FLAGS: dict[str, Foreign] = {
    **_unused(
        "no index is built or cached",
        "data-cache-path",
        "dataloader-fast-cache-load",
        "dataloader-defer-npy-index-mmap",
    ),
    **_unused(
        "samples are windows of the token stream",
        "mid-level-dataset-surplus",
        "num-dataset-builder-threads",
        "train-data-exact-num-epochs",
    ),
    **_unused(
        "difficulty belongs to our own sample order; give --difficulty-path",
        "train-doc-idx-path",
        "train-sample-idx-path",
        "train-shuffle-idx-path",
        "train-idx-path",
        "train-desc-path",
    ),
    **_unused("datasets are memory-mapped .bin and .idx files", "data-impl", "mmap-warmup"),
    **_unused(
        "fp32 and bf16 need no loss scaling",
        "hysteresis",
        "loss-scale",
        "initial-loss-scale",
        "loss-scale-window",
        "min-loss-scale",
    ),
    **_unused("queries are never scaled by the layer's number", "no-query-key-layer-scaling"),
    **_unused("the loss is always the mean over the tokens of the global batch", "calculate-per-token-loss"),
    **_unused("softmax is computed in fp32 wherever precision is lower", "attention-softmax-in-fp32"),
    **_unused(
        "a step that is not finite always stops the run", "no-check-for-nan-in-loss-and-grad", "rerun-mode"
    ),
    **_unused("there is no tensor parallelism to overlap", "no-async-tensor-model-parallel-allreduce"),
    **_unused("--profile always takes torch's profiler", "use-pytorch-profiler"),
    **_unused(
        "the loader needs no worker processes", "num-workers", "no-create-attention-mask-in-dataloader"
    ),
    **_unused("signals always end a run with a checkpoint", "exit-signal-handler"),
    **_unused("weights are drawn on the CPU by name", "use-cpu-initialization"),
    **_unused(
        "there is one implementation, in PyTorch",
        "transformer-impl",
        "use-mcore-models",
        "use-legacy-models",
        "use-flash-attn",
        "use-flash-attn-v2",
        "use-flash-attn-triton",
        "DDP-impl",
    ),
    **_unused(
        "fusions are PyTorch's own",
        "no-masked-softmax-fusion",
        "no-bias-gelu-fusion",
        "no-bias-swiglu-fusion",
        "no-bias-dropout-fusion",
        "no-rope-fusion",
        "no-gradient-accumulation-fusion",
        "cross-entropy-loss-fusion",
        "no-persist-layer-norm",
    ),
    **_unused("gradients are always accumulated and reduced in fp32", "accumulate-allreduce-grads-in-fp32"),
    **_unused(
        "gradients are always reduced while the backward pass runs", "overlap-grad-reduce", "ddp-bucket-size"
    ),
    **_unused(
        "DeepSpeed is not needed",
        "deepspeed",
        "zero-stage",
        "no-pipeline-parallel",
        "deepspeed-activation-checkpointing",
    ),
    **_unused(
        "--curriculum or --data-efficiency-config switches it on", "data-efficiency-curriculum-learning"
    ),
    **_unused(
        "checkpoints are safetensors files",
        "ckpt-format",
        "dist-ckpt-strictness",
        "auto-detect-ckpt-format",
        "async-save",
    ),
    **_unused("there is no random state to save; every draw is keyed", "no-save-rng", "no-load-rng"),
    **_unused(
        "it is always logged, or not measured here",
        "log-validation-ppl-to-tensorboard",
        "log-learning-rate-to-tensorboard",
        "log-batch-size-to-tensorboard",
        "log-num-zeros-in-grad",
        "log-optimizer-states-to-tensorboard",
        "log-progress",
        "log-straggler",
        "logging-level",
    ),
    **_unused(
        "not needed",
        "manual-gc",
        "manual-gc-interval",
        "empty-unused-memory-level",
        "no-mmap-bin-files",
        "local-rank",
        "local_rank",
    ),
    **_unused(
        "random-LTD and curriculum need no cluster files",
        "data-cluster-path",
        "repeated-dataloader",
        "return-data-index",
    ),
    **_refused(
        "model parallelism is not part of this version; leave it at 1",
        tensor_model_parallel_size="1",
        pipeline_model_parallel_size="1",
        context_parallel_size="1",
        expert_model_parallel_size="1",
        ds_sequence_parallel_size="1",
        num_layers_per_virtual_pipeline_stage="",
    ),
    **_unused(
        "it does nothing without tensor parallelism",
        "sequence-parallel",
        "tp-comm-overlap",
        "partition-activations",
    ),
    **_unused(
        "weights and optimizer states are whole on every rank in this version",
        "use-distributed-optimizer",
        "overlap-param-gather",
    ),
    **_refused("sharded weights are not part of this version", use_torch_fsdp2="", use_megatron_fsdp=""),
    **_refused(
        "mixture of experts is not part of this version; leave it out",
        num_experts="1",
        moe_router_topk="",
        moe_layer_freq="",
    ),
    **_refused("use --bf16, or fp32", fp16="", fp8_format=""),
    **_refused(
        "not part of this version",
        qk_layernorm="",
        quick_geglu="",
        apply_layernorm_1p="",
        window_size="",
    ),
    **_refused(
        "not part of this version",
        multi_latent_attention="",
        mtp_num_layers="",
        fim_data="",
        use_rope_scaling="",
    ),
    **_refused("not part of this version", rotary_seq_len_interpolation_factor="1", decoupled_lr=""),
    **_unused(
        "to save memory, recompute whole layers with --recompute-granularity full",
        "recompute-activations",
        "checkpoint-activations",
        "checkpoint-num-layers",
        "distribute-checkpointed-activations",
    ),
    **_refused("every layer is recomputed by itself", recompute_method="uniform", recompute_num_layers="1"),
    **_refused(
        "not part of this version", apply_query_key_layer_scaling="", use_precision_aware_optimizer=""
    ),
    **_refused("not part of this version", vocab_extra_ids="0", mlp_type="standard"),
    **_refused(
        "write --curriculum seqlen_truncate:min=...,max=...,duration=...", curriculum_learning_legacy=""
    ),
    **_refused(
        "weight decay is constant",
        start_weight_decay="",
        end_weight_decay="",
        weight_decay_incr_style="constant",
    ),
    **_refused(
        "samples are drawn by keyed permutations", dataloader_type="single", data_parallel_random_init=""
    ),
    **_refused("loading the weights alone is --finetune", no_load_optim="", no_save_optim=""),
    "use-checkpoint-opt_param-scheduler": Foreign(
        (), "use --override-opt_param-scheduler to take the flags' schedule"
    ),
    **_refused("use --rampup-batch-size", step_batch_size_schedule=""),
}
