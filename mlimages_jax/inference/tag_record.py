# SPDX-License-Identifier: BSD-3-Clause
"""Remembers what made a file of tags, so that a later run computes only what is new.

    OUTPUT                  appears when all rows are known, and is replaced as a whole
    OUTPUT.made.jsonl       what made it: a header, then its rows, each with the identity of its
                            image (for files: name, size, modification time)
    OUTPUT.partial.jsonl    rows of a run that has not ended, each with the identity of its image
    OUTPUT.partial.json     the values that run was started with

A row is reused if its image has the same identity as before. The header has the values that
determine rows, and the digests of OUTPUT as it is and as it was before; so a file that somebody
else made or changed is recognised, also after a stop between the two renames at the end.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import json_line
from mlimages_jax.inference import tag_files
from mlimages_jax.inference.image_source import ImageSource
from mlimages_jax.inference.line_index import LineIndex, key_of, keys_of
from mlimages_jax.inference.tag_files import Row, TagFileError

_NOT_OURS = "give another --output, move it, or replace it with --overwrite"
# Beginnings of errors that need not be those of the file, so the image is read again.
_PASSING = ("missing:", "unreadable:")
_BEFORE, _NEW = 0, 1  # the files that rows are in


class TagRecord:
    """The rows of a file of tags, known and new; use it as a context manager.

    Args:
        output: Path of the file.
        file_format: One of `tag_files.ENDINGS`.
        about: Everything that determines the row of an image, as JSON values. Those in `shown` are
            not compared but shown in messages.
        shown: Names of such values.
        overwrite: Whether to replace a file, and drop rows, made in any other way.

    Raises:
        TagFileError: If the format is unknown, or the file or the rows of a stopped run were made
            in another way.
    """

    def __init__(
        self,
        output: Path,
        file_format: str,
        about: Row,
        *,
        shown: tuple[str, ...] = (),
        overwrite: bool = False,
    ):
        tag_files.ending_of(file_format)
        self._output, self._format, self._about, self._shown = output, file_format, about, shown
        self._made = _made_by(output)
        self._partial = output.with_name(f"{output.name}.partial.jsonl")
        self._values = output.with_name(f"{output.name}.partial.json")
        self._replaces = _digest(output)
        self._reuses = not overwrite and self._check_output()
        output.parent.mkdir(parents=True, exist_ok=True)
        self._start(overwrite=overwrite)
        self._file: BinaryIO | None = None

    def __enter__(self) -> "TagRecord":
        self._file = self._partial.open("ab")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()

    @property
    def extends(self) -> bool:
        """True if rows of a finished file are reused, not only those of a stopped run."""
        return self._reuses

    def plan(self, source: ImageSource) -> tuple[list[int], int]:
        """Returns the positions of images without a row, and the number of known errors."""
        self._source = source
        self._keys = keys_of(map(source.identity, range(len(source))))
        errors: set[int] = set()
        lines = []
        for place, row in self._lines():  # of several rows of an image the last counts
            key, error = key_of(row["source"]), row.get("error", "")
            if error.startswith(_PASSING):
                continue
            lines.append((key, place))
            (errors.add if error else errors.discard)(key)
        known = LineIndex(lines).places(self._keys) >= 0
        bad = np.isin(self._keys[known], np.array(list(errors), np.uint64))
        return np.flatnonzero(~known).tolist(), int(bad.sum())

    def append(self, rows: list[tuple[int, Row]]) -> None:
        """Adds rows, each with the position of its image."""
        assert self._file
        lines = (json_line(row | {"source": self._source.identity(at)}) for at, row in rows)
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()

    def finish(self) -> None:
        """Writes the file, and what made it.

        Raises:
            TagFileError: If somebody changed the file meanwhile, or the record is damaged.
        """
        assert self._file
        self._file.close()
        index = LineIndex((key_of(row["source"]), place) for place, row in self._lines())
        places = index.places(self._keys).tolist()
        if self._replaces != _digest(self._output):
            raise TagFileError(
                f"{self._output} was changed while images were tagged: move it, then run the same "
                "command again, which keeps all tags"
            )
        with complete_file(self._output) as unfinished:
            tag_files.write(unfinished, self._format, self._checked_rows(places))
            header = {"about": self._about, "files": [_digest(unfinished), self._replaces]}
            # Renamed before the file itself: see the docstring of this module.
            with complete_file(self._made) as made, made.open("wb") as file:
                file.write(f"{json_line(header)}\n".encode())
                file.writelines(self._at(places))
        self._partial.unlink()
        self._values.unlink()

    def _checked_rows(self, places: list[int]) -> Iterator[Row]:
        for position, line in enumerate(self._at(places)):
            row = json.loads(line)
            if row.pop("source") != self._source.identity(position):
                raise _damaged(self._made)
            yield row

    def _at(self, places: list[int]) -> Iterator[bytes]:
        """Yields the lines at some places."""
        with contextlib.ExitStack() as stack:
            files = {_NEW: stack.enter_context(self._partial.open("rb"))}
            if self._reuses:
                files[_BEFORE] = stack.enter_context(self._made.open("rb"))
            for place in places:
                assert place >= 0, "an image has no row"
                file = files[place % 2]  # see `_lines_of`
                file.seek(place // 2)
                yield file.readline()

    def _lines(self) -> Iterator[tuple[int, Row]]:
        """Yields place and content of the rows, those of this run last."""
        if self._reuses:
            yield from _lines_of(self._made, _BEFORE)
        yield from _lines_of(self._partial, _NEW)

    def _check_output(self) -> bool:
        """Returns whether there are rows to reuse, made in the same way."""
        header = _header(self._made)
        if not self._replaces:
            return header is not None and not self._differences(header["about"])
        if header is None:
            raise TagFileError(
                f"{self._output} already exists, and {self._made.name}, which would say what made "
                f"it, does not: {_NOT_OURS}"
            )
        if self._replaces not in header["files"]:
            raise TagFileError(
                f"{self._output} already exists, and was changed after it was made: {_NOT_OURS}"
            )
        if differences := self._differences(header["about"]):
            raise TagFileError(
                f"{self._output} already exists, made with other values: use those again, give "
                f"another --output, or replace it with --overwrite ({differences})"
            )
        return True

    def _start(self, *, overwrite: bool) -> None:
        """Keeps the rows of a stopped run with the same values, or starts without rows."""
        if self._values.exists() and self._partial.exists():
            differences = self._differences(json.loads(self._values.read_text(encoding="utf-8")))
            if not differences:
                _end_last_line(self._partial)
                return
            if not overwrite:
                raise TagFileError(
                    f"{self._partial} was written with other values: use those again, or delete it "
                    f"to start over ({differences})"
                )
        # The rows are emptied before their description is written. In the other order, a stop
        # between the two would leave another command's rows under this description.
        self._partial.write_bytes(b"")
        with complete_file(self._values) as unfinished:
            unfinished.write_text(json.dumps(self._about, ensure_ascii=False), encoding="utf-8")

    def _differences(self, before: Row) -> str:
        """Returns the values that differ, as text; "" if there are none."""
        now = self._about
        names = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
        if not set(names) - set(self._shown):
            return ""
        return "; ".join(
            f"{name}: {before.get(name)!r} before, {now.get(name)!r} now" for name in names
        )


def finished_rows(output: Path) -> Iterator[Row]:
    """Yields the row of every image of a finished file, in order, with the image's identity."""
    for _, row in _lines_of(_made_by(output), _BEFORE):
        yield row


