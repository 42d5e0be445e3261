"""What is said of words of other programs about the course of a run, for which no one flag of ours stands:
schedules, the optimizer, what is saved and resumed, precision, ranks."""

from megatron.elsewhere.answer import Answer

ANSWERS = (
    # Schedules
    Answer(
        "--lr-decay-style knows constant, linear, cosine, inverse-square-root and WSD, without cycles, "
        "steps or powers; --lr-decay-iters ends the decay before the run does, which stays at --min-lr "
        "from there",
        "lr-decay-rate lr-gamma gamma lr-power poly-power lr-scheduler-kwargs lr-scheduler-args "
        "lr-num-cycles num-cycles lr-cycle-limit lr-cycle-mul lr-cycle-decay lr-k-decay restart-iters "
        "decay-rate cosine-constant-lr-ratio constant-lr-ratio lr-step-size decay-milestones lr-milestones "
        "pct-start div-factor final-div-factor anneal-strategy lr-noise lr-noise-pct",
        "--lr",
    ),
    Answer(
        "the peak is held by --lr-decay-style WSD, until the last part of --lr-wsd-decay-iters steps; give "
        "both",
        "stable-steps stable-iters num-stable-steps hold-steps lr-hold-steps constant-steps plateau-steps",
    ),
    Answer(
        "the last part of --lr-decay-style WSD is given by its steps, with --lr-wsd-decay-iters; give both",
        "cooldown-fraction cooldown-frac cooldown-ratio decay-fraction decay-frac decay-ratio "
        "lr-decay-ratio lr-decay-fraction wsd-decay-ratio wsd-decay-fraction warmdown-frac warmdown-ratio "
        "annealing-ratio",
    ),
    Answer(
        "the warm-up is linear; leave it out, or give --lr-warmup-init the rate of --lr to stay at it",
        "warmup-style warmup-type lr-warmup-type warmup-mode warmup-strategy lr-warmup-policy",
    ),
    # The optimizer
    Answer(
        "all weights have one learning rate, by --lr; leave it out",
        "embedding-lr lr-embedding embed-lr embedding-lr-scale head-lr lr-head lm-head-lr unembedding-lr "
        "backbone-lr encoder-lr lr-mult lr-multiplier layer-lr matrix-lr scalar-lr llrd",
    ),
    Answer(
        "matrices decay by --weight-decay, the embedding too, and biases and norms do not; leave it out",
        "decoupled-weight-decay no-decay-norm weight-decay-embeddings decay-embeddings decay-norms "
        "decay-bias decay-norm-and-bias no-weight-decay-on-bias no-decay no-weight-decay-params "
        "filter-bias-and-bn embedding-weight-decay bias-weight-decay norm-weight-decay weight-decay-norm "
        "weight-decay-bias weight-decay-exclude wd-exclude",
        "--lr",
    ),
    Answer(
        "the optimizer is AdamW in fp32, fused where it can be; leave it out",
        "fused foreach fused-adamw use-fused-adamw use-fused-optimizer fused-optimizer "
        "optimizer-implementation use-8bit-adam use-8bit adam8bit optim-bits optimizer-bits "
        "optimizer-in-bwd optimizer-in-backward fused-backward-pass",
        "--lr",
    ),
    Answer(
        "gradients are clipped by their norm, with --clip-grad; give that",
        "gradient-clip-algorithm gradient-clip-mode clip-mode clip-type grad-clip-type clip-grad-value "
        "clip-value gradient-clip-value",
    ),
    Answer(
        "a loss or gradient that is not finite ends the run before the update, and with --fp16 a step that "
        "overflows is skipped; leave it out",
        "skip-nan skip-nan-steps skip-nonfinite skip-non-finite nan-guard nan-check check-nan "
        "terminate-on-nan stop-on-nan halt-on-nan abort-on-nan detect-anomaly detect-nan anomaly-mode "
        "logging-nan-inf-filter",
    ),
    Answer(
        "every step is trained; --clip-grad bounds its gradient, and a run goes on from before a spike "
        "with --ckpt-step; leave it out",
        "loss-watchdog-threshold loss-watchdog-patience loss-spike-threshold loss-spike-detection "
        "max-grad-norm-to-skip grad-norm-threshold skip-grad-norm",
    ),
    Answer(
        "all weights are trained; leave it out",
        "freeze freeze-layers freeze-embeddings freeze-embedding freeze-backbone freeze-encoder "
        "freeze-model freeze-body freeze-parameters freeze-params freeze-lm-head freeze-bottom-layers "
        "freeze-first-n-layers num-frozen-layers frozen-layers unfreeze unfreeze-layers unfreeze-last-n "
        "unfrozen-parameters freeze-bert linear-probe trainable-parameters trainable-params trainable-layers",
        "--lr",
    ),
    Answer(
        "the loss is that of the next token alone, from logits as they are; leave it out",
        "goldfish-loss goldfish-k goldfish-h "
        "z-loss-coeff z-loss-weight z-loss-multiplier softmax-auxiliary-loss auxiliary-loss-multiplier "
        "softcap softcapping logit-softcap logit-softcapping final-logit-softcapping "
        "attn-logit-softcapping",
        "--num-layers",
    ),
    # Going on
    Answer(
        "--finetune takes the weights of --load alone and starts at step 0; give both",
        "reset-optimizer reset-optimizers reset-optim reset-optimizer-state reset-optimizer-states "
        "reset-trainer-state reset-dataloader reset-meters ignore-optimizer load-optimizer load-optim "
        "load-optimizer-states load-weights-only load-model-only load-only-model only-load-model "
        "initial-load-model-only no-resume-opt finetune-from finetune-from-model init-ckpt init-weights "
        "load-weights pretrained-weights base-checkpoint initialize-from",
    ),
    Answer(
        "--override-opt_param-scheduler goes on with the learning rate and schedule of the flags; give that",
        "reset-lr-scheduler reset-scheduler reset-lr reset-learning-rate reset-lr-schedule override-lr "
        "override-learning-rate load-lr-scheduler no-load-lr-scheduler ignore-lr-scheduler",
    ),
    Answer(
        "with --load and --save of one folder a run goes on where a checkpoint lies there, and begins "
        "where none does; give both",
        "auto-resume autoresume resume-if-exists resume-ignore-no-checkpoint resume-from-latest "
        "resume-latest restart-on-failure auto-resume-from-checkpoints",
        "--ckpt-step",
    ),
    Answer(
        "a run goes on at the step of its checkpoint, with the samples that follow; --ckpt-step takes "
        "another checkpoint; leave it out",
        "consumed-train-samples consumed-samples skip-samples "
        "ignore-data-skip skip-batch start-step start-iter start-iteration start-epoch initial-step "
        "resume-step global-step",
    ),
    # Saving
    Answer(
        "a checkpoint is whole, so that a run can go on from it; leave it out",
        "save-only-model save-model-only save-weights-only save-optimizer save-optim save-optimizer-state "
        "no-save-optimizer no-save-optimizer-state last-save-model-only weights-only-checkpoint save-rng "
        "save-ignore-keys force-save-unsharded sharded-checkpointer",
        "--save-interval",
    ),
    Answer(
        "a run with --save saves at its end, also where a signal or --exit-duration-in-mins ends it; leave "
        "it out",
        "save-last save-last-ckpt save-final save-final-model save-final-checkpoint save-at-end "
        "save-at-exit save-on-exit save-on-signal save-on-interrupt checkpoint-at-end no-save-final "
        "sigterm-handler preemption-handler enable-first-step-checkpoint save-first-step",
    ),
    Answer(
        "intervals are counted in steps, by --save-interval and --eval-interval; give these",
        "save-epochs save-every-epoch save-every-n-epochs save-epoch-interval check-val-every-n-epoch "
        "eval-epochs eval-every-epoch validate-every-n-epoch evals-per-epoch saves-per-epoch",
    ),
    Answer(
        "checkpoints are safetensors, of which tools/convert_checkpoint.py makes a folder of Hugging "
        "Face's; leave it out",
        "save-hf save-hf-checkpoint save-hf-format export-hf hf-save save-safetensors last-save-in-hf "
        "save-consolidated checkpoint-format export-dtype",
        "--save-interval",
    ),
    # Validation and short runs
    Answer(
        "validation comes every --eval-interval steps, and at the end; leave it out",
        "num-sanity-val-steps eval-on-start eval-at-start validate-at-start eval-first val-before-train "
        "eval-delay",
    ),
    Answer(
        "--train-iters N ends a run after N steps, and --dry-run shows one; give one of them",
        "fast-dev-run overfit-batches limit-train-batches max-train-batches smoke-test",
    ),
    # Precision and memory
    Answer(
        "attention is fused where it can be, unless --attention-backend says otherwise; leave it out",
        "flash-attention use-flash-attention use-flash-attention-2 flash-attn use-flash use-sdpa sdpa "
        "sdp-attention use-xformers xformers-attention",
    ),
    Answer(
        "--bf16 or --fp16 says it; give one of them",
        "apex-opt-level opt-level amp-level amp-opt-level amp-backend",
        "--lr",
    ),
    Answer(
        "gradients are summed in fp32, unless --grad-reduce-in-bf16 is given",
        "grad-reduce-in-fp32 reduce-in-fp32 reduce-dtype grad-reduce-dtype grad-dtype",
    ),
    Answer(
        "nothing is moved to the memory of the host; --use-distributed-optimizer shares the optimizer's "
        "states among ranks, and --recompute-granularity full computes activations again; leave it out",
        "offload offload-optimizer optimizer-offload cpu-offload enable-cpu-offload offload-param "
        "offload-params param-offload fsdp-offload-params optim-cpu-offload offload-model zero-offload "
        "offload-activations activation-offload activation-offloading enable-activation-offloading",
    ),
    Answer(
        "--recompute-granularity full computes layers again, in runs of --recompute-num-layers; give these",
        "activation-checkpoint-interval activation-checkpoint-layers checkpoint-every-n-layers "
        "selective-ac-option gradient-checkpointing-kwargs use-reentrant",
    ),
    # Ranks
    Answer(
        "--data-parallel-sharding-strategy says what replicas share: no_shard, optim (ZeRO-1), optim_grads "
        "(ZeRO-2) or optim_grads_params (ZeRO-3); give that",
        "zero zero-level strategy shard-grad-op hsdp reshard-after-forward fsdp-reshard-after-forward "
        "distributed-strategy dist-strategy fsdp-mode",
    ),
    Answer(
        "ranks sum gradients in one way; leave it out",
        "ddp-find-unused-parameters find-unused-parameters static-graph gradient-as-bucket-view "
        "sync-batchnorm broadcast-buffers ddp-broadcast-buffers bucket-cap-mb ddp-bucket-cap-mb "
        "use-distributed-sampler",
        "--micro-batch-size",
    ),
    Answer(
        "how long ranks wait is given in minutes, by --distributed-timeout-minutes; give that",
        "timeout nccl-timeout pg-timeout process-group-timeout init-timeout init-timeout-seconds "
        "train-timeout-seconds distributed-timeout-seconds dist-timeout-seconds",
    ),
    Answer(
        "--deterministic-mode repeats results to the bit on GPUs, and a CPU always does; give that, or "
        "leave it out",
        "deterministic-algorithms cudnn-deterministic cudnn-benchmark",
    ),
    Answer(
        "--seed is of weights, draws and dropout alike, and --data-efficiency-seed of the order of "
        "samples; give one of them",
        "seed-all model-seed dropout-seed dp-seed seed-offset worker-seed",
        "--lr",
    ),
    Answer(
        "texts are read ahead without worker processes, and images by threads, with --image-workers; leave "
        "it out, unless they are images",
        "dataloader-num-workers num-data-workers num-dataloader-workers",
    ),
)
