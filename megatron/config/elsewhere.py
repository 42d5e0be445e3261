"""What other programs call what a flag of ours says, so that a message can name ours: transformers' Trainer,
torchtitan, litgpt, NeMo, lm-evaluation-harness, SentencePiece, llama.cpp. Their words are not read, as they
differ in what they count and in what is usual."""

from collections.abc import Collection

WORDS = {
    # Lengths of a run, and its batches
    "train-iters": "max-steps steps num-steps total-steps train-steps training-steps num-training-steps",
    "epochs": "num-train-epochs num-epochs max-epochs n-epochs train-epochs",
    "train-tokens": "max-tokens num-tokens total-tokens token-budget",
    "train-samples": "epochs num-train-epochs num-epochs max-epochs max-samples num-samples",
    "micro-batch-size": "per-device-train-batch-size per-device-batch-size per-device-eval-batch-size "
    "per-gpu-train-batch-size device-batch-size local-batch-size batch-size train-batch-size "
    "eval-batch-size train-micro-batch-size-per-gpu",
    "seq-length": "max-seq-length max-length max-seq-len seq-len sequence-length context-length n-ctx "
    "ctx-size block-size max-source-length model-max-length",
    # Learning rates and the optimizer
    "lr": "learning-rate max-lr base-lr peak-lr",
    "min-lr": "lr-min eta-min final-lr",
    "lr-warmup-iters": "warmup-steps num-warmup-steps lr-warmup-steps warmup-iters",
    "lr-warmup-fraction": "warmup-ratio warmup-fraction warmup-proportion",
    "lr-decay-style": "lr-scheduler-type lr-scheduler lr-schedule scheduler decay-type",
    "weight-decay": "wd",
    "clip-grad": "max-grad-norm max-norm gradient-clipping gradient-clip-val grad-clip clip-grad-norm",
    "adam-eps": "adam-epsilon",
    # Where things lie
    "save": "output-dir out-dir save-dir save-path save-folder checkpoint-dir ckpt-dir dump-folder",
    "load": "resume resume-from-checkpoint resume-from init-from ckpt-path load-checkpoint checkpoint "
    "checkpoint-path model-name-or-path model-name pretrained-model-name-or-path model-path model-args "
    "model hf-model hf-path pretrained",
    "train-file": "train-data train-dataset dataset dataset-name data data-dir",
    "valid-file": "validation-file eval-file dev-file valid-data",
    "test-file": "predict-file",
    "data-path": "dataset dataset-name dataset-path data data-dir data-file data-files train-data train-file",
    "input": "load-dir files file corpus input-file input-dir train-file text-file checkpoint-path "
    "gpt2-checkpoint-path llama-checkpoint-path pretrained-model-name-or-path model-name-or-path hf-model "
    "hf-path model-path model data-path dataset",
    "output-prefix": "output output-dir out-dir dataset-prefix",
    "output": "save-dir save-path output-dir output-path output-file out-dir out-file outfile model-prefix "
    "pytorch-dump-folder-path destination-dir",
    "tokenizer-model": "tokenizer tokenizer-name tokenizer-path sp-model spm-model",
    "json-keys": "text-key text-column text-field jsonl-keys content-key",
    "text-column": "text-column-name sentence-column input-columns",
    "label-column": "label-column-name target-column",
    # Logging and validation
    "log-interval": "logging-steps log-freq log-every log-every-n-steps",
    "eval-interval": "eval-steps eval-freq eval-every val-check-interval validation-interval",
    "eval-iters": "max-eval-batches limit-val-batches",
    "save-interval": "save-steps save-freq save-every checkpoint-interval ckpt-interval",
    "save-retain-interval": "save-total-limit keep-latest-k max-to-keep",
    "wandb-exp-name": "run-name wandb-name wandb-run-name",
    "tensorboard-dir": "logging-dir log-dir tb-dir",
    # Shape and precision of a model
    "hidden-size": "d-model dim model-dim embed-dim embedding-dim n-embd",
    "num-layers": "n-layers n-layer num-hidden-layers depth",
    "num-attention-heads": "n-heads n-head nhead num-heads",
    "num-query-groups": "n-kv-heads num-kv-heads",
    "ffn-hidden-size": "intermediate-size d-ff ffn-dim mlp-dim",
    "position-embedding-type": "pos-emb pos-embedding",
    "rotary-base": "rope-theta rope-base",
    "norm-epsilon": "rms-norm-eps layer-norm-eps layer-norm-epsilon",
    "hidden-dropout": "dropout hidden-dropout-prob resid-pdrop",
    "attention-dropout": "attention-probs-dropout-prob attn-pdrop",
    "dtype": "torch-dtype precision outtype",
    "bf16": "dtype precision mixed-precision torch-dtype use-bf16",
    "recompute-granularity": "gradient-checkpointing activation-checkpointing grad-checkpointing",
    "compile": "torch-compile use-compile",
    # Ranks
    "tensor-model-parallel-size": "tp tp-size tensor-parallel-size tensor-parallel-degree "
    "tensor-model-parallel-degree",
    "pipeline-model-parallel-size": "pp pp-size pipeline-parallel-size pipeline-parallel-degree",
    "context-parallel-size": "cp cp-size context-parallel-degree",
    "expert-model-parallel-size": "ep ep-size expert-parallel-size expert-parallel-degree",
    "target-tensor-parallel-size": "tp tp-size tensor-model-parallel-size tensor-parallel-size",
    "target-pipeline-parallel-size": "pp pp-size pipeline-model-parallel-size pipeline-parallel-size",
    # Tokenizers, texts and tasks
    "vocab-size": "num-merges n-vocab num-vocab",
    "model": "model-type tokenizer-type algorithm",
    "special-tokens": "user-defined-symbols control-symbols added-tokens",
    "workers": "num-workers num-proc nproc n-jobs processes threads num-threads",
    "append-eod": "add-eos append-eos add-eos-token",
    "num-tokens": "max-tokens max-new-tokens n-predict num-predict n max-length max-gen-len gen-length",
    "prompt": "p prompts text input-text start",
    "temperature": "temp t",
    "lm-eval": "tasks task task-list",
    "num-fewshot": "shots num-shots n-shot fewshot",
    "limit": "max-examples max-documents",
    "task": "task-name task-type dataset dataset-name",
    "seeds": "num-seeds",
    "sweep-lr": "learning-rates lrs",
}
"""By our flag; a word of several flags is that of the first that a command has."""


def our_word(word: str, ours: Collection[str]) -> str:
    """Our flag for a word of another program, with its dashes; empty where there is none of `ours`. Of words
    with dots, as in `--training.steps`, the last part counts."""
    name = word.lstrip("-").replace("_", "-").rpartition(".")[2]
    found = (f"--{flag}" for flag, others in WORDS.items() if name in others.split())
    return next((flag for flag in found if flag in ours), "")
