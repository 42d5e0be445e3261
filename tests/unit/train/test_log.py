"""What a run tells: Megatron's log line as scripts parse it, TensorBoard names, records that fit the
checkpoint."""

import json
import math
import re
import time
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency_flags import describe
from megatron.train.log import Log, process_environment
from megatron.train.log_line import log_line, validation_block
from megatron.train.records import Losses, Outcome, Start, validation_fields, validation_scalars
from tests.support.configurations import make_config, make_plan

FLAGS = (
    "--global-batch-size 4 --train-iters 20 --lr-warmup-iters 4 --log-interval 5 "
    "--curriculum seqlen_truncate:min=32,max=128,duration=10,quantum=8 --random-ltd --random-ltd-min 32 "
    "--random-ltd-duration 16 "
)


@pytest.fixture(autouse=True)
def _few_event_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads event files by name: second, host, process, and a number that counts them in the
    process. It is text, in which 10 is before 9. Runs begin in seconds of their own, and logs of one test do
    not, so that their numbers have one digit here."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def make_log(folder: Path, done: int = 0, more: str = "", save: str = "run") -> Log:
    places = f"--save {folder}/{save} --metrics-file {folder}/metrics.jsonl --tensorboard-dir {folder}/board"
    config = make_config(f"{FLAGS} {places} {more}")
    efficiency, _ = describe(config)
    plan = make_plan(config, efficiency, 100)
    totals = plan.totals(done) if done <= plan.steps else {"consumed_tokens": done}
    return Log(config, efficiency, plan, Mesh(), Start(done, totals, kept=done, afresh=not done))


def read_board(folder: Path) -> EventAccumulator:
    board = EventAccumulator(str(folder))
    board.Reload()
    return board


def outcome(loss: float, grad_norm: float = 1.0, seconds: float = 0.1, **more) -> Outcome:
    return Outcome({"lm loss": loss}, grad_norm, seconds, 0.0, **more)


def line_of(log: Log, iteration: int, outcomes: list[Outcome], peak: float | None = None) -> str:
    return log_line(log.config, log.efficiency, log.plan, iteration, outcomes, 2, peak)


def test_log_line_has_megatrons_fields_in_megatrons_order(tmp_path: Path) -> None:
    log = make_log(tmp_path, more="--log-throughput")
    outcomes = [outcome(5.0, 1.25, 0.5), outcome(4.0, 1.5, 1.5, params_norm=30.0)]
    line = line_of(log, 7, outcomes)
    plan, two = log.plan, slice(5, 7)
    tokens, speed = 4 * int(plan.sequence_length[two].sum()), plan.flops[two].sum() / 2 / 2 / 1e12
    time, _, rest = line.partition("]")
    assert re.fullmatch(r" \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", time)
    assert rest == (
        " iteration        7/      20 | consumed samples:           28 | "
        f"consumed tokens: {plan.totals(7)['consumed_tokens']:12d} | "
        f"elapsed time per iteration (ms): 1000.0 | throughput per GPU (TFLOP/s/GPU): {speed:.1f} | "
        "learning rate: 8.125000E-04 | global batch size:     4 | lm loss: 4.500000E+00 | loss scale: 1.0 | "
        "grad norm: 1.500 | params norm: 30.000 | number of skipped iterations:   0 | "
        "number of nan iterations:   0 | curriculum seqlen: 96 | random ltd reserved length: 64 | "
        f"actual seqlen: 96 | samples per second: 4.000 | tokens per gpu per second (tgs): {tokens / 4:.3f} "
        f"| TFLOPs: {speed:.2f} |"
    )


