# SPDX-License-Identifier: BSD-3-Clause
"""Shards on a disk and in a bucket: what is committed, what counts, and what is damaged."""

import contextlib
import errno
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlimages_jax.files.object_folder import ObjectFolder, ObjectFolderError
from mlimages_jax.image_shards import layout, manifest_file, reader, repeated
from mlimages_jax.image_shards.index import Index
from mlimages_jax.image_shards.layout import ImageShardError, Layout
from mlimages_jax.image_shards.outcome import FAILED, OK
from mlimages_jax.image_shards.reader import NoRoomError, RecordPlace, ShardFolder
from mlimages_jax.image_shards.writer import Full, OpenShard, new_attempt
from tests.support import reading_threads
from tests.support.image_shards import content_of, failed, ok, write


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    if request.param == "disk":
        yield str(tmp_path / "set")
        return
    yield f"memory://{tmp_path.name}/set"
    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def rows(place):
    folder = ShardFolder(place)
    return [row for manifest in folder.manifests for row in folder.rows(manifest)]


def test_what_was_written_is_read(place, tmp_path):
    images = [ok("1"), failed("\ud800", license="cc0", rotation=90.0), ok("2")]
    write(place, tmp_path, images)
    write(place, tmp_path, [failed("3")], stem="a-1")
    found = rows(place)
    assert [row.image.name for row in found] == ["1", "\\ud800", "2", "3"]
    assert found[0].image == images[0] and found[1].image.rotation == 90.0
    folder = ShardFolder(place)
    assert [manifest.shard.file for manifest in folder.manifests] == ["a-0.array_record", ""]
    path = folder.place.path(folder.manifests[0].records)
    for row in found:
        if row.record is not None:
            expected = row.image.name, content_of(row.image.name)
            assert RecordPlace(path, row.record).read() == expected
    assert [row.record for row in found] == [0, None, 1, None]


@pytest.mark.parametrize(("allowed", "kept"), [(4_096, 2_048), (20_000, 6_144), (50, 25), (1, 1)])
def test_half_of_the_files_of_a_process_are_shards(monkeypatch, allowed, kept):
    monkeypatch.setattr(reader.open_files, "allow", lambda wanted: allowed)
    assert reader._most_open() == kept


def test_few_open_shards_are_read_by_many_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_most_open", lambda: 2)
    readers = reader._Readers()
    monkeypatch.setattr(reader, "_readers", readers)
    names = "abcdef"
    for name in names:
        write(tmp_path / "set", tmp_path, [ok(name)], stem=name)
    places = [RecordPlace(f"{tmp_path}/set/shards/{name}.array_record", 0) for name in names]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(RecordPlace.read, places * 20))
    assert found == [(name, content_of(name)) for name in names] * 20
    assert len(readers._open) == 2


