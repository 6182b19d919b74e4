# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import json
import threading

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax.features.export import FeatureFilesError
from mlimages_jax.features.export.feature_files import open_features
from mlimages_jax.features.export.feature_formats import FORMATS, Layout, ParquetParts, Part
from mlimages_jax.features.export.feature_writer import FeatureWriter
from mlimages_jax.features.export.manifest import read_manifest
from mlimages_jax.features.export.parted_array import PartedArray
from mlimages_jax.files.object_folder import ObjectFolder
from tests.support import reading_threads

LAYOUT = Layout(11, 4, {"features": 3, "logits": 2}, "float32", labels=True)
NAMES = [f"ä\t{i}.jpg" for i in range(11)]
LABELS = ["", "3:1\t4:0.5", *[f"{i}:1" for i in range(2, 11)]]
ERRORS = {2: "missing: there is\nno such file", 8: "corrupt: ü"}
ABOUT = {"view": {"size": 224}, "input": {"path": "images"}}


def _numbers(layout=LAYOUT):
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(size=(11, width)) for name, width in layout.widths.items()}
    rows = {name: values.astype(layout.dtype) for name, values in rows.items()}
    for values in rows.values():
        values[list(ERRORS)] = np.nan
    return rows


def _part(number, layout=LAYOUT):
    rows = layout.positions(number)
    return Part(
        number,
        [NAMES[i] for i in rows],
        [LABELS[i] if layout.labels else "" for i in rows],
        [ERRORS.get(i, "") for i in rows],
        {name: values[rows.start : rows.stop] for name, values in _numbers(layout).items()},
    )


def _export(folder, file_format, layout=LAYOUT, numbers=(2, 0, 1), **about):
    writer = FeatureWriter(folder, layout, file_format, ABOUT | about)
    assert not writer.begin()
    for number in numbers:
        writer.write(_part(number, layout))
    writer.wait()
    return writer


def _bytes(folder):
    """All files but the manifest, which tells the speed."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name != "features.json"
    }


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_what_is_written_is_read(tmp_path, file_format, dtype):
    layout = dataclasses.replace(LAYOUT, dtype=dtype)
    manifest = _export(tmp_path, file_format, layout).finish(speed={"limit": "network"})
    assert not (tmp_path / "unfinished").exists()
    for output, expected in _numbers(layout).items():
        features = open_features(tmp_path, output=output)
        assert features.array.shape == expected.shape
        assert features.array.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(np.asarray(features.array), expected)
        np.testing.assert_array_equal(features.array[3:9], expected[3:9])
        assert features.names == NAMES
        assert features.labels == LABELS
        assert features.errors == ERRORS
        assert features.valid.tolist() == [i not in ERRORS for i in range(11)]
        assert features.metadata == manifest == read_manifest(tmp_path)
    assert manifest["complete"]
    assert manifest["errors"] == 2
    assert manifest["images"] == 11
    assert manifest["outputs"] == {"features": 3, "logits": 2}
    assert manifest["dtype"] == dtype
    assert manifest["speed"] == {"limit": "network"}
    assert manifest["view"] == {"size": 224}
    assert (tmp_path / "errors.tsv").read_text() == (
        "2\tä\\t2.jpg\tmissing: there is\\nno such file\n8\tä\\t8.jpg\tcorrupt: ü\n"
    )


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_export_goes_on_and_is_the_same_bytes(tmp_path, file_format):
    """Stopped with one part done, and wrong numbers of another on the disk."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    _export(whole, file_format, numbers=(0, 1, 2)).finish(speed={})
    first = _export(stopped, file_format, numbers=(1,))
    part = _part(2)
    first._storage.write(
        part._replace(outputs={name: rows + 1 for name, rows in part.outputs.items()})
    )
    with pytest.raises(FeatureFilesError, match="is not complete: run the same command again"):
        open_features(stopped)

    second = FeatureWriter(stopped, LAYOUT, file_format, ABOUT | {"input": {"path": "moved"}})
    assert not second.begin()
    assert second.done().tolist() == [False, True, False]
    for number in (0, 2):
        second.write(_part(number))
    second.wait()
    assert second.done().all()
    second.finish(speed={})
    assert _bytes(stopped) == _bytes(whole)
    assert read_manifest(stopped) == read_manifest(whole) | {"input": {"path": "moved"}}


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_was_stopped_while_it_was_brought_together(tmp_path, file_format):
    """All that `finish` makes is there, but the manifest does not say so, or only leftovers are."""
    writer = _export(tmp_path, file_format)
    before = {path: path.read_bytes() for path in tmp_path.glob("unfinished/*")}
    arrays = {path: path.read_bytes() for path in tmp_path.glob("*.npy")}
    began = (tmp_path / "features.json").read_bytes()
    manifest = writer.finish(speed={})
    files = _bytes(tmp_path)

    def leftovers():
        (tmp_path / "unfinished").mkdir()
        for path, data in (before | arrays).items():
            path.write_bytes(data)

    leftovers()
    (tmp_path / "features.json").write_bytes(began)
    again = FeatureWriter(tmp_path, LAYOUT, file_format, ABOUT)
    assert not again.begin()
    assert again.done().all()
    assert again.finish(speed={}) == manifest
    assert _bytes(tmp_path) == files

    leftovers()
    assert FeatureWriter(tmp_path, LAYOUT, file_format, ABOUT).begin()
    assert _bytes(tmp_path) == files


