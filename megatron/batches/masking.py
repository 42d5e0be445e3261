"""Which tokens of a row are to be told, and what stands in their place (arXiv 1810.04805, section 3.1; runs
of words as in arXiv 1907.10529)."""

from typing import NamedTuple

import numpy as np

from megatron.base.compiled import compiled
from megatron.base.random import draw
from megatron.config.bert import BertConfig
from megatron.data.wordpiece import BertTokens

NOT_TOLD = -1
GEOMETRIC = 0.2


class Masking(NamedTuple):
    """`share` of a row's tokens are to be told, in runs of neighbouring words: n of them with the chance
    `runs`[n-1]. `continues` [vocabulary]: tokens that belong to the word of the token before; `special`:
    never masked, and none of them stands for another token."""

    share: float
    runs: np.ndarray
    continues: np.ndarray
    mask: int
    special: np.ndarray

    @staticmethod
    def of(flags: BertConfig, tokens: BertTokens) -> "Masking":
        """As the flags say it."""
        number, geometric = np.arange(1, flags.mask_ngrams + 1), flags.mask_ngram_lengths == "geometric"
        runs = GEOMETRIC * (1 - GEOMETRIC) ** (number - 1) if geometric else 1 / number
        if geometric:
            runs[-1] = (1 - GEOMETRIC) ** (flags.mask_ngrams - 1)  # longer runs are cut to the most
        special = np.zeros(len(tokens.continues), bool)
        special[[tokens.cls, tokens.sep, tokens.mask, tokens.pad]] = True
        continues = tokens.continues & (flags.mask_unit == "word")
        return Masking(flags.mask_prob, runs / runs.sum(), continues, tokens.mask, special)


def mask_rows(ids: np.ndarray, lengths: np.ndarray, keys: np.ndarray, masking: Masking) -> np.ndarray:
    """Mask rows of ids [rows, length] of these real lengths in place, each by its key (uint64). What they
    were where they are to be told, else NOT_TOLD: int64 [rows, length]."""
    told = np.full(ids.shape, NOT_TOLD, np.int64)
    cumulative = np.cumsum(masking.runs)
    _mask(
        ids, lengths, keys, told, masking.share, cumulative, masking.continues, masking.mask, masking.special
    )
    return told


@compiled(inline="always")
def _uniform(key, counter):
    return np.float64(draw(key, counter) >> np.uint64(11)) * 2.0**-53


@compiled()
def _words(row, length, continues, special, starts, ends):
    """Where words begin and end among the first `length` tokens of a row; how many there are."""
    count, joins = 0, False
    for place in range(length):
        token = row[place]
        if special[token]:
            joins = False
        elif joins and continues[token]:
            ends[count - 1] = place + 1
        else:
            starts[count], ends[count] = place, place + 1
            count, joins = count + 1, True
    return count


@compiled()
def _pick(chance, cumulative, most):
    """How many words, of at most so many."""
    most = min(most, len(cumulative))
    chance *= cumulative[most - 1]
    for number in range(most):
        if chance < cumulative[number]:
            return number + 1
    return most


@compiled()
def _change(row, told, place, key, mask, special):
    """Say what a token was, and put the mask in its place 8 times in 10, any token once."""
    told[place] = row[place]
    chance = _uniform(key, np.uint64(2 * place))
    if chance < 0.8:
        row[place] = mask
    elif chance < 0.9:
        bits = draw(key, np.uint64(2 * place + 1))
        while special[bits % np.uint64(len(special))]:
            bits = draw(bits, np.uint64(0))
        row[place] = bits % np.uint64(len(special))


@compiled()
def _mask(ids, lengths, keys, told, share, cumulative, continues, mask, special):
    width = ids.shape[1]
    starts, ends = np.empty(width, np.int64), np.empty(width, np.int64)
    order = np.empty(width, np.int64)
    for i in range(len(ids)):
        row, length, key = ids[i], lengths[i], keys[i]
        count = _words(row, length, continues, special, starts, ends)
        budget = max(np.int64(1), np.int64(np.rint(length * share)))
        for word in range(count):
            order[word] = word
        for word in range(count - 1, 0, -1):
            other = np.int64(draw(draw(key, np.uint64(0)), np.uint64(word)) % np.uint64(word + 1))
            order[word], order[other] = order[other], order[word]
        changes, done = draw(key, np.uint64(2)), 0
        for turn in range(count):
            if done >= budget:
                break
            first = order[turn]
            chance = _uniform(draw(key, np.uint64(1)), np.uint64(turn))
            words, most = np.int64(1), _pick(chance, cumulative, count - first)
            while words < most and starts[first + words] == ends[first + words - 1]:
                words += 1  # a run stays in its text
            while words and ends[first + words - 1] - starts[first] > budget - done:
                words -= 1
            behind = ends[first + words - 1] if words else starts[first]
            free = True
            for place in range(starts[first], behind):
                free = free and told[i, place] < 0
            if not free:
                continue
            for place in range(starts[first], behind):
                _change(row, told[i], place, changes, mask, special)
                done += 1
