"""BERT's WordPiece at the speed of memory: every distinct word is encoded once by the reference library, and
looked up from then on.

BERT's tokenizers cut texts at white space, then at punctuation, and encode what lies between by itself, so
the ids of a text are those of its parts, one after another. Letters and digits of ASCII and each of its
punctuation marks are parts here. What stands between two spaces and holds anything else is one part, which
the library cuts and normalizes.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from megatron.base.compiled import compiled
from megatron.data.token_engines import Encode, Encoding, apart

SLOT_BITS = 20
MOST_WORDS = 1 << SLOT_BITS - 1
KEY_BYTES = 16 << 20
MOST_IDS = 4 << 20
"""What a table holds of words, of their bytes and of their ids; a full one is emptied."""
MISSING = -1
PARTING = ";"
SPACE, LETTER, MARK, OTHER = range(4)
KINDS = np.full(256, OTHER, np.uint8)
KINDS[0x21:0x7F] = MARK
KINDS[[byte for byte in range(128) if chr(byte).isalnum()]] = LETTER
KINDS[list(b" \t\n\r")] = SPACE
"""What every byte of UTF-8 is: a space, a letter or digit, a punctuation mark, or not of plain ASCII."""


class WordTable(NamedTuple):
    """Words and their ids. `slots`: numbers of words at the hash of their bytes; word n has the bytes
    [key_ends[n], key_ends[n+1]) of `keys`, and so its ids; `used`: one number, that of the words."""

    slots: np.ndarray
    key_ends: np.ndarray
    keys: np.ndarray
    id_ends: np.ndarray
    ids: np.ndarray
    used: np.ndarray


def word_table_engine(reference: Encode, added: Collection[str]) -> Encode:
    """Encode by a table of words; texts that hold an added token by the reference."""
    table, names = empty_table(), [name.encode() for name in added]

    def encode_plain(texts: list[str]) -> Encoding:
        return look_up([text.encode() for text in texts])

    def look_up(texts: list[bytes]) -> Encoding:
        ends, raw = np.cumsum([len(text) for text in texts], dtype=np.int64), b"".join(texts)
        buffer = np.frombuffer(raw, np.uint8)
        words, counts, starts, stops = find(buffer, ends, *table)
        if len(starts):
            new = list({raw[start:stop] for start, stop in zip(starts.tolist(), stops.tolist())})
            if not learn(table, new, reference):
                return reference([text.decode() for text in texts])
            find_again(buffer, starts, stops, words, *table)
        return spell(words, counts, table.id_ends, table.ids)

    in_parts = apart(re.compile("|".join(map(re.escape, added))), encode_plain, reference)

    def encode(texts: list[str]) -> Encoding:
        content = [text.encode() for text in texts]
        whole = b"\n".join(content)
        return in_parts(texts) if any(name in whole for name in names) else look_up(content)

    return encode


def empty_table() -> WordTable:
    return WordTable(
        np.full(1 << SLOT_BITS, MISSING, np.int32),
        np.zeros(MOST_WORDS + 1, np.int64),
        np.empty(KEY_BYTES, np.uint8),
        np.zeros(MOST_WORDS + 1, np.int64),
        np.empty(MOST_IDS, np.uint32),
        np.zeros(1, np.int64),
    )


def learn(table: WordTable, new: list[bytes], reference: Encode) -> bool:
    """Put words that are not there into a table, as the reference encodes them. A table without room for
    them is emptied first and then lacks others, too; False says that it was, or that they are too many."""
    plain, others = ([word for word in new if word.isalnum() == wanted] for wanted in (True, False))
    new = plain + others
    of_plain = encode_words([word.decode() for word in plain], reference)
    of_others = reference([word.decode() for word in others])
    ids, lengths = map(np.concatenate, zip(of_plain, of_others))
    keys, sizes = np.frombuffer(b"".join(new), np.uint8), np.array([len(word) for word in new], np.int64)
    count = int(table.used[0])
    full = (
        count + len(new) > MOST_WORDS
        or table.key_ends[count] + len(keys) > KEY_BYTES
        or table.id_ends[count] + len(ids) > MOST_IDS
    )
    if full:
        table.slots[:] = MISSING
        table.used[0] = 0
        return False
    put(keys, sizes, ids, lengths, *table)
    return True


def encode_words(words: list[str], reference: Encode) -> Encoding:
    """The ids of words of letters and digits of ASCII. As one text they cost the library a third. What parts
    them there is one token, which none of them has."""
    parting, _ = reference([PARTING])
    ids, _ = reference([PARTING.join(words)])
    places = np.flatnonzero(ids == parting[0])
    if len(parting) != 1 or len(places) != len(words) - 1:
        return reference(words)
    lengths = np.diff(places, prepend=-1, append=len(ids)) - 1
    return np.delete(ids, places), lengths


@compiled()
def find(text, ends, slots, key_ends, keys, id_ends, ids, used):
    """The parts of texts, back to back in `text` up to `ends`: the word of each (int32), how many each text
    has, and where the parts that are no known word start and stop (int64: a text may have over 2 GiB)."""
    words, counts = np.empty(len(text), np.int32), np.zeros(len(ends), np.int64)
    starts, stops = np.empty(len(text), np.int64), np.empty(len(text), np.int64)
    found = unknown = place = 0
    for number in range(len(ends)):
        end, before = ends[number], found
        first, found_first, unknown_first = place, found, unknown  # of what lies between two spaces
        while place < end:
            kind, start = KINDS[text[place]], place
            place += 1
            if kind == SPACE:
                first, found_first, unknown_first = place, found, unknown
                continue
            if kind == OTHER:
                start, found, unknown = first, found_first, unknown_first
                while place < end and KINDS[text[place]] != SPACE:
                    place += 1
            elif kind == LETTER:
                while place < end and KINDS[text[place]] == LETTER:
                    place += 1
            word = slots[slot_of(text, start, place, slots, key_ends, keys)]
            words[found] = word
            found += 1
            if word == MISSING:
                starts[unknown], stops[unknown] = start, place
                unknown += 1
        counts[number] = found - before
    return words[:found], counts, starts[:unknown], stops[:unknown]


@compiled()
def find_again(text, starts, stops, words, slots, key_ends, keys, id_ends, ids, used):
    """Put into `words` what is known now of the parts that were no known word."""
    unknown = 0
    for number in range(len(words)):
        if words[number] == MISSING:
            words[number] = slots[slot_of(text, starts[unknown], stops[unknown], slots, key_ends, keys)]
            unknown += 1


@compiled()
def put(text, sizes, new_ids, lengths, slots, key_ends, keys, id_ends, ids, used):
    """Add words, back to back in `text`, with their ids."""
    start = id_start = 0
    for number in range(len(sizes)):
        n, stop, id_stop = used[0], start + sizes[number], id_start + lengths[number]
        slots[slot_of(text, start, stop, slots, key_ends, keys)] = n
        key_ends[n + 1], id_ends[n + 1] = key_ends[n] + stop - start, id_ends[n] + id_stop - id_start
        keys[key_ends[n] : key_ends[n + 1]] = text[start:stop]
        ids[id_ends[n] : id_ends[n + 1]] = new_ids[id_start:id_stop]
        used[0], start, id_start = n + 1, stop, id_stop


@compiled()
def slot_of(text, start, stop, slots, key_ends, keys):
    """The slot of a word, or the free one where it belongs (FNV-1a, then the next one that fits)."""
    state = np.uint64(0xCBF29CE484222325)
    for place in range(start, stop):
        state = (state ^ np.uint64(text[place])) * np.uint64(0x100000001B3)
    slot = np.int64((state ^ (state >> np.uint64(32))) & np.uint64(len(slots) - 1))
    while slots[slot] != MISSING:
        first = key_ends[slots[slot]]
        if key_ends[slots[slot] + 1] - first == stop - start:
            same = 0
            while same < stop - start and keys[first + same] == text[start + same]:
                same += 1
            if same == stop - start:
                return slot
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@compiled()
def spell(words, counts, id_ends, ids):
    """The ids of words, and how many each text has, of as many words as `counts` says."""
    size = 0
    for word in words:
        size += id_ends[word + 1] - id_ends[word]
    out = np.empty(size, np.uint32)
    lengths = np.zeros(len(counts), np.int64)
    end = at = 0
    for number in range(len(counts)):
        before = end
        for _ in range(counts[number]):
            for place in range(id_ends[words[at]], id_ends[words[at] + 1]):
                out[end] = ids[place]
                end += 1
            at += 1
        lengths[number] = end - before
    return out, lengths
