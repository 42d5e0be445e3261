"""The files behind --input, in a fixed order: as given, sorted inside a folder or a glob."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from megatron.base.errors import UserError, collect_problems
from megatron.base.files import is_utf8, lfs_problem
from megatron.base.folders import list_folder, or_nearest, tell_left_out
from megatron.config.values import as_words
from megatron.preprocess.documents import FORMATS, known_ending

UNFINISHED = (".part", ".partial", ".incomplete", ".crdownload", ".download", ".aria2", ".tmp")
"""Endings that downloads add to a name until they are finished."""
LIES_BESIDE = (".part", ".aria2")
"""Those that lie beside the file that is not finished yet."""
RENAME = "give files of other names the ending of what they hold, such as .jsonl, or link them so"
TABLES = (
    "write its rows as Parquet first, in Python: import pyarrow, pyarrow.{}, pyarrow.parquet; "
    "pyarrow.parquet.write_table(pyarrow.{}, 'OUTPUT.parquet')"
)
CSV = "csv.read_csv('FILE', parse_options=pyarrow.csv.ParseOptions({}))"
ARROW_FILE = b"ARROW1"
"""How Arrow's files begin; its streams, which have the same ending, do not."""
UNPACK = "unpack it first; JSON lines alone are read as .gz and .zst"
TAKE_OUT = "take its text out first, into a .txt or .jsonl"
PACKED = "give JSON lines that are packed the ending .jsonl.gz or .jsonl.zst, or link them so; unpack others"
OTHER_KINDS = {
    (".csv",): TABLES.format("csv", CSV.format("newlines_in_values=True")),
    (".tsv",): TABLES.format("csv", CSV.format("newlines_in_values=True, delimiter='\\t'")),
    (".arrow",): TABLES.format("ipc", "ipc.open_stream('FILE').read_all()"),
    (".feather",): TABLES.format("feather", "feather.read_table('FILE')"),
    (".tar", ".tgz", ".tar.gz", ".tar.zst", ".txt.gz", ".txt.zst", ".zip", ".bz2", ".xz", ".7z"): UNPACK,
    (".lz4", ".br", ".snappy", ".rar"): UNPACK,
    (".warc", ".warc.gz", ".wet.gz", ".wat.gz", ".xml.gz", ".html.gz"): TAKE_OUT,
    (".pdf", ".docx", ".epub", ".xlsx", ".html", ".htm", ".xml", ".ipynb"): TAKE_OUT,
    (".gz", ".zst", ".gzip", ".zstd"): PACKED,
}
"""Endings of files that another ending would not make readable, with what would; the first that fits."""
JSON_FILES = ".json file (name those that hold JSON lines by path or glob)"


def find_files(inputs: Sequence[str], flag: str = "--input") -> list[str]:
    """The files behind paths, globs and folders, in a fixed order. UserError tells all that are missing, of
    no known kind, or not the whole file. `flag`: the one that names them."""
    files: list[str] = []
    problems: list[str] = []
    for given in inputs:
        with collect_problems(problems):
            files += _behind(given, flag)
    problems += filter(None, map(_not_the_file, files))
    if problems:
        raise UserError(*problems)
    for note in _notes(files):
        print(f"note: {note}", file=sys.stderr)
    return files


def _notes(files: Sequence[str]) -> Iterator[str]:
    """What may be meant otherwise: empty files, files that are named twice, and a file beside its packed
    form."""
    if empty := [path for path in files if not os.path.getsize(path)]:
        yield f"{len(empty):,} of {len(files):,} files are empty, the first: {empty[0]}"
    if again := [path for path, times in Counter(map(os.path.realpath, files)).items() if times > 1]:
        yield f"{len(again):,} files are named more than once, and read as often: {again[0]}"
    forms = Counter(path.removesuffix(".gz").removesuffix(".zst") for path in dict.fromkeys(files))
    if twice := [path for path, count in forms.items() if count > 1]:
        yield (
            f"{len(twice):,} files are there in several forms, plain and packed, and all are read: "
            f"{twice[0]}; where they hold the same, leave one out"
        )


