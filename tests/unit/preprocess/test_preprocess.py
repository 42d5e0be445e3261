"""The whole tool: what it writes against megatron-core's builder and HF's tokenizers, and what it leaves
when it stops."""

import gzip
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import tokenizers
from pyarrow import parquet

from megatron.base.errors import UserError
from megatron.base.keys import key
from megatron.base.random import draw
from megatron.data.index_builder import IndexedDatasetBuilder
from megatron.data.indexed_dataset import IndexedDataset, read_sidecar
from megatron.preprocess.document_shuffle import DocumentShuffle, bucket_bits
from megatron.preprocess.encoding import draw_documents, with_eod
from megatron.preprocess.preprocess import preprocess
from megatron.preprocess.workers import map_in_order
from tests.support.made_up_text import make_options, many_texts, write_lines, write_model_without_unknown

ROOT = Path(__file__).parents[3]
TOOL = [sys.executable, str(ROOT / "tools" / "preprocess_data.py")]
SMALL_PIECES = 4000
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def output(folder: Path, name: str = "out_text_document") -> tuple[bytes, ...]:
    return tuple((folder / f"{name}{ending}").read_bytes() for ending in (".bin", ".idx", ".json"))


def names(folder: Path) -> list[str]:
    """Everything in a folder but the input and the tokenizer, hidden files included."""
    return sorted(
        name for name in os.listdir(folder) if not name.endswith(".jsonl") and name != "tokenizer.json"
    )


@pytest.fixture
def corpus(tmp_path) -> tuple[str, list[str]]:
    texts = many_texts(400)
    return write_lines(tmp_path / "corpus.jsonl", texts), texts


@pytest.mark.parametrize("append_eod", [False, True])
def test_files_are_those_of_megatrons_tool(tmp_path, corpus, append_eod):
    oracle = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    path, texts = corpus
    options = make_options(tmp_path, path, append_eod=append_eod)
    preprocess(options)
    library = tokenizers.Tokenizer.from_file(options.tokenizer.tokenizer_model)
    builder = oracle.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), np.uint16)
    for text in texts:
        ids = library.encode(text).ids
        ids += [0] if ids and append_eod else []
        builder.add_document(ids, [len(ids)] if ids else [])
    builder.finalize(str(tmp_path / "theirs.idx"))
    assert output(tmp_path)[:2] == tuple(
        (tmp_path / f"theirs{ending}").read_bytes() for ending in (".bin", ".idx")
    )
    assert sum(not text for text in texts) > 50


def test_the_output_does_not_depend_on_workers_blocks_or_engine(tmp_path, corpus):
    path, texts = corpus
    seen = set()
    for workers, piece_bytes, engine in [
        (1, 1 << 20, "auto"),
        (1, SMALL_PIECES, "auto"),
        (3, 1500, "gigatoken"),
        (2, SMALL_PIECES, "tokenizers"),
    ]:
        totals = preprocess(
            make_options(tmp_path, path, append_eod=True, workers=workers, tokenizer_engine=engine),
            piece_bytes,
        )
        assert totals.documents == len(texts) and totals.left_out.count == 0
        assert (totals.verified_documents > 0) == (engine != "tokenizers")
        seen.add(output(tmp_path))
    assert len(seen) == 1
    sidecar = read_sidecar(tmp_path / "out_text_document")
    assert (
        sidecar.items()
        >= {"vocab_size": 400, "eod": 0, "append_eod": True, "documents": 400, "bad_lines_skipped": 0}.items()
    )
    assert sidecar["text_bytes"] == sum(len(text.encode()) for text in texts)
    assert sidecar["tokens"] == len(IndexedDataset(tmp_path / "out_text_document").tokens)
    assert sidecar["sequences"] == sum(bool(text) for text in texts)
    assert len(sidecar["tokenizer"]["sha256"]) == 1 and sidecar["shuffle_seed"] is None


def test_several_keys_and_kinds_of_files(tmp_path):
    first = write_lines(
        tmp_path / "a.jsonl", [{"text": f"text {n}", "title": f"title {n}" * (n % 2)} for n in range(20)]
    )
    second = write_lines(tmp_path / "b.jsonl", [{"title": "last", "text": "last"}])
    preprocess(make_options(tmp_path, first, second, json_keys=("text", "title")))
    assert names(tmp_path) == [
        f"out_{key}_document{ending}" for key in ("text", "title") for ending in (".bin", ".idx", ".json")
    ]
    texts, titles = (
        IndexedDataset(tmp_path / "out_text_document"),
        IndexedDataset(tmp_path / "out_title_document"),
    )
    assert texts[20].tolist() == titles[10].tolist()
    assert (len(texts), len(titles)) == (21, 11) and len(texts.document_indices) == len(
        titles.document_indices
    ) == 22


