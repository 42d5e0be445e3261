"""What is said of words of other programs that are of machines, checkpoints, schedules, logs and models, and
that no one flag of ours stands for."""

from megatron.elsewhere.answer import Answer

ANSWERS = (
    # Machines
    Answer(
        "it is the launcher's: give it to torchrun, before the script; DeepSpeed, MPI and accelerate are "
        "not needed",
        "deepspeed include exclude force-multi detect-nvlink-pairs deepspeed-slurm deepspeed-mpi "
        "no-ssh-check monitor-interval role rdzv-conf module no-python start-method run-path redirects "
        "tee local-addr numa-binding same-network tpu use-deepspeed use-fsdp use-megatron-lm "
        "use-parallelism-config deepspeed-* mpirun-hostfile multiprocessing-distributed "
        "distributed-init-method distributed-no-spawn distributed-num-procs nprocs-per-node "
        "global-num-gpus tpu-* use-tpu use-mps-device main-training-function num-cpu-threads-per-process "
        "enable-cpu-affinity device-id device-map",
        "--micro-batch-size",
    ),
    Answer(
        "ranks that share no model are replicas, of which torchrun starts more; "
        "--data-parallel-sharding-strategy says what they share",
        "dp-shard-size dp-replicate-size data-parallel-shard-dim sharding-strategy sharded-ddp "
        "dp-config.name zero-sharding use-sharded-state no-reshard-after-forward "
        "hybrid-sharding-num-model-replicas find-unused-* ddp-static-graph enable-loss-parallel "
        "disable-loss-parallel grad-sync-mode sync-module-states",
    ),
    Answer(
        "weights, gradients and states stay where they are computed; --data-parallel-sharding-strategy "
        "shares them among ranks",
        "offload-optimizer* offload-param* activation-cpu-offload fsdp-cpu-offload low-cpu-mem-usage "
        "max-memory init-device",
    ),
    Answer(
        "give --pipeline-model-parallel-layout, which says what lies on every stage",
        "pipe-partition-method pipeline-parallel-split-points module-fqns-per-model-part pipeline-balance "
        "pipeline-parallel-layers-per-stage pipeline-parallel-first-stage-less-layers "
        "pipeline-parallel-last-stage-less-layers activations-checkpoint-layers-per-pipeline",
    ),
    Answer(
        "the micro-batches of a pipeline are those of --global-batch-size and --micro-batch-size",
        "pipeline-chunks pipeline-parallel-microbatch-size num-micro-batches",
    ),
    Answer(
        "one implementation of attention is chosen by --attention-backend; other kernels are not built in",
        "flash flash-attn-* flash-optimum use-flex-attn flex-attention eager-attention s2-attention "
        "use-triton use-flashfft liger-* use-liger-kernel cut-cross-entropy fused-loss fast-norm",
    ),
    Answer(
        "give the batch that fits by --micro-batch-size; --recompute-granularity full takes less memory",
        "gradient-checkpointing-* activation-checkpointing-kwargs recompute-layer per-op-sac-* "
        "auto-find-batch-size max-memory-mb memory-budget memory-saving-gradients",
    ),
    # Numbers
    Answer(
        "no index is built or cached; leave it out",
        "index-mapping-dir path-to-cache data-cache-dir",
        "--num-layers",
    ),
    Answer(
        "give --curriculum for one, such as seqlen_truncate:min=...,max=...,duration=...",
        "curriculum-learning-config",
    ),
    Answer(
        "masking is said by --mask-prob, --masking, --mask-unit and --mask-ngrams",
        "mask-stdev plm-probability freq-weighted-replacement",
    ),
    Answer(
        "a model is a folder of this machine, named by --load; nothing is fetched, and no code of it is run; "
        "leave it out",
        "revision model-revision tokenizer-revision token use-auth-token access-token cache-dir "
        "use-fast-tokenizer trust-remote-code ignore-mismatched-sizes revision-of-model",
        "--valid-file",
    ),
    Answer(
        "results are written to --save, with the weights beside them where --save-model is given, at the end",
        "save-every",
    ),
    Answer(
        "validation has texts of its own, in --valid-file",
        "validation-split-percentage val-set-size val-size",
    ),
    # Checkpoints
    Answer(
        "weights of Hugging Face are read and written by tools/convert_checkpoint.py; leave it out",
        "initial-load-in-hf last-save-in-hf only-hf-checkpoint export-dtype only-composer-checkpoint "
        "hf-checkpoint init-from-nemo-model always-save-nemo save-nemo-on-train-end",
        "--lr",
    ),
    Answer(
        "give --load FOLDER --finetune, which take the weights alone and begin at step 0",
        "model-weights-only load-only",
    ),
    Answer(
        "where --save and --load name one folder, a run goes on where a checkpoint lies there, and begins "
        "anew where none does",
        "try-load-latest-save continue-once use-checkpoint load-strategy",
    ),
    Answer(
        "a run that goes on takes the samples behind those that it has had, without reading these again",
        "restore-dataloader fast-forward-batches skip-first-batches skip-remainder-batch "
        "enable-ft-dataloader-checkpoints",
        "--train-samples",
    ),
    Answer(
        "give --save FOLDER, and --save-interval N where more than the end is to be saved",
        "enable-checkpoint enable-checkpointing checkpoint.enable create-checkpoint-callback "
        "save-final-state save-initial-state no-save no-last-checkpoints no-epoch-checkpoints "
        "save-frequency save-most-recent save-interval-ephemeral ephemeral-save-interval "
        "save-interval-unsharded",
    ),
    Answer(
        "checkpoints lie in a folder that this machine has mounted, named by --save",
        "remote-save-folder s3-path s3-upload s3-chunk-size remote-sync",
    ),
    # Schedules
    Answer(
        "passes are counted in samples: give --lr-warmup-samples, so many times the samples of a pass",
        "warmup-epochs",
    ),
    Answer(
        "passes are counted in samples, and --eval-interval and --save-interval in steps",
        "val-frequency max-steps-per-epoch steps-per-epoch epoch-repeats",
    ),
    Answer(
        "validations come every --eval-interval steps, and at the end",
        "initial-validation final-validation eval-on-load validate-after-updates validation.enable "
        "disable-validation",
    ),
    Answer(
        "to try a run, give --exit-interval N, or --dry-run to see its plan",
        "overfit-single-batch train-subset-num-batches dummy",
    ),
    Answer(
        "gradients are clipped by their norm, --clip-grad",
        "clipping-type max-grad-norm-ratio",
    ),
    Answer(
        "the decay is said by --lr-decay-style, --lr-decay-iters, --lr-wsd-decay-iters and --min-lr",
        "lr-noise* warmup-prefix lr-warmup-method lr-warmup-decay lr-cooldown-end epochs-cooldown "
        "lr-div-factor scheduler-kwargs force-anneal power stop-min-lr cooldown-epochs decay-epochs "
        "lr-cycle-* learning-rate-decay-frac lr-decay-starting-step scheduler.units lr-quadratic-warmup",
        "--lr",
    ),
    # Logs
    Answer(
        "a line is written every --log-interval steps, to standard output",
        "log-levels log-on-each-node log-format python-log-level speed-monitor.window-size "
        "log-detail-interval",
    ),
    Answer(
        "--log-throughput does it",
        "tokens-per-second-reporting speed-monitor lr-monitor log-step-timing",
    ),
    Answer(
        "the log line has it in any case; leave it out",
        "log-gradient-norm",
        "--log-interval",
    ),
    Answer(
        "--log-memory-to-tensorboard logs memory",
        "memory-monitor memory-profiling memory-profiling-path skip-memory-metrics",
    ),
    Answer(
        "--profile, --profile-step-start and --profile-step-end write a trace",
        "profiler-active profiler-warmup torch-profiling python-profiling nsys-profile.enabled "
        "use-nsys-profiler profiler-steps trace",
    ),
    Answer(
        "set WANDB_RUN_GROUP, WANDB_TAGS, WANDB_NOTES or WANDB_RUN_ID in the environment, beside "
        "--wandb-project",
        "wandb.group wandb.tags log.group",
    ),
    Answer(
        "scalars go to --wandb-project, --tensorboard-dir and --metrics-file; leave it out",
        "comet-* mlflow-* trackio-* azureml-logging json-summary plot-loss",
    ),
    # Data
    Answer(
        "texts are made into tokens before a run, by tools/preprocess_data.py, and named by --data-path; "
        "leave it out",
        "dataset-text-field streaming dataset-streaming keep-linebreaks overwrite-cache cache-dir "
        "preprocessing-num-workers dataset-num-proc dataset-processes dataset-prepared-path "
        "chars-per-token dataset-config dataset-config-name data-remote dataset-kwargs tokens-folder "
        "text-column text-column-name text-column-names memmap-dtype dataset-batch-size "
        "pretraining-dataset excess-length-strategy num-of-sequences add-bos-token sample-break-mode",
        "--num-layers",
    ),
    Answer(
        "datasets are mixed by weights before their prefixes: --data-path 0.3 A 0.7 B",
        "datasets data-stages streams mix mixture data-mix interleave-probs mix-strategy data.weights "
        "train-data-upsampling-factors",
        "--num-layers",
    ),
    Answer(
        "tokens are read without worker processes, and images with --image-workers",
        "num-loading-workers data-workers memmap-workers j",
    ),
    # Models
    Answer(
        "linear layers have biases, unless --disable-bias-linear is given, beside which --add-qkv-bias gives "
        "queries, keys and values theirs",
        "attention-bias qkv-bias qkv-proj-bias attn-bias mlp-bias lm-head-bias",
    ),
    Answer("norms have biases, unless --disable-norm-bias is given", "use-bias-in-norms bias-for-layer-norm"),
    Answer(
        "heads share keys and values by --group-query-attention and --num-query-groups",
        "multi-query-attention multi-query mqa use-gqa",
    ),
    Answer(
        "this part of a model is not built here; leave it out",
        "teacher-model distillation-* scalenorm-epsilon use-qk-layernorm use-qk-norm norm-qk qk-ln "
        "qk-norm attention-logit-softcapping clip-qkv scale-embeddings scale-emb-init logit-scale "
        "scale-logits shared-attention-norm post-attention-norm norm-after rpe-* gmlp-* headscale "
        "cross-attention add-cross-attention drop-connect drop-block head-init-scale head-init-bias "
        "num-unique-layers param-sharing-style attention-layer-norm embedding-layer-norm "
        "adaptive-softmax-cutoff normalize-attention-scores scale-attn-by-inverse-layer-idx "
        "reorder-and-upcast-attn rope-interleaved",
        "--num-layers",
    ),
    Answer(
        "--rotary-seq-len-interpolation-factor says it, and --use-rope-scaling for Llama 3.1",
        "rope-condense-ratio seq-len-interpolation-factor rope-scaling rope-parameters rope-scaling-type",
    ),
    Answer(
        "--moe-router-load-balancing-type says it",
        "router-type",
    ),
    Answer(
        "--position-embedding-type says it, too",
        "learned-pos-emb decoder-learned-pos no-token-positional-embeddings",
    ),
    Answer(
        "the loss is that of the next token, wherever no end of a document masks it; leave it out",
        "train-on-inputs completion-only-loss assistant-only-loss loss-on-targets-only mask-prompt dpo-beta "
        "kto-beta",
        "--eod-mask-loss",
    ),
    # Other programs' work
    Answer(
        "tools/evaluate.py asks a checkpoint the tasks of the harness; leave it out",
        "tasks limit icl-tasks icl-max-seq-len icl-subset-num-batches evaluators eval-tasks "
        "core-metric-every lighteval num-fewshot char-level-ppl",
        "--train-tokens",
    ),
    Answer(
        "text is generated by tools/generate_text.py; leave the words about that out",
        "max-new-tokens eval-max-new-tokens do-sample num-beams sample-every sample-length sample-num "
        "predict-with-generate generation-* prompt-end return-logits enable-kv-cache nsamples "
        "generate-strategy",
        "--lr",
    ),
)
