# SPDX-License-Identifier: BSD-3-Clause
"""Downloads into image shards: the same rows as with files, killed and resumed, by any worker."""

import collections
import contextlib
import dataclasses
import hashlib
import random
import subprocess
import sys
import tempfile
import threading
import time

import fsspec
import psutil
import pytest

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images import same_software
from mlimages_jax.data.images.decode import verify
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards import layout, writer
from mlimages_jax.image_shards.counts import count_outcomes
from mlimages_jax.image_shards.index import Index
from mlimages_jax.image_shards.layout import ImageShardError
from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.image_shards.reader import RecordPlace, ShardFolder
from mlimages_jax.prepare import PrepareError, shard_scratch
from mlimages_jax.prepare.download import hosts, open_images_table, shard_job
from mlimages_jax.prepare.extract.shard_extraction import ShardExtraction
from mlimages_jax.prepare.manifest import Manifest
from mlimages_jax.prepare.shard_sink import ShardSink
from mlimages_jax.prepare.sink import Kept
from mlimages_jax.prepare.storing import StorageError
from tests.prepare.test_download import OUTCOMES, QUICK, ROOT, fails, run
from tests.prepare.test_open_images_table import HEADER
from tests.support import emulated_bucket, worker_processes
from tests.support.five_classes import CLASS_LIST
from tests.tfds_builders.built_set import records


def write_list(path, names):
    path.write_text(
        "".join(f"http://photos{i % 5}.test/{name}\t3:1\n" for i, name in enumerate(names))
    )
    return path


def options(image_server, *more):
    return [*QUICK, f"--address-map=*.test={image_server.url}", *more]


def shard_rows(place):
    """The rows of all shards by name; one name may have several."""
    folder = ShardFolder(place)
    found = collections.defaultdict(list)
    for manifest in folder.manifests:
        for row in folder.rows(manifest):
            found[row.image.name].append((row, folder.place.path(manifest.records)))
    return found


def effective(place):
    with Index(row.image for rows in shard_rows(place).values() for row, _ in rows) as index:
        return index.get(list(shard_rows(place)))


def bytes_of(place):
    """Name and stored bytes of every image."""
    return {
        row.image.name: RecordPlace(path, row.record).read()[1]
        for rows in shard_rows(place).values()
        for row, path in rows
        if row.record is not None
    }


def test_both_sinks_give_the_same_rows(image_server, tmp_path, capsys):
    kinds = ["ok", "ok", "redirect", "cmyk", "404", "cut", "html", "unavailable", "loop", "empty"]
    kinds += ["bomb", *["placeholder"] * 5]
    names = [f"{kind}/both{i}.jpg" for i, kind in enumerate(kinds)]
    urls = write_list(tmp_path / "urls.txt", names)
    with urls.open("a") as file:
        file.write("ftp://a.org/1.jpg\t3\n \n https://a.org/2.jpg\n")
    limits = options(image_server, "--max-copies=4", "--short-side=48")
    run(urls, "--output", tmp_path / "files", *limits)
    printed = capsys.readouterr().out.splitlines()
    run(urls, "--output", tmp_path / "shards", *limits, "--shards=3")
    assert sorted(capsys.readouterr().out.splitlines()[:-1]) == sorted(printed[:-1])

    with Manifest(tmp_path / "files/manifest.sqlite", readonly=True) as manifest:
        expected = {image.name: dataclasses.replace(image, time=0.0) for image in manifest}
    found = {
        name: dataclasses.replace(image, time=0.0)
        for name, image in effective(tmp_path / "shards").items()
    }
    assert found == expected and len(found) == len(kinds) + 2
    stored = {name: image.file for name, image in expected.items() if image.status == OK}
    contents = bytes_of(tmp_path / "shards")
    assert len(stored) == 4 and set(stored) == set(contents)
    for name, file in stored.items():
        assert (tmp_path / "files/images" / file).read_bytes() == contents[name]
    assert not list((tmp_path / "shards/unfinished").glob("*/"))


