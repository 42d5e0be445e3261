"""The command line of training: the model's flags may be those of a checkpoint."""

import dataclasses
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.checkpoint.manifest import Manifest, as_read
from megatron.config.config import Config
from megatron.data.vocabulary import Vocabulary
from megatron.tasks.bert import BERT_TASK
from megatron.train import configure
from megatron.train.configure import read_config
from tests.support.configurations import SMALL, STOP, make_config

OTHERS = "--seq-length 128 --micro-batch-size 2 --lr 1e-3 --mock-data --vocab-size 100 "


def manifest_of(config: Config, task: str = "gpt") -> Manifest:
    return as_read(
        Manifest(task, dataclasses.asdict(config), Vocabulary(100, None, None), [], [], {}, {}, {})
    )


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch) -> str:
    """Flags that ask for the model of a checkpoint, of six layers and rotary positions."""
    index = manifest_of(make_config("--num-layers 6 --use-rotary-position-embeddings --swiglu"))
    monkeypatch.setattr(configure, "find_checkpoint", lambda root, step: Path(root) / f"iter_{step}")
    monkeypatch.setattr(configure, "read_manifest", lambda folder: index)
    return "--load run --ckpt-step 5 --use-checkpoint-args "


def test_the_model_of_a_checkpoint_wins_over_the_command_line(checkpoint: str) -> None:
    told = "the model's flags are those of run/iter_5"
    lost = ", and not as given: --num-layers, --hidden-size, --num-attention-heads"
    for more, notes in (("", ""), ("--num-layers 9 --hidden-size 32 --num-attention-heads 2 --swiglu", lost)):
        config, found = read_config((OTHERS + STOP + checkpoint + more).split(), "", "")
        assert config.model == make_config("--num-layers 6 --use-rotary-position-embeddings --swiglu").model
        assert found == [told + notes]


