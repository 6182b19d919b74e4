# SPDX-License-Identifier: BSD-3-Clause
"""Records the outcome of every image of a list in an SQLite file next to the folder of images.

An image is identified by its name in the list: a URL, or a path such as
n04310904/n04310904_8388.JPEG. Its row is written after its file is complete, and a file gets its
final name only when it is complete, so a job killed at any moment leaves a manifest whose rows are
true. The next run continues with the names that have no row.

    sqlite3 manifest.sqlite "select error, count(*) from pictures group by error"

The file may come from an untrusted source, and another program may read it while a job runs:
neither its content nor immediate access to it is taken for granted.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mlimages_jax.image_shards.outcome import COLUMNS, Image, storable
from mlimages_jax.prepare.locked_file import LOCKED_SECONDS, LockedFileError, is_busy, patiently

_FORMAT = 1  # version of the tables, in SQLite's user_version
_UNREADABLE = (sqlite3.Error, UnicodeDecodeError)  # raised by sqlite3 for damaged files
_BATCH = 500  # names per query; SQLite allows 32,766 parameters
_Result = TypeVar("_Result")


class ManifestError(Exception):
    """The file is not a manifest, or this program cannot read it."""


_SQL_TYPES = {
    "time": "REAL NOT NULL", "http_status": "INTEGER", "num_bytes": "INTEGER", "sha256": "BLOB",
    "width": "INTEGER", "height": "INTEGER", "file_sha256": "BLOB", "rotation": "REAL",
    "name": "TEXT PRIMARY KEY", "status": "TEXT NOT NULL",
}  # fmt: skip
# The table has the name it had in 0.1, so that manifests of then are resumed. WITHOUT ROWID, as
# the names would otherwise be stored twice: in the table and in the index of its key.
_CREATE = f"""
CREATE TABLE pictures ({", ".join(f"{c} {_SQL_TYPES.get(c, 'TEXT')}" for c in COLUMNS)})
WITHOUT ROWID;
CREATE INDEX contents ON pictures (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX files_of_failed ON pictures (name) WHERE status = 'failed' AND file IS NOT NULL;
PRAGMA user_version = {_FORMAT};
"""


class Manifest:
    """An open manifest; a context manager, for use from one thread.

    Args:
        path: Path of the SQLite file.
        readonly: The file must exist and is not written to; otherwise it is created if missing.

    Raises:
        FileNotFoundError: Read-only, and there is no file.
        ManifestError: The file is not a manifest, is damaged, or has another version.
        sqlite3.OperationalError: The folder cannot be written to.
    """

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False):
        self.path = Path(path)
        if readonly and not self.path.is_file():
            raise FileNotFoundError(
                f"{path}: there is no such manifest; give the file or folder that `mlimages data "
                "download` or `extract` wrote (with --shards, the folder)"
            )
        mode = "ro" if readonly else "rwc"
        self._wait = LOCKED_SECONDS
        self._db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=0.0,  # `_patiently` waits instead, because Ctrl-C cannot interrupt SQLite
        )
        try:
            self._patiently(lambda: self._open(readonly=readonly))
        except BaseException as error:  # also Ctrl-C
            self._db.close()
            cannot_write = isinstance(error, sqlite3.OperationalError) and not readonly
            if isinstance(error, _UNREADABLE) and not cannot_write:
                raise ManifestError(
                    f"{path}: not a manifest ({error}); give another name"
                ) from error
            raise

    def _open(self, *, readonly: bool) -> None:
        # The file may be hostile: do not run functions that its schema calls.
        self._db.execute("PRAGMA trusted_schema = OFF")
        parts = set(self._db.execute("SELECT type, name FROM sqlite_schema"))
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if not parts and not readonly:
            # With a write-ahead log others can read while a job writes.
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(f"BEGIN IMMEDIATE; {_CREATE} COMMIT;")
        elif ("table", "pictures") not in parts:
            raise ManifestError(f"{self.path}: an SQLite file, but not a manifest; give another")
        elif version != _FORMAT:
            raise ManifestError(
                f"{self.path}: a manifest of version {version}, this program reads {_FORMAT}: use "
                "the version that wrote it, or give another manifest"
            )
        else:
            self._check_schema({kind for kind, _ in parts})
        # Enough with a write-ahead log: a power failure can lose the last transactions, which are
        # fetched again, but not damage the file (sqlite.org/wal.html).
        self._db.execute("PRAGMA synchronous = NORMAL")

    def _check_schema(self, kinds: set[str]) -> None:
        columns = [row[1] for row in self._db.execute("PRAGMA table_xinfo(pictures)")]
        if columns != COLUMNS or "trigger" in kinds:
            raise ManifestError(
                f"{self.path}: its table of images has triggers or unexpected columns; "
                "give another manifest"
            )

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def put(self, images: Iterable[Image]) -> None:
        """Writes rows, all or none; a row with the same name is replaced.

        Values that SQLite cannot store are escaped (surrogates) or become None (numbers): one odd
        answer of a server must not keep the other rows from being written.
        """
        places = ", ".join("?" * len(COLUMNS))
        rows = [[storable(getattr(image, column)) for column in COLUMNS] for image in images]
        with self._transaction():
            self._db.executemany(f"INSERT OR REPLACE INTO pictures VALUES ({places})", rows)

    def get(self, names: Sequence[str]) -> dict[str, Image]:
        """Returns the rows of some names; names without a row are left out."""
        found = {}
        for start in range(0, len(names), _BATCH):
            part = names[start : start + _BATCH]
            places = ", ".join("?" * len(part))
            for image in self._images(f"WHERE name IN ({places})", part):
                found[image.name] = image
        return found

    def __iter__(self) -> Iterator[Image]:
        """Yields all rows by name; do not write to the manifest before the last one."""
        return self._images("ORDER BY name")

    def __len__(self) -> int:
        return next(self._read("SELECT count(*) FROM pictures"))[0]

    def counts(self, *columns: str) -> dict[tuple[Any, ...], int]:
        """Counts the rows with each combination of values, most frequent first.

        Args:
            *columns: Columns of `Image`, such as "status", "error" or "source".

        Raises:
            ValueError: None is given, or one does not exist.
        """
        unknown = set(columns) - set(COLUMNS)
        if unknown or not columns:
            raise ValueError(f"columns {sorted(unknown)} are none of {COLUMNS}")
        names = ", ".join(columns)
        rows = self._read(
            f"SELECT {names}, count(*) FROM pictures GROUP BY {names} ORDER BY count(*) DESC"
        )
        return {tuple(values): count for *values, count in rows}

    def received(self) -> int:
        """Returns the total number of bytes received of the images that are OK."""
        query = "SELECT total(num_bytes) FROM pictures WHERE status = 'ok'"
        return int(next(self._read(query))[0])

    def copies(self, contents: Iterable[bytes]) -> Mapping[bytes, int]:
        """Counts the rows, failures included, of each content (sha256 as received)."""
        query = "SELECT count(*) FROM pictures WHERE sha256 = ?"
        return {content: next(self._read(query, [content]))[0] for content in set(contents)}

    def repeated_contents(self, copies: int) -> list[bytes]:
        """Returns contents (sha256 as received) of at least `copies` rows, failures included."""
        query = (
            "SELECT sha256 FROM pictures WHERE sha256 IS NOT NULL "
            "GROUP BY sha256 HAVING count(*) >= ?"
        )
        return [content for (content,) in self._read(query, [copies])]

    def fail_content(self, content: bytes, *, error: str, message: str) -> int:
        """Turns all OK rows of one content into failures; returns how many.

        They keep their `file` until `forget_files`, so a killed job cannot lose track of it.
        """
        with self._transaction():
            cursor = self._db.execute(
                "UPDATE pictures SET status = 'failed', source = NULL, error = ?, message = ? "
                "WHERE sha256 = ? AND status = 'ok'",
                (error, message, content),
            )
        return cursor.rowcount

    def files_of_failed(self, limit: int = 1000) -> list[tuple[str, str]]:
        """Returns (name, file) of failures whose file still has to be deleted."""
        query = (
            "SELECT name, file FROM pictures WHERE status = 'failed' AND file IS NOT NULL LIMIT ?"
        )
        return list(self._read(query, [limit]))

    def forget_files(self, names: Iterable[str]) -> None:
        """Records that the files of these failures are deleted."""
        with self._transaction():
            self._db.executemany(
                "UPDATE pictures SET file = NULL WHERE name = ?", ((name,) for name in names)
            )

    def is_locked(self) -> bool:
        """Returns whether another program prevents writing at this moment."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if is_busy(error):
                return True
            raise
        self._db.execute("ROLLBACK")
        return False

    def _images(self, which: str, values: Sequence[Any] = ()) -> Iterator[Image]:
        for row in self._read(f"SELECT {', '.join(COLUMNS)} FROM pictures {which}", values):
            image = Image(**dict(zip(COLUMNS, row, strict=True)))
            file_is_path = image.file is None or isinstance(image.file, str)
            if not (isinstance(image.name, str) and isinstance(image.time, float | int)
                    and file_is_path):  # fmt: skip
                raise ManifestError(
                    f"{self.path}: the row of {image.name!r} has a name, file or time of the wrong "
                    "type; give another manifest"
                )
            yield image

    def _read(self, query: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        try:
            yield from self._patiently(lambda: self._db.execute(query, values))
        except _UNREADABLE as error:
            raise ManifestError(
                f"{self.path}: damaged or unreadable ({error}). `sqlite3 {self.path} .recover` may "
                "save its rows; without them everything is fetched again"
            ) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Runs the block in a transaction, rolled back after any error, such as a full disk."""
        self._patiently(lambda: self._db.execute("BEGIN IMMEDIATE"))
        try:
            yield
            self._patiently(lambda: self._db.execute("COMMIT"))
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _patiently(self, action: Callable[[], _Result]) -> _Result:
        """Runs an action once no other program has locked the file.

        Raises:
            ManifestError: The file stayed locked too long. Later calls then do not wait at all.
        """
        try:
            return patiently(action, self.path, seconds=self._wait)
        except LockedFileError as error:
            self._wait = 0.0
            raise ManifestError(str(error)) from error
