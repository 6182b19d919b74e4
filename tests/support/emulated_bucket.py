# SPDX-License-Identifier: BSD-3-Clause
"""Buckets of both stores in the process of a test: clients are made anew for each."""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from etils.epath import backend

from tests.support import object_storage, s3_storage

needs_gcsfs = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None, reason="gcsfs is not installed (the extra gcs)"
)
STORES = [
    pytest.param("gs", marks=needs_gcsfs),
    pytest.param("s3", marks=pytest.mark.slow),  # every file is an upload in three requests
]
_SERVERS = {"gs": object_storage.serve, "s3": s3_storage.serve}


@contextlib.contextmanager
def serve(
    store: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[object_storage.Storage | s3_storage.Storage]:
    """Serves a folder as gs://bucket or s3://bucket, for this process and those it starts.

    ArrayRecord's own client of gs:// is kept by a process: what reads records there needs one of
    its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _SERVERS[store](folder) as storage:
        for name, value in storage.environment().items():
            monkeypatch.setenv(name, value)
        _forget_clients(store)
        try:
            yield storage
        finally:
            _forget_clients(store)


def _forget_clients(store: str) -> None:
    fsspec.get_filesystem_class(store).clear_instance_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()
