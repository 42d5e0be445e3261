"""What an earlier run has left in a --save folder: a run goes on from it, or leaves it alone."""

import secrets
from pathlib import Path

from megatron.base.files import aside, sync_folder, whole_file
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import NAME
from megatron.checkpoint.save import LATEST, checkpoints_in
from megatron.config.checkpoint import CheckpointConfig

RUN_ID, WANDB_ID = ".run-id", "metrics.wandb-id"
BESIDE = ("metrics.jsonl", WANDB_ID, "run.json", "tokenizer", RUN_ID)
"""What else a run writes into its --save folder."""


def goes_on(flags: CheckpointConfig) -> bool:
    """Whether --load resumes the run of the --save folder."""
    if not flags.save or not flags.load or flags.finetune:
        return False
    save, load = Path(flags.save).resolve(), Path(flags.load).resolve()
    return load == save or (load.parent == save and (load / NAME).is_file())


def start_problems(flags: CheckpointConfig, skip_train: bool) -> list[str]:
    """Why a run must not start from what --load and --save hold; reads only."""
    found = find_checkpoint(flags.load, flags.ckpt_step, tell=lambda _: None) if flags.load else None
    missing = [] if found or not flags.load else _missing_problems(flags, skip_train)
    return missing + ([] if skip_train else _overwrite_problems(flags))


def _missing_problems(flags: CheckpointConfig, skip_train: bool) -> list[str]:
    """Only a run that saves where it loads may find nothing there yet: its first start."""
    given = {
        "--exit-on-missing-checkpoint": flags.exit_on_missing_checkpoint,
        "--skip-train": skip_train,
        "--finetune": flags.finetune,
    }
    needs = next((name for name, value in given.items() if value), None)
    if needs:
        return [missing_weights(flags.load or "", needs)]
    if found := made_elsewhere(flags.load or ""):
        return [elsewhere(flags.load or "", found)]
    if goes_on(flags):
        return []
    save = f"--save {flags.save} is another folder" if flags.save else "--save is not given"
    return [
        f"--load {flags.load}: holds no checkpoint, and {save}; mend the path, or leave --load out to start "
        "from scratch"
    ]


def missing_weights(load: str, needs: str) -> str:
    """That --load holds no checkpoint, where the flag `needs` asks for its weights."""
    found = made_elsewhere(load)
    why = found if Path(load).is_dir() else "there is no such folder"
    return (
        f"--load {load}: holds no checkpoint, and {needs} is given{f'; {why}' if why else ''}; mend the path"
    )


def elsewhere(load: str, found: str) -> str:
    """That --load holds what another program has saved, in the words of `made_elsewhere`."""
    return f"--load {load}: {found}; mend the path, or leave --load out to start from scratch"


def _overwrite_problems(flags: CheckpointConfig) -> list[str]:
    """Why a run that saves must not start: its folder holds results that it would replace."""
    if not flags.save:
        return []
    if (Path(flags.save) / NAME).is_file():
        return [f"--save {flags.save}: is itself a checkpoint; name the folder above it, or a new one"]
    steps = sorted(checkpoints_in(flags.save))
    if goes_on(flags):
        return []
    if other := _of_another_program(flags.save):
        out = ", or set it aside with --overwrite-run" if steps else ""
        return [] if steps and flags.overwrite_run else [f"--save {flags.save}: {other}; save elsewhere{out}"]
    if not steps or flags.overwrite_run:
        return []
    held = f"the checkpoint of step {steps[0]}" if len(steps) == 1 else f"checkpoints to step {steps[-1]}"
    finetune = " (--finetune starts at step 0)" if flags.finetune else ""
    without = " and without --finetune" if flags.finetune else ""
    start = f"--load {flags.load} is not its run{finetune}" if flags.load else "--load is not given"
    return [
        f"--save {flags.save}: holds {held} of an earlier run, and {start}, so this run would replace them; "
        f"go on from them with --load {flags.save}{without}, save to another folder, or set them aside with "
        "--overwrite-run"
    ]


def _of_another_program(save: str) -> str:
    """Words for what a folder without a checkpoint of our own holds of another program."""
    ours = any((folder / NAME).is_file() for folder in checkpoints_in(save).values())
    return "" if ours else made_elsewhere(save)


def set_aside(flags: CheckpointConfig, start: int) -> Path | None:
    """Move what the run will not go on from into a folder beside it, which is returned: checkpoints past
    step `start` where it goes back to that step, else all of an earlier run. The pointer goes first, so that
    at no moment it names a checkpoint that is not there."""
    root, on = Path(flags.save or ""), goes_on(flags)
    moving = [path for step, path in checkpoints_in(root).items() if not on or step > start]
    if not moving:
        return None
    place = aside(root / "until")
    place.mkdir()
    if on:
        with whole_file(root / LATEST, "w") as file:
            file.write(f"{start}\n")
    others = () if on else (LATEST, *BESIDE)
    for path in (*(root / name for name in others), *moving):
        if path.exists():
            path.rename(place / path.name)
    sync_folder(root)
    return place


def run_id(save: str | None) -> str:
    """What a run is known by wherever it writes: a word in its --save folder, drawn where there is none."""
    path, drawn = Path(save or "") / RUN_ID, secrets.token_hex(8)
    if not save:
        return drawn
    if not path.is_file():
        with whole_file(path, "w") as file:
            file.write(drawn)
    return path.read_text(encoding="utf-8")
