"""All tasks by name, as checkpoints state them."""

from megatron.tasks.bert import BERT_TASK
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (GPT_TASK, BERT_TASK)}
