"""All tasks by name, as checkpoints state them."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from megatron.base.errors import UserError
from megatron.config.bert import BertConfig, SentencesConfig
from megatron.config.flags import spelling
from megatron.config.launch import task_named
from megatron.config.vision import VisionConfig
from megatron.tasks.bert import BERT_TASK
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Task
from megatron.tasks.vit import VIT_TASK

TASKS: dict[str, Task] = {task.name: task for task in (GPT_TASK, BERT_TASK, VIT_TASK)}
ABOUT = "what is trained; that of the launch command, else gpt"
"""What --task says."""
OWN = {"bert": (SentencesConfig, BertConfig), "vit": (VisionConfig,)}
"""Flags that do something in the runs of one task alone."""


def task_of(words: list[str], asked: str | None, given: Mapping[str, Any]) -> Task:
    """The task of a launch command, or the one `asked` for. UserError where these are two, or where there is
    none and flags of one that must be named are `given`."""
    started = task_named(words)
    if started in TASKS and asked not in (None, started):
        raise UserError(f"--task {asked}: the command starts pretrain_{started}.py; leave one of the two out")
    if not asked and started not in TASKS and (problems := _unnamed(given)):
        raise UserError(*problems)
    return TASKS[asked or (started if started in TASKS else "gpt")]


def _unnamed(given: Mapping[str, Any]) -> list[str]:
    """Flags of a task that is not named. (Other Megatrons' GPTs have --pretrained-checkpoint, too.)"""
    words = {
        task: [
            spelling(field.name)
            for field in itertools.chain.from_iterable(map(dataclasses.fields, groups))
            if field.name in given and field.name != "pretrained_checkpoint"
        ]
        for task, groups in OWN.items()
    }
    return [
        f"{', '.join(found)}: belongs to pretrain_{task}.py; give --task {task}, or leave it out"
        for task, found in words.items()
        if found
    ]
