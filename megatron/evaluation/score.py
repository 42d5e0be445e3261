"""How likely a GPT finds continuations of contexts: in batches, which ranks share, with the numbers of one
rank.

Texts are encoded as EleutherAI's lm-evaluation-harness encodes them: context and continuation together, cut
where the context's own tokens end, white space at the end of the context moved to the continuation, and the
end-of-document token in the place of an empty context.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from megatron.base.errors import UserError
from megatron.base.terminal import print_line, progress
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation.estimates import require_numbers
from megatron.evaluation.generate import Documents, padded
from megatron.evaluation.restore import Restored, documents_as_trained
from megatron.model.gpt import GPT
from megatron.model.inputs import to_device
from megatron.parallel.mesh import Mesh, sum_over

MODEL = "the model"


class Scorer(NamedTuple):
    """A GPT that is asked about texts. `context`: how many tokens it sees at most; `mesh`: ranks that hold
    all of it, and share the work; `begin`: the token before every text, if any."""

    model: GPT
    tokenizer: Tokenizer
    context: int
    documents: Documents | None
    micro_batch_size: int
    mesh: Mesh
    begin: tuple[int, ...] = ()

    @property
    def start(self) -> list[int]:
        """What stands in the place of an empty context."""
        return [*self.begin] or [self.tokenizer.eod]


class Pair(NamedTuple):
    """Ids of a context, at least one, and of what continues it."""

    context: list[int]
    continuation: list[int]


class Score(NamedTuple):
    """The logarithm of a continuation's probability, and whether none of its tokens had a likelier one."""

    log_probability: float
    likeliest: bool


class Window(NamedTuple):
    """Neighbouring ids, of which the last `told` ones are told, each from those before it."""

    ids: list[int]
    told: int


def make_scorer(
    restored: Restored,
    tokenizer: Tokenizer | None,
    micro_batch_size: int,
    mesh: Mesh,
    asked: str,
    bos_token: str | None = None,
) -> Scorer:
    """Of a checkpoint; UserError where it is no GPT's, or nobody knows its tokenizer. `asked`: the flag for
    which it is needed; `bos_token`: the name of the token before every text."""
    if not isinstance(restored.model, GPT):
        raise UserError(
            f"{asked}: {restored.folder} is a model of the task {restored.task.name}, which continues no "
            "text; name a GPT's"
        )
    if tokenizer is None:
        raise UserError(
            f"{asked}: needs the tokenizer, and none is kept with {restored.folder}; give --tokenizer-type "
            "and its files"
        )
    context, documents = restored.config.data.seq_length, documents_as_trained(restored)
    begin = begin_of(restored, tokenizer, bos_token)
    return Scorer(restored.model, tokenizer, context, documents, micro_batch_size, mesh, begin)


