# SPDX-License-Identifier: BSD-3-Clause
"""What a `Table` reads: rows with the names of their columns, whatever file they come from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

# The line or number of a row, from 1, and its cells by column or an error message in their place.
Record = tuple[int, dict[str, Any] | str]


class Records(Protocol):
    """The rows of a file in a format of its own, in which every image has a name."""

    @property
    def format(self) -> str:
        """Name of the format, for the user."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns; that of the images' names is one of them."""
        ...

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """Names of all classes of a column of labels, in their order, where the file says so."""
        ...

    def read(self, limit: int | None, columns: Sequence[str] | None) -> Iterator[Record]:
        """Yields the rows with their numbers from 1.

        Args:
            limit: Stop after this row; None: never.
            columns: The columns that are needed; None: all.
        """
        ...