def test_two_exports_into_one_bucket_leave_the_files_of_one(tmp_path):
    """A plain and an elastic one, which no lock keeps apart there; the first ends last."""
    place = ObjectFolder("memory://two_exports")
    first = _export(place.place, "parquet", numbers=[0])
    second = FeatureWriter(place.place, LAYOUT, "parquet", ABOUT)
    assert not second.begin() and second.done().tolist() == [True, False, False]
    for number in (1, 2):
        second.write(_part(number))
    second.wait()
    second.finish(speed={})
    first.write(_part(1))
    first.wait()
    assert first.finish(speed={})["complete"] and place.sizes("unfinished") == {}
    _export(tmp_path, "parquet").finish(speed={})
    found = {name: place.read(name) for name in _bytes(tmp_path)}
    assert found == _bytes(tmp_path)


def test_a_part_that_fails_is_no_part(tmp_path, monkeypatch):
    """Nothing appears under the name of a part that was not written to its end."""
    for file_format in ("parquet", "array_record"):
        folder = tmp_path / file_format
        writer = _export(folder, file_format, numbers=())
        part = _part(0)
        broken = part._replace(names=[*part.names[:3], None])
        if file_format == "parquet":
            monkeypatch.setattr(pq, "write_table", _fill_the_disk)
        writer.write(broken)
        with pytest.raises((AttributeError, OSError)):
            writer.write(_part(1))
        assert not any((folder / "parts").iterdir())
        assert not writer.done().any()


def _fill_the_disk(table, path, **_):
    path.write_bytes(b"half a table")
    raise OSError(28, "No space left on device")


def test_writing_is_in_the_background_one_part_at_a_time(tmp_path, monkeypatch):
    writer = _export(tmp_path, "npy", numbers=())
    go_on, order = threading.Event(), []

    def write(part):
        assert go_on.wait(30)
        order.append(part.number)

    monkeypatch.setattr(writer._storage, "write", write)
    writer.write(_part(0))  # returns at once
    assert order == []
    go_on.set()
    writer.write(_part(1))
    assert order[0] == 0
    writer.wait()
    assert order == [0, 1]
    assert writer.done().tolist() == [True, True, False]


def test_parquet_is_read_by_the_thread_that_asks(tmp_path, monkeypatch):
    """One of pyarrow's that still holds the file when Python ends makes it hang."""
    _export(tmp_path, "parquet").finish(speed={})
    threads = reading_threads.noted(monkeypatch)
    rows = ParquetParts(ObjectFolder(tmp_path), LAYOUT).read("logits", 0)
    np.testing.assert_array_equal(rows, _numbers()["logits"][: LAYOUT.rows_per_part])
    assert threads == {threading.get_ident()}


