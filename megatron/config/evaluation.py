"""Flags of what a GPT is asked beside the loss of windows."""

from collections.abc import Collection
from dataclasses import dataclass

from megatron.base.errors import UserError
from megatron.config.flags import flag, spelling

BOS_TOKEN = "token before every text, as <s> for weights of LLaMA; none"


@dataclass(frozen=True, kw_only=True)
class DomainOptions:
    domains: tuple[str, ...] = flag(
        (), "texts whose documents are scored: JSON lines, Parquet, .txt or folders", metavar="FILE"
    )
    json_key: str = flag("text", "what the text is under")
    domain_key: str | None = flag(None, "what a document's domain is under; the file's name")
    max_documents: int | None = flag(None, "at most so many of each domain, the first; all", at_least=1)


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    cloze: int = flag(0, "how many passages of --splits whose last word is to be told", at_least=0)
    multiple_choice: int = flag(
        0, "how many passages of --splits whose continuation is to be told from three others", at_least=0
    )
    seed: int = flag(1234, "of what is drawn, and of examples before questions of --lm-eval")
    compare: str | None = flag(
        None,
        "another checkpoint, on the same items of --cloze, --multiple-choice and --domains",
        metavar="FOLDER",
    )


@dataclass(frozen=True, kw_only=True)
class HarnessOptions:
    lm_eval: tuple[str, ...] = flag(
        (),
        "tasks of EleutherAI's lm-evaluation-harness, also with commas between, or patterns such as arc_*; "
        "paper: the 19 of the paper",
        metavar="TASK",
    )
    num_fewshot: int | None = flag(None, "examples before a question; what the task says", at_least=0)
    limit: float | None = flag(None, "questions of each task, below 1 a share of them; all", above=0)
    include_path: tuple[str, ...] = flag((), "folders with tasks of your own as YAML files", metavar="FOLDER")
    lm_eval_cache: str | None = flag(None, "where data sets are kept; HF_HOME", metavar="FOLDER")

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit > 1 and self.limit % 1:
            raise UserError(
                f"--limit {self.limit:g}: give a whole number of questions, or below 1 a share of them"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names in --lm-eval, one by one: the harness' own command has commas between them."""
        return tuple(name for word in self.lm_eval for name in word.split(",") if name)


DOMAINS, CLOZE, CHOICE, HARNESS = "--domains", "--cloze", "--multiple-choice", "--lm-eval"
WINDOWS = "the loss of windows"
"""What is computed where no flag asks for something else."""
OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("json_key", "domain_key", "max_documents"), (DOMAINS,)),
    **dict.fromkeys(("num_fewshot", "limit", "include_path", "lm_eval_cache"), (HARNESS,)),
    **dict.fromkeys(("splits", "data_path", "split"), (CLOZE, CHOICE, WINDOWS)),
    "seed": (CLOZE, CHOICE, HARNESS),
    "compare": (CLOZE, CHOICE, DOMAINS),
    "bos_token": (DOMAINS, CLOZE, CHOICE, HARNESS),
    "max_windows": (WINDOWS,),
}
"""What a flag is of; it does nothing without any of these."""


def without_effect(given: Collection[str], asked: Collection[str]) -> list[str]:
    """A line for every reason for which some of the given flags, by their fields' names, do nothing beside
    what is `asked`."""
    wanted, reasons = {*asked} or {WINDOWS}, dict[str, list[str]]()
    for name in [name for name in given if name in OF and not wanted & {*OF[name]}]:
        *others, last = OF[name]
        why = f"{', '.join(others)} and {last} are not" if others else f"{last} is not"
        reasons.setdefault(why, []).append(spelling(name))
    return [f"without effect, as {why} asked for: {', '.join(names)}" for why, names in reasons.items()]