def test_angles_that_turn_nothing_in_a_checkpoint_are_no_flags_of_its_model(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody gives them now, and older versions took them."""
    rope = "--position-embedding-type rope --rotary-base 7"
    for flags, idle in (
        ("", {"rotary_base": 7.0, "use_rope_scaling": True}),
        (rope, {"rope_scaling_factor": 9.0}),
    ):
        saved = make_config(f"{SMALL} {flags}")
        index = manifest_of(dataclasses.replace(saved, model=dataclasses.replace(saved.model, **idle)))
        monkeypatch.setattr(configure, "read_manifest", lambda folder, index=index: index)
        config, _ = read_config((OTHERS + STOP + checkpoint).split(), "", "")
        assert config.model == dataclasses.replace(saved.model, max_position_embeddings=128)


def test_experts_of_a_checkpoint_are_its_model_too(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the group of samples, which fits this run's batch, and what is logged."""
    flags = "--num-experts 8 --moe-layer-freq 2 --moe-router-topk 1 --moe-router-pre-softmax "
    mixed = make_config(flags + "--micro-batch-size 6 --moe-group-size 3")
    monkeypatch.setattr(configure, "read_manifest", lambda folder: manifest_of(mixed))
    more = "--moe-router-num-groups 2 --moe-router-group-topk 1 --moe-per-layer-logging"
    config, _ = read_config((OTHERS + STOP + checkpoint + more).split(), "", "")
    own = {"moe_group_size": 2, "moe_per_layer_logging": True}
    assert config.experts == dataclasses.replace(mixed.experts, **own)


def test_an_encoder_of_a_checkpoint_is_what_its_model_is_and_not_how_it_is_fed(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_model = (
        "--bert-no-binary-head --window-size 8,8 --window-attn-skip-freq 3 --embedding-norm "
        "--position-embedding-type rope --local-rotary-base 90 --rotary-base 500 "
    )
    fed = "--mask-prob 0.4 --short-seq-prob 0.3 --bert-pack --masking static "
    saved = make_config(of_model + fed)
    monkeypatch.setattr(configure, "read_manifest", lambda folder: manifest_of(saved, "bert"))
    words = (OTHERS + STOP + checkpoint + "--mask-prob 0.2 --window-size 4,4").split()
    config, notes = read_config(words, "", "", BERT_TASK.rules)
    wanted = make_config(of_model + "--mask-prob 0.2")
    assert (config.model, config.bert, config.sentences) == (wanted.model, wanted.bert, wanted.sentences)
    assert notes == ["the model's flags are those of run/iter_5, and not as given: --window-size"]


def test_what_resuming_may_change_is_as_it_is_given(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How tokens come to experts, and by which kernel attention is computed."""
    flags = "--num-experts 8 --moe-aux-loss-coeff 0.01 --attention-backend unfused "
    saved = make_config(flags + "--moe-token-dispatcher-type allgather")
    monkeypatch.setattr(configure, "read_manifest", lambda folder: manifest_of(saved))
    for more, backend, way in (
        ("", "unfused", "allgather"),
        ("--attention-backend fused --moe-token-dispatcher-type alltoall", "fused", "alltoall"),
    ):
        config, notes = read_config((OTHERS + STOP + checkpoint + more).split(), "", "")
        assert (config.model.attention_backend, config.experts.moe_token_dispatcher_type) == (backend, way)
        assert notes == ["the model's flags are those of run/iter_5"]


def test_rotary_positions_of_a_checkpoint_go_on_to_longer_texts(checkpoint: str) -> None:
    """No weight depends on their number; of learned positions it is the checkpoint's."""
    longer = OTHERS.replace("--seq-length 128", "--seq-length 256") + STOP + checkpoint
    config, notes = read_config((longer + "--max-position-embeddings 256").split(), "", "")
    assert config.model.max_position_embeddings == config.data.seq_length == 256
    assert notes == ["the model's flags are those of run/iter_5"]
    with pytest.raises(UserError, match="--max-position-embeddings 128 is below --seq-length 256; raise"):
        read_config(longer.split(), "", "")


def test_flags_of_a_yaml_file_may_ask_for_the_model_of_a_checkpoint(checkpoint: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("checkpoint: {load: run, use-checkpoint-args: true}\n")
    config, _ = read_config(f"{OTHERS}{STOP} --config {path}".split(), "", "")
    assert config.model.num_layers == 6


def test_what_is_missing_is_asked_for_after_the_checkpoint(checkpoint: str) -> None:
    with pytest.raises(UserError) as caught:
        read_config((checkpoint + STOP + "--lr x --micro-batch-size 0 --mock-data").split(), "", "")
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "--micro-batch-size 0 must be at least 1",
        "--lr takes a number, not 'x'",
        "--seq-length is required: tokens of a full sample",
        "--mock-data needs --vocab-size, the number of made-up tokens",
    ]


def test_without_a_checkpoint_the_model_is_asked_for(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configure, "find_checkpoint", lambda root, step: None)
    with pytest.raises(UserError) as caught:
        read_config((OTHERS + STOP + checkpoint).split(), "", "")
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "--num-layers",
        "--hidden-size",
        "--num-attention-heads",
    ]


def test_flags_that_do_nothing_are_told() -> None:
    config, notes = read_config((SMALL + STOP + "--num-workers 4").split(), "", "")
    assert config == make_config(STOP)
    (note,) = notes
    assert note.startswith("not used here: --num-workers (datasets are memory-mapped")


def test_mistakes_of_a_curriculum_are_told_with_all_others() -> None:
    words = f"{SMALL}{STOP}--lr -1 --curriculum seqlen_truncate --random-ltd".split()
    with pytest.raises(UserError) as caught:
        read_config(words, "", "")
    told = " ".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert all(one in told for one in ("--lr -1.0", "--curriculum seqlen_truncate", "--random-ltd-duration"))


def test_a_batch_that_follows_from_the_ranks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = OTHERS + SMALL + STOP
    told = [
        "--global-batch-size is 8, as --micro-batch-size 2 x 4 ranks; give it, and batches do not depend on "
        "the number of ranks"
    ]
    for ranks, more, notes in ((1, "", []), (4, "", told), (4, "--global-batch-size 8", [])):
        monkeypatch.setenv("WORLD_SIZE", str(ranks))
        config, found = read_config((flags + more).split(), "", "")
        assert found == notes
        assert config.training.global_batch_size == 2 * ranks or more


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            "--log-timers-to-tensorboard --tensorboard-dir board",
            ["--log-timers-to-tensorboard without --timing-log-level 1 or 2 writes nothing"],
        ),
        (
            "--log-memory-to-tensorboard --tensorboard-log-interval 2",
            [
                "--tensorboard-log-interval, --log-memory-to-tensorboard without --tensorboard-dir or "
                "--wandb-project writes nothing"
            ],
        ),
        (
            "--wandb-exp-name a --profile-step-end 20",
            [
                "--wandb-exp-name without --wandb-project writes nothing",
                "--profile-step-end without --profile writes nothing",
            ],
        ),
        ("--log-timers-to-tensorboard --tensorboard-dir board --timing-log-level 1", []),
        ("--log-memory-to-tensorboard --wandb-project p --wandb-exp-name a", []),
        ("--wandb-project= --wandb-entity= --wandb-exp-name=", []),
    ],
)
def test_what_is_asked_of_the_log_and_does_nothing_is_told(flags: str, told: list[str]) -> None:
    shape = "--num-layers 2 --hidden-size 32 --num-attention-heads 2 "
    assert read_config((OTHERS + STOP + shape + flags).split(), "", "")[1] == told


