"""What a word of which nothing is known may be about, by the parts of its name, and our flags about that."""

import re
from collections.abc import Collection

FEW = 4
"""So many flags are named at most."""
TOPICS = (
    ("moe expert router routed gating", "num-experts moe-router-topk moe-expert-capacity-factor"),
    ("curriculum difficult pacing", "curriculum difficulty-path metrics"),
    ("ltd", "random-ltd random-ltd-min random-ltd-duration"),
    ("mlm mask", "mask-prob mask-unit masking"),
    (
        "img image crop flip color augment aug mixup cutmix patch pixel",
        "img-crop-scale img-flip rand-augment",
    ),
    ("lr warmup cooldown decay sched cosine anneal learning", "lr min-lr lr-decay-style lr-warmup-fraction"),
    ("optim adam beta betas momentum muon lion", "optimizer weight-decay adam-beta1 adam-beta2"),
    ("grad gradient clip accumul", "clip-grad micro-batch-size global-batch-size"),
    ("fp16 bf16 fp32 fp8 precision dtype amp half", "bf16 fp16 loss-scale dtype"),
    ("recompute checkpointing", "recompute-granularity recompute-method recompute-num-layers"),
    ("ckpt checkpoint save saving load resum restor", "save load save-interval ckpt-step save-model"),
    ("eval valid validation val", "eval-interval eval-iters valid-data-path valid-file lm-eval splits"),
    ("wandb tensorboard log logger logging tracker report", "log-interval tensorboard-dir wandb-project"),
    ("profil trace memory flops mfu throughput timer", "profile log-throughput log-memory-to-tensorboard"),
    (
        "tp pp cp dp ep ddp fsdp zero shard parallel distribut world nccl gloo node gpus",
        "tensor-model-parallel-size pipeline-model-parallel-size context-parallel-size "
        "data-parallel-sharding-strategy",
    ),
    ("batch microbatch", "micro-batch-size global-batch-size rampup-batch-size"),
    ("temperature sampling generat stop beam prompt decoding", "num-tokens temperature top-p prompt"),
    ("task fewshot shot benchmark question limit", "lm-eval num-fewshot limit"),
    ("tokenizer vocab merges bos eos pad unk bpe sentencepiece", "tokenizer-type tokenizer-model eod-token"),
    ("step steps iter iters iteration epoch duration", "train-iters train-samples epochs exit-interval"),
    ("dropout drop", "hidden-dropout attention-dropout"),
    ("rope rotary alibi position", "position-embedding-type rotary-base rotary-percent"),
    ("norm layernorm rmsnorm", "normalization norm-epsilon"),
    ("attn attention heads head flash", "num-attention-heads attention-backend num-query-groups"),
    ("layer layers hidden embed ffn mlp model activation", "num-layers hidden-size ffn-hidden-size"),
    ("seed random determin shuffle", "seed data-efficiency-seed deterministic-mode shuffle-documents"),
    ("worker thread cpu", "workers image-workers"),
    ("token tokens seq sequence length context", "seq-length train-tokens max-position-embeddings"),
    ("data dataset corpus text document file input json", "data-path split input json-keys train-file"),
    ("output out dest", "output output-prefix output-dir"),
)
"""Words, which parts of a name are or begin with, where they have four letters; and flags. The first topic
of which a command has flags counts."""


def about(word: str, ours: Collection[str]) -> list[str]:
    """A few flags of a command on what a word is about; empty where that is not known."""
    parts = re.split(r"[-_.]", word.lstrip("-").lower())
    for stems, flags in TOPICS:
        mine = [f"--{flag}" for flag in flags.split() if f"--{flag}" in ours]
        if mine and any(_begins(part, stem) for part in parts for stem in stems.split()):
            return mine[:FEW]
    return []


def _begins(part: str, stem: str) -> bool:
    return part == stem or (len(stem) > 3 and part.startswith(stem))