def test_parquet_is_for_data_frames(tmp_path):
    _export(tmp_path, "parquet").finish(speed={})
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == [f"features-0000{i}-of-00003.parquet" for i in range(3)]
    table = pyarrow.dataset.dataset(tmp_path / "parts").to_table()
    assert table.column_names == ["index", "name", "labels", "error", "features", "logits"]
    assert table.schema.field("features").type == pa.list_(pa.float32(), 3)
    assert table["index"].to_pylist() == list(range(11))
    assert table["name"].to_pylist() == NAMES
    assert table["labels"].to_pylist() == [None, *LABELS[1:]]
    assert table["error"].to_pylist() == [ERRORS.get(i) for i in range(11)]
    for name, rows in _numbers().items():
        # Lists in all rows: pyarrow before 26 cannot read a null instead of one.
        assert table[name].null_count == 0
        np.testing.assert_array_equal(table[name].to_pylist(), rows)
        assert np.isnan(rows[list(ERRORS)]).all()
    without = dataclasses.replace(LAYOUT, labels=False, dtype="float16")
    _export(tmp_path / "other", "parquet", without).finish(speed={})
    schema = pyarrow.dataset.dataset(tmp_path / "other" / "parts").schema
    assert schema.names == ["index", "name", "error", "features", "logits"]
    assert schema.field("features").type == pa.list_(pa.float16(), 3)


def test_records_are_examples(tmp_path):
    _export(tmp_path, "array_record").finish(speed={})
    files = sorted((tmp_path / "parts").iterdir())
    assert [file.name for file in files] == [
        f"features-0000{i}-of-00003.array_record" for i in range(3)
    ]
    records = ArrayRecordDataSource([str(file) for file in files])
    numbers = _numbers()
    for i in range(11):
        feature = tf_example_pb2.Example.FromString(records[i]).features.feature
        assert feature["index"].int64_list.value[:] == [i]
        assert feature["name"].bytes_list.value[0].decode() == NAMES[i]
        expected = {"index", "name"} | ({"labels"} if LABELS[i] else set())
        expected |= {"error"} if i in ERRORS else {"features", "logits"}
        assert set(feature) == expected
        if i not in ERRORS:
            (data,) = feature["logits"].bytes_list.value
            np.testing.assert_array_equal(np.frombuffer(data, "<f4"), numbers["logits"][i])


