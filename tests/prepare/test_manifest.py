# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import sqlite3
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.prepare.manifest import Manifest, ManifestError
from tests.support import fuzzing


def there(name, **fields):
    return Image(name=name, status=OK, time=1.5, file=f"{name}.jpg", **fields)


def failed(name, error="http_404", **fields):
    return Image(name=name, status=FAILED, time=2.5, error=error, **fields)


def test_rows_come_back_as_they_were(tmp_path):
    rows = [
        there("https://a.org/1.jpg", source="list", http_status=200, num_bytes=3, sha256=b"\0" * 32,
              width=4, height=5, file_sha256=b"\1" * 32, license="CC", author="Ü", rotation=90.0),
        failed("b", message="list: HTTP 404 Not Found", http_status=404),
    ]  # fmt: skip
    with Manifest(tmp_path / "m.sqlite") as manifest:
        manifest.put(rows)
        assert len(manifest) == 2
    with Manifest(tmp_path / "m.sqlite", readonly=True) as manifest:
        assert list(manifest) == sorted(rows, key=lambda row: row.name)
        assert manifest.get(["b", "c", "https://a.org/1.jpg"]) == {row.name: row for row in rows}
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            manifest.put([there("c")])


def test_a_row_of_the_same_name_is_replaced(tmp_path):
    with Manifest(tmp_path / "m.sqlite") as manifest:
        manifest.put([failed("a"), failed("b", "timeout")])
        manifest.put([there("a", source="mirror")])
        assert manifest.get(["a"])["a"].status == OK
        assert manifest.counts("status", "error") == {("ok", None): 1, ("failed", "timeout"): 1}
        assert manifest.counts("source") == {("mirror",): 1, (None,): 1}


def test_many_names_are_asked_in_parts(tmp_path):
    with Manifest(tmp_path / "m.sqlite") as manifest:
        manifest.put(there(str(i)) for i in range(0, 3000, 2))
        assert len(manifest.get([str(i) for i in range(3000)])) == 1500


def test_what_was_put_is_all_or_nothing(tmp_path):
    def rows():
        yield there("a")
        raise OSError("the disk is full")

    with Manifest(tmp_path / "m.sqlite") as manifest:
        with pytest.raises(OSError, match="full"):
            manifest.put(rows())
        with pytest.raises(sqlite3.IntegrityError):
            manifest.put([there("a"), dataclasses.replace(there("b"), status=None)])
        assert len(manifest) == 0
        manifest.put([there("c")])
        assert len(manifest) == 1


def test_repeated_contents(tmp_path):
    with Manifest(tmp_path / "m.sqlite") as manifest:
        manifest.put([there("a", sha256=b"x"), there("b", sha256=b"x"), there("c", sha256=b"y")])
        assert manifest.copies([b"x", b"y", b"z"]) == {b"x": 2, b"y": 1, b"z": 0}
        assert manifest.fail_content(b"x", error="placeholder", message="twice") == 2
        assert manifest.files_of_failed() == [("a", "a.jpg"), ("b", "b.jpg")]
        assert manifest.copies([b"x"]) == {b"x": 2}  # the next one is known at once
        manifest.forget_files(["a"])
        assert manifest.files_of_failed() == [("b", "b.jpg")]
        rows = manifest.get(["a", "c"])
        assert (rows["a"].status, rows["a"].error, rows["a"].file) == (FAILED, "placeholder", None)
        assert rows["c"].status == OK


def test_unknown_columns_are_named(tmp_path):
    with Manifest(tmp_path / "m.sqlite") as manifest, pytest.raises(ValueError, match="'colour'"):
        manifest.counts("status", "colour")


def test_files_that_are_no_manifest(tmp_path):
    (tmp_path / "text").write_text("a.jpg\t3:1\n" * 100)
    with pytest.raises(ManifestError, match="text: not a manifest"):
        Manifest(tmp_path / "text")
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE t (a)").connection.close()
    with pytest.raises(ManifestError, match="other: an SQLite file, but not a manifest"):
        Manifest(tmp_path / "other")
    Manifest(tmp_path / "newer").close()
    sqlite3.connect(tmp_path / "newer").execute("PRAGMA user_version = 7").connection.close()
    with pytest.raises(ManifestError, match="version 7, this program reads 1"):
        Manifest(tmp_path / "newer")
    with pytest.raises(FileNotFoundError, match="absent: there is no such manifest"):
        Manifest(tmp_path / "absent", readonly=True)
    with pytest.raises(sqlite3.OperationalError):
        Manifest(tmp_path / "text" / "below a file")


def test_a_kill_while_writing_leaves_whole_batches(tmp_path):
    script = f"""
import os, signal
from mlimages_jax.image_shards.outcome import OK, Image
from mlimages_jax.prepare.manifest import Manifest
manifest = Manifest({str(tmp_path / "m.sqlite")!r})
def rows(first):
    for i in range(first, first + 100):
        if i == 250: os.kill(os.getpid(), signal.SIGKILL)
        yield Image(name=str(i), status=OK, time=0)
for first in range(0, 1000, 100): manifest.put(rows(first))
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    with Manifest(tmp_path / "m.sqlite") as manifest:
        assert {row.name for row in manifest} == {str(i) for i in range(200)}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
IMAGES = st.builds(
    Image,
    name=TEXTS, status=st.sampled_from([OK, FAILED]), time=st.floats(0, 1e10),
    file=st.none() | TEXTS, source=st.none() | TEXTS, http_status=st.none() | st.integers(0, 999),
    num_bytes=st.none() | st.integers(0, 2**62), sha256=st.none() | st.binary(max_size=32),
    width=st.none() | st.integers(1, 70_000), error=st.none() | TEXTS, message=st.none() | TEXTS,
    rotation=st.none() | st.floats(-360, 360),
)  # fmt: skip


def check_round_trip(folder, rows):
    path = folder / "fuzz.sqlite"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with Manifest(path) as manifest:
        manifest.put(rows)
        expected = {row.name: row for row in rows}
        assert manifest.get([row.name for row in rows]) == expected
        assert {row.name: row for row in manifest} == expected
        assert sum(manifest.counts("status").values()) == len(expected)


def check_damaged(folder, damage):
    """Flips bytes of a manifest: it is read or refused, but never anything else."""
    path = folder / "damaged.sqlite"
    if not (folder / "whole.sqlite").exists():
        with Manifest(folder / "whole.sqlite") as manifest:
            manifest.put(there(f"https://a.org/{i}.jpg", sha256=bytes(32)) for i in range(40))
    data = bytearray((folder / "whole.sqlite").read_bytes())
    for place, value in damage:
        data[place % len(data)] ^= value
    path.write_bytes(data)
    try:
        with Manifest(path, readonly=True) as manifest:
            list(manifest)
            manifest.counts("status")
            manifest.get(["https://a.org/1.jpg"])
    except ManifestError:
        pass


DAMAGE = st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=8)
QUICK = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
THOROUGH = settings(QUICK, max_examples=fuzzing.fraction(10_000))


@QUICK
@given(st.lists(IMAGES, max_size=8))
def test_any_rows_come_back(tmp_path, rows):
    check_round_trip(tmp_path, rows)


@QUICK
@given(DAMAGE)
def test_damaged_manifests_are_refused(tmp_path, damage):
    check_damaged(tmp_path, damage)


@pytest.mark.slow
@pytest.mark.timeout(900)
@THOROUGH
@given(DAMAGE)
def test_damaged_manifests_are_refused_thoroughly(tmp_path, damage):
    check_damaged(tmp_path, damage)
