# SPDX-License-Identifier: BSD-3-Clause
"""Claims on a disk, and on a storage in memory that behaves as a bucket does."""

import errno
import os
import shutil
import threading
import time

import pytest

from mlimages_jax.distributed import claims, object_lock, workdir_lock
from mlimages_jax.distributed.claims import ClaimError, Claims
from mlimages_jax.distributed.process_identity import Owner


class Bucket:
    """Objects with generations, in place of `object_lock._Object`."""

    def __init__(self):
        self.objects, self.lock, self.count = {}, threading.Lock(), 0

    def __call__(self, url):
        return Object(self, url)


class Object:
    def __init__(self, bucket, url):
        self._bucket, self.url = bucket, url

    def write(self, text, *, replaced):
        with self._bucket.lock:
            if self._bucket.objects.get(self.url, ("0", ""))[0] != replaced:
                return ""
            self._bucket.count += 1
            self._bucket.objects[self.url] = str(self._bucket.count), text
            return str(self._bucket.count)

    def read(self):
        generation, text = self._bucket.objects.get(self.url, ("", ""))
        return generation, Owner.read(text)

    def delete(self, generation):
        with self._bucket.lock:
            if self._bucket.objects.get(self.url, ("", ""))[0] == generation:
                del self._bucket.objects[self.url]


@pytest.fixture
def bucket(monkeypatch):
    bucket = Bucket()
    monkeypatch.setattr(object_lock, "_Object", bucket)
    monkeypatch.setattr(object_lock, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(object_lock, "TAKEOVER_SECONDS", 0.3)
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)
    return bucket


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path, bucket):
    return tmp_path / "w" if request.param == "disk" else "gs://bucket/w"


def test_a_name_is_claimed_by_one(place):
    one, other = Claims(place, task="a"), Claims(place, task="b")
    claim = one.attempt("x")
    assert claim and other.attempt("x") is None
    second = other.attempt("y")
    assert second and one.attempt("y") is None
    claim.release()
    again = other.attempt("x")
    assert again and one.attempt("x") is None
    again.release()
    second.release()


def test_waiting_ends_with_the_claim_or_the_work(place):
    one, other = Claims(place, task="a"), Claims(place, task="b")
    claim = one.attempt("x")
    looks = iter([False, False, True])
    with other.held("x", unless=lambda: next(looks)) as ours:
        assert not ours
    timer = threading.Timer(0.05, claim.release)
    timer.start()
    with other.held("x", unless=lambda: False) as ours:
        assert ours and one.attempt("x") is None
    timer.join()
    assert one.attempt("x")


def test_a_living_holder_keeps_its_claim_and_a_silent_one_loses_it(bucket):
    one, other = Claims("gs://bucket/w", task="a"), Claims("gs://bucket/w", task="b")
    claim = one.attempt("x")
    end = time.monotonic() + 1
    while time.monotonic() < end:  # three times the silence
        assert other.attempt("x") is None
        time.sleep(0.02)
    claim.release()
    silent = Owner.this("c")._replace(machine="another", token="another")
    bucket("gs://bucket/w/x.claim").write(silent.text(), replaced="0")
    begin = time.monotonic()
    while (claim := other.attempt("x")) is None:
        time.sleep(0.01)
    assert time.monotonic() - begin >= 0.3
    # Known to be dead, it is replaced at once.
    dead = Owner.this("c")._replace(born="1")
    bucket("gs://bucket/w/y.claim").write(dead.text(), replaced="0")
    assert other.attempt("y")


def test_who_was_replaced_goes_on_and_removes_nothing(bucket):
    claim = Claims("gs://bucket/w", task="a").attempt("x")
    other = Owner.this("b")._replace(token="other")
    bucket.objects["gs://bucket/w/x.claim"] = "77", other.text()
    claim._thread.join(10)
    assert not claim._thread.is_alive()
    claim.release()
    assert bucket.objects["gs://bucket/w/x.claim"] == ("77", other.text())


def test_a_folder_that_vanishes_is_made_again(tmp_path, monkeypatch):
    """Whoever completes the work removes the claims, perhaps just when another looks for some."""
    opened, times = os.open, []

    def vanishing(path, *arguments, **settings):
        if os.fspath(path).endswith(".claim") and len(times) < 2:
            times.append(path)
            shutil.rmtree(tmp_path / "w")
        return opened(path, *arguments, **settings)

    monkeypatch.setattr(os, "open", vanishing)
    claim = Claims(tmp_path / "w", task="a").attempt("x")
    assert claim and len(times) == 2 and Claims(tmp_path / "w", task="b").attempt("x") is None


def test_a_bucket_that_does_not_exist_is_named(monkeypatch):
    class Nothing:
        _location = ""

        def call(self, *_, **__):
            raise FileNotFoundError("404")

    monkeypatch.setattr(object_lock.fsspec, "filesystem", lambda _: Nothing())
    with pytest.raises(FileNotFoundError, match=r"gs://typo/w/x\.claim: the bucket typo does not"):
        Claims("gs://typo/w", task="a").attempt("x")


def test_where_nothing_can_be_claimed_is_named(tmp_path, monkeypatch):
    message = r"s3://bucket/w: work can be divided .* no conditional .*elastic=False"
    with pytest.raises(ClaimError, match=message):
        Claims("s3://bucket/w", task="a")

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(workdir_lock.fcntl, "flock", none)
    with pytest.raises(ClaimError, match=f"{tmp_path}: its file system has no locks"):
        Claims(tmp_path, task="a").attempt("x")
