"""Launch commands of the public examples of Megatron-LM and Megatron-DeepSpeed, with their variables filled
in: each is understood, or refused with all its reasons at once."""

import json
import shlex
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import understand, unused_flags
from megatron.config.config import RULES, complete
from megatron.config.launch import ranks_a_node, task_named, unwrap
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.schedule.data_efficiency_flags import describe
from tools.plan_run import Options

GPT3_175B = """
torchrun --nproc_per_node 8 --nnodes 1 --master_addr localhost --master_port 6000
examples/classes/pretrain_gpt.py --num-layers 96 --hidden-size 12288 --num-attention-heads 96
--seq-length 2048 --max-position-embeddings 2048 --attention-backend auto --micro-batch-size 1
--global-batch-size 1536 --rampup-batch-size 16 16 5859375 --train-iters 500000 --weight-decay 0.1
--adam-beta1 0.9 --adam-beta2 0.95 --init-method-std 0.006 --clip-grad 1.0 --fp16 --lr 6.0e-5
--lr-decay-style cosine --min-lr 6.0e-6 --lr-warmup-fraction .001 --lr-decay-iters 430000
--tensor-model-parallel-size 8 --pipeline-model-parallel-size 16 --data-path my_text_document
--vocab-file vocab.json --merge-file merges.txt --split 949,50,1 --log-interval 100 --save-interval 10000
--eval-interval 1000 --save ckpt --load ckpt --eval-iters 10 --tensorboard-dir logs
"""
LLAMA3_8B = """
torchrun --nproc_per_node 8 --nnodes 1 --node_rank 0 pretrain_gpt.py --use-mcore-models --num-layers 32
--hidden-size 4096 --ffn-hidden-size 14336 --num-attention-heads 32 --group-query-attention
--num-query-groups 8 --kv-channels 128 --seq-length 8192 --max-position-embeddings 8192
--position-embedding-type rope --rotary-base 1000000 --rotary-percent 1.0 --attention-dropout 0.0
--hidden-dropout 0.0 --swiglu --init-method-std 0.0134 --attention-backend fused --apply-layernorm-1p
--untie-embeddings-and-output-weights --disable-bias-linear --micro-batch-size 1 --global-batch-size 128
--train-samples 1953125000 --lr-decay-samples 1949218748 --lr-warmup-samples 3906252 --lr 0.00015
--min-lr 0.00001 --decoupled-lr 5.0e-4 --decoupled-min-lr 4.5e-5 --lr-decay-style cosine --clip-grad 1.0
--weight-decay 0.1 --adam-beta1 0.9 --adam-beta2 0.95 --bf16 --grad-reduce-in-bf16
--cross-entropy-loss-fusion --calculate-per-token-loss --manual-gc --empty-unused-memory-level 1
--exit-duration-in-mins 235 --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather
--fp8-format hybrid --fp8-amax-history-len 1024 --fp8-amax-compute-algo max --fp8-param-gather
--tensor-model-parallel-size 1 --context-parallel-size 1 --sequence-parallel --mock-data
--tokenizer-type NullTokenizer --vocab-size 128256 --data-cache-path cache --split 99,1,0
--no-create-attention-mask-in-dataloader --no-mmap-bin-files --num-workers 1 --log-interval 1
--eval-iters 32 --eval-interval 100 --save-interval 1000 --log-throughput --profile --profile-step-start 4
--profile-step-end 6 --ckpt-format torch_dist --distributed-timeout-minutes 60 --save ckpt --load ckpt
--tensorboard-dir logs
"""
MIXTRAL = """
torchrun --nproc_per_node 2 --nnodes 1 pretrain_gpt.py --use-mcore-models --disable-bias-linear
--seq-length 256 --max-position-embeddings 2048 --num-layers 2 --hidden-size 256 --ffn-hidden-size 896
--num-attention-heads 2 --init-method-std 0.01 --attention-dropout 0.0 --hidden-dropout 0.0
--normalization RMSNorm --position-embedding-type rope --swiglu --untie-embeddings-and-output-weights
--group-query-attention --num-query-groups 2 --no-masked-softmax-fusion --no-position-embedding
--rotary-base 1000000 --num-experts 2 --moe-router-topk 2 --moe-router-load-balancing-type aux_loss
--moe-aux-loss-coeff 1e-2 --moe-token-dispatcher-type alltoall --overlap-param-gather --overlap-grad-reduce
--tokenizer-type NullTokenizer --vocab-size 32000 --mock-data --split 99990,8,2 --micro-batch-size 1
--global-batch-size 4 --lr 1e-4 --train-iters 7 --min-lr 1.0e-5 --weight-decay 0.1 --clip-grad 1.0
--tensor-model-parallel-size 1 --pipeline-model-parallel-size 1 --expert-model-parallel-size 2
--use-distributed-optimizer --sequence-parallel --eval-iters 10 --no-load-optim --no-load-rng
"""
DEEPSPEED_LLAMA = """
torchrun --nproc_per_node 8 --nnodes 1 --node_rank 0 pretrain_gpt.py --tensor-model-parallel-size 1
--pipeline-model-parallel-size 1 --num-layers 24 --hidden-size 2048 --ffn-hidden-size 5504
--num-attention-heads 16 --micro-batch-size 4 --global-batch-size 32 --seq-length 2048
--max-position-embeddings 2048 --train-iters 250000 --save tmp --load tmp --data-path 1 data
--data-impl mmap --tokenizer-type SentencePieceTokenizer --tokenizer-model tokenizer.model
--split 949,50,1 --distributed-backend nccl --lr 3e-4 --lr-decay-style cosine --min-lr 3e-5
--weight-decay 0.1 --clip-grad 1 --lr-warmup-iters 2000 --optimizer adam --adam-beta1 0.9
--adam-beta2 0.95 --log-interval 1 --save-interval 10000 --eval-interval 1000 --eval-iters 10 --bf16
--no-query-key-layer-scaling --attention-dropout 0 --hidden-dropout 0 --use-rotary-position-embeddings
--untie-embeddings-and-output-weights --swiglu --normalization rmsnorm --disable-bias-linear
--num-key-value-heads 4 --deepspeed-activation-checkpointing --zero-stage=0 --deepspeed
"""
DATA_EFFICIENCY = """
deepspeed --num_gpus 8 /home/me/pretrain_gpt.py --override-opt_param-scheduler --adam-beta1 0.9
--adam-beta2 0.95 --tensor-model-parallel-size 1 --init-method-std 0.013 --lr-decay-tokens 300000000000
--lr-warmup-tokens 3000000000 --micro-batch-size 8 --exit-duration-in-mins 30000000
--global-batch-size 512 --num-layers 24 --hidden-size 2048 --num-attention-heads 16 --seq-length 2048
--max-position-embeddings 2048 --train-tokens 300000000000 --train-samples 292968750 --lr 2.0e-4
--min-lr 1.0e-6 --lr-decay-style cosine --split 949,50,1 --log-interval 100 --eval-interval 100
--eval-iters 10 --save-interval 2861 --weight-decay 0.1 --clip-grad 1.0 --hysteresis 2 --num-workers 0
--seed 1234 --load ckpt --save ckpt --tensorboard-queue-size 1 --log-timers-to-tensorboard
--log-batch-size-to-tensorboard --log-validation-ppl-to-tensorboard --tensorboard-dir logs
--checkpoint-activations --log-optimizer-states-to-tensorboard --random-ltd --train-doc-idx-path doc.npy
--train-sample-idx-path sample.npy --train-shuffle-idx-path shuffle.npy
--data-efficiency-curriculum-learning --vocab-file vocab.json --merge-file merges.txt
--data-path pile_text_document --data-impl mmap --deepspeed --deepspeed_config CONFIG --zero-stage 1
--pipeline-model-parallel-size 1 --no-pipeline-parallel --deepspeed-activation-checkpointing
"""


