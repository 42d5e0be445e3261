"""What other programs call what a flag of ours says, so that a message can name ours: transformers' Trainer,
torchtitan, litgpt, NeMo, lm-evaluation-harness, SentencePiece, llama.cpp. Their words are not read, as they
differ in what they count and in what is usual."""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase

from megatron.config import answers, answers_runs, answers_tools
from megatron.config.answers import Answer

WORDS = {
    # Lengths of a run, and its batches
    "train-iters": "max-steps steps num-steps total-steps train-steps training-steps num-training-steps "
    "iters n-iters niter iterations num-iterations max-iter max-iterations max-update n-steps stop-at "
    "max-duration num-train-steps n-iter max-steps-total",
    "epochs": "num-train-epochs num-epochs max-epochs n-epochs train-epochs",
    "train-tokens": "max-tokens num-tokens total-tokens token-budget train.max-tokens",
    "train-samples": "max-samples num-samples train-num-samples max-train-samples",
    "micro-batch-size": "per-device-train-batch-size per-device-batch-size per-device-eval-batch-size "
    "per-gpu-train-batch-size device-batch-size local-batch-size batch-size train-batch-size "
    "eval-batch-size train-micro-batch-size-per-gpu device-train-batch-size device-train-microbatch-size "
    "device-eval-batch-size max-sentences microbatch-size validation-batch-size val-batch-size "
    "max-batch-size rank-microbatch-size batch-size-val batch-size-valid batch-size-per-gpu "
    "per-device-batch",
    "seq-length": "max-seq-length max-length max-seq-len seq-len sequence-length context-length n-ctx "
    "ctx-size block-size max-source-length model-max-length tokens-per-sample max-sequence-length "
    "sequence-len cutoff-len max-seqlen context-len",
    # Learning rates and the optimizer
    "lr": "learning-rate max-lr base-lr peak-lr learning-rate.base peak-learning-rate",
    "min-lr": "lr-min eta-min final-lr end-learning-rate end-lr lr-end min-decay-lr "
    "learning-rate.minimum min-learning-rate",
    "lr-warmup-iters": "warmup-steps num-warmup-steps lr-warmup-steps warmup-iters warmup-updates "
    "t-warmup learning-rate.warmup-iterations",
    "lr-warmup-fraction": "warmup-ratio warmup-fraction warmup-proportion",
    "lr-decay-style": "lr-scheduler-type lr-scheduler lr-schedule scheduler decay-type sched "
    "lr-scheduler.name scheduler.name sched.name learning-rate.decay-style",
    "weight-decay": "wd weight-decay-rate",
    "clip-grad": "max-grad-norm max-norm gradient-clipping gradient-clip-val grad-clip clip-grad-norm "
    "clip-norm gradient-clip-norm clipping-threshold grad-norm-clip clip-gradients clip-value-norm",
    "adam-eps": "adam-epsilon opt-eps optimizer.eps optim.eps",
    # Where things lie
    "save": "output-dir out-dir save-dir save-path save-folder checkpoint-dir ckpt-dir dump-folder "
    "checkpoints-path checkpoint.folder exp-dir explicit-log-dir experiment-dir output logs-dir "
    "results-dir checkpoint-folder",
    "load": "m resume resume-from-checkpoint resume-from init-from ckpt-path load-checkpoint checkpoint "
    "checkpoint-path model-name-or-path model-name pretrained-model-name-or-path model-path model-args "
    "model hf-model hf-path pretrained load-path restore-file load-from restore restore-from "
    "restore-from-path initial-checkpoint initial-load-path resume-checkpoint-path continue-from "
    "initial-checkpoint-dir checkpoint.load checkpoint-dir ckpt ckpt-dir init-checkpoint checkpoint-name "
    "lora-model-dir weights",
    "train-file": "train-data train-dataset dataset dataset-name data data-dir",
    "valid-file": "validation-file eval-file dev-file valid-data",
    "test-file": "predict-file",
    "data-path": "datasets.path dataset.source dataset-dir dataset dataset-name dataset-path data "
    "data-dir data-file data-files train-data train-file data-prefix blend data-set data.path data.paths "
    "input-file data-local dataset-folder corpus-name pretrain-tfrecords dataset-path-or-name",
    "input": "data-dir model-name checkpoint-dir zero-dir model-id-or-path composer-path load-dir files "
    "file corpus input-file input-dir train-file text-file checkpoint-path gpt2-checkpoint-path "
    "llama-checkpoint-path pretrained-model-name-or-path model-name-or-path hf-model hf-path model-path "
    "model data-path dataset path source-path input-path data-path-or-name dataset-name hf-dataset "
    "remote-dataset train-dataset-path train-dataset data-files input-folder trainpref checkpoint-name "
    "model-dir source-dir checkpoint repo tf-checkpoint-path megatron-model-path hf-model-path "
    "hf-path-or-name ckpt ckpt-path",
    "output-prefix": "output output-dir out-dir dataset-prefix output-folder output-filename "
    "save-filename destdir dest destination out-root destination-path local-dir dump-path out",
    "output": "save-dir save-path output-dir output-path output-file out-dir out-file outfile "
    "model-prefix pytorch-dump-folder-path destination-dir results-path eval-results-prefix save-filepath "
    "destination target-dir out output-folder output-name hf-output-path name prefix",
    "tokenizer-model": "tokenizer tokenizer-name tokenizer-path sp-model spm-model tokenizer-dir "
    "tokenizer.path tokenizer.model tokenizer.identifier tokenizer.name hf-assets-path "
    "tokenizer-name-or-path tokenizer-identifier",
    "json-keys": "text-key text-column text-field jsonl-keys content-key",
    "text-column": "text-column-name sentence-column input-columns",
    "label-column": "label-column-name target-column",
    # Logging and validation
    "log-interval": "logging-steps log-freq log-every log-every-n-steps console-log-interval "
    "steps-per-print print-freq iteration-step-info-interval logs.interval logging-strategy "
    "metrics-log-interval metrics-collect-interval",
    "eval-interval": "eval-steps eval-freq eval-every val-check-interval validation-interval "
    "validate-interval validate-interval-updates val-loss-every evaluation-interval val-interval "
    "validation.freq eval.interval validation.interval eval-strategy evaluation-strategy "
    "run-val-every-n-steps val-every eval-iter-interval",
    "eval-iters": "max-eval-batches limit-val-batches eval-subset-num-batches val-max-steps "
    "eval.max-iters validation.steps validation.iterations limit-test-batches max-eval-steps "
    "max-valid-steps eval-batches val-batch-count max-eval-samples",
    "save-interval": "save-steps save-freq save-every checkpoint-interval ckpt-interval "
    "save-every-n-steps checkpoint-every ckpt-every save-interval-updates checkpoint.interval save-iters "
    "save-strategy save-checkpoints-steps save-every-n-train-steps num-steps-per-checkpoint",
    "wandb-exp-name": "wandb-logger-kwargs.name exp-manager.name experiment log.run general.run run-name "
    "wandb-name wandb-run-name experiment-name exp-name wandb.name",
    "tensorboard-dir": "logging-dir log-dir tb-dir tensorboard-logdir save-tb-folder",
    # Shape and precision of a model
    "hidden-size": "d-model dim model-dim embed-dim embedding-dim n-embd decoder-embed-dim "
    "encoder-embed-dim n-embed",
    "num-layers": "n-layers n-layer num-hidden-layers depth decoder-layers encoder-layers",
    "num-attention-heads": "n-heads n-head nhead num-heads decoder-attention-heads encoder-attention-heads",
    "num-query-groups": "n-kv-heads num-kv-heads kv-n-heads n-query-groups n-head-kv num-kv-heads-per-layer",
    "ffn-hidden-size": "intermediate-size d-ff ffn-dim mlp-dim decoder-ffn-embed-dim "
    "encoder-ffn-embed-dim mlp-hidden-size d-inner n-inner feedforward-size dim-feedforward "
    "intermediate-dim",
    "position-embedding-type": "pos-emb pos-embedding rope use-rope rotary",
    "rotary-base": "rope-theta rope-base rotary-emb-base",
    "norm-epsilon": "rms-norm-eps layer-norm-eps layer-norm-epsilon rms-norm-epsilon norm-eps",
    "hidden-dropout": "dropout hidden-dropout-prob resid-pdrop residual-dropout embedding-dropout "
    "emb-pdrop embd-pdrop drop-rate",
    "attention-dropout": "attention-probs-dropout-prob attn-pdrop",
    "dtype": "torch-dtype precision outtype params-dtype bf16 fp16 half save-dtype output-dtype "
    "target-dtype export-dtype",
    "bf16": "dtype precision mixed-precision torch-dtype use-bf16 amp use-amp model-dtype training-dtype "
    "mixed-precision-param bfloat16 pure-bf16",
    "recompute-granularity": "gradient-checkpointing activation-checkpointing grad-checkpointing "
    "enable-activation-checkpointing activations-checkpoint-granularity activation-checkpoint.mode "
    "grad-ckpt",
    "compile": "torch-compile use-compile torchcompile torch-compile-mode torch-compile-backend "
    "compile.enable compile.backend compile-mode compile-config compile-model compiled dynamo-backend "
    "dynamo-mode torchdynamo torchcompile-mode",
    # Ranks
    "tensor-model-parallel-size": "tp tp-size tensor-parallel-size tensor-parallel-degree "
    "tensor-model-parallel-degree tp-degree tensor-parallel-dim",
    "pipeline-model-parallel-size": "pp pp-size pipeline-parallel-size pipeline-parallel-degree pp-degree",
    "context-parallel-size": "cp cp-size context-parallel-degree",
    "expert-model-parallel-size": "ep ep-size expert-parallel-size expert-parallel-degree",
    "target-tensor-parallel-size": "tp tp-size tensor-model-parallel-size tensor-parallel-size target-tp "
    "target-tp-size",
    "target-pipeline-parallel-size": "pp pp-size pipeline-model-parallel-size pipeline-parallel-size "
    "target-pp target-pp-size",
    # Tokenizers, texts and tasks
    "vocab-size": "num-merges n-vocab num-vocab num-symbols symbols merges dict-size",
    "model": "model-type tokenizer-type algorithm",
    "special-tokens": "user-defined-symbols control-symbols added-tokens",
    "workers": "num-workers num-processes num-proc nproc n-jobs processes threads num-threads "
    "preprocessing-num-workers num-worker n-tasks tasks",
    "append-eod": "add-eos append-eos add-eos-token",
    "num-tokens": "max-tokens max-new-tokens n-predict num-predict n max-length max-gen-len gen-length "
    "length out-length",
    "prompt": "p prompts text input-text start",
    "temperature": "temp t",
    "lm-eval": "tasks task task-list eval-tasks",
    "domains": "valid-data eval-data test-data eval-file text-file input-file input file",
    "num-fewshot": "shots num-shots n-shot fewshot eval-num-fewshot",
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
    "lr-warmup-samples": "warmup-samples ",
    "lr-warmup-tokens": "warmup-tokens",
    "lr-warmup-init": "warmup-lr warmup-init-lr warmup-min-lr",
    "lr-wsd-decay-iters": "warmdown-iters cooldown-steps",
    "optimizer": "optim opt optimizer-name optimizer.name optim.name optimizer.type optimizer-type",
    "adam-beta1": "beta1 beta-1",
    "adam-beta2": "beta2 beta-2",
    "initial-loss-scale": "fp16-init-scale native-amp-init-scale initial-scale init-loss-scale",
    "loss-scale-window": "fp16-scale-window native-amp-growth-interval",
    "min-loss-scale": "min-scale",
    "ckpt-step": "load-step load-iteration iteration tag",
    "overwrite-run": "overwrite-output-dir save-overwrite overwrite",
    "skip-train": "eval eval-only evaluate-only validate-only test-only",
    "pretrained-checkpoint": "pretrained-path",
    "tokenizer-type": "tokenizer.type",
    "vocab-file": "vocab vocab-path",
    "merge-file": "merges merges-path merges-file",
    "eod-token": "eos-token",
    "exit-duration-in-mins": "max-time time-limit stop-time-hours max-time-per-run",
    "distributed-timeout-minutes": "ddp-timeout dist-timeout distributed-timeout init-timeout-seconds "
    "train-timeout-seconds",
    "distributed-backend": "ddp-backend dist-backend backend",
    "wandb-project": "project-name wandb.project project wandb-project-name wandb.project-name",
    "wandb-entity": "wandb-team wandb.entity",
    "profile-step-end": "profile-step-stop",
    "normalization": "norm norm-type layer-norm-type",
    "rotary-percent": "rotary-pct rotary-percentage",
    "init-method-std": "initializer-range init-std init-method.std initializer-std weight-init-std",
    "attention-backend": "attn-implementation attn-impl",
    "num-experts": "moe-num-experts num-local-experts n-routed-experts n-expert n-experts num-routed-experts",
    "moe-router-topk": "moe-top-k num-experts-per-tok n-expert-per-token n-experts-per-token top-k-experts",
    "moe-input-jitter-eps": "moe-jitter-eps router-jitter-noise",
    "moe-expert-capacity-factor": "capacity-factor",
    "moe-z-loss-coeff": "z-loss router-z-loss-coef",
    "moe-aux-loss-coeff": "router-aux-loss-coef aux-loss-coef",
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
    "image-workers": "num-data-workers ",
    "random-ltd": "token-dropping ltd",
    "use-torch-fsdp2": "fsdp fully-shard",
    "sequence-parallel": "sequence-parallelism sequence-parallel-degree",
    "kv-channels": "head-dim head-size size-per-head d-kv d-head attention-head-dim dim-head",
    "window-size": "sliding-window sliding-window-size sliding-window-width attention-window local-attention",
    "valid-data-path": "val-data-path validation-file valid-file validpref val-data val-file "
    "eval-dataset input-val-bin validation-data dataset-val val-dataset",
    "train-data-path": "train-file train-files trainpref input-bin train-data-file",
    "test-data-path": "test-file testpref test-data",
    "deterministic-mode": "deterministic full-determinism use-deterministic-algorithms",
    "pipeline-schedule": "pipeline-parallel-schedule pp-engine",
    "expert-tensor-parallel-size": "expert-tensor-parallel-degree etp etp-size",
    "cp-comm-type": "context-parallel-rotate-method cp-comm-strategy",
    "exit-interval": "stop-after hard-stop",
    "async-save": "async-mode write-checkpoints-asynchronously async-checkpoint",
    "mask-prob": "mlm-probability masked-lm-prob mlm-prob masking-ratio mask-ratio",
    "mask-unit": "do-whole-word-mask whole-word-mask mask-whole-words wwm",
    "mask-ngrams": "max-span-length mask-multiple-length",
    "img-crop-scale": "crop-scale",
    "data-efficiency-config": "data-efficiency",
    "config": "config-file config-path config-name conf-file conf cfg yaml-config",
}
"""By our flag; a word of several flags is that of the first that a command has."""

