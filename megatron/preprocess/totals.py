"""What a run of preprocessing comes to: sums over its pieces, and what it prints of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from megatron.data.tokenizer_value import FAST
from megatron.preprocess.bad_lines import LeftOut, report
from megatron.preprocess.encoding import NEW_BYTES, Encoded
from megatron.preprocess.novelty import describe
from megatron.preprocess.round_trip import RoundTrip, describe_round_trip
from megatron.preprocess.sentences import LONG_SENTENCE


@dataclass
class Totals:
    """Sums over the pieces of a run; for every key `tokens`, `text_bytes`, and documents that are `empty` or
    `ended` in their text."""

    tokens: list[int]
    text_bytes: list[int]
    empty: list[int]
    ended: list[int]
    engine: str = ""
    documents: int = 0
    unknown: int = 0
    unsplit: int = 0
    verified_documents: int = 0
    verified_bytes: int = 0
    verified: set[int] = field(default_factory=set)
    unverified: set[int] = field(default_factory=set)
    round_trip: RoundTrip = field(default_factory=RoundTrip)
    left_out: LeftOut = field(default_factory=LeftOut)

    def add(self, encoded: Encoded) -> None:
        self.engine = encoded.engine
        self.documents += encoded.parts[0].documents
        for number, part in enumerate(encoded.parts):
            self.tokens[number] += len(part.tokens)
            self.text_bytes[number] += part.text_bytes
            self.empty[number] += part.empty
            self.ended[number] += part.ended
            self.unknown += part.unknown
            self.unsplit += part.unsplit
            self.verified_documents += part.check.documents
            self.verified_bytes += part.check.text_bytes
            self.verified.update(part.check.verified)
            self.unverified.update(part.check.left_out)
            self.round_trip += part.round_trip


def report_totals(totals: Totals, prefixes: Sequence[str], seconds: float, split: bool) -> None:
    """Say what a run has written to these prefixes, how it was encoded and verified, and what was lost.
    `split`: texts were sentences."""
    report(totals.left_out)
    for prefix, tokens, text_bytes, empty in zip(prefixes, totals.tokens, totals.text_bytes, totals.empty):
        more = f"; {empty:,} of {totals.documents:,} documents are empty" if empty else ""
        print(f"{prefix}: {tokens:,} tokens, {text_bytes / max(tokens, 1):.2f} bytes of text a token{more}")
    _report_encoding(totals, split)
    _report_losses(totals)
    for prefix, ended in zip(prefixes, totals.ended):
        if ended:
            print(
                f"note: {prefix}: {ended:,} of {totals.documents:,} documents have an end-of-document token "
                "at the end of their text, and a second one by --append-eod; take it off the texts, or leave "
                "--append-eod out where all have it"
            )
    speed = sum(totals.text_bytes) / 1e6 / seconds
    print(
        f"Processed {totals.documents:,} documents ({totals.documents / seconds:,.0f} docs/s, "
        f"{speed:,.1f} MB/s)."
    )


def _report_encoding(totals: Totals, split: bool) -> None:
    """By what texts were encoded, and how much of that was verified."""
    if totals.engine in FAST:
        what = "sentences" if split else "documents"
        verified = f"{totals.verified_documents:,} {what} ({totals.verified_bytes / 1e6:,.1f} MB)"
        new = f", with them {describe(totals.verified)} beyond ASCII" if totals.verified else ""
        print(f"encoded by {totals.engine}; {verified} were verified against the reference library{new}")
        if unverified := totals.unverified - totals.verified:
            print(
                f"not verified: {describe(unverified)}, because a process verifies {NEW_BYTES / 1e6:.0f} MB "
                "of new ones at most; --tokenizer-engine tokenizers encodes all by the reference library"
            )
    else:
        print("encoded by the reference library, so there was nothing to verify")


def _report_losses(totals: Totals) -> None:
    """What of the texts does not come back, or is cut."""
    if totals.round_trip.changed:
        print(describe_round_trip(totals.round_trip))
    if totals.unknown:
        share = totals.unknown / sum(totals.tokens)
        print(f"{totals.unknown:,} tokens ({share:.2%}) are [UNK], of what the vocabulary has no token for")
    if 2 * totals.unsplit > sum(totals.text_bytes):
        share = totals.unsplit / sum(totals.text_bytes)
        print(
            f"note: {share:.0%} of the text is in sentences whose end was not seen, longer than "
            f"{LONG_SENTENCE:,} bytes or with signs inside that end them elsewhere; give --lang its language"
        )
