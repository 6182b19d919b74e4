# SPDX-License-Identifier: BSD-3-Clause
"""Which images each look yields, with steps in the place of waiting."""

import os
import time

import pytest

from mlimages_jax.distributed import preemption
from mlimages_jax.inference.image_source import ImageSourceError, open_images
from mlimages_jax.inference.watched_images import WatchedImages


@pytest.fixture
def folder(tmp_path):
    _write(tmp_path / "a.jpg", "a", age=100)
    return tmp_path


def _write(path, text, *, age=0):
    path.write_text(text)
    os.utime(path, (time.time() - age, time.time() - age))


def _yielded(monkeypatch, folder, *steps, look=open_images):
    """What is yielded before each step and after the last: names and sizes, or None."""
    found, rounds = [None], iter(steps)

    def wait(self):
        for step in rounds:
            step()
            found.append(None)
            return
        raise preemption.Preempted

    monkeypatch.setattr(WatchedImages, "_wait", wait)
    watched = WatchedImages(lambda: look(folder), interval=10.0)
    with pytest.raises(preemption.Preempted):
        for images in watched:
            found[-1] = {
                n.split(".")[0]: int(images.stamps[i, 0]) for i, n in enumerate(images.names)
            }
    return found


def test_new_images_wait_until_they_are_written(monkeypatch, folder):
    new = folder / "new.jpg"
    steps = [
        lambda: _write(new, "x"), lambda: _write(new, "xx"), lambda: None, lambda: None,
        lambda: new.unlink(), lambda: None,
    ]  # fmt: skip
    whole = {"a": 1, "new": 2}
    found = _yielded(monkeypatch, folder, *steps)
    assert found == [{"a": 1}, None, None, whole, None, {"a": 1}, None]


def test_an_image_that_changes_stays_as_it_was_meanwhile(monkeypatch, folder):
    both = [lambda: _write(folder / "a.jpg", "aa"), lambda: _write(folder / "b.jpg", "b")]
    found = _yielded(monkeypatch, folder, lambda: [step() for step in both],
                     lambda: _write(folder / "a.jpg", "aaa"), lambda: None)  # fmt: skip
    assert found == [{"a": 1}, None, {"a": 1, "b": 1}, {"a": 3, "b": 1}]


def test_what_was_just_written_at_the_start_waits_for_a_look(monkeypatch, folder):
    _write(folder / "b.jpg", "b", age=1)
    assert _yielded(monkeypatch, folder, lambda: None) == [{"a": 1}, {"a": 1, "b": 1}]


def test_an_empty_folder_at_the_start_and_one_that_vanishes(monkeypatch, folder, caplog):
    (folder / "a.jpg").unlink()
    hidden = folder.with_name("hidden")
    steps = [
        lambda: None, lambda: _write(folder / "b.jpg", "b"), lambda: None,
        lambda: folder.rename(hidden), lambda: None, lambda: folder.mkdir(),
        lambda: (folder.rmdir(), hidden.rename(folder)), lambda: _write(folder / "c.jpg", "c"),
        lambda: None,
    ]  # fmt: skip
    found = _yielded(monkeypatch, folder, *steps)
    assert found == [None, None, None, {"b": 1}, None, None, None, None, None, {"b": 1, "c": 1}]
    assert [text.rsplit(": ", 1)[1] for text in caplog.messages] == [
        "waiting for images", "nothing is changed", "nothing is changed",
    ]  # fmt: skip


def test_a_mistyped_folder_is_an_error_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        WatchedImages(lambda: open_images(tmp_path / "nowhere"), interval=1)
    (tmp_path / "list.txt").write_bytes(b"\0\0")
    with pytest.raises(ImageSourceError):
        WatchedImages(lambda: open_images(tmp_path / "list.txt"), interval=1)


def test_waiting_ends_when_asked(monkeypatch, folder):
    asked = iter([False, False, True])
    monkeypatch.setattr(preemption, "received", lambda: next(asked))
    begin = time.monotonic()
    with pytest.raises(preemption.Preempted):
        list(WatchedImages(lambda: open_images(folder), interval=3_600))
    assert time.monotonic() - begin < 60
