"""Checkpoints to and from Hugging Face: the tool compares logits by transformers itself, and files come back
to the bit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer

from megatron.base.errors import UserError
from megatron.checkpoint.contents import compare
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.manifest import read_manifest
from megatron.config.config import Config
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.bert_files import bert_of_vocabulary
from megatron.evaluation import restore as restore_module
from megatron.evaluation import same_logits
from megatron.evaluation.restore import restore, tokenizer_of
from tests.support.huggingface_folders import LENGTH, MODELS, VOCAB, write_model
from tests.unit.conversion.conftest import Tool


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model("gpt2", tmp_path_factory.mktemp("hf") / "gpt2")


def refused(tool: Tool, *words: object) -> str:
    with pytest.raises(UserError) as caught:
        tool(*words)
    return "\n".join(caught.value.problems)


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: one for file in folder.glob("*.safetensors") for name, one in load_file(file).items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_to_the_bit_and_logits_are_compared_both_times(
    name: str, tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, ours, again = write_model(name, tmp_path / "hf"), tmp_path / "ours", tmp_path / "again"
    tool("hf", "megatron", theirs, ours)
    tool("megatron", "hf", ours, again)
    told = capsys.readouterr().out
    assert told.count("logits differ by") == 2
    before, after = weights_in(theirs), weights_in(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[one], after[one]) for one in before)
    old, new = (transformers.AutoConfig.from_pretrained(one).to_dict() for one in (theirs, again))
    more = {one for one in old if one.endswith("_token_id")} | {"_name_or_path", "transformers_version"}
    more |= {"use_cache", "classifier_activation", "dtype", "label2id"}
    if name == "mistral":  # the same function
        more |= {"model_type", "architectures", "sliding_window"}
    assert {one for one in old if old[one] != new.get(one)} <= more | {"n_inner", "head_dim"}


def test_what_is_compared_is_the_library_s_own_model(tool: Tool, gpt2: Path, tmp_path: Path) -> None:
    """The check of the tool by itself: the same logits, computed here."""
    tool("hf", "megatron", gpt2, tmp_path / "ours", "--no-verify")
    tokens = torch.arange(2 * LENGTH).view(2, LENGTH) % VOCAB
    mine = restore(str(tmp_path / "ours"), None, torch.device("cpu")).model.double().logits(tokens)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(gpt2).double().eval()(tokens).logits
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_a_wrong_conversion_is_noticed_and_nothing_is_left(
    tool: Tool, gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_gpt = same_logits.LOGITS["gpt"]
    monkeypatch.setitem(same_logits.LOGITS, "gpt", lambda *rest: (of_gpt(*rest)[0].flip(1), of_gpt(*rest)[1]))
    assert "the logits of the two models differ by" in refused(
        tool, "hf", "megatron", gpt2, tmp_path / "ours"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_half_precision_is_compared_by_its_weights_in_fp32(
    precision: str, tool: Tool, gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its activations would differ by their rounding alone from those of transformers in fp32."""
    tool("hf", "megatron", gpt2, tmp_path / "ours", "--no-verify")
    tokens, config = torch.arange(LENGTH)[None], restore_module.saved_config

    def trained(saved: dict[str, Any], folder: Path) -> Config:
        found = config(saved, folder)
        return replace(found, training=replace(found.training, **{precision: True}))

    monkeypatch.setattr(restore_module, "saved_config", trained)
    cpu, run = torch.device("cpu"), str(tmp_path / "ours")
    rounded, exact = (restore(run, None, cpu, as_trained=one).model.logits(tokens) for one in (True, False))
    assert (rounded - exact).abs().max() / exact.abs().max() > 1e-4
    tool("megatron", "hf", tmp_path / "ours", tmp_path / "again")
    tool("megatron", "hf", tmp_path / "ours", tmp_path / "narrow", "--dtype", "bf16")
    assert {one.dtype for one in weights_in(tmp_path / "again").values()} == {torch.float32}
    assert {one.dtype for one in weights_in(tmp_path / "narrow").values()} == {torch.bfloat16}


