"""All that flags ask a GPT beside the loss of windows and the harness' tasks, and of two of them how they
differ."""

import sys
from collections.abc import Sequence
from typing import Any

from megatron.base.errors import UserError
from megatron.config.data import DataConfig
from megatron.config.evaluation import DomainOptions, QuestionOptions
from megatron.data.corpora import Corpus
from megatron.evaluation.domains import gather_domains, score_domains
from megatron.evaluation.held_out import Texts, texts_in_files, texts_of
from megatron.evaluation.items import choice_items, cloze_items
from megatron.evaluation.questions import (
    Answers,
    answer_choices,
    answer_cloze,
    difference,
    domain_difference,
    summarize,
    summarize_domain,
)
from megatron.evaluation.score import Scorer

OTHER = "the model of --compare"


def ask(
    scorer: Scorer,
    other: Scorer | None,
    corpora: Sequence[Corpus],
    data: DataConfig,
    domain: DomainOptions,
    question: QuestionOptions,
) -> dict[str, Any]:
    """Numbers of domains and of questions, as far as they are asked for. `other`: another checkpoint, whose
    numbers are compared on the same texts; `corpora`: the splits that questions are made of."""
    found, compared = dict[str, Any](), dict[str, Any]()
    if domain.domains:
        documents = texts_in_files(domain.domains, domain.json_key, domain.domain_key)
        domains = gather_domains(documents, domain.max_documents)
        mine = score_domains(scorer, domains)
        found["domains"] = [summarize_domain(name, one) for name, one in mine.items()]
        if other:
            theirs = score_domains(other, domains)
            compared |= {name: domain_difference(one, theirs[name]) for name, one in mine.items()}
    answers = (
        _answers(scorer, corpora, data, question, other) if question.cloze or question.multiple_choice else []
    )
    if answers:
        found["questions"] = {one.kind: summarize(one, question.seed) for one, _ in answers}
        compared |= {one.kind: difference(one, theirs) for one, theirs in answers if theirs}
    return found | ({"compared": compared} if other else {})


def _answers(
    scorer: Scorer,
    corpora: Sequence[Corpus],
    data: DataConfig,
    question: QuestionOptions,
    other: Scorer | None,
) -> list[tuple[Answers, Answers | None]]:
    """Of every kind of questions that is asked for, and of another checkpoint."""
    texts, answers = _held_out(scorer, corpora, data), list[tuple[Answers, Answers | None]]()
    if question.cloze:
        items = cloze_items(texts, question.cloze, question.seed)
        _tell_fewer("--cloze", question.cloze, len(items))
        answers.append((answer_cloze(scorer, items), answer_cloze(other, items, OTHER) if other else None))
    if question.multiple_choice:
        choices = choice_items(texts, question.multiple_choice, question.seed)
        _tell_fewer("--multiple-choice", question.multiple_choice, len(choices))
        mine = answer_choices(scorer, choices)
        answers.append((mine, answer_choices(other, choices, OTHER) if other else None))
    return answers


def _held_out(scorer: Scorer, corpora: Sequence[Corpus], data: DataConfig) -> Texts:
    if data.mock_data or not corpora:
        what = "made-up data has no text" if data.mock_data else "--splits hold no document"
        raise UserError(
            f"--cloze, --multiple-choice: {what}; give --data-path, and --split 0,0,1 for all of it"
        )
    return texts_of(corpora, scorer.tokenizer, data.allow_trailing_bytes)


def _tell_fewer(flag: str, asked: int, found: int) -> None:
    if found < asked:
        print(f"note: {flag} {asked}: the held-out documents give {found:,}", file=sys.stderr)