ANSWERS = (*answers.ANSWERS, *answers_runs.ANSWERS, *answers_tools.ANSWERS)
"""Of several that fit, the first."""

OF_LAUNCHERS = ("--nproc-per-node", "--nnodes", "--to")
"""Flags in the answers that are of other commands than the one that is answered."""


def answer(word: str, ours: Collection[str]) -> str:
    """What is to be said of a word of another program: our flag for it, or a sentence; empty where nothing
    is known of it. Of words with dots, as in `--training.steps`, the last parts count, the more of them the
    better; of words with a program's name before them, as accelerate has them, the rest."""
    spelled = {flag.lstrip("-").replace("_", "-"): flag for flag in ours}
    for name in ends(word):
        if said := next((one.sentence for one in ANSWERS if _fits(one, name, ours)), ""):
            return said
        if here := (name != ends(word)[0] and spelled.get(name)) or _our_word(name, ours):
            return f"here it is {here}"
    return ""


def ends(word: str) -> list[str]:
    """The name in a word without its dashes, then without the part before its first dot, and so on; all
    without what accelerate sets before flags of others."""
    parts = word.lstrip("-").replace("_", "-").lower().split(".")
    names = [".".join(parts[first:]) for first in range(len(parts))]
    bare = names[-1].removeprefix("megatron-lm-").removeprefix("parallelism-config-")
    return list(dict.fromkeys([*names, bare]))


def _our_word(name: str, ours: Collection[str]) -> str:
    found = (f"--{flag}" for flag, others in WORDS.items() if name in others.split())
    return next((flag for flag in found if flag in ours), "")


def _fits(one: Answer, name: str, ours: Collection[str]) -> bool:
    mine = any(word == name or ("*" in word and fnmatchcase(name, word)) for word in one.words.split())
    return mine and flags_needed(one) <= {*ours}


def flags_needed(one: Answer) -> set[str]:
    """The flags that a command must have for an answer to be true of it."""
    return {*re.findall(r"--[a-z0-9-]+", f"{one.sentence} {one.needs}")} - {*OF_LAUNCHERS}
