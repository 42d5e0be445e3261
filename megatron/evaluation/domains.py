"""Losses of whole documents, by domain: every token, from an end-of-document token on, as the rolling
log-likelihood of EleutherAI's harness."""

import itertools
from collections.abc import Iterable

import numpy as np

from megatron.base.errors import UserError
from megatron.evaluation.questions import Domain
from megatron.evaluation.score import Pair, Scorer, encode, score


def gather_domains(documents: Iterable[tuple[str, str]], most: int | None) -> dict[str, list[str]]:
    """Texts by domain, the first `most` of each; empty ones are left out. UserError where there are none."""
    found = dict[str, list[str]]()
    for domain, text in documents:
        texts = found.setdefault(domain, [])
        if text and (most is None or len(texts) < most):
            texts.append(text)
    found = {domain: texts for domain, texts in found.items() if texts}
    if not found:
        raise UserError("--domains: its files hold no text; give others")
    return found


def score_domains(scorer: Scorer, domains: dict[str, list[str]]) -> dict[str, Domain]:
    """Losses, tokens and bytes of every document. UserError for a domain of which the tokenizer makes no
    token."""
    texts = [text for one in domains.values() for text in one]
    ids = encode(scorer.tokenizer, texts)
    found = score(scorer, [Pair(scorer.start, one) for one in ids], "domains")
    columns = np.array(
        [
            (-one.log_probability, len(tokens), len(text.encode()))
            for one, tokens, text in zip(found, ids, texts)
        ]
    )
    ends = itertools.accumulate(len(one) for one in domains.values())
    parts = np.split(columns, list(ends)[:-1])
    found_by_name = {name: Domain(*part.T) for name, part in zip(domains, parts)}
    if empty := [name for name, one in found_by_name.items() if not one.tokens.any()]:
        raise UserError(
            f"--domains: the tokenizer makes no token of the texts of {', '.join(empty)}; leave that out"
        )
    return found_by_name
