"""What other programs call our flags, for messages to people who come from them. Names alone: values may
differ in what they count and in what is usual."""

WORDS = {
    # Documents; before the lengths of samples, which preprocessing has, too
    "max-sequence-length": "max-length max-seq-length max-seq-len max-doc-length max-document-length",
    # Lengths of a run, and its batches
    "train-iters": "max-steps steps num-steps total-steps train-steps training-steps num-training-steps "
    "iters n-iters niter iterations num-iterations max-iter max-iterations max-update n-steps stop-at "
    "max-duration num-train-steps n-iter max-steps-total",
    "epochs": "num-train-epochs num-epochs max-epochs n-epochs train-epochs",
    "train-tokens": "num-tokens total-tokens token-budget train.max-tokens",
    "train-samples": "max-samples num-samples train-num-samples",
    "micro-batch-size": "per-device-train-batch-size per-device-batch-size per-device-eval-batch-size "
    "per-gpu-train-batch-size device-batch-size local-batch-size batch-size train-batch-size "
    "eval-batch-size train-micro-batch-size-per-gpu device-train-batch-size device-train-microbatch-size "
    "device-eval-batch-size max-sentences microbatch-size validation-batch-size val-batch-size "
    "max-batch-size rank-microbatch-size batch-size-val batch-size-valid batch-size-per-gpu "
    "per-device-batch b",
    "seq-length": "max-seq-length max-length max-seq-len seq-len sequence-length context-length n-ctx "
    "ctx-size block-size max-source-length model-max-length tokens-per-sample max-sequence-length "
    "sequence-len cutoff-len max-seqlen context-len",
    "exit-interval": "stop-after hard-stop",
    # Learning rates and the optimizer
    "lr": "learning-rate max-lr base-lr peak-lr learning-rate.base peak-learning-rate",
    "min-lr": "lr-min eta-min final-lr end-learning-rate end-lr lr-end min-decay-lr learning-rate.minimum "
    "min-learning-rate",
    "lr-warmup-iters": "warmup-steps num-warmup-steps lr-warmup-steps warmup-iters warmup-updates t-warmup "
    "learning-rate.warmup-iterations",
    "lr-warmup-fraction": "warmup-ratio warmup-fraction warmup-proportion",
    "lr-decay-style": "lr-scheduler-type lr-scheduler lr-schedule scheduler decay-type sched "
    "lr-scheduler.name scheduler.name sched.name learning-rate.decay-style",
    "weight-decay": "wd weight-decay-rate",
    "clip-grad": "max-grad-norm max-norm gradient-clipping gradient-clip-val grad-clip clip-grad-norm "
    "clip-norm gradient-clip-norm clipping-threshold grad-norm-clip clip-gradients clip-value-norm",
    "adam-eps": "adam-epsilon opt-eps eps epsilon optimizer-eps",
    # Where things lie
    "save": "output-dir out-dir save-dir save-path save-folder checkpoint-dir ckpt-dir dump-folder "
    "checkpoints-path checkpoint.folder exp-dir explicit-log-dir experiment-dir output logs-dir "
    "results-dir checkpoint-folder",
    "load": "resume resume-from-checkpoint resume-from init-from ckpt-path load-checkpoint checkpoint "
    "checkpoint-path model-name-or-path model-name pretrained-model-name-or-path model-path "
    "model-args model hf-model hf-path pretrained load-path restore-file load-from restore "
    "restore-from restore-from-path initial-checkpoint initial-load-path resume-checkpoint-path "
    "continue-from initial-checkpoint-dir checkpoint.load checkpoint-dir m ckpt ckpt-dir "
    "init-checkpoint checkpoint-name weights",
    "train-file": "train-data train-dataset dataset dataset-name data data-dir",
    "valid-file": "validation-file eval-file dev-file valid-data",
    "test-file": "predict-file",
    "data-path": "dataset dataset-name dataset-path data data-dir data-file data-files train-data "
    "train-file data-prefix blend data-set data.path data.paths datasets.path dataset.source dataset-dir "
    "input-file data-local dataset-folder corpus-name pretrain-tfrecords dataset-path-or-name prefix "
    "input path-prefix dataset-prefix input-prefix",
    "input": "load-dir files file corpus input-file input-dir train-file text-file checkpoint-path "
    "gpt2-checkpoint-path llama-checkpoint-path pretrained-model-name-or-path model-name-or-path hf-model "
    "hf-path model-path model data-path dataset data-dir model-name checkpoint-dir zero-dir "
    "model-id-or-path composer-path path source-path input-path data-path-or-name dataset-name hf-dataset "
    "remote-dataset train-dataset-path train-dataset data-files input-folder trainpref checkpoint-name "
    "model-dir source-dir checkpoint repo tf-checkpoint-path megatron-model-path hf-model-path "
    "hf-path-or-name ckpt ckpt-path documents jsonl-paths inputs paths input-files data "
    "data.train-data-path train-data-path data-file dataset-path text-files source src megatron-load-path i",
    "output-prefix": "output output-dir out-dir dataset-prefix output-folder output-filename save-filename "
    "destdir dest destination out-root destination-path local-dir dump-path out output-path save-path "
    "save-dir output-file outfile o",
    "output": "save-dir save-path output-dir output-path output-file out-dir out-file outfile model-prefix "
    "pytorch-dump-folder-path destination-dir results-path eval-results-prefix save-filepath destination "
    "target-dir out output-folder output-name hf-output-path name prefix output-prefix megatron-save-path "
    "hf-save-path o",
    "tokenizer-model": "tokenizer tokenizer-name tokenizer-path sp-model spm-model tokenizer-dir "
    "tokenizer.path tokenizer.model tokenizer.identifier tokenizer.name hf-assets-path "
    "tokenizer-name-or-path tokenizer-identifier tokenizer.name-or-path tokenizer-id hf-tokenizer",
    "output-dir": "difficulty-path output save save-path output-path out-dir save-dir",
    "json-keys": "text-key text-column text-field jsonl-keys content-key field column json-key text-keys "
    "field-name key text-column-name",
    "text-column": "text-column-name sentence-column input-columns",
    "label-column": "label-column-name target-column",
    "valid-data-path": "val-data-path validation-file valid-file validpref val-data val-file eval-dataset "
    "input-val-bin validation-data dataset-val val-dataset",
    "train-data-path": "train-file train-files trainpref input-bin train-data-file",
    "test-data-path": "test-file testpref test-data",
    # Logging and validation
    "log-interval": "logging-steps log-freq log-every log-every-n-steps console-log-interval "
    "steps-per-print print-freq iteration-step-info-interval logs.interval logging-strategy "
    "metrics-log-interval metrics-collect-interval",
    "eval-interval": "eval-steps eval-freq eval-every val-check-interval validation-interval "
    "validate-interval validate-interval-updates val-loss-every evaluation-interval val-interval "
    "validation.freq eval.interval validation.interval eval-strategy evaluation-strategy "
    "run-val-every-n-steps val-every eval-iter-interval",
    "eval-iters": "max-eval-batches limit-val-batches eval-subset-num-batches val-max-steps eval.max-iters "
    "validation.steps validation.iterations limit-test-batches max-eval-steps max-valid-steps "
    "eval-batches val-batch-count max-eval-samples",
    "save-interval": "save-steps save-freq save-every checkpoint-interval ckpt-interval save-every-n-steps "
    "checkpoint-every ckpt-every save-interval-updates checkpoint.interval save-iters save-strategy "
    "save-checkpoints-steps save-every-n-train-steps num-steps-per-checkpoint",
    "wandb-exp-name": "run-name wandb-name wandb-run-name experiment-name exp-name wandb.name "
    "wandb-logger-kwargs.name exp-manager.name experiment log.run general.run",
    "tensorboard-dir": "logging-dir log-dir tb-dir tensorboard-logdir save-tb-folder tensorboard-log-dir "
    "tensorboard-path tensorboard-folder tensorboard-output-dir tb-log-dir tb-folder tblog",
    # Shape and precision of a model
    "hidden-size": "d-model dim model-dim embed-dim embedding-dim n-embd decoder-embed-dim "
    "encoder-embed-dim n-embed",
    "num-layers": "layers n-layers n-layer num-hidden-layers depth decoder-layers encoder-layers",
    "num-attention-heads": "heads attention-heads n-heads n-head nhead num-heads "
    "decoder-attention-heads encoder-attention-heads",
    "num-query-groups": "n-kv-heads num-kv-heads kv-n-heads n-query-groups n-head-kv num-kv-heads-per-layer",
    "ffn-hidden-size": "intermediate-size d-ff ffn-dim mlp-dim decoder-ffn-embed-dim encoder-ffn-embed-dim "
    "mlp-hidden-size d-inner n-inner feedforward-size dim-feedforward intermediate-dim",
    "position-embedding-type": "pos-emb pos-embedding rope use-rope rotary",
    "rotary-base": "rope-theta rope-base rotary-emb-base",
    "norm-epsilon": "rms-norm-eps layer-norm-eps layer-norm-epsilon rms-norm-epsilon norm-eps",
    "hidden-dropout": "dropout hidden-dropout-prob resid-pdrop residual-dropout embedding-dropout "
    "emb-pdrop embd-pdrop drop-rate",
    "attention-dropout": "attention-probs-dropout-prob attn-pdrop",
    "dtype": "torch-dtype precision outtype params-dtype bf16 fp16 half save-dtype output-dtype "
    "target-dtype export-dtype",
    "bf16": "use-bf16 bfloat16 pure-bf16 params-dtype",
    "recompute-granularity": "gradient-checkpointing activation-checkpointing grad-checkpointing "
    "enable-activation-checkpointing activations-checkpoint-granularity activation-checkpoint.mode "
    "grad-ckpt",
    "profile": "enable-profiling profiling profiler torch-profiler use-profiler profiler.enabled "
    "profiling.enabled",
    "log-throughput": "mfu log-mfu report-mfu log-tflops log-flops flops-profiler "
    "log-throughput-to-tensorboard",
    "compile": "torch-compile use-compile torchcompile torch-compile-mode torch-compile-backend "
    "compile.enable compile.backend compile-mode compile-config compile-model compiled dynamo-backend "
    "dynamo-mode torchdynamo torchcompile-mode",
    "kv-channels": "head-dim head-size size-per-head d-kv d-head attention-head-dim dim-head",
    "window-size": "sliding-window sliding-window-size sliding-window-width attention-window local-attention",
    "deterministic-mode": "deterministic full-determinism use-deterministic-algorithms",
    # Ranks
    "tensor-model-parallel-size": "tp tp-size tensor-parallel-size tensor-parallel-degree "
    "tensor-model-parallel-degree tp-degree tensor-parallel-dim",
    "pipeline-model-parallel-size": "pp pp-size pipeline-parallel-size pipeline-parallel-degree pp-degree",
    "context-parallel-size": "cp cp-size context-parallel-degree",
    "expert-model-parallel-size": "ep ep-size expert-parallel-size expert-parallel-degree ep-world-size "
    "moe-expert-model-parallelism",
    "target-tensor-parallel-size": "tp tp-size tensor-model-parallel-size tensor-parallel-size target-tp "
    "target-tp-size",
    "target-pipeline-parallel-size": "pp pp-size pipeline-model-parallel-size pipeline-parallel-size "
    "target-pp target-pp-size",
    "pipeline-schedule": "pipeline-parallel-schedule pp-engine",
    "expert-tensor-parallel-size": "expert-tensor-parallel-degree etp etp-size",
    "cp-comm-type": "context-parallel-rotate-method cp-comm-strategy",
    # Tokenizers, texts and tasks
    "samples": "num-samples count show n-samples num-documents num-docs max-samples n",
    "vocab-size": "num-merges n-vocab num-vocab num-symbols symbols merges dict-size",
    "model": "model-type tokenizer-type algorithm type",
    "special-tokens": "user-defined-symbols control-symbols added-tokens",
    "workers": "num-workers num-processes num-proc nproc n-jobs processes threads num-threads "
    "preprocessing-num-workers num-worker n-tasks tasks dataset-num-proc num-cpus cpus concurrency "
    "num-jobs j",
    "append-eod": "add-eos append-eos add-eos-token",
    "num-tokens": "max-tokens max-new-tokens n-predict num-predict n max-length max-gen-len gen-length "
    "length out-length",
    "ignore-eod": "ignore-eos",
    "prompt": "p prompts text input-text start",
    "temperature": "temp t",
    "top-k": "k",
    "lm-eval": "tasks task task-list eval-tasks t",
    "domains": "valid-data eval-data test-data eval-file text-file input-file input file",
    "num-fewshot": "shots num-shots n-shot fewshot eval-num-fewshot f",
    "limit": "max-examples max-documents eval-task-limit",
    "task": "task-name task-type dataset dataset-name",
    "seeds": "num-seeds",
    "sweep-lr": "learning-rates lrs",
    "global-batch-size": "global-train-batch-size total-batch-size total-train-batch-size "
    "effective-batch-size",
    "max-position-embeddings": "max-positions n-positions max-target-positions",
    "seed": "random-seed manual-seed set-seed global-seed rng-seed init-seed",
    "data-efficiency-seed": "data-seed data.seed dataset.random-seed",
    "lr-decay-iters": "lr-decay-steps decay-steps total-num-update t-max learning-rate.decay-iterations",
    "lr-warmup-samples": "warmup-samples",
    "lr-warmup-tokens": "warmup-tokens",
    "lr-warmup-init": "warmup-lr warmup-init-lr warmup-min-lr start-lr",
    "lr-wsd-decay-iters": "warmdown-iters cooldown-steps",
    "optimizer": "optim opt optimizer-name optimizer.name optim.name optimizer.type optimizer-type",
    "adam-beta1": "beta1 beta-1",
    "adam-beta2": "beta2 beta-2",
    "initial-loss-scale": "fp16-init-scale native-amp-init-scale initial-scale init-loss-scale",
    "loss-scale-window": "fp16-scale-window native-amp-growth-interval",
    "min-loss-scale": "min-scale",
    "async-save": "async-mode write-checkpoints-asynchronously async-checkpoint async-checkpointing "
    "enable-async-checkpoint",
    "ckpt-step": "load-step load-iteration iteration tag",
    "overwrite-run": "overwrite-output-dir save-overwrite overwrite",
    "skip-train": "eval-only evaluate-only validate-only test-only eval",
    "pretrained-checkpoint": "pretrained-path",
    "tokenizer-type": "tokenizer.type tokenizer.library",
    "vocab-file": "vocab vocab-path",
    "merge-file": "merges merges-path merges-file",
    "eod-token": "eos-token",
    "exit-duration-in-mins": "max-time time-limit stop-time-hours max-time-per-run",
    "distributed-timeout-minutes": "ddp-timeout dist-timeout distributed-timeout",
    "distributed-backend": "ddp-backend dist-backend backend",
    "wandb-project": "wandb.project project wandb-project-name wandb.project-name project-name",
    "wandb-entity": "wandb-team wandb.entity",
    "profile-step-end": "profile-step-stop",
    "normalization": "norm norm-type layer-norm-type",
    "rotary-percent": "rotary-pct rotary-percentage",
    "init-method-std": "initializer-range init-std init-method.std initializer-std weight-init-std",
    "attention-backend": "attn-implementation attn-impl",
    "num-experts": "moe-num-experts num-local-experts n-routed-experts n-expert n-experts "
    "num-routed-experts num-moe-experts",
    "moe-router-topk": "moe-top-k num-experts-per-tok n-expert-per-token n-experts-per-token top-k-experts "
    "moe-k moe-topk num-experts-per-token num-selected-experts experts-per-token",
    "moe-router-topk-scaling-factor": "routed-scaling-factor route-scale",
    "moe-router-num-groups": "n-group num-expert-groups n-expert-groups",
    "moe-router-group-topk": "topk-group num-limited-groups n-limited-groups moe-router-topk-limited-devices",
    "moe-router-score-function": "scoring-func score-func",
    "moe-router-load-balancing-type": "moe-load-balancing-type router-load-balancing",
    "moe-router-enable-expert-bias": "moe-aux-loss-free aux-loss-free loss-free-balancing",
    "moe-router-bias-update-rate": "load-balance-coeff bias-update-speed",
    "moe-ffn-hidden-size": "moe-intermediate-size moe-inter-dim moe-hidden-dim",
    "moe-shared-expert-intermediate-size": "shared-expert-intermediate-size",
    "moe-input-jitter-eps": "moe-jitter-eps router-jitter-noise",
    "moe-expert-capacity-factor": "capacity-factor moe-capacity-factor expert-capacity-factor",
    "moe-z-loss-coeff": "z-loss router-z-loss-coef moe-zloss-weight moe-zloss-coeff router-z-loss-weight",
    "moe-aux-loss-coeff": "router-aux-loss-coef aux-loss-coef moe-aux-loss-coef moe-loss-weight "
    "moe-lbl-coeff load-balance-loss-weight load-balance-loss-coeff load-balancing-loss-weight "
    "aux-loss-weight aux-loss-alpha",
    "metrics": "metric metric-names",
    # Encoders
    "mask-prob": "mlm-probability masked-lm-prob mlm-prob masking-ratio mask-ratio mlm-masking-ratio "
    "masked-lm-probability",
    "mask-ngrams": "max-span-length mask-multiple-length max-ngram max-ngrams ngram",
    "masking": "dynamic-masking static-masking",
    "bert-passes": "dupe-factor",
    "bert-no-binary-head": "no-nsp disable-nsp no-sop",
    # Curriculum and random-LTD
    "difficulty-path": "index-to-sample-path index-to-metric-path data-cluster-path",
    "random-ltd-min": "random-ltd-start random-ltd-start-seq random-ltd-start-length ltd-start",
    "random-ltd-quantum": "random-ltd-step random-ltd-seq-step seq-per-step",
    "random-ltd-duration": "random-ltd-total-steps random-ltd-require-steps require-steps",
    "random-ltd-layers": "random-ltd-layer-id random-ltd-layer-ids random-ltd-layer-num",
    "data-efficiency-config": "data-efficiency ds-config deepspeed-json data-efficiency-json "
    "deepspeed-config-file ds-config-file curriculum-config random-ltd-config",
    "fp16": "half float16 use-fp16 half-precision",
    "recompute-method": "activations-checkpoint-method",
    "recompute-num-layers": "activations-checkpoint-num-layers checkpoint-layers",
    "num-virtual-stages-per-pipeline-rank": "virtual-pipeline-model-parallel-size",
    "num-channels": "in-chans in-channels",
    "patch-dim": "patch-size",
    "num-classes": "nb-classes num-labels",
    "img-mean": "mean",
    "img-std": "std",
    "img-interpolation": "interpolation train-interpolation",
    "img-flip": "hflip",
    "img-eval-crop": "crop-pct",
    "label-smoothing": "smoothing label-smoothing-factor",
    "rand-augment": "aa auto-augment randaug",
    "image-workers": "",
    "random-ltd": "token-dropping ltd use-random-ltd enable-random-ltd random-token-drop "
    "random-token-dropping",
    "rampup-batch-size": "batch-size-warmup batch-size-increments progressive-batch-size",
    "use-torch-fsdp2": "fsdp fully-shard",
    "sequence-parallel": "sequence-parallel-degree sequence-parallelism",
    "config": "config-file config-path config-name conf-file conf cfg yaml-config c load-config config-yaml "
    "params-file args-file train-config",
    "img-crop-scale": "crop-scale",
}
"""By our flag; a word of several flags is that of the first that a command has."""
