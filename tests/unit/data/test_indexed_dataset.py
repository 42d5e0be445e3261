"""The .bin/.idx format against megatron-core's own reader and builder, damaged files, and files that
appear whole or not at all."""

import errno
import itertools
import os
import shutil
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.data.index_builder import IndexedDatasetBuilder
from megatron.data.indexed_dataset import (
    HEADER,
    IndexedDataset,
    fingerprint,
    read_sidecar,
    token_dtype,
    write_sidecar,
)

DOCUMENTS = st.lists(st.lists(st.lists(st.integers(0, 60000), max_size=8), max_size=3), max_size=12)
DTYPES = [np.uint16, np.int32, np.int64]


def content(prefix) -> tuple[bytes, bytes]:
    return tuple(open(f"{prefix}{ending}", "rb").read() for ending in (".bin", ".idx"))


def build(prefix, documents, dtype=np.uint16) -> str:
    """A dataset of documents, each a list of sequences."""
    with IndexedDatasetBuilder(prefix, dtype) as builder:
        for document in documents:
            builder.add_document(
                np.array(list(itertools.chain(*document)), dtype), [len(sequence) for sequence in document]
            )
    return str(prefix)


def sample(prefix) -> str:
    """Twenty documents of one sequence each, one of them empty."""
    lengths = np.arange(20) * 3 % 11
    with IndexedDatasetBuilder(prefix, np.uint16) as builder:
        builder.add_documents(np.arange(lengths.sum(), dtype=np.uint16), lengths)
    return str(prefix)


@pytest.fixture(scope="module")
def oracle():
    return pytest.importorskip("megatron.core.datasets.indexed_dataset")


@settings(max_examples=40, deadline=None)
@given(documents=DOCUMENTS, dtype=st.sampled_from(DTYPES))
def test_files_are_those_of_megatron_core(oracle, tmp_path_factory, documents, dtype):
    folder = tmp_path_factory.mktemp("files")
    theirs = oracle.IndexedDatasetBuilder(str(folder / "theirs.bin"), dtype)
    for document in documents:
        theirs.add_document(
            np.array(list(itertools.chain(*document)), dtype), [len(sequence) for sequence in document]
        )
    theirs.finalize(str(folder / "theirs.idx"))
    assert content(build(folder / "ours", documents, dtype)) == content(folder / "theirs")
    ours = IndexedDataset(folder / "theirs")
    ours.validate()
    sequences = [sequence for document in documents for sequence in document]
    assert [array.tolist() for array in ours[:]] == sequences
    assert ours.document_indices.tolist() == np.cumsum([0, *map(len, documents)]).tolist()
    assert (
        ours.dtype == dtype and len(ours) == len(sequences) and len(ours.tokens) == sum(map(len, sequences))
    )


def test_every_way_to_add_documents_gives_the_same_files(oracle, tmp_path):
    documents = [[[1, 2, 3]], [], [[4]], [[5, 6]]]
    one = build(tmp_path / "one", documents)
    with IndexedDatasetBuilder(tmp_path / "two", np.uint16) as builder:
        for document in documents:
            for sequence in document:
                builder.add_item(np.array(sequence))
            builder.end_document()
    with IndexedDatasetBuilder(tmp_path / "three", np.uint16) as builder:
        builder.add_documents(np.array([1, 2, 3]), [3])
        builder.add_documents(np.array([4, 5, 6], np.uint32), [0, 1, 2])
    assert content(one) == content(tmp_path / "two") == content(tmp_path / "three")
    assert (builder.documents, builder.sequences, builder.tokens) == (4, 3, 6)
    theirs = oracle.IndexedDataset(one)
    assert [array.tolist() for array in theirs[:]] == [[1, 2, 3], [4], [5, 6]]
    assert theirs.document_indices.tolist() == [0, 1, 1, 2, 3]


def test_reading_as_megatron_core_does(oracle, tmp_path):
    prefix = sample(tmp_path / "a")
    ours, theirs = IndexedDataset(prefix), oracle.IndexedDataset(prefix)
    assert len(ours) == len(theirs) and ours.sequence_lengths.tolist() == theirs.sequence_lengths.tolist()
    assert ours.sequence_pointers.tolist() == theirs.index.sequence_pointers.tolist()
    for i in range(-len(ours), len(ours)):
        assert ours[i].tolist() == theirs[i].tolist()
        length = len(ours[i])
        assert (
            ours.get(i, 1, length - 1).tolist()
            == theirs.get(i, 1, length - 1).tolist()
            == ours[np.int64(i)][1:].tolist()
        )
    assert [array.tolist() for array in ours[3:9]] == [array.tolist() for array in theirs[3:9]]
    assert ours[5:5] == [] and ours.exists(prefix) and not ours.exists(tmp_path / "b")
    with pytest.raises(ValueError, match="step must be 1"):
        ours[::2]
    for bad in (len(ours), -len(ours) - 1):
        with pytest.raises(IndexError):
            ours[bad]
    with pytest.raises(IndexError, match="of a sequence of"):
        ours.get(2, 1, 100)


