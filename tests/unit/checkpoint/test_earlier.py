"""What a --save folder holds already: gone on from, refused, or set aside."""

from pathlib import Path
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.checkpoint.earlier import BESIDE, goes_on, set_aside, start_problems
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.config.checkpoint import CheckpointConfig

LATEST = "latest_checkpointed_iteration.txt"


def run_with(folder: Path, *steps: int) -> Path:
    """A folder with checkpoints, as far as their names and indices go."""
    folder.mkdir(exist_ok=True)
    for step in steps:
        (folder / f"iter_{step:07d}").mkdir()
        (folder / f"iter_{step:07d}" / "index.json").write_text(str(step))
    if steps:
        (folder / LATEST).write_text(f"{steps[-1]}\n")
    return folder


def flags(save: Path | None, load: Path | None, **more: Any) -> CheckpointConfig:
    return CheckpointConfig(save=save and str(save), load=load and str(load), **more)


def test_only_a_load_of_the_same_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = run_with(tmp_path / "run", 4, 8), run_with(tmp_path / "other", 4)
    (run / "notes").mkdir()
    assert goes_on(flags(run, run))
    assert goes_on(flags(run, run / "iter_0000004"))
    assert goes_on(flags(run, other / ".." / "run"))
    assert not goes_on(flags(run, run, finetune=True))
    for save, load in (
        (run, None),
        (None, run),
        (run, other),
        (run, other / "iter_0000004"),
        (run, run / "notes"),
    ):
        assert not goes_on(flags(save, load))
    monkeypatch.chdir(tmp_path)
    assert goes_on(CheckpointConfig(save="run", load=str(run)))


@pytest.mark.parametrize(
    ("save", "more", "skip_train", "said"),
    [
        ("new", {}, False, []),
        (None, {}, False, ["holds no checkpoint, and --save is not given; mend the path"]),
        ("other", {}, False, ["other is another folder; mend the path"]),
        ("new", {"finetune": True}, False, ["and --finetune is given"]),
        ("new", {"exit_on_missing_checkpoint": True}, False, ["and --exit-on-missing-checkpoint is given"]),
        ("new", {}, True, ["and --skip-train is given"]),
    ],
)
def test_only_a_run_that_saves_where_it_loads_may_find_nothing(
    tmp_path: Path, save: str | None, more: dict[str, Any], skip_train: bool, said: list[str]
) -> None:
    """The folder of --load is empty; one that holds a checkpoint is right for all of them."""
    given = flags(save and tmp_path / save, tmp_path / "new", **more)
    found = start_problems(given, skip_train)
    assert len(found) == len(said) and all(words in line for words, line in zip(said, found)), found
    assert all(line.startswith(f"--load {tmp_path / 'new'}: ") for line in found)
    run_with(tmp_path / "new", 4)
    assert start_problems(flags(None, tmp_path / "new", **more), skip_train) == []


@pytest.mark.parametrize(
    ("load", "more", "said"),
    [
        (None, {}, "holds checkpoints to step 12 of an earlier run, and --load is not given"),
        ("other", {}, "other is not its run, so"),
        ("run", {"finetune": True}, "run is not its run (--finetune starts at step 0)"),
        ("run", {}, None),
        (None, {"overwrite_run": True}, None),
    ],
)
def test_results_of_an_earlier_run_are_not_replaced(
    tmp_path: Path, load: str | None, more: dict[str, Any], said: str | None
) -> None:
    run = run_with(tmp_path / "run", 4, 12, 8)
    run_with(tmp_path / "other", 4)
    given = flags(run, load and tmp_path / load, **more)
    found = start_problems(given, False)
    assert len(found) == (said is not None) and all(str(said) in line for line in found), found
    assert start_problems(given, True) == [], "evaluation replaces nothing"


def test_one_checkpoint_and_a_folder_that_is_one(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 4)
    (line,) = start_problems(flags(run, None), False)
    assert "holds the checkpoint of step 4 of an earlier run" in line
    (line,) = start_problems(flags(run / "iter_0000004", None), False)
    assert "is itself a checkpoint; name the folder above it" in line
    assert start_problems(flags(tmp_path / "new", None), False) == []
    assert start_problems(flags(None, None), False) == []


def test_what_another_program_has_saved_is_neither_gone_on_from_nor_mixed_with(tmp_path: Path) -> None:
    deepspeed, megatron = tmp_path / "deepspeed", tmp_path / "megatron"
    (deepspeed / "global_step500").mkdir(parents=True)
    (megatron / "iter_0000500" / "mp_rank_00").mkdir(parents=True)
    (line,) = start_problems(flags(deepspeed, deepspeed), False)
    assert "program has saved (global_step500), which is not read here: " in line
    assert line.endswith("; mend the path, or leave --load out to start from scratch")
    (line,) = start_problems(flags(deepspeed, None, overwrite_run=True), False)
    assert "(global_step500), which is not read here: " in line and line.endswith("; save elsewhere")
    (line,) = start_problems(flags(megatron, None), False)
    assert line.endswith("megatron-lm reads; save elsewhere, or set it aside with --overwrite-run")
    assert start_problems(flags(megatron, None, overwrite_run=True), False) == []
    assert start_problems(flags(run_with(deepspeed, 4), deepspeed), False) == []