def test_wide_ids(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ["1 70000", "", "69999"])
    preprocess(
        make_options(tmp_path, path, tokenizer_type="NullTokenizer", vocab_size=70000, append_eod=True)
    )
    dataset = IndexedDataset(tmp_path / "out_text_document")
    assert dataset.dtype == np.int32 and [array.tolist() for array in dataset[:]] == [
        [1, 70000, 70000],
        [69999, 70000],
    ]


def test_with_eod():
    ids, lengths = np.array([5, 6, 7], np.uint32), np.array([0, 2, 0, 1, 0])
    assert with_eod(ids, lengths, 9, np.dtype(np.uint16)).tolist() == [5, 6, 9, 7, 9]
    assert with_eod(ids, lengths, None, np.dtype(np.uint16)).tolist() == [5, 6, 7]


def test_shuffled_documents_are_in_the_order_of_their_hashes(tmp_path, corpus):
    path, texts = corpus
    plain = make_options(tmp_path, path, output_prefix=str(tmp_path / "plain"))
    preprocess(plain)
    shuffled = make_options(tmp_path, path, output_prefix=str(tmp_path / "shuffled"), shuffle_documents=7)
    preprocess(shuffled)
    seed = np.uint64(key(7, "order of documents"))
    order = sorted(range(len(texts)), key=lambda number: int(draw(seed, number)))
    assert _documents(tmp_path / "shuffled_text_document") == [
        _documents(tmp_path / "plain_text_document")[number] for number in order
    ]
    assert read_sidecar(tmp_path / "shuffled_text_document")["shuffle_seed"] == 7
    before = output(tmp_path, "shuffled_text_document")
    preprocess(shuffled, SMALL_PIECES)
    assert output(tmp_path, "shuffled_text_document") == before
    preprocess(make_options(tmp_path, path, output_prefix=str(tmp_path / "shuffled"), shuffle_documents=8))
    assert output(tmp_path, "shuffled_text_document")[0] != before[0]


def _documents(prefix: Path) -> list[list[int]]:
    dataset = IndexedDataset(prefix)
    bounds = dataset.document_indices.tolist()
    return [dataset[first].tolist() if last > first else [] for first, last in itertools.pairwise(bounds)]


def test_a_shuffle_does_not_depend_on_its_files(tmp_path):
    lengths = np.arange(500) % 5
    tokens = np.arange(lengths.sum(), dtype=np.uint16)
    for bits in (0, 1, 4):
        with (
            IndexedDatasetBuilder(tmp_path / str(bits), np.uint16) as builder,
            DocumentShuffle(builder, 3, bits) as shuffle,
        ):
            shuffle.add_documents(tokens[: lengths[:90].sum()], lengths[:90])
            shuffle.add_documents(tokens[lengths[:90].sum() :], lengths[90:])
            shuffle.finish()
    first, *others = [
        [(tmp_path / f"{bits}{ending}").read_bytes() for ending in (".bin", ".idx")] for bits in (0, 1, 4)
    ]
    assert all(other == first for other in others)
    assert sorted(np.frombuffer(first[0], np.uint16)) == tokens.tolist() and first[0] != tokens.tobytes()
    assert [bucket_bits(size) for size in (0, 100 << 20, 130 << 20, 1 << 30, 1 << 40)] == [0, 0, 1, 4, 8]
    assert [bucket_bits(1 << 40, keys) for keys in (2, 3, 200, 1000)] == [7, 6, 0, 0]