def begin_of(restored: Restored, tokenizer: Tokenizer, bos_token: str | None) -> tuple[int, ...]:
    """The token that stands before every text: none but where --bos-token names one. A note where the
    tokenizer's files would put one there and the weights are another program's, who have seen it so."""
    if bos_token is not None:
        if bos_token not in tokenizer.vocabulary:
            raise UserError(
                f"--bos-token {bos_token}: the tokenizer of {restored.folder} has no such token; leave it out"
            )
        return (tokenizer.vocabulary[bos_token],)
    first = next(iter(tokenizer.around), tokenizer.end.name)
    if first != tokenizer.end.name and restored.manifest.is_converted:
        print(
            f"note: the tokenizer puts {first} before every text, and the converted weights of "
            f"{restored.folder} may need it: --bos-token '{first}' does so here",
            file=sys.stderr,
        )
    return ()


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The ids of every text, with nothing around them."""
    if not texts:
        return []
    ids, lengths = tokenizer.encode_batch(list(texts))
    ends = np.cumsum(lengths)
    return [ids[end - length : end].tolist() for end, length in zip(ends.tolist(), lengths.tolist())]


def encode_pairs(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, str]], begin: tuple[int, ...] = ()
) -> list[Pair]:
    """Contexts, each behind what is to `begin` it, and their continuations."""
    moved = [(context.rstrip(), context, continuation) for context, continuation in texts]
    contexts = encode(tokenizer, [left for left, _, _ in moved])
    wholes = encode(tokenizer, [context + continuation for _, context, continuation in moved])
    return [_pair([*begin], tokenizer.eod, *both) for both in zip(contexts, wholes)]


def _pair(begin: list[int], eod: int, context: list[int], whole: list[int]) -> Pair:
    if context:
        return Pair([*begin, *context], whole[len(context) :])
    start = begin or [eod]
    if whole[:1] == start:  # which then is the context itself
        return Pair(whole[:1], whole[1:])
    return Pair(start, whole)


def length_of(pair: Pair) -> int:
    """Tokens of both."""
    return len(pair.context) + len(pair.continuation)


def tell_cut(scorer: Scorer, lengths: Iterable[int], most: int, way: str, model: str = MODEL) -> None:
    """A note where texts are longer than the `most` tokens of them that can be seen by a `model`, once on all
    ranks."""
    every = list(lengths)
    if (cut := sum(length > most for length in every)) and scorer.mesh.first:
        print_line(
            f"note: {cut:,} of {len(every):,} texts are longer than {model}'s {scorer.context} tokens "
            f"allow ({max(every):,} at most), and are cut from the left: what stands first, such as "
            f"examples, is not seen; {way}"
        )


def windows(pair: Pair, context: int) -> list[Window]:
    """What a model of a context of so many tokens sees to tell a continuation, each token once and the first
    ones first. What is too long is cut from the left; a continuation that does not fit is told in pieces, the
    last one with as much before it as fits."""
    whole, first = [*pair.context, *pair.continuation], len(pair.context)
    found = []
    while first < len(whole):
        end = min(first + context, len(whole))
        found.append(Window(whole[max(end - context - 1, 0) : end], end - first))
        first = end
    return found


def score(scorer: Scorer, pairs: Sequence[Pair], title: str = "") -> list[Score]:
    """Of every pair. The longest are computed first; which ones share a batch depends on all of them, and not
    on the number of ranks. UserError where the model gives no numbers."""
    parts = [
        (number, window) for number, pair in enumerate(pairs) for window in windows(pair, scorer.context)
    ]
    order = sorted(range(len(parts)), key=lambda place: (-len(parts[place][1].ids), place))
    found = np.zeros((len(parts), 2))

    def work(batch: list[int]) -> None:
        found[batch] = _of_windows(scorer, [parts[one][1] for one in batch])

    in_shares(scorer, order, work, title)
    found = sum_over(torch.from_numpy(found).to(scorer.mesh.device), scorer.mesh.world).cpu().numpy()
    totals = np.zeros((len(pairs), 2))
    require_numbers(found)
    np.add.at(totals, np.array([number for number, _ in parts], np.int64), found)
    return [Score(float(total), unlikely == 0) for total, unlikely in totals]


def in_shares(scorer: Scorer, order: list[int], work: Callable[[list[int]], Any], title: str) -> None:
    """Do the work of batches in this order, dealt to the ranks by turns."""
    size, world = scorer.micro_batch_size, scorer.mesh.world
    batches = [order[first : first + size] for first in range(0, len(order), size)]
    with progress(title, len(order), "texts", quiet=not scorer.mesh.first or not title) as advance:
        for batch in batches[world.rank :: world.size]:
            work(batch)
            advance(len(batch) * world.size)


def _of_windows(scorer: Scorer, parts: list[Window]) -> np.ndarray:
    """The sum of log-probabilities, and how many tokens were not the likeliest, [rows, 2]."""
    width = max(len(part.ids) for part in parts) - 1
    tokens = padded([part.ids[:-1] for part in parts], width)
    told = torch.tensor([part.told for part in parts])
    rows = torch.arange(len(parts)).repeat_interleave(told)
    places = torch.cat([torch.arange(len(part.ids) - 1 - part.told, len(part.ids) - 1) for part in parts])
    labels = torch.tensor([one for part in parts for one in part.ids[-part.told :]])
    where = scorer.documents(tokens) if scorer.documents else (None, None)
    inputs = to_device((tokens, rows, places, labels, *where), scorer.mesh.device)
    scores, likeliest = scorer.model.scores(*inputs)
    both = torch.stack([scores.double(), (~likeliest).double()], 1).cpu()
    return torch.zeros(len(parts), 2, dtype=torch.float64).index_add(0, rows, both).numpy()