def _behind(given: str, flag: str) -> list[str]:
    """The files behind one path, glob or folder."""
    if os.path.isdir(given):
        others: list[str] = []
        return _some(list_folder(given, lambda path: _left_out(path, others)), given, others, flag)
    found = [given] if os.path.isfile(given) else _of_glob(given, flag)
    if not found and (given == "-" or os.path.exists(given)):
        raise UserError(
            f"{flag} {given}: is a pipe or a device, and pieces are read from any place of a file; write "
            "what comes out of it to a file first (.jsonl.gz and .jsonl.zst are read as they are)"
        )
    if not found:
        several = as_words(given, os.path.exists)
        raise UserError(f"{flag} {given}: no such file{f'; {several}' if several else or_nearest(given)}")
    if unknown := [path for path in found if not known_ending(path)]:
        rest = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise UserError(
            f"{flag} {unknown[0]}{rest}: unknown kind of file; known endings are {', '.join(FORMATS)}; "
            f"{_way_out(unknown)}"
        )
    return found


def _some(found: list[str], folder: str, others: list[str], flag: str) -> list[str]:
    """The files of a folder. UserError where there are none."""
    if not found:
        known = ", ".join(ending for ending in FORMATS if ending != ".json")
        raise UserError(
            f"{flag} {folder}: the folder holds no file that ends in {known}; {_way_out(others, folder)}"
        )
    return found


def _of_glob(given: str, flag: str) -> list[str]:
    """The files that a glob matches. Those below folders, too, where it matches nothing else, or where
    a folder's name ends as a file's, as Spark writes `a.parquet/`. `**` itself matches what is below."""
    matches = sorted(_matches(given))
    folders = [] if "**" in given else [path for path in matches if os.path.isdir(path)]
    alone = len(folders) == len(matches)
    if left := [path for path in folders if not alone and not known_ending(path)]:
        more = f" and {len(left) - 3:,} more" if len(left) > 3 else ""
        print(
            f"note: {flag} {given}: matches files and folders, so {', '.join(left[:3])}{more} are left out; "
            "name folders by themselves to read what is in them",
            file=sys.stderr,
        )
    taken, counts, others, files = {*folders} - {*left}, Counter[str](), list[str](), list[str]()
    for path in matches:
        if path in taken:
            files += list_folder(path, lambda path: _left_out(path, others), counts)
        elif os.path.isfile(path):
            files.append(path)
    tell_left_out(given, counts)
    return _some(files, folders[0], others, flag) if folders and alone else files


def _matches(given: str) -> list[str]:
    """What a glob matches. A folder of that very name is meant as it is, whatever its name holds."""
    folder = os.path.dirname(given)
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return glob.glob(glob.escape(folder) + given[len(folder) :], recursive=True)


def _way_out(paths: Sequence[str], folder: str = "") -> str:
    """What to do with files that are not taken: the first of them that is known to be of another kind says
    it for all. `folder`: which holds them, if one does."""
    known = (
        way.replace("open_stream", "open_file") if _is_arrow_file(path) else way
        for path in paths
        for endings, way in OTHER_KINDS.items()
        if path.lower().endswith(endings)
    )
    rest = RENAME
    if folder and any(map(known_ending, paths)):
        pattern = os.path.join(glob.escape(folder), "**", "*.json")
        rest = f"if its .json files hold JSON lines, name them by a glob in quotes: '{pattern}'"
    return next(known, rest)


def _is_arrow_file(path: str) -> bool:
    if not path.lower().endswith(".arrow"):
        return False
    with open(path, "rb") as file:
        return file.read(len(ARROW_FILE)) == ARROW_FILE


def _left_out(path: str, others: list[str]) -> str:
    """Why a file of a folder is not taken; "" where it is. Those of no known ending join the `others`."""
    if path.lower().endswith(UNFINISHED):
        return "file of an unfinished download"
    if known_ending(path) not in ("", ".json"):
        return ""
    others.append(path)
    # Most .json files hold settings, not documents.
    return JSON_FILES if known_ending(path) else "file of another kind"


def _not_the_file(path: str) -> str:
    """Why a file is not what its name says; "" where nothing speaks against it."""
    if not is_utf8(path):
        return f"{path!r}: the name is no UTF-8, which not every library can open; rename it"
    for rest in (path + ending for ending in LIES_BESIDE if os.path.exists(path + ending)):
        return f"{path}: is an unfinished download, {rest} lies beside it; finish it, or remove that file"
    return lfs_problem(path)
