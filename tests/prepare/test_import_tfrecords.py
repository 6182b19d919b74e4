# SPDX-License-Identifier: BSD-3-Clause
"""Hand-made .tfrecords, good and bad, and the original's, to the files the builder reads."""

import hashlib
import json
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tyro
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.decode import read_header
from mlimages_jax.data.records import parse_record
from mlimages_jax.labels.lists import read_label_list
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.check.command import check
from mlimages_jax.prepare.imports.original_examples import (
    OTHER_CLASSES,
    UnusableRecordError,
    parse_example,
)
from mlimages_jax.prepare.imports.tfrecords import import_tfrecords
from tests.support import image_files
from tests.support.five_classes import CLASS_LIST
from tfds_builders import ml_images

QUADRANTS = image_files.jpeg(image_files.quadrants())
NOISE = image_files.jpeg(image_files.noise())
HEADER = "file\trecord\tname\tproblem\tmessage"


def dense(**confidences: float) -> bytes:
    """float32 [5]; dense(c1=0.9)."""
    label = np.zeros(5, "<f4")
    for name, value in confidences.items():
        label[int(name[1:])] = value
    return label.tobytes()


def example(name: str | bytes, image: bytes, label: bytes | int) -> bytes:
    message = tf_example_pb2.Example()
    feature = message.features.feature
    feature["name"].bytes_list.value.append(name.encode() if isinstance(name, str) else name)
    feature["image"].bytes_list.value.append(image)
    feature["width"].int64_list.value.append(64)
    feature["height"].int64_list.value.append(32)
    if isinstance(label, int):
        feature["label"].int64_list.value.append(label)
    else:
        feature["label"].bytes_list.value.append(label)
    return message.SerializeToString(deterministic=True)


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


@pytest.fixture
def run(tmp_path):
    """Writes records into files, each a list of them or bytes, and imports these."""
    (tmp_path / "dictionary").write_text(CLASS_LIST)

    def run(*contents: list[bytes] | bytes, **options: object) -> Path:
        files = []
        for number, content in enumerate(contents):
            files.append(tmp_path / f"{number}.tfrecords")
            data = content if isinstance(content, bytes) else b"".join(map(frame, content))
            files[-1].write_bytes(data)
        defaults = {
            "output": tmp_path / "set", "split": "train", "dictionary": tmp_path / "dictionary",
        }  # fmt: skip
        import_tfrecords(files, **defaults | options)
        return tmp_path / "set"

    return run


def problems(folder: Path, split: str = "train") -> list[tuple[str, str, str, str]]:
    """File, record, name and problem of each row."""
    header, *rows = (folder / f"{split}_import_problems.tsv").read_text().splitlines()
    assert header == HEADER
    columns = [row.split("\t") for row in rows]
    assert all(len(row) == 5 and row[4] for row in columns)
    return [(Path(row[0]).name, *row[1:4]) for row in columns]