def test_types_and_files_are_those_of_the_input_in_as_many_files_as_asked(tool: Tool, tmp_path: Path) -> None:
    theirs = write_model("llama", tmp_path / "hf", torch.bfloat16, "30KB")
    assert len(list(theirs.glob("*.safetensors"))) > 1
    tool("hf", "megatron", theirs, tmp_path / "ours")
    tool("megatron", "hf", tmp_path / "ours", tmp_path / "again", "--max-shard-size", "3e-5")
    tool("megatron", "hf", tmp_path / "ours", tmp_path / "wide", "--dtype", "fp32")
    before, after, wide = (weights_in(one) for one in (theirs, tmp_path / "again", tmp_path / "wide"))
    assert {one.dtype for one in after.values()} == {torch.bfloat16}
    assert all(torch.equal(before[one], after[one]) for one in before)
    assert all(torch.equal(before[one].float(), wide[one]) for one in before)
    index = json.loads((tmp_path / "again" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(one.nbytes for one in before.values())
    assert set(index["weight_map"].values()) == {
        one.name for one in (tmp_path / "again").glob("*.safetensors")
    }


@pytest.mark.parametrize("name", ["gpt2", "mixtral"])
def test_files_for_any_layout_hold_the_same_model(name: str, tool: Tool, tmp_path: Path) -> None:
    theirs = write_model(name, tmp_path / "hf")
    tool("hf", "megatron", theirs, tmp_path / "one")
    sizes = ["--target-tensor-parallel-size", 2, "--target-pipeline-parallel-size", 3]
    tool("hf", "megatron", theirs, tmp_path / "six", *sizes)
    one, six = find_checkpoint(tmp_path / "one"), find_checkpoint(tmp_path / "six")
    assert one is not None and six is not None
    assert len(list(six.glob("*.safetensors"))) == 6
    parts = read_manifest(six).tensors["layers.2.attention.query.weight"].parts
    assert [(part.file, part.offset) for part in parts] == [
        ("model-00005-of-00006.safetensors", (0, 0)),
        ("model-00006-of-00006.safetensors", (16, 0)),
    ]
    assert compare((one, read_manifest(one)), (six, read_manifest(six))).equal


def test_the_tokenizer_goes_along_and_the_folder_needs_nothing_else(tool: Tool, tmp_path: Path) -> None:
    theirs, ours, again = tmp_path / "hf", tmp_path / "ours", tmp_path / "again"
    write_model("gpt2 of bytes", theirs)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["hello world"], 260, special_tokens=["<|endoftext|>"])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, eos_token="<|endoftext|>"
    ).save_pretrained(theirs)
    tool("hf", "megatron", theirs, ours)
    shutil.move(theirs, tmp_path / "away")
    tool("megatron", "hf", ours, again)
    text = "hello world, où?"
    loaded = transformers.AutoTokenizer.from_pretrained(again)
    assert loaded.decode(loaded(text).input_ids) == text and loaded.eos_token == "<|endoftext|>"
    model = transformers.AutoModelForCausalLM.from_pretrained(again)
    assert model.config.eos_token_id == loaded.eos_token_id
    restored = restore(str(ours), None, torch.device("cpu"))
    found = tokenizer_of(restored, TokenizerOptions())
    assert found is not None and found[0].decode(loaded(text).input_ids) == text


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_wordpiece_goes_along_from_either_of_its_files(name: str, tool: Tool, tmp_path: Path) -> None:
    theirs, again = write_model("bert", tmp_path / "hf"), tmp_path / "again"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "quick", "##er", "fox", ".", "o", "##u"]
    vocabulary = dict(zip(words, range(len(words))))
    if name == "vocab.txt":
        (theirs / name).write_text("\n".join(words) + "\n")
    else:
        bert_of_vocabulary(vocabulary, True).save(str(theirs / name))
    kind = ["--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", theirs / name]
    tool("hf", "megatron", theirs, tmp_path / "ours", *kind)
    tool("megatron", "hf", tmp_path / "ours", again)
    loaded = transformers.AutoTokenizer.from_pretrained(again)
    ids = loaded("The QUICKER fox. Où?").input_ids
    assert ids == [2, 5, 6, 7, 8, 9, 10, 11, 1, 3]
    assert (loaded.mask_token, loaded.pad_token_id, loaded.model_max_length) == ("[MASK]", 0, LENGTH)


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(tool: Tool, tmp_path: Path) -> None:
    theirs, tokenizer = write_model("gpt2", tmp_path / "hf"), ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["hello world"], 260, special_tokens=["<|endoftext|>"])
    tokenizer._tokenizer.save(str(theirs / "tokenizer.json"))
    words = refused(tool, "hf", "megatron", theirs, tmp_path / "ours")
    assert "the tokenizer has 257 tokens, and the model 101" in words


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model_type": "bloom"}, "model_type 'bloom' is none of gpt2, llama"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True has no like here"),
        ({"activation_function": "swish"}, "activation_function 'swish' is none of gelu_new"),
        ({"n_layer": 4}, "has no transformer.h.3."),
        ({"n_layer": 2}, "has transformer.h.2."),
        ({"n_positions": 32}, "has the shape [64, 32], and by its settings position_embeddings.weight"),
        (
            {"n_head": 5},
            "hf: --hidden-size 32 is no multiple of --num-attention-heads 5; bring the files of one model",
        ),
        ({"vocab_size": None}, "vocab_size None is no number of tokens"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            "quantization_config (gptq) has no like here; bring the model as it was before",
        ),
    ],
)
def test_a_config_of_another_model_is_refused(
    changed: dict, words: str, tool: Tool, gpt2: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "hf"
    theirs.mkdir()
    (theirs / "model.safetensors").symlink_to(gpt2 / "model.safetensors")
    content = json.loads((gpt2 / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps(content | changed))
    assert words in refused(tool, "hf", "megatron", theirs, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_what_transformers_itself_makes_of_a_config_is_no_traceback(
    tool: Tool, gpt2: Path, tmp_path: Path
) -> None:
    theirs, out = Path(shutil.copytree(gpt2, tmp_path / "hf")), tmp_path / "ours"
    content = json.loads((gpt2 / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps(content | {"initializer_range": 1}))
    told = refused(tool, "hf", "megatron", theirs, out)
    assert (
        "transformers cannot load or run the model to compare logits" in told
        and "or give --no-verify" in told
    )
    assert not out.exists()
    flash = {"attn_implementation": "flash_attention_2", "_attn_implementation": "flash_attention_2"}
    (theirs / "config.json").write_text(json.dumps(content | flash))
    tool("hf", "megatron", theirs, out)


def test_ranks_that_do_not_divide_a_model_are_refused_by_their_own_flag(
    tool: Tool, gpt2: Path, tmp_path: Path
) -> None:
    words = refused(tool, "hf", "megatron", gpt2, tmp_path / "ours", "--target-tensor-parallel-size", 3)
    assert "is no multiple of --target-tensor-parallel-size 3; give another number of ranks" in words
    assert "--tensor-model-parallel-size" not in words


def test_rotary_positions_that_are_not_known_are_refused(tool: Tool, tmp_path: Path) -> None:
    theirs = write_model("llama linear", tmp_path / "hf")
    content = json.loads((theirs / "config.json").read_text())
    content["rope_parameters"]["rope_type"] = "yarn"
    (theirs / "config.json").write_text(json.dumps(content))
    assert "rope_scaling of the type 'yarn'" in refused(tool, "hf", "megatron", theirs, tmp_path / "ours")
    content["rope_parameters"] = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8, "low_freq_factor": 2}
    (theirs / "config.json").write_text(json.dumps(content))
    assert "low_freq_factor 2 has no like here" in refused(tool, "hf", "megatron", theirs, tmp_path / "ours")


def test_mistakes_are_told_in_one_line(tool: Tool, gpt2: Path, tmp_path: Path) -> None:
    assert "nothing is to be converted" in refused(tool, "hf", "hf", gpt2, tmp_path / "out")
    assert "something is there already" in refused(tool, "hf", "megatron", gpt2, gpt2)
    assert "holds no config.json" in refused(tool, "hf", "megatron", tmp_path, tmp_path / "out")
    assert "holds no checkpoint" in refused(tool, "megatron", "hf", tmp_path, tmp_path / "out")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((gpt2 / "config.json").read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"")
    assert "save_pretrained of a newer transformers" in refused(
        tool, "hf", "megatron", pickled, tmp_path / "out"
    )
    part = pickled / "model-00001-of-00002.safetensors"
    part.write_bytes(b"")
    assert "model.safetensors.index.json: is missing, and the weights lie in several files" in refused(
        tool, "hf", "megatron", pickled, tmp_path / "out"
    )
    part.unlink()
    (pickled / "model.safetensors").write_bytes((gpt2 / "model.safetensors").read_bytes()[:2000])
    assert "cannot be read" in refused(tool, "hf", "megatron", pickled, tmp_path / "out")
    weights = load_file(gpt2 / "model.safetensors") | {"extra.weight": torch.zeros(1)}
    save_file(weights, pickled / "model.safetensors", {"format": "pt"})
    assert "has extra.weight, which has no like here" in refused(
        tool, "hf", "megatron", pickled, tmp_path / "out"
    )


def test_a_head_that_is_not_what_it_is_tied_to_is_not_lost(tool: Tool, gpt2: Path, tmp_path: Path) -> None:
    """Files may hold the head of a tied model, too; another one than the embedding is refused, whether or not
    logits are compared."""
    weights = load_file(gpt2 / "model.safetensors")
    embedding = weights["transformer.wte.weight"]
    theirs = Path(shutil.copytree(gpt2, tmp_path / "hf"))
    save_file(weights | {"lm_head.weight": embedding + 1}, theirs / "model.safetensors", {"format": "pt"})
    told = refused(tool, "hf", "megatron", theirs, tmp_path / "out", "--no-verify")
    assert "lm_head.weight is not transformer.wte.weight, which it is tied to; " in told
    assert 'write "tie_word_embeddings": false into its config.json' in told
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    tool("hf", "megatron", theirs, tmp_path / "out")
    theirs = Path(shutil.copytree(gpt2, tmp_path / "same"))
    save_file(weights | {"lm_head.weight": embedding.clone()}, theirs / "model.safetensors", {"format": "pt"})
    tool("hf", "megatron", theirs, tmp_path / "tied")
