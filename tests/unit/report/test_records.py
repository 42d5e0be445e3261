"""What is read of a run, and the arithmetic over it."""

import json

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.report.comparison import at_equal_tokens, gap, reading, validation_at
from megatron.report.conditions import command, conditions, differences
from megatron.report.records import flags, read_evaluation, read_run
from megatron.report.summary import facts, saved_share, smoothed, statement, window
from megatron.train.log_line import validation_block
from tests.support.made_up_runs import write_run


def test_columns_hold_every_record_and_the_time_so_far(two_runs):
    run = read_run("plain", two_runs[0])
    assert run.steps == 40
    np.testing.assert_allclose(run.train["seconds"], 0.5 * np.arange(1, 41))
    np.testing.assert_allclose(run.valid["seconds"], [5, 10, 15, 20])
    np.testing.assert_allclose(run.valid["lm_loss"], [5.4, 5.3, 5.2, 5.1])
    assert run.caps["vocab_rarity"][[0, -1]].tolist() == [11, 30]
    assert run.last("raw_tokens") == 40 * 2 * 100
    assert flags(run)["--num-layers"] == 4
    assert run.notes == ()


def test_missing_and_null_fields_are_unknown(tmp_path):
    records = [
        {"kind": "train", "iteration": 1, "consumed_tokens": 5},
        {"kind": "train", "iteration": 2, "consumed_tokens": 9, "lm_loss": None},
    ]
    records += [
        {"kind": "train", "iteration": 3, "consumed_tokens": 12, "lm_loss": 2.5, "caps": {"a": 4}},
        {"kind": "other", "anything": "x"},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    run = read_run("short", tmp_path)
    assert np.isnan(run.train["lm_loss"]).tolist() == [True, True, False]
    assert np.isnan(run.caps["a"]).tolist() == [True, True, False]
    assert "2 of 3 training losses" in run.notes[0]
    assert facts(run)["training time"] == "–"
    assert facts(run)["training loss"] == "2.5000"


def test_a_partial_last_line_is_left_out_and_told(tmp_path):
    path = write_run(tmp_path / "run") / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind": "train", "iteration": 41, "lm_l')
    run = read_run("going", tmp_path / "run")
    assert run.steps == 40
    assert "incomplete" in run.notes[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "train", "iter\n', "metrics.jsonl:45: is no JSON"),
        ("[1, 2]\n", "metrics.jsonl:45: is no record"),
        ('{"kind": "train", "iteration": 41}\n', "metrics.jsonl:45: consumed_tokens must be a number"),
        (
            '{"kind": "train", "iteration": 41, "consumed_tokens": 1, "lm_loss": "low"}\n',
            "metrics.jsonl:45: lm_loss must be a number",
        ),
        (
            '{"kind": "train", "iteration": 40, "consumed_tokens": 1}\n',
            "metrics.jsonl:45: iteration 40 follows 40",
        ),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    path = write_run(tmp_path / "run") / "metrics.jsonl"
    path.write_text(path.read_text() + line)
    with pytest.raises(UserError, match=message):
        read_run("broken", tmp_path / "run")


def test_runs_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no metrics\.jsonl"):
        read_run("none", tmp_path)
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "valid", "iteration": 1, "consumed_tokens": 1, "lm_loss": 1}\n'
    )
    with pytest.raises(UserError, match="no training record"):
        read_run("empty", tmp_path)
    write_run(tmp_path)
    for content in ("{", "[]", '{"config": 3}'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(UserError, match=r"run\.json"):
            read_run("run", tmp_path)
    (tmp_path / "evaluation.json").write_text('{"results": [{"corpus": "a"}]}')
    with pytest.raises(UserError, match="each with a loss"):
        read_evaluation(tmp_path / "evaluation.json")


def test_smoothing_is_the_mean_of_the_last_values():
    values = np.array([4.0, 2.0, np.nan, 6.0, 8.0, np.inf])
    np.testing.assert_allclose(smoothed(values, 3), [4, 3, 3, 4, 7, 7])
    np.testing.assert_allclose(smoothed(np.arange(5.0), 9), [0, 0.5, 1, 1.5, 2])
    noise = np.random.default_rng(0).normal(size=500)
    expected = [noise[max(0, i - 19) : i + 1].mean() for i in range(500)]
    np.testing.assert_allclose(smoothed(noise, 20), expected, atol=1e-12)


def test_facts_against_plain_arithmetic(two_runs):
    run = read_run("dropped", two_runs[1])
    found = facts(run)
    assert found["effective tokens"] == "7,200"  # 20 steps · 2 rows · 80, then 20 · 2 · 100
    assert found["raw tokens"] == found["drawn tokens"] == "8,000"
    assert found["layer tokens"] == "28.8 K\n28,800"
    assert found["layer tokens saved"] == "10.0%"
    assert found["raw tokens a second"] == "400"
    assert found["training time"] == "20.0 s"
    assert found["training loss"] == "4.5000"  # 4.9 - 0.01 · 40
    assert found["last validation loss"] == f"5.0000\nperplexity {np.exp(5):,.2f}, 40 steps"
    assert found["best validation loss"] == found["last validation loss"]
    np.testing.assert_allclose(saved_share(run)[[0, 19, 39]], [0.2, 0.2, 0.1])


def test_runs_are_compared_at_the_most_tokens_that_both_reached(two_runs):
    plain, dropped = (read_run(folder.name, folder) for folder in two_runs)
    # At 7,200 effective tokens the baseline is at step 36, between its validations at 30 and 40: 5.14 on the
    # line.
    assert validation_at(plain, np.array(7200.0)) == pytest.approx(5.14)
    ends, equal, steps, last = reading([plain, dropped])
    assert ends == (
        "At its last validation (40 steps, 7,200 effective and 8,000 raw tokens) the loss of dropped was "
        "0.1000 nats below that of plain at its last (40 steps, 8,000 effective and 8,000 raw tokens): "
        "5.0000 against 5.1000."
    )
    assert equal == (
        "At 7,200 effective tokens, which all have reached, the validation loss of dropped (40 steps) was "
        "0.1400 nats below that of plain (36 steps): 5.0000 against 5.1400."
    )
    assert steps == (
        "For the first 7,200 effective tokens dropped took 40 steps and plain 36: more steps, too, are a "
        "possible cause of a difference."
    )
    assert "single seed" in last
    assert at_equal_tokens([plain, dropped]) == [
        ["validation loss at 7,200 effective tokens", "5.1400\n36 steps", "5.0000\n40 steps"]
    ]
    tokens, apart = gap(dropped, plain)
    assert tokens.tolist() == [2000, 4000, 6000, 7200]
    assert apart[-1] == pytest.approx(-0.14)


def test_losses_on_other_numbers_of_windows_are_told(tmp_path):
    """The number stands beside every loss. A record of before it was written is shown without it."""
    runs = [
        read_run(name, write_run(tmp_path / name, windows=windows, loss=loss))
        for name, windows, loss in (("a", 800, 5.0), ("b", 400, 4.0), ("c", 800, 4.5), ("old", None, 4.2))
    ]
    detail = f"perplexity {np.exp(5.1):,.2f}, 40 steps"
    assert facts(runs[0])["last validation loss"] == f"5.1000\n{detail}, 800 windows"
    assert facts(runs[0])["test loss"] == f"5.2000\nperplexity {np.exp(5.2):,.2f}, 800 windows"
    assert "windows" not in facts(runs[3])["last validation loss"]
    warning = (
        "Warning: the validation losses are of different numbers of windows (a on 800, b on 400, c on 800), "
        "so of different texts. A difference between them may come from that alone."
    )
    assert reading(runs)[-2] == warning
    assert not [line for line in reading([runs[0], *runs[2:]]) if "Warning" in line]
    path = tmp_path / "c" / "metrics.jsonl"
    *others, test = path.read_text().splitlines()
    path.write_text("\n".join([*others, test.replace('"windows": 800', '"windows": 80')]) + "\n")
    said = reading([runs[0], read_run("c", tmp_path / "c")])[-2]
    assert said.startswith("Warning: the test losses are of different numbers of windows (a on 800, c on 80)")


def test_only_causes_that_fit_are_named(two_runs, tmp_path):
    """More steps on the side of the higher loss explain nothing; equal losses need no cause."""
    plain = read_run("plain", two_runs[0])
    for loss, named in ((4.9, 1), (4.0, 1), (5.0, 1), (5.04, 0), (5.1, 0)):
        # at 7,200 effective tokens plain, at step 36, is at 5.14, and the other, at step 40, 0.1 above `loss`
        dropped = read_run("dropped", write_run(tmp_path / str(loss), drop=40, loss=loss))
        for runs in ([plain, dropped], [dropped, plain]):
            assert sum("more steps" in line for line in reading(runs)) == named, loss


def test_other_batches_and_ranks_are_named(tmp_path):
    def made(name, batch, ranks):
        about = {"world_size": ranks} if ranks else None
        return read_run(name, write_run(tmp_path / name, about=about, batch=batch))

    batches = "b took 4 samples a step and a 2: the batch size, too, is a possible cause of a difference."
    ranks = "b ran on 2 ranks and a on 1: times do not compare, and losses do so to rounding at best."
    first = made("a", 2, 1)
    both = made("b", 4, 2)
    assert [line for line in reading([first, both]) if line in (batches, ranks)] == [batches, ranks]
    for other, line in ((made("b", 4, 1), batches), (made("b", 2, 2), ranks)):
        assert [one for one in reading([first, other]) if one in (batches, ranks)] == [line]
    (tmp_path / "b" / "run.json").unlink()
    assert not {batches, ranks} & set(reading([first, made("b", 2, None)]))


def test_equal_runs_are_told_once_and_no_steps_are_blamed(tmp_path):
    runs = [
        read_run(name, write_run(tmp_path / name, loss=loss)) for name, loss in (("a", 5.0), ("b", 5.00004))
    ]
    ends, last = reading(runs)
    assert "(40 steps, 8,000 effective and 8,000 raw tokens) the loss of b was to 4 digits that of a" in ends
    assert "5.1000 against 5.1000" in ends and "single seed" in last
    assert at_equal_tokens(runs) == []


def test_the_difference_is_that_of_the_digits_shown(tmp_path):
    """5.10006 and 5.10014 are shown as 5.1001 and 5.1001; 5.10004 and 5.10006 as 5.1000 and 5.1001."""
    for first, second, words in ((5.00006, 5.00014, "to 4 digits"), (5.00004, 5.00006, "0.0001 nats above")):
        runs = [
            read_run(name, write_run(tmp_path / name, loss=loss))
            for name, loss in (("a", first), ("b", second))
        ]
        assert f"the loss of b was {words} that of a" in reading(runs)[0]


@pytest.mark.parametrize("loss", [19.5, 25.0, 3313.8])
def test_the_perplexity_of_any_loss_is_that_of_the_log(tmp_path, loss):
    """Megatron cuts it at exp(20), and so does the log line; exp of the last one is beyond a float."""
    path = write_run(tmp_path / "run") / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line | {"lm_loss": loss} if line["kind"] == "valid" else line for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = facts(read_run("high", tmp_path / "run"))["last validation loss"]
    logged = validation_block(1, {"": {"lm loss": loss}}, "validation").partition("PPL: ")[2].split()[0]
    assert f"perplexity {np.exp(min(loss, 20)):,.2f}, " in shown
    assert float(logged) == pytest.approx(np.exp(min(loss, 20)), rel=1e-6)


def test_numbers_that_are_none_are_left_out(tmp_path):
    """Older runs wrote NaN and Infinity, newer ones no loss where a validation scored nothing."""
    path = write_run(tmp_path / "run") / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    valid = [line for line in lines if line["kind"] == "valid"]
    valid[0]["lm_loss"], valid[1]["lm_loss"] = float("nan"), float("inf")
    del valid[3]["lm_loss"]
    lines[20] |= {"lm_loss": float("-inf"), "grad_norm": float("inf"), "learning_rate": float("nan")}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "NaN" in path.read_text() and "-Infinity" in path.read_text()
    run = read_run("old", tmp_path / "run")
    assert run.notes == (
        "1 of 40 training losses of old are no number; they are left out.",
        "3 of 4 validation losses of old are no number; they are left out.",
    )
    assert facts(run)["last validation loss"] == f"5.2000\nperplexity {np.exp(5.2):,.2f}, 30 steps"
    assert not any(np.isinf(column).any() for kind in (run.train, run.valid) for column in kind.values())
    whole = read_run("whole", write_run(tmp_path / "whole"))
    assert "At its last validation (30 steps, 6,000 effective" in reading([whole, run])[0]
    path.write_text('{"kind": "train", "iteration": 1, "consumed_tokens": NaN}\n')
    with pytest.raises(UserError, match="consumed_tokens must be a number, not nan"):
        read_run("none", tmp_path / "run")


def test_how_a_run_was_made(tmp_path):
    about = {
        "command": ["pretrain_gpt.py", "--title", "two words"],
        "config": {
            "model": {"num_layers": 4, "hidden_size": 64, "num_attention_heads": 8, "seq_length": 128}
        },
        "parameters": 1234,
        "vocab_size": 512,
        "flops": 2.5e12,
        "steps": 80,
        "machine": "a chip, 2 cores",
        "world_size": 2,
        "device": "cpu",
        "commit": "abc",
        "resumed_after": 3,
        "started": "today",
        "versions": {"torch": "2", "python": "3"},
        "environment": {"OMP_NUM_THREADS": "1"},
    }
    run = read_run("run", write_run(tmp_path, about=about))
    assert conditions(run) == {
        "model": "4 layers, 64 wide, 8 heads\nsequences of 128",
        "parameters": "1,234",
        "vocabulary": "512",
        "FLOPs": "2.500E+12\nof all 80 planned steps",
        "machine": "a chip, 2 cores",
        "ranks": "2",
        "device": "cpu",
        "versions": "torch 2, python 3",
        "commit": "abc",
        "environment": "OMP_NUM_THREADS=1",
        "started": "today\nresumed after step 3",
    }
    assert command(run) == "pretrain_gpt.py --title 'two words'"
    (tmp_path / "run.json").unlink()
    bare = read_run("bare", tmp_path)
    assert set(conditions(bare).values()) == {"–"} and command(bare) == ""


def test_a_comparison_that_is_not_possible_is_not_made(tmp_path, two_runs):
    lone = read_run("plain", two_runs[0])
    assert "no comparison" in reading([lone])[0]
    short = read_run("short", write_run(tmp_path / "short", steps=9))
    assert "no comparison" in reading([lone, short])[0]
    assert len(gap(short, lone)[0]) == 0


def test_words_and_differences(two_runs):
    runs = [read_run(folder.name, folder) for folder in two_runs]
    words = statement(runs)
    assert words.startswith(
        "Two runs of 1,234 parameters on corpus <one> (50 samples). plain took 40 steps over 8,000 "
        "effective tokens: sequence length 100"
    )
    assert "kept length from 60 to 100 tokens by step 21, vocab_rarity cap from 11 to 30 by step 20." in words
    assert differences(runs) == [["--random-ltd", "false", "true"], ["--curriculum", "–", "a:b=1 c:d=2"]]


def test_a_long_run_is_smoothed_over_a_hundredth(tmp_path):
    run = read_run("long", write_run(tmp_path, steps=1000))
    assert window(run) == 10
    assert (
        facts(run)["training loss"] == "-4.9550\nmean of the last 10 steps"
    )  # 5 - 0.01 · (991 + ... + 1000) / 10