def test_arrays_are_numpys_own(tmp_path):
    _export(tmp_path / "npy", "npy").finish(speed={})
    _export(tmp_path / "npz", "npz").finish(speed={})
    mapped = np.load(tmp_path / "npy" / "features.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, _numbers()["features"])
    assert isinstance(open_features(tmp_path / "npy").array, np.memmap)
    assert {path.name for path in (tmp_path / "npz").iterdir()} == {
        "features.json", "features.npz", "index.jsonl", "errors.tsv",
    }  # fmt: skip
    arrays = np.load(tmp_path / "npz" / "features.npz", allow_pickle=False)
    assert sorted(arrays) == ["errors", "features", "logits", "names"]
    assert arrays["names"].tolist() == NAMES
    assert arrays["errors"].tolist() == [ERRORS.get(i, "") for i in range(11)]


def test_the_index_says_what_each_row_is(tmp_path):
    _export(tmp_path, "npy").finish(speed={})
    lines = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert lines[0] == {"index": 0, "name": NAMES[0]}
    assert lines[1] == {"index": 1, "name": NAMES[1], "labels": LABELS[1]}
    assert lines[2] == {"index": 2, "name": NAMES[2], "labels": LABELS[2], "error": ERRORS[2]}
    assert [line["index"] for line in lines] == list(range(11))


class _Stored:
    """Parts that count how often they are read."""

    def __init__(self, rows):
        self.rows, self.reads = rows, []

    def read(self, output, number):
        assert output == "features"
        self.reads.append(number)
        return self.rows[number * 4 : number * 4 + 4]


@pytest.mark.parametrize(
    "index",
    [
        0, 5, -1, np.int64(7), slice(None), slice(2, 9), slice(9, 2, -3), slice(4, 4),
        [10, 0, 5, 5, -1], np.array([], np.int64), np.arange(11) % 3 == 0,
        np.array([[1, 9], [4, 0]]),
    ],
    ids=str,
)  # fmt: skip
def test_rows_in_parts_are_taken_as_from_one_array(index):
    rows = np.arange(33, dtype=np.float32).reshape(11, 3)
    array = PartedArray(_Stored(rows), LAYOUT, "features")
    expected = rows[index]
    assert array[index].shape == expected.shape
    np.testing.assert_array_equal(array[index], expected)


def test_rows_in_parts_are_read_when_asked_for_and_once_each():
    rows = np.arange(33, dtype=np.float32).reshape(11, 3)
    stored = _Stored(rows)
    array = PartedArray(stored, LAYOUT, "features")
    assert (len(array), array.shape, array.ndim, array.dtype) == (11, (11, 3), 2, np.float32)
    assert stored.reads == []
    array[[9, 1, 8, 0]]
    assert stored.reads == [0, 2]
    array[8:]
    assert stored.reads == [0, 2]
    np.testing.assert_array_equal(list(array), rows)
    assert array.__array__(np.float64).dtype == np.float64
    for index, message in (
        ((0, 1), "entire rows"),
        (11, "range"),
        ([11], "11 of 11"),
        ([-12], "-1"),
    ):
        with pytest.raises(IndexError, match=message):
            array[index]
    with pytest.raises(IndexError, match="booleans for 11 rows"):
        array[np.ones(12, bool)]
    with pytest.raises(ValueError, match="copy cannot be avoided"):
        np.array(array, copy=False)


def test_other_features_in_the_folder_are_left_alone(tmp_path):
    _export(tmp_path, "npy", numbers=(0,))
    files = _bytes(tmp_path)
    others = [
        ((LAYOUT, "parquet", ABOUT), "format: 'npy' in the folder, 'parquet' now"),
        (
            (dataclasses.replace(LAYOUT, rows_per_part=5), "npy", ABOUT),
            "rows_per_part: 4 in the folder",
        ),
        (
            (dataclasses.replace(LAYOUT, dtype="float16"), "npy", ABOUT),
            "dtype: 'float32' in the folder",
        ),
        (
            (LAYOUT, "npy", ABOUT | {"view": {"size": 32}}),
            "view: .*224.* in the folder, .*32.* now",
        ),
        (
            (LAYOUT, "npy", ABOUT | {"checkpoint": "w/2"}),
            "checkpoint: None in the folder, 'w/2' now",
        ),
    ]
    for arguments, message in others:
        with pytest.raises(FeatureFilesError, match=message):
            FeatureWriter(tmp_path, *arguments).begin()
    assert _bytes(tmp_path) == files


@pytest.mark.parametrize(
    "name", ["features.npy", "logits.npy", "index.jsonl", "parts/a.parquet", "components.npz"]
)
def test_files_of_an_unknown_origin_are_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"somebody's")
    with pytest.raises(FeatureFilesError, match=r"contains .* without features.json: give another"):
        FeatureWriter(tmp_path, LAYOUT, "npy", ABOUT).begin()
    assert _bytes(tmp_path) == {name: b"somebody's"}


