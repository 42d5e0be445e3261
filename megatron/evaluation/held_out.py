"""Texts of held-out documents: of splits of datasets, decoded, and of files."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from megatron.base.errors import UserError
from megatron.data.corpora import Corpus
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation.text_bytes import documents_of, first_token, ids_of_text
from megatron.preprocess.documents import Piece, bad_record, cut_into_pieces
from megatron.preprocess.inputs import find_files
from megatron.preprocess.records import Records

DECODED_AT_ONCE = 4096


class Texts(NamedTuple):
    """So many texts, each read by its number."""

    size: int
    read: Callable[[int], str]


def texts_of(corpora: Sequence[Corpus], tokenizer: Tokenizer, allow_trailing_bytes: bool) -> Texts:
    """The documents that lie in these splits as a whole, without the token that ends them. The last ones read
    are kept."""
    opened = [IndexedDataset(corpus.name, allow_trailing_bytes=allow_trailing_bytes) for corpus in corpora]
    sources = [documents_of(dataset, corpus, tokenizer) for dataset, corpus in zip(opened, corpora)]
    places = [
        (number, int(begin), int(end))
        for number, (dataset, corpus) in enumerate(zip(opened, corpora))
        for begin, end in zip(dataset.document_indices[:-1], dataset.document_indices[1:])
        if corpus.sequences[0] <= begin < end <= corpus.sequences[1]
    ]

    @functools.lru_cache(DECODED_AT_ONCE)
    def read(place: int) -> str:
        number, begin, end = places[place]
        first, last = (first_token(opened[number], sequence) for sequence in (begin, end))
        return tokenizer.decode(ids_of_text(sources[number], first, last, last))

    return Texts(len(places), read)


def texts_in_files(paths: Sequence[str], json_key: str, domain_key: str | None) -> Iterator[tuple[str, str]]:
    """Domain and text of every document of files, as tools/preprocess_data.py reads them; the domain is the
    file's name, or what is under `domain_key`. UserError where a line holds no document."""
    for path in find_files(paths, "--domains"):
        for piece in cut_into_pieces([path]):
            records = _read(piece, [json_key, domain_key] if domain_key else [json_key])
            texts = records.texts[0]
            yield from zip(records.texts[1] if domain_key else [path] * len(texts), texts)


def _read(piece: Piece, keys: Sequence[str]) -> Records:
    """What a piece holds. UserError, with the flags that name keys here, where a record is no document."""
    try:
        records = piece.read(keys)
        if records.bad:
            raise UserError(f"{bad_record(piece, records.bad[0])}. Mend it, or name other files")
    except UserError as error:
        raise UserError(
            str(error).replace("--json-keys", "--json-key, or of domains with --domain-key")
        ) from None
    return records
