"""Every flag of Megatron-LM and Megatron-DeepSpeed is used, read as another, refused, or told to be unused,
and so are some of other programs. The names of their flags are in flags/."""

import re
import shlex
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import understand, unused_flags
from megatron.config.config import Config
from megatron.config.flags import flags_of
from megatron.config.foreign import BY_LAUNCHERS, dashed, find
from megatron.config.other_megatrons import FOREIGN_FLAGS
from tests.support.configurations import SMALL, make_config, problems_of

LISTS = sorted((Path(__file__).parent / "flags").glob("*.txt"))
OURS = {dashed(spelling) for one in flags_of(Config) for spelling in one.spellings} | {"help"}


def names_of(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("--")]


NAMES = sorted({dashed(name) for path in LISTS for name in names_of(path)})
REFUSED = sorted(name for name, entry in FOREIGN_FLAGS.items() if entry.accepted is not None)


def notes_of(flags: str) -> list[str]:
    return unused_flags(Config, shlex.split(SMALL + flags), FOREIGN_FLAGS)


def test_the_lists_are_whole() -> None:
    assert [(path.stem, len(names_of(path))) for path in LISTS] == [
        ("megatron_deepspeed", 330),
        ("megatron_lm", 877),
        ("others", 25),
    ]


def test_no_flag_of_ours_stands_in_the_table() -> None:
    assert not set(FOREIGN_FLAGS) & OURS


def test_every_flag_of_theirs_has_a_fate() -> None:
    assert [name for name in NAMES if name not in OURS and not find(FOREIGN_FLAGS | BY_LAUNCHERS, name)] == []


def test_every_family_is_of_some_flag() -> None:
    needed = {entry.why for name in NAMES if name not in OURS and (entry := find(FOREIGN_FLAGS, name))}
    assert {entry.why for entry in FOREIGN_FLAGS.values()} == needed


def test_patterns_take_no_flag_of_ours() -> None:
    assert [name for name in OURS if find(FOREIGN_FLAGS, name)] == []


@pytest.mark.parametrize("name", [name for name in REFUSED if "*" not in name])
def test_no_suggestion_leads_to_a_flag_that_may_be_refused(name: str) -> None:
    middle = len(name) // 2
    for typo in (name[:middle] + name[middle + 1 :], name + "s"):
        if find(FOREIGN_FLAGS, typo) or dashed(typo) in OURS:
            continue
        (problem,) = understand(Config, [f"--{typo}"], foreign=FOREIGN_FLAGS)[1]
        suggested = problem.partition("did you mean ")[2].rstrip("?")
        assert not suggested or dashed(suggested) in OURS or find(FOREIGN_FLAGS, suggested).accepted is None