def test_log_line_tells_utilisation_where_the_peak_is_known(tmp_path: Path) -> None:
    log = make_log(tmp_path, more="--log-throughput --recompute-granularity full")
    plan = log.plan
    model, hardware = (flops[6] / 2 / 1e12 for flops in (plan.flops, plan.hardware_flops))
    line = line_of(log, 7, [outcome(4.0, seconds=1.0)], peak=model * 4)
    assert f"| MFU (%): 25.0 | HFU (%): {25 * hardware / model:.1f} | learning rate:" in line
    assert 25 < 25 * hardware / model < 100 / 3
    assert "MFU" not in line_of(log, 7, [outcome(4.0)])


def test_log_line_counts_what_was_skipped_and_what_was_not_finite(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    infinite = outcome(math.inf, math.nan, loss_scale=512.0, skipped=True)
    overflown = outcome(100.0, math.inf, loss_scale=256.0, skipped=True)
    line = line_of(log, 8, [outcome(5.0), infinite, overflown, outcome(4.0, loss_scale=256.0)])
    assert "| lm loss: 4.500000E+00 | loss scale: 256.0 | grad norm: 1.000 |" in line
    assert "| number of skipped iterations:   2 | number of nan iterations:   1 |" in line
    line = line_of(log, 8, [infinite])
    assert (
        "lm loss" not in line and "| global batch size:     4 | loss scale: 512.0 | grad norm: nan |" in line
    )


def test_log_line_names_every_loss(tmp_path: Path) -> None:
    steps = [Outcome({"lm loss": loss, "sop loss": loss / 10}, 1.0, 0.1, 0.0) for loss in (4.0, 5.0)]
    line = line_of(make_log(tmp_path), 8, steps)
    assert "| lm loss: 4.500000E+00 | sop loss: 4.500000E-01 | loss scale: 1.0 |" in line


def test_first_every_interval_and_last_step_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = make_log(tmp_path)
    for iteration in range(1, 21):
        log.train(iteration, outcome(float(iteration)))
    printed = re.findall(r"iteration +(\d+)/ +20 .*lm loss: (\S+)", capsys.readouterr().out)
    assert [(int(step), float(loss)) for step, loss in printed] == [
        (1, 1.0),
        (5, 3.5),
        (10, 8.0),
        (15, 13.0),
        (20, 18.0),
    ]


def test_validation_block_is_framed_and_caps_perplexity() -> None:
    lines = validation_block(
        100, {"": {"lm loss": 2.0}, "books": {"lm loss": 25.0}}, "validation"
    ).splitlines()
    assert (
        lines[1]
        == " validation loss at iteration 100 | lm loss value: 2.000000E+00 | lm loss PPL: 7.389056E+00 | "
    )
    assert "on books" in lines[2] and "PPL: 4.851652E+08" in lines[2]
    assert lines[0] == lines[-1] == "-" * len(max(lines, key=len))


def test_a_validation_of_thousands_of_corpora_is_one_screen() -> None:
    losses = {"": {"lm loss": 2.0}} | {f"corpus{number}": {"lm loss": 2.0} for number in range(1000)}
    lines = validation_block(7, losses, "validation").splitlines()
    assert len(lines) == 1 + 1 + 20 + 1 + 1
    assert lines[-2] == " validation losses on 980 more corpora are in the records"


def test_a_step_in_which_nothing_counts_has_no_loss_and_says_so(tmp_path: Path) -> None:
    log, masked = make_log(tmp_path), Outcome({"lm loss": None}, 0.0, 0.1, 0.0)
    assert " | lm loss: none, as no item of the data counts in it | " in line_of(log, 2, [masked, masked])
    assert " | lm loss: 5.000000E+00 | " in line_of(log, 2, [masked, outcome(5.0)])


def test_a_loss_that_nothing_counts_in_is_none(tmp_path: Path) -> None:
    block = validation_block(7, {"": {"lm loss": None}}, "validation")
    assert "lm loss value: none, as no item of the data counts in it" in block and "PPL" not in block
    log = make_log(tmp_path)
    log.train(1, Outcome({"lm loss": None}, 0.0, 0.1, 0.0))
    log.validation(1, {"": {"lm loss": None}}, 7)
    log.close()
    train, valid = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert train["lm_loss"] is None and valid["lm_loss"] is None and valid["perplexity"] is None
    assert not [tag for tag in read_board(tmp_path / "board").Tags()["scalars"] if "lm loss" in tag]
    line = line_of(log, 2, [outcome(4.0), Outcome({"lm loss": None}, 0.0, 0.1, 0.0)])
    assert "| lm loss: 4.000000E+00 |" in line and "nan iterations:   0" in line


def test_records_have_every_field_in_full_precision(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.train(1, outcome(1 / 3, 2 / 3))
    log.validation(1, {"": {"lm loss": 2.0}}, 7)
    log.close()
    train, valid = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    names = (
        "kind iteration consumed_samples consumed_tokens raw_tokens drawn_tokens layer_tokens "
        "lm_loss learning_rate grad_norm "
    )
    names += "seq_length kept_length batch_size ms_per_iteration tokens_per_second"
    assert not set(names.split()) - train.keys()
    assert (train["kind"], train["lm_loss"], train["grad_norm"]) == ("train", 1 / 3, 2 / 3)
    assert (train["seq_length"], train["kept_length"], train["learning_rate"]) == (40, 32, 1e-3 / 4)
    assert train["tokens_per_second"] == pytest.approx(4 * 40 / 0.1)
    assert train["throughput"] == pytest.approx(log.plan.flops[0] / 0.1 / 1e12)
    assert (valid["kind"], valid["lm_loss"], valid["windows"]) == ("valid", 2.0, 7)
    assert valid["consumed_tokens"] == train["consumed_tokens"]


def test_validation_of_several_losses_and_corpora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = make_log(tmp_path)
    both = {"": {"lm loss": 2.0, "sop loss": 0.5}, "books": {"lm loss": 3.0, "sop loss": 0.75}}
    log.validation(1, both, 7)
    log.close()
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (record["lm_loss"], record["sop_loss"], record["perplexity"]) == (2.0, 0.5, math.exp(2))
    assert (record["corpora"], record["corpora_sop_loss"]) == ({"books": 3.0}, {"books": 0.75})
    assert capsys.readouterr().out.splitlines()[1:3] == [
        " validation loss at iteration 1 | lm loss value: 2.000000E+00 | lm loss PPL: 7.389056E+00 | "
        "sop loss value: 5.000000E-01 | ",
        " validation loss at iteration 1 on books | lm loss value: 3.000000E+00 | lm loss PPL: 2.008554E+01 "
        "| sop loss value: 7.500000E-01 | ",
    ]
    tags = set(read_board(tmp_path / "board").Tags()["scalars"])
    names = ("lm loss validation", "sop loss validation")
    scalars = [f"{name}{corpus}" for name in names for corpus in ("", "-books")]
    scalars += ["lm loss validation ppl", "lm loss validation-books ppl"]
    assert tags == {f"{name}{axis}" for name in scalars for axis in ("", " vs samples", " vs tokens")}


def test_records_past_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    for iteration in range(1, 8):
        log.train(iteration, outcome(1.0))
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "iter')
    make_log(tmp_path, done=4).close()
    kept = [json.loads(line)["iteration"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kept == [1, 2, 3, 4]


def test_a_new_run_in_an_old_place_keeps_the_old_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = make_log(tmp_path)
    log.train(1, outcome(1.0))
    log.close()
    before = (tmp_path / "metrics.jsonl").read_text()
    make_log(tmp_path, done=0).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    (aside,) = tmp_path.glob("metrics.until-*.jsonl")
    assert aside.read_text() == before
    assert str(aside) in capsys.readouterr().out


def test_evaluation_alone_adds_to_the_metrics_file_and_changes_no_other(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.train(1, outcome(1.0))
    log.close()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "iter')  # as a killed run leaves it
    log = make_log(tmp_path, done=900, more="--skip-train --load there")
    log.validation(900, {"": {"lm loss": 2.0}}, 7)
    log.close()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    old, new = (content.pop(tmp_path / "metrics.jsonl") for content in (before, after))
    assert after == before and new.startswith(old)
    assert json.loads(new[len(old) :])["iteration"] == 900


def test_the_last_validation_of_a_finished_run_is_recorded_once(tmp_path: Path) -> None:
    for start in (0, 20):
        log = make_log(tmp_path, start)
        for iteration in range(start + 1, 21):
            log.train(iteration, outcome(1.0))
        log.validation(20, {"": {"lm loss": 2.0}}, 7)
        log.validation(20, {"": {"lm loss": 2.0}}, 7, "test")
        log.close()
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["train"] * 20 + ["valid", "test"]


@pytest.mark.parametrize("torn", ["", "begun", "zeros", "zeros within"])
def test_tensorboard_lacks_on_every_axis_what_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    """Also where a killed run had only begun its last record, or a power cut has left zeros in the place of
    some; what stays is copied in many pieces."""
    monkeypatch.setattr("megatron.train.event_files.PIECE", 100)
    log = make_log(tmp_path)
    for iteration in range(1, 9):
        log.train(iteration, outcome(8.0))
    log.close()
    (path,) = (tmp_path / "board").glob("events*")
    content = path.read_bytes()
    if torn == "begun":
        path.write_bytes(content[:-5])
    elif torn:
        path.write_bytes((content[:-5] if torn == "zeros within" else content) + bytes(300))
    log = make_log(tmp_path, 4)
    for iteration in (5, 6):
        log.train(iteration, outcome(6.0))
    log.close()
    board = read_board(tmp_path / "board")
    axes = {
        "lm loss": lambda step: step,
        "lm loss vs samples": lambda step: log.plan.totals(step)["consumed_samples"],
        "lm loss vs tokens": lambda step: log.plan.totals(step)["consumed_tokens"],
    }
    for tag, step_of in axes.items():
        assert [(point.step, point.value) for point in board.Scalars(tag)] == [
            (step_of(number), 8.0 if number <= 4 else 6.0) for number in range(1, 7)
        ]
    assert not list((tmp_path / "board").glob("until-*"))


def test_a_new_run_in_an_old_place_keeps_the_old_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for end in (8, 2):
        log = make_log(tmp_path)
        for iteration in range(1, end + 1):
            log.train(iteration, outcome(float(end)))
        log.close()
    assert [point.value for point in read_board(tmp_path / "board").Scalars("lm loss")] == [2.0, 2.0]
    (aside,) = (tmp_path / "board").glob("until-*")
    assert [point.value for point in read_board(aside).Scalars("lm loss")] == [8.0] * 8
    assert f"events of an earlier run in this place are kept in {aside}" in capsys.readouterr().out


def test_a_run_that_goes_on_keeps_what_another_wrote_in_its_place(tmp_path: Path) -> None:
    for save, done, end in (("one", 0, 2), ("other", 0, 8), ("one", 2, 4), ("one", 4, 6)):
        log = make_log(tmp_path, done, save=save)
        for iteration in range(done + 1, end + 1):
            log.train(iteration, outcome(float(end)))
        log.close()

    def recorded(path: Path) -> list[tuple[int, float]]:
        lines = map(json.loads, path.read_text().splitlines())
        return [(line["iteration"], line["lm_loss"]) for line in lines]

    def shown(folder: Path) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in read_board(folder).Scalars("lm loss")]

    mine, others = [(3, 4.0), (4, 4.0), (5, 6.0), (6, 6.0)], [(step, 8.0) for step in range(1, 9)]
    assert recorded(tmp_path / "metrics.jsonl") == shown(tmp_path / "board") == mine
    kept = sorted(tmp_path.glob("metrics.until-*.jsonl"), key=lambda path: path.stat().st_size)
    assert [recorded(path) for path in kept] == [[(1, 2.0), (2, 2.0)], others]
    assert sorted(map(shown, (tmp_path / "board").glob("until-*")), key=len) == [
        [(1, 2.0), (2, 2.0)],
        others,
    ]


def test_tensorboard_has_megatrons_and_deepspeeds_names(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.train(1, outcome(3.0, 0.5, params_norm=9.0))
    log.validation(1, {"": {"lm loss": 2.0}}, 7)
    log.close()
    board = read_board(tmp_path / "board")
    tags = set(board.Tags()["scalars"])
    for name in (
        "learning-rate",
        "batch-size",
        "lm loss",
        "loss-scale",
        "world-size",
        "grad-norm",
        "params-norm",
        "iteration-time",
        "throughput",
    ):
        assert {name, f"{name} vs samples"} <= tags
    for name in (
        "lm-loss-training/lm loss",
        "seqlen/curriculum_seqlen",
        "seqlen/random_ltd_reserved_length",
        "seqlen/actual_seq_length",
    ):
        assert {name, f"{name} vs tokens"} <= tags
    for name in ("lm loss validation", "lm loss validation ppl"):
        assert {name, f"{name} vs samples", f"{name} vs tokens"} <= tags
    assert board.Scalars("lm loss vs samples")[0].step == 4
    assert board.Scalars("lm loss")[0].value == 3.0


def test_the_caps_of_a_curriculum_are_told_everywhere(tmp_path: Path) -> None:
    """From 20 to 100 per cent in 8 steps: half of the way behind the fourth, the whole behind the eighth."""
    caps = "difficulty=percentile,min=20,max=100,pacing=fixed_linear,duration=8"
    log = make_log(tmp_path, more=f"--curriculum vocab_rarity:{caps} --difficulty-path nowhere")
    assert "| curriculum vocab_rarity: 60 | random ltd" in line_of(log, 4, [outcome(1.0)])
    for iteration in range(1, 10):
        log.train(iteration, outcome(1.0))
    log.close()
    points = read_board(tmp_path / "board").Scalars("curriculum/vocab_rarity")
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    wanted = [30, 40, 50, 60, 70, 80, 90, 100, 100]
    assert [point.value for point in points] == wanted
    assert [line["caps"] for line in lines] == [{"vocab_rarity": cap} for cap in wanted]


def test_loads_of_experts_are_told_by_layer(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.train(1, Outcome({"lm loss": 5.0}, 1.0, 0.5, 0.1, loads={3: [6.0, 2.0, 0.0, 0.0]}))
    log.close()
    (record,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert record["expert_shares"] == {"3": [0.75, 0.25, 0.0, 0.0]}
    board = read_board(tmp_path / "board")
    found = {name: board.Scalars(f"moe/load_{name}_layer_3")[0].value for name in ("min", "max", "entropy")}
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) / 2
    assert found == pytest.approx({"min": 0.0, "max": 3.0, "entropy": entropy}, rel=1e-6)


def test_tensorboard_has_memory_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = make_log(tmp_path, more="--log-memory-to-tensorboard")
    for iteration in (1, 2, 3):
        log.train(iteration, outcome(1.0))
    log.close()
    points = read_board(tmp_path / "board").Scalars("mem-max-resident-bytes")
    assert len(points) == 3 and points[0].value > 1e7
    lines = re.findall(r"^\[Rank 0\].*$", capsys.readouterr().out, re.MULTILINE)
    assert len(lines) == 1
    assert re.fullmatch(
        r"\[Rank 0\] \(after 2 iterations\) memory \(MB\) \| peak resident: \d+\.\d\d", lines[0]
    )


def test_a_validation_takes_no_times_of_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = make_log(tmp_path, more="--timing-log-level 1 --log-timers-to-tensorboard")
    for name in ("optimizer", "eval-time"):
        with log.timers.span(name):
            time.sleep(0.001)
    log.validation(1, {"": {"lm loss": 2.0}}, 7)
    assert re.findall(r"^    (\S+) \.+:", capsys.readouterr().out, re.MULTILINE) == ["eval-time"]
    log.train(1, outcome(1.0))
    assert re.findall(r"^    (\S+) \.+:", capsys.readouterr().out, re.MULTILINE) == ["optimizer"]
    log.close()
    tags = set(read_board(tmp_path / "board").Tags()["scalars"])
    assert {"eval-time-time", "optimizer-time"} <= tags


def test_the_throughput_of_a_step_is_that_of_its_own_flops(tmp_path: Path) -> None:
    """Of its second on one rank; the steps grow, so that no other step has as many. An event file that a
    killed run has left empty is left alone."""
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "events.out.tfevents.1.killed").touch()
    log = make_log(tmp_path, more="--log-throughput --device-peak-tflops 0.001")
    for iteration in range(1, 5):
        log.train(iteration, outcome(1.0, seconds=0.5 * iteration))
    log.close()
    board = read_board(tmp_path / "board")
    speeds = [log.plan.flops[step] / (0.5 * (step + 1)) / 1e12 for step in range(4)]
    assert [point.value for point in board.Scalars("throughput")] == pytest.approx(speeds, rel=1e-6)
    assert [point.value for point in board.Scalars("mfu")] == pytest.approx(
        [speed / 0.001 for speed in speeds], rel=1e-6
    )
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["throughput"] for record in found] == pytest.approx(speeds, rel=1e-12)
    assert [record["mfu"] for record in found] == pytest.approx([speed / 0.001 for speed in speeds])
    assert all(record["hfu"] == record["mfu"] for record in found)


def test_tensorboard_keeps_its_interval(tmp_path: Path) -> None:
    log = make_log(tmp_path, more="--tensorboard-log-interval 3")
    for iteration in range(1, 8):
        log.train(iteration, outcome(1.0))
    log.close()
    assert [point.step for point in read_board(tmp_path / "board").Scalars("lm loss")] == [3, 6]


def test_points_up_to_the_last_line_are_on_disk_before_the_end(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    for iteration in range(1, 8):
        log.train(iteration, outcome(1.0))
    assert len(read_board(tmp_path / "board").Scalars("lm loss")) >= 5
    log.close()


@pytest.mark.parametrize("spec", [None, ModuleSpec("wandb", None)])  # the latter: a folder of that name
def test_without_wandb_a_run_goes_on_and_says_so(
    tmp_path: Path,
    spec: ModuleSpec | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("megatron.train.sinks.find_spec", lambda _: spec)
    make_log(tmp_path, more="--wandb-project mine").close()
    assert (
        "warning: --wandb-project mine is not used: install it by pip install wandb"
        in capsys.readouterr().out
    )
    make_log(tmp_path, more="--wandb-project=").close()
    assert "wandb" not in capsys.readouterr().out


def test_settings_of_the_process_are_told_where_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "CUDA_DEVICE_MAX_CONNECTIONS", "NCCL_ALGO"):
        monkeypatch.delenv(name, raising=False)
    assert process_environment() == {}
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert process_environment() == {"OMP_NUM_THREADS": "3", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    assert process_environment()["NCCL_ALGO"] == "Ring"


def test_a_validation_that_gives_no_numbers_is_recorded_as_such() -> None:
    """As behind a step that has diverged: JSON knows no NaN, and exp(20) would be a perplexity."""
    losses: Losses = {"": {"lm loss": math.nan}, "a": {"lm loss": 2.0}, "b": {"lm loss": math.inf}}
    fields = validation_fields("valid", 3, {}, losses, 8)
    assert fields["lm_loss"] is None and fields["perplexity"] is None
    assert fields["corpora"] == {"a": 2.0, "b": None}
    json.dumps(fields, allow_nan=False)
    assert "lm loss value: NAN | lm loss PPL: NAN" in validation_block(3, losses, "validation")
    assert math.isnan(validation_scalars(losses, "validation")["lm loss validation ppl"])
