"""Flags of Megatron-LM and Megatron-DeepSpeed that are not ours, by families.

Every family has one reason. Flags that would change the model, the data, the numbers or what is saved are
refused. Flags that change none of these are read and do nothing. Some are other words for flags of ours.
A name stands with the values that change nothing: `name=1|none`, and `name=` where none is given.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from megatron.config.foreign import ANY, Foreign, Translation, dashed, is_our
from megatron.config.model import ModelConfig
from megatron.config.parallel import GRADIENTS, WEIGHTS, ParallelConfig
from megatron.config.values import flatten


def _entries(text: str) -> dict[str, tuple[str, ...]]:
    """Names and the values that change nothing."""
    pairs = (word.partition("=") for word in text.split())
    return {name: tuple(values.split("|")) if equals else () for name, equals, values in pairs}


def _refused(why: str, text: str, needs: str = "", moot: str = "") -> dict[str, Foreign]:
    """`needs`: these change nothing where none of those flags is given, or (`moot`) where that one is."""
    return {
        name: Foreign(values, why, needs=tuple(needs.split()), moot=moot)
        for name, values in _entries(text).items()
    }


def _unused(why: str, text: str) -> dict[str, Foreign]:
    return {name: Foreign(None, why, quiet=values) for name, values in _entries(text).items()}


def _always(why: str, text: str) -> dict[str, Foreign]:
    """They ask for what is so in any case."""
    return {name: Foreign(None, why, quiet=(ANY,)) for name in text.split()}


def _grouped_queries(given: list[str], _: Mapping[str, Any]) -> dict[str, list[str]]:
    return {"group_query_attention": ["true"], "num_query_groups": given}


def _no_learned_positions(_: list[str], raw: Mapping[str, Any]) -> dict[str, list[str]]:
    """Rotary positions have no embedding, so that the flag says nothing beside them."""
    given = [
        *flatten(raw.get("use_rotary_position_embeddings")),
        *flatten(raw.get("position_embedding_type")),
    ]
    rotary = any(str(value).lower() in ("true", "rope") for value in given)
    return {} if rotary else {"position_embedding_type": ["none"]}


def _profiled_steps(given: list[str], _: Mapping[str, Any]) -> dict[str, list[str]]:
    start, _comma, end = ",".join(given).partition(",")
    return {"profile_step_start": [start], "profile_step_end": [end]}


def _zero_stage(given: list[str], _: Mapping[str, Any]) -> dict[str, list[str]]:
    """The first stage shares the optimizer's states, the second gradients too, the third weights too."""
    stage = " ".join(given)
    if stage in ("0", "1"):
        return {} if stage == "0" else {"use_distributed_optimizer": ["true"]}
    return {"data_parallel_sharding_strategy": [{"2": GRADIENTS, "3": WEIGHTS}.get(stage, stage)]}


def _deepspeed(given: list[str], _: Mapping[str, Any]) -> dict[str, list[str]]:
    """A switch of Megatron-DeepSpeed, and the name of the JSON in transformers and what is built on it."""
    named = bool(given) and " ".join(given).lower() != "true"
    return {"data_efficiency_config": given} if named else {}


def _stages(given: list[str], _: Mapping[str, Any]) -> dict[str, list[str]]:
    """gpt-neox writes 0 where there is no pipeline."""
    return {"pipeline_model_parallel_size": ["1"] if given == ["0"] else given}


def _kept_weights(_: list[str], raw: Mapping[str, Any]) -> dict[str, list[str]]:
    """Weights that stay whole behind the forward pass, where fully_shard is asked for."""
    asked = flatten(raw.get("use_torch_fsdp2"))
    on = asked and str(asked[0]).lower() != "false"
    return {"data_parallel_sharding_strategy": [GRADIENTS]} if on else {}


def _top_experts(given: list[str], _: Mapping[str, Any]) -> dict[str, list[str]]:
    """DeepSpeed weighs one expert by its score among all, and several by theirs among each other."""
    return {"moe_router_topk": given} | ({"moe_router_pre_softmax": ["true"]} if given == ["1"] else {})