REFUSED_ALONE = """
--tensor-parallel-num-weight-shards 8|--ds-sequence-parallel-size 2
--pipeline-model-parallel-split-rank 1|--standalone-embedding-stage
--fp16-lm-cross-entropy|--fp8-format hybrid|--fp8-e4m3|--num-experts 8 --moe-shared-expert-gate
--outer-dp-sharding-strategy optim
--dataloader-type cyclic|--qk-layernorm|--apply-layernorm-1p|--quick-geglu|--mtp-num-layers 2
--multi-latent-attention|--mtp-num-layers 1|--rotary-interleaved|--softmax-type learnable
--apply-query-key-layer-scaling|--fp32-residual-connection
--apply-query-key-layer-scaling|--glu-linear-offset 1.0|--activation-func-clamp-value 7
--init-method-xavier-uniform|--embedding-init-method-std 1.0|--data-parallel-random-init|--freeze-all-layers
--use-precision-aware-optimizer|--exp-avg-dtype bf16|--decoupled-lr 5e-4
--start-weight-decay 0.1|--weight-decay-incr-style cosine|--step-batch-size-schedule 0:768
--skip-train-iteration-range 2-3 5-6|--train-range-to-skip 2 3 5 6|--auto-skip-spiky-loss
--iterations-to-skip 3 4|--data-args-path list.txt|--per-split-data-args-path list.json|--fim-data
--train-weighted-split-paths-path list.txt|--valid-weighted-split-paths x
--sample-rate 0.5|--full-validation|--eval-global-batch-size 64
--vocab-extra-ids 100|--padded-vocab-size 32000|--kd|--mos|--perform-rl-step|--sft|--use-mup|--spec local x
--non-persistent-save-interval 5|--ckpt-convert-format torch|--vision-pretraining-type dino
--vision-backbone-type mit
--hybrid-override-pattern M*M|--batch-size 8|--warmup 0.1|--mlp-type residual
--load x --no-load-optim|--save x --no-save-optim
--load x --no-load-lr-state|--aml-data-download-path x|--append-eod|--logits-load-dir x|--qk-clip
--curriculum-learning
--gradient-accumulation-steps 4|--gas 4|--train-batch-size 64
--train-micro-batch-size-per-gpu 4
--train-data-weights 1 2|--weight-by-num-documents|--padded-vocab-size 640|--pad-vocab-size-to 640
"""


@pytest.mark.parametrize("text", REFUSED_ALONE.replace("\n", "|").strip("|").split("|"))
def test_flags_that_change_model_data_numbers_or_what_is_saved_are_refused(text: str) -> None:
    (problem,) = understand(Config, shlex.split(SMALL + text), foreign=FOREIGN_FLAGS)[1]
    words = text.removeprefix("--load x ").removeprefix("--save x ")
    words = words.removeprefix("--num-experts 8 ")
    assert problem.startswith(f"{words} is refused: ")


@pytest.mark.parametrize("name", REFUSED)
def test_every_refusal_says_what_to_do(name: str) -> None:
    assert re.search(r"(^|; |, or )(leave|give|use|write) ", FOREIGN_FLAGS[name].why), FOREIGN_FLAGS[name].why


NEUTRAL = """
--tensor-model-parallel-size 1 --pipeline-model-parallel-size 1 --context-parallel-size 1 --sequence-parallel
--tensor_model_parallel_size=1|--no-async-tensor-model-parallel-allreduce|--num-experts 1|--fp16 false
--transformer-impl local --use-flash-attn --no-masked-softmax-fusion --no-bias-gelu-fusion --num-workers 2
--deepspeed --zero-stage 0 --no-pipeline-parallel|--dataloader-type single|--weight-decay-incr-style constant
--accumulate-allreduce-grads-in-fp32 --overlap-grad-reduce --attention-softmax-in-fp32 --DDP-impl local
--overlap-param-gather
--no-query-key-layer-scaling --calculate-per-token-loss --use-mcore-models --no-save-rng --no-load-rng
--hysteresis 2|--vocab-extra-ids 0|--softmax-type vanilla|--glu-linear-offset 0.0|--exp-avg-dtype FP32
--mlp-type standard|--exit-signal-handler --tp-comm-overlap --disable-tp-comm-bulk-dgrad
--ckpt-format torch_dist|--use-torch-fsdp2 false|--data-impl mmap|--manual-gc-interval 0
"""


@pytest.mark.parametrize("text", NEUTRAL.replace("\n", "|").strip("|").split("|"))
def test_nothing_is_said_of_values_that_ask_for_what_is_so(text: str) -> None:
    assert understand(Config, shlex.split(SMALL + text), foreign=FOREIGN_FLAGS)[1] == []
    assert notes_of(text) == []


