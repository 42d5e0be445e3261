"""Write recipes/README.md: every recipe, the row of the paper that it is, and its plan. `python
scripts/make_recipes_page.py`"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import re
from pathlib import Path

from megatron.config import checkpoint, data
from megatron.config.arguments import understand
from megatron.config.config import RULES, Config, complete
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.config.parallel import ranks_of_model
from megatron.schedule import data_efficiency_flags
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan, build_plan
from megatron.tasks.task import Task
from megatron.tasks.tasks import TASKS

FOLDER = Path(__file__).resolve().parent.parent / "recipes"
PAGE = FOLDER / "README.md"
VOCABULARY = {"gpt": 50_257, "bert": 30_522, "vit": 1000}
HEAD = """\
# Recipes

Made by `python scripts/make_recipes_page.py`. A file in a folder is a run; the file beside the folder that
has its name is what its runs share. [docs/recipes.md](../docs/recipes.md) says how to train one, on a cluster
or small, and where numbers come from that the paper does not state.

Tokens are in billions: effective ones, which end the run, and raw ones, which enter the first layer. Results
behind the words are the paper's.
"""
COLUMNS = (
    "| recipe | what it is | steps | tokens | raw | peak rate | last rate |\n|---|---|---|---|---|---|---|\n"
)


def main() -> None:
    """Write the page."""
    PAGE.write_text("".join([HEAD, *map(section, families())]), encoding="utf-8")


def families() -> list[str]:
    """The folders of recipes, of one model each, that can be trained."""
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and task_name(path.name) in TASKS)


def recipes(family: str) -> list[Path]:
    """The runs of a model, those of the most tokens first."""

    def place(path: Path) -> tuple[int, str]:
        tokens = re.search(r"_(\d+)b$", path.stem)
        return -int(tokens[1]) if tokens else 0, path.stem

    return sorted((FOLDER / family).glob("*.yaml"), key=place)


def section(family: str) -> str:
    """The part of the page that is about a model."""
    rows = "".join(row(path, expand(path, ranks=ranks_of(path))[1]) for path in recipes(family))
    return head_of(family) + rows


def head_of(family: str) -> str:
    """What stands above the rows of a model."""
    return f"\n## {family}\n\n{about(FOLDER / f'{family}.yaml')}\n\n{COLUMNS}"


def row(path: Path, plan: Plan) -> str:
    """The line of a recipe."""
    tokens, raw = (f"{values[-1] / 1e9:,.4g}" for values in (plan.consumed_tokens, plan.raw_tokens))
    rates = f"{plan.learning_rate.max():.3g} | {plan.learning_rate[-1]:.3g}"
    return f"| `{path.stem}` | {about(path)} | {plan.steps:,} | {tokens} | {raw} | {rates} |\n"


def about(path: Path) -> str:
    """What a recipe says of itself: its first line."""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def task_name(family: str) -> str:
    """What recipes train: pretrain_bert.py reads those whose folder begins with bert_, and so on."""
    first = family.split("_")[0]
    return first if first in ("bert", "vit") else "gpt"


def task_of_recipe(path: Path) -> Task:
    """The task of a recipe."""
    return TASKS[task_name(path.parent.name)]


def ranks_of(path: Path) -> int:
    """GPUs that its model's file names."""
    found = re.search(r" on ([\d,]+) [VH]100 ", about(path.parent.with_suffix(path.parent.suffix + ".yaml")))
    assert found, path
    return int(found[1].replace(",", ""))


def expand(path: Path, *words: str, ranks: int = 1, vocab_size: int | None = None) -> tuple[Config, Plan]:
    """The checked configuration of a recipe on so many GPUs, and its plan. A recipe names neither data nor
    places, so that rules about these have nothing to ask for."""
    task, apart = task_of_recipe(path), (*data.RULES, *checkpoint.RULES)
    rules = [rule for rule in (*RULES, *data_efficiency_flags.RULES, *task.rules) if rule not in apart]
    given, problems = understand(Config, ["--config", str(path), *words], foreign=FOREIGN_FLAGS)
    values = task.given(given)
    replicas = ranks // ranks_of_model(complete(Config, values, problems, 1, ()).parallel)
    config: Config = complete(Config, values, problems, replicas, rules)
    efficiency, _ = describe(config)
    flops = task.row_flops(config, efficiency, vocab_size or VOCABULARY[task.name])
    return config, build_plan(config, efficiency, flops)


if __name__ == "__main__":
    run_command(main)