def _expert_interval(given: list[str], raw: Mapping[str, Any]) -> dict[str, list[str]]:
    """The last of every so many layers, where Megatron-LM takes the first."""
    words = [" ".join(given), *map(str, flatten(raw.get("num_layers")))]
    if len(words) != 2 or not all(word.isdigit() and int(word) for word in words):
        return {}
    each, layers = map(int, words)
    return {"moe_layer_freq": [f"([0]*{each - 1}+[1])*{layers // each}+[0]*{layers % each}"]}


def _usual_experts(raw: Mapping[str, Any]) -> str:
    """What Megatron-DeepSpeed takes of experts where it is not given, and is otherwise here."""
    given = {dashed(name.removeprefix("foreign-")) for name in raw}
    number = " ".join(map(str, flatten(raw.get("num_experts"))))
    usual = [words for words, names in USUAL_EXPERTS.items() if given.isdisjoint(names.split())]
    if not number.isdigit() or int(number) < 2 or not usual:
        return ""
    return (
        f"Megatron-DeepSpeed takes {' '.join(usual)} where that is not given, and here other values "
        "count; give it to have the same model"
    )


USUAL_EXPERTS = {
    "--topk 1": "topk moe-router-topk",
    "--expert-interval 2": "expert-interval moe-expert-interval moe-layer-freq",
    "--moe-loss-coeff 0.1": "moe-loss-coeff moe-aux-loss-coeff",
    "--moe-train-capacity-factor 1": "moe-train-capacity-factor moe-expert-capacity-factor "
    "disable-moe-token-dropping",
}
"""Defaults of Megatron-DeepSpeed, and the flags of which one says otherwise."""

TRANSLATED: dict[str, Translation] = {
    "checkpoint-activations": is_our("recompute_granularity", "full"),
    "recompute-activations": is_our("recompute_granularity", "selective"),
    "num-key-value-heads": _grouped_queries,
    "layernorm-epsilon": is_our("norm_epsilon"),
    "rotary-position-embeddings-theta": is_our("rotary_base"),
    "no-position-embedding": _no_learned_positions,
    "tokenizer-name-or-path": is_our("tokenizer_model"),
    "encoder-num-layers": is_our("num_layers"),
    "encoder-seq-length": is_our("seq_length"),
    "no-pad-vocab-size": is_our("make_vocab_size_divisible_by", "1"),
    "disable-pad-vocab-size": is_our("make_vocab_size_divisible_by", "1"),
    "override-lr-scheduler": is_our("override_opt_param_scheduler", "true"),
    "persistent-save-interval": is_our("save_interval"),
    "deepscale-config": is_our("data_efficiency_config"),
    "deepspeed": _deepspeed,
    "profile-steps": _profiled_steps,
    "zero-stage": _zero_stage,
    "torch-fsdp2-no-reshard-after-forward": _kept_weights,
    "block-size": is_our("seq_length"),
    "pipe-parallel-size": _stages,
    "model-parallel-size": is_our("tensor_model_parallel_size"),
    "n-layer": is_our("num_layers"),
    "n-head": is_our("num_attention_heads"),
    "n-embd": is_our("hidden_size"),
    "max-iters": is_our("train_iters"),
    "learning-rate": is_our("lr"),
    "enable-zbh1-pipeline": is_our("pipeline_schedule", "zero-bubble"),
    "topk": _top_experts,
    "moe-loss-coeff": is_our("moe_aux_loss_coeff"),
    "moe-train-capacity-factor": is_our("moe_expert_capacity_factor"),
    "moe-expert-parallel-size": is_our("expert_model_parallel_size"),
    "expert-interval": _expert_interval,
    "moe-expert-interval": _expert_interval,
}

NOT_YET = "is not built here yet; leave that out"
CURRICULUM = (
    "give --curriculum for one, such as seqlen_truncate:min=...,max=...,duration=..., or "
    "--data-efficiency-config"
)