def test_a_second_run_fetches_nothing_and_failures_on_request(image_server, tmp_path):
    place = f"memory://{tmp_path.name}"
    urls = write_list(
        tmp_path / "urls.txt", [f"{kind}/twice.jpg" for kind in ("ok", "404", "flaky")]
    )
    arguments = [urls, "--output", place, *options(image_server, "--retries=0", "--shards=2")]
    run(*arguments)
    assert {row.error for row in effective(place).values()} == {None, "http_404", "http_500"}
    before = ObjectFolder(place).sizes("shards")
    run(*arguments)
    assert ObjectFolder(place).sizes("shards") == before
    run(*arguments, "--retry-failed", "http_500")
    assert [len(rows) for rows in shard_rows(place).values()].count(2) == 1
    assert {row.error for row in effective(place).values()} == {None, "http_404"}
    assert count_outcomes(ShardFolder(place)).outcomes == {
        (OK, "list", None): 2, (FAILED, None, "http_404"): 1,
    }  # fmt: skip
    requests = image_server.requests()
    assert [requests[f"/{kind}/twice.jpg"] for kind in ("ok", "404", "flaky")] == [1, 1, 2]
    fails("begun with 2 parts by host", *arguments[:-1], "--shards=3")
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_a_kill_between_records_and_manifest(image_server, tmp_path, monkeypatch):
    names = [f"ok/between{i}.jpg" for i in range(30)]
    urls = write_list(tmp_path / "urls.txt", names)
    put, puts = ObjectFolder.put, []

    def killed(self, scratch, name):
        puts.append(name)
        if len(puts) >= 4:  # the second shard's manifest
            raise OSError("killed")
        put(self, scratch, name)

    monkeypatch.setattr(ObjectFolder, "put", killed)
    arguments = [urls, "--output", tmp_path / "set", *options(image_server, "--shards=4")]
    fails("committed shards are kept", *arguments)
    monkeypatch.undo()
    there = [name.split(".")[1] for name in ObjectFolder(tmp_path / "set").sizes("shards")]
    assert sorted(there) == ["array_record", "array_record", "parquet"]
    kept = set(shard_rows(tmp_path / "set"))
    run(*arguments)
    assert len(effective(tmp_path / "set")) == 30
    assert all(len(rows) == 1 for rows in shard_rows(tmp_path / "set").values())
    sizes = ObjectFolder(tmp_path / "set").sizes("shards")
    assert all(name.replace("array_record", "parquet") in sizes for name in sizes)
    requests = image_server.requests()
    assert kept and all(requests["/" + name.split("/", 3)[3]] == 1 for name in kept)


def test_two_commands_that_begin_with_other_parts_at_once(image_server, tmp_path, monkeypatch):
    folder = ObjectFolder(tmp_path / "set")
    urls = write_list(tmp_path / "urls.txt", ["ok/at once.jpg"])

    def meanwhile(*arguments, **options):
        folder.write(layout.LAYOUT, b'{"format": 1, "parts": 8, "by": "host"}')
        return range(4)

    monkeypatch.setattr(shard_job, "longest_first", meanwhile)
    fails(
        "was begun with 8 parts by host, not 4",
        urls, "--output", folder.place, *options(image_server, "--shards=4"),
    )  # fmt: skip
    extraction = ShardExtraction(archives=[], lists=[], folder=folder, parts=8, short_side=None)
    with pytest.raises(ImageShardError, match="image shards of another command"):
        extraction.extract_part(0, threads=1)
    assert not folder.sizes("shards")


def sink(place, scratch, **changes):
    scratch.mkdir(exist_ok=True)
    given = {"full": writer.Full(images=2), "max_copies": 3, "is_retried": lambda error: False}
    return ShardSink(ObjectFolder(place), "00000-of-00001", scratch=scratch, **given | changes)


def add(one, scratch, *names, content=None):
    for name in names:
        data = content or name.encode()
        image = Image(name=name, status=OK, time=time.time(), file=name,
                      sha256=hashlib.sha256(data).digest())  # fmt: skip
        one.add(image, Kept(None, data))


def test_two_attempts_at_one_part(tmp_path):
    """The first is believed dead, but goes on."""
    place = tmp_path / "set"
    with sink(place, tmp_path / "a") as first, sink(place, tmp_path / "b") as second:
        for one, names in ((first, "abc"), (second, "bcd")):
            assert one.wanted(list("abcd")) == list("abcd")
            add(one, tmp_path, *names)
            one.flush()
    assert {name: len(rows) for name, rows in shard_rows(place).items()} == {
        "a": 1, "b": 2, "c": 2, "d": 1,
    }  # fmt: skip
    assert len(effective(place)) == count_outcomes(ShardFolder(place)).outcomes.total() == 4
    with sink(place, tmp_path / "c") as third:
        assert third.wanted(["a", "d", "e"]) == ["e"]


