"""finetune.py --task lm as it is typed: from pretraining to perplexity, in sweeps, on two ranks, and with
mistakes."""

import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import EFFICIENT, MODEL, Prepared
from tests.support.commands import run_command
from tests.support.streams import write_streams


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return ["finetune.py", *write_streams(tmp_path_factory.mktemp("streams"))]


def test_a_pretrained_gpt_is_finetuned_and_evaluated(
    words: list[str], prepared: Prepared, tmp_path: Path
) -> None:
    base, save = tmp_path / "base", tmp_path / "lm"
    data = ["--data-path", prepared.prefix, "--split", "90,10,0"]
    run_command("pretrain_gpt.py", *MODEL, *data, "--train-iters", "4", "--save", str(base))
    more = ["--load", str(base), "--save", str(save), "--num-train-epochs", "2", *EFFICIENT[1:]]
    out = run_command(*words, *more).stdout
    assert "kept length 16-64" in out and "perplexity per token of the validation text" in out
    results = json.loads((save / "results.json").read_text())
    assert results["load"] == str(base) and set(results["metrics"]) == {"valid", "test"}
    assert len(results["validations"]) >= 2  # epochs are of effective tokens, so there are more steps
    assert "is there already" in run_command(*words, *more).stdout
    run_command("tools/evaluate.py", "--load", str(save))  # on the run's own texts


def test_two_ranks_come_to_the_perplexity_of_one(words: list[str], tmp_path: Path) -> None:
    found = []
    for ranks in (1, 2):
        flags = ["--train-iters", "3", "--global-batch-size", "4", "--save", str(tmp_path / str(ranks))]
        run_command(*words, *flags, ranks=ranks)
        found.append(json.loads((tmp_path / str(ranks) / "results.json").read_text()))
    assert found[0]["run"] == found[1]["run"]
    for split, values in found[0]["metrics"].items():
        assert found[1]["metrics"][split] == pytest.approx(values, rel=1e-5)


def test_a_sweep_and_its_table(words: list[str], tmp_path: Path) -> None:
    flags = ["--train-iters", "2", "--sweep-lr", "1e-4,2e-3", "--seeds", "1", "--save", str(tmp_path / "s")]
    out = run_command(*words, *flags).stdout
    assert "best rate by the median of valid best_perplexity: 0.002" in out
    assert "2 runs, of which 2 are done" in run_command(*words, *flags).stdout
    assert len(list((tmp_path / "cache").glob("gpt-*"))) == 1  # all runs share it


def test_mistakes_end_with_a_line_and_leave_nothing(words: list[str], tmp_path: Path) -> None:
    done = run_command(*words, "--load", str(tmp_path / "no"), "--save", str(tmp_path / "run"), status=2)
    assert done.stderr.startswith(f"error: --load {tmp_path / 'no'}: holds no checkpoint and no config.json")
    assert not list(tmp_path.iterdir())