UNUSED = """
--data-cache-path /cache|--num-workers 8|--async-strategy nvrx|--log-progress|--manual-gc|--rerun-mode off
--zero-contigious-gradients|--overlap-param-gather-with-optimizer-step|--logging-level 20
--train-doc-idx-path x|--data-efficiency-curriculum-learning|--cpu-optimizer|--empty-unused-memory-level 1
--distributed-timeout-seconds-after-init 60|--one-logger-project x|--no-one-logger|--inprocess-restart
--mask-factor 0.2|--bert-load x|--dino-head-hidden-size 64|--inference-max-requests 8|--use-pin-memory
--cuda-graph-impl local|--optimizer-cpu-offload|--cpu-offloading-num-layers 2|--trust-remote-code
--moe-shared-expert-gate|--mamba-state-dim 64|--fim-rate 0.5|--fp8-margin 1|--muon-momentum 0.95
--multiple-validation-sets|--use-checkpoint-opt_param-scheduler|--no-check-for-nan-in-loss-and-grad
--no-load-optim|--no-save-optim|--flight-recorder-dump-path x|--log_optimizer_states_to_tensorboard
"""


@pytest.mark.parametrize("text", UNUSED.replace("\n", "|").strip("|").split("|"))
def test_flags_that_change_nothing_are_told_once(text: str) -> None:
    assert understand(Config, shlex.split(SMALL + text), foreign=FOREIGN_FLAGS)[1] == []
    (note,) = notes_of(text)
    assert note.startswith(f"not used here: {text.split()[0]} (")


def test_a_run_keeps_the_schedule_of_its_checkpoint_unless_asked_otherwise() -> None:
    words = SMALL + "--load x --use-checkpoint-opt_param-scheduler"
    assert understand(Config, shlex.split(words), foreign=FOREIGN_FLAGS)[1] == []
    for other in ("--override-opt_param-scheduler", "--override-lr-scheduler"):
        (problem,) = understand(Config, shlex.split(f"{words} {other}"), foreign=FOREIGN_FLAGS)[1]
        assert "leave out --override-opt_param-scheduler" in problem


def test_one_note_tells_of_all_flags_that_do_nothing_with_each_reason_once() -> None:
    (note,) = notes_of("--data-cache-path x --num-workers 4 --no-mmap-bin-files --hysteresis 2 --manual-gc")
    assert note == (
        "not used here: --data-cache-path (no index is built or cached); --num-workers, --no-mmap-bin-files "
        "(datasets are memory-mapped .bin and .idx files, read without worker processes); --manual-gc "
        "(nothing is captured in CUDA graphs, and memory is left to PyTorch)"
    )


def test_one_line_refuses_all_flags_of_a_reason() -> None:
    flags = (
        "--num-experts 8 --moe-shared-expert-gate --moe-latent-size 8 --moe-grouped-gemm --fp8-e4m3 "
        "--ds-sequence-parallel-size 2"
    )
    assert problems_of(flags + " --train-iters 5") == [
        "--moe-shared-expert-gate, --moe-latent-size 8 are refused: this part of a mixture of experts is not "
        "built here yet; leave that out",
        "--fp8-e4m3 is refused: use --bf16, --fp16 or fp32",
        "--ds-sequence-parallel-size 2 is refused: these ways of sharing are not built here; leave it at 1",
    ]