def read(command: str) -> tuple[Options, list[str]]:
    argv = unwrap(shlex.split(command))
    values, problems = understand(Options, argv, foreign=FOREIGN_FLAGS)
    return complete(Options, values, problems, rules=RULES), unused_flags(Options, argv, FOREIGN_FLAGS)


def test_a_command_that_is_refused_has_all_its_reasons_told() -> None:
    with pytest.raises(UserError) as caught:
        read(LLAMA3_8B)
    assert [problem.partition(" refused: ")[0] for problem in caught.value.problems] == [
        "--apply-layernorm-1p is",
        "--decoupled-lr 5.0e-4, --decoupled-min-lr 4.5e-5 are",
        "--fp8-format hybrid is",
    ]


def test_a_mixtral_of_megatron_on_two_ranks_that_share_experts() -> None:
    config, notes = read(MIXTRAL)
    assert (config.parallel.expert_model_parallel_size, config.parallel.expert_tensor_parallel_size) == (2, 1)
    assert (config.experts.moe_token_dispatcher_type, config.data_parallel_size) == ("alltoall", 2)
    assert [note.partition(" (")[0] for note in notes] == ["not used here: --no-load-optim"]


def test_gpt3_of_megatron_in_float16() -> None:
    config, notes = read(GPT3_175B)
    assert (config.training.fp16, config.optimizer.initial_loss_scale) == (True, 2.0**32)
    assert config.parallel.pipeline_model_parallel_size == 16
    assert notes == []


def test_a_llama_of_megatron_deepspeed() -> None:
    config, notes = read(DEEPSPEED_LLAMA)
    model = config.model
    assert (model.normalization, model.group_query_attention, model.num_query_groups) == ("RMSNorm", True, 4)
    assert (model.position_embedding_type, config.data_parallel_size) == ("rope", 8)
    assert config.tokenizer.tokenizer_type == "SentencePieceTokenizer"
    assert [note.partition(" (")[0] for note in notes] == [
        "read --num-key-value-heads 4 as --group-query-attention --num-query-groups 4",
        "not used here: --deepspeed-activation-checkpointing",
    ]