def test_what_cannot_be_opened_or_written_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="contains no exported features"):
        open_features(tmp_path)
    with pytest.raises(FeatureFilesError, match="format='csv' is none of parquet, npy, npz"):
        FeatureWriter(tmp_path, LAYOUT, "csv", ABOUT)
    with pytest.raises(
        FeatureFilesError, match="memory://bucket/x: a NumPy array is written in place"
    ):
        FeatureWriter("memory://bucket/x", LAYOUT, "npy", ABOUT)
    with pytest.raises(FeatureFilesError, match="not the folder that process 0 prepared"):
        FeatureWriter(tmp_path / "other machine", LAYOUT, "npy", ABOUT).done()
    _export(tmp_path, "npy").finish(speed={})
    with pytest.raises(FeatureFilesError, match="has features, logits, no 'stage0'"):
        open_features(tmp_path, output="stage0")
    lines = (tmp_path / "index.jsonl").read_text().splitlines()
    (tmp_path / "index.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(FeatureFilesError, match=r"has 10 rows but features\.json promises 11"):
        open_features(tmp_path)


_GOOD = {
    "complete": True, "format": "npy", "outputs": {"features": 3}, "images": 11,
    "rows_per_part": 4, "dtype": "float32", "labels": True,
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"3", b'"complete"', b"{}", b"\xff\xfe", b"[" * 100_000,
        b'{"images": ' + b"9" * 5_000 + b"}",
    ]
    + [
        json.dumps(_GOOD | change).encode()
        for change in (
            {"complete": "yes"}, {"format": "csv"}, {"format": []}, {"outputs": []},
            {"outputs": {"features": "3"}}, {"outputs": {"features": 0}}, {"images": -1},
            {"images": True}, {"images": 1.5}, {"rows_per_part": 0}, {"dtype": "int8"},
            {"labels": None}, {"checkpoint": "w"}, {"input": []}, {"components_digest": 3},
        )
    ],
    ids=lambda text: repr(text[:40]),
)  # fmt: skip
def test_a_damaged_manifest_is_named(tmp_path, text):
    """By whatever reads it, and with what to do."""
    (tmp_path / "features.json").write_bytes(text)
    for read in (
        read_manifest,
        open_features,
        lambda f: FeatureWriter(f, LAYOUT, "npy", {}).begin(),
    ):
        with pytest.raises(
            FeatureFilesError, match=r"features\.json is damaged .*: restore it from"
        ):
            read(tmp_path)


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_damaged_or_mixed_file_is_named(tmp_path, file_format):
    _export(tmp_path, file_format).finish(speed={})
    for path in sorted(p for p in tmp_path.rglob("*") if p.is_file() and p.name != "errors.tsv"):
        whole = path.read_bytes()
        for data in (b"", b"\0" * len(whole), whole[: len(whole) // 2], b"[1]\n" * 11, None):
            path.unlink() if data is None else path.write_bytes(data)
            expected = FileNotFoundError if path.name == "features.json" else FeatureFilesError
            with pytest.raises(FeatureFilesError if data is not None else expected) as told:
                for output in LAYOUT.widths:
                    np.asarray(open_features(tmp_path, output=output).array)
            assert path.name in str(told.value)
        path.write_bytes(whole)
    if file_format == "npy":
        np.save(tmp_path / "features.npy", np.zeros((11, 4), np.float32))
        with pytest.raises(
            FeatureFilesError, match=r"has float32 \(11, 4\), not float32 \(11, 3\)"
        ):
            open_features(tmp_path)


@pytest.mark.parametrize("file_format", ["parquet", "array_record"])
def test_a_part_of_another_export_is_refused(tmp_path, file_format):
    _export(tmp_path / "mine", file_format).finish(speed={})
    other = dataclasses.replace(LAYOUT, dtype="float16")
    _export(tmp_path / "theirs", file_format, other).finish(speed={})
    for name in ("mine", "theirs"):
        paths = sorted((tmp_path / name / "parts").iterdir())
    mine = tmp_path / "mine" / "parts" / paths[1].name
    mine.write_bytes(paths[1].read_bytes())
    with pytest.raises(FeatureFilesError, match=r"part 1 of features|is damaged"):
        np.asarray(open_features(tmp_path / "mine").array)


@pytest.mark.parametrize("file_format", ["parquet", "array_record"])
def test_a_bucket_has_the_bytes_of_a_disk(tmp_path, file_format):
    bucket = "memory://bucket/export"
    system = fsspec.filesystem("memory")
    try:
        _export(tmp_path, file_format).finish(speed={})
        writer = _export(bucket, file_format)
        assert writer.done().all() and not writer.is_complete()
        writer.finish(speed={})
        assert writer.begin() and writer.is_complete()
        for output, rows in _numbers().items():
            np.testing.assert_array_equal(open_features(bucket, output=output).array, rows)
        found = system.find("/bucket/export")
        stored = {name.removeprefix("/bucket/export/"): system.cat_file(name) for name in found}
        assert {n: d for n, d in stored.items() if n != "features.json"} == _bytes(tmp_path)
        # Whoever comes late, with a part or the finish of a process that was thought dead.
        writer.write(_part(1))
        writer.wait()
        assert writer.finish(speed={})["complete"]
        writer.clean()
        assert open_features(bucket).names == NAMES
    finally:
        for name in system.find("/bucket"):
            system.rm_file(name)