@pytest.mark.parametrize(
    "theirs, ours, told",
    [
        ("--checkpoint-activations", "--recompute-granularity full", "--recompute-granularity full"),
        ("--recompute-activations", "--recompute-granularity selective", "--recompute-granularity selective"),
        ("--topk 2", "--moe-router-topk 2", "--moe-router-topk 2"),
        (
            "--topk 1",
            "--moe-router-topk 1 --moe-router-pre-softmax",
            "--moe-router-topk 1 --moe-router-pre-softmax",
        ),
        ("--moe-loss-coeff 0.01", "--moe-aux-loss-coeff 0.01", "--moe-aux-loss-coeff 0.01"),
        (
            "--moe-train-capacity-factor 1.5",
            "--moe-expert-capacity-factor 1.5",
            "--moe-expert-capacity-factor 1.5",
        ),
        (
            "--expert-interval 2",
            "--moe-layer-freq ([0]*1+[1])*2+[0]*0",
            "--moe-layer-freq ([0]*1+[1])*2+[0]*0",
        ),
        ("--tokenizer-name-or-path t.json", "--tokenizer-model t.json", "--tokenizer-model t.json"),
        (
            "--num-key-value-heads 2",
            "--group-query-attention --num-query-groups 2",
            "--group-query-attention --num-query-groups 2",
        ),
        ("--layernorm-epsilon 1e-6", "--norm-epsilon 1e-6", "--norm-epsilon 1e-6"),
        ("--rotary-position-embeddings-theta=500", "--rotary-base 500", "--rotary-base 500"),
        ("--no-position-embedding", "--position-embedding-type none", "--position-embedding-type none"),
        ("--no-pad-vocab-size", "--make-vocab-size-divisible-by 1", "--make-vocab-size-divisible-by 1"),
        ("--override-lr-scheduler", "--override-opt_param-scheduler", "--override-opt-param-scheduler"),
        ("--save x --persistent-save-interval 5", "--save x --save-interval 5", "--save-interval 5"),
        ("--zero-stage 1", "--use-distributed-optimizer", "--zero-stage 1 as --use-distributed-optimizer"),
        (
            "--zero-stage=2",
            "--data-parallel-sharding-strategy optim_grads",
            "--data-parallel-sharding-strategy optim_grads",
        ),
        (
            "--zero-stage 3 --use-distributed-optimizer",
            "--use-distributed-optimizer --data-parallel-sharding-strategy optim_grads_params",
            "--data-parallel-sharding-strategy optim_grads_params",
        ),
        (
            "--use-torch-fsdp2 --torch-fsdp2-no-reshard-after-forward",
            "--use-torch-fsdp2 --data-parallel-sharding-strategy optim_grads",
            "--data-parallel-sharding-strategy optim_grads",
        ),
        (
            "--pipeline-model-parallel-size 2 --enable-zbh1-pipeline --enable-zbh1-exact-semantics",
            "--pipeline-model-parallel-size 2 --pipeline-schedule zero-bubble",
            "--enable-zbh1-pipeline as --pipeline-schedule zero-bubble",
        ),
        ("--pipe_parallel_size 2", "--pipeline-model-parallel-size 2", "--pipeline-model-parallel-size 2"),
        ("--pipe-parallel-size 0", "--pipeline-model-parallel-size 1", "--pipeline-model-parallel-size 1"),
        ("--model_parallel_size 2", "--tensor-model-parallel-size 2", "--tensor-model-parallel-size 2"),
        ("--profile_steps 2,3", "--profile-step-start 2 --profile-step-end 3", "--profile-step-start 2"),
    ],
)
def test_other_words_for_flags_of_ours(theirs: str, ours: str, told: str) -> None:
    assert make_config(theirs) == make_config(ours)
    (note,) = notes_of(theirs)
    assert note.startswith("read --") and told in note
    assert notes_of(ours) == []


def test_words_of_nanogpt() -> None:
    words = "--block_size 64 --n_layer 3 --n_head 2 --n_embd 8 --max_iters 7 --learning_rate 1e-3"
    values, problems = understand(Config, words.split(), foreign=FOREIGN_FLAGS)
    assert not problems and values == {
        "seq_length": 64,
        "num_layers": 3,
        "num_attention_heads": 2,
        "hidden_size": 8,
        "train_iters": 7,
        "lr": 1e-3,
    }


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("--override-opt-param-scheduler", "--override-opt_param-scheduler"),
        ("--override_opt_param_scheduler", "--override-opt_param-scheduler"),
        ("--normalization rmsnorm", "--normalization RMSNorm"),
        ("--normalization layernorm", "--normalization LayerNorm"),
        ("--lr-decay-style Cosine", "--lr-decay-style cosine"),
        (
            "--lr-decay-style inverse_square_root --lr-warmup-iters 2",
            "--lr-decay-style inverse-square-root --lr-warmup-iters 2",
        ),
        ("--hidden_dropout=0.3", "--hidden-dropout 0.3"),
        ("--no-position-embedding --position-embedding-type rope", "--position-embedding-type rope"),
        ("--no-position-embedding --use-rotary-position-embeddings", "--use-rotary-position-embeddings"),
        ("--checkpoint-activations false", ""),
    ],
)
def test_other_spellings_say_nothing(theirs: str, ours: str) -> None:
    assert make_config(theirs) == make_config(ours)
    assert notes_of(theirs) == []


