"""What goes along with weights of Hugging Face's beside tensors: the token that begins texts, and what a
vision transformer does to its pixels; and inputs of which --from says something else."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer

from megatron.base.errors import UserError
from megatron.config.vision import VisionConfig
from megatron.conversion.folder import open_folder
from megatron.conversion.pretrained import Pretrained, other_pixels
from megatron.evaluation.restore import restore
from megatron.tasks.gpt import GPT_TASK
from megatron.train.pretrain import pretrain
from megatron.train.resume import other_tokens, require_same_words
from tests.support.huggingface_folders import write_model
from tests.unit.conversion.conftest import Tool
from tools import evaluate


def refused(tool: Tool, *words: object) -> str:
    with pytest.raises(UserError) as caught:
        tool(*words)
    (line,) = caught.value.problems
    return line


def test_the_token_that_begins_texts_is_that_of_the_tokenizer(tool: Tool, tmp_path: Path) -> None:
    """LLaMA begins texts with another token than the one that ends them, GPT-2 with the same."""
    theirs, tokenizer = write_model("gpt2 of bytes", tmp_path / "hf"), ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["hello world"], 260, special_tokens=["<s>", "</s>"])
    for name, begin in (("other", {"bos_token": "<s>"}), ("same", {})):
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer._tokenizer, eos_token="</s>", **begin
        ).save_pretrained(theirs)
        tool("hf", "megatron", theirs, tmp_path / name / "ours", "--no-verify")
        tool("megatron", "hf", tmp_path / name / "ours", tmp_path / name / "again", "--no-verify")
        content = json.loads((tmp_path / name / "again" / "config.json").read_text())
        assert (content["bos_token_id"], content["eos_token_id"]) == (0 if begin else 1, 1)


@pytest.mark.parametrize("values", [[0.5, 0.25, 0.5], [0.5, 0.5, 0.5]])
def test_pixels_of_a_vision_transformer_stay_its_own(values: list[float], tool: Tool, tmp_path: Path) -> None:
    theirs = write_model("vit", tmp_path / "hf")
    channels = json.loads((theirs / "config.json").read_text())["num_channels"]
    values = values if channels == 3 else [0.5] * 3  # of grey images all are equal
    beside = theirs / "preprocessor_config.json"
    beside.write_text(json.dumps({"image_mean": values, "image_std": values, "resample": 3}))
    tool("hf", "megatron", theirs, tmp_path / "ours", "--no-verify")
    config = restore(str(tmp_path / "ours"), None, torch.device("cpu")).config.vision
    assert config.img_mean == config.img_std == tuple(values[:channels])
    assert config.img_interpolation == "bicubic"
    tool("megatron", "hf", tmp_path / "ours", tmp_path / "again", "--no-verify")
    content = json.loads((tmp_path / "again" / beside.name).read_text())
    assert content["image_mean"] == content["image_std"] == values[:channels]
    assert content["resample"] == 3
    assert content["size"] == {"height": config.img_h, "width": config.img_w}
    content = json.loads((theirs / "config.json").read_text())
    odd = {"id2label": {"cat": "cat", "dog": "dog"}}
    (theirs / "config.json").write_text(json.dumps(content | odd))
    assert "id2label does not number its classes" in refused(tool, "hf", "megatron", theirs, tmp_path / "odd")
    (theirs / "config.json").write_text(json.dumps(content))
    beside.write_text('{"do_normalize": false}')
    assert open_folder(theirs).theirs.flags["img_mean"] == (0.0,) * channels
    assert open_folder(theirs).theirs.flags["img_std"] == (1.0,) * channels
    beside.write_text("{}")
    assert "tells no image_mean and image_std" in refused(tool, "hf", "megatron", theirs, tmp_path / "more")


def test_other_pixels_than_those_of_given_weights_are_told(tmp_path: Path) -> None:
    def notes(mean: tuple[float, ...]) -> list[str]:
        source = Pretrained(tmp_path, {"img_mean": mean, "img_std": (0.5,)}, lambda name: None, (), False)
        return other_pixels(source, VisionConfig(num_channels=1, img_mean=(0.485,), img_std=(0.5,)))

    assert notes((0.485,)) == notes((0.48500001430511475,)) == []
    (line,) = notes((0.25,))
    assert "by --img-mean 0.25, and these are by --img-mean 0.485; give --img-mean 0.25" in line
    source = Pretrained(tmp_path, {"img_interpolation": "bicubic"}, lambda name: None, (), False)
    (line,) = other_pixels(source, VisionConfig(num_channels=1, img_mean=(0.5,), img_std=(0.5,)))
    assert "by --img-interpolation bicubic, and these are by --img-interpolation bilinear; give" in line


def test_an_input_of_another_kind_is_told(tool: Tool, tmp_path: Path) -> None:
    theirs, ours, out = write_model("gpt2", tmp_path / "gpt2"), tmp_path / "ours", tmp_path / "out"
    assert "is no folder on this machine; did you mean" in refused(
        tool, "hf", "megatron", tmp_path / "gpt", out
    )
    assert "hf download MODEL" in refused(tool, "hf", "megatron", "openai-community/gpt2", out)
    assert "give --from hf" in refused(tool, "megatron", "hf", theirs, out)
    tool("hf", "megatron", theirs, ours, "--no-verify")
    assert "give --from megatron --to hf" in refused(tool, "hf", "megatron", ours, out)
    assert "give --from megatron --to hf" in refused(tool, "megatron-lm", "megatron", ours, out)
    place = tmp_path / "lm" / "iter_0000007" / "mp_rank_00"
    place.mkdir(parents=True)
    (tmp_path / "lm" / "latest_checkpointed_iteration.txt").write_text("7")
    assert "--from megatron-lm reads" in refused(tool, "hf", "megatron", tmp_path / "lm", out)
    assert "give --from hf, or --from megatron-lm" in refused(
        tool, "hf", "megatron", theirs, out, "--loader", "llama_mistral"
    )
    words = ["--megatron-path", "lm", "--true-vocab-size", 101, "--bf16", "--no-verify"]
    words += ["--target_tensor_model_parallel_size", 2]
    tool("hf", "megatron", theirs, tmp_path / "cut", *words)
    told = refused(tool, "hf", "megatron", theirs, out, *words, "--target-expert-parallel-size", 2)
    assert "--target-expert-parallel-size 2 is refused: every layout reads every checkpoint" in told
    content = json.loads((theirs / "config.json").read_text()) | {
        "architectures": ["GPT2Model"],
        "n_layer": 4,
    }
    (theirs / "config.json").write_text(json.dumps(content))
    assert "it is a GPT2Model, and what is converted is a whole GPT2LMHead" in refused(
        tool, "hf", "megatron", theirs, out
    )
    (theirs / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    assert "is a pointer of Git LFS" in refused(tool, "hf", "megatron", theirs, out)
    assert not out.exists()


SHAPE = "--use-checkpoint-args --mock-data --seq-length 16 --micro-batch-size 2 --train-iters 1 --lr 1e-3"


def trained(load: Path, *words: str) -> str:
    """The one line that refuses to train from there."""
    argv = ["--load", str(load), "--vocab-size", "100", *SHAPE.split(), *words]
    with pytest.raises(UserError) as caught:
        pretrain(argv, GPT_TASK, "", "")
    (line,) = caught.value.problems
    return line


def test_training_from_weights_that_are_none_of_a_run_is_one_line(tool: Tool, tmp_path: Path) -> None:
    theirs, ours = write_model("gpt2", tmp_path / "hf"), tmp_path / "ours"
    tool("hf", "megatron", theirs, ours, "--no-verify")
    assert "take its weights alone by --finetune" in trained(ours)
    for words in ([], ["--finetune"]):
        assert "tools/convert_checkpoint.py --from hf reads" in trained(theirs, *words)
    assert "there is no such folder" in trained(tmp_path / "typo", "--finetune")


def test_a_checkpoint_of_no_training_names_no_data(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = write_model("gpt2", tmp_path / "hf"), tmp_path / "ours"
    tool("hf", "megatron", theirs, ours, "--no-verify")
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--load", str(ours)])
    with pytest.raises(UserError, match="--data-path is required: the checkpoint in"):
        evaluate.main()


def test_data_of_another_tokenizer_is_warned_of(tmp_path: Path) -> None:
    def vocabulary(**tokenizer: object) -> SimpleNamespace:
        return SimpleNamespace(vocabulary=SimpleNamespace(tokenizer=tokenizer))

    mine = vocabulary(type="HuggingFaceTokenizer", vocab_size=9, sha256=["a"])
    other = vocabulary(type="GPT2BPETokenizer", vocab_size=9, sha256=["b"])
    (line,) = other_tokens(tmp_path, other, SimpleNamespace(data=mine))  # type: ignore[arg-type]
    assert line.startswith("warning: the weights of") and "GPT2BPETokenizer" in line
    for same in (mine, vocabulary(), vocabulary(classes=["cat"])):
        assert not other_tokens(tmp_path, same, SimpleNamespace(data=mine))  # type: ignore[arg-type]


def test_weights_of_another_number_of_tokens_are_told_a_way(tmp_path: Path) -> None:
    """A model that differs in more is left to what compares all tensors."""

    def compared(words: int, inner: int) -> None:
        def shaped(words: int, inner: int) -> dict[str, SimpleNamespace]:
            shapes = {"word_embeddings.weight": (words, 4), "layers.0.mlp.up.weight": (inner, 4)}
            return {name: SimpleNamespace(global_shape=shape) for name, shape in shapes.items()}

        saved = SimpleNamespace(vocabulary=SimpleNamespace(size=1000), tensors=shaped(1024, 8))
        data = SimpleNamespace(vocabulary=SimpleNamespace(size=400))
        run = SimpleNamespace(data=data, placements=shaped(words, inner))
        require_same_words(tmp_path, saved, run)  # type: ignore[arg-type]

    compared(words=1024, inner=8)
    compared(words=512, inner=16)
    with pytest.raises(
        UserError, match=r"know 1,000 tokens.*has 400; preprocess the text with the tokenizer"
    ):
        compared(words=512, inner=8)


def test_flags_of_a_tokenizer_need_its_type(tool: Tool, tmp_path: Path) -> None:
    """They would be passed over for the tokenizer that lies there."""
    theirs = write_model("llama", tmp_path / "hf")
    for words in (["--tokenizer-model", "a.json"], ["--vocab-size", 9], ["--vocab-file", "v.json"]):
        told = refused(tool, "hf", "megatron", theirs, tmp_path / "new", *words)
        assert told.startswith(f"{words[0]}: --tokenizer-type is missing")
    tool("hf", "megatron", theirs, tmp_path / "ours", "--no-verify")
    told = refused(tool, "megatron", "hf", tmp_path / "ours", tmp_path / "new", "--eod-token", "x")
    assert told.startswith("--eod-token: --tokenizer-type is missing")
    assert not (tmp_path / "new").exists()


def test_an_end_of_texts_that_no_vocabulary_has_is_none(tool: Tool, tmp_path: Path) -> None:
    theirs = write_model("llama", tmp_path / "hf")
    content = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps(content | {"eos_token_id": 10**6}))
    tool("hf", "megatron", theirs, tmp_path / "ours", "--no-verify")
    assert restore(str(tmp_path / "ours"), None, torch.device("cpu")).manifest.vocabulary.eod is None


def test_an_adapter_beside_weights_is_told(
    tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = write_model("llama", tmp_path / "hf")
    (theirs / "adapter_config.json").write_text("{}")
    tool("hf", "megatron", theirs, tmp_path / "ours", "--no-verify")
    assert "adapter_config.json: is left out" in capsys.readouterr().err
    (theirs / "model.safetensors").unlink()
    assert "merge_and_unload" in refused(tool, "hf", "megatron", theirs, tmp_path / "new", "--no-verify")


def test_a_file_is_no_folder(tool: Tool, tmp_path: Path) -> None:
    theirs = write_model("llama", tmp_path / "hf")
    told = refused(tool, "hf", "megatron", theirs / "model.safetensors", tmp_path / "new")
    assert told.endswith(f"is a file; name the folder in which it lies, {theirs}")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ep", "2"], "every layout reads every checkpoint"),
        (["--revision", "main"], "hf download"),
        (["--lora-merge"], "merge_and_unload"),
    ],
)
def test_flags_of_other_converters_have_a_way_out(
    words: list[str], told: str, tool: Tool, tmp_path: Path
) -> None:
    assert told in refused(tool, "hf", "megatron", tmp_path, tmp_path / "new", *words)


def test_weights_that_are_no_numbers_are_told(tool: Tool, tmp_path: Path) -> None:
    theirs = write_model("llama", tmp_path / "hf")
    weights = load_file(theirs / "model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, theirs / "model.safetensors", {"format": "pt"})
    assert "are no numbers (NaN)" in refused(tool, "hf", "megatron", theirs, tmp_path / "new")


def test_what_transformers_cannot_run_is_no_traceback(tool: Tool, tmp_path: Path) -> None:
    """It makes the model of such a config.json, and fails in its forward pass."""
    theirs = write_model("qwen2", tmp_path / "hf")
    content = json.loads((theirs / "config.json").read_text())
    layers = ["sliding_attention"] * content["num_hidden_layers"]
    odd = content | {"layer_types": layers, "use_sliding_window": False, "sliding_window": 8}
    (theirs / "config.json").write_text(json.dumps(odd))
    assert "cannot load or run" in refused(tool, "hf", "megatron", theirs, tmp_path / "new")
