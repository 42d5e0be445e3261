"""A WordPiece vocabulary from text, by HF's trainer, the same every time.

Left to itself, the trainer numbers the letters inside words in the order of a hash table, which changes from
run to run, and pairs of letters that are equally frequent are merged in the order of these numbers. Here the
letters are numbered before it starts.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from megatron.base.errors import UserError
from megatron.data.bert_files import SPECIAL, bert_of_vocabulary

MOST_LETTERS = 1000
"""Of the alphabet, unless told otherwise; as BERT's usual trainer. Chinese has more."""
LEAST_FREQUENT = 2
INSIDE = "##"
SHOWN = 5


def train_wordpiece(
    texts: Sequence[str],
    vocab_size: int,
    cased: bool,
    special: Sequence[str] = (),
    most_letters: int = MOST_LETTERS,
) -> Any:
    """The library's tokenizer of BERT with at most `vocab_size` tokens. Ids: [PAD] [UNK] [CLS] [SEP] [MASK],
    more special tokens, letters, letters inside words, pieces from the most frequent on. Letters
    that are rarer than `most_letters` others are [UNK], with the words that have them, which a note tells.
    UserError where the letters alone are more."""
    names = list(dict.fromkeys([*SPECIAL, *special]))
    library = bert_of_vocabulary({name: number for number, name in enumerate(names)}, lower=not cased)
    letters = _alphabet(texts, library.normalizer, most_letters)
    inside = sorted(set(_learn(texts, library, 0, letters, [])) - set(letters))
    least = len(names) + len(letters) + len(inside)
    if least > vocab_size:
        raise UserError(
            f"--vocab-size {vocab_size}: the text has {len(letters)} letters and signs, {len(inside)} inside "
            f"words, and there are {len(names)} special tokens; give at least {least}"
        )
    learned = _learn(texts, library, vocab_size - len(names), letters, inside)
    order = dict.fromkeys([*names, *letters, *inside, *learned])
    return bert_of_vocabulary({token: number for number, token in enumerate(order)}, not cased, names)


def _alphabet(texts: Sequence[str], normalizer: Any, most: int) -> list[str]:
    """The most frequent characters but white space, sorted; equally frequent ones by their code points."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    letters = sorted((one for one in counts if not one.isspace()), key=lambda one: (-counts[one], one))
    if rare := letters[most:]:
        share = sum(counts[one] for one in rare) / sum(counts[one] for one in letters)
        print(
            f"note: {len(rare):,} of {len(letters):,} letters and signs ({share:.2%} of the text), such as "
            f"{' '.join(rare[:SHOWN])}, are [UNK] with the words that have them; raise --limit-alphabet "
            f"{most:,} to have more",
            file=sys.stderr,
        )
    return sorted(letters[:most])


def _learn(
    texts: Sequence[str], library: Any, vocab_size: int, letters: list[str], first: list[str]
) -> list[str]:
    """The tokens that the trainer makes, by their numbers; `first`: those that it begins with."""
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL[1]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = library.normalizer, library.pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=LEAST_FREQUENT,
        limit_alphabet=len(letters),
        initial_alphabet=letters,
        special_tokens=first,
        continuing_subword_prefix=INSIDE,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    return sorted(vocabulary, key=vocabulary.__getitem__)
