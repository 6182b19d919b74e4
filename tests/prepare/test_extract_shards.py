# SPDX-License-Identifier: BSD-3-Clause
"""Archives extracted into image shards: the same rows as with files, resumed and in parts."""

import dataclasses

import fsspec
import pytest

from mlimages_jax.data.images import same_software
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards.index import Index
from mlimages_jax.image_shards.layout import ImageShardError
from mlimages_jax.image_shards.outcome import OK
from mlimages_jax.image_shards.reader import RecordPlace, ShardFolder
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.extract import extraction
from mlimages_jax.prepare.extract.command import extract
from tests.prepare.test_extract import BAD, COLOUR, GOOD, files_of, names, rows_of, write_list
from tests.support import emulated_bucket, imagenet_archives


@pytest.fixture
def archive(tmp_path):
    bad = {"n00000009": {name: data for name, (data, _) in BAD.items()}}
    return imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD | bad)


def list_of_all(tmp_path):
    absent = [f"n00000007/n00000007_{i}.JPEG" for i in range(3)]
    return write_list(
        tmp_path / "list.txt", [*names(GOOD), *(f"x/{name}" for name in BAD), *absent]
    )


def rows_in(place):
    folder = ShardFolder(place)
    return [
        (row, folder.place.path(manifest.records))
        for manifest in folder.manifests
        for row in folder.rows(manifest)
    ]


def effective(place):
    images = [row.image for row, _ in rows_in(place)]
    with Index(images) as index:
        found = index.get([image.name for image in images])
    return {name: dataclasses.replace(image, time=0.0) for name, image in found.items()}


@pytest.mark.parametrize("short_side", [None, 16])
def test_both_sinks_give_the_same_rows(archive, tmp_path, capsys, short_side):
    rows, place = list_of_all(tmp_path), f"memory://{tmp_path.name}/set"
    extract((archive,), lists=(rows,), output=tmp_path / "files", short_side=short_side)
    printed = capsys.readouterr().out.splitlines()
    extract((archive,), lists=(rows,), output=place, short_side=short_side, shards=3, workers=0)
    again = capsys.readouterr().out.splitlines()
    assert again[-1].split("of ")[1] == printed[-1].split("of ")[1] and "3 missing" in again[-1]
    assert again[0] == printed[0]
    expected = {
        name: dataclasses.replace(image, time=0.0)
        for name, image in rows_of(tmp_path / "files").items()
    }
    assert effective(place) == expected and len(expected) == 13
    stored = {
        row.image.file: RecordPlace(path, row.record).read()[1]
        for row, path in rows_in(place)
        if row.record is not None
    }
    assert stored == files_of(tmp_path / "files")
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_the_next_run_goes_on(archive, tmp_path, capsys, monkeypatch):
    rows, place = list_of_all(tmp_path), tmp_path / "set"
    settle, settled = extraction.Extraction._settle, []

    def killed(self, *arguments):
        settled.append(arguments)
        if len(settled) > 4:
            raise KeyboardInterrupt
        settle(self, *arguments)

    monkeypatch.setattr(extraction.Extraction, "_settle", killed)
    with pytest.raises(KeyboardInterrupt):
        extract((archive,), lists=(rows,), output=place, shards=2, workers=0)
    monkeypatch.undo()
    kept = [row.image.name for row, _ in rows_in(place)]
    assert kept
    extract((archive,), lists=(rows,), output=place, shards=2, workers=0)
    assert len(effective(place)) == 13
    stored = [row.image.name for row, _ in rows_in(place) if row.image.status == OK]
    assert len(stored) == len(set(stored)) == 5  # nothing was stored twice
    before = ObjectFolder(place).sizes("shards")
    capsys.readouterr()
    extract((archive,), lists=(rows,), output=place, shards=2, workers=0)
    assert "0 inner tars, and 3 finished before" in capsys.readouterr().out
    assert ObjectFolder(place).sizes("shards") == before
    # Another archive has one of the missing images, and a good copy of a bad one.
    more = {"n00000007": {"n00000007_1.JPEG": COLOUR}, "n00000009": {"n00000009_1.JPEG": COLOUR}}
    other = imagenet_archives.write_nested(tmp_path / "other.tar", more)
    extract((archive, other), lists=(rows,), output=place, shards=2, workers=0)
    found = effective(place)
    assert found["n00000007/n00000007_1.JPEG"].status == OK
    assert found["x/n00000009_1.JPEG"].source == "other.tar"
    assert found["n00000007/n00000007_2.JPEG"].error == "missing" and len(found) == 13


def test_all_images_under_their_own_names(tmp_path):
    files = {"a.JPEG": COLOUR, "b/c.JPEG": COLOUR, "d.JPEG": b"none"}
    archive = imagenet_archives.write_flat(tmp_path / "val.tar", files)
    extract((archive,), everything=True, output=tmp_path / "set", shards=2, workers=0)
    errors = {name: image.error for name, image in effective(tmp_path / "set").items()}
    assert errors == {"a.JPEG": None, "b/c.JPEG": None, "d.JPEG": "not_an_image"}


def test_by_processes(archive, tmp_path):
    rows = list_of_all(tmp_path)
    extract((archive,), lists=(rows,), output=tmp_path / "set", shards=4, workers=2)
    assert len(effective(tmp_path / "set")) == 13


@pytest.mark.slow
@pytest.mark.parametrize("store", emulated_bucket.STORES)
def test_into_a_bucket(archive, tmp_path, monkeypatch, store):
    rows = list_of_all(tmp_path)
    extract((archive,), lists=(rows,), output=tmp_path / "disk", shards=2, workers=0)
    with emulated_bucket.serve(store, tmp_path / "bucket", monkeypatch):
        for _ in range(2):
            extract((archive,), lists=(rows,), output=f"{store}://bucket/set", shards=2, workers=2)
        found = effective(f"{store}://bucket/set")
    expected = effective(tmp_path / "disk")
    assert {name: image.sha256 for name, image in found.items()} == {
        name: image.sha256 for name, image in expected.items()
    }


def test_what_is_refused(archive, tmp_path):
    rows = list_of_all(tmp_path)
    with pytest.raises(PrepareError, match="give --shards too"):
        extract((archive,), lists=(rows,), output="gs://bucket/set")
    with pytest.raises(PrepareError, match="give --shards too"):
        extract((archive,), lists=(rows,), output=tmp_path / "set", engine="ray")
    with pytest.raises(PrepareError, match="--shards 0"):
        extract((archive,), lists=(rows,), output=tmp_path / "set", shards=0)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/layout.json").write_text('{"format": 1, "parts": 2, "by": "host"}')
    with pytest.raises(ImageShardError, match="of another command"):
        extract((archive,), lists=(rows,), output=tmp_path / "set", shards=2, workers=0)


def test_a_worker_that_would_write_other_bytes_is_refused(archive, tmp_path, monkeypatch):
    there = {**same_software.installed(), "pillow": "0.1"}
    monkeypatch.setattr(same_software, "installed", lambda: there)
    with pytest.raises(same_software.OtherSoftwareError, match="would write other bytes"):
        extract((archive,), everything=True, output=tmp_path / "set", shards=2, workers=0)


def test_a_damaged_archive_is_named_once(archive, tmp_path):
    rows = list_of_all(tmp_path)
    archive.write_bytes(archive.read_bytes()[:-12_000])
    with pytest.raises(PrepareError, match=r"1 of 1 archives are damaged"):
        extract((archive,), lists=(rows,), output=tmp_path / "set", shards=2, workers=0)
    assert len(effective(tmp_path / "set")) == 13
