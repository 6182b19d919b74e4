# SPDX-License-Identifier: BSD-3-Clause
"""Files of records that killed workers left: removed once no living attempt can commit them."""

import datetime
import time

import fsspec
import pytest

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards import repeated, writer
from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.prepare import shard_leftovers
from tests.prepare.test_download import run
from tests.prepare.test_download_shards import effective, options, write_list

HOUR = 3600.0


def left_behind(folder, stem, *, hours):
    """Writes a file of records without a manifest, so long ago."""
    name = f"shards/{stem}.array_record"
    folder.write(name, b"x" * 1000)
    memory = fsspec.filesystem("memory")
    path = memory._strip_protocol(folder.path(name))
    now = datetime.datetime.now(datetime.UTC)
    memory.store[path].modified = now - datetime.timedelta(hours=hours)


def shard_of(tmp_path, stem):
    """An open shard of one image, and one row that failed."""
    tmp_path.mkdir(exist_ok=True)
    shard = writer.OpenShard(tmp_path, stem)
    shard.add(Image(name="a", status=OK, time=time.time(), file="a"), b"content")
    shard.add(Image(name="b", status=FAILED, time=time.time(), error="http_404"))
    return shard


@pytest.fixture
def bucket(tmp_path):
    folder = ObjectFolder(f"memory://{tmp_path.name}")
    folder.write("other", b"")
    yield folder
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_a_download_removes_what_is_a_day_old_and_in_no_manifest(
    bucket, image_server, tmp_path, capsys
):
    left_behind(bucket, "00000-of-00002-01234567-00000", hours=25)
    left_behind(bucket, "00001-of-00002-89abcdef-00003", hours=23)
    urls = write_list(tmp_path / "urls.txt", [f"ok/left{i}.jpg" for i in range(4)])
    run(urls, "--output", bucket, *options(image_server, "--shards=2"))
    assert shard_leftovers.uncommitted(bucket.sizes("shards")) == [
        "00001-of-00002-89abcdef-00003.array_record"
    ]
    assert "removed 1 files of killed workers" in capsys.readouterr().err
    assert len(effective(bucket.place)) == 4


def test_old_shards_that_are_committed_stay(bucket, tmp_path):
    shard_of(tmp_path, "00000-of-00001-01234567-00000").commit(bucket)
    there = bucket.sizes("shards")
    for file in fsspec.filesystem("memory").store.values():
        file.modified -= datetime.timedelta(days=9)
    repeated.judge(bucket, [], max_copies=0)
    shard_leftovers.remove_leftovers(bucket)
    assert bucket.sizes("shards") == there and len(there) == 2


def test_an_attempt_that_stood_still_commits_nothing(bucket, tmp_path, monkeypatch):
    """Its machine slept between records and manifest; the records may be gone by then."""
    shard = shard_of(tmp_path, "00000-of-00001-01234567-00000")
    put, clock = ObjectFolder.put, time.time()

    def slow(self, scratch, name):
        nonlocal clock
        put(self, scratch, name)
        clock += 13 * HOUR

    monkeypatch.setattr(ObjectFolder, "put", slow)
    monkeypatch.setattr(writer.time, "time", lambda: clock)
    for _ in range(2):
        with pytest.raises(OSError, match="may have been removed"):
            shard.commit(bucket)
    assert list(bucket.sizes("shards")) == ["00000-of-00001-01234567-00000.array_record"]
