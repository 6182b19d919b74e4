# SPDX-License-Identifier: BSD-3-Clause
"""Reads folders of image shards: their rows, and single images."""

import collections
import errno
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from absl import logging
from array_record.python.array_record_module import ArrayRecordReader

from mlimages_jax.files import open_files
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.checksums import crc32c
from mlimages_jax.files.machine_faults import lacking
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.scratch import TemporaryFolder
from mlimages_jax.image_shards import repeated
from mlimages_jax.image_shards.layout import (
    MANIFEST,
    RECORDS,
    SHARDS,
    ImageShardError,
    manifest_names,
)
from mlimages_jax.image_shards.manifest_file import ManifestFile, Row
from mlimages_jax.image_shards.record import parse

# Files of records open at a time. To open one takes 0.9 ms, to read from an open one 0.04, and each
# file of a set has rows of all image shards, 4,300 for ML-Images (docs/benchmarks/rehearsal.md).
_MOST_OPEN = 6_144
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_DIRECTLY = ("gs://",)  # what ArrayRecord reads by itself, beside disks


class NoRoomError(ImageShardError):
    """A copy of a shard cannot be kept on this machine: no fault of its images."""


class ShardFolder:
    """The shards of a folder.

    Args:
        place: Path or URL of the folder.

    Attributes:
        place: The folder.
        manifests: Its manifests, sorted by name.
        repeated: Its contents that are no images.

    Raises:
        ImageShardError: There are no shards; a manifest is damaged; or a file of records is missing
            or has another size than its manifest says.
        OSError: The folder cannot be read.
    """

    def __init__(self, place: str | os.PathLike[str]):
        self.place = ObjectFolder(place)
        names = manifest_names(self.place)
        sizes = self.place.sizes(SHARDS)  # after the names: a download may be committing shards
        if not names:
            raise ImageShardError(
                f"{self.place}: no image shards; give a folder that `mlimages data download "
                "--shards` wrote"
            )
        self.manifests = [ManifestFile(self.place, name) for name in names]
        self.repeated = repeated.read(self.place)
        for manifest in self.manifests:
            _check_size(self.place, manifest, sizes)

    def rows(self, manifest: ManifestFile) -> Iterator[Row]:
        """Yields the rows of a manifest as they count: repeated contents are failures."""
        for row in manifest.rows():
            image = self.repeated.effective(row.image)
            yield row if image is row.image else Row(image, None)

    def fingerprint(self) -> str:
        """Returns a digest that changes with the shards and with what counts of them."""
        digest = hashlib.sha256()
        for manifest in self.manifests:
            digest.update(f"{manifest.shard}\n{manifest.num_rows}\n".encode())
        for content in sorted(self.repeated.max_copies):
            digest.update(content)
        return digest.hexdigest()


class RecordPlace(NamedTuple):
    """The place of an image in a shard; small, and valid wherever the file can be read.

    Attributes:
        path: Path or URL of the file of records.
        record: Number of the record.
    """

    path: str
    record: int

    def read(self) -> tuple[str, bytes]:
        """Reads name and bytes of the image, from any thread.

        Raises:
            OSError: The record cannot be read, or is damaged.
            NoRoomError: The file of records has to be copied to `TMPDIR`, which is full.
        """
        try:
            return parse(_readers.get(self.path).read([self.record])[0])
        except NoRoomError:
            raise
        except (IndexError, RuntimeError, ValueError) as error:
            if fault := lacking(error):
                raise fault from error
            line = (str(error).strip().splitlines() or [""])[0][:200]
            raise OSError(
                f"record {self.record} of {self.path} cannot be read ({line}): see that the file "
                "is there and may be read. If it is damaged, copy it again from where it was "
                "written; or delete it and its .parquet, and run the same download again"
            ) from error


