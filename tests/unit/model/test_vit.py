"""Logits, losses and gradients against Hugging Face transformers with the same weights, and what random-LTD
and another resolution do."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from megatron.batches.kept import choose_kept
from megatron.model.inputs import ViTInputs
from megatron.model.share import Share, model_parameters
from megatron.model.vit import ACCURACY, LOSS, TOP5, ViT, resized_positions, unfolded
from megatron.parallel.initialization import initialize
from megatron.tasks.architecture import vit_architecture
from tests.support.configurations import make_config

LAYERS, HIDDEN, HEADS, CLASSES = 3, 48, 4, 7
HEIGHT, WIDTH, PATCH = 20, 28, 4
TOKENS = HEIGHT // PATCH * WIDTH // PATCH + 1
SHAPE = (
    f"--num-layers {LAYERS} --hidden-size {HIDDEN} --num-attention-heads {HEADS} --img-h {HEIGHT} "
    f"--img-w {WIDTH} --patch-dim {PATCH} --seq-length {TOKENS} --train-iters 1 --hidden-dropout 0 "
    "--attention-dropout 0 --init-method-std 0.1 --norm-epsilon 1e-12 "
)


def make_vit(flags: str = "", dropping: tuple[int, ...] = ()) -> ViT:
    """As after some training: no bias is 0 any more, and no norm's weight 1."""
    config = make_config(SHAPE + flags)
    model, generator = ViT(vit_architecture(config, CLASSES), dropping).double(), torch.Generator()
    initialize(model, 5)
    generator.manual_seed(8)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return model


def images(rows: int = 3, kept: Tensor | None = None) -> ViTInputs:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (rows, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    return ViTInputs(torch.arange(TOKENS).expand(rows, -1), torch.arange(rows), pixels, labels, kept)


def normalised(batch: ViTInputs) -> Tensor:
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    parts = [torch.tensor(part, dtype=torch.float64)[:, None, None] for part in (mean, std)]
    return (batch.pixels.double() / 255 - parts[0]) / parts[1]


def names_of(qkv_bias: bool) -> dict[str, str]:
    """Theirs of ours, as the modules of transformers 5 are called."""
    embeddings = "vit.embeddings"
    places = {
        "patches.projection": f"{embeddings}.patch_embeddings.projection",
        "final_norm": "vit.layernorm",
        "head": "classifier",
    }
    table = {
        "patches.class_token": f"{embeddings}.cls_token",
        "position_embeddings.weight": f"{embeddings}.position_embeddings",
    }
    for layer in range(LAYERS):
        there, here = f"vit.layers.{layer}.", f"layers.{layer}."
        for part in ("query", "key", "value"):
            name = f"{there}attention.{part[0]}_proj"
            table[f"{here}attention.{part}.weight"] = f"{name}.weight"
            table |= {f"{here}attention.{part}.bias": f"{name}.bias"} if qkv_bias else {}
        places[f"{here}attention.projection"] = f"{there}attention.o_proj"
        places[f"{here}attention_norm"] = f"{there}layernorm_before"
        places[f"{here}mlp_norm"] = f"{there}layernorm_after"
        places[f"{here}mlp.up"] = f"{there}mlp.fc1"
        places[f"{here}mlp.down"] = f"{there}mlp.fc2"
    return table | {f"{a}.{kind}": f"{b}.{kind}" for a, b in places.items() for kind in ("weight", "bias")}


def theirs(model: ViT, qkv_bias: bool = True, activation: str = "gelu") -> nn.Module:
    """Their model with the weights of ours."""
    config = transformers.ViTConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN,
        hidden_act=activation,
        image_size=(HEIGHT, WIDTH),
        patch_size=PATCH,
        num_labels=CLASSES,
        qkv_bias=qkv_bias,
        layer_norm_eps=1e-12,
    )
    other = transformers.ViTForImageClassification(config).double()
    there, mine = dict(other.named_parameters()), dict(model.named_parameters())
    names = names_of(qkv_bias)
    assert {*names.values()} == there.keys() and names.keys() == mine.keys()
    with torch.no_grad():
        for here, name in names.items():
            there[name].copy_(mine[here].reshape(there[name].shape))
    return other


@pytest.mark.parametrize(
    ("flags", "qkv_bias", "activation"),
    [
        ("--attention-backend fused", True, "gelu"),
        ("--attention-backend unfused --disable-qkv-bias", False, "gelu"),
        ("--openai-gelu", True, "gelu_new"),
    ],
)
def test_logits_loss_and_gradients_equal_transformers_vit(flags: str, qkv_bias: bool, activation: str):
    model, batch = make_vit(flags), images()
    other = theirs(model, qkv_bias, activation)
    wanted = other(normalised(batch), labels=batch.labels)
    torch.testing.assert_close(model.logits(batch), wanted.logits, rtol=1e-12, atol=1e-12)
    loss = model(batch)[LOSS] / len(batch.labels)
    torch.testing.assert_close(loss, wanted.loss, rtol=1e-12, atol=1e-12)
    loss.backward()
    wanted.loss.backward()
    there, mine = dict(other.named_parameters()), dict(model.named_parameters())
    for here, name in names_of(qkv_bias).items():
        gradient = there[name].grad.reshape(mine[here].shape)
        torch.testing.assert_close(mine[here].grad, gradient, rtol=1e-10, atol=1e-12, msg=here)


