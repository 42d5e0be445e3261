"""Short trainings of small models on made-up data, which golden losses and scripts/compare_losses.py share.
Nothing is imported here, so that a script starts at once."""

COMMON = (
    "--num-layers 4 --hidden-size 64 --num-attention-heads 4 --seq-length 64 --micro-batch-size 4 "
    "--global-batch-size 8 --train-iters 40 "
    "--lr 3e-3 --min-lr 3e-4 --lr-decay-style cosine --lr-warmup-iters 4 --mock-data --vocab-size 200 "
    "--eval-interval 20 --eval-iters 2 "
)
RUNS = {
    "baseline": "",
    "llama_like": "--position-embedding-type rope --normalization RMSNorm --swiglu --disable-bias-linear "
    "--untie-embeddings-and-output-weights --group-query-attention --num-query-groups 2 --hidden-dropout "
    "0 --attention-dropout 0",
    "seqtru_random_ltd": "--curriculum seqlen_truncate:min=16,max=64,duration=20,quantum=8 "
    "--random-ltd --random-ltd-min 16 --random-ltd-quantum 8 --random-ltd-duration 28",
    "seqres": "--curriculum seqlen_reshape:min=16,max=64,duration=20,quantum=8 --position-embedding-type "
    "rope",
    "bert": "--short-seq-prob 0.3 --apply-residual-connection-post-layernorm --mask-prob 0.2 "
    "--curriculum seqlen_truncate:min=16,max=64,duration=20,quantum=8 "
    "--random-ltd --random-ltd-min 16 --random-ltd-quantum 8 --random-ltd-duration 28",
    # at the others' rate its gradients have peaks, where another processor's rounding shows
    "vit": "--lr 1e-3 --img-h 36 --img-w 28 --patch-dim 4 --num-classes 200 --rand-augment 1 "
    "--label-smoothing 0.1 --random-ltd --random-ltd-min 16 --random-ltd-quantum 8 --random-ltd-duration 28",
}
ENTRIES = dict.fromkeys(RUNS, "pretrain_gpt.py") | {"bert": "pretrain_bert.py", "vit": "pretrain_vit.py"}
"""What trains each."""
