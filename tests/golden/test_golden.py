"""Losses of small runs, kept as text, so that a change of numbers cannot go unnoticed. `python
tests/golden/test_golden.py` shows what has changed; where that is meant, `--write` writes them anew: say
why in the commit."""

import shlex
import sys
import tempfile
from pathlib import Path

import pytest
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from megatron.base.command import run_command

from megatron.tasks.tasks import TASKS
from megatron.train.pretrain import pretrain
from tests.end_to_end.conftest import records
from tests.golden.rewrite import rewrite
from tests.golden.runs import COMMON, ENTRIES, RUNS

FOLDER = Path(__file__).parent


def losses(name: str) -> list[str]:
    """Kind, iteration, effective tokens, sum of losses and gradient norm of every record of a run."""
    torch.set_num_threads(1)
    task = TASKS[ENTRIES[name].removeprefix("pretrain_").removesuffix(".py")]
    with tempfile.TemporaryDirectory() as folder:
        pretrain(
            [*shlex.split(COMMON + RUNS[name]), "--metrics-file", f"{folder}/metrics.jsonl"], task, "", ""
        )
        found = records(Path(folder))
    torch.set_flush_denormal(False)
    return [
        f"{one['kind']} {one['iteration']} {one['consumed_tokens']} "
        f"{one.get('lm_loss', one.get('loss')) + one.get('sop_loss', 0):.6f} "
        f"{one.get('grad_norm', 0):.5f}"
        for one in found
    ]


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_as_before(name: str) -> None:
    wanted = (FOLDER / f"{name}.txt").read_text().splitlines()
    found = losses(name)
    assert len(found) == len(wanted)
    for line, golden in zip(found, wanted):
        mine, theirs = line.split(), golden.split()
        assert mine[:3] == theirs[:3]
        # other processors round sums of some 10^4 fp32 terms in another order: 100 · 6e-8, grown over 40
        # steps of Adam
        assert float(mine[3]) == pytest.approx(float(theirs[3]), rel=2e-4), line
        assert float(mine[4]) == pytest.approx(float(theirs[4]), rel=5e-3, abs=1e-4), line


if __name__ == "__main__":
    run_command(lambda: rewrite(FOLDER, losses))
