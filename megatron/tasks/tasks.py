"""All tasks by name, as checkpoints state them."""

from megatron.base.errors import UserError
from megatron.config.launch import task_named
from megatron.tasks.bert import BERT_TASK
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Task
from megatron.tasks.vit import VIT_TASK

TASKS: dict[str, Task] = {task.name: task for task in (GPT_TASK, BERT_TASK, VIT_TASK)}
ABOUT = "what is trained; that of the launch command, else gpt"
"""What --task says."""


def task_of(words: list[str], asked: str | None) -> Task:
    """The task of a launch command, or the one `asked` for. UserError where these are two."""
    started = task_named(words)
    if started in TASKS and asked not in (None, started):
        raise UserError(f"--task {asked}: the command starts pretrain_{started}.py; leave one of the two out")
    return TASKS[asked or (started if started in TASKS else "gpt")]