def test_the_files_of_a_shuffle_lie_beside_its_output_and_take_their_share(tmp_path, monkeypatch):
    """The folder for temporary files may be small, or memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with IndexedDatasetBuilder(tmp_path / "a", np.uint16) as builder:
        before = len(os.listdir("/proc/self/fd"))
        with DocumentShuffle(builder, 3, 3) as shuffle:
            assert len(os.listdir("/proc/self/fd")) == before + 8
            shuffle.add_documents(np.arange(4000, dtype=np.uint16), np.full(1000, 4))
            sizes = [file.tell() for file in shuffle._buckets]
            shuffle.finish()
        assert len(os.listdir("/proc/self/fd")) == before
    documents = (np.array(sizes) - 8) / (8 + 4 + 4 + 4 * 2)  # hash, count, length, four ids; 8 bytes a call
    assert documents.sum() == 1000
    assert np.abs(documents - 125).max() < 5 * (1000 * 1 / 8 * 7 / 8) ** 0.5  # five standard deviations
    assert names(tmp_path) == ["a.bin", "a.idx"]


def test_all_shuffles_together_open_a_quarter_of_what_is_allowed():
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, allowed[1]))
        assert [bucket_bits(1 << 40, keys) for keys in (1, 2, 3, 4, 200)] == [6, 5, 5, 4, 0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)


def test_keys_are_shuffled_alike(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": f"{n}", "title": f"{n}" * (n % 3)} for n in range(50)])
    null = {"tokenizer_type": "NullTokenizer", "vocab_size": 1000000}
    preprocess(make_options(tmp_path, path, json_keys=("text", "title"), shuffle_documents=1, **null))
    texts, titles = _documents(tmp_path / "out_text_document"), _documents(tmp_path / "out_title_document")
    assert texts != sorted(texts) and sorted(texts) == [[n] for n in range(50)]
    assert titles == [[int(f"{n}" * (n % 3))] if n % 3 else [] for (n,) in texts]


def test_bad_lines_stop_the_run(tmp_path, corpus):
    path, _ = corpus
    with open(path, "a") as file:
        file.write('{"text": 1}\n{"nothing": 2}\n')
    for piece_bytes in (1 << 20, SMALL_PIECES):
        with pytest.raises(
            UserError,
            match=r"line 401: key 'text' holds a number, not a text\. Mend it, or .*--on-bad-line skip",
        ):
            preprocess(make_options(tmp_path, path), piece_bytes)
        assert names(tmp_path) == []


@pytest.mark.parametrize("piece_bytes", [1 << 20, 300])
def test_bad_lines_left_out(tmp_path, capsys, piece_bytes):
    path = write_lines(
        tmp_path / "a.jsonl", [text if n % 4 else {"n": n} for n, text in enumerate(many_texts(40))]
    )
    totals = preprocess(make_options(tmp_path, path, on_bad_line="skip", max_bad_lines=10), piece_bytes)
    assert (totals.documents, totals.left_out.count) == (30, 10)
    assert read_sidecar(tmp_path / "out_text_document")["bad_lines_skipped"] == 10
    assert read_sidecar(tmp_path / "out_text_document")["documents"] == 30
    printed = capsys.readouterr().out
    assert "left out 10 lines" in printed and printed.count("has no key") == 5
    assert all(
        f"a.jsonl, line {line}: has no key 'text'; its keys are n" in printed for line in (1, 5, 9, 13, 17)
    )
    os.unlink(tmp_path / "out_text_document.idx")
    with pytest.raises(
        UserError, match=r"more than --max-bad-lines 9 lines hold no document(.|\n)*line 5: has no key"
    ):
        preprocess(make_options(tmp_path, path, on_bad_line="skip", max_bad_lines=9), piece_bytes)
    assert names(tmp_path) == ["out_text_document.bin", "out_text_document.json"]


def test_bad_rows_and_files_left_out(tmp_path, capsys):
    """The same choices for rows of Parquet and for text files."""
    (tmp_path / "in").mkdir()
    parquet.write_table(pyarrow.table({"text": ["one", None, "two"]}), tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / "b.txt").write_bytes(b"three \xff")
    (tmp_path / "in" / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "four"}\n{"text"\n'))
    with pytest.raises(UserError, match=r"a\.parquet, row 2: key 'text' holds null.*--on-bad-line skip"):
        preprocess(make_options(tmp_path, str(tmp_path / "in")))
    totals = preprocess(make_options(tmp_path, str(tmp_path / "in"), on_bad_line="skip"))
    assert (totals.documents, totals.left_out.count) == (3, 3)
    printed = capsys.readouterr().out
    assert "left out 3 lines that hold no document; the first:" in printed
    for place in ("a.parquet, row 2: ", "b.txt: line 1, byte 7 is no UTF-8", "c.jsonl.gz, line 2: column 8"):
        assert place in printed


def test_where_all_lines_are_bad_the_first_are_named(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"n": n} for n in range(9)])
    with pytest.raises(
        UserError, match=r"no documents in .* \(9 bad lines\)(.|\n)*a\.jsonl, line 5: has no key"
    ):
        preprocess(make_options(tmp_path, path, on_bad_line="skip"))


def test_an_existing_dataset_is_replaced_only_when_asked(tmp_path, corpus):
    path, _ = corpus
    preprocess(make_options(tmp_path, path, overwrite=False))
    before = output(tmp_path)
    with pytest.raises(UserError, match=r"out_text_document has \.bin, \.idx, \.json already; .*--overwrite"):
        preprocess(make_options(tmp_path, path, overwrite=False, append_eod=True))
    assert output(tmp_path) == before
    preprocess(make_options(tmp_path, path, append_eod=True))
    assert output(tmp_path) != before
    with pytest.raises(UserError) as error:
        options = make_options(tmp_path, "none.jsonl", overwrite=False, json_keys=("text", "text"))
        preprocess(options)
    assert [problem.split()[0] for problem in error.value.problems] == [
        "--json-keys",
        "--output-prefix:",
        "--input",
    ]


def test_an_input_is_never_written_over(tmp_path):
    path = write_lines(tmp_path / "out_text_document.json", ["text"])
    with pytest.raises(UserError, match=r"--input .* is where --output-prefix .*out writes; choose another"):
        preprocess(make_options(tmp_path, path))
    assert Path(path).read_text() == '{"text": "text"}\n'


def test_an_empty_corpus(tmp_path):
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.jsonl").write_text("\n\n")
    for piece_bytes in (1, 100):
        with pytest.raises(UserError, match=r"no documents in .*a\.jsonl, .*b\.jsonl"):
            preprocess(
                make_options(tmp_path, str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")), piece_bytes
            )
    assert names(tmp_path) == []


@pytest.mark.parametrize("append_eod", [False, True])
def test_it_says_whether_documents_end_with_a_token(tmp_path, capsys, append_eod):
    preprocess(make_options(tmp_path, write_lines(tmp_path / "a.jsonl", ["a b"]), append_eod=append_eod))
    first = capsys.readouterr().out.splitlines()[0]
    token = "<|endoftext|> (token 0), the only usual name among the special tokens"
    if append_eod:
        assert first == f"documents end with {token}"
    else:
        assert first.startswith("documents end with no token, ") and first.endswith(
            f"; with it they end with {token}"
        )
    assert (output(tmp_path)[0].endswith(b"\0\0")) == append_eod


@pytest.mark.parametrize(
    ("append_eod", "text"), [(True, "b<|endoftext|>"), (False, "b<|endoftext|>"), (True, "b")]
)
def test_documents_that_would_end_twice_are_told(tmp_path, capsys, append_eod, text):
    path = write_lines(tmp_path / "a.jsonl", ["a<|endoftext|>b", text, "", "c"])
    preprocess(make_options(tmp_path, path, append_eod=append_eod))
    told = "out_text_document: 1 of 4 documents have an end-of-document token at the end of their text"
    assert (told in capsys.readouterr().out) == (append_eod and text != "b")


def test_empty_documents_are_kept_and_counted(tmp_path, capsys):
    records = [{"text": text, "title": "t"} for text in ("", "word", "", " ")]
    path = write_lines(tmp_path / "a.jsonl", records)
    preprocess(make_options(tmp_path, path, json_keys=("text", "title"), append_eod=True))
    said = capsys.readouterr().out
    assert re.search(r"out_text_document: .* a token; 2 of 4 documents are empty\n", said)
    assert re.search(r"out_title_document: .* a token\n", said)
    dataset = IndexedDataset(str(tmp_path / "out_text_document"))
    assert dataset.document_indices.tolist() == [0, 0, 1, 1, 2]


def test_null_tokenizer_names_the_place_of_a_word(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ["1 2", "three"])
    with pytest.raises(
        UserError, match=r".*a\.jsonl, line 2: NullTokenizer takes texts of numbers .* not 'three'"
    ):
        preprocess(make_options(tmp_path, path, tokenizer_type="NullTokenizer", vocab_size=10))


@pytest.mark.parametrize("kind", ["WordLevel", "WordPiece", "Unigram"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_text_that_its_tokenizer_refuses_is_told_with_its_place(tmp_path, kind, workers):
    """A model whose unknown token is missing refuses what it does not know, and the library says so by a bare
    Exception."""
    model = write_model_without_unknown(tmp_path, kind)
    path = write_lines(tmp_path / "a.jsonl", ["b", "a", "ab c", "d"])
    options = make_options(
        tmp_path, path, tokenizer_type="HuggingFaceTokenizer", tokenizer_model=model, workers=workers
    )
    with pytest.raises(UserError, match=r"^[^\n]*a\.jsonl, line 3: the tokenizer has no token for something"):
        preprocess(options)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"json_keys": ()}, "--json-keys"),
        ({"json_keys": ("a", "a")}, "--json-keys a a: give at least one key, and none twice"),
        ({"tokenizer_model": "/no/such"}, "--tokenizer-model /no/such: does not exist"),
        ({"input": ("/no/such.jsonl",)}, r"--input /no/such\.jsonl: no such file"),
        ({"output_prefix": "/proc/none/out"}, "cannot write to the folder /proc/none"),
    ],
)
def test_mistakes_are_told_before_the_work(tmp_path, corpus, monkeypatch, changes, message):
    monkeypatch.setattr("megatron.preprocess.preprocess.encode_piece", lambda *_: pytest.fail("work began"))
    with pytest.raises(UserError, match=message):
        preprocess(make_options(tmp_path, corpus[0], **changes))
    assert names(tmp_path) == []


def test_engines_that_differ(tmp_path, wrong_gigatoken, capsys):
    path = write_lines(
        tmp_path / "a.jsonl", [*many_texts(50), "a zebra\u200b", *many_texts(50)]
    )  # a third of it is drawn; what is new is verified anyway
    with pytest.raises(
        UserError, match=r"differently: 'a zebra\\u200b'; leave out --tokenizer-engine gigatoken"
    ):
        preprocess(make_options(tmp_path, path, tokenizer_engine="gigatoken"))
    assert names(tmp_path) == []
    totals = preprocess(make_options(tmp_path, path, tokenizer_engine="auto"))
    assert (
        "a.jsonl, line 51 differently: 'a zebra\\u200b'; starting over" in capsys.readouterr().err
        and totals.verified_documents == 0
    )
    before = output(tmp_path)
    preprocess(make_options(tmp_path, path, tokenizer_engine="tokenizers"))
    assert output(tmp_path) == before


def test_engines_that_differ_where_nothing_is_new(tmp_path, wrong_gigatoken):
    """Plain text is found by drawing documents alone, and so small a corpus is drawn whole."""
    path = write_lines(tmp_path / "a.jsonl", ["a horse", "a zebra", "a donkey"])
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 differently: 'a zebra'; leave out"):
        preprocess(make_options(tmp_path, path, tokenizer_engine="gigatoken"))
    assert names(tmp_path) == []


def test_the_documents_that_are_verified():
    assert len(draw_documents(np.full(100, 5), "a")) == 100  # a small corpus is verified whole
    drawn = [draw_documents(np.full(20000, 1000), name).tolist() for name in ("a", "a", "b")]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(
        abs(len(numbers) - 20) < 6 * 20**0.5 for numbers in drawn
    )  # binomial with mean 20: six deviations


def _square(number: int) -> int:
    if number == 13:
        raise UserError("thirteen")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_results_come_in_order_and_few_tasks_wait():
    taken = []

    def tasks(numbers):
        for number in numbers:
            taken.append(number)
            yield (number,)

    for (number,), square in map_in_order(_square, tasks(range(12)), 3, 4, []):
        assert square == number**2 and len(taken) <= number + 4
    assert taken == list(range(12))
    with pytest.raises(UserError, match="thirteen"):
        list(map_in_order(_square, tasks([1, 13, 2]), 2, 4, []))
    with pytest.raises(UserError, match="a worker process was ended from outside"):
        list(map_in_order(_square, tasks([1, 99, 2]), 2, 4, []))


def test_the_process_that_workers_come_from_is_ended(monkeypatch):
    def ended(self, *task):
        raise EOFError("unexpected EOF")

    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.submit", ended)
    with pytest.raises(UserError, match="a worker process was ended from outside"):
        list(map_in_order(_square, [(1,)], 2, 4, []))


def test_a_temporary_folder_that_is_too_long_for_sockets(tmp_path):
    """Python 3.14 takes another one by itself."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    code = "from megatron.preprocess.workers import map_in_order; list(map_in_order(abs, [(1,)], 1, 1, []))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )
    told = f"TMPDIR {folder}: is too long for the sockets of worker processes; set a shorter one, such as"
    assert done.returncode == 0 or (told in done.stderr and "AF_UNIX" not in done.stderr)