def _made_by(output: Path) -> Path:
    return output.with_name(f"{output.name}.made.jsonl")


def _header(made: Path) -> dict[str, Any] | None:
    """Returns the first line of a record, or None if there is none."""
    try:
        with made.open("rb") as file:
            header = json.loads(file.readline())
    except FileNotFoundError:
        return None
    except ValueError:
        header = None
    if not isinstance(header, dict) or not {"about", "files"} <= header.keys():
        raise _damaged(made)
    return header


def _damaged(path: Path) -> TagFileError:
    return TagFileError(f"{path} is damaged: delete it, and add --overwrite to start over")


def _lines_of(path: Path, which: int) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as file:
        offset = len(file.readline()) if which == _BEFORE else 0  # behind the header
        file.seek(offset)
        for line in file:
            try:
                row = json.loads(line)
            except ValueError as error:
                raise _damaged(path) from error
            # One number for offset and file, as LineIndex stores a single integer per line.
            yield 2 * offset + which, row
            offset += len(line)


def _end_last_line(path: Path) -> None:
    """Removes a line that a killed command left incomplete."""
    with path.open("rb") as file:
        size = sum(len(line) for line in file if line.endswith(b"\n"))
    os.truncate(path, size)


def _digest(path: Path) -> str:
    """Returns a digest of a file; "" if there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