def test_a_shard_is_committed_when_it_is_full(tmp_path):
    place = tmp_path / "set"
    with sink(place, tmp_path / "a") as one:
        add(one, tmp_path, "a")
        one.flush(wait=False)
        assert "a" in one.pending and not layout.manifest_names(ObjectFolder(place))
        add(one, tmp_path, "b")
        one.flush(wait=False)
        deadline = time.monotonic() + 20
        while one.pending and time.monotonic() < deadline:
            one.flush(wait=False)
        assert one.written == {OK: 2} and one.wanted(["a", "b", "c"]) == ["c"]
        add(one, tmp_path, *"cdefgh", content=b"gone")  # placeholders: three are stored
        one.flush()
    statuses = collections.Counter(image.status for image in effective(place).values())
    assert statuses == {OK: 5, FAILED: 3}


def test_a_bucket_that_cannot_be_written_to(tmp_path, monkeypatch):
    place = tmp_path / "set"

    def full(*_):
        raise OSError(28, "No space left on device")

    with sink(place, tmp_path / "a") as one:
        add(one, tmp_path, "a", "b")
        put = ObjectFolder.put
        monkeypatch.setattr(ObjectFolder, "put", full)
        with pytest.raises(StorageError, match="No space left on device"):
            one.flush()
        monkeypatch.setattr(ObjectFolder, "put", put)
        one.flush()
    assert len(effective(place)) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a.org/1.jpg", "https://a.org:8080/2.jpg"),
        ("http://a.org/1.jpg", "http://A.ORG./1.jpg"),
        ("http://a.org", "http://user@a.org?1"),
        ("http://127.0.0.1/1.jpg", "http://0x7f.1/2.jpg"),
        ("http://bücher.de/1.jpg", "http://xn--bcher-kva.de/"),
    ],
)
def test_a_host_is_of_one_part_however_it_is_spelled(one, other):
    assert hosts.part_of(one, 1 << 30) == hosts.part_of(other, 1 << 30)


def test_hosts_are_spread():
    parts = collections.Counter(hosts.part_of(f"http://host{i}.org/{i}", 4) for i in range(400))
    assert set(parts) == set(range(4)) and min(parts.values()) > 60
    assert hosts.part_of("not a url", 4) in range(4)


def test_another_attempt_at_a_part_is_waited_for_but_not_another_command(tmp_path, monkeypatch):
    place = tmp_path / "set"
    with shard_scratch.only_run(ObjectFolder(place)):
        fails("is locked", write_list(tmp_path / "urls.txt", ["ok/1.jpg"]), "--output", place,
              "--shards=1")  # fmt: skip
    begun, ended = threading.Event(), []

    def other():
        with shard_scratch.scratch_of(ObjectFolder(place), "00000-of-00001"):
            begun.set()
            time.sleep(0.2)
            ended.append(True)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    with shard_scratch.scratch_of(ObjectFolder(place), "00000-of-00001"):
        assert ended
    thread.join()
    monkeypatch.setattr(shard_scratch, "_PATIENCE", 0.0)
    with (
        shard_scratch.scratch_of(ObjectFolder(place), "00000-of-00001"),
        pytest.raises(PrepareError, match="is locked"),
        shard_scratch.scratch_of(ObjectFolder(place), "00000-of-00001"),
    ):
        pass