def everything(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_records_become_a_list_and_image_files(run):
    folder = run(
        [
            example("red.jpg", QUADRANTS, dense(c2=0.9, c4=1, c0=-1)),
            example("n1/my dog.JPEG", NOISE, 1),
        ],
        [example("./none.jpg", NOISE, dense())],
    )
    assert everything(folder) == {
        "dictionary.txt": CLASS_LIST.encode(),
        "unlisted.txt": b"absent\n",
        "images/red.jpg": QUADRANTS,
        "images/n1/my dog.JPEG": NOISE,
        "images/none.jpg": NOISE,
        "train_image_list.txt": b"red.jpg\t0:-1\t2:0.9\t4:1\nn1/my dog.JPEG\t1:1\nnone.jpg\t\n",
        "train_import_problems.tsv": f"{HEADER}\n".encode(),
    }


def test_confidences_are_short_decimals_of_the_same_float32(run):
    values = [0.1, 1 / 3, 0.7, 1e-7, 0.95]
    label = np.array(values, "<f4")
    folder = run([example("a.jpg", QUADRANTS, label.tobytes())])
    row = read_label_list(folder / "train_image_list.txt", num_classes=5)[0]
    np.testing.assert_array_equal(row.confidences, label)
    assert (folder / "train_image_list.txt").read_text() == (
        "a.jpg\t0:0.1\t1:0.33333334\t2:0.7\t3:1e-07\t4:0.95\n"
    )


def test_threshold_keep_drops_small_positive_labels_only(run):
    label = dense(c0=-1, c1=0.1, c2=0.5, c3=0.51)
    folder = run([example("a.jpg", QUADRANTS, label)], threshold_keep=0.5)
    assert (folder / "train_image_list.txt").read_text() == "a.jpg\t0:-1\t2:0.5\t3:0.51\n"


def test_the_originals_records(golden_dir, tencent_dir, tmp_path):
    golden = json.loads((golden_dir / "tfrecords.json").read_text())["0.tfrecords"]
    dictionary = tencent_dir / "dictionary_and_semantic_hierarchy.txt"
    files = [tencent_dir / "tfrecords/0.tfrecords", tencent_dir / "tfrecords/1.tfrecords"]
    import_tfrecords(files, output=tmp_path, split="train", dictionary=dictionary)
    rows = read_label_list(tmp_path / "train_image_list.txt", num_classes=11_166)
    assert [row.name for row in rows] == ["im_2.jpeg", "im_3.jpeg", "im_0.jpeg", "im_1.jpeg"]
    assert len(golden) == 2
    for row, record in zip(rows, golden, strict=False):
        image = (tmp_path / "images" / row.name).read_bytes()
        header = read_header(image)
        assert row.name == record["name"]
        assert (header.width, header.height) == (record["width"], record["height"])
        assert len(image) == record["image_bytes"]
        assert hashlib.sha256(image).hexdigest() == record["image_sha256"]
        labels = dict(zip(map(str, row.classes.tolist()), row.confidences.tolist(), strict=True))
        assert labels == {key: np.float32(value) for key, value in record["labels"].items()}
    assert problems(tmp_path) == []


def test_bad_records_are_left_out_and_listed(run, capsys):
    good = example("good.jpg", QUADRANTS, 1)
    without_label = tf_example_pb2.Example.FromString(good)
    del without_label.features.feature["label"]
    two_images = tf_example_pb2.Example.FromString(good)
    two_images.features.feature["image"].bytes_list.value.append(NOISE)
    folder = run(
        [
            good,
            b"no example",
            without_label.SerializeToString(),
            two_images.SerializeToString(),
            example("text.jpg", image_files.HTML, 1),
            example("cut.jpg", image_files.truncated(NOISE), 1),
            example("class.jpg", QUADRANTS, 5),
            example("minus.jpg", QUADRANTS, -1),
            example("above.jpg", QUADRANTS, dense(c1=1.5)),
            example("nan.jpg", QUADRANTS, dense(c1=float("nan"))),
            example("other.jpg", QUADRANTS, bytes(24)),
            example(b"\xff.jpg", QUADRANTS, 1),
            example("good2.jpg", NOISE, 2),
        ]
    )
    assert [(record, name, problem) for _, record, name, problem in problems(folder)] == [
        ("1", "", "not_an_example"),
        ("2", "", "features"),
        ("3", "", "features"),
        ("4", "text.jpg", "not_an_image"),
        ("5", "cut.jpg", "truncated"),
        ("6", "class.jpg", "labels"),
        ("7", "minus.jpg", "labels"),
        ("8", "above.jpg", "labels"),
        ("9", "nan.jpg", "labels"),
        ("10", "other.jpg", OTHER_CLASSES),
        ("11", "", "name"),
    ]
    assert (folder / "train_image_list.txt").read_text() == "good.jpg\t1:1\ngood2.jpg\t2:1\n"
    assert sorted(path.name for path in (folder / "images").iterdir()) == ["good.jpg", "good2.jpg"]
    printed = capsys.readouterr().out
    assert "2 records are in" in printed
    assert "11 records were left out (4 labels, 2 features" in printed


UNSAFE = [
    "../up.jpg", "a/../../up.jpg", "/tmp/absolute.jpg", "..", ".", "", "/", "a\\..\\b.jpg",
    "a\0.jpg", "line\nend.jpg", "tab\t.jpg", "two  spaces.jpg", " space.jpg", "3:1", "\u202e.jpg",
    "x" * 201, "a/" + "x" * 201,
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_are_no_files_below_the_folder_are_refused(name):
    with pytest.raises(UnusableRecordError) as caught:
        parse_example(example(name, QUADRANTS, 1), num_classes=5)
    assert caught.value.reason == "name"


def test_an_unsafe_name_writes_nothing_anywhere(run, tmp_path):
    run([example(name, QUADRANTS, 1) for name in UNSAFE] + [example("good.jpg", QUADRANTS, 1)])
    images = {path for path in tmp_path.rglob("*") if path.suffix in (".jpg", ".unfinished")}
    assert images == {tmp_path / "set/images/good.jpg"}


def test_one_name_for_two_images_gives_two_files(run):
    records = [
        example("a/x.jpg", QUADRANTS, 1),
        example("a/x.jpg", NOISE, 2),  # another image
        example("a/x.jpg", QUADRANTS, 3),  # the first again: one file, two rows
        example("a/x.jpg", NOISE, 4),
        example("a", NOISE, 1),  # the name of a folder
        example("a/x.jpg/y.jpg", NOISE, 1),  # below a file
    ]
    folder = run(records)
    second = f"a/x-{hashlib.sha256(NOISE).hexdigest()[:16]}.jpg"
    assert (folder / "train_image_list.txt").read_text() == (
        f"a/x.jpg\t1:1\n{second}\t2:1\na/x.jpg\t3:1\n{second}\t4:1\n"
    )
    assert (folder / "images/a/x.jpg").read_bytes() == QUADRANTS
    assert (folder / "images" / second).read_bytes() == NOISE
    assert [row[1:] for row in problems(folder)] == [
        ("1", "a/x.jpg", "renamed"),
        ("3", "a/x.jpg", "renamed"),
        ("4", "a", "name"),
        ("5", "a/x.jpg/y.jpg", "name"),
    ]
    before = everything(folder)
    run(records, overwrite=True)
    assert everything(folder) == before


def test_a_damaged_file_costs_its_records_only(run):
    first, second = (frame(example(f"{name}.jpg", QUADRANTS, 1)) for name in "ab")
    wrong = bytearray(first + second)
    wrong[40] ^= 1
    folder = run(
        bytes(wrong), (first + second)[:-1], b"\x1f\x8b" * 50, [example("c.jpg", NOISE, 2)]
    )
    assert problems(folder) == [
        ("0.tfrecords", "0", "", "damaged"),
        ("1.tfrecords", "1", "", "damaged"),
        ("2.tfrecords", "0", "", "damaged"),
    ]
    assert (folder / "train_image_list.txt").read_text() == "b.jpg\t1:1\na.jpg\t1:1\nc.jpg\t2:1\n"
    text = (folder / "train_import_problems.tsv").read_text()
    assert f"1.tfrecords\t1\t\tdamaged\tbyte {len(first)}: truncated" in text
    assert "run gunzip" in text


def test_the_wrong_dictionary_is_an_error_at_once(run, tmp_path):
    records = [example("a.jpg", QUADRANTS, bytes(24)), example("b.jpg", QUADRANTS, 1)]
    with pytest.raises(PrepareError, match=r"0\.tfrecords: record 0: 24 bytes.* 5 classes"):
        run(records)
    assert not list(tmp_path.rglob("*image_list*"))
    assert not list((tmp_path / "set").rglob("dictionary*"))


def test_without_one_usable_record_there_is_no_list_but_a_table(run, tmp_path):
    with pytest.raises(PrepareError, match=r"no record is usable \(2 not_an_image\)"):
        run([example(name, b"text", 1) for name in "ab"])
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["train_import_problems.tsv"]
    assert len(problems(tmp_path / "set")) == 2


def test_a_list_is_replaced_only_when_told(run, tmp_path):
    folder = run([example("a.jpg", QUADRANTS, 1)])
    with pytest.raises(PrepareError, match="pass all files of a split to one command"):
        run([example("b.jpg", QUADRANTS, 1)])
    assert (folder / "train_image_list.txt").read_text() == "a.jpg\t1:1\n"
    run([example("b.jpg", QUADRANTS, 1)], overwrite=True, dictionary=None)  # the one of the folder
    assert (folder / "train_image_list.txt").read_text() == "b.jpg\t1:1\n"
    run([example("v.jpg", QUADRANTS, 2)], split="val")
    assert (folder / "val_image_list.txt").read_text() == "v.jpg\t2:1\n"


def test_a_run_that_ends_early_is_finished_by_the_next(run, tmp_path, monkeypatch):
    records = [example(f"{i}.jpg", (QUADRANTS, NOISE)[i % 2], i % 5) for i in range(9)]
    written = []
    write_bytes = Path.write_bytes

    def disk_full(path: Path, data: bytes) -> int:
        if path.parent.name == "images":
            written.append(path)
            if len(written) == 5:
                write_bytes(path, data[:100])
                raise OSError(28, "No space left on device")
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", disk_full)
        with pytest.raises(PrepareError, match="No space left"):
            run(records)
    images = tmp_path / "set/images"
    assert {path.name for path in images.glob("*.jpg")} == {f"{i}.jpg" for i in range(4)}
    assert not list(tmp_path.rglob("*image_list*"))
    times = {path: path.stat().st_mtime_ns for path in images.glob("*.jpg")}
    run(records)
    assert {path: path.stat().st_mtime_ns for path in times} == times  # not written again
    assert {path.name for path in images.iterdir()} == {f"{i}.jpg" for i in range(9)}
    rows = read_label_list(tmp_path / "set/train_image_list.txt", num_classes=5)
    assert [row.name for row in rows] == [f"{i}.jpg" for i in range(9)]


def test_the_number_of_threads_changes_nothing(run, tmp_path):
    records = [
        example(f"{i % 700}.jpg", (QUADRANTS, NOISE, b"text")[i % 3], i % 5) for i in range(900)
    ]
    one = run(records, workers=1, output=tmp_path / "one")
    many = run(records, workers=7, output=tmp_path / "many")
    assert everything(one) == everything(many)


def test_from_records_to_a_checked_data_set(run, tmp_path, capsys):
    labels = [dense(c2=0.9), dense(c0=-1, c4=0.35), dense(), 3]
    images = [QUADRANTS, NOISE, image_files.grey_jpeg(), NOISE]
    records = [
        example(f"{i}.jpg", image, label)
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    folder = run(records[:2], records[2:])
    built = ml_images.build(folder, tmp_path / "data", short_side=None)
    stored = DataSet.open(built).records("train")
    for number in range(4):
        record = parse_record(stored[number])
        assert (record.name, record.jpeg) == (f"{number}.jpg", images[number])
        label = labels[number]
        target = np.frombuffer(label, "<f4") if isinstance(label, bytes) else np.eye(5)[label]
        again = np.zeros(5, np.float32)
        again[record.labels] = record.confidences
        np.testing.assert_array_equal(again, target)
    check(built, label_list=folder / "train_image_list.txt")
    assert "4 records of 1 shards: no problems" in capsys.readouterr().out


def test_the_command_line(run, tmp_path, capsys):
    run([example("a.jpg", QUADRANTS, 1)], output=tmp_path / "first")
    arguments = [
        str(tmp_path / "0.tfrecords"), str(tmp_path / "0.tfrecords"), "--output",
        str(tmp_path / "second"), "--split", "val", "--dictionary", str(tmp_path / "dictionary"),
    ]  # fmt: skip
    tyro.cli(import_tfrecords, args=arguments)
    assert "2 records are in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "all"}, "cannot be the name of a split"),
        ({"split": "../x"}, "cannot be the name of a split"),
        ({"dictionary": None}, "give --dictionary"),
    ],
)
def test_bad_options(run, tmp_path, options, message):
    with pytest.raises(PrepareError, match=message):
        run([example("a.jpg", QUADRANTS, 1)], **options)
    assert not (tmp_path / "set").exists()


def test_without_files(tmp_path):
    with pytest.raises(PrepareError, match="no files"):
        import_tfrecords([], output=tmp_path, split="train")
