# SPDX-License-Identifier: BSD-3-Clause
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.data.records import DataSetError, Record, Records, parse_record
from mlimages_jax.inference import images_of_set
from mlimages_jax.inference.image_source import ImageFiles, ImageSourceError, open_images
from mlimages_jax.labels.list_rows import parse_row
from tests.support import image_files, user_folder
from tests.support.small_run import ROOT
from tfds_builders import shapes


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return shapes.build(tmp_path_factory.mktemp("data"), num_train=4, num_val=9, size=32)


def _list(folder, text, name="list.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _rows(path, **arguments):
    images = open_images(path, **arguments)
    return [(images.names[i], images.labels(i)) for i in range(len(images))]


def test_a_persons_folder(tmp_path, caplog):
    user_folder.write_folder(tmp_path)
    caplog.set_level("INFO", logger="absl")
    images = open_images(tmp_path)
    assert list(images.names) == user_folder.NAMES
    assert [images.read(i) for i in range(len(images))] == user_folder.contents()
    assert [images.labels(i) for i in range(len(images))] == [""] * len(images)
    assert not images.has_labels
    assert not images.built
    (line,) = caplog.messages
    assert "ignored 5 other files and folders (" in line
    assert all(kind in line for kind in ("2 hidden", "2 .txt", "1 without extension"))


def test_the_order_is_that_of_the_paths_whatever_the_disk_says(tmp_path, monkeypatch):
    for name in ("b.jpg", "a/z.jpg", "a.jpg", "a-b.jpg", "B.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    expected = ["B.jpg", "a-b.jpg", "a.jpg", "a/z.jpg", "b.jpg"]
    assert list(open_images(tmp_path).names) == expected
    walk = os.walk

    def backwards(*arguments, **named):
        for root, folders, files in walk(*arguments, **named):
            folders.sort(reverse=True)
            yield root, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert list(open_images(tmp_path).names) == expected


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("a.jpg", ("a.jpg", "")),
        ("  a.jpg  ", ("a.jpg", "")),
        ("a.jpg\t3:1\t5:0.5", ("a.jpg", "3:1\t5:0.5")),
        ("a.jpg\t", ("a.jpg", "")),
        ("a.jpg 7", ("a.jpg", "7")),
        ("sub/a.JPEG 7 8", ("sub/a.JPEG", "7 8")),
        ("my photo.jpg 3", ("my photo.jpg", "3")),
        ("my photo.jpg", ("my photo.jpg", "")),
        ("a.jpg b.png", ("a.jpg", "b.png")),
        ("a.jpgs.png 4", ("a.jpgs.png", "4")),
        ("my photo\t3", ("my photo", "3")),
        ("my photo.jpg of you.jpg\t3", ("my photo.jpg of you.jpg", "3")),
        ("n01440764_10026 0", ("n01440764_10026", "0")),
        ("Käse.jpg 1", ("Käse.jpg", "1")),
    ],
)
def test_lines_of_a_list(tmp_path, line, row):
    assert _rows(_list(tmp_path, line)) == [row]


def test_blank_lines_marks_and_ends_of_lines_are_no_images(tmp_path):
    path = _list(tmp_path, b"\xef\xbb\xbfa.jpg\t1\r\n\r\n  \nb.jpg\na.jpg")
    assert _rows(path) == [("a.jpg", "1"), ("b.jpg", ""), ("a.jpg", "")]
    assert open_images(path).has_labels
    assert not open_images(_list(tmp_path, "a.jpg\nb.jpg\n")).has_labels


def test_the_originals_list_has_no_second_column(tencent_dir):
    images = open_images(tencent_dir / "im_list_for_classification.txt", images_root="/")
    assert list(images.names) == [f"data/images/im_{i}.jpg" for i in range(4)]


def test_where_paths_of_a_list_begin(tmp_path, caplog):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.jpg").write_bytes(b"beside the list")
    (tmp_path / "a.jpg").write_bytes(b"under the root")
    path = _list(tmp_path / "lists", f"a.jpg\n{tmp_path / 'a.jpg'}\ngone.jpg\n../lists\n")
    beside = open_images(path)
    assert [beside.read(0), beside.read(1)] == [b"beside the list", b"under the root"]
    assert open_images(path, images_root=tmp_path).read(0) == b"under the root"
    assert not caplog.messages
    with pytest.raises(BadImage, match="there is no such file") as missing:
        beside.read(2)
    with pytest.raises(BadImage, match="directory") as unreadable:
        beside.read(3)
    assert (missing.value.reason, unreadable.value.reason) == ("missing", "unreadable")
    assert str(tmp_path) not in str(missing.value), "the same on every machine"
    open_images(_list(tmp_path, "x.jpg\ny.jpg\n"))
    assert "none of its first 2 images" in caplog.messages[-1]


