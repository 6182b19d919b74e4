# SPDX-License-Identifier: BSD-3-Clause
"""The order in which the parts of a download begin: those that take longest first.

A long part that begins last keeps one worker busy while all others have nothing left to do.
"""

import collections
from collections.abc import Sequence
from pathlib import Path

from mlimages_jax.prepare.download.hosts import host_of, part_of_host
from mlimages_jax.prepare.url_lists import sample_urls

_SAMPLE = 1_000_000  # rows: some seconds, and at most as many hosts in memory


def longest_first(
    lists: Sequence[Path], parts: int, *, connections: int, per_host: int, sample: int = _SAMPLE
) -> list[int]:
    """Returns the numbers of all parts in descending order of their expected time.

    If every answer takes equally long, a part takes as long as its rows on all connections, or as
    the rows of its largest host on the connections to one host, whichever is longer. Earlier runs
    are not considered: a part that is done already is left at once, wherever it comes.

    Args:
        lists: URL lists; of more than `sample` rows every n-th is counted.
        parts: Number of parts.
        connections: Maximum number of open connections of a part.
        per_host: Maximum number of connections to one host.
        sample: Number of rows to count.

    Raises:
        TextFileError: A list cannot be read as text.
    """
    hosts = collections.Counter(map(host_of, sample_urls(lists, sample)))
    rows, largest = [0] * parts, [0] * parts
    for host, count in hosts.items():
        part = part_of_host(host, parts)
        rows[part] += count
        largest[part] = max(largest[part], count)

    def expected(part: int) -> float:
        return max(rows[part] / connections, largest[part] / per_host)

    return sorted(range(parts), key=expected, reverse=True)
