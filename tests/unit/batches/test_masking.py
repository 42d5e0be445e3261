"""Masks by their distribution."""

import numpy as np
import pytest

from megatron.batches.masking import NOT_TOLD, Masking, mask_rows
from megatron.config.bert import BertConfig
from megatron.data.wordpiece import BertTokens

CLS, SEP, MASK, PAD, VOCAB = 1, 2, 3, 0, 1000
ROWS, LENGTH = 4000, 100


def words_of_three() -> BertTokens:
    """Ids that leave 1 or 2 when divided by 3 continue a word."""
    ids = np.arange(VOCAB)
    return BertTokens(CLS, SEP, MASK, PAD, (ids % 3 > 0) & (ids > 5))


def masked(
    length: int = LENGTH, rows: int = ROWS, **flags: object
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of [CLS] words [SEP] words [SEP] and padding; what became of them, and what is to be told."""
    generator = np.random.default_rng(1)
    starts = 6 + 3 * generator.integers(0, (VOCAB - 9) // 3, (rows, LENGTH))
    ids = starts + np.arange(LENGTH) % 3
    ids[:, 0] = CLS
    ids[:, 51] = ids[:, length - 1] = SEP
    ids[:, length:] = PAD
    changed = ids.copy()
    masking = Masking.of(BertConfig(**flags), words_of_three())  # type: ignore[arg-type]
    keys = generator.integers(0, 1 << 63, rows).astype(np.uint64)
    told = mask_rows(changed, np.full(rows, length), keys, masking)
    return ids, changed, told


def test_what_stands_in_the_place_of_masked_tokens() -> None:
    """8 in 10 are the mask, 1 in 10 is any token but the marks, 1 in 10 is as it was."""
    ids, changed, told = masked()
    is_told = told != NOT_TOLD
    assert (told[is_told] == ids[is_told]).all() and (changed[~is_told] == ids[~is_told]).all()
    assert not is_told[np.isin(ids, (CLS, SEP, PAD))].any()
    count = is_told.sum()
    spread = 4 * (0.16 / count) ** 0.5
    assert abs((changed[is_told] == MASK).mean() - 0.8) < spread
    assert abs((changed[is_told] == ids[is_told]).mean() - 0.1 * (1 + 1 / (VOCAB - 4))) < spread
    others = changed[is_told & (changed != MASK) & (changed != ids)]
    assert others.min() >= 4 and len(np.unique(others)) > VOCAB - 20


@pytest.mark.parametrize(("share", "length"), [(0.15, 100), (0.3, 100), (0.15, 60), (0.15, 7)])
def test_the_share_of_masked_tokens(share: float, length: int) -> None:
    """Tokens up to the share, and one at least; words that do not fit any more are left."""
    budget = max(1, round(share * length))
    for unit in ("token", "word"):
        _, _, told = masked(length, 500, mask_prob=share, mask_unit=unit)
        counts = (told != NOT_TOLD).sum(1)
        assert counts.max() <= budget
        assert (counts == budget).all() if unit == "token" else (counts > budget - 3).all() or budget < 3


def test_words_are_masked_whole() -> None:
    ids, _, told = masked()
    is_told = told != NOT_TOLD
    inside = (ids[:, 1:] % 3 > 0) & (ids[:, 1:] > 5) & (ids[:, :-1] > 5)
    assert (is_told[:, 1:] == is_told[:, :-1])[inside].all()


def test_runs_of_words_are_harmonic_or_geometric() -> None:
    """Rows of 3 masked tokens: the first run drawn is of 1, 2 or 3 words as 1/n says, or by the geometric
    distribution; then what is left is filled up, so rows of one run of 3 tell the chance of that."""
    for flags, chance in (
        ({"mask_ngrams": 3}, (1 / 3) / (1 + 1 / 2 + 1 / 3)),
        ({"mask_ngrams": 3, "mask_ngram_lengths": "geometric"}, 0.64),
        ({"mask_ngrams": 1}, 0.0),
    ):
        _, _, told = masked(mask_unit="token", mask_prob=0.03, rows=20_000, **flags)
        places = np.argsort(told == NOT_TOLD, axis=1, kind="stable")[:, :3]
        together = (np.ptp(places, axis=1) == 2).mean()
        meeting = 0.05  # runs of 1 and 2 beside each other, by chance
        assert chance - 0.02 < together < chance + meeting


def test_masks_follow_the_key_alone() -> None:
    first, second = masked(), masked()
    assert (first[1] == second[1]).all()
    assert len({row.tobytes() for row in (first[2] != NOT_TOLD)[:50]}) == 50
