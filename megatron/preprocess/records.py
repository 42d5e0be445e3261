"""What a line, a row or a file holds: a document, or a reason why it holds none."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from megatron.config.values import as_words

BOM = b"\xef\xbb\xbf"
"""What some editors write before UTF-8 text; it is not part of the text."""

UTF16 = "is UTF-16, not UTF-8; convert the file with iconv -f UTF-16 -t UTF-8"
OTHER = "; iconv -f ENCODING -t UTF-8 converts a file of another encoding"
PACKED = {b"\x1f\x8b": ".jsonl.gz", b"\x28\xb5\x2f\xfd": ".jsonl.zst", b"PAR1\x15": ".parquet"}
"""How files of other kinds begin, and the endings that they should have."""
UNREAD = {
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
}
"""How packed files begin that are not read, whatever they are called."""
EMPTY_BLOCK = bytes(8)
NULS = "holds NUL bytes, as a file that was not written to its end does; bring the file again"
NULL = ValueError("holds null, not an object with keys")
ONE_LINE = "jq -c . writes objects so, and jq -c '.[]' those of a list"
COMMAS = "sed 's/,[[:space:]]*$//' FILE takes the commas off"
CARRIAGE_RETURNS = "tr '\\r' '\\n' < FILE ends lines so where they end as on old Macs"
LONGEST_LINES = 1 << 20
"""Bytes of a text file that are looked at for lines of JSON."""
AS_LINES = (
    "holds JSON lines, not one text; give the file the ending .jsonl, or link it so; to keep it as one text, "
    "jq -Rs '{text: .}' FILE writes it as a line of JSON"
)


class BadRecord(NamedTuple):
    """A record that holds no document: its number in the piece, and why."""

    number: int
    reason: str


class Records(NamedTuple):
    """The documents of a piece: one list of texts for every key, all of one length; and what could not be
    read."""

    texts: list[list[str]]
    bad: list[BadRecord]


def read_lines(content: bytes, keys: Sequence[str]) -> Records:
    """The documents of whole JSON lines. Lines of white space alone are no records."""
    lines = content.split(b"\n")
    try:
        records = [orjson.loads(line) for line in lines if line and not line.isspace()]
        texts = [[record[key] for record in records] for key in keys]
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return sift([_json_line(line) for line in lines], keys)
    if all(set(map(type, column)) <= {str} for column in texts):
        return Records(texts, [])
    return sift([_json_line(line) for line in lines], keys)


def _json_line(line: bytes) -> Any:
    """What a line holds: a JSON value, None for white space, or a BadRecord's reason as a ValueError.

    Python's own reader has the last word: it takes NaN, as Megatron's tool does, and tells the column of a
    mistake."""
    if not line.strip():
        return None
    try:
        value = orjson.loads(line)
        return NULL if value is None else value
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return no_utf8(error, " of the line", OTHER)
    except RecursionError:
        return ValueError("its brackets are nested too deep to be read; every line must be one JSON object")
    except json.JSONDecodeError as error:
        if wrong := _of_kind(line) or _of_nuls(line):
            return ValueError(wrong)
        hint = _as_lines(line.strip(), error)
        return ValueError(f"column {error.colno}: {error.msg}; every line must be one JSON object{hint}")
    except ValueError as error:  # a number of more digits than Python reads
        return ValueError(f"{str(error).partition(';')[0]}; write such a number as a text")


def _as_lines(line: bytes, error: json.JSONDecodeError) -> str:
    """How a file becomes JSON lines, by a line that is none."""
    if error.msg == "Extra data":  # behind a whole value
        if b"\r" in line:
            return f"; {CARRIAGE_RETURNS}"
        rest = error.doc[error.pos :].strip()
        return f"; {COMMAS}" if rest == "," else f"; {ONE_LINE}" if rest.startswith("{") else ""
    return f"; {ONE_LINE}" if line.endswith((b"{", b"[", b":", b",")) else ""  # no line of JSON lines ends so


def read_text_file(path: str, keys: Sequence[str]) -> Any:
    """The document that a file is, or why it is none, such as JSON lines that have these keys."""
    content = Path(path).read_bytes().removeprefix(BOM)
    try:
        wrong = _of_kind(content) or _of_lines(content, keys) or _of_nuls(content)
        return ValueError(wrong) if wrong else {"text": content.decode("utf-8")}
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = error.start - content.rfind(b"\n", 0, error.start)
        return ValueError(f"line {line}, byte {byte} is no UTF-8 (0x{content[error.start]:02x}){OTHER}")


def no_utf8(error: UnicodeDecodeError, where: str = "", way_out: str = "") -> ValueError:
    """Which byte of a text is no UTF-8."""
    if wrong := _of_kind(error.object) or _of_nuls(error.object):
        return ValueError(wrong)
    byte = error.object[error.start]
    return ValueError(f"byte {error.start + 1}{where} is no UTF-8 (0x{byte:02x}){way_out}")


def _of_kind(content: bytes) -> str:
    """That a content is packed, or a table, whatever its file is called; "" where it is not."""
    for begin, ending in PACKED.items():
        if content.startswith(begin):
            return f"is of another kind by its first bytes; give the file the ending {ending}, or link it so"
    packed = next((kind for begin, kind in UNREAD.items() if content.startswith(begin)), "")
    return f"is packed, {packed} by its first bytes; unpack the file first" if packed else ""


def _of_lines(content: bytes, keys: Sequence[str]) -> str:
    """That a text file holds JSON lines, by its first few, as one alone may be an example in a text; "" where
    it does not."""
    lines = content[:LONGEST_LINES].split(b"\n")
    if cut := len(content) > LONGEST_LINES and len(lines) > 1:
        lines = lines[:-1]
    first = list(itertools.islice((line for line in lines if line.strip()), 3))
    several = len(first) > 1 or (cut and len(first) == 1)
    return AS_LINES if several and all(_has(line, keys) for line in first) else ""


def _has(line: bytes, keys: Sequence[str]) -> bool:
    """Whether a line is a JSON object with a text under each key."""
    try:
        record = orjson.loads(line) if line.lstrip().startswith(b"{") else None
    except orjson.JSONDecodeError:
        return False
    return isinstance(record, dict) and all(isinstance(record.get(key), str) for key in keys)


def _of_nuls(content: bytes) -> str:
    """What is wrong with a text that holds NULs in a row, as no text does, or begins as UTF-16
    does: with its mark, or with a NUL in every other byte. "" of other texts."""
    start = content[:100]
    if EMPTY_BLOCK in content or (start and not start.strip(b"\0")):
        return NULS
    marked = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    return UTF16 if marked or start.count(0) * 3 > max(len(start), 3) else ""


def sift(records: list[Any], keys: Sequence[str]) -> Records:
    """Part records into documents and bad records; None is neither."""
    texts: list[list[str]] = [[] for _ in keys]
    bad = []
    for number, record in enumerate(records):
        reason = _complaint(record, keys)
        if reason:
            bad.append(BadRecord(number, reason))
        elif record is not None:
            for column, key in zip(texts, keys):
                column.append(record[key])
    return Records(texts, bad)


def _complaint(record: Any, keys: Sequence[str]) -> str:
    """Why a record is no document; empty when it is one, or is None."""
    if record is None:
        return ""
    if isinstance(record, ValueError):
        return str(record)
    if not isinstance(record, dict):
        return f"holds {_kind(record)}, not an object with keys{_of_a_list(record)}"
    for key in keys:
        if key not in record:
            way = as_words(key, record.__contains__) or "choose with --json-keys"
            return f"has no key {key!r}; its keys are {', '.join(map(str, record)) or 'none'}; {way}"
        if not isinstance(record[key], str):
            return f"key {key!r} holds {_kind(record[key])}, not a text{_as_text(record[key])}"
        if not record[key].isascii() and _surrogate(record[key]):
            return f"key {key!r} holds half of a surrogate pair, which is no character"
    return ""


def _of_a_list(record: Any) -> str:
    """The way out of a file that is one list of objects, as other tools write it."""
    if not isinstance(record, list) or not any(isinstance(item, dict) for item in record):
        return ""
    return "; write each of its objects in a line of its own, as jq -c '.[]' does"


def _as_text(value: Any) -> str:
    """The way out of what is no text by itself, such as the turns of a dialogue, or ids."""
    if isinstance(value, list) and value and all(type(item) is int for item in value):
        return "; NullTokenizer reads ids as one text of numbers, parted by spaces"
    return "; write all of it as one text" if isinstance(value, dict | list) else ""


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        bytes: "bytes",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
