"""Write the table of docs/parallelism.md: how far every layout of ranks is from one rank."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from pathlib import Path

import torch

from tests.support.parity import LAYOUTS, deviations, pairs

PAGE = Path(__file__).resolve().parent.parent / "docs" / "parallelism.md"
START, END = "<!-- parity -->", "<!-- end of parity -->"
HEAD = "| layout | model | loss | gradient norm | weights | loss, fp32 | gradient norm, fp32 |"


def main() -> None:
    rows = [HEAD, "|" + "---|" * 7]
    for layout, model in pairs():
        double = deviations(model, LAYOUTS[layout], torch.float64)
        single = deviations(model, LAYOUTS[layout], torch.float32)[:2]
        numbers = " | ".join(f"{number:.0e}" for number in (*double, *single))
        rows.append(f"| {layout} | {model} | {numbers} |")
        print(rows[-1], flush=True)
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    table = "\n".join(rows)
    PAGE.write_text(f"{before}{START}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
