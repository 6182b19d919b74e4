# SPDX-License-Identifier: BSD-3-Clause
"""A small set, written here by hand, and one thing at a time that is wrong with it."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import tyro
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.built_set import BuiltSet
from mlimages_jax.prepare.check.command import _numbers, check
from mlimages_jax.prepare.check.record import RecordRules
from tests.support import image_files
from tests.support.five_classes import CLASS_LIST
from tfds_builders import ml_images

QUADRANTS = image_files.jpeg(image_files.quadrants())  # 64 x 32
LABELS = {0: 0.9, 1: 0.9, 4: -1.0}
TRAIN = "pets-train.array_record-0000{}-of-00002"
VAL = "pets-val.array_record-00000-of-00001"


def serialized(
    name: str, *, labels: dict[int, float] = LABELS, classes: object = None, **changes: object
) -> bytes:
    """A record; changes are values of features, None: without the feature."""
    values = {
        "name": name.encode(), "image": QUADRANTS, "height": 32, "width": 64,
        "labels": classes or list(labels), "confidences": list(labels.values()),
    } | changes  # fmt: skip
    message = tf_example_pb2.Example()
    for key, value in values.items():
        feature = message.features.feature[key]
        many = value if isinstance(value, list) else [] if value is None else [value]
        if key in ("name", "image"):
            feature.bytes_list.value.extend(many)
        elif key == "confidences":
            feature.float_list.value.extend(many)
        else:
            feature.int64_list.value.extend(many)
    return message.SerializeToString(deterministic=True)  # else the order of features varies


def write_shard(path: Path, records: list[bytes]) -> None:
    writer = ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
    for record in records:
        writer.write(record)
    writer.close()


def write_checksums(folder: Path) -> None:
    """As sha256sum writes them."""
    files = [*folder.glob("*.array_record-*"), folder / "dictionary.txt", folder / "skipped.tsv"]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "checksums.txt").write_text("".join(lines))


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Rows 0 to 6 of train in two shards, of which row 3 was skipped; two of val."""
    folder = tmp_path / "pets/closed_320/1.0.0"
    folder.mkdir(parents=True)
    write_shard(folder / TRAIN.format(0), [serialized(f"{i}.jpg") for i in (0, 2, 4, 6)])
    write_shard(folder / TRAIN.format(1), [serialized(f"{i}.jpg") for i in (1, 5)])
    write_shard(folder / VAL, [serialized("a.jpg"), serialized("b.jpg", labels={})])
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    splits = [
        {"name": name, "filepathTemplate": template, "shardLengths": lengths}
        for name, lengths in (("train", ["4", "2"]), ("val", ["2"]))
    ]
    info = {"name": "pets", "fileFormat": "array_record", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    metadata = {
        "num_classes": 5, "max_labels": 3, "labels": "closed", "short_side": 32,
        "skipped": {"train": 1, "val": 0},
    }  # fmt: skip
    (folder / "metadata.json").write_text(json.dumps(metadata))
    (folder / "dictionary.txt").write_text(CLASS_LIST)
    (folder / "skipped.tsv").write_text(
        "split\tname\treason\tmessage\ntrain\t3.jpg\tmissing\tthere is no file 3.jpg\n"
    )
    write_checksums(folder)
    return folder


Row = tuple[str, str, str, str]


@pytest.fixture
def found(folder, tmp_path) -> Callable[..., list[Row]]:
    """Runs a check and returns the table: file, record, name, problem. [] if all is right."""

    def found(**options: object) -> list[Row]:
        report = tmp_path / "report.tsv"
        try:
            check(folder, report=report, **options)
        except PrepareError as error:
            rows = [line.split("\t") for line in report.read_text().splitlines()[1:]]
            assert f"{len(rows)} problems in" in str(error)
            assert all(len(row) == 5 and row[4] for row in rows)
            return [tuple(row[:4]) for row in rows]
        assert report.read_text() == "file\trecord\tname\tproblem\tmessage\n"
        return []

    return found


def test_a_set_without_fault(folder, found, capsys):
    assert found() == []
    assert capsys.readouterr().out == "8 records of 3 shards: no problems\n"
    assert found(splits=("train",)) == []
    assert capsys.readouterr().out == "6 records of 2 shards: no problems\n"


def test_an_old_set_has_no_checksums(folder, found, capsys):
    (folder / "checksums.txt").unlink()
    assert found() == []
    assert "no checksums.txt (older builders wrote none)" in capsys.readouterr().out


def test_a_changed_byte_is_found_in_its_record(folder, found):
    path = folder / TRAIN.format(0)
    content = path.read_bytes()
    start, stop = content.index(b"0.jpg"), content.index(b"6.jpg")  # the first and the last record
    numbers = []
    for position in [*range(start, stop, 97), stop]:
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        record, file = found()
        assert file == (path.name, "", "", "hash")
        assert record == (path.name, record[1], "", "unreadable")
        numbers.append(int(record[1]))
    assert numbers == sorted(numbers)
    assert set(numbers) == {0, 1, 2, 3}
    (folder / "checksums.txt").unlink()
    assert found() == [record]  # without hashes too


@pytest.mark.parametrize("size", [0, 10, 1_000, -1])
def test_a_cut_shard_is_named_and_the_others_are_read(folder, found, size):
    path = folder / TRAIN.format(0)
    path.write_bytes(path.read_bytes()[:size])
    write_shard(folder / VAL, [serialized("a.jpg"), serialized("b.jpg", height=33)])
    assert found() == [
        (path.name, "", "", "unreadable"),
        (path.name, "", "", "hash"),
        (VAL, "1", "b.jpg", "size"),
        (VAL, "", "", "hash"),
    ]


def test_files_that_are_missing_or_too_many(folder, found):
    (folder / TRAIN.format(1)).unlink()
    (folder / "pets-test.array_record-00000-of-00001").write_bytes(b"")
    (folder / "unfinished-0123").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    assert found() == [
        ("pets-test.array_record-00000-of-00001", "", "", "stray_file"),
        ("unfinished-0123", "", "", "stray_file"),
        (TRAIN.format(1), "", "", "missing_shard"),
    ]


def test_a_shard_of_another_length(folder, found):
    write_shard(folder / VAL, [serialized(f"{name}.jpg") for name in "abc"])
    write_checksums(folder)
    assert found() == [(VAL, "", "", "count")]


def test_hashes_of_all_files_that_have_one(folder, found, capsys):
    lines = (folder / "checksums.txt").read_text().splitlines(keepends=True)
    kept = [line for line in lines if VAL not in line]
    (folder / "checksums.txt").write_text("".join(kept) + f"{'0' * 64}  gone.txt\n")
    (folder / "dictionary.txt").write_text(CLASS_LIST + "\n")
    assert found() == [
        ("dictionary.txt", "", "", "hash"),
        ("gone.txt", "", "", "hash"),
        (VAL, "", "", "hash"),
    ]
    assert f"{VAL}: hash: not listed in checksums.txt" in capsys.readouterr().out
    assert found(sample=8) == []  # looks at no hashes unless asked
    assert len(found(sample=1, hashes=True)) == 3


def test_a_line_that_sha256sum_would_not_write(folder):
    (folder / "checksums.txt").write_text(f"{'0' * 64}  ../../outside\n")
    with pytest.raises(PrepareError, match=r"checksums\.txt:1: not a line of sha256sum"):
        check(folder)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (b"no example", "record"),
        (serialized("b.jpg", image=None), "record"),
        (serialized("b.jpg", height=None), "record"),
        (serialized("b.jpg", labels={2**40: 1}), "record"),
        (serialized("", labels={}), "name"),
        (serialized("b.jpg", labels={5: 1}), "labels"),
        (serialized("b.jpg", labels={-1: 1}), "labels"),
        (serialized("b.jpg", labels={3: 1.5}), "labels"),
        (serialized("b.jpg", labels={3: -0.5}), "labels"),
        (serialized("b.jpg", labels={3: float("nan")}), "labels"),
        (serialized("b.jpg", classes=[3, 3], confidences=[1.0, 0.5]), "labels"),
        (serialized("b.jpg", classes=[3], confidences=[1.0, 0.5]), "labels"),
        (serialized("b.jpg", labels=dict.fromkeys([0, 1, 3, 4], 1.0)), "labels"),  # four
        (serialized("b.jpg", labels={1: 1.0}), "labels"),  # without its parent
        (serialized("b.jpg", labels={0: 0.5, 1: 1.0}), "labels"),  # less certain than its child
        (serialized("b.jpg", image=image_files.truncated(QUADRANTS)), "image"),
        (serialized("b.jpg", image=image_files.by_pillow("PNG")), "image"),
        (serialized("b.jpg", image=image_files.GOOD["cmyk"]()), "image"),
        (serialized("b.jpg", height=64, width=32), "size"),
        (
            serialized("b.jpg", image=image_files.jpeg(image_files.noise()), height=64, width=96),
            "size",  # the short side is more than 32
        ),
    ],
)
def test_what_is_wrong_with_a_record(folder, found, record, problem):
    write_shard(folder / VAL, [serialized("a.jpg"), record])
    write_checksums(folder)
    ((file, number, name, word),) = found()
    assert (file, number, word) == (VAL, "1", problem)
    assert name == ("" if problem in ("record", "name") else "b.jpg")