@settings(max_examples=5, deadline=None)  # megatron-core collects garbage at every merge, which takes a while
@given(parts=st.lists(DOCUMENTS, min_size=1, max_size=3))
def test_merging_as_megatron_core_does(oracle, tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("merge")
    theirs = oracle.IndexedDatasetBuilder(str(folder / "theirs.bin"), np.uint16)
    with IndexedDatasetBuilder(folder / "ours", np.uint16) as ours:
        for number, documents in enumerate(parts):
            prefix = build(folder / str(number), [*documents, [[1]]])
            ours.add_index(prefix)
            theirs.add_index(prefix)
    theirs.finalize(str(folder / "theirs.idx"))
    assert content(folder / "ours") == content(folder / "theirs")
    assert ours.tokens == len(IndexedDataset(folder / "ours").tokens)


def test_a_merge_takes_no_wider_type(tmp_path):
    build(tmp_path / "a", [[[1]]], np.int32)
    with (
        pytest.raises(UserError, match=r"holds int32 tokens, and .*out holds uint16"),
        IndexedDatasetBuilder(tmp_path / "out", np.uint16) as out,
    ):
        out.add_index(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.idx"]


def test_lengths_must_match_the_tokens(tmp_path):
    with (
        pytest.raises(ValueError, match="add up to 4, and there are 3"),
        IndexedDatasetBuilder(tmp_path / "a", np.uint16) as builder,
    ):
        builder.add_documents(np.arange(3), [1, 3])


def test_type_rule_of_megatron(oracle):
    for size in (100, 65499, 65500, 200000):
        assert token_dtype(size) == oracle.DType.optimal_dtype(size)


def test_pointers_are_64_bit(tmp_path):
    builder = IndexedDatasetBuilder(tmp_path / "a", np.int32)
    with builder:
        builder._lengths.write(np.full(3, 2**31 - 1, "<i4"))  # lengths alone: the tokens would be 26 GB
        builder.sequences = 3
    pointers = np.frombuffer(content(tmp_path / "a")[1], "<i8", 3, HEADER.size + 12)
    assert pointers.tolist() == [0, 4 * (2**31 - 1), 8 * (2**31 - 1)]


def test_an_error_leaves_nothing_and_keeps_what_was_there(tmp_path):
    before = content(sample(tmp_path / "a"))
    with pytest.raises(RuntimeError), IndexedDatasetBuilder(tmp_path / "a", np.uint16) as builder:
        builder.add_documents(np.arange(5), [5])
        raise RuntimeError
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.idx"] and content(tmp_path / "a") == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_with_the_files(tmp_path, number):
    with (
        pytest.raises(UserError, match=rf"a\.bin and \.idx: {os.strerror(number)}"),
        IndexedDatasetBuilder(tmp_path / "a", np.uint16),
    ):
        raise OSError(number, os.strerror(number))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_run_left_is_told(tmp_path, capsys):
    (tmp_path / ".out.bin.0123456789ab.partial").write_bytes(bytes(2_000_000))
    with IndexedDatasetBuilder(tmp_path / "out", np.uint16) as builder:
        builder.add_document(np.arange(3), [3])
    said = capsys.readouterr().err
    assert f"note: {tmp_path}/.out.bin.0123456789ab.partial (2.0 MB): left by a run" in said
    assert (tmp_path / ".out.bin.0123456789ab.partial").exists()
    with IndexedDatasetBuilder(tmp_path / "other", np.uint16):
        pass
    assert capsys.readouterr().err == ""


def test_no_file_has_its_name_before_the_end(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "a", np.uint16) as builder:
        builder.add_documents(np.arange(5), [5])
        assert not [name for name in os.listdir(tmp_path) if not name.startswith(".")]
        builder.sidecar = {"tokenizer": {}, "vocab_size": 5, "eod": 0}
    assert read_sidecar(tmp_path / "a") == {
        "tokenizer": {},
        "vocab_size": 5,
        "eod": 0,
        "documents": 1,
        "sequences": 1,
        "tokens": 5,
        "fingerprint": fingerprint(IndexedDataset(tmp_path / "a")),
    }


def test_an_old_sidecar_does_not_outlive_its_files(tmp_path):
    write_sidecar(tmp_path / "a", {"tokenizer": {}, "vocab_size": 5, "eod": 0})
    sample(tmp_path / "a")
    assert read_sidecar(tmp_path / "a") is None


OF_OTHER_TYPES = (
    '{"tokenizer": {}, "vocab_size": null, "eod": 0}',
    '{"tokenizer": {}, "vocab_size": 5, "eod": 5}',
    '{"tokenizer": {}, "vocab_size": 5, "eod": "0"}',
)


@pytest.mark.parametrize("text", ["{", "[]", '{"tokens": 3}', "\xff", *OF_OTHER_TYPES])
def test_a_sidecar_that_is_none(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.json: "):
        read_sidecar(tmp_path / "a")


def test_a_byte_order_mark_before_a_sidecar(tmp_path):
    write_sidecar(tmp_path / "a", {"tokenizer": {}, "vocab_size": 5, "eod": 0})
    before = read_sidecar(tmp_path / "a")
    path = tmp_path / "a.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert read_sidecar(tmp_path / "a") == before


def test_opening_reads_few_pages_of_a_huge_index(tmp_path):
    sequences = 40_000_000
    with open(
        tmp_path / "a.idx", "wb"
    ) as file:  # 640 MB that are mostly a hole: all lengths and pointers are 0
        file.write(HEADER.pack(b"MMIDIDX\x00\x00", 1, 8, sequences, 2))
        file.seek(HEADER.size + 12 * sequences)
        file.write(struct.pack("<qq", 0, sequences))
    (tmp_path / "a.bin").touch()
    before = _resident_pages()
    dataset = IndexedDataset(tmp_path / "a")
    assert len(dataset) == sequences and len(fingerprint(dataset)) == 32
    assert (_resident_pages() - before) * os.sysconf("SC_PAGE_SIZE") < 30e6


def _resident_pages() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_a_fingerprint_follows_the_content_alone(tmp_path):
    prefix = sample(tmp_path / "a")
    print_ = fingerprint(IndexedDataset(prefix))
    os.mkdir(tmp_path / "other")
    for ending in (".bin", ".idx"):
        shutil.copy(prefix + ending, tmp_path / "other" / f"b{ending}")
    assert fingerprint(IndexedDataset(tmp_path / "other" / "b")) == print_
    with open(tmp_path / "other" / "b.bin", "r+b") as file:
        file.write(b"\x07")
    assert fingerprint(IndexedDataset(tmp_path / "other" / "b")) != print_
    assert fingerprint(IndexedDataset(build(tmp_path / "c", [[[1, 2]]]))) != fingerprint(
        IndexedDataset(build(tmp_path / "d", [[[1], [2]]]))
    )


def edit(path: str, at: int, packed: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(packed)


DAMAGE = {
    "no files": (
        lambda p: [os.unlink(p + e) for e in (".bin", ".idx")],
        "no dataset here, .* do not exist; give the common path",
    ),
    "no .idx": (lambda p: os.unlink(p + ".idx"), r"a\.idx: does not exist, though"),
    "no .bin": (lambda p: os.unlink(p + ".bin"), r"a\.bin: does not exist, though"),
    "empty .idx": (lambda p: os.truncate(p + ".idx", 0), r"a\.idx: is cut short: 0 bytes"),
    "half a header": (lambda p: os.truncate(p + ".idx", 20), "is cut short: 20 bytes"),
    "cut .idx": (
        lambda p: os.truncate(p + ".idx", 100),
        r"a\.idx: has 100 bytes where its header, of 18 sequences",
    ),
    "cut .bin": (
        lambda p: os.truncate(p + ".bin", 50),
        r"a\.bin: has 50 bytes where .*a\.idx says .*; it is cut short",
    ),
    "empty .bin": (lambda p: os.truncate(p + ".bin", 0), r"a\.bin: has 0 bytes where"),
    "magic": (lambda p: edit(p + ".idx", 0, b"X"), "is no Megatron index, it begins with"),
    "old magic": (
        lambda p: edit(p + ".idx", 0, b"TNTIDX\x00\x00"),
        "TNTIDX format is not read; make it again",
    ),
    "version": (lambda p: edit(p + ".idx", 9, b"\x02"), "has version 2, and only version 1"),
    "float64": (lambda p: edit(p + ".idx", 17, b"\x06"), "floating-point numbers, which are no token ids"),
    "float32": (lambda p: edit(p + ".idx", 17, b"\x07"), "floating-point numbers, which are no token ids"),
    "type code": (lambda p: edit(p + ".idx", 17, b"\x63"), "an unknown type"),
    "other type": (lambda p: edit(p + ".idx", 17, b"\x04"), "does not begin where the one before it ends"),
    "no boundaries": (lambda p: edit(p + ".idx", 26, bytes(8)), "0 document boundaries"),
    "too many sequences": (
        lambda p: edit(p + ".idx", 18, b"\xff" * 8),
        "has .* bytes where its header, of 18,446,744,",
    ),
    "modes": (
        lambda p: edit(p + ".idx", os.path.getsize(p + ".idx"), bytes(18)),
        "looks like a multimodal dataset",
    ),
    "first document": (
        lambda p: edit(p + ".idx", HEADER.size + 12 * 18, b"\x01"),
        "documents cover the sequences 1 to 18",
    ),
    "last document": (
        lambda p: edit(p + ".idx", HEADER.size + 12 * 18 + 8 * 20, b"\x05"),
        "documents cover the sequences 0 to 5",
    ),
    "negative length": (lambda p: edit(p + ".idx", HEADER.size, b"\xff" * 4), "is damaged: sequence 0"),
    "pointer": (
        lambda p: edit(p + ".idx", HEADER.size + 4 * 18 + 8 * 7, b"\x01"),
        "is damaged: sequence 7 does not begin",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files(tmp_path, name):
    prefix = sample(tmp_path / "a")
    damage, message = DAMAGE[name]
    damage(prefix)
    with pytest.raises(UserError, match=message) as error:
        IndexedDataset(prefix)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_links_and_pointers_that_lead_to_no_dataset(tmp_path):
    prefix = sample(tmp_path / "a")
    for ending in (".bin", ".idx"):
        (tmp_path / f"link{ending}").symlink_to(tmp_path / f"gone{ending}")
        (tmp_path / f"pointer{ending}").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(UserError, match=r"link\.bin: leads to \S+gone\.bin, where there is no file"):
        IndexedDataset(tmp_path / "link")
    with pytest.raises(UserError, match=r"pointer\.bin: is a pointer of Git LFS.*git lfs pull"):
        IndexedDataset(tmp_path / "pointer")
    (tmp_path / "gone.bin").symlink_to(prefix + ".bin")
    (tmp_path / "gone.idx").symlink_to(prefix + ".idx")
    assert len(IndexedDataset(tmp_path / "link")) == len(IndexedDataset(prefix))


def test_a_prefix_with_an_ending(tmp_path):
    prefix = sample(tmp_path / "a")
    with pytest.raises(UserError, match=rf"leave out the ending: {prefix}$"):
        IndexedDataset(prefix + ".bin")


def test_trailing_bytes_need_permission(tmp_path):
    prefix = sample(tmp_path / "a")
    tokens = IndexedDataset(prefix).tokens.tolist()
    with open(prefix + ".bin", "ab") as file:
        file.write(b"\x01\x00\x02")
    with pytest.raises(UserError, match=r"Megatron-DeepSpeed's --append-eod .* --allow-trailing-bytes"):
        IndexedDataset(prefix)
    assert IndexedDataset(prefix, allow_trailing_bytes=True).tokens.tolist() == tokens


def test_validate_finds_what_opening_does_not(tmp_path):
    prefix = str(tmp_path / "a")
    with IndexedDatasetBuilder(prefix, np.uint16) as builder:
        builder.add_documents(np.zeros(20000, np.uint16), np.full(10000, 2))
    IndexedDataset(prefix).validate()
    edit(prefix + ".idx", HEADER.size + 12 * 10000 + 8 * 33, struct.pack("<q", 9000))
    with pytest.raises(UserError, match="document 33 ends before it begins"):
        IndexedDataset(prefix).validate()
    edit(prefix + ".idx", HEADER.size + 4 * 10000 + 8 * 33, struct.pack("<q", 40000))
    dataset = IndexedDataset(prefix)
    with pytest.raises(UserError, match="sequence 33 does not begin where"):
        dataset.validate()
    with pytest.raises(UserError, match="sequence 33 reaches outside"):
        dataset[33]


@settings(max_examples=150, deadline=None)
@given(
    ending=st.sampled_from([".idx", ".bin"]),
    keep=st.floats(0, 1.2),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=4),
)
def test_fuzzed_files_are_refused_or_read(tmp_path_factory, ending, keep, flips):
    prefix = sample(tmp_path_factory.mktemp("fuzz") / "a")
    with open(prefix + ending, "rb") as file:
        data = bytearray(file.read())
    for place, bit in flips:
        data[int(place * (len(data) - 1))] ^= 1 << bit
    size = min(int(keep * len(data)), len(data))
    with open(prefix + ending, "wb") as file:
        file.write(data[:size])
    try:
        dataset = IndexedDataset(prefix)
        fingerprint(dataset)
        dataset.validate()
    except UserError:
        return
    assert [len(array) for array in dataset[:]] == dataset.sequence_lengths.tolist()
    assert sum(map(len, dataset[:])) == len(dataset.tokens)


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 30), max_size=20), longest=st.integers(1, 12))
def test_long_documents_become_several_sequences(tmp_path_factory, lengths, longest):
    prefix = tmp_path_factory.mktemp("cut") / "data"
    tokens = np.arange(sum(lengths), dtype=np.uint16)
    with IndexedDatasetBuilder(prefix, np.uint16, longest) as builder:
        builder.add_documents(tokens, lengths)
    dataset = IndexedDataset(prefix)
    dataset.validate()
    assert dataset.tokens.tolist() == tokens.tolist()
    wanted = [[min(longest, length - first) for first in range(0, length, longest)] for length in lengths]
    assert dataset.sequence_lengths.tolist() == list(itertools.chain(*wanted))
    assert dataset.document_indices.tolist() == np.cumsum([0, *map(len, wanted)]).tolist()


def test_a_path_that_is_no_dataset_names_those_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a_text_document", "a_title_document", "v1.5_text_document", "folder/b"):
        build(name, [[[1]]])
    os.mkdir("empty")
    for name in ("a.jsonl", "c.jsonl", "part-0.npy"):
        open(name, "w").close()
    told = {
        "a": "no dataset here, a.bin and a.idx do not exist; there are a_text_document, a_title_document",
        "a.jsonl": "a.jsonl.idx do not exist; there are a_text_document, a_title_document",
        "v1.5": "no dataset here, v1.5.bin and v1.5.idx do not exist; there is v1.5_text_document",
        "folder": "folder: is a folder, no dataset; there is folder/b",
        "folder/": "folder/: is a folder, no dataset; there is folder/b",
        "empty": "empty: is a folder, no dataset; give the common path of both files",
        "c.jsonl": "do not exist; make one of this text with tools/preprocess_data.py",
        "part-0.npy": ".npy is not read; make one of the texts that it came from with tools/preprocess",
        "a_text_document.bin": "leave out the ending: a_text_document",
        "0.5 a_text_document 0.5 folder/b": "in a YAML file as a list: [0.5, a_text_document, 0.5, folder/b]",
        "[0.5,a_text_document, 0.5,'folder/b']": "as a word of its own: 0.5 a_text_document 0.5 folder/b",
        "a_text_document,folder/b": "as a word of its own: a_text_document folder/b",
        "no, nowhere": "give the common path of both files",
        "a_text_documnet": "do not exist; did you mean a_text_document?",
        "./a_text_documents": "did you mean ./a_text_document?",
        "foldr/b": "did you mean folder/b?",
        "validation=['a', 'b']": "by its own flag, as --valid-data-path has them",
        "30%": "do not exist; a weight is a number alone, such as 0.3 or 30, before every prefix",
        "0,5": "do not exist; a weight is a number alone, such as 0.3 or 30, before every prefix",
        "0.5O": "do not exist; a weight is a number alone, such as 0.3 or 30, before every prefix",
        "0.5": "do not exist; a number is a weight where one stands before every prefix: W1 P1 W2 P2",
        "nowhere/b": "give the common path of both files",
    }
    for prefix, words in told.items():
        with pytest.raises(UserError) as error:
            IndexedDataset(prefix)
        assert words in str(error.value)


def test_more_datasets_than_are_named(tmp_path):
    for number in range(5):
        build(tmp_path / f"{number}_text_document", [[[1]]])
    with pytest.raises(UserError, match=r"is a folder.* there are .*/0_.*/1_.*/2_text_document and 2 more"):
        IndexedDataset(str(tmp_path))
