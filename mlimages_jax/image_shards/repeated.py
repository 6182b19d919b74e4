# SPDX-License-Identifier: BSD-3-Clause
"""Contents that came under too many names: placeholders that a server sends for lost images.

Which contents these are is known only once all parts are done, so rows are not changed: a small
Parquet file lists the contents, and every reader takes their rows for failures. To judge needs
little memory: contents are counted in passes, each over a range of their hashes.
"""

import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards.index import digests
from mlimages_jax.image_shards.layout import ImageShardError
from mlimages_jax.image_shards.manifest_file import ManifestFile
from mlimages_jax.image_shards.outcome import FAILED, Image

FILE = "repeated_contents.parquet"
PLACEHOLDER = "placeholder"
_SCHEMA = pa.schema([
    pa.field("sha256", pa.binary(32), nullable=False),
    pa.field("names", pa.int64(), nullable=False),
    pa.field("max_copies", pa.int64(), nullable=False),
])  # fmt: skip
_CONTENT, _PAIR = np.dtype("S32"), np.dtype("S48")
_ROWS_PER_PASS = 4_000_000  # 48 bytes each
_MAX_BYTES = 64 << 20  # of the file: a million contents


def as_failure(image: Image, max_copies: int) -> Image:
    """Returns the row of an image whose content came under at least `max_copies` names."""
    message = f"the same bytes came from {max_copies} or more URLs"
    return dataclasses.replace(
        image, status=FAILED, file=None, source=None, error=PLACEHOLDER, message=message
    )


class RepeatedContents(NamedTuple):
    """The contents that are no images.

    Attributes:
        max_copies: Number of names from which on a content is one of them, by content (SHA-256).
        judged: Whether the run that wrote the shards came to its end.
    """

    max_copies: Mapping[bytes, int]
    judged: bool

    def effective(self, image: Image) -> Image:
        """Returns a row as it counts: a failure if its content is one of these."""
        copies = self.max_copies.get(image.sha256) if image.sha256 and image.file else None
        return image if copies is None else as_failure(image, copies)


def read(folder: ObjectFolder) -> RepeatedContents:
    """Reads the contents of a folder; none if no run there came to its end.

    Raises:
        ImageShardError: The file is damaged.
    """
    try:
        data = folder.read(FILE)
    except FileNotFoundError:
        return RepeatedContents({}, judged=False)
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError(f"{len(data):,} bytes are too many")
        parquet = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if parquet.metadata.num_rows * _CONTENT.itemsize > len(data):
            # Hashes do not compress: a few kilobytes could stand for more than the memory.
            raise ValueError(f"{parquet.metadata.num_rows:,} rows in {len(data):,} bytes")
        if not parquet.schema_arrow.equals(_SCHEMA):  # a text could stand for more than it too
            raise ValueError("it has other columns")
        table = parquet.read(use_threads=False)  # see ManifestFile.blocks
        if table.num_rows != parquet.metadata.num_rows:
            raise ValueError("it has other rows")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ImageShardError(
            f"{folder.path(FILE)}: damaged ({error}): delete it, and run the same download again, "
            "which counts the contents anew"
        ) from error
    contents = table.column("sha256").to_pylist()
    return RepeatedContents(
        dict(zip(contents, table.column("max_copies").to_pylist(), strict=True)), judged=True
    )


def judge(folder: ObjectFolder, manifests: Sequence[str], *, max_copies: int) -> int:
    """Counts all contents, and writes those of at least `max_copies` names.

    Args:
        folder: A folder of image shards that no run writes to.
        manifests: Names of its manifests.
        max_copies: 0 finds none.

    Returns:
        The number of contents found.

    Raises:
        ImageShardError: A manifest is damaged.
        OSError: The folder cannot be read or written.
    """
    opened = [ManifestFile(folder, name) for name in manifests] if max_copies else []
    passes = math.ceil(sum(one.num_rows for one in opened) / _ROWS_PER_PASS)
    found: dict[bytes, int] = {}
    for number in range(passes):
        found |= _repeated(opened, number, passes, max_copies)
    table = pa.table(
        {
            "sha256": list(found),
            "names": list(found.values()),
            "max_copies": [max_copies] * len(found),
        },
        schema=_SCHEMA,
    )
    data = io.BytesIO()
    pq.write_table(table, data, write_page_checksum=True)
    folder.write(FILE, data.getvalue())
    return len(found)


def _repeated(
    manifests: Sequence[ManifestFile], number: int, passes: int, max_copies: int
) -> dict[bytes, int]:
    """Returns the contents of one pass with their numbers of names."""
    pairs = [pair for manifest in manifests for pair in _pairs(manifest, number, passes)]
    if not pairs:
        return {}
    unique = np.unique(np.concatenate(pairs))  # a name may have rows in two shards
    contents = unique.view(np.uint8).reshape(-1, _PAIR.itemsize)[:, : _CONTENT.itemsize]
    repeated, counts = np.unique(contents.copy().view(_CONTENT), return_counts=True)
    return {
        content.ljust(_CONTENT.itemsize, b"\0"): count  # NumPy drops zeros at the end
        for content, count in zip(repeated.tolist(), counts.tolist(), strict=True)
        if count >= max_copies
    }


def _pairs(manifest: ManifestFile, number: int, passes: int) -> Iterator[np.ndarray]:
    """Yields content and hashed name of the rows of one pass, as one text: S48 [N]."""
    for block in manifest.blocks(["name", "sha256"]):
        names, contents = (column.to_pylist() for column in block.columns)
        rows = [
            (name, content)
            for name, content in zip(names, contents, strict=True)
            if content is not None and int.from_bytes(content[:4], "big") % passes == number
        ]
        keys = digests(name for name, _ in rows).view(np.uint8).reshape(-1, 16)
        texts = np.frombuffer(b"".join(content for _, content in rows), np.uint8)
        yield np.hstack([texts.reshape(-1, 32), keys]).view(_PAIR).ravel()