def test_records_without_a_manifest_are_no_shard(place, tmp_path, monkeypatch):
    write(place, tmp_path, [ok("1")])
    put = ObjectFolder.put

    def killed(self, scratch, name):
        if name.endswith(".parquet"):
            raise KeyboardInterrupt
        put(self, scratch, name)

    monkeypatch.setattr(ObjectFolder, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        write(place, tmp_path, [ok("2")], stem="b-0")
    assert len(ObjectFolder(place).sizes("shards")) == 3
    assert [row.image.name for row in rows(place)] == ["1"]


def test_a_shard_that_is_committed_while_a_folder_is_read_is_not_damaged(
    place, tmp_path, monkeypatch
):
    write(place, tmp_path, [ok("1")])
    listed = ObjectFolder.sizes
    calls = []

    def then_committed(self, folder=""):
        found = listed(self, folder)
        calls.append(folder)
        if len(calls) == 1:
            write(place, tmp_path, [ok("2")], stem="b-0")
        return found

    monkeypatch.setattr(ObjectFolder, "sizes", then_committed)
    assert {row.image.name for row in rows(place)} <= {"1", "2"}


def test_manifests_are_read_by_the_thread_that_asks(tmp_path, monkeypatch):
    """One of pyarrow's that still holds the file when Python ends makes it hang."""
    write(tmp_path / "set", tmp_path, [ok("1"), ok("2")])
    threads = reading_threads.noted(monkeypatch)
    assert len(rows(tmp_path / "set")) == 2
    assert threads == {threading.get_ident()}


def test_a_name_has_one_effective_row(tmp_path):
    attempts = [
        [failed("a", time=9.0), ok("b", time=1.0), failed("c", time=1.0), ok("d", time=2.0)],
        [ok("a", time=1.0), failed("b", time=3.0), failed("c", time=2.0), ok("d", time=1.0)],
    ]
    for images in attempts, attempts[::-1]:
        with Index(image for some in images for image in some) as index:
            found = index.get(["d", "missing", "c", "b", "a"])
            assert len(index) == 4 and list(found) == ["d", "c", "b", "a"]
            times = {name: (image.status, image.time) for name, image in found.items()}
            assert times == {"a": (OK, 1.0), "b": (OK, 1.0), "c": (FAILED, 2.0), "d": (OK, 2.0)}
    with Index([]) as index:
        assert index.get(["a"]) == {}


def test_repeated_contents_are_failures_afterwards(place, tmp_path, monkeypatch):
    monkeypatch.setattr(repeated, "_ROWS_PER_PASS", 3)
    drawing = b"gone"
    first = [ok(name, drawing) for name in "abc"] + [ok("x")]
    second = [ok(name, drawing) for name in "cd"] + [ok(name, b"y") for name in "yz"]
    contents = dict.fromkeys("abcd", drawing) | dict.fromkeys("yz", b"y")
    for stem, images in ("a-0", first), ("b-0", second):
        write(place, tmp_path, images, stem, contents)
    folder = ObjectFolder(place)
    assert not repeated.read(folder).judged
    names = layout.manifest_names(folder)
    assert repeated.judge(folder, names, max_copies=5) == 0  # c counts once
    assert all(row.image.status == OK for row in rows(place))
    before = ShardFolder(place).fingerprint()
    assert repeated.judge(folder, names, max_copies=4) == 1
    statuses = {row.image.name: (row.image.status, row.image.error) for row in rows(place)}
    assert statuses == dict.fromkeys("abcd", (FAILED, "placeholder")) | dict.fromkeys(
        "xyz", (OK, None)
    )
    assert ShardFolder(place).fingerprint() != before
    assert repeated.judge(folder, names, max_copies=0) == 0


def test_when_a_shard_is_full(tmp_path):
    shard = OpenShard(tmp_path, "a-0")
    shard.add(ok("1"), b"12345")
    shard.add(failed("2"))
    limits = [Full(1, 99, 99), Full(99, 5, 99), Full(99, 99, 2), Full(2, 6, 3)]
    assert [shard.is_full(full) for full in limits] == [True, True, True, False]
    assert new_attempt("00000-of-00001") != new_attempt("00000-of-00001")


def test_another_number_of_parts_is_refused(place):
    folder = ObjectFolder(place)
    layout.settle_layout(folder, Layout(4, "host"))
    layout.settle_layout(folder, Layout(4, "host"))
    with pytest.raises(ImageShardError, match=r"begun with 4 parts by host.*give --shards 4"):
        layout.settle_layout(folder, Layout(8, "host"))
    folder.write("layout.json", b"[]")
    with pytest.raises(ImageShardError, match=r"layout.json: damaged"):
        layout.settle_layout(folder, Layout(4, "host"))


@pytest.mark.parametrize("missing", ["room", "folder"])
def test_no_room_for_a_copy_is_no_fault_of_an_image(tmp_path, monkeypatch, missing):
    """A build would count every image of the shard as unreadable, and go on without them."""
    place = f"memory://{tmp_path.name}/set"
    write(place, tmp_path, [ok("a", b"image")], contents={"a": b"image"})
    monkeypatch.setattr(reader, "_copies", [])
    if missing == "folder":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    else:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "copy")
        monkeypatch.setattr(ObjectFolder, "copy_to", mock.Mock(side_effect=full))
    with pytest.raises(NoRoomError, match=r"to be read: No s.* Set TMPDIR to a folder with room"):
        RecordPlace(f"{place}/shards/a-0.array_record", 0).read()
    assert not issubclass(NoRoomError, OSError)  # which is recorded as a fault of the image