def test_the_table_is_indexed_once_for_all_parts(image_server, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = f"memory://{tmp_path.name}/set"
    make, made = open_images_table._make, []
    monkeypatch.setattr(
        open_images_table, "_make", lambda *given: (made.append(given[1]), make(*given))
    )
    urls = write_list(tmp_path / "urls.txt", ["ok/1.jpg", "ok/2.jpg"])
    table = tmp_path / "images.csv"
    table.write_text(f"{HEADER}\n")
    run(urls, "--output", place, "--shards=3", *options(image_server, "--open-images-table", table))
    assert len(made) == 1 and made[0].is_file() and made[0].is_relative_to(tmp_path)
    assert [image.status for image in effective(place).values()] == [OK, OK]
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_options_that_do_not_go_together(tmp_path):
    urls = write_list(tmp_path / "urls.txt", ["ok/1.jpg"])
    fails("give --shards too", urls, "--output", "gs://bucket/set")
    fails("--shards 0", urls, "--output", tmp_path, "--shards=0")
    fails("give either --shards", urls, "--output", tmp_path, "--shards=2", "--shard=0/2")
    for option in ("--workers=2", "--engine=ray"):
        fails("give --shards too", urls, "--output", tmp_path, option)


def test_a_worker_that_would_write_other_bytes_is_refused(tmp_path, monkeypatch):
    there = {**same_software.installed(), "pillow": "0.1"}
    monkeypatch.setattr(same_software, "installed", lambda: there)
    urls = write_list(tmp_path / "urls.txt", ["ok/1.jpg"])
    fails("would write other bytes", urls, "--output", tmp_path / "set", "--shards=2")


@pytest.mark.slow
def test_killed_workers(image_server, tmp_path):
    """Four workers, of which some are killed at random moments: nothing is lost."""
    names = [f"{['ok', 'slow', 'flaky', '404'][i % 4]}/workers{i}.jpg" for i in range(400)]
    urls = tmp_path / "urls.txt"
    lines = [f"http://h{i % 40}.test/{name}\n" for i, name in enumerate(names)]
    urls.write_text("".join(lines))
    command = [sys.executable, "-m", "mlimages_jax.prepare", "download", str(urls)]
    command += ["--output", str(tmp_path / "set")]
    # A request that a busy machine answers too late is one of the tries.
    command += options(image_server, "--shards=16", "--workers=4", "--retries=4")
    generator = random.Random(0)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        killed = 0
        while killed < 3 and process.poll() is None:
            time.sleep(generator.uniform(0.5, 1.0))
            killed += kill_a_worker(process.pid, generator)
        assert process.wait(timeout=120) == 0 and killed
    found = effective(tmp_path / "set")
    assert len(found) == 400
    for i, name in enumerate(names):
        assert found[f"http://h{i % 40}.test/{name}"].error == OUTCOMES[name.split("/")[0]]
    for data in bytes_of(tmp_path / "set").values():
        verify(data)


@pytest.mark.slow
@pytest.mark.parametrize("store", emulated_bucket.STORES)
def test_into_a_bucket_and_out_of_it(image_server, tmp_path, monkeypatch, store):
    """In processes of their own, as ArrayRecord keeps its client of gs://."""
    bucket, manual = f"{store}://bucket", tmp_path / "manual"

    def data(*words):
        command = [sys.executable, "-m", "mlimages_jax", "data", *map(str, words)]
        return subprocess.check_output(command, cwd=ROOT, text=True)

    with emulated_bucket.serve(store, tmp_path / "bucket", monkeypatch):
        urls = write_list(tmp_path / "urls.txt", [f"ok/bucket{i}.jpg" for i in range(20)])
        data("download", urls, "--output", f"{bucket}/images", "--shards=4", "--workers=2",
             *options(image_server))  # fmt: skip
        manual.mkdir()
        (manual / "dictionary.txt").write_text(CLASS_LIST)
        data("labels", urls, "--manifests", f"{bucket}/images",
             "--output", manual / "train_image_list.txt")  # fmt: skip
        folder = data("build", "ml-images", f"--manual-dir={manual}", f"--data-dir={bucket}/sets",
                      "--name=mine", "--num-shards=3", "--image-shards", f"{bucket}/images",
                      "--workers=2").strip()  # fmt: skip
        assert folder == f"{bucket}/sets/mine/released_320/1.0.0"
        assert "20 records of 3 shards: no problems" in data("check", folder, "--workers=2")
        assert "5 records of 3 shards: no problems" in data("check", folder, "--sample=5")
        assert "20" in data("stats", "--dataset", folder)
        (stream,) = DataSet.open(folder, copy_to=str(tmp_path / "ssd")).streams(
            "train", count=3, served=[1]
        )
        assert len(stream) == 7
    names = ObjectFolder(tmp_path / "bucket/images").sizes("shards")
    assert sum(name.endswith(".parquet") for name in names) >= 2
    assert len(records(tmp_path / "bucket/sets/mine/released_320/1.0.0", "train")) == 20


def kill_a_worker(driver, generator):
    with contextlib.suppress(IndexError, psutil.NoSuchProcess):
        generator.choice(worker_processes.started_by(driver)).kill()
        return True
    return False
