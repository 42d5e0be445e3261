"""What follows from the flags of images, and what they cannot be."""

import pytest

from megatron.base.errors import UserError
from megatron.config.vision import of_text
from megatron.tasks.vit import vocabulary_of
from megatron.train.configure import read_config
from tests.support.configurations import make_config, problems_of

GIVEN = (
    "--num-layers 2 --hidden-size 16 --num-attention-heads 2 --micro-batch-size 4 --train-iters 3 --lr 1e-3 "
    "--data-path pictures "
)


def config_of(flags: str):
    from megatron.tasks.vit import VIT_TASK

    return read_config((GIVEN + flags).split(), "", "", VIT_TASK.rules, VIT_TASK.given)[0]


def refused(flags: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        config_of(flags)
    return list(caught.value.problems)


def test_tokens_and_means_follow_from_images() -> None:
    config = config_of("")
    assert config.data.seq_length == config.model.max_position_embeddings == 197
    assert config.vision.img_mean == (0.485, 0.456, 0.406) and config.tokenizer.vocab_size is None
    config = config_of("--img-h 32 --img-w 48 --patch-dim 8 --num-channels 1 --num-classes 7")
    assert config.data.seq_length == 25 and config.tokenizer.vocab_size == 7
    assert config.vision.img_mean == config.vision.img_std == (0.5,)
    ltd = config_of("--num-layers 4 --random-ltd --random-ltd-min 64 --random-ltd-duration 2").data_efficiency
    assert ltd.random_ltd and ltd.random_ltd_max == 197


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--img-h 100", "--img-h 100 is no multiple of --patch-dim 16; change one of them"),
        ("--patch-dim 0", "--patch-dim 0 must be at least 1"),
        ("--num-channels 2", "--num-channels 2: choose one of 1, 3"),
        ("--rand-augment-magnitude 5", "--rand-augment-magnitude 5 needs --rand-augment"),
        (
            "--seq-length 196",
            "--seq-length 196: an image of 224 x 224 pixels has 197 tokens, its patches and",
        ),
        ("--max-position-embeddings 512", "--max-position-embeddings 512: an image of 224 x 224 pixels has"),
        ("--img-mean 0.5", "--img-mean 0.5: give a number for each channel of --num-channels 3"),
        ("--position-embedding-type rope", "--position-embedding-type rope: patches lie in two directions"),
        ("--num-experts 4", "--num-experts: mixtures of experts are built by pretrain_gpt.py alone"),
        ("--mask-prob 0.3", "--mask-prob: belongs to pretrain_bert.py; leave it out"),
        ("--eod-mask-loss", "--eod-mask-loss: images have no tokens of text; leave it out"),
        ("--eod-token x", "--eod-token: images have no tokens of text; leave it out"),
        ("--vocab-size 7", "--vocab-size: images have no tokens of text; leave it out"),
        ("--label-smoothing 1", "--label-smoothing 1.0 must be in [0, 1)"),
        ("--data-path x/train x/val", "--data-path x/train x/val: would train on both; give the folder that"),
        ("--vision-pretraining-type dino", "pretrain_vit.py; leave it out"),
    ],
)
def test_what_a_vision_transformer_cannot_have_gets_one_line(flags: str, line: str) -> None:
    (problem,) = refused(flags)
    assert line in problem


def test_ranks_do_not_share_the_tokens_of_an_image() -> None:
    """One line, whatever else is wrong with them on one rank."""
    lines = refused("--context-parallel-size 2 --sequence-parallel --tensor-model-parallel-size 2")
    assert sum("are no number that ranks could share" in line for line in lines) == 1


def test_flags_of_megatron_that_ask_for_what_is_so_are_taken() -> None:
    given = "--vision-pretraining --vision-pretraining-type classify --vision-backbone-type vit"
    assert config_of(given) == config_of("")


def test_texts_have_no_flags_of_images() -> None:
    assert problems_of("--train-iters 1", rules=(of_text,)) == []
    given = "--train-iters 1 --img-h 32 --num-classes 5 --pretrained-checkpoint x"
    assert problems_of(given, rules=(of_text,)) == [
        "--pretrained-checkpoint: give --load FOLDER --finetune to start from its weights",
        "--img-h, --num-classes: belongs to pretrain_vit.py; leave it out",
    ]


def test_classes_are_those_of_the_data() -> None:
    vision = make_config("--train-iters 1").vision
    assert vocabulary_of(("a", "b"), vision).size == 2
    more, fewer = (make_config(f"--train-iters 1 --num-classes {count}").vision for count in (5, 2))
    assert vocabulary_of(("a", "b", "c"), more).size == 5
    with pytest.raises(UserError, match="--num-classes 2: the images are of 3 classes"):
        vocabulary_of(("a", "b", "c"), fewer)
    with pytest.raises(UserError, match="all images are of the class a"):
        vocabulary_of(("a",), vision)
