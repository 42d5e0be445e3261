"""Every rule of every group of flags: alone it is one problem that names flag and value, and what keeps it
has none."""

import pytest

from tests.support.configurations import STOP, problems_of

PIPELINE = "--pipeline-model-parallel-size 2 "
FIRST, LAST = "--decoder-first-pipeline-num-layers", "--decoder-last-pipeline-num-layers"
LAYOUT, COUNTED = "--pipeline-model-parallel-layout", "--account-for-embedding-in-pipeline-split"
STRATEGY = "--data-parallel-sharding-strategy"
RUNS = "--num-virtual-stages-per-pipeline-rank"
VALID = {
    "model": [
        "--hidden-size 60 --num-attention-heads 8 --kv-channels 6 --position-embedding-type rope",
        "--group-query-attention --num-query-groups 2 --rotary-percent 0.5 --use-rotary-position-embeddings",
        "--swiglu",
        "--group-query-attention --num-query-groups 1",
        "--num-query-groups 1",
        "--max-position-embeddings 4096",
        "--hidden-dropout 0 --attention-dropout 0",
    ],
    "data": [
        "--mock-data false --data-path 0.3 a 0.7 b",
        "--mock-data false --train-data-path a --valid-data-path b",
    ],
    "tokenizer": [
        "--vocab-size 1",
        "--tokenizer-type huggingfacetokenizer --tokenizer-model tokenizer.json",
        "--vocab-file vocab.json --merge-file merges.txt",
        "--tokenizer-type TikTokenizer --tokenizer-model t.json --tiktoken-pattern v2",
        "--tiktoken-num-special-tokens 1000",
    ],
    "training": [
        "--global-batch-size 24 --rampup-batch-size 8 8 1000",
        "--exit-interval 10",
        "--skip-train --load out",
    ],
    "parallel": [
        PIPELINE + "--decoder-first-pipeline-num-layers 1",
        PIPELINE + "--decoder-first-pipeline-num-layers 1 --decoder-last-pipeline-num-layers 3",
        "--num-layers 3 --account-for-embedding-in-pipeline-split --pipeline-model-parallel-size 4",
        PIPELINE + "--pipeline-model-parallel-layout 'Et|t|t|tL'",
        PIPELINE + "--num-layers 6 --num-layers-per-virtual-pipeline-stage 1",
        f"--use-distributed-optimizer {STRATEGY} optim_grads_params --num-distributed-optimizer-instances 2",
        f"--use-torch-fsdp2 {STRATEGY} optim_grads",
        PIPELINE + f"--pipeline-schedule zero-bubble {STRATEGY} optim",
    ],
    "optimizer": [
        "--lr-decay-style WSD --lr-wsd-decay-iters 20 --lr-warmup-fraction 0",
        "--min-lr 1e-3 --clip-grad 0 --weight-decay 0",
        "--lr-decay-iters 50 --lr-warmup-iters 50",
    ],
    "data_efficiency": [
        "--random-ltd --random-ltd-duration 5 --random-ltd-layers 1",
        "--curriculum voc:min=1,max=5,duration=9 --difficulty-path folder",
    ],
    "checkpoint": [
        "--save out --save-interval 5 --save-retain-interval 10",
        "--load out --ckpt-step 5 --finetune",
        "--load out --skip-train --save-interval 5 --async-save",
    ],
    "logging": [
        "--eval-interval 10 --log-interval 1 --eval-iters 0",
        "--profile --profile-step-start 0 --profile-step-end 1 --profile-ranks 0 1",
        "--profile-step-start 50 --timing-log-level 2 --timing-log-option all",
    ],
}
# flags that break one rule, and what its one problem must name
BROKEN = {
    "model": [
        ("--num-layers 0", ["--num-layers 0"]),
        ("--hidden-size 0", ["--hidden-size 0"]),
        ("--hidden-size -64", ["--hidden-size -64"]),
        ("--num-attention-heads 0", ["--num-attention-heads 0"]),
        ("--ffn-hidden-size -1", ["--ffn-hidden-size -1"]),
        ("--kv-channels -1", ["--kv-channels -1"]),
        ("--make-vocab-size-divisible-by 0", ["--make-vocab-size-divisible-by 0"]),
        ("--hidden-size 66", ["--hidden-size 66", "--num-attention-heads 4", "--kv-channels"]),
        ("--hidden-size 2 --num-attention-heads 4", ["--hidden-size 2", "--num-attention-heads 4"]),
        ("--group-query-attention --num-query-groups 3", ["--num-query-groups 3", "--num-attention-heads 4"]),
        ("--group-query-attention --num-query-groups 0", ["--num-query-groups 0 must be at least 1"]),
        ("--num-query-groups 2", ["--num-query-groups 2", "--group-query-attention"]),
        (
            "--position-embedding-type rope --kv-channels 5",
            ["--position-embedding-type rope", "--kv-channels 5"],
        ),
        ("--position-embedding-type rope --rotary-percent 0.1", ["--rotary-percent 0.1", "rope"]),
        ("--position-embedding-type rope --rotary-percent 1.5", ["--rotary-percent 1.5"]),
        ("--max-position-embeddings 64", ["--max-position-embeddings 64", "--seq-length 128"]),
        ("--hidden-dropout 1", ["--hidden-dropout 1"]),
        ("--attention-dropout=-0.1", ["--attention-dropout -0.1"]),
        ("--swiglu --openai-gelu", ["--swiglu", "--openai-gelu"]),
        ("--squared-relu --openai-gelu", ["--openai-gelu and --squared-relu are two activations"]),
        ("--squared-relu --swiglu --openai-gelu", ["--swiglu and --openai-gelu and --squared-relu"]),
        (
            "--position-embedding-type none --use-rotary-position-embeddings",
            ["--use-rotary-position-embeddings", "--position-embedding-type none"],
        ),
    ],
    "data": [
        ("--seq-length 0", ["--seq-length 0"]),
        ("--data-path prefix", ["--data-path", "--mock-data"]),
        ("--mock-data false", ["--data-path", "--train-data-path", "--mock-data"]),
        ("--mock-data false --valid-data-path prefix", ["--valid-data-path", "--train-data-path"]),
    ],
    "tokenizer": [
        ("--vocab-size 0", ["--vocab-size 0"]),
        (
            "--tokenizer-model t.json",
            ["--tokenizer-model t.json", "--tokenizer-type", "HuggingFaceTokenizer"],
        ),
        ("--tokenizer-model t.model", ["--tokenizer-model t.model", "SentencePieceTokenizer"]),
        ("--vocab-file v.json", ["--vocab-file v.json", "--merge-file", "GPT2BPETokenizer"]),
        ("--merge-file m.txt", ["--merge-file m.txt", "--vocab-file", "GPT2BPETokenizer"]),
        ("--tiktoken-pattern v1", ["--tiktoken-pattern v1", "--tokenizer-type TikTokenizer"]),
        ("--tiktoken-num-special-tokens 50", ["--tiktoken-num-special-tokens 50", "TikTokenizer"]),
        ("--tiktoken-special-tokens a b", ["--tiktoken-special-tokens a b", "TikTokenizer"]),
        (
            "--tokenizer-type HuggingFaceTokenizer --tokenizer-model t.json --tiktoken-pattern v2",
            ["--tiktoken-pattern v2", "--tokenizer-type TikTokenizer"],
        ),
    ],
    "training": [
        ("--micro-batch-size 0", ["--micro-batch-size 0"]),
        ("--distributed-timeout-minutes 1e12", ["--distributed-timeout-minutes 1000000000000.0 must be in"]),
        ("--global-batch-size -2", ["--global-batch-size -2"]),
        ("--global-batch-size 3", ["--global-batch-size 3", "--micro-batch-size 2"]),
        (
            "--global-batch-size 8 --rampup-batch-size 2 2",
            ["--rampup-batch-size", "start, increment, samples"],
        ),
        (
            "--global-batch-size 8 --rampup-batch-size 2 4 100",
            ["--rampup-batch-size 2 4 100", "--global-batch-size 8"],
        ),
        (
            "--global-batch-size 8 --rampup-batch-size 10 2 100",
            ["--rampup-batch-size 10 2 100", "--global-batch-size 8"],
        ),
        ("--global-batch-size 8 --rampup-batch-size 0 2 100", ["--rampup-batch-size 0 2 100"]),
        ("--global-batch-size 8 --rampup-batch-size 2 2 -5", ["--rampup-batch-size 2 2 -5"]),
        (
            "--global-batch-size 8 --rampup-batch-size 1 1 100",
            ["--rampup-batch-size 1 1", "--micro-batch-size 2"],
        ),
        ("--train-iters 0", ["--train-iters 0"]),
        ("--train-samples -1", ["--train-samples -1"]),
        ("--train-tokens 0", ["--train-tokens 0"]),
        ("--exit-interval 0", ["--exit-interval 0"]),
        ("--skip-train", ["--skip-train", "--load FOLDER"]),
    ],
    "parallel": [
        (
            "--tensor-model-parallel-size 8",
            ["--num-attention-heads 4", "size 8; give --tensor-model-parallel-size 4, or 8"],
        ),
        (
            "--tensor-model-parallel-size 3 --hidden-size 96 --ffn-hidden-size 96",
            ["--num-attention-heads 4", "size 3; give --tensor-model-parallel-size 1, or 3"],
        ),
        (
            "--tensor-model-parallel-size 3 --ffn-hidden-size 96",
            ["--num-attention-heads 4", "size 1, or heads and --hidden-size that 3 divides for a new model"],
        ),
        (
            "--tensor-model-parallel-size 3 --ffn-hidden-size 96 --kv-channels 10",
            ["--num-attention-heads 4", "size 3; give --tensor-model-parallel-size 1, or 3"],
        ),
        (
            "--tensor-model-parallel-size 4 --ffn-hidden-size 90",
            ["--ffn-hidden-size 90", "or 92 for a new model"],
        ),
        (
            "--num-attention-heads 12 --hidden-size 96 --group-query-attention --num-query-groups 4 "
            "--tensor-model-parallel-size 6",
            ["--num-query-groups 4", "one must divide the other"],
        ),
        ("--cp-comm-type p2p a2a", ["--cp-comm-type p2p a2a", "name one"]),
        ("--context-parallel-size 8 --cp-comm-type a2a", ["--num-attention-heads 4 is no multiple of 8"]),
        (f"{RUNS} 2", ["several runs of layers a rank need"]),
        (PIPELINE + "--pipeline-schedule interleaved", ["--pipeline-schedule interleaved and 1 runs"]),
        (
            "--pipeline-model-parallel-size 3",
            [
                "--num-layers 4 cannot be shared equally",
                "--pipeline-model-parallel-size 3",
                "take 3 or 6 layers",
            ],
        ),
        (
            PIPELINE + "--num-layers 10 --num-layers-per-virtual-pipeline-stage 2",
            ["--num-layers 10", "a rank has 5, so runs of 1 or 5 fit"],
        ),
        (PIPELINE + "--num-layers 10 --num-virtual-stages-per-pipeline-rank 3", ["take 6 or 12 layers"]),
        (COUNTED + " --pipeline-model-parallel-size 4", ["take 3 or 7 layers"]),
        (PIPELINE + f"{RUNS} 3", ["--num-layers 4", "--pipeline-model-parallel-size 2 x 3 runs of layers"]),
        (
            PIPELINE + "--num-layers 8 --num-layers-per-virtual-pipeline-stage 3",
            ["--num-layers 8", "--num-layers-per-virtual-pipeline-stage 3"],
        ),
        ("--pipeline-model-parallel-size 8", ["--num-layers 4", "--pipeline-model-parallel-size 8"]),
        (f"{FIRST} 2", [FIRST, "--pipeline-model-parallel-size of at least 2"]),
        (PIPELINE + f"{FIRST} 5", ["--num-layers 4", f"{FIRST} 5"]),
        (PIPELINE + f"{FIRST} 1 {LAST} 2", [f"{FIRST} 1 and {LAST} 2", "take others for the first and"]),
        (f"--pipeline-model-parallel-size 3 {FIRST} 3 {LAST} 1", ["--num-layers 4", f"{FIRST} 3"]),
        (f"--pipeline-model-parallel-size 4 {LAST} 2", ["--num-layers 4", f"{LAST} 2"]),
        (PIPELINE + f"{FIRST} 1 {RUNS} 3", ["--num-layers 4", "x 3 runs of layers", f"{FIRST} 1"]),
        (PIPELINE + f"{FIRST} 0", [f"{FIRST} 0 must be at least 1"]),
        (PIPELINE + COUNTED, ["--num-layers 4", COUNTED]),
        (PIPELINE + f"{COUNTED} {FIRST} 1", [f"{FIRST} and {COUNTED} say in two ways"]),
        (
            PIPELINE + f"--num-layers-per-virtual-pipeline-stage 1 {RUNS} 2",
            ["--num-layers-per-virtual-pipeline-stage and", RUNS],
        ),
        (PIPELINE + f"{LAYOUT} 'Ett|ttL' {LAST} 2", [f"{LAYOUT} and {LAST} say in two ways"]),
        (PIPELINE + f"{LAYOUT} 'Et|t|t|tL' {RUNS} 2", [f"{LAYOUT} and {RUNS} say in two ways"]),
        (PIPELINE + f"{LAYOUT} 'Ett|tL'", [f"{LAYOUT} Ett|tL", "3 layers (t)", "--num-layers 4"]),
        (PIPELINE + f"{LAYOUT} 'ttE|ttL'", [f"{LAYOUT} ttE|ttL", "E must stand first"]),
        (PIPELINE + f"{LAYOUT} 'Ett|Ltt'", [f"{LAYOUT} Ett|Ltt", "L must stand last"]),
        (PIPELINE + f"{LAYOUT} 'EEtt|ttL'", ["E must stand first, and once"]),
        (PIPELINE + f"{LAYOUT} 'Ett||t|tL'", ["stage 2 of 4 has nothing"]),
        (PIPELINE + f"{LAYOUT} 'Ett|mttL'", [f"{LAYOUT} Ett|mttL: m has no meaning"]),
        (PIPELINE + f"{LAYOUT} 'E(t|ttt*xL'", ["( * x has no meaning"]),
        (PIPELINE + f"{LAYOUT} 'Ett|t|tL'", ["3 stages", "--pipeline-model-parallel-size 2"]),
        (f"{STRATEGY} no_shard --use-distributed-optimizer", [f"{STRATEGY} no_shard and --use-distributed"]),
        (f"{STRATEGY} optim --use-torch-fsdp2", [f"{STRATEGY} optim and --use-torch-fsdp2 contradict"]),
        ("--num-distributed-optimizer-instances 2", ["nothing is shared; give --use-distributed-optimizer"]),
        ("--num-distributed-optimizer-instances 0", ["--num-distributed-optimizer-instances 0 must be"]),
        (f"{STRATEGY} params", [f"{STRATEGY} params"]),
        (
            PIPELINE + "--pipeline-schedule zero-bubble --use-torch-fsdp2",
            ["zero-bubble", f"({STRATEGY} optim_grads_params)", "take 1f1b, or", f"{STRATEGY} optim"],
        ),
        (PIPELINE + f"--pipeline-schedule zero-bubble {STRATEGY} optim_grads", ["optim_grads) are summed"]),
    ],
    "optimizer": [
        ("--lr 0", ["--lr 0.0 must be above 0"]),
        ("--min-lr 1", ["--min-lr 1.0 must be between 0 and --lr 0.001"]),
        ("--min-lr=-1e-5", ["--min-lr -1e-05 must not be negative"]),
        ("--lr-decay-iters 50 --lr-decay-tokens 5000", ["--lr-decay-iters", "--lr-decay-tokens", "one unit"]),
        ("--lr-decay-iters -5", ["--lr-decay-iters -5"]),
        ("--lr-decay-iters 0", ["--lr-decay-iters 0"]),
        (
            "--lr-warmup-iters 5 --lr-warmup-samples 10",
            ["--lr-warmup-iters", "--lr-warmup-samples", "one unit"],
        ),
        (
            "--lr-warmup-iters 5 --lr-warmup-fraction 0.1",
            ["--lr-warmup-iters", "--lr-warmup-fraction", "one unit"],
        ),
        ("--lr-warmup-fraction 1", ["--lr-warmup-fraction 1"]),
        ("--lr-warmup-iters 101", ["--lr-warmup-iters 101", "100 iters"]),
        ("--lr-warmup-iters 51 --lr-decay-iters 50", ["--lr-warmup-iters 51", "50 iters"]),
        ("--lr-warmup-samples -1", ["--lr-warmup-samples -1"]),
        (
            "--lr-decay-style WSD --lr-wsd-decay-tokens 0",
            ["--lr-wsd-decay-tokens 0 must be at least 1", "--lr-decay-style constant"],
        ),
        ("--lr-decay-style WSD", ["--lr-decay-style WSD", "--lr-wsd-decay-tokens"]),
        ("--lr-decay-style WSD --lr-wsd-decay-tokens 1000", ["--lr-decay-style WSD", "iters"]),
        ("--adam-beta1 1", ["--adam-beta1 1"]),
        ("--adam-beta2=-0.1", ["--adam-beta2 -0.1"]),
        ("--clip-grad=-1", ["--clip-grad -1"]),
        ("--weight-decay=-1", ["--weight-decay -1"]),
        ("--adam-eps=-1e-8", ["--adam-eps -1e-08"]),
        ("--adam-eps 0", ["--adam-eps 0.0 must be above 0"]),
        ("--lr-warmup-init 1", ["--lr-warmup-init 1.0", "--lr 0.001"]),
        ("--lr-wsd-decay-iters 5", ["--lr-decay-style linear", "--lr-decay-style WSD"]),
        ("--lr-wsd-decay-style linear", ["--lr-decay-style linear", "--lr-decay-style WSD"]),
        ("--rotary-base 500000", ["--rotary-base needs --position-embedding-type rope"]),
        ("--rotary-percent 0.5", ["--rotary-percent needs --position-embedding-type rope"]),
        ("--rope-scaling-factor 32", ["--rope-scaling-factor needs --position-embedding-type rope"]),
        (
            "--position-embedding-type rope --rope-scaling-factor 32",
            ["--rope-scaling-factor 32.0 needs --use-rope-scaling"],
        ),
        ("--random-ltd-min 16", ["--random-ltd-min: without effect, as --random-ltd is not given"]),
        ("--random-ltd-max 16 --random-ltd-quantum 8", ["--random-ltd-max, --random-ltd-quantum"]),
        ("--lr-decay-style inverse-square-root", ["inverse-square-root", "--lr-warmup-tokens"]),
    ],
    "data_efficiency": [
        ("--random-ltd-duration 5", ["--random-ltd-duration", "--random-ltd"]),
    ],
    "checkpoint": [
        ("--save out --save-interval 0", ["--save-interval 0"]),
        ("--save out --save-retain-interval 0", ["--save-retain-interval 0"]),
        ("--save-interval 5", ["--save-interval", "--save FOLDER"]),
        ("--save-retain-interval 5", ["--save-retain-interval", "--save FOLDER"]),
        ("--ckpt-step 5", ["--ckpt-step", "--load FOLDER"]),
        ("--finetune", ["--finetune", "--load FOLDER"]),
        ("--use-checkpoint-args", ["--use-checkpoint-args", "--load FOLDER"]),
        ("--exit-on-missing-checkpoint", ["--exit-on-missing-checkpoint", "--load FOLDER"]),
    ],
    "logging": [
        ("--log-interval 0", ["--log-interval 0"]),
        ("--tensorboard-log-interval 0", ["--tensorboard-log-interval 0"]),
        ("--eval-interval 0", ["--eval-interval 0"]),
        ("--eval-iters -1", ["--eval-iters -1"]),
        ("--profile --profile-step-start 12", ["--profile-step-start 12", "--profile-step-end 12"]),
        ("--wandb-project '${PROJECT:-p}'", ["--wandb-project ${PROJECT:-p}", "write the name itself"]),
        ("--wandb-project p --wandb-exp-name None", ["--wandb-exp-name None", "leave it out"]),
        ("--wandb-project none", ["--wandb-project none", "leave it out"]),
        ("--wandb-project {{NAME}}", ["--wandb-project {{NAME}}", "write the name itself"]),
        ("--metrics-file x.csv", ["--metrics-file x.csv", ".jsonl"]),
        ("--device-peak-tflops 312e12 --log-throughput", ["--device-peak-tflops 312000000000000.0"]),
        ("--profile-step-start -1", ["--profile-step-start -1"]),
        ("--profile-ranks 0 -2", ["--profile-ranks -2"]),
        ("--device-peak-tflops 0", ["--device-peak-tflops 0.0"]),
        ("--tensorboard-queue-size 0", ["--tensorboard-queue-size 0"]),
    ],
}


@pytest.mark.parametrize("flags", [flags for group in VALID.values() for flags in group])
def test_a_valid_configuration_has_no_problem(flags: str) -> None:
    assert problems_of(STOP + flags) == []


@pytest.mark.parametrize(("flags", "words"), [case for group in BROKEN.values() for case in group])
def test_a_broken_rule_is_one_problem_that_names_flag_and_value(flags: str, words: list[str]) -> None:
    (problem,) = problems_of(STOP + flags)
    assert all(word in problem for word in words), problem


BOUNDS = ("must be", "choose one of", "must stand", "has no meaning")
"""A value that is none, or a text that cannot be read: there is one way out, and the line says it."""


@pytest.mark.parametrize("flags", [flags for flags, _ in BROKEN["parallel"]])
def test_what_ranks_cannot_share_is_told_with_two_ways_out(flags: str) -> None:
    (problem,) = problems_of(STOP + flags)
    _, _, ways = problem.rpartition("; ")
    assert any(words in problem for words in BOUNDS) or ways.count(" or ") or "one of them" in ways, problem
