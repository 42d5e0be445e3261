"""How well a GPT tells last words and true continuations, with standard errors, and two of them compared on
the same items: then what they differ by is known better than either of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from megatron.evaluation.estimates import Estimate, exponential, mean, ratio
from megatron.evaluation.items import OTHERS, Choice, Cloze
from megatron.evaluation.score import MODEL, Scorer, encode_pairs, length_of, score, tell_cut

CLOZE, CHOICE = "cloze", "multiple choice"
LONGER = "models of a greater --seq-length see all of it"


class Answers(NamedTuple):
    """What is measured of every item: float64 [items] by the name of the measure."""

    kind: str
    measures: dict[str, np.ndarray]


def answer_cloze(scorer: Scorer, items: Sequence[Cloze], model: str = MODEL) -> Answers:
    """Whether greedy choices give the word, and its loss in nats. `model`: which one it is, in words."""
    pairs = encode_pairs(scorer.tokenizer, items, scorer.begin)
    tell_cut(scorer, map(length_of, pairs), scorer.context + 1, LONGER, model)
    found = score(scorer, pairs, CLOZE)
    right = np.array([one.likeliest for one in found], np.float64)
    return Answers(CLOZE, {"accuracy": right, "loss": -np.array([one.log_probability for one in found])})


def answer_choices(scorer: Scorer, items: Sequence[Choice], model: str = MODEL) -> Answers:
    """Whether the true continuation is the likeliest one, as a whole (acc) and for each of its bytes
    (acc_norm); a tie is no right answer."""
    pairs = [(item.passage, text) for item in items for text in item.continuations]
    asked = encode_pairs(scorer.tokenizer, pairs, scorer.begin)
    tell_cut(scorer, map(length_of, asked), scorer.context + 1, LONGER, model)
    found = score(scorer, asked, CHOICE)
    shape = (len(items), 1 + OTHERS)
    likely = np.array([one.log_probability for one in found]).reshape(shape)
    sizes = np.array([len(text.encode()) for _, text in pairs]).reshape(shape)
    return Answers(CHOICE, {"acc": _first_is_best(likely), "acc_norm": _first_is_best(likely / sizes)})


def _first_is_best(values: np.ndarray) -> np.ndarray:
    return (values[:, 0] > values[:, 1:].max(1)).astype(np.float64)


def summarize(answers: Answers, seed: int) -> dict[str, Any]:
    """Means and standard errors by the names of the measures; of a loss its perplexity, too."""
    estimates = {name: mean(values) for name, values in answers.measures.items()}
    if "loss" in estimates:
        estimates["perplexity"] = exponential(estimates["loss"])
    return {"items": len(next(iter(answers.measures.values()))), "seed": seed} | fields(estimates)


def difference(mine: Answers, other: Answers) -> dict[str, Any]:
    """What the measures of one model are above those of another one, item by item."""
    return fields({name: mean(values - other.measures[name]) for name, values in mine.measures.items()})


def fields(estimates: dict[str, Estimate]) -> dict[str, float | None]:
    """Values and standard errors as they are written."""
    return {
        field: value
        for name, one in estimates.items()
        for field, value in ((name, one.value), (f"{name}_error", one.error))
    }


class Domain(NamedTuple):
    """Of every document of a domain: its loss in nats, its tokens and the bytes of its text, [documents]."""

    losses: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray


def summarize_domain(name: str, domain: Domain) -> dict[str, Any]:
    """Loss a token, perplexity, and bits per byte, with standard errors over documents."""
    loss, bits = ratio(domain.losses, domain.tokens), ratio(domain.losses / np.log(2), domain.bytes)
    counts = {
        "documents": len(domain.losses),
        "tokens": int(domain.tokens.sum()),
        "bytes": int(domain.bytes.sum()),
    }
    numbers = {"loss": loss, "perplexity": exponential(loss), "bits_per_byte": bits}
    return {"domain": name} | counts | fields(numbers)


def domain_difference(mine: Domain, other: Domain) -> dict[str, Any]:
    """Bits per byte of the same documents, which need not have the same tokens."""
    return fields({"bits_per_byte": ratio((mine.losses - other.losses) / np.log(2), mine.bytes)})
