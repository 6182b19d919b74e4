# SPDX-License-Identifier: BSD-3-Clause
"""The command as a whole, against a server that plays good and bad hosts."""

import base64
import errno
import gzip
import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlimages_jax.data.images.decode import read_header, verify
from mlimages_jax.image_shards.outcome import Image
from mlimages_jax.prepare import recorder, storing
from mlimages_jax.prepare.__main__ import main
from mlimages_jax.prepare.download import plan, url_selection
from mlimages_jax.prepare.locking import alone
from mlimages_jax.prepare.manifest import Manifest

ROOT = Path(__file__).resolve().parents[2]
# Busy machines need seconds for what takes milliseconds; few tests wait for a host that is silent.
QUICK = ["--allow-private", "--timeout=3", "--retries=1", "--connections=16",
         "--connections-per-host=16"]  # fmt: skip
# What each path of the server comes to.
OUTCOMES = {
    "ok": None, "chunked": None, "redirect": None, "slow": None, "cmyk": None, "flaky": None,
    "busy": None, "404": "http_404", "403": "http_403", "410": "http_410", "500": "http_500",
    "429": "http_429", "http-date": "http_503", "timeout": "timeout", "stall": "timeout",
    "reset": "incomplete", "truncated": "incomplete", "cut": "truncated", "html": "not_an_image",
    "placeholder": "placeholder", "unavailable": "placeholder", "loop": "redirects",
    "large": "too_many_bytes", "endless": "too_many_bytes", "empty": "empty", "bomb": "too_large",
}  # fmt: skip


def write_list(path, server, paths):
    path.write_text("".join(f"{server.url}/{name}\t3:1\t5:0.9\n" for name in paths))
    return path


def run(*arguments):
    main(["download", *map(str, arguments)])


def rows(output, name="manifest.sqlite"):
    with Manifest(output / name, readonly=True) as manifest:
        return {image.name: image for image in manifest}


def check_agreement(output, name="manifest.sqlite"):
    """Every file has its row and every row its file, byte for byte; nothing else lies around."""
    there = {row.file: row for row in rows(output, name).values() if row.file}
    images = output / "images"
    files = {str(path.relative_to(images)) for path in images.rglob("*") if path.is_file()}
    assert files == set(there)
    for file, row in there.items():
        data = (images / file).read_bytes()
        assert row.status == "ok"
        assert hashlib.sha256(data).digest() == (row.file_sha256 or row.sha256)
        assert row.file_sha256 is not None or row.num_bytes == len(data)
        header = read_header(data)
        assert (row.width, row.height) == (header.width, header.height)
    assert not list(output.glob("unfinished*"))


def test_every_row_is_accounted_for(image_server, tmp_path, capsys):
    kinds = [kind for kind in OUTCOMES for _ in range(4 if kind == "placeholder" else 2)]
    paths = [f"{kind}/account{i}.jpg" for i, kind in enumerate(kinds)]
    urls = write_list(tmp_path / "urls.txt", image_server, paths)
    with urls.open("a") as file:
        file.write("ftp://a.org/1.jpg\t3\n \n https://a.org/2.jpg\n")
        file.write(f"{image_server.url}/ok/account.jpg")
    output = tmp_path / "set"
    run(urls, "--output", output, *QUICK, "--max-copies=4", "--max-bytes=1000000")

    found = rows(output)
    assert len(found) == len(paths) + 3
    for kind, path in zip(kinds, paths, strict=True):
        row = found[f"{image_server.url}/{path}"]
        assert row.error == OUTCOMES[kind], (path, row)
        assert (row.status == "ok") == (row.error is None) == (row.message is None)
        assert row.source == ("list" if row.status == "ok" else None)
    assert found["ftp://a.org/1.jpg"].error == "bad_url"
    assert f"{urls}:{len(paths) + 3}" in found["https://a.org/2.jpg"].message
    check_agreement(output)
    printed = capsys.readouterr().out
    assert "15 images downloaded" in printed and "6   placeholder" in printed
    requests = image_server.requests()
    expected = {"flaky": 2, "busy": 2, "500": 2, "429": 2, "404": 1, "html": 1, "stall": 2, "ok": 1}
    for kind, path in zip(kinds, paths, strict=True):
        assert kind not in expected or requests[f"/{path}"] == expected[kind], path