def test_what_a_set_does_not_promise_is_not_missed(folder, found):
    change_json(folder / "metadata.json", labels="released", short_side=None)
    large = image_files.jpeg(image_files.noise())
    records = [
        serialized("a.jpg", labels={1: 1.0}),  # not closed
        serialized("b.jpg", image=large, height=64, width=96),  # as it came
    ]
    write_shard(folder / VAL, records)
    write_checksums(folder)
    assert found() == []


def test_a_class_may_not_occur_twice_in_a_set_that_is_not_closed_either():
    rules = RecordRules(num_classes=5, max_labels=3, short_side=None, closed_over=None)
    record = rules.check(serialized("b.jpg", classes=[3, 1, 3], confidences=[1.0, 1.0, 1.0]))
    assert record.found == [("labels", "a class occurs twice")]


def test_all_that_is_wrong_with_a_record_is_said():
    rules = RecordRules(num_classes=5, max_labels=1, short_side=16, closed_over=None)
    record = serialized("", labels={7: 2.0, 3: 1.0}, height=1, width=1)
    words = [word for word, _ in rules.check(record).found]
    assert words == ["labels", "labels", "labels", "size", "size", "name"]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: change_json(folder / "metadata.json", num_classes=6),
        lambda folder: change_json(folder / "metadata.json", skipped={"train": 2}),
        lambda folder: change_json(folder / "metadata.json", skipped={"train": 0}),
        lambda folder: (folder / "skipped.tsv").write_text("split\tname\treason\tmessage\n"),
    ],
)
def test_metadata_that_do_not_agree(folder, found, change):
    change(folder)
    write_checksums(folder)
    assert found() == [("metadata.json", "", "", "metadata")]