def test_one_image_by_its_name_or_its_bytes(tmp_path):
    for name, data in (("broken.jpg", b"no image"), ("photo", image_files.by_pillow("PNG"))):
        (tmp_path / name).write_bytes(data)
        images = open_images(tmp_path / name)
        assert list(images.names) == [name]
        assert images.read(0) == data
    assert _rows(_list(tmp_path, "a.jpg\n", name="list")) == [("a.jpg", "")]


def test_names_that_are_not_unicode_are_read_and_shown(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(raw, "wb") as file:  # noqa: PTH123 a path of bytes
        file.write(b"x")
    for images in (
        open_images(tmp_path),
        open_images(_list(tmp_path, b"caf\xe9.jpg \xe9\n", name="list")),
    ):
        assert images.names[0] == r"caf\xe9.jpg"
        assert images.read(0) == b"x"
    assert images.labels(0) == r"\xe9"


@pytest.mark.parametrize("index", [-1, 1])
def test_positions_outside_are_refused(tmp_path, index):
    with pytest.raises(IndexError, match=f"image {index} of 1"):
        open_images(_list(tmp_path, "a.jpg")).read(index)


def test_a_built_set(built, monkeypatch):
    images = open_images(built, split="val")
    records = [parse_record(data) for data in DataSet.open(built).records("val")]
    assert images.built
    assert images.has_labels
    assert [images.read(i) for i in range(len(images))] == [r.jpeg for r in records]
    monkeypatch.setattr(Records, "__getitem__", None)  # names are remembered
    assert [images.names[i] for i in range(len(images))] == [r.name for r in records]
    for i, record in enumerate(records):
        row = parse_row(f"x\t{images.labels(i)}".encode(), DataSet.open(built).num_classes)
        assert row.classes.tolist() == record.labels.tolist()
        assert row.confidences.tolist() == record.confidences.tolist()


def test_labels_of_a_set_are_as_exact_as_its_records():
    confidences = np.array([1, -1, 0, 0.7, 1 / 3, 1e-7], np.float32)
    record = Record("a.jpg", b"", np.arange(6, dtype=np.int32) * 7, confidences)
    text = images_of_set._as_text(record)
    assert text.startswith("0:1\t7:-1\t14:0\t21:0.7\t28:0.33333")
    row = parse_row(f"a.jpg\t{text}".encode(), 100)
    assert row.classes.tolist() == record.labels.tolist()
    np.testing.assert_array_equal(row.confidences, confidences)


def test_names_of_a_set_are_read_when_they_are_not_remembered(built, monkeypatch):
    monkeypatch.setattr(images_of_set, "_REMEMBERED", 3)
    images = open_images(built, split="val")
    names = [parse_record(data).name for data in DataSet.open(built).records("val")]
    for i in range(9):
        images.read(i)
    assert len(images._seen) == 3
    assert [images.names[i] for i in range(9)] == names
    assert len(images._seen) == 3
    with pytest.raises(IndexError, match="image 9 of 9"):
        images.names[9]


def test_many_threads_read(built, tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.jpg").write_bytes(bytes([i]) * 1_000)
    for images in (open_images(tmp_path), open_images(built, split="val")):
        alone = [images.read(i) for i in range(9)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(images.read, [*range(9)] * 20)) == alone * 20
            assert list(pool.map(images.names.__getitem__, range(9))) == list(images.names)


def test_other_images_at_the_same_path_are_noticed(built, tmp_path):
    digests = [open_images(built, split=split).digest for split in ("train", "val")]
    for text in ("a.jpg\nb.jpg", "b.jpg\na.jpg", "a.jpg"):
        digests.append(open_images(_list(tmp_path, text)).digest)
    assert len(set(digests)) == 5
    assert all(bytes.fromhex(digest) for digest in digests)
    assert open_images(_list(tmp_path, "a.jpg\t3")).digest == digests[-1]


def test_what_cannot_be_read_is_explained(built, tmp_path):
    empty, text, images = tmp_path / "empty", tmp_path / "text", tmp_path / "images"
    for folder in (empty, text, images):
        folder.mkdir()
    (text / "notes.txt").write_text("no image")
    (images / "a.jpg").write_bytes(b"x")
    cases = [
        ({"path": tmp_path / "gone"}, FileNotFoundError, "gone does not exist: give a folder"),
        ({"path": empty}, ImageSourceError, "contains no image: give"),
        ({"path": text}, ImageSourceError, r"contains no image; ignored 1 other .* \(1 .txt\)"),
        ({"path": _list(tmp_path, "\n \n")}, ImageSourceError, "names no image"),
        ({"path": _list(tmp_path, b"PK\3\4\0\0", "a.zip")}, ImageSourceError, "a ZIP archive"),
        ({"path": _list(tmp_path, b"a.jpg\0", "nul.txt")}, ImageSourceError, "nor a text file"),
        ({"path": images, "split": "val"}, ImageSourceError, "so it has no split 'val'"),
        ({"path": images, "images_root": "x"}, ImageSourceError, "is for lists only"),
        ({"path": images / "a.jpg", "images_root": "x"}, ImageSourceError, "lists only"),
        ({"path": built}, ImageSourceError, r"name one of its splits \(train, val\)"),
        ({"path": built, "split": "test"}, DataSetError, "has no split 'test'"),
        ({"path": built, "images_root": "x"}, ImageSourceError, "built set: images_root is"),
        (
            {"path": _list(tmp_path, "a.jpg", "b.txt"), "images_root": tmp_path / "gone"},
            ImageSourceError, "images_root=.*gone.* is not a folder",
        ),
    ]  # fmt: skip
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            open_images(**arguments)


def test_a_folder_that_may_not_be_searched_is_named(tmp_path, monkeypatch, caplog):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"x")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    caplog.set_level("INFO", logger="absl")
    closed = "closed"
    assert list(open_images(tmp_path).names) == ["a.jpg"]
    assert "(1 unreadable folder)" in caplog.messages[-1]
    closed = str(tmp_path)
    with pytest.raises(ImageSourceError, match=r"\(Permission denied\): make it readable"):
        open_images(tmp_path)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_names_of_a_list_mean_files(tmp_path, line_end):
    files = ["a\tb.jpg", "my  photo.jpg", "Screenshot 12:30:15.png", "cafe\u0301/a.jpg",
             "a\xa0b.jpg"]  # fmt: skip
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    lines = [r"a\x09b.jpg", "my  photo.jpg 3", "Screenshot 12:30:15.png 3:1", "caf\xe9\\a.jpg",
             "a\xa0b.jpg\t7"]  # fmt: skip
    images = open_images(_list(tmp_path, line_end.join(["\ufeff" + lines[0], *lines[1:]])))
    assert [images.read(i) for i in range(5)] == [name.encode() for name in files]
    assert [images.labels(i) for i in range(5)] == ["", "3", "3:1", "", "7"]


def test_files_that_are_none_are_errors_of_their_own(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "Cat.JPG").write_bytes(b"x")
    names = ["fifo.jpg", "cat.jpg", r"a\x00b.jpg", "x" * 5000]
    images = open_images(_list(tmp_path, "\n".join(names)))
    reasons = []
    for index in range(4):
        with pytest.raises(BadImage) as caught:
            images.read(index)
        reasons.append(f"{caught.value.reason}: {caught.value}")
    assert reasons[0] == "unreadable: not a regular file"
    assert reasons[1] == "missing: there is no such file; is it 'Cat.JPG'?"
    assert reasons[2].startswith("missing: no file can have this name")
    assert reasons[3] == "unreadable: File name too long"
    with pytest.raises(ImageSourceError, match="neither a file nor a folder"):
        open_images(tmp_path / "fifo.jpg")


def test_lists_of_other_encodings_are_named(tmp_path):
    with pytest.raises(ImageSourceError, match="UTF-16 text: save it as UTF-8"):
        open_images(_list(tmp_path, "a.jpg\n".encode("utf-16")))


def test_worker_processes_get_names_in_few_bytes(tmp_path):
    names = ["a/ü b.jpg", "", "\udcff", *(f"{number:029}.jpg" for number in range(1000))]
    stamps = np.ones((len(names), 2), np.int64)
    images = ImageFiles(tmp_path, names, [f"{name} 5:1" for name in names], stamps=stamps)
    sent = pickle.dumps(images)
    assert len(sent) < len(names) * (33 + 8) + 1_000
    received = pickle.loads(pickle.dumps(pickle.loads(sent)))
    assert list(received.names) == names and len(received) == len(names)
    assert not received.has_labels and received.labels(3) == ""
    (tmp_path / names[3]).write_bytes(b"1")
    assert received.read(3) == b"1"
    with pytest.raises(IndexError):
        received.names[-1]


def test_images_are_found_without_jax():
    code = (
        "import sys, mlimages_jax.inference.image_source; "
        "print([name for name in ('jax', 'flax', 'grain', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
