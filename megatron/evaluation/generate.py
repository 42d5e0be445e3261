"""Sampling text from a GPT: rows of different lengths in a batch, keys and values kept from token to token.

A token is drawn by (seed, number of the text, place of the token), so that a text is the same in every batch.
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from megatron.base.errors import UserError
from megatron.base.keys import key
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation.estimates import NO_NUMBERS
from megatron.model.cache import Cache, Recall
from megatron.model.gpt import GPT
from megatron.model.inputs import to_device

Documents = Callable[[Tensor], tuple[Tensor | None, Tensor | None]]
"""From tokens [B, T] on a CPU to their positions and where their documents begin, [B, T], or None."""


class Choice(NamedTuple):
    """How a token is chosen: temperature 0 takes the likeliest one; `top_k` 0 and `top_p` 1 leave the
    distribution whole."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 1234


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    context: int,
    choice: Choice,
    stop: int | None = None,
    documents: Documents | None = None,
    *,
    numbers: Sequence[int] | None = None,
    cached: bool = True,
    ends: Callable[[int, list[int]], bool] = lambda row, ids: False,
) -> list[list[int]]:
    """The token ids that continue each prompt, at most `tokens`. `context`: how many tokens the model sees at
    most; where a text is longer, its last ones, computed anew for every token. `stop`: the token that ends a
    text and is not given out. `numbers`: of the texts, which key their draws; by default from 0 on. `ends`:
    whether a row's new ids end it. Without `cached` everything is computed again for every token."""
    texts, given = [list(prompt) for prompt in prompts], [len(prompt) for prompt in prompts]
    numbers = range(len(texts)) if numbers is None else numbers
    left, run = list(range(len(texts))), _Run(model, context, documents, max(given, default=0) + tokens)
    for _ in range(tokens):
        short = [row for row in left if len(texts[row]) <= context and cached]
        long = [row for row in left if row not in set(short)]
        logits = dict(zip(short, run.behind_cached(short, texts)))
        logits |= {row: run.anew(texts[row]) for row in long}
        going = []
        for row in left:
            chosen = _choose(logits[row].float(), choice, key(choice.seed, numbers[row], len(texts[row])))
            if chosen != stop:
                texts[row].append(chosen)
                if not ends(row, texts[row][given[row] :]):
                    going.append(row)
        left = going
        if not left:
            break
    return [text[count:] for text, count in zip(texts, given)]


class _Run:
    """A batch of texts while they grow. `rows`: the texts that the cache holds, `known`: how many tokens of
    each."""

    def __init__(self, model: GPT, context: int, documents: Documents | None, longest: int):
        self.model, self.context, self.documents = model, context, documents
        self.device = next(model.parameters()).device
        self.cache, self.rows = Cache(min(context, longest)), list[int]()
        self.known = dict[int, int]()

    def behind_cached(self, rows: list[int], texts: list[list[int]]) -> list[Tensor]:
        """Logits [vocabulary] behind the last token of each of these texts. All of them are in the cache
        after the first call, and a later call may have fewer."""
        if not rows:
            return []
        if self.rows and rows != self.rows:
            self.cache.keep([self.rows.index(row) for row in rows])
        self.rows = rows
        begins = [self.known.get(row, 0) for row in rows]
        sizes = [len(texts[row]) - begin for row, begin in zip(rows, begins)]
        self.known = {row: len(texts[row]) for row in rows}
        end, width = max(self.known.values()), max(sizes)
        places = torch.tensor(begins)[:, None] + torch.arange(width)
        recall = Recall(self.cache, places.to(self.device), end)
        last = torch.tensor(sizes, device=self.device) - 1
        seen = padded([texts[row][begin:] for row, begin in zip(rows, begins)], width).to(self.device)
        whole = padded([texts[row] for row in rows] if self.documents else [], end)
        where = self._where(whole, places)
        return list(self.model.next_logits(seen, last, recall, *where))

    def anew(self, text: list[int]) -> Tensor:
        """The same of one text, of whose last tokens nothing is known."""
        seen = torch.tensor([text[-self.context :]])
        last = torch.tensor([seen.shape[1] - 1], device=self.device)
        where = self._where(seen, torch.arange(seen.shape[1])[None])
        return self.model.next_logits(seen.to(self.device), last, None, *where)[0]

    def _where(self, whole: Tensor, places: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Positions, and where documents begin, of the tokens at these places of whole texts."""
        if self.documents is None:
            return None, None
        positions, starts = self.documents(whole)
        at = [None if part is None else part.gather(1, places) for part in (positions, starts)]
        found = to_device(tuple(at), self.device)
        return found[0], found[1]


def padded(texts: list[list[int]], width: int) -> Tensor:
    """Rows [B, width] of texts, padded behind their ends."""
    return torch.tensor([text + [0] * (width - len(text)) for text in texts])


def continuation(tokenizer: Tokenizer, prompt: list[int], ids: list[int]) -> str:
    """The text that ids add to a prompt. What a token stands for depends on those before it, so the whole is
    decoded, and cut behind what it shares with the prompt."""
    before, whole = decode_documents(tokenizer, prompt), decode_documents(tokenizer, [*prompt, *ids])
    shared = os.path.commonprefix([before, whole])  # noqa: RUF071, of any strings
    return whole[len(shared) :]


def decode_documents(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of ids, document by document; the token that ends one is shown by its name."""
    documents: list[list[int]] = [[]]
    for one in ids:
        if one == tokenizer.eod:
            documents.append([])
        else:
            documents[-1].append(one)
    return tokenizer.end.name.join(tokenizer.decode(document) if document else "" for document in documents)


def _choose(logits_V: Tensor, choice: Choice, draw: int) -> int:
    """A token by a key of 64 bits: where it falls among the probabilities, the likeliest first. UserError
    where the model gives no numbers."""
    if bool(logits_V.isnan().any()):
        raise UserError(NO_NUMBERS)
    if choice.temperature == 0:
        return int(logits_V.argmax())
    below_V = (logits_V - logits_V.max()).double()  # so no temperature, however small, makes infinity of it
    values, order = (below_V / choice.temperature).softmax(-1).sort(descending=True, stable=True)
    if choice.top_k:
        values[choice.top_k :] = 0
    values[values.cumsum(-1) - values >= choice.top_p] = 0
    until = values.cumsum(-1)
    place = torch.searchsorted(until, until[-1] * (draw >> 11) * 2.0**-53, right=True)
    return int(order[place.clamp(max=int((values > 0).sum()) - 1)])
