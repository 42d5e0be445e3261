"""Write the table of docs/planning.md: the fastest layout of published recipes on 8 to 1,024 GPUs.

python scripts/price_table.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from pathlib import Path

from megatron.base.units import exact
from megatron.config.arguments import understand
from megatron.config.config import Config, complete
from megatron.report.cost import Machines
from megatron.report.suggest import Suggestion, suggestions
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import build_plan, fullest_step
from megatron.tasks.prices import step_flops
from megatron.tasks.tasks import TASKS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "planning.md"
START, END = "<!-- prices -->", "<!-- end of prices -->"
MEMORY, GIB = 80 * 2**30, 2**30
VOCABULARY = {"gpt": 50_257, "bert": 30_522}
H100 = Machines(989e12, 0.5, 450e9, 50e9, 8)
COMMON = (
    "--bf16 --hidden-dropout 0 --attention-dropout 0 --seq-length 2048 --train-iters 1 --lr 1e-4 --mock-data "
)
RECIPES = {
    "1.3B": "--num-layers 24 --hidden-size 2048 --num-attention-heads 16 --micro-batch-size 4 "
    "--global-batch-size 512 ",
    "13B": "--num-layers 40 --hidden-size 5120 --num-attention-heads 40 --micro-batch-size 1 "
    "--global-batch-size 1024 ",
    "175B": "--num-layers 96 --hidden-size 12288 --num-attention-heads 96 --micro-batch-size 1 "
    "--global-batch-size 1536 ",
    "MoE 6.7B": "--num-layers 24 --hidden-size 1024 --num-attention-heads 16 --micro-batch-size 4 "
    "--global-batch-size 256 --num-experts 64 --moe-layer-freq ([0]+[1])*12 --moe-router-topk 1 "
    "--moe-router-pre-softmax --moe-aux-loss-coeff 1e-2 --moe-expert-capacity-factor 1.0 ",
    "BERT-large": "--num-layers 24 --hidden-size 1024 --num-attention-heads 16 --micro-batch-size 16 "
    "--global-batch-size 1024 --seq-length 512 --apply-residual-connection-post-layernorm ",
}
"""Shapes of arXiv 2005.14165, table 2.1 (13B with a width that its heads divide), and batches of about its
tokens; and the mixture of experts and BERT-large of arXiv 2212.03597."""
DEVICES = (8, 64, 256, 1024)
HEAD = (
    "| model | GPUs | tp | cp | dp | pp | ep | schedule | recomputed | GiB a GPU | step, s | TFLOP/s a GPU |"
)


def main() -> None:
    """Reckon every row."""
    table = "\n".join([HEAD, "|---" * HEAD.count(" | ") + "|---|", *(row(*one) for one in pairs())])
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    PAGE.write_text(f"{before}{START}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def pairs() -> list[tuple[str, int]]:
    """Recipes and numbers of GPUs."""
    return [(name, devices) for name in RECIPES for devices in DEVICES]


def row(name: str, devices: int) -> str:
    """The fastest layout that fits, or what the smallest one takes."""
    found, model_flops = priced(name, devices)
    if not (fits := [one for one in found if one.price.total <= MEMORY]):
        least = min(one.price.total for one in found) / GIB
        return f"| {name} | {exact(devices)} | none fits: the smallest takes {least:.0f} GiB |" + " |" * 9
    one, layout = fits[0], fits[0].layout
    schedule = one.flags.get("pipeline_schedule", "")
    runs = one.flags.get("num_virtual_stages_per_pipeline_rank")
    parts = [
        *(getattr(layout, axis) for axis in ("tensor", "context", "data", "pipeline", "expert")),
        f"{schedule} {runs}" if runs else schedule,
        one.flags["recompute_granularity"] or "",
        f"{one.price.total / GIB:.1f}",
        f"{one.cost.seconds:.2f}",
        f"{model_flops / one.cost.seconds / devices / 1e12:.0f}",
    ]
    return f"| {name} | {exact(devices)} | {' | '.join(map(str, parts))} |"


def priced(name: str, devices: int) -> tuple[list[Suggestion], float]:
    """All layouts of a recipe, the fastest first, and the FLOPs of its step."""
    task = TASKS["bert" if name.startswith("BERT") else "gpt"]
    vocabulary = VOCABULARY[task.name]
    config: Config = complete(Config, *understand(Config, (COMMON + RECIPES[name]).split()), 1, rules=())
    efficiency, _ = describe(config)
    plan = build_plan(config, efficiency, task.row_flops(config, efficiency, vocabulary))
    step = fullest_step(plan)
    found = suggestions(task, config, efficiency, vocabulary, plan, step, devices, H100, "cuda")
    return found, step_flops(task, config, efficiency, vocabulary, step)[0]


if __name__ == "__main__":
    run_command(main)
