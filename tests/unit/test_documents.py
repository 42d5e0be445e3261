"""The documents name only what is there, the README's tree has every file, and prose is narrow and plain."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_imports import NVIDIA, ORDER

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
    *sorted((ROOT / "recipes").rglob("*.md")),
]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
README = DOCUMENTS[0].read_text(encoding="utf-8")
COLUMNS = 110
ENTRIES = ("pretrain_gpt.py", "pretrain_bert.py", "pretrain_vit.py", "finetune.py")
ROOMS = ("megatron", "tools", "scripts", "docs", "tests", "benchmarks", "recipes")
FILE = re.compile(r"(?<![\w/.<>*-])[\w/.<>*-]+\.(?:py|sh|md)\b(?!-)")
PATH = re.compile(rf"(?<![\w/.<>*-])(?:{'|'.join(ROOMS)})/[\w/.<>*-]*")
MODULE = re.compile(r"(?<![\w/.])megatron(?:\.\w+)+")
LINK = re.compile(r"\]\(([^)\s]+)\)")
ABSENT = {"my_metrics.py", "__init__.py"}  # what the reader writes, and what megatron/ has not
NOT_PROSE = re.compile(r"\||[-*] \S+$|\[[^\]]*\]\([^)]*\)$|https?://\S+$")  # a table, a bare link or path
RETIRED = re.compile(r"\b(turns?|speaks?|lifted|published|(?:tak(?:es?|en|ing)|took) up)\b", re.IGNORECASE)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def tree_block() -> str:
    found = re.search(r"## The tree\n.*?```\n(.*?)```", README, re.DOTALL)
    assert found
    return found.group(1)


def tree() -> Iterator[tuple[str, str]]:
    """Path and words of every line of the README's tree; a folder ends in a slash."""
    folders: list[str] = []
    for line in tree_block().splitlines():
        indent, name, words = re.fullmatch(r"( *)(\S+)(?: +(\S.*))?", line).groups()
        assert len(indent) % 2 == 0 and len(indent) // 2 <= len(folders), line
        del folders[len(indent) // 2 :]
        yield "".join(folders) + name, words or ""
        if name.endswith("/"):
            folders.append(name)


def paths_in(text: str) -> set[str]:
    """What a document names as a file or folder of the repository. A name with `<` is a placeholder."""
    text = re.sub(r"https?://\S+", "", LINK.sub("]", text.replace(tree_block(), "")))
    found = {word.rstrip(".-") for pattern in (FILE, PATH) for word in pattern.findall(text)}
    return {word for word in found if "<" not in word} - ABSENT


def is_there(path: str, folder: Path) -> bool:
    """Whether a path, or something that a glob fits, is in the repository or beside the document."""
    return any(list(base.glob(path)) if "*" in path else (base / path).exists() for base in (ROOT, folder))


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines outside code blocks and tables that are more than a bare link."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside and not NOT_PROSE.match(line):
            yield number, line


@pytest.mark.parametrize("name", NAMES)
def test_every_path_that_a_document_names_is_there(name: str) -> None:
    found = paths_in(text_of(name))
    assert not [path for path in sorted(found) if not is_there(path, (ROOT / name).parent)]


def test_paths_are_found_in_the_documents() -> None:
    counts = {name: len(paths_in(text_of(name))) for name in NAMES}
    assert counts["docs/walk.md"] > 50 and counts["CONTRIBUTING.md"] > 30 and counts["README.md"] > 8


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    wrong = []
    for target in LINK.findall(text_of(name)):
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        if not target.startswith("https://") and (
            not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8")))
        ):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("name", NAMES)
def test_every_module_that_a_document_names_is_there(name: str) -> None:
    """`megatron.room.file.name` or a part of it; NVIDIA's own folders are not ours to have."""
    wrong = []
    for module in MODULE.findall(text_of(name)):
        room, *rest = module.split(".")[1:]
        folder = ROOT / "megatron" / room
        there = folder.is_dir() and (not rest or (folder / f"{rest[0]}.py").is_file())
        named = len(rest) < 2 or (there and rest[1] in (folder / f"{rest[0]}.py").read_text(encoding="utf-8"))
        if room not in NVIDIA and not (there and named):
            wrong.append(module)
    assert not wrong


def test_what_a_row_of_contributing_names_is_in_its_file() -> None:
    """In a table row every name in backticks stands in one of the row's files."""
    rows = [line for line in text_of("CONTRIBUTING.md").splitlines() if line.startswith("| ")]
    wrong, checked = [], 0
    for row in rows:
        files = [ROOT / path for path in paths_in(row) if (ROOT / path).is_file()]
        texts = "\n".join(path.read_text(encoding="utf-8") for path in files if path.suffix == ".py")
        for word in re.findall(r"`([A-Za-z_]{4,})`", row):
            checked += bool(texts)
            if texts and not re.search(rf"\b{word}\b", texts):
                wrong.append((row, word))
    assert checked > 20 and not wrong


def test_the_tree_of_the_readme_has_every_file_once_and_nothing_else() -> None:
    lines = [path for path, _ in tree()]
    files = {
        str(path.relative_to(ROOT))
        for folder in ("megatron", "tools", "scripts")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(lines) == len(set(lines))
    assert not [path for path in lines if not (ROOT / path).exists()]
    assert {path for path in lines if not path.endswith("/")} == files | set(ENTRIES)


def test_the_tree_says_what_every_file_is_in_the_order_of_imports() -> None:
    assert not [path for path, words in tree() if not path.endswith("/") and not words]
    assert [path.split("/")[1] for path, _ in tree() if re.fullmatch(r"megatron/\w+/", path)] == ORDER
    assert not [line for line in tree_block().splitlines() if len(line) > COLUMNS]


@pytest.mark.parametrize("name", NAMES)
def test_prose_is_narrow(name: str) -> None:
    assert not [number for number, line in prose(text_of(name)) if len(line) > COLUMNS]


@pytest.mark.parametrize("name", NAMES)
def test_no_document_uses_a_retired_word(name: str) -> None:
    assert not [match.group() for match in RETIRED.finditer(text_of(name).replace("\n", " "))]


WRITES = re.compile(r"--(output|output-prefix|output-dir|save|tensorboard-dir) ([\w./-]+)")
FOLLOWS = {"output-prefix": ("_text_document.bin", "_text_difficulty/")}
"""What a flag's value is followed by where that is not the path itself."""


def written() -> set[str]:
    """What the documented commands write into the folder where they are typed."""
    documents = [path for path in DOCUMENTS if path.name != "field.md"]  # which tells what others typed
    sources = [*documents, ROOT / "pretrain_gpt.py", *(ROOT / "tools").glob("*.py")]
    pairs = {pair for path in sources for pair in WRITES.findall(path.read_text(encoding="utf-8"))}
    pairs = {(name, value.rstrip(".")) for name, value in pairs if not value.isupper()}
    typed = [(name, value) for name, value in pairs if name == "output-prefix" or not value.isalpha()]
    merged = {value for _, value in typed if value.endswith("_document")}
    ends = dict.fromkeys(merged, (".bin", ".idx", ".json"))
    return {value + end for name, value in typed for end in ends.get(value, FOLLOWS.get(name, ("/",)))}


def test_git_does_not_see_what_the_documented_commands_write(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    paths = {path.rstrip("/") if re.search(r"\.(json|jsonl|html)/$", path) else path for path in written()}
    paths |= {"profile/rank0.steps10-12.json", "wandb/run", "report_files/loss_iteration.png"}
    assert {"my_text_document.bin", "runs/my/", "tokenizer.json", "report.html", "corpus_difficulty/"} < paths
    done = subprocess.run(
        ["git", "-C", str(tmp_path), "check-ignore", *sorted(paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert paths - set(done.stdout.splitlines()) == set()
