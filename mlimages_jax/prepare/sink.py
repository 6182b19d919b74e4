# SPDX-License-Identifier: BSD-3-Clause
"""What a job that gets images needs of the place it puts them: files or image shards."""

import collections
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mlimages_jax.image_shards.outcome import Image
from mlimages_jax.prepare.storing import Expected, StoredFile


class Kept(NamedTuple):
    """An image that was verified.

    Attributes:
        stored: Its description.
        content: The bytes that its row must bring along; None if they are in a file already.
    """

    stored: StoredFile
    content: bytes | None = None


class Sink(Protocol):
    """Keeps images and the outcome of every name; all but `keep` are for use from one thread."""

    @property
    def pending(self) -> Container[str]:
        """Names whose row was added, but is not yet written."""

    @property
    def written(self) -> collections.Counter[str]:
        """Number of rows written, by status."""

    def keep(
        self, unfinished: Path, file: str, *, expected: Expected, short_side: int | None
    ) -> Kept:
        """Verifies an image that has arrived and stores it, in any thread; `add` comes after it.

        Args:
            unfinished: The file as it arrived.
            file: Name of the image.
            expected: As for `storing.verified`.
            short_side: As for `storing.verified`.

        Raises:
            UnwantedFileError: It is not the expected image, or cannot be stored under this name.
            StorageError: Nothing can be stored any more.
        """
        ...

    def add(self, image: Image, kept: Kept | None = None) -> None:
        """Adds a row, with what `keep` returned if it is OK."""

    def fail(self, name: str, error: str, message: str, **fields: Any) -> None:
        """Adds the row of an image that is not available; `fields` are further ones of `Image`."""

    def discard(self, file: str) -> None:
        """Removes what a killed run may have stored under a name that now fails."""

    def flush(self, *, wait: bool = True) -> None:
        """Writes the rows added.

        Args:
            wait: Write all of them, however long it takes; else what is due, without delay.

        Raises:
            StorageError: They cannot be written.
        """