def tool(folder: Path, *more: str, **how) -> subprocess.Popen:
    model = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(folder / "tokenizer.json")]
    command = [*TOOL, "--output-prefix", str(folder / "out"), *model, "--workers", "2", *more]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        return subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(tmp_path, number):
    make_options(tmp_path)
    path = write_lines(
        tmp_path / "a.jsonl", ["word " * 2000] * 6000
    )  # 60 MB, seconds of work for the slow engine
    process = tool(tmp_path, "--input", path, "--tokenizer-engine", "tokenizers", start_new_session=True)
    while not any(name.startswith(".out_text_document.bin") for name in os.listdir(tmp_path)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.7)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(
        number
    )  # Ctrl-C reaches the workers too
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and re.fullmatch("documents end with no token, .*\n", out)
    assert err == "nothing was written; the same command starts over\ninterrupted\n"
    assert names(tmp_path) == []
    time.sleep(0.3)
    assert not _alive(process.pid), "workers outlive the tool"


BLOCKED = """
import signal
from multiprocessing import forkserver
from megatron.preprocess import workers
workers._start_server()
status = open(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read()
print(int(status.split("SigBlk:")[1].split()[0], 16) >> signal.SIGINT - 1 & 1)
"""


def test_the_server_of_the_workers_starts_with_ctrl_c_blocked():
    done = subprocess.run([sys.executable, "-c", BLOCKED], env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_workers_do_not_outlive_a_tool_that_is_killed(tmp_path):
    make_options(tmp_path)
    path = write_lines(tmp_path / "a.jsonl", ["word " * 2000] * 6000)
    process = tool(tmp_path, "--input", path, "--tokenizer-engine", "tokenizers", start_new_session=True)
    while len(_alive(process.pid)) < 4:  # the tool, the server of workers, two workers
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)


