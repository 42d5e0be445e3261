"""Flags of what a GPT is asked beside the loss of windows."""

from dataclasses import dataclass

from megatron.config.arguments import flag

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
    seed: int = flag(1234, "of what is drawn")
    compare: str | None = flag(
        None,
        "another checkpoint, on the same items of --cloze, --multiple-choice and --domains",
        metavar="FOLDER",
    )


@dataclass(frozen=True, kw_only=True)
class HarnessOptions:
    lm_eval: tuple[str, ...] = flag(
        (), "tasks of EleutherAI's lm-evaluation-harness; paper: the 19 of the paper", metavar="TASK"
    )
    num_fewshot: int | None = flag(None, "examples before a question; what the task says", at_least=0)
    limit: float | None = flag(None, "questions of each task, below 1 a share of them; all", above=0)
    include_path: tuple[str, ...] = flag((), "folders with tasks of your own as YAML files", metavar="FOLDER")
    lm_eval_cache: str | None = flag(None, "where data sets are kept; HF_HOME", metavar="FOLDER")
