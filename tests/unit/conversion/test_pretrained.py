"""The head of given weights tells the classes of the images, in their order."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from megatron.conversion.pretrained import Pretrained, load_pretrained
from megatron.parallel.placement import Placement
from megatron.train.resume import other_tokens

HEAD = {"head.weight": torch.arange(6.0).reshape(3, 2), "head.bias": torch.arange(3.0)}


def loaded(theirs: tuple[str, ...], mine: tuple[str, ...], sure: bool) -> tuple[list[float], list[str]]:
    """The biases of a head that has begun with -1, and the notes."""
    source = Pretrained(Path("w"), {"img_h": 2, "img_w": 2, "patch_dim": 1}, HEAD.get, theirs, sure)
    parameters = {name: torch.full_like(tensor, -1) for name, tensor in HEAD.items()}
    table = {name: Placement(tuple(one.shape), (0,) * one.dim()) for name, one in HEAD.items()}
    notes = load_pretrained(source, parameters, table, (2, 2), mine)
    return parameters["head.bias"].tolist(), notes


def test_a_head_tells_the_classes_of_the_images() -> None:
    assert loaded(("a", "b", "c"), ("a", "b", "c"), True) == ([0, 1, 2], [])
    for sure in (True, False):
        found, (note,) = loaded(("c", "a", "b"), ("a", "b", "c"), sure)
        assert found == [1, 2, 0] and "is put into the order of the images' classes" in note
    found, (note,) = loaded(("a", "b", "d"), ("a", "b", "c"), True)
    assert found == [-1, -1, -1]
    assert note == "the head is new: that of w tells a, b, d, and the images are of a, b, c"
    found, (note,) = loaded(("tench", "shark", "ray"), ("n01", "n02", "n03"), False)
    assert found == [0, 1, 2] and note.startswith("the head goes on, a class for the one in its place: ")


def test_weights_alone_are_taken_with_a_warning() -> None:
    def of(classes: list[str]) -> Any:
        return SimpleNamespace(vocabulary=SimpleNamespace(tokenizer={"classes": classes}))

    run: Any = SimpleNamespace(data=of(["a", "b"]))
    assert other_tokens(Path("w"), of(["a", "b"]), run) == []
    (line,) = other_tokens(Path("w"), of(["b", "a"]), run)
    assert line.startswith("warning: the head of w tells b, a, and the images are of a, b")
