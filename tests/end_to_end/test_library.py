"""The code of docs/library.md runs as it stands, and its numbers are those of the commands."""

import re
from pathlib import Path

from tests.end_to_end.conftest import write_text
from tests.support.commands import ROOT, run_forked

PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(words: list[str], folder: Path) -> str:
    done = run_forked(*words, folder=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_block_runs_in_order(tmp_path: Path) -> None:
    write_text(tmp_path / "my.jsonl")
    made = re.search(r"```\n(python tools/train_tokenizer.py .*?)```", PAGE, re.DOTALL)
    assert made
    for line in made.group(1).replace("\\\n", " ").splitlines():
        words = line.split()
        run([str(ROOT / words[1]), *words[2:]], tmp_path)
    assert len(BLOCKS) == 9
    (tmp_path / "page.py").write_text("\n".join(BLOCKS))
    said = run(["page.py"], tmp_path)
    assert "8 128" in said, "the batch size and the MLP's width follow from the other flags"
    assert re.search(r"1200 steps, \d+ effective tokens", said)
    assert "Step(number=1000, batch_size=8, sequence_length=64" in said
    assert "torch.Size([4, 64])" in said
    assert re.search(r"^20 16 \d", said, re.MULTILINE), "step 20 of the loop has the plan's length"
    assert "tokens computed in each row: [16, 16]" in said
    assert "kept length 32 layer tokens 3456" in said, "2 of 4 layers keep 16, 16, 24, 24 and 32 of 64"
    assert "step 5 has rows of (4, 40)" in said, "16 + 48 · 5/10 tokens, of half of 8 samples"
    assert said.endswith("[10, 10]\n"), "tokens that continue two rows"