CONVERT = "tools/convert_checkpoint.py --from"


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("release/mp_rank_00", f"which {CONVERT} megatron-lm reads"),
        ("release/__0_0.distcp", f"which {CONVERT} megatron-lm reads"),
        ("mp_rank_00_001", f"which {CONVERT} megatron-lm reads"),
        ("mp_rank_00_model_states.pt", "which is not read here: where the model is Hugging Face's, zero_to"),
        ("zero_pp_rank_0_mp_rank_00_optim_states.pt", "which is not read here: where the model is Hugging"),
        ("checkpoint-500/global_step500", "which is not read here: where the model is Hugging Face's, zero_"),
        ("my.nemo", "which is not read here: let NeMo write a folder of Hugging Face's"),
        ("consolidated.00.pth", "which is not read here: it is Meta's, of which"),
        ("adapter_config.json", "which is not read here: it is an adapter of PEFT to another model; merge"),
        ("step-500/__0_0.distcp", "which is not read here"),
        ("weights/__0_0.distcp", "which is not read here: let NeMo write a folder"),
        ("lit_model.pth", "which is not read here"),
        ("pytorch_model-00001-of-00002.bin", f"which {CONVERT} hf reads once save_pretrained"),
        ("checkpoint-500/pytorch_model.bin", f"which {CONVERT} hf reads once save_pretrained"),
        ("checkpoint-500/adapter_config.json", "which is not read here: it is an adapter of PEFT to another"),
    ],
)
def test_what_reads_a_checkpoint_of_another_program_is_named_and_nothing_else(
    name: str, how: str, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir(parents=True)
    assert f"({name}), {how}" in made_elsewhere(tmp_path)
    (line,) = start_problems(flags(None, tmp_path, finetune=True), False)
    assert how in line


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ("model.fp16.safetensors",),
            "once it is model.safetensors: load it by from_pretrained with its variant",
        ),
        (
            ("checkpoint-9/model.safetensors", "checkpoint-10/model.safetensors"),
            "as FOLDER/checkpoint-10",
        ),
        (("checkpoint-9/model.safetensors", "checkpoint-9/global_step9/x"), "as FOLDER/checkpoint-9"),
        (("snapshots/aa/model.safetensors", "snapshots/bb/model.safetensors"), "as FOLDER/snapshots/bb"),
    ],
)
def test_which_of_several_folders_of_hugging_faces_is_read(
    names: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        (tmp_path / name).with_name("config.json").touch()
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("bb")
    assert f"{CONVERT} hf reads {said.replace('FOLDER', str(tmp_path))}" in made_elsewhere(tmp_path)


def test_a_pointer_to_a_release_names_what_reads_it(tmp_path: Path) -> None:
    (tmp_path / LATEST).write_text("release")
    (tmp_path / "release" / "mp_rank_00").mkdir(parents=True)
    with pytest.raises(UserError, match=f"holds 'release', not a number of steps; .*{CONVERT} megatron-lm"):
        find_checkpoint(tmp_path)


def test_a_run_that_goes_back_sets_later_checkpoints_aside(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 4, 8, 12)
    (run / "metrics.jsonl").write_text("")
    assert set_aside(flags(run, run), 12) is None
    aside = set_aside(flags(run, run), 4)
    assert aside is not None and aside.parent == run and aside.name.startswith("until-2")
    assert sorted(path.name for path in aside.iterdir()) == ["iter_0000008", "iter_0000012"]
    assert (aside / "iter_0000012" / "index.json").read_text() == "12"
    assert {path.name for path in run.iterdir()} == {aside.name, "iter_0000004", LATEST, "metrics.jsonl"}
    assert (run / LATEST).read_text() == "4\n"


def test_a_run_that_starts_anew_sets_all_of_the_earlier_one_aside(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 4, 8)
    for name in BESIDE:
        (run / name).write_text(name)
    (run / "notes.txt").write_text("mine")
    aside = set_aside(flags(run, None, overwrite_run=True), 0)
    assert aside is not None
    assert {path.name for path in aside.iterdir()} == {"iter_0000004", "iter_0000008", LATEST, *BESIDE}
    assert {path.name for path in run.iterdir()} == {aside.name, "notes.txt"}
    assert set_aside(flags(run, None, overwrite_run=True), 0) is None


def test_whole_weights_are_named_before_a_variant_of_them(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "model.fp16.safetensors"):
        (tmp_path / name).touch()
    assert made_elsewhere(tmp_path).endswith(f"(model.safetensors), which {CONVERT} hf reads")
