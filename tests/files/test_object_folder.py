# SPDX-License-Identifier: BSD-3-Clause
"""Folders of whole files while other processes write there, and buckets that fail."""

import contextlib
import os

from mlimages_jax.files.object_folder import ObjectFolder


def test_what_vanishes_meanwhile_hides_nothing_else(tmp_path, monkeypatch):
    for name in ("a", "b.unfinished", "c"):
        (tmp_path / name).write_text(name)
    scandir = os.scandir

    @contextlib.contextmanager
    def slow(folder):
        with scandir(folder) as entries:
            found = list(entries)
        (tmp_path / "b.unfinished").unlink()
        yield iter(found)

    monkeypatch.setattr(os, "scandir", slow)
    assert ObjectFolder(tmp_path).sizes() == {"a": 1, "c": 1}
    assert ObjectFolder(tmp_path / "missing").sizes() == {}