def test_a_second_run_fetches_nothing_and_failures_on_request(image_server, tmp_path):
    paths = ["ok/a.jpg", "flaky/again.jpg", "404/again.jpg", "ok/a.jpg"]
    urls = write_list(tmp_path / "urls.txt", image_server, paths)
    options = [urls, "--output", tmp_path / "set", *QUICK]
    run(*options, "--retries=0")
    first = rows(tmp_path / "set")
    assert sorted(str(row.error) for row in first.values()) == ["None", "http_404", "http_500"]
    before = image_server.requests()
    run(*options)
    run(*options, "--retry-failed", "timeout")
    assert image_server.requests() == before
    assert rows(tmp_path / "set") == first

    run(*options, "--retry-failed", "http_500", "dns")
    after = image_server.requests()
    assert after["/flaky/again.jpg"] == 2 and after["/404/again.jpg"] == 1
    assert rows(tmp_path / "set")[f"{image_server.url}/flaky/again.jpg"].status == "ok"
    run(*options, "--retry-failed", "all")
    assert image_server.requests()["/404/again.jpg"] == 2
    assert image_server.requests()["/ok/a.jpg"] == before["/ok/a.jpg"]
    check_agreement(tmp_path / "set")


def test_images_shrink_on_arrival(image_server, tmp_path):
    urls = write_list(tmp_path / "urls.txt", image_server, ["ok/s.jpg", "png/s.png"])
    run(urls, "--output", tmp_path, *QUICK, "--short-side=16")
    found = rows(tmp_path)
    assert {(row.width, row.height) for row in found.values()} == {(24, 16)}
    assert all(row.file_sha256 for row in found.values())
    check_agreement(tmp_path)


def test_shards_share_a_list_and_a_folder(image_server, tmp_path):
    paths = [f"ok/shard{i}.jpg" for i in range(40)]
    urls = write_list(tmp_path / "urls.txt", image_server, paths)
    for part in range(3):
        run(urls, "--output", tmp_path, *QUICK, f"--shard={part}/3")
    parts = [rows(tmp_path, f"manifest-0000{part}-of-00003.sqlite") for part in range(3)]
    assert sum(map(len, parts)) == 40 == len(set().union(*parts))
    assert all(parts)
    requests = image_server.requests()
    assert all(requests[f"/{path}"] == 1 for path in paths)
    assert len(list((tmp_path / "images").rglob("*.jpg"))) == 40


def test_one_content_under_many_urls_goes_also_over_several_runs(image_server, tmp_path):
    paths = ["ok/over.jpg"] + [f"placeholder/over{i}.jpg" for i in range(5)]
    for count in (3, 5, 6):
        urls = write_list(tmp_path / "urls.txt", image_server, paths[:count])
        run(urls, "--output", tmp_path, *QUICK, "--max-copies=4")
        errors = [row.error for row in rows(tmp_path).values()]
        assert errors.count("placeholder") == {3: 0, 5: 4, 6: 5}[count]
        check_agreement(tmp_path)
    run(urls, "--output", tmp_path / "killed", *QUICK, "--max-copies=0")  # did not come to it
    run(urls, "--output", tmp_path / "killed", *QUICK, "--max-copies=4")
    assert [row.error for row in rows(tmp_path / "killed").values()].count("placeholder") == 5
    check_agreement(tmp_path / "killed")
    urls = write_list(tmp_path / "more.txt", image_server, paths)
    run(urls, "--output", tmp_path / "kept", *QUICK, "--max-copies=0")
    assert all(row.status == "ok" for row in rows(tmp_path / "kept").values())


