# SPDX-License-Identifier: BSD-3-Clause
"""Writes image shards: one after the other, each committed by its manifest."""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.files.checksums import crc32c
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.record_writer import RecordWriter
from mlimages_jax.image_shards import manifest_file
from mlimages_jax.image_shards.layout import MANIFEST, RECORDS, SHARDS
from mlimages_jax.image_shards.manifest_file import Row, ShardFile
from mlimages_jax.image_shards.outcome import Image
from mlimages_jax.image_shards.record import serialize

# Records that are not committed by then never are: what cleans up may remove them some time later.
LATEST_COMMIT = 12 * 3600.0


class Full(NamedTuple):
    """When a shard is complete; the first that is reached.

    Attributes:
        images: Number of images.
        num_bytes: Their bytes.
        rows: Number of rows, failures included.
    """

    images: int = 4_096
    num_bytes: int = 512 << 20
    rows: int = 32_768


FULL = Full()


class OpenShard:
    """A shard that is being written, in a scratch folder; for use from one thread at a time.

    Args:
        scratch: A local folder, on the file system of `folder` if that is on a disk.
        stem: Name of the shard's files without suffix.
    """

    def __init__(self, scratch: Path, stem: str):
        self._records = scratch / f"{stem}{RECORDS}"
        self._manifest = scratch / f"{stem}{MANIFEST}"
        self._writer: RecordWriter | None = None
        self._rows: dict[str, Row] = {}
        self._notes: list[str] = []
        self._finished: ShardFile | None = None
        self._num_images = self._num_bytes = 0
        self._records_put: float | None = None  # when

    @property
    def rows(self) -> Mapping[str, Row]:
        """The rows added so far, by name."""
        return self._rows

    def add(self, image: Image, content: bytes | None = None) -> None:
        """Adds a row, and the bytes of the image if it is OK.

        Raises:
            OSError: The scratch file cannot be written.
        """
        record = None
        if content is not None:
            record = self._num_images
            if self._writer is None:
                self._writer = RecordWriter(self._records)
            self._writer.write(serialize(image.name, content))
            self._num_images += 1
            self._num_bytes += len(content)
        self._rows[image.name] = Row(image, record)

    def note(self, text: str) -> None:
        """Adds a note to the manifest, which holds once all rows so far are committed."""
        self._notes.append(text)

    def is_full(self, full: Full) -> bool:
        """Returns whether the next shard should begin."""
        return (
            self._num_images >= full.images
            or self._num_bytes >= full.num_bytes
            or len(self._rows) >= full.rows
        )

    def commit(self, folder: ObjectFolder) -> None:
        """Moves the records to their place, and then the manifest, after which the shard exists.

        If it fails, it may be called again.

        Raises:
            OSError: A file cannot be written, or the machine stood still for so long that the
                records may have been removed.
        """
        if self._finished is None:
            self._finished = self._finish()
        if not self._rows and not self._notes:
            return
        shard = self._finished._replace(notes=self._notes)
        manifest_file.write(self._manifest, list(self._rows.values()), shard)
        if self._records.exists():
            self._records_put = time.time()  # which, unlike the monotonic clock, goes on in a sleep
            folder.put(self._records, f"{SHARDS}/{self._records.name}")
        if self._records_put and time.time() - self._records_put > LATEST_COMMIT:
            raise OSError(f"{self._records.name} arrived hours ago and may have been removed")
        folder.put(self._manifest, f"{SHARDS}/{self._manifest.name}")

    def _finish(self) -> ShardFile:
        if self._writer is None:
            return ShardFile("", 0, 0, 0)
        self._writer.close()
        with self._records.open("rb") as file:
            checksum, size = crc32c(file), file.tell()
        return ShardFile(self._records.name, size, checksum, self._num_images)


def new_attempt(part: str) -> str:
    """Returns the beginning of the names of all shards of an attempt at a part."""
    return f"{part}-{secrets.token_hex(4)}"
