"""Image folders, ImageNet's layout and CIFAR's files become splits of samples; odd files get one line."""

import dataclasses
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from megatron.base.errors import UserError
from megatron.config.config import Config
from megatron.data.cifar import find_cifar
from megatron.data.corpora import identity
from megatron.data.image_folders import find_folders, read_labels
from megatron.data.image_splits import classes_of, open_images
from megatron.data.images import DAMAGED_EXIF, ImageCorpus, in_mode, read_image, upright
from tests.support.configurations import make_config

SIZE = 6


def save(path: Path, shade: int = 0, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (SIZE, SIZE), shade).convert(mode).save(path)


def folder_of(root: Path, counts: dict[str, int], start: int = 0) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        for place in range(count):
            save(root / name / f"{place}.png", start + number)
    return root


def opened(flags: str) -> dict[str, list[ImageCorpus]]:
    splits = open_images(_config(flags))
    return {split: [corpus for _, corpus in blend] for split, blend in splits.items()}  # type: ignore[misc]


def _config(flags: str) -> Config:
    config = make_config(flags)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, mock_data=False))


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        make()
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem


def shades(corpus: ImageCorpus) -> list[int]:
    return [read_image(corpus, sample, 1).getpixel((0, 0)) for sample in range(corpus.windows)]


def test_shares_of_one_folder_are_fair_samples_that_do_not_depend_on_its_path(tmp_path: Path) -> None:
    counts = {"cat": 40, "dog": 60, "emu": 100}
    one, other = (folder_of(tmp_path / name, counts) for name in ("one", "two"))
    splits = [opened(f"--data-path {root} --split 80,10,10") for root in (one, other)]
    sizes = {split: corpora[0].windows for split, corpora in splits[0].items()}
    assert sizes == {"train": 160, "valid": 20, "test": 20}
    for split in sizes:
        (mine,), (theirs,) = splits[0][split], splits[1][split]
        assert np.array_equal(mine.order, theirs.order) and mine.source == theirs.source
        assert shades(mine) == mine.labels.tolist() and mine.classes == ("cat", "dog", "emu")
    parts = np.concatenate([splits[0][split][0].order for split in sizes])
    assert sorted(parts) == list(range(200))
    held_out = splits[0]["valid"][0].labels
    assert len(np.unique(held_out)) == 3
    ranges = [identity(splits[0][split][0])["sequences"] for split in sizes]
    assert ranges == [[0, 160], [160, 180], [180, 200]]


