# SPDX-License-Identifier: BSD-3-Clause
"""Distinguishes hosts that are gone from a network that is down, by who answers meanwhile."""

import dataclasses
import math

from mlimages_jax.prepare import PrepareError

_PROBES = 100  # one of so many images of a silent host is tried, in case it has come back


class NoAnswerError(PrepareError):
    """Nobody answers: probably this machine is offline."""


@dataclasses.dataclass
class _Streak:
    """Attempts at a host in a row that got no answer.

    Attributes:
        attempts: Their number.
        answers_before: Answers of all hosts before the first of them.
        skipped: Images that were not tried since the host counts as silent.
    """

    attempts: int
    answers_before: int
    skipped: int = 0


class Silence:
    """Counts attempts without any answer: no name, no connection, or no byte in time.

    Args:
        host_limit: A host is silent after this many in a row, if others have answered meanwhile;
            0: never.
        limit: The network is down after this many in a row, of any hosts; 0: never.
    """

    def __init__(self, *, host_limit: int, limit: int):
        self._host_limit = host_limit or math.inf
        self._limit = limit or math.inf
        self._answers = 0
        self._in_a_row = 0
        self._streaks: dict[str, _Streak] = {}

    def answered(self, host: str) -> None:
        """Notes an answer of any kind, errors included."""
        self._answers += 1
        self._in_a_row = 0
        self._streaks.pop(host, None)

    def unanswered(self, host: str, error: Exception) -> None:
        """Notes an attempt without an answer.

        Raises:
            NoAnswerError: There were too many, of all hosts.
        """
        self._streaks.setdefault(host, _Streak(0, self._answers)).attempts += 1
        self._in_a_row += 1
        if self._in_a_row >= self._limit:
            raise NoAnswerError(
                f"{self._in_a_row:,} attempts in a row got no answer, the last one from {host}: "
                f"{error}. Is this machine online? Then run again with --retry-failed "
                "dns connection timeout"
            )

    def skips(self, host: str) -> str | None:
        """Returns why an image of this host is not to be tried; None: try it."""
        streak = self._streaks.get(host)
        if (
            streak is None
            or streak.attempts < self._host_limit
            or streak.answers_before == self._answers
        ):
            return None
        streak.skipped += 1
        if streak.skipped % _PROBES == 0:
            return None
        return f"not tried: {host} gave no answer to {streak.attempts:,} attempts in a row"