def test_workers_are_of_the_same_tree_as_their_tool(tmp_path):
    """A folder `megatron` in the current one, as in a checkout of another Megatron, is not taken for ours."""
    (tmp_path / "here" / "megatron" / "preprocess").mkdir(parents=True)
    for name in ("preprocess", "encoding", "documents"):
        (tmp_path / "here" / "megatron" / "preprocess" / f"{name}.py").write_text("raise SystemExit(9)\n")
    options = make_options(tmp_path)
    for number in range(2):
        write_lines(tmp_path / f"{number}.jsonl", ["text"] * 10)
    words = ["--tokenizer-type", "HuggingFaceTokenizer", "--output-prefix", str(tmp_path / "out")]
    words += ["--tokenizer-model", options.tokenizer.tokenizer_model, "--input", str(tmp_path)]
    done = subprocess.run(
        [*TOOL, *words],
        cwd=tmp_path / "here",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(IndexedDataset(tmp_path / "out_text_document")) == 20


def _alive(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of_session, *_ = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of_session) == session and state != "Z":
            found.append(int(path.name))
    return found


def test_the_command_line(tmp_path, corpus):
    make_options(tmp_path)
    process = tool(
        *(tmp_path, "--input", corpus[0], "--append-eod", "--log-interval", "1000", "--partitions", "2"),
        *("--json-key", "text", "--chunk-size", "25", "--dataset-impl", "mmap"),
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "--partitions (one pass" in out and "--log-interval (progress" in out
    assert "read --json-key text as --json-keys text" in out and "--chunk-size (workers" in out
    *_, tokens, verified, last = out.splitlines()
    assert tokens.startswith(f"{tmp_path}/out_text_document: ") and re.match(
        r"encoded by gigatoken; \d+ documents \(", verified
    )
    assert last.startswith("Processed 400 documents (") and last.endswith(" MB/s).") and " docs/s, " in last
    assert json.loads((tmp_path / "out_text_document.json").read_text())["documents"] == 400


def test_mistakes_on_the_command_line(tmp_path, corpus):
    make_options(tmp_path)
    process = tool(tmp_path, "--input", corpus[0], "--ftfy", "--tokenizer-engin", "auto")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and out == "" and "Traceback" not in err
    assert (
        "--ftfy is refused: texts are taken as they are" in err and "did you mean --tokenizer-engine" in err
    )
    assert names(tmp_path) == []
