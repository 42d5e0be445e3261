"""Every recipe against what the papers state (arXiv 2212.03597, 2108.06084), its steps against sums that are
written out; and at --scale mini against itself."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from megatron.config.config import Config
from megatron.config.launch import unwrap
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan
from megatron.schedule.plan_layout import layout_problems
from megatron.tasks.tasks import TASKS
from scripts.make_recipes_page import (
    FOLDER,
    HEAD,
    PAGE,
    expand,
    families,
    head_of,
    ranks_of,
    recipes,
    row,
    task_name,
)


@dataclass(frozen=True)
class Model:
    """Of a family: its shape, batch, last rate and GPUs; where lengths, percentiles, kept lengths begin."""

    layers: int
    hidden: int
    heads: int
    batch: int
    full: int
    last_rate: float
    ranks: int
    shortest: int = 80
    easiest: int = 1
    kept: int = 128


@dataclass(frozen=True)
class Run:
    """Of a recipe: tokens, peak rate, warm-up in tokens or steps, and the steps of every schedule: `cut` and
    `pieces` of lengths, `order` of samples by `metric`, `drop` of kept lengths."""

    tokens: float
    rate: float
    warmup: float
    cut: int = 0
    pieces: int = 0
    order: int = 0
    metric: str = "vocab_rarity"
    drop: int = 0
    batch: int = 0
    full: int = 0


def cases(tokens: float, rate: float, warmup: float, grown: int, dropped: int) -> dict[str, Run]:
    """What the paper tries with a budget, by name."""
    curricula = {
        "baseline": {},
        "cl_seqtru": {"cut": grown},
        "cl_seqres": {"pieces": grown},
        "cl_voc": {"order": grown},
        "cl_seqtru_voc": {"cut": grown, "order": grown},
        "cl_seqres_voc": {"pieces": grown, "order": grown},
        "cl_seqreo": {"order": grown, "metric": "seqlen"},
        "cl_seqreo_voc": {"order": grown, "metric": "seqlen_vocab_rarity"},
        "random_ltd": {"drop": dropped},
        "composed": {"cut": grown, "order": grown, "drop": dropped},
    }
    return {name: Run(tokens, rate, warmup, **more) for name, more in curricula.items()}


def gpt3(billions: int, rate: float, warmup: float, grown: int, dropped: int, *names: str) -> dict[str, Run]:
    every = cases(billions * 1e9, rate, warmup, grown, dropped)
    return {f"{name}_{billions}b": every[name] for name in names}


def bert(billions: int, steps: int, rate: float, grown: int, *names: str) -> dict[str, Run]:
    every = cases(steps * 1024 * 512, rate, 10_000, grown, steps)
    return {f"{name}_{billions}b": every[name] for name in names}


def gpt2(batch: int, rate: float, grown: int, full: int = 1024) -> list[Run]:
    """Without and with the warm-up of lengths, on the tokens of 300,000 steps of 512 samples of 1,024."""
    tokens = 300_000 * 512 * 1024
    return [Run(tokens, rate, 3000, cut=cut, batch=batch, full=full) for cut in (0, grown)]


BOTH = ("baseline", "composed")
SINGLE = ("cl_seqtru", "cl_voc")
EVERY = (*BOTH, "cl_seqtru_voc", "random_ltd")
GPT = {
    "gpt3_125m": (Model(12, 768, 12, 256, 2048, 1e-6, 64), 6e-4),
    "gpt3_350m": (Model(24, 1024, 16, 256, 2048, 1e-6, 64), 3e-4),
    "gpt3_760m": (Model(24, 1536, 16, 256, 2048, 1e-6, 64), 2.5e-4),
    "gpt3_2.7b": (Model(32, 2560, 32, 512, 2048, 1e-6, 64), 1.6e-4),
    "gpt3_6.7b": (Model(32, 4096, 32, 1024, 2048, 1e-6, 128), 1.2e-4),
    "gpt3_13b": (Model(40, 5120, 40, 1024, 2048, 1e-6, 256), 1e-4),
    "gpt3_175b": (Model(96, 12288, 96, 1536, 2048, 1e-6, 1024), 0.6e-4),
    "gpt3_moe_6.7b": (Model(24, 1024, 16, 256, 2048, 2e-6, 64), 2e-4),
}
MODELS = {name: model for name, (model, _) in GPT.items()} | {
    "gpt3_1.3b": Model(24, 2048, 16, 512, 2048, 1e-6, 64),
    "bert_large": Model(24, 1024, 16, 1024, 512, 1e-5, 64, shortest=128, easiest=5),
    "gpt2_117m": Model(12, 768, 12, 512, 1024, 1e-5, 128, shortest=8),
    "gpt2_1.5b": Model(48, 1600, 25, 512, 1024, 1e-5, 128, shortest=64),
    "gpt2_350m_ptb": Model(24, 1024, 16, 4, 1024, 0, 1, shortest=32),
}
PTB = 1310 * 4 * 1024
RUNS: dict[str, dict[str, Run]] = {
    "gpt3_1.3b": gpt3(
        300, 2e-4, 3e9, 110_000, 200_000, *EVERY, "cl_seqtru", "cl_seqres", "cl_voc", "cl_seqres_voc"
    )
    | gpt3(200, 3e-4, 3e9, 73_000, 133_333, "baseline", "cl_seqtru_voc", "random_ltd")
    | gpt3(150, 4e-4, 3e9, 55_000, 100_000, *EVERY)
    | {
        name: run
        for share in (1, 2, 4, 8, 16, 32)
        for name, run in gpt3(3 * share, 4e-4, 6e7 * share, 1_100 * share, 2_000 * share, *BOTH).items()
    },
    "bert_large": bert(
        1049, 2_000_000, 1e-4, 960_000, *EVERY, "cl_seqtru", "cl_seqreo", "cl_voc", "cl_seqreo_voc"
    )
    | bert(703, 1_340_000, 1.5e-4, 640_000, "baseline", "cl_seqtru_voc", "random_ltd")
    | bert(524, 1_000_000, 2e-4, 480_000, *EVERY),
    "gpt2_117m": dict(
        zip(
            ("baseline_bs512", "warmup_bs512", "baseline_bs4k", "warmup_bs4k")
            + ("baseline_bs512_seq2k", "warmup_bs512_seq2k"),
            gpt2(512, 1.5e-4, 60_000) + gpt2(4096, 6e-4, 20_000) + gpt2(512, 1.5e-4, 110_000, 2048),
        )
    ),
    "gpt2_1.5b": dict(
        zip(
            ("baseline_bs512", "warmup_bs512", "baseline_bs4k", "warmup_bs4k"),
            gpt2(512, 1.5e-4, 270_000) + gpt2(4096, 6e-4, 45_000),
        )
    ),
    "gpt2_350m_ptb": {
        "baseline": Run(PTB, 1e-4, 0),
        "cl_seqres": Run(PTB, 1e-4, 0, pieces=917),
        "random_ltd": Run(PTB, 1e-4, 0, drop=393),
        "composed": Run(PTB, 1e-4, 0, pieces=131, drop=393),
    },
} | {
    name: gpt3(300, rate, 3e9, round(110_000 * 512 / model.batch), round(200_000 * 512 / model.batch), *BOTH)
    for name, (model, rate) in GPT.items()
}
CALCULATED = {
    "baseline_300b": (286_103, 300.0),
    "cl_seqtru_300b": (339_169, 300.0),
    "cl_seqtru_voc_300b": (339_169, 300.0),
    "random_ltd_300b": (372_789, 390.9),
    "composed_300b": (377_264, 339.9),
    "cl_seqtru_voc_200b": (225_952, 200.0),
    "random_ltd_200b": (248_526, 260.6),
    "baseline_150b": (143_052, 150.0),
    "cl_seqtru_voc_150b": (169_584, 150.0),
    "random_ltd_150b": (186_395, 195.4),
    "composed_150b": (188_632, 170.0),
}
"""Steps and billions of raw tokens of GPT-3 1.3B, counted by two independent programs."""
FIRST = {
    "gpt3_350m/first_random_ltd_200b": (256, 2048, 22, 128, 400_543, 31.3),
    "gpt3_1.3b/first_random_ltd_200b": (512, 2048, 22, 128, 200_272, 31.3),
    "bert_large/first_random_ltd_1_774b": (1024, 512, 22, 208, 1_785_278, 26.2),
    "bert_large/first_random_ltd_2_721b": (1024, 512, 22, 128, 1_739_502, 31.1),
    "gpt2_350m_ptb/first_baseline": (32, 1024, 0, 128, 1, 0.0),
    "gpt2_350m_ptb/first_random_ltd": (32, 1024, 22, 128, 405, 33.7),
    "gpt2_350m_ptb/first_random_ltd_all": (32, 1024, 24, 128, 405, 36.7),
    "gpt2_350m_ptb/first_random_ltd_but_first": (32, 1024, 23, 128, 405, 35.2),
    "gpt2_350m_ptb/first_random_ltd_but_last": (32, 1024, 23, 128, 405, 35.2),
}
"""Of arXiv 2211.11586: batch, length, layers that drop, the first kept length, steps until nothing is
dropped, and what is saved in per cent; the paper states 26.2, 31.1 and 33.7 %."""
SECONDS, SPEED = 3600, 2e10
"""What a run at --scale mini may take at so many FLOP/s, a slow core; 13B and 175B take hours."""


def steps_by_hand(model: Model, run: Run) -> int:
    """Steps until the tokens are consumed, each sum written out."""
    batch, longest = run.batch or model.batch, run.full or model.full
    number = np.arange(1, 2 * int(run.tokens) // (batch * longest) + 9)
    length = np.full(len(number), longest)
    if grown := run.cut or run.pieces:
        growth = model.shortest + (longest - model.shortest) * number // grown
        length = np.minimum(growth // 8 * 8, longest)
    kept = length
    if run.drop:
        growth = model.kept + (longest - model.kept) * (number - 1) // run.drop
        kept = np.minimum(np.minimum(growth // 16 * 16, longest), length)
    rows = batch * (longest // length if run.pieces else 1)
    tokens = np.cumsum(rows * ((2 * length + (model.layers - 2) * kept) // model.layers))
    return int(np.searchsorted(tokens, run.tokens)) + 1


def test_every_recipe_is_in_the_tables_and_the_reverse() -> None:
    found = {name: {path.stem for path in recipes(name)} for name in families() if task_name(name) != "vit"}
    first = {name: {path.name for path in map(Path, FIRST) if path.parts[0] == name} for name in RUNS}
    assert found == {name: set(runs) | first[name] for name, runs in RUNS.items()}


@pytest.mark.parametrize("family", sorted(RUNS))
def test_recipes_plan_what_the_papers_state(family: str) -> None:
    model, page = MODELS[family], head_of(family)
    for path in recipes(family):
        config, plan = expand(path, ranks=ranks_of(path))
        page += row(path, plan)
        if f"{family}/{path.stem}" in FIRST:
            continue
        run = RUNS[family][path.stem]
        check_shape(model, run, config, ranks_of(path))
        assert plan.steps == steps_by_hand(model, run), path
        batch, longest = run.batch or model.batch, run.full or model.full
        assert run.tokens <= plan.consumed_tokens[-1] < run.tokens + batch * longest * 1.01
        assert plan.learning_rate.max() == pytest.approx(run.rate, rel=2e-3), path
        assert plan.learning_rate[-1] == pytest.approx(model.last_rate, abs=1e-12), path
        if family == "gpt3_1.3b" and (exactly := CALCULATED.get(path.stem)):
            assert (plan.steps, round(plan.raw_tokens[-1] / 1e9, 1)) == exactly
        check_warmup(run, plan)
        check_schedules(model, run, plan)
        assert not layout_problems(config, plan, ranks_of(path) // ranks_of_one(config)), path
    assert page in PAGE.read_text(encoding="utf-8"), "python scripts/make_recipes_page.py writes it anew"


def ranks_of_one(config: Config) -> int:
    return config.parallel.tensor_model_parallel_size * config.parallel.pipeline_model_parallel_size


def check_shape(model: Model, run: Run, config: Config, ranks: int) -> None:
    shape = (config.model.num_layers, config.model.hidden_size, config.model.num_attention_heads)
    assert shape == (model.layers, model.hidden, model.heads) and ranks == model.ranks
    assert config.training.global_batch_size == (run.batch or model.batch)
    assert config.data.seq_length == (run.full or model.full)


def check_warmup(run: Run, plan: Plan) -> None:
    """The rate rises until so many tokens, or steps, and no longer."""
    peak = int(plan.learning_rate.argmax())
    if run.warmup > 1e6:
        step = plan.consumed_tokens[peak + 1] - plan.consumed_tokens[peak]
        assert abs(plan.consumed_tokens[peak] - run.warmup) <= step
    else:
        assert peak == max(run.warmup - 1, 0)


def check_schedules(model: Model, run: Run, plan: Plan) -> None:
    """Where every schedule begins, is at a quarter of its time, and ends."""
    if grown := run.cut or run.pieces:
        assert plan.sequence_length[0] == model.shortest
        assert np.searchsorted(plan.sequence_length, run.full or model.full) == grown - 1
    if run.order:
        caps = plan.caps[run.metric]
        half = model.easiest + (100 - model.easiest) // 2  # the root of a quarter
        assert (caps[run.order // 4 - 1], np.searchsorted(caps, 100)) == (half, run.order - 1)
    if run.drop:
        assert plan.kept_length[0] == min(model.kept, plan.sequence_length[0])
        assert np.searchsorted(plan.kept_length, run.full or model.full) == run.drop
    assert set(plan.caps) == ({run.metric} if run.order else set())


@pytest.mark.parametrize("name", FIRST)
def test_recipes_of_the_first_paper_on_random_ltd(name: str) -> None:
    """Layer tokens as a sum that is written out; GPT-3 ends with the 4,800 B that the paper states."""
    path, (batch, length, dropping, least, grown, saved) = FOLDER / f"{name}.yaml", FIRST[name]
    config, plan = expand(path, ranks=ranks_of(path))
    begins = config.data_efficiency.random_ltd_min or least
    number = np.arange(plan.steps)
    kept = np.maximum(np.minimum((begins + (length - begins) * number // grown) // 16 * 16, length), least)
    layer_tokens = batch * (dropping * kept.sum() + (24 - dropping) * length * plan.steps)
    assert plan.layer_tokens[-1] == layer_tokens
    assert round(100 * (1 - layer_tokens / (24 * batch * length * plan.steps)), 1) == saved
    assert plan.steps == 2_000_000 or "bert" not in name
    assert "gpt3" not in name or layer_tokens == pytest.approx(4_800e9, rel=1e-3)
    smaller, small = expand(path, "--scale", "mini", vocab_size=8192)
    still = 1 - small.layer_tokens[-1] / (smaller.model.num_layers * small.raw_tokens[-1])
    assert (still > 0) == (saved > 0)


def test_the_first_paper_s_kept_lengths_grow_by_16() -> None:
    """For every 1.75, 48 and 38 billion raw tokens, counted from the sums of the plan."""
    for name, each, tokens in (
        ("gpt3_1.3b/first_random_ltd_200b", 1.75, 210),
        ("bert_large/first_random_ltd_1_774b", 48, 936),
        ("bert_large/first_random_ltd_2_721b", 38, 912),
    ):
        _, plan = expand(FOLDER / f"{name}.yaml", ranks=64)
        raw = plan.raw_tokens / 1e9
        grows = raw[:-1][np.diff(plan.kept_length) > 0]
        assert np.diff(grows) == pytest.approx(each, abs=0.01 * each) or name.endswith("774b")
        assert np.median(np.diff(grows)) == pytest.approx(each, rel=1e-3)
        assert grows[-1] == pytest.approx(tokens, rel=1e-3)


def test_reshaping_has_the_reference_s_steps_behind_its_switch() -> None:
    """Micro-batches of 8, and pieces that overlap."""
    _, plan = expand(FOLDER / "gpt3_1.3b" / "cl_seqres_300b.yaml", "--reference-schedules", ranks=64)
    assert plan.steps == 286_563


def test_shares_of_the_steps() -> None:
    """In per cent of the baseline's: lengths and order grow over 38 or 48, kept lengths over 70 or 100."""
    for family, grown, dropped in (("gpt3_1.3b", 38, 70), ("bert_large", 48, 100)):
        for name, run in RUNS[family].items():
            whole = run.tokens / MODELS[family].batch / MODELS[family].full
            found = {100 * steps / whole for steps in (run.cut, run.pieces, run.order) if steps}
            assert {round(share) for share in found} <= {grown}, name
            assert not run.drop or round(100 * run.drop / whole) == dropped, name