def test_too_many_open_files_are_no_damage(tmp_path, monkeypatch):
    write(tmp_path / "set", tmp_path, [ok("a", b"image")], contents={"a": b"image"})
    full = RuntimeError("UNKNOWN: open() failed: Too many open files")
    monkeypatch.setattr(reader._readers, "get", mock.Mock(side_effect=full))
    with pytest.raises(OSError, match="Too many open files") as raised:
        RecordPlace(str(tmp_path / "set/shards/a-0.array_record"), 0).read()
    assert raised.value.errno == errno.EMFILE


def test_damage_is_named(tmp_path):
    place = tmp_path / "set"
    with pytest.raises(ImageShardError, match="no image shards; give a folder that"):
        ShardFolder(place)
    images = [ok(str(i), os.urandom(2000)) for i in range(20)]
    write(place, tmp_path, images, contents={str(i): os.urandom(2000) for i in range(20)})
    records, manifest = place / "shards/a-0.array_record", place / "shards/a-0.parquet"
    intact = records.read_bytes()
    records.write_bytes(intact[:5000] + bytes([intact[5000] ^ 1]) + intact[5001:])
    with pytest.raises(OSError, match=r"record \d+ of .* cannot be read .*copy it again"):
        for record in range(20):
            RecordPlace(str(records), record).read()
    records.write_bytes(intact[:-100])
    with pytest.raises(ImageShardError, match=r"instead of 131,072 bytes: copy it again"):
        ShardFolder(place)
    records.unlink()
    with pytest.raises(ImageShardError, match=r"a-0.array_record: missing instead of"):
        ShardFolder(place)
    whole = manifest.read_bytes()
    for data in b"", whole[:-50], whole[:200] + b"\0" * 400 + whole[600:]:
        manifest.write_bytes(data)
        with pytest.raises(ImageShardError, match=r"a-0.parquet: not the intact manifest"):
            for one in [manifest_file.ManifestFile(ObjectFolder(place), "shards/a-0.parquet")]:
                list(one.rows())
    (place / "repeated_contents.parquet").write_bytes(whole)
    with pytest.raises(ImageShardError, match=r"repeated_contents.parquet: damaged"):
        repeated.read(ObjectFolder(place))


def changed(data, positions):
    """The data with one bit of each position flipped, one after the other."""
    for position in positions:
        yield data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :]


def test_no_damage_of_a_manifest_hides_rows(tmp_path):
    place = tmp_path / "set"
    write(place, tmp_path, [ok(f"http://host/{i}.jpg", time=1e9 + i) for i in range(9)])
    path, expected, named = place / "shards/a-0.parquet", rows(place), 0
    for data in changed(path.read_bytes(), range(4, 200)):
        path.write_bytes(data)
        try:
            assert rows(place) == expected
        except ImageShardError as error:
            named += 1
            assert str(path) in str(error)
    assert named > 100


def test_texts_that_are_none_are_named(tmp_path):
    place = tmp_path / "set"
    write(place, tmp_path, [ok("1")])
    path = place / "shards/a-0.parquet"
    table = pq.read_table(path)
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0")
    name = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xff"))
    pq.write_table(table.set_column(0, table.schema.field("name"), name), path)
    folder = ObjectFolder(place)
    for read in (rows, lambda _: repeated.judge(folder, ["shards/a-0.parquet"], max_copies=2)):
        with pytest.raises(ImageShardError, match=r"a-0\.parquet: not the intact .*UTF8"):
            read(place)


def test_texts_of_any_length_need_no_memory(tmp_path, monkeypatch):
    """Parquet stores a text once for all rows that have it."""
    place = tmp_path / "set"
    write(place, tmp_path, [failed(str(i), author="x" * 1_000) for i in range(100)])
    assert len(rows(place)) == 100
    monkeypatch.setattr(manifest_file, "_MAX_TEXT", 99_999)
    with pytest.raises(ImageShardError, match=r"a-0\.parquet: not the .*99,999 bytes in 4,096"):
        rows(place)


