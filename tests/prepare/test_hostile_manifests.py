# SPDX-License-Identifier: BSD-3-Clause
"""A manifest that somebody else has made, or that an odd row has got into."""

import math
import sqlite3
import time

import pytest

from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.prepare.label_lists import labels
from mlimages_jax.prepare.locked_file import LockedFileError, patiently
from mlimages_jax.prepare.manifest import Manifest, ManifestError
from mlimages_jax.prepare.recorder import Recorder

ROW = Image(name="a", status=OK, time=0.0, file="a.jpg", sha256=b"1" * 32)


def changed(path, *statements):
    """A manifest of one row, and what somebody did to it afterwards."""
    with Manifest(path) as manifest:
        manifest.put([ROW])
    with sqlite3.connect(path) as db:
        for statement in statements:
            db.execute(statement)
    db.close()
    return path


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE pictures ADD COLUMN more",
        "ALTER TABLE pictures RENAME COLUMN file TO files",
        "ALTER TABLE pictures DROP COLUMN message",
        "CREATE TRIGGER t AFTER UPDATE ON pictures BEGIN DELETE FROM pictures; END",
        "CREATE TRIGGER t AFTER INSERT ON pictures BEGIN SELECT load_extension('x'); END",
    ],
)
def test_another_schema_is_refused(tmp_path, statement):
    path = changed(tmp_path / "m.sqlite", statement)
    for readonly in (False, True):
        with pytest.raises(ManifestError, match=r"m\.sqlite: .*triggers or unexpected columns"):
            Manifest(path, readonly=readonly)


def test_a_view_is_no_table(tmp_path):
    path = changed(
        tmp_path / "m.sqlite",
        "ALTER TABLE pictures RENAME TO others",
        "CREATE VIEW pictures AS SELECT * FROM others",
    )
    with pytest.raises(ManifestError, match="not a manifest"):
        Manifest(path)


@pytest.mark.parametrize(
    "change",
    ["file = x'00ff'", "time = 'soon'", "name = x'ff'", "file = CAST(x'ff2e' AS TEXT)"],
)
def test_values_of_other_kinds_are_refused(tmp_path, change):
    path = changed(tmp_path / "m.sqlite", f"UPDATE pictures SET {change}")
    with Manifest(path) as manifest, pytest.raises(ManifestError, match=r"m\.sqlite: "):
        list(manifest)


@pytest.mark.parametrize(
    "file", ["/etc/hosts", "../a.jpg", "a/../../b.jpg", "a\\b", "./a", "a\x1b"]
)
def test_no_list_is_made_of_files_elsewhere(tmp_path, file, capsys):
    path = tmp_path / "m.sqlite"
    with Manifest(path) as manifest:
        manifest.put([Image(name="a.jpg", status=OK, time=0.0, file=file)])
    (tmp_path / "list.txt").write_text("a.jpg\t1:1\n")
    labels([tmp_path / "list.txt"], manifests=(path,), output=tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == ""
    assert "1   left out: unsafe_name" in capsys.readouterr().out


def test_one_odd_row_does_not_keep_the_others_from_being_written(tmp_path):
    odd = Image(
        name="odd\udcff", status=FAILED, time=1.0, http_status=10**30, num_bytes=-(2**70),
        rotation=float("nan"), error="http_404", message="Pas trouv\udce9\n\x1b[31m" + "x" * 5000,
        author="A\u202eB", license="\0",
    )  # fmt: skip
    with Manifest(tmp_path / "m.sqlite") as manifest:
        recorder = Recorder(manifest, tmp_path, max_copies=0)
        recorder.add(ROW)
        recorder.add(odd)
        recorder.flush()
        rows = {row.name: row for row in manifest}
    assert rows["a"] == ROW
    stored = rows[r"odd\udcff"]
    assert (stored.http_status, stored.num_bytes, stored.rotation) == (None, None, None)
    assert stored.message.startswith(r"Pas trouv\udce9\n\x1b[31mxxx") and len(stored.message) < 2100
    assert (stored.author, stored.license) == (r"A\u202eB", r"\x00")


def test_numbers_that_no_column_holds_are_none(tmp_path):
    numbers = [(math.inf, 2**63), (-math.inf, 2**63 - 1), (1e308, -(2**63))]
    rows = [
        Image(name=str(i), status=OK, time=0.0, rotation=rotation, num_bytes=num_bytes)
        for i, (rotation, num_bytes) in enumerate(numbers)
    ]
    with Manifest(tmp_path / "m.sqlite") as manifest:
        manifest.put(rows)
        found = list(manifest)
    assert [row.rotation for row in found] == [None, None, 1e308]
    assert [row.num_bytes for row in found] == [None, 2**63 - 1, None]


def test_patience(tmp_path, capsys):
    path = tmp_path / "m.sqlite"
    calls = []

    def locked_for(seconds):
        calls.append(time.monotonic())
        if calls[-1] - calls[0] < seconds:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY | 2 << 8  # SQLITE_BUSY_SNAPSHOT
            raise error
        return 7

    assert patiently(lambda: locked_for(0.2), path, seconds=5) == 7
    assert not capsys.readouterr().out
    calls.clear()
    with pytest.raises(LockedFileError, match=r"m\.sqlite: another program keeps it locked"):
        patiently(lambda: locked_for(9), path, seconds=0.2)

    def full():
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(sqlite3.OperationalError, match="full"):
        patiently(full, path, seconds=5)