def test_the_data_efficiency_recipe_of_megatron_deepspeed(tmp_path: Path) -> None:
    path = tmp_path / "deepspeed.json"
    path.write_text(json.dumps(deepspeed_json()))
    config, notes = read(DATA_EFFICIENCY.replace("CONFIG", str(path)))
    efficiency, _ = describe(config)
    assert [metric.name for metric in efficiency.metrics] == ["vocab_rarity"]
    assert efficiency.length_metric == "seqlen_truncate"
    assert efficiency.dropping_layers == tuple(range(1, 23))
    assert config.training.recompute_granularity == "full"
    assert config.tokenizer.tokenizer_type == "GPT2BPETokenizer"
    taken, unused = notes
    assert taken == (
        "read --checkpoint-activations as --recompute-granularity full, "
        "--zero-stage 1 as --use-distributed-optimizer"
    )
    assert unused.startswith("not used here: --log-batch-size-to-tensorboard, ")
    assert "--train-doc-idx-path, --train-sample-idx-path, --train-shuffle-idx-path (difficulty" in unused


def deepspeed_json() -> dict:
    """The recipe's template with its placeholders filled in, as far as it is about data efficiency."""

    def metric(low: int, high: int, kind: str, root: int, quantum: int) -> dict:
        return {
            "index_to_sample_path": "dummy",
            "index_to_metric_path": "dummy",
            "difficulty_type": kind,
            "clustering_type": "schedule_based",
            "min_difficulty": low,
            "max_difficulty": high,
            "schedule_type": "fixed_root",
            "schedule_config": {
                "total_curriculum_step": 110000,
                "difficulty_step": quantum,
                "root_degree": root,
            },
        }

    metrics = {
        "vocabularyrarity": metric(1, 100, "percentile", 2, 1),
        "seqlen_truncate": metric(80, 2048, "value", 1, 8),
    }
    schedule = {
        "min_value": 128,
        "max_value": 2048,
        "schedule_type": "fixed_linear",
        "schedule_config": {"require_steps": 200000, "seq_per_step": 16},
    }
    dropping = {
        "enabled": True,
        "total_layer_num": 24,
        "random_ltd_layer_num": 22,
        "random_ltd_layer_id": list(range(1, 23)),
        "random_ltd_schedule": schedule,
    }
    curriculum = {"enabled": True, "curriculum_metrics": metrics}
    return {
        "train_batch_size": 512,
        "train_micro_batch_size_per_gpu": 8,
        "data_efficiency": {
            "enabled": True,
            "seed": 1234,
            "data_routing": {"enabled": True, "random_ltd": dropping},
            "data_sampling": {"enabled": True, "curriculum_learning": curriculum},
        },
    }


def test_the_ranks_of_accelerate_are_those_of_all_machines() -> None:
    command = "accelerate launch --num_processes 8 --num_machines 2 pretrain_gpt.py"
    assert unwrap(command.split()) == ["--data-parallel-size", "8"]


@pytest.mark.parametrize(
    ("chosen", "ranks", "of_a_machine"),
    [("--include localhost:0,1,2", "3", 3), ("--include=a:0,1@b:2", "3", 2), ("-i a:0,1@b:2,3", "4", 2)],
)
def test_chosen_gpus_are_counted(chosen: str, ranks: str, of_a_machine: int) -> None:
    words = f"deepspeed {chosen} pretrain_gpt.py".split()
    assert (unwrap(words), ranks_a_node(words)) == (["--data-parallel-size", ranks], of_a_machine)


def test_all_gpus_of_a_host_are_not_counted() -> None:
    words = ["deepspeed", "--include", "a@b:0", "pretrain_gpt.py"]
    with pytest.raises(
        UserError, match="--include a@b:0: all GPUs of a host are not counted here; name them"
    ):
        unwrap(words)
    assert unwrap([*words, "--data-parallel-size", "2"]) == ["--data-parallel-size", "2"]
    assert ranks_a_node(words) is None


@pytest.mark.parametrize(
    "launcher",
    [
        "torchrun --nproc-per-node 4 -m pretrain_bert",
        "torchrun --nproc-per-node 4 --module examples.pretrain_bert",
        "python -m torch.distributed.run --nproc-per-node 4 -m pretrain_bert",
        "python -m torch.distributed.run --nproc-per-node 4 pretrain_bert.py",
    ],
)
def test_a_script_may_be_a_module(launcher: str) -> None:
    words = f"{launcher} --lr 1".split()
    assert (unwrap(words), task_named(words)) == (["--lr", "1", "--data-parallel-size", "4"], "bert")


def test_two_files_of_flags_are_not_one() -> None:
    with pytest.raises(UserError) as caught:
        read(f"{GPT3_175B} --config a.yaml --config b.yaml")
    assert caught.value.problems[0].startswith(
        "--config a.yaml and --config b.yaml: only the last of them would count; write a file that says"
    )
