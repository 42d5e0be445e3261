"""Files as other versions and programs write them: what lies beside weights, names that wrappers add,
settings that a file leaves out, types on the way out, and the names that Megatron-LM has had."""

import json
import signal
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from megatron.base.errors import UserError
from megatron.checkpoint.contents import compare
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.manifest import read_manifest
from megatron.conversion.families import read_content
from megatron.conversion.megatron_lm import open_checkpoint
from tests.support.huggingface_folders import LLAMA, write_model
from tests.unit.conversion.conftest import Tool


def refused(tool: Tool, *words: object) -> str:
    with pytest.raises(UserError) as caught:
        tool(*words)
    (line,) = caught.value.problems
    return line


def with_tensors(folder: Path, more: dict[str, Tensor]) -> Path:
    file = folder / "model.safetensors"
    save_file(load_file(file) | more, file, {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("kind", "name", "buffer"),
    [
        ("gpt2", "transformer.h.0.attn.bias", torch.ones(1, 1, 64, 64, dtype=torch.uint8)),
        ("gpt2", "transformer.h.0.attn.bias", torch.ones(1, 1, 64, 64, dtype=torch.bool)),
        ("bert", "bert.embeddings.position_ids", torch.arange(64)[None]),
        ("bert", "bert.embeddings.token_type_ids", torch.zeros(1, 64, dtype=torch.int64)),
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4)),
    ],
)
def test_what_older_files_hold_beside_weights_is_left_out(
    kind: str, name: str, buffer: Tensor, tool: Tool, tmp_path: Path
) -> None:
    theirs = with_tensors(write_model(kind, tmp_path / "hf"), {name: buffer})
    tool("hf", "megatron", theirs, tmp_path / "ours")
    odd = {"transformer.extra.weight": torch.zeros(2, dtype=torch.uint8)}
    told = refused(tool, "hf", "megatron", with_tensors(theirs, odd), tmp_path / "odd")
    assert "transformer.extra.weight is of the type U8" in told


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_weights_of_another_type_are_compared_as_they_are_written(
    dtype: str, tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool("hf", "megatron", write_model("llama", tmp_path / "hf"), tmp_path / "ours", "--no-verify")
    tool("megatron", "hf", tmp_path / "ours", tmp_path / "again", "--dtype", dtype)
    assert "logits differ by" in capsys.readouterr().out
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    before, after = (load_file(tmp_path / one / "model.safetensors") for one in ("hf", "again"))
    assert all(torch.equal(before[name].to(kind), one) for name, one in after.items())


def test_numbers_that_a_type_cannot_hold_are_refused(tool: Tool, tmp_path: Path) -> None:
    huge = {"model.norm.weight": torch.full((32,), 1e5)}
    theirs = with_tensors(write_model("llama", tmp_path / "hf"), huge)
    tool("hf", "megatron", theirs, tmp_path / "ours", "--no-verify")
    words = ("megatron", "hf", tmp_path / "ours", tmp_path / "again", "--no-verify", "--dtype")
    told = refused(tool, *words, "fp16")
    assert "model.norm.weight has numbers up to 1e+05, which float16 cannot hold; give --dtype bf16" in told
    assert not (tmp_path / "again").exists()
    tool(*words, "bf16")


@pytest.mark.parametrize(
    ("kind", "embedding", "head"),
    [
        ("gpt2", "transformer.wte.weight", "lm_head.weight"),
        ("llama 3", "model.embed_tokens.weight", "lm_head.weight"),
        ("modernbert", "model.embeddings.tok_embeddings.weight", "decoder.weight"),
    ],
)
def test_a_tied_embedding_may_have_the_name_of_the_head_alone(
    kind: str, embedding: str, head: str, tool: Tool, tmp_path: Path
) -> None:
    theirs = write_model(kind, tmp_path / "hf")
    tool("hf", "megatron", theirs, tmp_path / "usual", "--no-verify")
    weights = load_file(theirs / "model.safetensors")
    weights[head] = weights.pop(embedding)
    save_file(weights, theirs / "model.safetensors", {"format": "pt", embedding: head})
    tool("hf", "megatron", theirs, tmp_path / "other", "--no-verify")
    one, other = (find_checkpoint(tmp_path / name) for name in ("usual", "other"))
    assert one is not None and other is not None
    assert compare((one, read_manifest(one)), (other, read_manifest(other))).equal


@pytest.mark.parametrize(("ends", "end"), [(7, 7), ([7, 8, 9], 7), (None, None)])
def test_the_end_of_texts_goes_along_without_a_tokenizer(
    ends: Any, end: int | None, tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = write_model("llama", tmp_path / "hf")
    content = json.loads((theirs / "config.json").read_text()) | {"bos_token_id": 3, "pad_token_id": 4}
    (theirs / "config.json").write_text(json.dumps(content | {"eos_token_id": ends}))
    tool("hf", "megatron", theirs, tmp_path / "ours", "--no-verify")
    assert "loses bos_token_id 3 and pad_token_id 4" in capsys.readouterr().err
    tool("megatron", "hf", tmp_path / "ours", tmp_path / "again", "--no-verify")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["eos_token_id"] == end


def test_wrappers_and_adapters_are_told_with_a_way_out(tool: Tool, tmp_path: Path) -> None:
    theirs = write_model("gpt2", tmp_path / "hf")
    weights = {f"_orig_mod.{name}": one for name, one in load_file(theirs / "model.safetensors").items()}
    save_file(weights, theirs / "model.safetensors", {"format": "pt"})
    told = refused(tool, "hf", "megatron", theirs, tmp_path / "ours")
    assert told.endswith("_orig_mod. is what torch.compile puts around a model; save the inner one anew")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    told = refused(tool, "hf", "megatron", tmp_path / "adapter", tmp_path / "ours")
    assert "holds no config.json; it is an adapter of PEFT to another model; merge both" in told


@pytest.mark.parametrize("kind", ["LlamaConfig", "MistralConfig", "Qwen2Config", "MixtralConfig"])
def test_what_a_file_leaves_out_is_what_its_class_takes(kind: str) -> None:
    """Compared with the library's own configuration of the same few settings."""
    shape = {"vocab_size": 101, "hidden_size": 128, "intermediate_size": 48, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 32 if kind == "Qwen2Config" else 16, "num_local_experts": 4}
    if kind not in ("LlamaConfig", "MistralConfig"):
        shape["max_position_embeddings"] = LLAMA["max_position_embeddings"]
    if kind == "MistralConfig":
        shape["max_position_embeddings"] = 4096
    whole = getattr(transformers, kind)(**shape).to_dict()
    flags = read_content(shape | {"model_type": whole["model_type"]}).flags
    assert flags["num_query_groups"] == whole["num_key_value_heads"]
    assert flags["norm_epsilon"] == whole["rms_norm_eps"]
    assert flags["rotary_base"] == whole["rope_parameters"]["rope_theta"]
    assert flags["max_position_embeddings"] == whole["max_position_embeddings"]


def test_a_window_that_a_file_leaves_out_is_refused() -> None:
    shape = LLAMA | {"model_type": "mistral", "max_position_embeddings": 8192}
    way = r"sliding_window 4096 has no like .* write \"max_position_embeddings\": 4096 into"
    with pytest.raises(UserError, match=way):
        read_content(shape)
    assert read_content(shape | {"sliding_window": None}).flags["num_query_groups"] == 2


HIDDEN, HEADS, ROWS = 8, 2, 16
SETTINGS: dict[str, Any] = {
    "num_layers": 1,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 8,
    "seq_length": 8,
}
OF_A_LAYER = {
    "input_layernorm": ("input_layernorm.{}", "input_norm.{}", "self_attention.layernorm_qkv.layer_norm_{}"),
    "qkv": ("self_attention.query_key_value.{}",) * 2 + ("self_attention.layernorm_qkv.{}",),
    "projection": ("self_attention.dense.{}",) * 2 + ("self_attention.proj.{}",),
    "second_norm": (
        *("post_attention_layernorm.{}", "post_attention_norm.{}"),
        "layernorm_mlp.layer_norm_{}",
    ),
    "up": ("mlp.dense_h_to_4h.{}",) * 2 + ("layernorm_mlp.fc1_{}",),
    "down": ("mlp.dense_4h_to_h.{}",) * 2 + ("layernorm_mlp.fc2_{}",),
}
"""What three versions before megatron-core call the tensors of a layer; the last is Transformer Engine's."""
WIDTHS = {"qkv": (3 * HIDDEN, HIDDEN), "projection": (HIDDEN, HIDDEN), "up": (4 * HIDDEN, HIDDEN)}
WIDTHS["down"] = (HIDDEN, 4 * HIDDEN)


def older_model(version: int) -> dict[str, Any]:
    """A GPT of one layer by the names of one of these versions; the same numbers in all."""
    torch.manual_seed(5)
    sizes = {"word": ROWS, "position": SETTINGS["max_position_embeddings"]}
    embedding = {f"{name}_embeddings": {"weight": torch.randn(rows, HIDDEN)} for name, rows in sizes.items()}
    layers: dict[str, Tensor] = {}
    for part, names in OF_A_LAYER.items():
        rows, *columns = WIDTHS.get(part, (HIDDEN,))
        for kind, shape in (("weight", (rows, *columns)), ("bias", (rows,))):
            layers[f"layers.0.{names[version].format(kind)}"] = torch.randn(shape)
    norm = "final_layernorm" if version == 0 else "final_norm"
    layers |= {f"{norm}.{kind}": torch.randn(HIDDEN) for kind in ("weight", "bias")}
    layers["layers.0.self_attention._extra_state"] = torch.empty(0, dtype=torch.uint8)
    return {"language_model": {"embedding": embedding, "encoder": layers}}


def older_checkpoint(folder: Path, version: int = 0, **settings: Any) -> Path:
    place = folder / "mp_rank_00"
    place.mkdir(parents=True)
    model, args = older_model(version), Namespace(**SETTINGS | settings)
    content = {"args": args, "checkpoint_version": 3.0, "model": model}
    torch.save(content, place / "model_optim_rng.pt")
    return folder


@pytest.mark.parametrize("version", [1, 2])
def test_names_of_every_older_version_are_read(version: int, tool: Tool, tmp_path: Path) -> None:
    """Newer ones also keep the signal that ends a run, as a value of Python's own."""
    for number, more in ((0, {}), (version, {"exit_signal": signal.SIGTERM})):
        theirs = older_checkpoint(tmp_path / f"theirs{number}", number, **more)
        tool("megatron-lm", "megatron", theirs, tmp_path / f"ours{number}")
    one, other = (find_checkpoint(tmp_path / f"ours{number}") for number in (0, version))
    assert one is not None and other is not None
    assert compare((one, read_manifest(one)), (other, read_manifest(other))).equal


@pytest.mark.parametrize(
    "settings",
    [
        {"softmax_type": "off-by-one"},
        {"window_size": (128, 0)},
        {"qk_l2_norm": True},
        {"glu_linear_offset": 1.0},
        {"activation_func_clamp_value": 7.0},
        {"softmax_scale": 0.5},
        {"position_embedding_type": "yarn"},
    ],
)
def test_settings_without_tensors_of_their_own_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    """They change what a model computes, and no file lacks anything."""
    (name,) = settings
    folder = older_checkpoint(tmp_path / "theirs", **settings)
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} .* has no like here"):
        open_checkpoint(str(folder), None)


def test_tensors_that_the_settings_do_not_have_are_told(tool: Tool, tmp_path: Path) -> None:
    theirs = older_checkpoint(tmp_path / "theirs", position_embedding_type="rope")
    told = refused(tool, "megatron-lm", "megatron", theirs, tmp_path / "ours")
    assert "has embedding.position_embeddings.weight, which a model of its settings has not here" in told
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_pytorch_tanh"])
def test_the_tanh_of_gelu_has_several_names(name: str) -> None:
    """Megatron-LM's models became GPT-2s of gelu_fast."""
    shape = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 8, "vocab_size": 9}
    assert read_content(shape | {"activation_function": name}).flags["openai_gelu"]
    x = torch.linspace(-4, 4, 99)
    found, usual = (transformers.activations.ACT2FN[one](x) for one in (name, "gelu_new"))
    torch.testing.assert_close(found, usual, rtol=1e-5, atol=1e-6)