def test_a_matrix_over_patches_is_a_convolution() -> None:
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(2, 3, HEIGHT, WIDTH, dtype=torch.float64, generator=generator)
    kernel = torch.randn(5, 3, PATCH, PATCH, dtype=torch.float64, generator=generator)
    wanted = F.conv2d(image, kernel, stride=PATCH).flatten(2).transpose(1, 2)
    torch.testing.assert_close(unfolded(image, PATCH) @ kernel.flatten(1).T, wanted, rtol=1e-12, atol=1e-12)


def test_positions_at_another_resolution_are_those_of_transformers() -> None:
    model = make_vit("--img-h 20 --img-w 20 --seq-length 26")
    config = transformers.ViTConfig(
        hidden_size=HIDDEN, num_hidden_layers=1, num_attention_heads=4, image_size=20, patch_size=PATCH
    )
    other = transformers.ViTModel(config, add_pooling_layer=False).double().embeddings
    table = model.position_embeddings.weight
    with torch.no_grad():
        other.position_embeddings.copy_(table[None])
    for height, width in ((36, 24), (8, 20), (20, 20)):
        tokens = torch.zeros(1, 1 + height * width // PATCH**2, HIDDEN, dtype=torch.float64)
        wanted = other.interpolate_pos_encoding(tokens, height, width)[0]
        found = resized_positions(table, (5, 5), (height // PATCH, width // PATCH))
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_dropping_layers_compute_the_kept_tokens_alone() -> None:
    """By the layers themselves: the first sees all tokens, the second 9 of each image, also without [CLS]."""
    model = make_vit(dropping=(1,)).train()
    kept = torch.from_numpy(choose_kept((1,), np.arange(3), np.array(TOKENS), 9, 7, 1))
    assert not (kept == 0).any(2).all()  # some image's [CLS] is dropped
    batch = images(kept=kept)
    seen: list[Tensor] = []
    for layer in model.layers.values():
        layer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    (loss,) = model(batch).values()
    assert [one.shape[1] for one in seen] == [TOKENS, 9, TOKENS]
    whole = model(images())[LOSS]
    assert not torch.isclose(loss, whole)
    torch.testing.assert_close(seen[1], through_first(model, batch).gather(1, index(kept[0])))


def through_first(model: ViT, batch: ViTInputs) -> Tensor:
    """What comes out of the first layer."""
    found: list[Tensor] = []
    handle = model.layers["0"].register_forward_hook(lambda module, arguments, out: found.append(out))
    model(batch)
    handle.remove()
    return found[0]


def index(kept: Tensor) -> Tensor:
    return kept[..., None].expand(-1, -1, HIDDEN)


def test_every_token_kept_is_the_whole_layer() -> None:
    model = make_vit(dropping=(1,)).train()
    every = torch.arange(TOKENS).expand(1, 3, -1)
    torch.testing.assert_close(model(images(kept=every))[LOSS], model(images())[LOSS])


def test_scores_count_the_likeliest_and_the_likeliest_five() -> None:
    model, batch = make_vit(), images(40)
    found, logits = model.scores(batch), model.logits(batch)
    ranks = (logits > logits.gather(1, batch.labels[:, None])).sum(1)
    assert torch.equal(found[ACCURACY], ranks == 0) and torch.equal(found[TOP5], ranks < 5)
    torch.testing.assert_close(found[LOSS], F.cross_entropy(logits, batch.labels, reduction="none"))


def test_smoothed_labels_count_in_training_alone() -> None:
    model, plain, batch = make_vit("--label-smoothing 0.2"), make_vit(), images()
    logits = plain.logits(batch)
    wanted = F.cross_entropy(logits, batch.labels, label_smoothing=0.2, reduction="sum")
    torch.testing.assert_close(model(batch)[LOSS], wanted)
    torch.testing.assert_close(model.scores(batch)[LOSS], plain.scores(batch)[LOSS])


@pytest.mark.parametrize("flags", ["", "--disable-qkv-bias", "--num-channels 1 --swiglu"])
def test_parameters_are_priced_as_they_are(flags: str) -> None:
    architecture = vit_architecture(make_config(SHAPE + flags), CLASSES)
    built = sum(one.numel() for one in ViT(architecture).parameters())
    assert model_parameters(Share(architecture)) == (built, built)