def test_other_words_that_contradict_ours_are_told() -> None:
    assert problems_of(
        "--train-iters 5 --num-key-value-heads 2 --num-query-groups 4 --group-query-attention"
    ) == [
        "--num-key-value-heads 2 is --num-query-groups 2 here, and --num-query-groups 4 is given; give only "
        "one of them"
    ]
    (problem,) = problems_of("--train-iters 5 --num-key-value-heads two")
    assert problem == "--num-query-groups takes a whole number, not 'two'"


def test_flags_of_another_megatron_may_stand_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "tensor_model_parallel_size: 1\nfp16: false\nnum-workers: 4\nnum_key_value_heads: 2\n"
        "checkpoint_activations: false\ncp_comm_type: [p2p]\nmodel:\n  layernorm_epsilon: 1e-6\n"
    )
    model = make_config(f"--config {path} --train-iters 1").model
    assert (model.num_query_groups, model.norm_epsilon) == (2, 1e-6)
    read, unused = notes_of(f"--config {path}")
    assert "--num-key-value-heads 2 as" in read and unused.startswith("not used here: --num-workers (")
    path.write_text("ds_sequence_parallel_size: 2\nfp8-format: hybrid\n")
    with pytest.raises(UserError) as caught:
        make_config(f"--config {path} --train-iters 1")
    assert len(caught.value.problems) == 2


def test_saves_of_gpt_neox_and_other_warm_ups_are_refused_with_a_way_out() -> None:
    assert problems_of("--train-iters 5 --checkpoint-scale linear --lr-warmup-style linear") == []
    given = "--checkpoint-scale log --checkpoint-factor 10 --extra-save-iters 0 3"
    (saves,) = problems_of(f"--train-iters 5 {given}")
    assert saves.startswith(given.replace(" --", ", --")) and "give --save-interval N" in saves
    (warmup,) = problems_of("--train-iters 5 --lr-warmup-style constant")
    assert "give --lr-warmup-init the rate of --lr" in warmup


@pytest.mark.parametrize(
    "given, usual",
    [
        (
            "--num-experts 8 --moe-loss-coeff 0.01 --moe-train-capacity-factor 1.0 --moe-min-capacity 4",
            "--topk 1 --expert-interval 2",
        ),
        (
            "--num-experts 8 --create-moe-param-group --moe_expert_parallel_size 2 --moe-router-topk 2",
            "--expert-interval 2 --moe-loss-coeff 0.1 --moe-train-capacity-factor 1",
        ),
        (
            "--num-experts 8 --topk 1 --expert-interval 2 --moe-loss-coeff 0.1 --disable-moe-token-dropping",
            "",
        ),
        ("--num-experts 1 --moe-loss-coeff 0.01", ""),
        ("--num-experts 8 --moe-aux-loss-coeff 0.01", ""),
    ],
)
def test_what_megatron_deepspeed_takes_for_granted_of_experts_is_told(given: str, usual: str) -> None:
    found = [note for note in notes_of(given) if note.startswith("Megatron-DeepSpeed takes ")]
    words = f"Megatron-DeepSpeed takes {usual} where that is not given, and here other values count; give it"
    assert [note.startswith(words) for note in found] == ([True] if usual else [])