@pytest.mark.parametrize("family", sorted(RUNS))
def test_mini_keeps_the_shape_of_every_recipe(family: str) -> None:
    model, shorter = MODELS[family], 1 if family == "gpt2_350m_ptb" else 200
    for path in (FOLDER / family / f"{name}.yaml" for name in RUNS[family]):
        run, (config, plan) = RUNS[family][path.stem], expand(path, "--scale", "mini", vocab_size=8192)
        batch, longest = config.training.global_batch_size, (run.full or model.full) // 8
        assert (batch, config.data.seq_length) == (max((run.batch or model.batch) // 64, 4), longest)
        baseline = run.tokens / ((run.batch or model.batch) * (run.full or model.full) * shorter)
        assert -1 <= plan.consumed_tokens[-1] - baseline * batch * longest <= 1.05 * batch * longest, path
        check_mini_schedules(model, run, config, plan, shorter)
        rates = config.optimizer.lr / run.rate, config.optimizer.min_lr / (model.last_rate or 1)
        assert not model.last_rate or rates[0] == pytest.approx(rates[1], rel=0.01)
        share = run.warmup / run.tokens if run.warmup > 1e6 else run.warmup / baseline / shorter
        tokens, steps = config.optimizer.lr_warmup_tokens, config.optimizer.lr_warmup_iters
        mine = tokens / (config.training.train_tokens or 1) + steps / baseline
        assert mine == pytest.approx(share, rel=0.01)
        assert plan.flops.sum() < SECONDS * SPEED * (1 if model.hidden < 5000 else 5), path


def check_mini_schedules(model: Model, run: Run, config: Config, plan: Plan, shorter: int) -> None:
    """Durations are divided, lengths are an eighth, percentiles stay."""
    efficiency, longest = describe(config)[0], config.data.seq_length
    if grown := run.cut or run.pieces:
        assert (
            efficiency.length.maximum / efficiency.length.minimum == (run.full or model.full) / model.shortest
        )
        assert np.searchsorted(plan.sequence_length, longest) + 1 == round(grown / shorter)
    for metric in efficiency.metrics:
        assert (metric.pacing.minimum, metric.pacing.maximum) == (model.easiest, 100)
        assert np.searchsorted(plan.caps[metric.name], 100) + 1 == round(run.order / shorter)
    if run.drop:
        assert efficiency.random_ltd.pacing.minimum == model.kept / 8
        assert np.searchsorted(plan.kept_length, longest) == round(run.drop / shorter)


@pytest.mark.skipif("vit" not in TASKS, reason="there is no task of images yet")
@pytest.mark.parametrize(
    ("family", "steps", "saved"), [("vit_imagenet", 70_064, 22.3), ("vit_cifar", 5_469, 32.2)]
)
def test_recipes_of_images(family: str, steps: int, saved: float) -> None:
    """14 passes over 1,281,167 and 50,000 images, and what dropping over 80 % of them saves."""
    page = head_of(family)
    for path in recipes(family):
        dropping = path.stem == "random_ltd"
        config, plan = expand(path)
        assert plan.steps == steps and set(plan.sequence_length) == {197}
        assert set(plan.learning_rate) == {5e-5 if family == "vit_imagenet" else 1e-4}
        share = 1 - plan.layer_tokens[-1] / (config.model.num_layers * plan.raw_tokens[-1])
        assert round(100 * share, 1) == (saved if dropping else 0)
        assert not dropping or np.searchsorted(plan.kept_length, 197) == pytest.approx(0.8 * steps, abs=1)
        mini, short = expand(path, "--scale", "mini")
        assert mini.data.seq_length == 65 and short.steps == pytest.approx(steps / mini.scale_steps, abs=1)
        page += row(path, plan)
    assert page in PAGE.read_text(encoding="utf-8")


def test_the_page_has_all_families_in_order() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == families()


def test_recipes_name_no_places() -> None:
    for path in FOLDER.rglob("*.yaml"):
        names = {line.split(":")[0] for line in path.read_text(encoding="utf-8").splitlines()}
        assert not [
            name
            for name in names
            if name.endswith(("_path", "_file", "_dir", "_model")) or name in ("save", "load")
        ]


LAUNCH = FOLDER.parent / "scripts" / "launch"
TABLES = sorted(LAUNCH.glob("table_*.sh"))


def launched(table: Path, *words: str) -> tuple[int, str, str]:
    """Status, output and errors of a table's launch script that starts nothing."""
    line = ["bash", str(table), "--dry-run", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_every_recipe_is_a_row_of_a_launch_script() -> None:
    found = set()
    for table in TABLES:
        words = ["--save", "/runs", "--data-path", "d", "--difficulty-path", "x"]
        status, out, error = launched(table, *words)
        assert (status, error) == (0, "")
        for line in out.splitlines():
            path = Path(re.search(r"--config (\S+)", line)[1])
            found.add(path)
            assert f"SCRIPT=pretrain_{task_name(path.parent.name)}.py bash {LAUNCH}/node.sh " in line
            where = f"/runs/{path.parent.name}/{path.stem}"
            assert f"--save {where} --load {where} " in line and "--data-path d" in line
            if path.parent.name in families():
                orders = bool(describe(expand(path, "--scale", "mini")[0])[0].metrics)
                assert orders == ("--difficulty-path x" in line), line
    assert found == set(FOLDER.glob("*/*.yaml"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "error: give --save ROOT, the folder of all runs"),
        (["--save"], "error: --save needs a value"),
        (["--save", "x", "--row", "gpt4"], "error: --row gpt4: choose of gpt3_1.3b/baseline_300b"),
        (["--save", "x", "--launcher", "rsh"], "error: --launcher rsh: choose slurm, nodes or node"),
    ],
)
def test_what_a_launch_script_needs_is_one_line(words: list[str], message: str) -> None:
    status, out, error = launched(LAUNCH / "table_gpt.sh", *words)
    assert (status, out) == (2, "") and error.startswith(message) and error.count("\n") == 1


def test_a_launch_command_has_the_layout_of_its_recipe() -> None:
    words = ["torchrun", "--nnodes", "32", "--nproc-per-node", "8", "pretrain_gpt.py", "--config"]
    recipe = str(FOLDER / "gpt3_13b" / "baseline_300b.yaml")
    assert unwrap([*words, recipe])[-2:] == ["--data-parallel-size", "16"]
    assert unwrap([*words, recipe, "--scale", "mini"])[-2:] == ["--data-parallel-size", "256"]
