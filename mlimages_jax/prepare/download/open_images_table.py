# SPDX-License-Identifier: BSD-3-Clause
"""Open Images' table of images, indexed on disk by Flickr photo id: 9 million rows.

Most URLs of ML-Images are Flickr originals that Open Images lists too, with an MD5, a smaller copy,
the licence and the author. The host in Flickr URLs has changed over the years (farm3, c4, live);
the photo id and its secret have not: .../2034/<id>_<secret>_o.jpg.
"""

import base64
import contextlib
import json
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv

from mlimages_jax.files.atomic import complete_file
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.locking import in_turn

_READ = ("ImageID", "Subset", "OriginalURL", "License", "Author", "OriginalSize", "OriginalMD5",
         "Thumbnail300KURL", "Rotation")  # fmt: skip
_PHOTO = re.compile(r"/([0-9]{1,18})_([0-9a-f]+)_o\.[A-Za-z]+$")
_BLOCK_BYTES = 1 << 20  # threads or larger blocks were no faster and used twice the memory
_QUESTION = 500  # photo ids of one query; SQLite allows 32,766 parameters
_NUMBER = re.compile(r"[0-9]{1,15}")  # bytes; no file is larger than 15 digits
_LONGEST_NUMBER = 40  # characters of a rotation
_MAX_DEGREES = 360


class Photo(NamedTuple):
    """A row of the table.

    Attributes:
        photo_id: Flickr's id.
        secret: Secret in the URL of the original.
        image_id: Open Images' id.
        subset: train, validation or test.
        original_url: URL of the image as uploaded.
        thumbnail_url: URL of a copy with about 300,000 pixels; may be empty.
        license: URL of the licence; may be empty.
        author: Name of the author; may be empty.
        num_bytes: Size of the original, or None.
        md5: MD5 of the original, 16 bytes, or None.
        rotation: Degrees counter-clockwise, or None.
    """

    photo_id: int
    secret: str
    image_id: str
    subset: str
    original_url: str
    thumbnail_url: str
    license: str
    author: str
    num_bytes: int | None
    md5: bytes | None
    rotation: float | None


class OpenImagesTable:
    """Looks up photos in an index on disk, which is built first if it is missing or outdated.

    Args:
        files: The table's CSV files, e.g. train-images-with-labels-with-rotation.csv.
        index: The SQLite file to create; it takes about 300 bytes a row.

    Raises:
        PrepareError: A file is not such a table; the message names the missing columns.
        OSError: A file cannot be read.
    """

    def __init__(self, files: Sequence[Path], index: Path):
        made_of = json.dumps([_identity(path) for path in files])
        if not _is_made_of(index, made_of):
            # The workers of a download into image shards come here at the same time.
            with in_turn(index.with_name(f"{index.name}.lock")):
                if not _is_made_of(index, made_of):
                    _make(files, index, made_of)
        self._index = index
        self._db = sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM photos").fetchone()[0]

    def close(self) -> None:
        """Closes the index."""
        self._db.close()

    def find(self, urls: Iterable[str]) -> dict[str, Photo]:
        """Returns the photos of the URLs in the table, matched by id and secret, not by host.

        Raises:
            PrepareError: The index is damaged.
        """
        keys = {url: key for url in urls if (key := photo_key(url))}
        ids = sorted({photo_id for photo_id, _ in keys.values()})
        photos = {}
        for start in range(0, len(ids), _QUESTION):
            part = ids[start : start + _QUESTION]
            places = ", ".join("?" * len(part))
            query = f"SELECT * FROM photos WHERE photo_id IN ({places})"
            try:
                for row in self._db.execute(query, part):
                    photo = Photo(*row)
                    photos[photo.photo_id, photo.secret] = photo
            except (sqlite3.Error, TypeError) as error:
                raise PrepareError(
                    f"{self._index}: damaged ({error}); delete it, and the next run rebuilds it"
                ) from error
        return {url: photos[key] for url, key in keys.items() if key in photos}


def photo_key(url: str) -> tuple[int, str] | None:
    """Returns photo id and secret from the URL of a Flickr original, None for any other URL."""
    match = _PHOTO.search(url)
    return (int(match[1]), match[2]) if match else None


def _identity(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path.absolute()), status.st_size, status.st_mtime_ns]


def _is_made_of(index: Path, made_of: str) -> bool:
    if not index.is_file():
        return False
    with sqlite3.connect(index) as db:
        try:
            return db.execute("SELECT files FROM made_of").fetchone() == (made_of,)
        except sqlite3.DatabaseError:
            return False
        finally:
            db.rollback()


def _make(files: Sequence[Path], index: Path, made_of: str) -> None:
    """Builds the index in a temporary file, without a journal, then renames it into place."""
    with (
        complete_file(index) as unfinished,
        contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as db,
    ):
        # Neither journal nor fsync: after a crash the file is still unfinished and is built again.
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute(f"CREATE TABLE photos ({', '.join(Photo._fields)})")
        db.execute("BEGIN")
        places = ", ".join("?" * len(Photo._fields))
        for path in files:
            db.executemany(f"INSERT INTO photos VALUES ({places})", _photos(path))
        db.execute("CREATE INDEX by_id ON photos (photo_id)")
        db.execute("CREATE TABLE made_of (files)")
        db.execute("INSERT INTO made_of VALUES (?)", (made_of,))
        db.execute("COMMIT")


def _photos(path: Path) -> Iterator[Photo]:
    """Yields the rows of a CSV file whose original is on Flickr; skips malformed rows."""
    malformed = 0

    def skip(_: Any) -> str:
        nonlocal malformed
        malformed += 1
        return "skip"

    try:
        reader = pa.csv.open_csv(
            path,
            read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(_READ, pa.binary()), include_columns=list(_READ)
            ),
        )
        with progress(None, what=f"reading {path.name}", unit=" rows") as bar:
            for batch in reader:
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    if (photo := _photo(*map(_text, row))) is not None:
                        yield photo
                bar.update(batch.num_rows)
                bar.set_postfix(malformed=malformed)
    except (pa.ArrowInvalid, KeyError) as error:
        raise PrepareError(
            f"{path}: {error}. This should be Open Images' table of images, a CSV file with the "
            f"columns {', '.join(_READ)}"
        ) from error


def _photo(
    image_id: str, subset: str, url: str, license_url: str, author: str, size: str, md5: str,
    thumbnail: str, rotation: str,
) -> Photo | None:  # fmt: skip
    key = photo_key(url)
    if key is None:
        return None
    return Photo(
        *key, image_id, subset, url, thumbnail, license_url, author,
        num_bytes=int(size) if _NUMBER.fullmatch(size) else None,
        md5=_md5(md5),
        rotation=_rotation(rotation),
    )  # fmt: skip


def _text(data: bytes | None) -> str:
    """Decodes a cell; some authors' names in the table are not valid UTF-8."""
    return (data or b"").decode("utf-8", "backslashreplace")


def _md5(text: str) -> bytes | None:
    """Decodes an MD5, which the table stores in base64."""
    try:
        digest = base64.b64decode(text, validate=True)
    except ValueError:  # raised for non-ASCII text too
        return None
    return digest if len(digest) == 16 else None


def _rotation(text: str) -> float | None:
    """Parses degrees; None for other values, such as the nan that occurs in the table."""
    try:
        degrees = float(text) if len(text) <= _LONGEST_NUMBER else math.nan
    except ValueError:
        return None
    return degrees if abs(degrees) <= _MAX_DEGREES else None  # the comparison rejects nan too