@pytest.mark.parametrize(
    "flags, note",
    [
        ("--lr-warmup-init 1e-5", "without effect, as there is no warm-up: --lr-warmup-init"),
        ("--lr-warmup-init 1e-5 --lr-warmup-iters 5", None),
        (
            "--lr-decay-style constant --min-lr 1e-5 --lr-decay-iters 50",
            "without effect, as --lr-decay-style constant stays at --lr: --min-lr, --lr-decay-iters",
        ),
        ("--lr-decay-style constant --lr-warmup-fraction 0.1 --lr-decay-iters 50", None),
        (
            "--lr-decay-style WSD --lr-wsd-decay-iters 5 --lr-wsd-decay-samples 9",
            "without effect, as the decay is over iters: --lr-wsd-decay-samples",
        ),
        ("--device-peak-tflops 989", "--device-peak-tflops without --log-throughput writes nothing"),
        (
            "--tokenizer-type NullTokenizer --vocab-file v.json",
            "--vocab-file v.json: NullTokenizer does not read it; leave it out, or give another "
            "--tokenizer-type",
        ),
        ("--lr 1e-4", "of --lr 1e-3 and --lr 1e-4 the last one counts"),
    ],
)
def test_what_has_no_effect_is_told(flags: str, note: str | None) -> None:
    assert read_config((SMALL + STOP + flags).split(), "", "")[1] == ([note] if note else [])


def test_a_json_that_clips_nothing_is_told_to_who_does_not_say_it(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"train_batch_size": "auto"}')
    words = (SMALL + STOP + f"--data-efficiency-config {tmp_path}/run.json").split()
    (note,) = read_config(words, "", "")[1]
    assert note.startswith(f"{tmp_path}/run.json: without gradient_clipping")
    assert read_config([*words, "--clip-grad", "1.0"], "", "")[1] == []


def test_angles_of_windows_that_turn_nothing_are_told() -> None:
    more = "--local-rotary-base 90"
    words = (SMALL + STOP + more).split()
    told = "--local-rotary-base: not used without --window-size and --position-embedding-type rope"
    assert read_config(words, "", "", BERT_TASK.rules)[1] == [told]
    used = [*words, "--window-size", "8,8", "--position-embedding-type", "rope"]
    assert read_config(used, "", "", BERT_TASK.rules)[1] == []