def kill_at_random(command, output, seconds):
    """Starts the command, kills it after a while; returns whether it was still running."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (output / "manifest.sqlite").exists() and process.poll() is None:
            time.sleep(0.01)
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return True
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_killed_at_random_moments(image_server, tmp_path):
    paths = [f"{['ok', 'slow', 'placeholder', '404'][i % 4]}/kill{i}.jpg" for i in range(400)]
    urls = write_list(tmp_path / "urls.txt", image_server, paths)
    output = tmp_path / "set"
    command = [sys.executable, "-m", "mlimages_jax.prepare", "download", str(urls), "--output",
               str(output), *QUICK]  # fmt: skip
    generator = random.Random(0)
    kills = sum(kill_at_random(command, output, generator.uniform(0.1, 0.9)) for _ in range(4))
    assert kills >= 3
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    found = rows(output)
    assert len(found) == 400
    for path in paths:
        error = OUTCOMES[path.split("/")[0]]
        assert found[f"{image_server.url}/{path}"].error == error
    check_agreement(output)
    requests = image_server.requests()
    asked = [requests[f"/{path}"] for path in paths]
    # Only what was in work, or not written yet, is fetched again after a kill.
    assert sum(asked) - 400 <= kills * 150 and max(asked) <= kills + 1


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_in_order(image_server, tmp_path, number):
    paths = [f"slow/signal{number}_{i}.jpg" for i in range(100)]
    urls = write_list(tmp_path / "urls.txt", image_server, paths)
    command = [sys.executable, "-m", "mlimages_jax.prepare", "download", str(urls), "--output",
               str(tmp_path), *QUICK]  # fmt: skip
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What is started by a job in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list((tmp_path / "images").rglob("*.jpg")):
        time.sleep(0.02)
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors
    found = rows(tmp_path)
    assert 0 < len(found) < 100
    assert f"{len(found)} images downloaded" in output
    check_agreement(tmp_path)
    run(urls, "--output", tmp_path, *QUICK)
    assert len(rows(tmp_path)) == 100


def test_what_is_being_stored_when_a_signal_comes_has_its_row(image_server, tmp_path, monkeypatch):
    urls = write_list(tmp_path / "urls.txt", image_server, ["ok/stored.jpg", "timeout/1.jpg"])

    def store_slowly(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        return storing.store(*arguments, **options)

    monkeypatch.setattr(recorder, "store", store_slowly)
    with pytest.raises(SystemExit) as end:
        run(urls, "--output", tmp_path, *QUICK)
    assert end.value.code == 130
    assert [row.status for row in rows(tmp_path).values()] == ["ok"]
    check_agreement(tmp_path)


def test_servers_are_left_alone_for_as_long_as_they_ask(image_server, tmp_path):
    urls = write_list(tmp_path / "urls.txt", image_server, ["busy/wait.jpg", "ok/wait.jpg"])
    start = time.monotonic()
    run(urls, "--output", tmp_path / "a", *QUICK)  # Retry-After: 1
    assert time.monotonic() - start >= 1
    assert all(row.status == "ok" for row in rows(tmp_path / "a").values())
    urls = write_list(tmp_path / "urls.txt", image_server, ["429/wait.jpg", "ok/wait.jpg"])
    run(urls, "--output", tmp_path / "b", *QUICK, "--max-wait=0.9", "--retries=3")
    assert image_server.requests()["/429/wait.jpg"] == 1


def test_what_a_killed_run_left_behind_goes(image_server, tmp_path):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished/900").write_bytes(b"of a run with more connections")
    urls = write_list(tmp_path / "urls.txt", image_server, ["404/stray.jpg", "ok/stray.jpg"])
    stray = tmp_path / "images" / storing.file_name(f"{image_server.url}/404/stray.jpg")
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"an image whose row was not written, and that is gone today")
    run(urls, "--output", tmp_path, *QUICK)
    check_agreement(tmp_path)


def test_a_url_that_occurs_again_is_fetched_once(image_server, tmp_path, monkeypatch):
    monkeypatch.setattr(url_selection, "_BLOCK", 2)
    paths = ["slow/twice.jpg", "ok/twice.jpg", "slow/twice.jpg", "ok/twice2.jpg", "ok/twice.jpg"]
    urls = write_list(tmp_path / "urls.txt", image_server, paths)
    run(urls, urls, "--output", tmp_path, *QUICK)
    requests = image_server.requests()
    assert all(requests[f"/{path}"] == 1 for path in paths)
    assert len(rows(tmp_path)) == 3


@pytest.mark.parametrize("how", ["absolute", "up", "link", "folder", "odd"])
def test_a_manifest_by_others_removes_nothing_outside(image_server, tmp_path, how):
    """Rows of failures whose file is to be removed, as a killed run leaves them."""
    output = tmp_path / "set"
    (output / "images/a").mkdir(parents=True)
    (output / "images/link").symlink_to(tmp_path)
    valuable = tmp_path / "valuable.jpg"
    valuable.write_bytes(b"all I have")
    file = {"absolute": str(valuable), "up": "../../valuable.jpg", "link": "link/valuable.jpg",
            "folder": "a", "odd": "a\0b"}[how]  # fmt: skip
    (output / "images/bad.jpg").write_bytes(b"of a failure")
    failures = [
        Image(name=str(i), status="failed", time=0.0, error="placeholder", file=each)
        for i, each in enumerate([file, "bad.jpg"])
    ]
    with Manifest(output / "manifest.sqlite") as manifest:
        manifest.put(failures)
    urls = write_list(tmp_path / "urls.txt", image_server, [f"ok/hostile_{how}.jpg"])
    run(urls, "--output", output, *QUICK)
    assert valuable.read_bytes() == b"all I have" and (output / "images/a").is_dir()
    assert not (output / "images/bad.jpg").exists()
    found = rows(output)
    assert [found[str(i)].file for i in range(2)] == [None, None]
    assert found[f"{image_server.url}/ok/hostile_{how}.jpg"].status == "ok"


def test_better_sources(image_server, tmp_path):
    """Thumbnail, mirror, original and list: the first that works wins, and MD5 sums are checked."""
    original = image_bytes(image_server, tmp_path, "2034/101_aa_o.jpg")
    header = ("ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
              "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation")  # fmt: skip
    md5 = base64.b64encode(hashlib.md5(original).digest()).decode()
    farm = "https://farm1.staticflickr.com"
    table = [
        f"1a,train,{farm}/2034/101_aa_o.jpg,l,cc0,p,Ann,t,{len(original)},{md5},{farm}/404/t.jpg,90",
        f"1b,train,{farm}/2034/102_bb_o.jpg,l,cc1,p,Bob,t,5,{md5},{farm}/ok/thumb.jpg,",
        f"1c,404,{farm}/2034/103_cc_o.jpg,l,cc2,p,Cid,t,5,,{farm}/410/t.jpg,0",
        f"1d,train,{farm}/2034/104_dd_o.jpg,l,cc3,p,Dan,t,5,,,",
    ]
    (tmp_path / "table.csv").write_text("\n".join([header, *table]) + "\n")
    names = ["101_aa", "102_bb", "103_cc", "104_dd", "105_ee"]
    urls = [f"https://c4.staticflickr.com/9/2034/{name}_o.jpg" for name in names]
    (tmp_path / "urls.txt").write_text("".join(f"{url}\t1:1\n" for url in urls))
    maps = ["--address-map", f"*.staticflickr.com={image_server.url}",
            f"open-images-dataset.s3.amazonaws.com={image_server.url}"]  # fmt: skip
    options = [tmp_path / "urls.txt", *QUICK, *maps, "--open-images-table", tmp_path / "table.csv"]

    run(*options, "--output", tmp_path / "a")
    found = rows(tmp_path / "a")
    assert [found[url].source for url in urls] == ["mirror", "thumbnail", None, "mirror", "list"]
    assert found[urls[2]].error == "wrong_size"
    assert found[urls[2]].message.count(";") == 3
    assert "mirror: HTTP 404" in found[urls[2]].message
    first = found[urls[0]]
    assert (first.license, first.author, first.rotation) == ("cc0", "Ann", 90)
    assert found[urls[2]].author == "Cid" and found[urls[4]].author is None
    check_agreement(tmp_path / "a")

    run(*options, "--output", tmp_path / "b", "--sources", "original", "list")
    found = rows(tmp_path / "b")
    assert [found[url].source for url in urls] == ["original", None, None, None, "list"]
    assert (
        hashlib.md5(original).digest()
        == hashlib.md5((tmp_path / "b/images" / found[urls[0]].file).read_bytes()).digest()
    )
    assert found[urls[1]].error == "wrong_size"
    check_agreement(tmp_path / "b")


def image_bytes(server, folder, path):
    (folder / "one.txt").write_text(f"{server.url}/{path}\n")
    run(folder / "one.txt", "--output", folder / "one", *QUICK)
    (row,) = rows(folder / "one").values()
    return (folder / "one/images" / row.file).read_bytes()


def fails(message, *arguments):
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert message in str(error.value.code)
    assert str(error.value.code).startswith("error: ")


def test_a_full_disk_stops_it_and_the_next_run_goes_on(image_server, tmp_path, monkeypatch):
    paths = [f"slow/disk{i}.jpg" for i in range(60)]
    urls = write_list(tmp_path / "urls.txt", image_server, paths)
    move, moved = storing._move, []

    def move_until_full(unfinished, path):
        moved.append(path)
        if len(moved) > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        move(unfinished, path)

    monkeypatch.setattr(storing, "_move", move_until_full)
    fails("No space left on device. Free some space", urls, "--output", tmp_path, *QUICK)
    assert len(rows(tmp_path)) == 20
    check_agreement(tmp_path)
    monkeypatch.undo()
    run(urls, "--output", tmp_path, *QUICK)
    assert len(rows(tmp_path)) == 60


def test_more_connections_than_open_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(plan.open_files, "allow", lambda wanted: min(wanted, 1_024))
    (tmp_path / "urls.txt").write_text("https://example.org/a.jpg\t3:1\n")
    message = "--connections 400 take 1,056 open files, but only 1,024 may be open"
    fails(message, tmp_path / "urls.txt", "--output", tmp_path / "out", "--connections=400")
    assert not (tmp_path / "out/unfinished").exists()


def test_a_manifest_that_cannot_grow_stops_it(image_server, tmp_path, monkeypatch):
    paths = [f"ok/manifest{i}.jpg" for i in range(30)]
    urls = write_list(tmp_path / "urls.txt", image_server, paths)

    put = Manifest.put

    def full_while_files_arrive(self, images):
        if (tmp_path / "unfinished").exists():
            raise sqlite3.OperationalError("database or disk is full")
        put(self, images)

    monkeypatch.setattr(Manifest, "put", full_while_files_arrive)
    fails("database or disk is full. Free some space", urls, "--output", tmp_path, *QUICK)
    monkeypatch.undo()
    check_agreement(tmp_path)
    run(urls, "--output", tmp_path, *QUICK)
    assert len(rows(tmp_path)) == 30
    check_agreement(tmp_path)


def test_a_folder_that_cannot_be_written_to(image_server, tmp_path):
    urls = write_list(tmp_path / "urls.txt", image_server, ["ok/1.jpg"])
    (tmp_path / "file").write_text("")
    fails("choose another folder", urls, "--output", tmp_path / "file" / "set", *QUICK)


def test_two_downloads_do_not_share_a_manifest(image_server, tmp_path):
    urls = write_list(tmp_path / "urls.txt", image_server, ["ok/1.jpg"])
    with alone(tmp_path / "manifest.lock"):
        fails("another job writes here", urls, "--output", tmp_path, *QUICK)
    run(urls, "--output", tmp_path, *QUICK)


def test_a_net_that_is_gone_ends_it(tmp_path):
    (tmp_path / "urls.txt").write_text("".join(f"http://127.0.0.1:9/{i}\n" for i in range(300)))
    options = [tmp_path / "urls.txt", "--output", tmp_path, *QUICK, "--retries=0"]
    fails("50 attempts in a row got no answer", *options, "--give-up-after=50")
    assert 0 < len(rows(tmp_path)) < 100
    fails("no image was downloaded", *options, "--give-up-after=0")
    assert len(rows(tmp_path)) == 300


def test_not_one_image(image_server, tmp_path):
    urls = write_list(tmp_path / "urls.txt", image_server, ["404/1.jpg", "html/2.jpg"])
    fails("no image was downloaded", urls, "--output", tmp_path, *QUICK)


def test_a_list_that_is_none(tmp_path):
    fails("absent.txt", tmp_path / "absent.txt", "--output", tmp_path / "set")
    fails("no URL list given", "--output", tmp_path / "set")
    (tmp_path / "blank.txt").write_text("\n \n")
    table = tmp_path / "table.csv"
    table.write_bytes(gzip.compress(b"ImageID\n"))
    (tmp_path / "urls.txt").write_text("http://a.org/1.jpg\n")
    fails("table.csv: is a gzip file", tmp_path / "urls.txt", "--output", tmp_path / "set",
          "--open-images-table", table)  # fmt: skip
    fails("blank.txt: no URLs", tmp_path / "blank.txt", "--output", tmp_path / "set")
    assert not (tmp_path / "set").exists()
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"n04310904/n04310904_{i}.JPEG  2367:1\n" for i in range(2000)))
    fails("see `mlimages data extract`", ids, "--output", tmp_path / "set", *QUICK)
    fails("write i/n", ids, "--output", tmp_path / "set", "--shard=3/2")
    fails("is not a valid URL", ids, "--output", tmp_path / "set", "--proxy", "http://[::1")
    fails("write PATTERN=BASE", ids, "--output", tmp_path / "set", "--address-map", "a.org")


def test_private_addresses_need_permission(image_server, tmp_path):
    urls = write_list(tmp_path / "urls.txt", image_server, ["ok/1.jpg"])
    fails("no image was", urls, "--output", tmp_path)
    (row,) = rows(tmp_path).values()
    assert row.error == "private_address" and "--allow-private" in row.message


def test_the_published_list_from_its_hosts(image_server, tencent_dir, tmp_path):
    run(tencent_dir / "train_urls_tiny.txt", "--output", tmp_path, *QUICK, "--address-map",
        f"*.staticflickr.com={image_server.url}")  # fmt: skip
    found = rows(tmp_path)
    assert len(found) == 100 and all(row.status == "ok" for row in found.values())
    assert len({row.file.split("/")[0] for row in found.values()}) == 16  # hosts
    check_agreement(tmp_path)
    for path in (tmp_path / "images").rglob("*.jpg"):
        verify(path.read_bytes())


def test_help_teaches():
    help_text = subprocess.run(
        [sys.executable, "-m", "mlimages_jax.prepare", "download", "--help"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    assert "mlimages data download train_urls.txt" in help_text
    assert "fetches" in help_text and "--retry-failed" in help_text