def test_a_text_in_repeated_contents_needs_no_memory(tmp_path, monkeypatch):
    """Its rows are few enough, but all may stand for the same megabytes."""
    pq.write_table(pa.table({"sha256": ["x" * 100_000]}), tmp_path / repeated.FILE)
    monkeypatch.setattr(pq.ParquetFile, "read", None)
    with pytest.raises(ImageShardError, match=r"damaged \(it has other columns"):
        repeated.read(ObjectFolder(tmp_path))


def test_no_damage_of_repeated_contents_is_taken_for_others(tmp_path):
    place = tmp_path / "set"
    write(place, tmp_path, [ok("1"), ok("2")])
    folder = ObjectFolder(place)
    repeated.judge(folder, layout.manifest_names(folder), max_copies=1)
    path, expected = place / repeated.FILE, repeated.read(folder)
    data = path.read_bytes()
    for damaged in [data[:-1], data[: len(data) // 2], *changed(data, range(4, len(data), 5))]:
        path.write_bytes(damaged)
        try:
            assert repeated.read(folder) == expected
        except ImageShardError as error:
            assert f"{path}: damaged" in str(error)


def test_any_number_of_repeated_contents_needs_no_memory(tmp_path):
    """Parquet stores a content once for all rows that have it."""
    place = tmp_path / "set"
    write(place, tmp_path, [ok("1")])
    repeated.judge(ObjectFolder(place), ["shards/a-0.parquet"], max_copies=1)
    table = pq.read_table(place / repeated.FILE)
    pq.write_table(pa.concat_tables([table] * 9_999).combine_chunks(), place / repeated.FILE)
    with pytest.raises(ImageShardError, match=r"damaged \(9,999 rows in"):
        repeated.read(ObjectFolder(place))


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, '{"format": 1, "parts": 0, "by": "host"}', '{"format": 1}']
)
def test_a_damaged_layout_is_named(tmp_path, text):
    (tmp_path / "layout.json").write_text(text)
    with pytest.raises(ImageShardError, match=r"layout\.json: damaged"):
        layout.read_layout(ObjectFolder(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard": "../../etc/passwd"}, "names another shard"),
        ({"record": 5}, "record 5 of 1"),
        ({"record": -1}, "record -1 of 1"),
        ({"status": "fine"}, "neither ok"),
        ({"file": None}, "neither ok"),
        ({"time": float("nan")}, "a time is not a finite number"),
        ({"about": {"file": "../b.array_record"}}, "it describes '../b.array_record'"),
        ({"about": {"num_images": -1}}, "it describes"),
        ({"about": {"format": 2}}, "not of format 1"),
        ({"about": {"more": 2}}, "unexpected keyword"),
        ({"text": b"[" * 100_000}, "recursion depth"),
        ({"columns": 3}, "other columns"),
    ],
)
def test_hostile_manifests(tmp_path, change, message):
    place = tmp_path / "set"
    write(place, tmp_path, [ok("1")])
    path = place / "shards/a-0.parquet"
    table = pq.read_table(path)
    about = manifest_file.json.loads(table.schema.metadata[b"mlimages.shard"])
    about |= change.pop("about", {})
    text = change.pop("text", None) or manifest_file.json.dumps(about).encode()
    table = table.select(table.column_names[: change.pop("columns", None)])
    for name, value in change.items():
        field = table.schema.field(name)
        table = table.set_column(
            table.column_names.index(name), field, [pa.array([value], field.type)]
        )
    pq.write_table(table.replace_schema_metadata({b"mlimages.shard": text}), path)
    with pytest.raises(ImageShardError, match=message):
        rows(place)


def test_a_scheme_that_nothing_reads():
    with pytest.raises(ObjectFolderError, match="gs://bucket/name or s3://"):
        ObjectFolder("nothing://bucket/set")