def test_train_and_val_are_taken_as_they_are(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", {"a": 3, "b": 4})
    folder_of(tmp_path / "val", {"b": 2}, start=1)
    (tmp_path / "val" / "a").mkdir()
    save(tmp_path / "val" / "b" / ".hidden.png")
    (tmp_path / "val" / "b" / "notes.txt").write_text("no image")
    splits = opened(f"--data-path {tmp_path}")
    assert [len(splits[split]) for split in ("train", "valid", "test")] == [1, 1, 0]
    (held_out,) = splits["valid"]
    assert held_out.windows == 2 and held_out.labels.tolist() == shades(held_out) == [1, 1]
    folder_of(tmp_path / "val", {"c": 1})
    line = refused(lambda: opened(f"--data-path {tmp_path}"))
    assert line.startswith(f"{tmp_path}: has images of c, which training has none of")


@pytest.mark.parametrize(
    ("train", "held_out", "split"),
    [
        ("Train", "Val", "valid"),
        ("TRAIN", "Validation", "valid"),
        ("train", "dev", "valid"),
        ("Training", "Testing", "test"),
    ],
)
def test_parts_are_known_by_other_names_and_in_any_case(
    train: str, held_out: str, split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else they are classes of their own, or are left out."""
    folder_of(tmp_path / train, {"a": 2, "b": 2})
    folder_of(tmp_path / held_out, {"a": 1, "b": 1})
    folder_of(tmp_path / "more", {"a": 1})
    (tmp_path / "notes").mkdir()
    found = find_folders(tmp_path)
    assert {name: part.classes for name, part in found.items()} == {"train": ("a", "b"), split: ("a", "b")}
    assert f"more beside {train} left out" in capsys.readouterr().out


def test_splits_may_be_named_one_by_one_and_blended(tmp_path: Path) -> None:
    folder_of(tmp_path / "x", {"a": 3, "b": 4})
    folder_of(tmp_path / "y", {"b": 5, "c": 6}, start=1)
    flags = f"--train-data-path 3 {tmp_path}/x 1 {tmp_path}/y --valid-data-path {tmp_path}/y"
    splits = opened(flags)
    assert [corpus.classes for corpus in splits["train"]] == [("a", "b", "c")] * 2
    for corpus in (*splits["train"], *splits["valid"]):
        assert shades(corpus) == corpus.labels.tolist()


def test_parts_of_classes_and_of_their_images(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", {"a": 10, "b": 20, "c": 1, "d": 4})
    folder_of(tmp_path / "val", {"a": 3, "d": 3})
    splits = opened(f"--data-path {tmp_path} --classes-fraction 0.75 --data-per-class-fraction 0.3")
    (train,), (valid,) = splits["train"], splits["valid"]
    assert train.classes == valid.classes == ("a", "b", "c")
    assert np.bincount(train.labels).tolist() == [3, 6, 1] and np.bincount(valid.labels).tolist() == [3]
    whole = opened(f"--data-path {tmp_path}")["train"][0]
    assert set(train.order) < set(whole.order)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda root: None, "holds no image; name a folder with a folder for each class"),
        (lambda root: save(root / "a.png"), "its images lie in no folders of classes; put those of every"),
        (lambda root: (save(root / "a" / "1.png"), save(root / "b.png")), "lies beside folders of classes"),
        (lambda root: (save(root / "train/a/1.png"), (root / "train/b").mkdir()), "b: holds no image"),
        (lambda root: (save(root / "train/a/1.png"), save(root / "val/1.png")), "by --valid-labels"),
    ],
)
def test_odd_folders_get_one_line(make: Callable[[Path], object], line: str, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    make(root)
    assert line in refused(lambda: find_folders(root))
    assert "is no folder; did you mean" in refused(lambda: find_folders(tmp_path / "picturez"))


def test_a_part_in_small_letters_comes_before_one_in_others(tmp_path: Path) -> None:
    for name in ("Train", "train", "TRAIN"):
        folder_of(tmp_path / name, {"a": 1})
    assert find_folders(tmp_path)["train"].folder == tmp_path / "train"


def test_what_is_left_out_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = folder_of(tmp_path, {"a": 2})
    (root / "a" / "notes.txt").touch()
    find_folders(root)
    shutil.move(root / "a" / "0.png", root / "0.png")
    shutil.rmtree(root / "a")
    (root / "notes.txt").touch()
    refused(lambda: find_folders(root))
    assert capfd.readouterr().err.count("1 file of another kind left out") == 2


def test_labels_that_nothing_needs_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a": 9, "b": 9})
    line = refused(lambda: opened(f"--data-path {tmp_path} --split 80,10,10 --valid-labels val.txt"))
    assert line.startswith("--valid-labels val.txt: is not used, as all images lie in folders of classes")


def test_colours_of_lab_are_read() -> None:
    image = Image.new("LAB", (SIZE, SIZE), (255, 128, 128))
    for mode, wanted in (("L", 255), ("RGB", (255, 255, 255))):
        seen = in_mode(image, mode).getpixel((0, 0))
        assert np.allclose(seen, wanted, atol=1)


def imagenet(root: Path) -> Path:
    """Its layout: wnids, and validation images in one folder."""
    folder_of(root / "train", {"n02": 2, "n01": 2, "n03": 2})
    for number in (1, 2, 3, 4):
        save(root / f"val/ILSVRC2012_val_{number:08d}.JPEG")
    return root


@pytest.mark.parametrize("kind", ["kaggle", "caffe", "names", "devkit"])
def test_classes_of_imagenets_validation_are_read_in_every_form(kind: str, tmp_path: Path) -> None:
    root, path = imagenet(tmp_path), tmp_path / "labels.txt"
    wanted = ["n03", "n01", "n01", "n02"]
    stems = [f"ILSVRC2012_val_{number:08d}" for number in (1, 2, 3, 4)]
    if kind == "kaggle":
        rows = [f"{stem},{name} 1 2 3 4 " for stem, name in zip(stems, wanted)]
        path.write_text("ImageId,PredictionString\n" + "\n".join(rows[::-1]))
    elif kind == "caffe":
        rows = [f"{stem}.JPEG {int(name[1:]) - 1}" for stem, name in zip(stems, wanted)]
        path.write_text("\n".join(rows))
    elif kind == "names":
        path.write_text("\n".join(wanted))
    else:
        from scipy.io import savemat

        ids = {"n01": 3, "n02": 1, "n03": 2}
        fields = [("ILSVRC2012_ID", object), ("WNID", object)]
        synsets = np.array([(number, name) for name, number in ids.items()], dtype=fields)
        savemat(tmp_path / "meta.mat", {"synsets": synsets})
        path.write_text("\n".join(str(ids[name]) for name in wanted))
    parts = find_folders(root, str(path))
    held_out = parts["valid"]
    assert [held_out.classes[label] for label in held_out.labels] == wanted


def test_labels_that_do_not_fit_get_one_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    for text, line in (
        ("a\nb\n", "tells 2 classes, and there are 3 images"),
        ("1 a\n\n2\n", ":3: must be an image and its class, not '2'"),
        (
            "1 a\n2," + '"' + "b" * 140_000,
            ":2: cannot be read (field larger than field limit (131072)); mend",
        ),
        ("1 a\n2 b\n", "tells no class of 3"),
        ("1\n2\n3\n", "whose meta.mat is not beside it"),
    ):
        path.write_text(text)
        assert line in refused(lambda: read_labels(path, ["1", "2", "3"]))
    (tmp_path / "meta.mat").write_text("no matrices")
    assert "does not name the classes" in refused(lambda: read_labels(path, ["1", "2", "3"]))
    assert "is no file; did you mean" in refused(lambda: read_labels(tmp_path / "label.txt", ["1"]))


def cifar(root: Path, hundred: bool = False, count: int = 5) -> np.ndarray:
    """Files as they are packed; the labels of all training images."""
    root.mkdir(exist_ok=True)
    generator = np.random.default_rng(2)
    names = (
        ["train.bin", "test.bin"] if hundred else [f"data_batch_{n}.bin" for n in (1, 2)] + ["test_batch.bin"]
    )
    labels = []
    for name in names:
        classes = generator.integers(0, 100 if hundred else 10, (count, 1), dtype=np.uint8)
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        pixels[:, [0, 1024, 2048]] = classes * 2 + np.array([0, 1, 2], np.uint8)
        first = [np.zeros_like(classes)] if hundred else []
        np.concatenate([*first, classes, pixels], 1).tofile(root / name)
        labels.append(classes[:, 0])
    return np.concatenate(labels[:-1])


@pytest.mark.parametrize("hundred", [False, True])
def test_binary_files_of_cifar(hundred: bool, tmp_path: Path) -> None:
    labels = cifar(tmp_path, hundred)
    splits = opened(f"--data-path {tmp_path}")
    (train,), (valid,) = splits["train"], splits["valid"]
    assert train.windows == len(labels) and valid.windows == 5 and not splits["test"]
    assert sorted(train.labels) == sorted(labels)
    for sample in range(train.windows):
        image = read_image(train, sample, 3)
        assert image.size == (32, 32)
        assert image.getpixel((0, 0)) == tuple(2 * train.labels[sample] + place for place in range(3))


def test_names_of_cifar_and_its_damage(tmp_path: Path) -> None:
    cifar(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("\n".join(f"thing{n}" for n in range(10)) + "\n\n")
    assert find_cifar(tmp_path)["train"].classes[3] == "thing3"
    (tmp_path / "batches.meta.txt").write_text("a b c")
    assert "names 3 classes instead of 10" in refused(lambda: find_cifar(tmp_path))
    (tmp_path / "batches.meta.txt").unlink()
    path = tmp_path / "data_batch_2.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "no multiple of the 3,073 of an image" in refused(lambda: find_cifar(tmp_path))
    path.write_bytes(b"\x63" + whole[1:])
    assert "image 0 is of class 99, and there are 10" in refused(lambda: find_cifar(tmp_path))


def test_pickles_of_cifar_are_refused_unread(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    for name in ("data_batch_1", "batches.meta"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    line = refused(lambda: find_cifar(tmp_path))
    assert "pickles are never read" in line and "cifar-10-binary.tar.gz" in line
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("value", "seen"), [(200, 200), (255, 255), (200 * 256 + 99, 200), (1 << 20, 255)])
def test_numbers_of_32_bits_may_be_of_8(value: int, seen: int) -> None:
    image = Image.fromarray(np.full((4, 4), value, np.int32))
    assert image.mode == "I" and in_mode(image, "L").getpixel((1, 1)) == seen


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_every_kind_of_image_comes_in_eight_bits_a_channel(mode: str, wanted: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 200 * 256 + 99, np.uint16))
    else:
        image = Image.new("L", (4, 4), 255 if mode == "1" else 200).convert(mode)
    changed = in_mode(image, wanted)
    assert changed.mode == wanted
    shade = np.asarray(changed).astype(int)
    assert abs(shade - (255 if mode == "1" else 200)).max() <= 2


def test_a_file_that_is_no_image_stops_or_is_replaced_by_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of(tmp_path, {"a": 3, "b": 3})
    bad = tmp_path / "a" / "1.png"
    bad.write_bytes(b"no image")
    (corpus,) = opened(f"--data-path {tmp_path} --split 1")["train"]
    (sample,) = [n for n, place in enumerate(corpus.order) if corpus.images.name(place) == str(bad)]
    line = refused(lambda: read_image(corpus, sample, 3))
    assert line.startswith(f"{bad}: cannot be decoded") and "--on-bad-image next" in line
    found = read_image(corpus, sample, 3, bad_is_next=True)
    after = read_image(corpus, (sample + 1) % 6, 3)
    assert np.array_equal(np.asarray(found), np.asarray(after))
    assert "the next image takes its place" in capsys.readouterr().out
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    assert "none of its images can be decoded" in refused(lambda: read_image(corpus, 0, 3, True))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_get_one_line_and_no_other_exception(data: st.DataObject, tmp_path_factory) -> None:
    root = tmp_path_factory.mktemp("damaged")
    ending = data.draw(st.sampled_from(["png", "jpg", "gif", "bmp", "webp", "tif", "ppm"]))
    path = root / "a" / f"1.{ending}"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    (corpus,) = opened(f"--data-path {root} --split 1")["train"]
    try:
        assert read_image(corpus, 0, 3).mode == "RGB"
    except UserError as error:
        assert len(error.problems) == 1 and str(path) in error.problems[0]


def test_the_same_classes_in_another_order_are_renumbered(tmp_path: Path) -> None:
    folder_of(tmp_path, {"b": 2, "c": 2})
    splits = open_images(_config(f"--data-path {tmp_path} --split 0,0,1"))
    assert not splits["train"] and classes_of(splits) == ("b", "c")


def test_photographs_are_turned_as_they_are_shown(tmp_path: Path) -> None:
    """The camera was held on its side: what is on the left of the file is on top."""
    for number, name in enumerate("ab"):
        image = Image.new("L", (4, 2), 10)
        image.paste(200, (0, 0, 2, 2))
        exif = Image.Exif()
        exif[274] = 6
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / f"{number}.png", exif=exif)
    found = read_image(opened(f"--data-path {tmp_path} --split 1,0,0")["train"][0], 0, 1)
    assert found.size == (2, 4) and found.getpixel((0, 0)) == 200 and found.getpixel((0, 3)) == 10


def test_an_upright_image_is_not_copied() -> None:
    image = Image.new("L", (2, 2))
    assert upright(image) is image


def test_warnings_of_damaged_exif_data_are_known() -> None:
    for line in (
        "Corrupt EXIF data.  Expecting",
        "Possibly corrupt EXIF MakerNote",
        "Tag data larger than file.",
    ):
        assert re.match(DAMAGED_EXIF, line, re.IGNORECASE)


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("\ufeff1.png,cat\r\n2.png,dog\r\n", ["cat", "dog"]),
        ('1.png,"golden retriever"\n2.png,great dane\n', ["golden retriever", "great dane"]),
        ("1.png\tn01\t0\t32\t44\t62\n2.png\tn02\t1\t2\t3\t4\n", ["n01", "n02"]),
        ("1,n01 1 2 3 4 n01 5 6 7 8\n2,n02 1 2 3 4\n", ["n01", "n02"]),
        ("\ufeffcat\ndog\n", ["cat", "dog"]),
        ('"great white shark, white shark"\ntench\n', ["great white shark, white shark", "tench"]),
        ('"tiger shark"\n"a, b"\n', ["tiger shark", "a, b"]),
        ("1.png tench, Tinca\n2 great, white\n", ["tench,", "great,"]),
        ("1.png\ta, b\n2\tc, d\n", ["a, b", "c, d"]),
        ("ImageId,PredictionString\n1,n01 1 2 3 4\n2,n02 1 2 3 4\n3,n03\n", ["n01", "n02"]),
    ],
)
def test_tables_of_other_programs_are_read(text: str, classes: list[str], tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_labels(path, ["1", "2"]) == classes


def test_names_of_images_may_hold_spaces_and_dots(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("my cat.jpg,cat\nv1.5,dog\nv1.6.png,dog\n")
    assert read_labels(path, ["my cat", "v1.5", "v1.6"]) == ["cat", "dog", "dog"]