def test_a_malformed_dictionary_is_one_problem(folder, found):
    (folder / "dictionary.txt").write_text("what\nis this")
    write_checksums(folder)
    assert found() == [("dictionary.txt", "", "", "metadata")]


@pytest.mark.parametrize("name", ["dataset_info.json", "metadata.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_damaged_metadata_end_with_a_message(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(PrepareError, match="is damaged"):
        check(folder)


def test_no_set_no_split_no_sample(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a built data set"):
        check(tmp_path)
    with pytest.raises(PrepareError, match=r"no split 'test'; it has \['train', 'val'\]"):
        check(folder, splits=("val", "test"))
    with pytest.raises(PrepareError, match="--sample 0"):
        check(folder, sample=0)
    with pytest.raises(PrepareError, match="name the split with --splits"):
        check(folder, label_list=folder / "skipped.tsv")


def test_a_sample_is_spread_over_all_shards_and_always_the_same(folder):
    lengths = (500, 0, 1_500)
    shards = BuiltSet.open(folder).shards_of(())
    shards = [
        shard._replace(num_records=length) for shard, length in zip(shards, lengths, strict=True)
    ]
    plan = [(shard.path.name, numbers) for shard, numbers in _numbers(shards, 200)]
    assert plan == [(shard.path.name, numbers) for shard, numbers in _numbers(shards, 200)]
    (_, first), (_, none), (_, last) = plan
    assert (len(first) + len(last), none) == (200, [])
    assert 30 < len(first) < 70
    for numbers, length in ((first, 500), (last, 1_500)):
        assert sorted(set(numbers)) == numbers
        assert 0 <= numbers[0] <= numbers[-1] < length
    everything = [numbers for _, numbers in _numbers(shards, 10_000)]
    assert everything == [list(range(500)), [], list(range(1_500))]


def test_a_sample_reads_its_records_only(folder, found, capsys):
    (folder / "checksums.txt").unlink()
    for number in range(2):
        path = folder / TRAIN.format(number)
        write_shard(path, [b"bad"] * (4, 2)[number])
    write_shard(folder / VAL, [b"bad"] * 2)
    rows = found(sample=3)
    assert len(rows) == 3
    assert {problem for *_, problem in rows} == {"record"}
    assert found(sample=8) == found()


def test_a_sample_of_records_that_a_shard_lacks(folder, found):
    write_shard(folder / VAL, [serialized("a.jpg")])
    assert found(sample=8) == [(VAL, "", "", "count")]


# The comparison with the list.


@pytest.fixture
def label_list(tmp_path) -> Path:
    """Not closed over ancestors, as it was before the build."""
    rows = [f"{i}.jpg\t1:0.9\t4:-1" for i in range(7)]
    path = tmp_path / "train_image_list.txt"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_the_list_it_was_built_from(found, label_list):
    assert found(splits=("train",), label_list=label_list) == []
    assert found(splits=("train",), label_list=label_list, sample=3) == []


def test_another_list(found, label_list):
    rows = label_list.read_text().splitlines()
    rows[0] = "0.jpg\t1:0.8\t4:-1"  # another confidence
    rows[1] = "one.jpg\t1:0.9\t4:-1"  # another name
    rows[2] += "\t3:0"  # one label more
    rows[3] = "three.jpg"  # not the one that was skipped
    label_list.write_text("\n".join(rows) + "\n")
    first, second = TRAIN.format(0), TRAIN.format(1)
    assert found(splits=("train",), label_list=label_list) == [
        (first, "0", "0.jpg", "list"),
        (first, "1", "2.jpg", "list"),
        (second, "0", "1.jpg", "list"),
        (second, "", "one.jpg", "list"),
        (second, "", "three.jpg", "list"),
    ]


def test_what_another_split_skipped_is_not_skipped_here(folder, found, label_list):
    with (folder / "skipped.tsv").open("a") as file:
        file.write("val\t0.jpg\tmissing\tthere is no file 0.jpg\n")
    change_json(folder / "metadata.json", skipped={"train": 1, "val": 1})
    write_checksums(folder)
    assert found(splits=("train",), label_list=label_list) == []


def test_a_record_of_another_shard_and_one_that_is_lost(folder, found, label_list):
    write_shard(folder / TRAIN.format(0), [serialized(f"{i}.jpg") for i in (0, 5, 6)])
    write_checksums(folder)
    assert found(splits=("train",), label_list=label_list) == [
        (TRAIN.format(0), "", "", "count"),
        (TRAIN.format(0), "1", "5.jpg", "list"),
        (TRAIN.format(0), "", "2.jpg", "list"),
        (TRAIN.format(0), "", "4.jpg", "list"),
    ]


def test_rows_are_not_missed_where_a_record_is_unreadable(folder, found, label_list):
    path = folder / TRAIN.format(1)
    content = bytearray(path.read_bytes())
    content[content.index(b"5.jpg")] ^= 1
    path.write_bytes(content)
    write_checksums(folder)
    assert found(splits=("train",), label_list=label_list) == [(path.name, "1", "", "unreadable")]


def test_a_name_may_have_several_rows(folder, found, label_list):
    label_list.write_text("x.jpg\t3:1\nx.jpg\t1:1\nx.jpg\nx.jpg\t3:1\n")
    change_json(folder / "metadata.json", skipped={})
    (folder / "skipped.tsv").write_text("split\tname\treason\tmessage\n")
    write_shard(
        folder / TRAIN.format(0),
        [serialized("x.jpg", labels={}), serialized("x.jpg", labels={3: 1})],
    )
    write_shard(folder / TRAIN.format(1), [serialized("x.jpg", labels={3: 1})] * 2)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["2", "2"]
    change_json(folder / "dataset_info.json", **info)
    write_checksums(folder)
    assert found(splits=("train",), label_list=label_list) == [
        (TRAIN.format(1), "1", "x.jpg", "list")
    ]


# The builder's own sets.


def test_what_the_builder_makes_is_all_right(tmp_path, capsys):
    manual = tmp_path / "manual"
    (manual / "images").mkdir(parents=True)
    (manual / "dictionary.txt").write_text(CLASS_LIST)
    names = [*image_files.GOOD, *image_files.BAD]
    for name in names:
        make = image_files.GOOD.get(name) or image_files.BAD[name][0]
        (manual / "images" / name).write_bytes(make())
    rows = [f"{name}\t2:0.9\t4:{i % 2}" for i, name in enumerate([*names, "missing.jpg"])]
    (manual / "train_image_list.txt").write_text("\n".join(rows) + "\n")
    for labels in ("released", "closed"):
        built = ml_images.build(
            manual, tmp_path / "data", labels=labels, short_side=24, num_shards=3, max_skipped=0.9
        )
        check(built, label_list=manual / "train_image_list.txt")
        printed = capsys.readouterr().out
        assert f"{len(image_files.GOOD)} records of 3 shards: no problems\n" in printed


def test_the_stamps(stamps_dir, tmp_path, capsys):
    built = ml_images.build(stamps_dir, tmp_path, labels="closed", num_shards=4)
    check(built)
    assert "1,018 records of 8 shards: no problems" in capsys.readouterr().out
    check(built, splits=("val",), label_list=stamps_dir / "val_image_list.txt", sample=100)
    with pytest.raises(PrepareError, match="196 records of 4 shards: 1,018 list"):
        check(built, splits=("val",), label_list=stamps_dir / "train_image_list.txt")
    assert capsys.readouterr().out.count("no row of the list") == 20


def test_the_command_line(folder, label_list, capsys):
    arguments = f"{folder} --splits train --list {label_list} --threads 3"
    tyro.cli(check, args=arguments.split())
    assert "6 records of 2 shards: no problems" in capsys.readouterr().out


@pytest.mark.slow
def test_workers_find_the_same(folder, found, label_list, tmp_path):
    write_shard(folder / TRAIN.format(0), [serialized(f"{i}.jpg") for i in (0, 5, 6)] + [b"bad"])
    options = {"splits": ("train",), "label_list": label_list}
    one = found(**options)
    report = (tmp_path / "report.tsv").read_text()
    assert len({problem for *_, problem in one}) >= 3
    assert found(**options, engine=EngineOptions("local", workers=2)) == one
    assert (tmp_path / "report.tsv").read_text() == report


def test_many_shards_leave_no_files_open(folder, found):
    open_files = Path("/proc/self/fd")
    if not open_files.exists():
        pytest.skip("counts open files where Linux shows them")
    before = len(list(open_files.iterdir()))
    for _ in range(20):
        assert found(sample=8) == []
    assert len(list(open_files.iterdir())) <= before + 2
