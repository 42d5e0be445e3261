"""Losses on held-out windows against cross-entropy by hand: which windows, by corpus, on any ranks."""

import numpy as np
import pytest
import torch

from megatron.data.corpora import Corpus
from megatron.data.vocabulary import Vocabulary
from megatron.evaluation.losses import first_windows, mean_losses, validation_windows
from megatron.parallel.initialization import initialize
from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.gpt import GPT_TASK
from megatron.train.announce import unscored
from tests.support.configurations import make_config
from tests.support.corpora import make_corpus
from tests.support.ranks import run_ranks

LENGTH, VOCAB = 16, 50
FLAGS = (
    f"--num-layers 1 --hidden-size 16 --num-attention-heads 2 --seq-length {LENGTH} --train-iters 1 "
    "--hidden-dropout 0.5 --attention-dropout 0.5 --init-method-std 0.3 "
)


def corpora(*windows: int) -> list[tuple[float | None, Corpus]]:
    return [
        (None, make_corpus(count, LENGTH, VOCAB, number, f"corpus{number}"))
        for number, count in enumerate(windows)
    ]


@pytest.mark.parametrize(
    ("weights", "wanted", "taken"),
    [
        ([None, None], 100, [10, 30]),
        ([None, None], 4, [1, 3]),
        ([3.0, 1.0], 8, [6, 2]),
        ([3.0, 1.0], 40, [10, 10]),
        ([1.0, 1.0], 0, [0, 0]),
    ],
)
def test_the_first_windows_of_every_corpus_by_its_weight(
    weights: list[float | None], wanted: int, taken: list[int]
) -> None:
    """Of a corpus with too few all are taken, and no other makes up for it."""
    blend = [(weight, corpus) for weight, (_, corpus) in zip(weights, corpora(10, 30))]
    found = first_windows(blend, wanted, 1234).tolist()
    assert found == [[number, window] for number in (0, 1) for window in range(taken[number])]


def test_a_validation_scores_the_first_global_batches() -> None:
    """Another batch size is another number of windows, up to all that are there."""
    for flags, taken in (
        ("--global-batch-size 4 --eval-iters 3", 12),
        ("--global-batch-size 8 --eval-iters 3", 24),
        ("--global-batch-size 8 --eval-iters 9", 30),
        ("--global-batch-size 8 --eval-iters 0", 0),
    ):
        found = validation_windows(make_config(FLAGS + flags), corpora(30))
        assert found.tolist() == [[0, window] for window in range(taken)]
    assert len(validation_windows(make_config(FLAGS), [])) == 0


def test_datasets_that_a_validation_leaves_out_are_told() -> None:
    config = make_config(FLAGS + "--eval-iters 1 --global-batch-size 4")
    splits = {"train": [], "valid": corpora(900, 3), "test": corpora(900, 900)}
    (note,) = unscored(config, splits)
    assert "the validation scores no window of corpus1; for a loss of its own give" in note
    assert note.endswith("--eval-iters, or a weight before every path")
    assert unscored(config, splits | {"valid": [(0.5, one) for _, one in corpora(900, 3)]}) == []
    weighted = [(weight, one) for weight, (_, one) in zip((1.0, 1e-9), corpora(900, 900), strict=True)]
    (note,) = unscored(config, splits | {"valid": weighted})
    assert note.endswith("give more --eval-iters, or a larger weight")
    assert unscored(make_config(FLAGS + "--eval-iters 0"), splits) == []


def measured(mesh: Mesh, flags: str, windows: np.ndarray, *sizes: int) -> dict[str, dict[str, float | None]]:
    config = make_config(FLAGS + flags)
    model = GPT_TASK.build_model(config, VOCAB, ()).double().train()
    initialize(model, 3)
    rows = GPT_TASK.make_rows(config, describe(config)[0], Vocabulary(VOCAB, 0, None))
    hooked = model.layers.register_forward_pre_hook(lambda *_: modes.append(model.training))
    modes: list[bool] = []
    found = mean_losses(GPT_TASK, config, (model,), rows, corpora(*sizes), windows, 4, mesh)
    hooked.remove()
    assert not any(modes) and model.training, "it evaluates, and is then as it was"
    return found


def by_hand(flags: str, windows: np.ndarray, corpus: Corpus, number: int) -> tuple[float, int]:
    """Sum of the losses of a corpus' windows, and how many there are."""
    config = make_config(FLAGS + flags)
    model = GPT_TASK.build_model(config, VOCAB, ()).double().eval()
    initialize(model, 3)
    total, count = 0.0, 0
    for window in windows[windows[:, 0] == number, 1].tolist():
        ids = torch.from_numpy(corpus.window(window).astype(np.int64))
        losses = torch.nn.functional.cross_entropy(model.logits(ids[None, :-1])[0], ids[1:], reduction="none")
        counts = ids[:-1] != 0 if "mask" in flags else torch.ones(LENGTH, dtype=torch.bool)
        total += float(losses[counts].sum())
        count += int(counts.sum())
    return total, count


@pytest.mark.parametrize("flags", ["", "--eod-mask-loss "])
def test_means_are_those_of_single_windows(flags: str) -> None:
    """Eleven windows in micro-batches of four, which cross from one corpus into the other."""
    windows = np.array([[0, one] for one in range(6)] + [[1, one] for one in range(5)])
    parts = [by_hand(flags, windows, corpus, number) for number, (_, corpus) in enumerate(corpora(6, 5))]
    wanted = {f"corpus{number}": total / count for number, (total, count) in enumerate(parts)}
    wanted[""] = sum(total for total, _ in parts) / sum(count for _, count in parts)
    for ranks in (1, 2):
        for found in run_ranks(ranks, measured, flags, windows, 6, 5):
            assert {name: losses["lm loss"] for name, losses in found.items()} == pytest.approx(
                wanted, rel=1e-12
            )


def test_a_corpus_without_windows_has_no_mean_and_one_corpus_no_line_of_its_own() -> None:
    windows = np.array([[0, 0], [0, 1]])
    assert measured(Mesh(), "", windows, 6, 5).keys() == {"", "corpus0"}
    assert measured(Mesh(), "", windows, 6).keys() == {""}
    assert measured(Mesh(), "", np.empty((0, 2), np.int64), 6) == {"": {"lm loss": None}}
