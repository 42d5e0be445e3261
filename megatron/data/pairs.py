"""Rows of an encoder: [CLS] A [SEP] B [SEP] from a sample's sentences, or [CLS] A [SEP] where nothing is told
of pairs. Everything is keyed by (seed, sample), so that a sample is the same wherever and whenever it is
made."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from megatron.base.compiled import compiled
from megatron.base.cores import usable_cores
from megatron.base.errors import UserError
from megatron.base.keys import key
from megatron.base.random import draw
from megatron.config.bert import SentencesConfig
from megatron.config.config import Config
from megatron.data.corpora import SPLITS, Corpus, Source, Splits, made_up, mock_corpus
from megatron.data.sentences import Joining, Runs, find_runs, locate
from megatron.data.wordpiece import BertTokens

PAIRS = ("", "sop", "nsp")
TRIES = 8
WORKERS = min(usable_cores(), 16)


@dataclass(frozen=True, kw_only=True)
class SentenceCorpus(Corpus):
    """A split of one dataset of sentences, read in rows of up to `seq_length` tokens. `runs`: its samples;
    `first_bytes`: where every sentence begins in the .bin file; `marks`: the tokens that rows have beside
    their text, which follow from the tokenizer."""

    runs: Runs
    first_bytes: np.ndarray
    marks: BertTokens | None = None

    @property
    def pair(self) -> str:
        """What is told of pairs, "" for nothing."""
        return self.runs.joining.pair

    def describe(self) -> str:
        """Its samples in words."""
        runs, passes = self.runs, self.runs.joining.passes
        sentences, documents = self.sequences[1] - self.sequences[0], len(runs.documents) - 1
        short = f", {runs.skipped:,} of them too short" if runs.skipped else ""
        again = f" in {passes} passes" if passes > 1 else ""
        return (
            f"{self.windows:,} samples of up to {self.seq_length} tokens{again} from {sentences:,} sentences "
            f"of {documents:,} documents{short}"
        )

    def spans(self, samples: np.ndarray) -> np.ndarray:
        """Of every sample where its first text begins in `tokens` and how long it is, the same of the second
        one, and whether that does not follow: int64 [samples, 5]."""
        out = np.empty((len(samples), 5), np.int64)
        _spans(
            self.runs.lengths,
            self.runs.documents,
            self.first_bytes,
            self.tokens.itemsize,
            locate(self.runs, samples),
            samples.astype(np.int64),
            PAIRS.index(self.pair),
            np.uint64(key(self.runs.joining.seed, "pair")),
            out,
        )
        return out

    def lengths(self, spans: np.ndarray) -> np.ndarray:
        """Tokens of the rows of spans, without padding."""
        return spans[:, 1] + spans[:, 3] + (3 if self.pair else 2)

    def rows(self, spans: np.ndarray, length: int) -> np.ndarray:
        """The rows of spans, padded to `length` tokens, int64 [samples, length]."""
        assert self.marks is not None
        out = np.full((len(spans), length), self.marks.pad, np.int64)
        _fill(self.tokens, spans, self.marks.cls, self.marks.sep, bool(self.pair), out)
        return out

    def read(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        spans = self.spans(np.arange(first, last))
        rows = self.rows(spans, self.seq_length)
        return rows.reshape(-1), np.arange(last - first) * self.seq_length, self.lengths(spans)


def joining_of(flags: SentencesConfig, seq_length: int, seed: int) -> Joining:
    """How sentences become samples of at most `seq_length` tokens, as the flags say it."""
    room, minimum = (seq_length - 3, 2) if flags.pair else (seq_length - 2, 1)
    return Joining(room, flags.short_seq_prob, minimum, flags.bert_passes, seed, flags.pair)


def open_sentences(
    opened: Source, share: tuple[float, float], joining: Joining, split: str
) -> SentenceCorpus | None:
    """The samples of a share of a dataset's documents. Where it holds none: UserError for training, None for
    other splits; UserError where documents are known to be whole."""
    dataset, source, sidecar = opened
    if sidecar and not sidecar.get("sentences"):
        raise UserError(
            f"{dataset.prefix}: holds documents that are not split into sentences; preprocess the text with "
            "--split-sentences"
        )
    count = len(dataset.document_indices) - 1
    low, high = (round(bound * count) for bound in share)
    documents = dataset.document_indices[low : high + 1]
    if low < high and (runs := find_runs(dataset.sequence_lengths, documents, joining, WORKERS)).samples:
        if joining.pair == "nsp" and np.count_nonzero(np.diff(documents)) < 2:
            raise UserError(
                f"{dataset.prefix}: its {split} split has one document with text, and --bert-pair nsp takes "
                "second texts from others; use more data, another --split, or --bert-pair sop"
            )
        return _corpus(str(dataset.prefix), dataset.tokens, runs, dataset.sequence_pointers, source, sidecar)
    if split == "train" and share[0] < share[1]:
        split_first = "" if sidecar else "preprocess the text with --split-sentences, "
        if isinstance(made := (sidecar or {}).get("sentences"), dict) and "language" in made:
            split_first = f"preprocess the text with its own --lang if that is not {made['language']}, "
        single = ", or --bert-no-binary-head, for which one is enough" if joining.pair else ""
        raise UserError(
            f"{dataset.prefix}: none of the {high - low} of {count} documents in its {split} split has "
            f"{joining.minimum} sentence{'s'[: joining.minimum > 1]}; {split_first}use more data or another "
            f"--split{single}"
        )
    return None


def mock_sentences(config: Config, joining: Joining) -> Splits:
    """Made-up documents of made-up sentences, of two full samples and more."""
    each = max(3 * joining.seq_length // 16, 12)
    found: Splits = {split: [] for split in SPLITS}
    for split in made_up(config.data):
        corpus = mock_corpus(config, split)
        generator = np.random.Generator(np.random.Philox(key(config.training.seed, "mock sentences", split)))
        lengths = generator.integers(4, 20, size=len(corpus.tokens) // 20).astype(np.int32)
        runs = find_runs(lengths, np.arange(0, len(lengths) + 1, each), joining, WORKERS)
        first_bytes = (np.cumsum(lengths) - lengths) * corpus.tokens.itemsize
        found[split] = [(None, _corpus(corpus.name, corpus.tokens, runs, first_bytes, corpus.source, None))]
    return found


def _corpus(
    name: str,
    tokens: np.ndarray,
    runs: Runs,
    first_bytes: np.ndarray,
    source: str,
    sidecar: dict[str, Any] | None,
) -> SentenceCorpus:
    joining = runs.joining
    passes = f"{joining.passes} {'pass' if joining.passes == 1 else 'passes'}"
    return SentenceCorpus(
        name=name,
        tokens=tokens,
        windows=runs.samples,
        seq_length=joining.seq_length,
        sequences=(int(runs.documents[0]), int(runs.documents[-1])),
        source=source,
        sidecar=sidecar,
        joined=f"{joining.pair or 'single'} texts, seed {joining.seed}, {joining.short:g} short, {passes}",
        runs=runs,
        first_bytes=first_bytes,
    )


@compiled()
def _tokens_between(lengths, first_bytes, width, first, last):
    """Where sentences [first, last) begin, and how many tokens they have."""
    start = first_bytes[first] // width
    return start, first_bytes[last - 1] // width + lengths[last - 1] - start


@compiled()
def _other_text(lengths, documents, first_bytes, width, first, last, room, key):
    """Sentences of another document than that of [first, last), until there are `room` tokens."""
    begin, count = documents[0], documents[-1] - documents[0]
    sentence = np.int64(last if last < documents[-1] else begin)  # of the document behind, if none is drawn
    for number in range(TRIES):
        drawn = begin + np.int64(draw(key, np.uint64(number)) % np.uint64(count))
        if drawn < first or drawn >= last:
            sentence = drawn
            break
    end = documents[np.searchsorted(documents, sentence, side="right")]
    behind, total = sentence + 0, np.int64(0)
    while behind < end and total < room:
        total += lengths[behind]
        behind += 1
    return _tokens_between(lengths, first_bytes, width, sentence, behind)


@compiled()
def _shorten(spans, target, key):
    """Drop tokens of the longer text, of the second one where both are alike, until `target` are left; each
    from the front or the back, as likely."""
    dropped = np.zeros(2, np.int64)
    left = np.array([spans[1], spans[3]])
    while left[0] + left[1] > target:
        longer = 0 if left[0] > left[1] else 1
        left[longer] -= 1
        dropped[longer] += 1
    count = 0
    for text in range(2):
        from_front = np.int64(0)
        for _ in range(dropped[text]):
            from_front += np.int64(draw(key, np.uint64(count)) >> np.uint64(63))
            count += 1
        spans[2 * text] += from_front
        spans[2 * text + 1] = left[text]


@compiled()
def _spans(lengths, documents, first_bytes, width, located, samples, pair, key, out):
    for i in range(len(samples)):
        first, last, target = located[i, 0], located[i, 1], located[i, 2]
        mine = draw(key, np.uint64(samples[i]))
        out[i, 4] = 0
        if pair == 0:
            out[i, 0], out[i, 1] = _tokens_between(lengths, first_bytes, width, first, last)
            out[i, 2], out[i, 3] = out[i, 0], 0
        else:
            middle = first + 1
            if last - first > 2:
                middle += np.int64(draw(mine, np.uint64(0)) % np.uint64(last - first - 1))
            out[i, 0], out[i, 1] = _tokens_between(lengths, first_bytes, width, first, middle)
            out[i, 2], out[i, 3] = _tokens_between(lengths, first_bytes, width, middle, last)
            out[i, 4] = np.int64(draw(mine, np.uint64(1)) >> np.uint64(63))
        if out[i, 4] == 1 and pair == 1:
            out[i, 0], out[i, 2] = out[i, 2], out[i, 0]
            out[i, 1], out[i, 3] = out[i, 3], out[i, 1]
        if out[i, 4] == 1 and pair == 2:
            room = max(target - out[i, 1], 1)
            start, count = _other_text(
                lengths,
                documents,
                first_bytes,
                width,
                located[i, 3],
                located[i, 4],
                room,
                draw(mine, np.uint64(2)),
            )
            out[i, 2], out[i, 3] = start, count
        _shorten(out[i], target, draw(mine, np.uint64(3)))


@compiled()
def _fill(tokens, spans, cls, sep, paired, out):
    for i in range(len(spans)):
        row, place = out[i], 1
        row[0] = cls
        for text in range(2 if paired else 1):
            start, count = spans[i, 2 * text], spans[i, 2 * text + 1]
            for number in range(count):
                row[place + number] = tokens[start + number]
            row[place + count] = sep
            place += count + 1