OF_THE_CHECKPOINT: dict[str, Foreign] = {
    dashed(name): Foreign(
        None, "the checkpoint says it, and is read by one process, whatever ranks have written it"
    )
    for name in (
        *(one.name for group in (ModelConfig, ParallelConfig) for one in dataclasses.fields(group)),
        *("reset_position_ids", "reset_attention_mask", "eod_mask_loss"),
    )
}
"""Flags of a model and its layout, in front of tools that take both from a checkpoint."""

FOREIGN_FLAGS: dict[str, Foreign] = {
    **{
        name: Foreign(None, "it is another word for a flag of ours", ours=ours)
        for name, ours in TRANSLATED.items()
    },
    # Parallelism
    **_refused(
        "these ways of sharing are not built here; leave it at 1",
        """ds-sequence-parallel-size=1 tensor-parallel-num-weight-shards=1
        expert-tensor-parallel-num-weight-shards=1 hierarchical-context-parallel-sizes=1""",
    ),
    **_refused(
        "give --pipeline-model-parallel-layout to say what lies on which stage",
        "pipeline-model-parallel-split-rank standalone-embedding-stage",
    ),
    **_refused(
        f"sequence and context parallelism {NOT_YET}",
        "ds-sequence-parallel-fpdt force-ds-sequence-parallel hybrid-context-parallel",
    ),
    **_always(
        "it tunes a parallelism that is not built here",
        """tp-comm-* no-tp-comm-* disable-tp-comm-*
        ds-sequence-parallel-fpdt-* max-seqlen-per-dp-cp-rank no-async-tensor-model-parallel-allreduce
        pipeline-model-parallel-comm-backend no-overlap-p2p-communication overlap-p2p-communication
        overlap-p2p-communication-warmup-flush microbatch-group-size-per-virtual-pipeline-stage
        no-align-grad-reduce disable-align-grad-reduce no-align-param-gather defer-embedding-wgrad-compute
        wgrad-deferral-limit use-ring-exchange-p2p no-scatter-gather-tensors-in-pipeline
        no-pipeline-parallel use-mp-args-from-checkpoint-args partition-activations
        distribute-saved-activations distribute-checkpointed-activations scattered-embeddings
        enable-expert-tensor-parallelism high-priority-a2a-comm-stream delay-wgrad-compute
        ep-overlap-early-attn-memory-release symmetric-ar-type""",
    ),
    **_unused(
        "what ranks share is shared by rows of every weight, and stays where it is computed",
        """overlap-param-gather-with-optimizer-step zero-* remote-device=none use-pin-memory
        no-use-layer-wise-param-layout gtp-*""",
    ),
    **_always("updated weights arrive while the next forward pass runs", "overlap-param-gather"),
    **_always("DeepSpeed is not needed", "deepscale"),
    **_refused(
        "what is shared is not shared again between --num-distributed-optimizer-instances; leave that out",
        "outer-dp-sharding-strategy=no_shard",
    ),
    **_always(
        "--data-parallel-sharding-strategy says what is shared, and models are built without memory",
        "use-megatron-fsdp use-custom-fsdp init-model-with-meta-device",
    ),
    **_unused(
        "it tunes sharded weights, which PyTorch's fully_shard tunes itself",
        """megatron-fsdp-* fsdp-* suggested-communication-unit-size create-all-gather-group
        enable-full-sharding-in-hsdp keep-fp8-transpose-cache""",
    ),
    **_always(
        "gradients are always accumulated in fp32, and reduced while the backward pass runs",
        """accumulate-allreduce-grads-in-fp32 overlap-grad-reduce DDP-impl ddp-bucket-size ddp-num-buckets
        ddp-pad-buckets-for-high-nccl-busbw ddp-reduce-scatter-with-fp32-accumulation
        ddp-average-in-collective ddp-param-name-patterns-for-fp32-local-accumulation
        no-contiguous-buffers-in-local-ddp no-gradient-accumulation-fusion
        no-gradient-reduce-div-fusion""",
    ),
    **_unused(
        "torch.distributed is used as it is",
        """use-sharp sharp-enabled-group use-nccl-ub disable-symmetric-registration
        nccl-communicator-config-path high-priority-stream-groups disable-gloo-process-groups
        distributed-timeout-seconds-after-init flight-recorder-* no-flight-recorder-*
        disable-flight-recorder-* lazy-mpu-init nccl-all-reduce-for-prefill""",
    ),
    **_refused("give --dry-run to see a run of many ranks on one", "fake-process-group"),
    # Model
    **_refused(
        f"this part of a model {NOT_YET}",
        """apply-layernorm-1p apply-query-key-layer-scaling
        attention-output-gate qk-layernorm qk-l2-norm apply-wd-to-qk-layernorm quick-geglu
        activation-func-clamp-value glu-linear-offset=0 softmax-type=vanilla no-rope-freq=0
        rotary-interleaved mrope-section
        multi-latent-attention experimental-attention-variant hybrid-layer-pattern
        hybrid-override-pattern is-hybrid-model heterogeneous-layers-config-path
        heterogeneous-layers-config-encoded-json mtp-num-layers=0 enable-mhc-connections use-mup
        decoder-num-layers num-experts-switch mlp-type=standard retro-add-retriever spec=local
        rope-type=rope linear-attention-freq""",
    ),
    **_unused(
        "it belongs to a model that is not built here, and does nothing without it",
        """rotary-scaling-factor mscale mscale-all-dim q-lora-rank
        kv-lora-rank qk-head-dim qk-pos-emb-head-dim v-head-dim cache-mla-latents mla-down-proj-fusion
        mtp-* yarn-* no-yarn-* relative-attention-* dsa-* no-dsa-* disable-dsa-* linear-* mhc-* gdp-*
        mamba-* disable-mamba-mem-eff-path mup-* retro-* decoder-seq-length""",
    ),
    **_refused(f"clipping of queries and keys {NOT_YET}", "qk-clip"),
    **_always(
        "tokens are sorted by expert, and computed by grouped products without padding",
        """moe-grouped-gemm moe-permute-fusion moe-router-fusion
        moe-shared-expert-overlap create-moe-param-group use-tutel""",
    ),
    **_unused("in an evaluation no token is dropped", "moe-eval-capacity-factor"),
    **_unused("an expert has room for one token at least", "moe-min-capacity"),
    **_refused(
        "tokens are dropped where an expert has a capacity; leave one of the two out",
        "disable-moe-token-dropping",
        needs="moe-train-capacity-factor moe_expert_capacity_factor",
    ),
    **_refused(
        f"this part of a mixture of experts {NOT_YET}",
        """moe-apply-probs-on-input moe-expert-rank-capacity-factor moe-latent-size moe-router-force-*
        moe-router-quantile-* moe-shared-expert-gate moe-enable-routing-replay""",
        needs="num_experts",
    ),
    **_refused(
        "tools/upcycle_checkpoint.py makes a mixture of a dense checkpoint before the run; leave that out",
        "moe-use-upcycling moe-upcycling-granularity=1",
    ),
    **_unused(
        "it tunes experts, which are computed in one way",
        """moe-enable-deepep moe-deepep-* moe-flex-* moe-hybridep-* moe-ncclep-* moe-paged-*
        moe-routing-trace-* moe-permute-fusion-* moe-single-* moe-combine-* moe-dispatch-*
        moe-layer-recompute moe-mlp-glu-interleave-size moe-shared-expert-glu-interleave-size
        moe-use-grouped-tensor moe-pad-experts-* moe-router-padding-* no-moe-*
        disable-moe-* overlap-moe-expert-parallel-comm overlap-dispatch-backward-with-experts-wgrad
        use-grouped-gemm-for-dense-mlp use-grouped-gemm-for-shared-expert
        use-fused-weighted-squared-relu""",
    ),
    **_refused(
        "the first weights are drawn from one normal distribution; give its --init-method-std alone",
        "init-method-xavier-uniform embedding-init-method-std",
    ),
    **_refused(
        "all weights are trained, and drawn alike on all ranks; leave that out",
        "freeze-all-layers data-parallel-random-init",
    ),
    **_refused(
        "the loss is that of the next token alone; leave that out",
        "logits-save-dir logits-load-dir kd mos sft perform-rl-step",
    ),
    **_unused(
        "it belongs to distillation, fine-tuning or reinforcement learning, which are not built here",
        """logits-* kd-* *-teacher load-teacher sft-tokenizer-prompt-format chat-template rl-* no-rl-* grpo-*
        langrl-* refit-method""",
    ),
    # Numbers
    **_refused(
        "the loss is computed in fp32; leave that out",
        "fp16-lm-cross-entropy",
    ),
    **_refused("use --bf16, --fp16 or fp32", "fp8-format fp8-e4m3 fp8-hybrid fp4-format fp8=none fp4=none"),
    **_unused(
        "it tunes fp8 or fp4, which are not built here",
        """fp8-* no-fp8-* disable-fp8-* fp4-* first-last-layers-bf16 num-layers-at-start-in-bf16
        num-layers-at-end-in-bf16 reuse-grad-buf-for-mxfp8-param-ag""",
    ),
    **_refused(
        f"another precision of a part of the model or the optimizer {NOT_YET}",
        """fp32-residual-connection te-precision-config-file output-logit-dtype
        disable-bf16-reduced-precision-matmul batch-invariant-mode use-precision-aware-optimizer
        main-grads-dtype=fp32 main-params-dtype=fp32 exp-avg-dtype=fp32 exp-avg-sq-dtype=fp32""",
    ),
    **_always("queries are never scaled by the layer's number", "no-query-key-layer-scaling"),
    **_always(
        "it is always so",
        """attention-softmax-in-fp32 embedding-weights-in-fp32 calculate-per-token-loss
        load-main-params-from-ckpt exit-signal-handler exit-signal-handler-for-dataloader
        exit-signal-handler-for-training no-save-rng no-load-rng te-rng-tracker
        inference-rng-tracker use-pytorch-profiler use-cpu-initialization use-mcore-models
        perform-initialization no-create-attention-mask-in-dataloader mmap-warmup use-dist-ckpt
        enable-zbh1-exact-semantics""",
    ),
    **_refused(
        "weight decay is constant, and by shape alone; give --weight-decay alone",
        """start-weight-decay end-weight-decay
        weight-decay-incr-style=constant no-weight-decay-cond-type""",
    ),
    **_refused(
        "all weights have one learning rate; give --lr and --min-lr alone", "decoupled-lr decoupled-min-lr"
    ),
    **_unused(
        "the optimizer is AdamW, by PyTorch",
        """sgd-momentum lion-* muon-* cpu-optimizer cpu-torch-adam
        ds-fused-adam torch-adam optimizer-cpu-offload optimizer-offload-fraction optimizer-cuda-graph
        use-torch-optimizer-for-cpu-offload overlap-cpu-optimizer-d2h-h2d no-pin-cpu-grads no-pin-cpu-params
        qk-clip-* dump-param-to-param-group-map""",
    ),
    **_refused("use --rampup-batch-size", "step-batch-size-schedule"),
    **_refused(
        "the batch of all ranks is --global-batch-size, which is --micro-batch-size x data-parallel ranks x "
        "accumulated micro-batches; give that",
        """gradient-accumulation-steps gradient-accumulation-iters gas accumulate-grad-batches
        train-batch-size""",
    ),
    **_refused(
        "the batch of one rank's forward pass is --micro-batch-size; give that",
        "train-micro-batch-size-per-gpu",
    ),
    **_refused(
        "every step is trained, in one phase; leave that out, or go on from a step before a spike with "
        "--ckpt-step, --override-opt_param-scheduler and a smaller --clip-grad",
        """iterations-to-skip phase-transition-iterations skip-train-iteration-range skip-iteration-range
        skip-iterations train-range-to-skip skip-samples-range skip-batches max-loss-to-skip-batch
        auto-skip-spiky-loss spiky-loss-threshold""",
    ),
    **_unused("a batch that does not divide is a mistake and told", "decrease-batch-size-if-needed"),
    # Data
    **_unused(
        "no index is built or cached",
        """data-cache-path dataloader-fast-cache-load dataloader-defer-npy-index-mmap
        per-dataset-sequences-path object-storage-cache-path num-dataset-builder-threads=1
        mid-level-dataset-surplus=0.005""",
    ),
    **_unused("samples are windows of the token stream, pass after pass", "train-data-exact-num-epochs"),
    **_unused(
        "difficulty belongs to our own sample order; give --difficulty-path",
        "train-doc-idx-path train-sample-idx-path train-shuffle-idx-path train-idx-path train-desc-path",
    ),
    **_unused(
        "random-LTD and curriculum need no cluster files",
        "data-cluster-path repeated-dataloader return-data-index",
    ),
    **_unused(CURRICULUM, "data-efficiency-curriculum-learning"),
    **_refused(CURRICULUM, "curriculum-learning-legacy curriculum-learning"),
    **_unused(
        "datasets are memory-mapped .bin and .idx files, read without worker processes",
        """data-impl=mmap|infer num-workers=0|2 no-mmap-bin-files enable-msc disable-msc no-data-sharding""",
    ),
    **_refused("samples are drawn by keyed permutations; leave that out", "dataloader-type=single"),
    **_refused("give --reset-attention-mask to keep documents apart", "dataloader-inter-document-masking"),
    **_refused(
        "write what the file says as lists under data_path, or train_data_path and its fellows, in a YAML "
        "file, and give that by --config, however many paths there are",
        """data-args-path per-split-data-args-path train-weighted-split-paths-path
        valid-weighted-split-paths-path test-weighted-split-paths-path""",
    ),
    **_refused("write whole paths behind --data-path", "aml-data-download-path"),
    **_refused(
        "write each weight before its path: --train-data-path 0.3 A 0.7 B, and so with --valid-data-path and "
        "--test-data-path; without weights a dataset counts by its samples",
        """train-data-paths valid-data-paths test-data-paths train-data-weights valid-data-weights
        test-data-weights weight-by-num-documents weighted-sampler-alpha train-weighted-split-paths
        valid-weighted-split-paths test-weighted-split-paths""",
    ),
    **_refused(f"it {NOT_YET}", "fim-data sample-rate=1 allow-ambiguous-pad-tokens use-dataset-only"),
    **_unused("it does nothing without --fim-data", "fim-*"),
    **_refused(
        "a validation is of the first --eval-iters global batches of all data; give that alone, and evaluate "
        "the rest with tools/evaluate.py",
        "full-validation eval-global-batch-size",
    ),
    **_unused(
        "every dataset has a validation loss of its own; its part of the windows is that of its weight",
        "multiple-validation-sets",
    ),
    **_unused(
        "it does not change what is evaluated",
        "eval-micro-batch-size validation-set-names start-eval-at-iter=0 test-mode",
    ),
    # Tokenizer
    **_unused(
        "training reads token ids; the tokenizer only counts them",
        """tokenizer-metadata tokenizer-hf-* tokenizer-sentencepiece-* no-tokenizer-sentencepiece-*
        disable-tokenizer-sentencepiece-* trust-remote-code use-gigatoken legacy-tokenizer
        no-use-tokenizer-model-from-checkpoint-args disable-use-tokenizer-model-from-checkpoint-args
        no-save-tokenizer-assets disable-save-tokenizer-assets""",
    ),
    **_refused(
        "the tokens are those that the tokenizer's files name; leave that out, or give "
        "--make-vocab-size-divisible-by to pad them",
        """vocab-extra-ids=0
        padded-vocab-size pad-vocab-size-to null-tokenizer-eod-id null-tokenizer-pad-id""",
    ),
    **_refused(
        "give it to tools/preprocess_data.py, to which it belongs",
        """input output-prefix json-keys append-eod split-sentences keep-newlines lang partitions
        dataset-impl""",
    ),
    **_refused(
        "it is of tools/preprocess_data.py; give --image-workers for the threads that decode images",
        "workers",
    ),
    # Checkpoints
    **_unused(
        "checkpoints are safetensors files with checksums, read on any number of ranks",
        """ckpt-format=torch_dist|torch auto-detect-ckpt-format dist-ckpt-* distrib-optim-*
        ckpt-fully-parallel-* no-ckpt-fully-parallel-save
        ckpt-assume-constant-structure
        ckpt-drop-redundant-extra-state ckpt-pg-tensors-cache-* no-ckpt-load-validate-sharding-integrity
        disable-ckpt-load-validate-sharding-integrity no-strict-fsdp-dtensor-load
        disable-strict-fsdp-dtensor-load verify-integrity universal-checkpoint replication replication-*
        no-initialization checkpoint-io-buffer-size checkpoint-data-parallel checkpoint-writer-decoupled
        aio-intra-op-parallelism ckpt-convert-update-legacy-dist-opt-format""",
    ),
    **_unused(
        "--async-save writes in a thread of every rank",
        "async-ckpt-* async-strategy use-persistent-ckpt-worker",
    ),
    **_refused(f"another format of checkpoints {NOT_YET}", "ckpt-convert-format ckpt-convert-save"),
    **_refused("give --finetune to load the weights alone", "no-load-optim", needs="load", moot="finetune"),
    **_refused("a checkpoint is whole; leave that out", "no-save-optim", needs="save"),
    **_refused("give --load FOLDER --finetune to start from its weights", "reset-iteration", moot="finetune"),
    **_refused(
        "give --save-interval N, which saves every N steps; saves at other steps are not built here",
        "checkpoint-scale=linear checkpoint-factor extra-save-iters",
    ),
    **_refused(
        "the warm-up is linear; leave that out, or give --lr-warmup-init the rate of --lr to stay at it",
        "lr-warmup-style=linear",
    ),
    **_refused("give --ckpt-step to take another step than the newest", "load-tag override-ckpt-iteration"),
    **_refused(
        "use --override-opt_param-scheduler to take the flags' schedule",
        "no-load-lr-state",
        needs="load",
        moot="finetune",
    ),
    **_refused(
        "a run that goes on keeps the schedule of its checkpoint, and refuses flags that say otherwise; "
        "leave out --override-opt_param-scheduler, which takes theirs",
        "use-checkpoint-opt-param-scheduler use-checkpoint-lr-scheduler",
        needs="override_opt_param_scheduler override-lr-scheduler",
    ),
    **_refused(
        "whole checkpoints are saved; give --save-interval alone",
        """non-persistent-save-interval save-params-interval save-activations-interval save-dgrads-interval
        save-wgrads-interval save-tokens-per-expert-interval""",
    ),
    **_unused("checkpoints are saved by --save-interval alone", "non-persistent-*"),
    # Memory and speed
    **_unused(
        "to save memory, recompute whole layers with --recompute-granularity full",
        """checkpoint-num-layers=1 checkpoint-in-cpu contigious-checkpointing
        deepspeed-activation-checkpointing synchronize-each-layer profile-backward
        recompute-modules cpu-offloading cpu-offloading-* fine-grained-* offload-modules
        min-offloaded-tensor-size delta-offload-bytes-across-pp-ranks activation-offload-fraction
        delay-offload-until-cuda-graph mlp-chunks-for-training=1 split-transformers
        memory-centric-tiled-linear tile-factor=1 no-clone-scatter-output-in-embedding
        disable-clone-scatter-output-in-embedding""",
    ),
    **_always(
        "there is one implementation, in PyTorch, with its fusions",
        """transformer-impl use-legacy-models use-flash-attn use-flash-attn-* flash-attention-version
        use-kitchen-attention kitchen-attention-backend no-*-fusion cross-entropy-loss-fusion
        cross-entropy-fusion-impl no-persist-layer-norm disable-mem-efficient-ln fused-residual-rmsnorm
        use-te-activation-func use-transformer-engine-op-fuser disable-jit-fuser batch-invariant-backend
        onnx-safe enable-experimental""",
    ),
    **_unused(
        "nothing is captured in CUDA graphs, and memory is left to PyTorch",
        """cuda-graph-* enable-cuda-graph external-cuda-graph manual-gc manual-gc-interval=0 no-manual-gc-eval
        disable-manual-gc-eval empty-unused-memory-level=0 train-sync-interval""",
    ),
    # Log and watching over a run
    **_unused(
        "it is always logged, or not measured here",
        """log-validation-ppl-to-tensorboard log-learning-rate-to-tensorboard log-batch-size-to-tensorboard
        log-grad-norm log-world-size-to-tensorboard log-optimizer-states-to-tensorboard log-num-zeros-in-grad
        log-max-attention-logit log-progress log-straggler log-energy log-device-memory-used
        log-memory-interval logging-level no-log-learnig-rate-to-tensorboard
        no-log-learning-rate-to-tensorboard
        no-log-loss-scale-to-tensorboard disable-log-loss-scale-to-tensorboard barrier-with-L1-time
        no-barrier-with-level-1-timing config-logger-dir one-logger-* no-one-logger app-tag-run-* otel-*
        pytorch-profiler-collect-* record-memory-history memory-snapshot-path record-shapes nvtx-ranges
        run-workload-inspector-server result-rejected-tracker-filename""",
    ),
    **_unused("a step that is not finite always stops the run", "no-check-for-nan-in-loss-and-grad"),
    **_unused(
        "of a step, it is checked that it is finite; a run that has stopped goes on by the same command",
        """rerun-mode check-for-* check-weight-hash-across-dp-replicas-interval gpu-sniff-test-interval
        straggler-* disable-straggler-on-startup inprocess-* enable-ft-package calc-ft-timeouts
        ft-num-warmup-iters adlr-autoresume adlr-autoresume-interval fault-injector-* error-injection-*""",
    ),
    **_unused(
        "SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 always end a run with a checkpoint",
        "exit-signal=sigterm|sigint|sigusr1|sigusr2",
    ),
    **_refused("SIGTERM ends a run with a checkpoint; leave that out", "kill-switch-file"),
    # Other programs
    **_refused("use tools/generate_text.py to generate text", "inference ds-inference"),
    **_unused(
        "it belongs to generating text or serving, not to training",
        """inference-* no-inference-* flash-decode enable-chunked-prefill decode-only-cuda-graphs
        mlp-chunks-for-prefill num-speculative-tokens use-legacy-static-engine max-tokens-to-oom
        use-same-sampling-seed-across-dp-ranks""",
    ),
    **_unused(
        "it belongs to retrieval, which is not built here yet",
        """bert-embedder-type bert-load output-bert-embeddings ict-* biencoder-*
        retriever-* titles-data-path
        query-in-block-prob use-one-sent-docs evidence-data-path block-data-path embedding-path indexer-*""",
    ),
    **_always("pretrain_vit.py tells the classes of images in any case", "vision-pretraining"),
    **_refused(
        "vision transformers that tell classes are built here, trained by pretrain_vit.py; leave it out",
        "vision-backbone-type=vit vision-pretraining-type=classify head-lr-mult=1",
    ),
    **_unused(
        "it belongs to other ways of pretraining on images, which are not built here",
        "mask-type mask-factor swin-backbone-type iter-per-epoch dino-*",
    ),
    **_refused(
        "the batch of one rank's forward pass is --micro-batch-size, that of all ranks --global-batch-size; "
        "give these",
        "batch-size",
    ),
    **_refused("it is gone in Megatron, too; give --lr-warmup-fraction or --lr-warmup-iters", "warmup"),
}

FOREIGN_FLAGS |= {
    name: FOREIGN_FLAGS[name]._replace(beside=_usual_experts)
    for name in (
        *("topk", "expert-interval", "moe-loss-coeff", "moe-train-capacity-factor"),
        *("moe-eval-capacity-factor", "moe-min-capacity", "moe-expert-parallel-size"),
        *("create-moe-param-group", "disable-moe-token-dropping"),
    )
}
"""Those of Megatron-DeepSpeed's experts tell what it takes for granted."""