class _Readers:
    """The files of records in use, the latest ones kept open; for any thread."""

    def __init__(self) -> None:
        self._open: collections.OrderedDict[str, ArrayRecordReader] = collections.OrderedDict()
        self._most = 0  # until the first is opened
        self._lock = threading.Lock()

    def get(self, path: str) -> ArrayRecordReader:
        """Returns an open reader. One that is dropped closes when its last user is done."""
        with self._lock:
            reader = self._open.get(path)
            if reader is None:
                reader = ArrayRecordReader(_readable(path), "readahead_buffer_size:0")
                self._most = self._most or _most_open()
                self._open[path] = reader
                if len(self._open) > self._most:
                    self._open.popitem(last=False)
            self._open.move_to_end(path)
            return reader


def _most_open() -> int:
    """Returns how many files to keep open: half of those that this process may have."""
    return max(1, min(_MOST_OPEN, open_files.allow(2 * _MOST_OPEN) // 2))


_readers = _Readers()
_copies: list[TemporaryFolder] = []  # removed when the process ends


def _readable(path: str) -> str:
    """Returns a path that ArrayRecord can read: that of a local copy for s3:// and others."""
    if "://" not in path or path.startswith(_READ_DIRECTLY):
        return path
    try:
        if not _copies:
            _copies.append(TemporaryFolder(prefix="image_shards_"))
        copy = Path(_copies[0].name, hashlib.sha256(path.encode()).hexdigest())
        if not copy.exists():
            _copy(path, copy)
    except OSError as error:
        if _copies and error.errno not in _FULL:
            raise
        raise NoRoomError(
            f"{path} has to be copied to {tempfile.gettempdir()} to be read: "
            f"{error.strerror or error}. Set TMPDIR to a folder with room for all image shards, "
            "then run the same command to resume"
        ) from error
    return os.fspath(copy)


def _copy(path: str, copy: Path) -> None:
    """Copies a file of records, a second time if bytes have changed on the way."""
    place, shards, name = path.rsplit("/", 2)
    folder = ObjectFolder(place)
    expected = ManifestFile(folder, f"{shards}/{name.removesuffix(RECORDS)}{MANIFEST}").shard.crc32c
    with complete_file(copy) as unfinished:
        for _ in range(2):
            folder.copy_to(f"{shards}/{name}", unfinished)
            with unfinished.open("rb") as file:
                if crc32c(file) == expected:
                    return
        # Each record has a hash of its own, so those that are intact can be used.
        logging.warning(
            "%s: its bytes have changed since it was written; damaged images will be named. "
            "`mlimages data check %s` checks all files", path, place,
        )  # fmt: skip


def check_bytes(folder: ObjectFolder, manifest: ManifestFile) -> None:
    """Reads a file of records, and compares size and CRC-32C with the manifest.

    Raises:
        ImageShardError: They differ.
        FileNotFoundError: There is no such file.
    """
    shard = manifest.shard
    if not shard.file:
        return
    with folder.open(manifest.records) as file:
        found = crc32c(file)
        size = file.tell()
    if size != shard.num_bytes:
        raise _damaged(folder, manifest, f"{size:,} bytes instead of {shard.num_bytes:,} bytes")
    if found != shard.crc32c:
        what = f"CRC-32C {found:08x} instead of {shard.crc32c:08x}, so bytes have changed"
        raise _damaged(folder, manifest, what)


def _damaged(folder: ObjectFolder, manifest: ManifestFile, what: str) -> ImageShardError:
    return ImageShardError(
        f"{folder.path(manifest.records)}: {what}: copy it again from where it was written; or "
        "delete it and its .parquet, and run the same download again, which fetches its images "
        "again"
    )


def _check_size(folder: ObjectFolder, manifest: ManifestFile, sizes: dict[str, int]) -> None:
    shard = manifest.shard
    if shard.file and sizes.get(shard.file) != shard.num_bytes:
        found = f"{sizes[shard.file]:,} bytes" if shard.file in sizes else "missing"
        raise _damaged(folder, manifest, f"{found} instead of {shard.num_bytes:,} bytes")
