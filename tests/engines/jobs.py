# SPDX-License-Identifier: BSD-3-Clause
"""Functions that worker processes of the tests import."""

import os
import signal
import time
from pathlib import Path


def square(number):
    return number * number, os.getpid()


def fail_at_three(number):
    if number == 3:
        raise FileNotFoundError(2, "no such file", "three.jpg")
    return number


class ReasonedError(Exception):
    """Cannot be unpickled: its arguments are not those of the base class."""

    def __init__(self, reason, message):
        super().__init__(message)
        self.reason = reason


def fail_with_reason(number):
    raise ReasonedError("a", f"message {number}")


def wait_unless_zero(folder, number):
    """Notes this attempt, then waits for the file `go`, unless this is part 0."""
    _note(folder, number)
    while number and not Path(folder, "go").exists():
        time.sleep(0.01)
    return number


def wait_for_go(folder, number):
    """Notes this attempt, then waits for the file `go`."""
    _note(folder, number)
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return number


def wait_for_second_attempt(folder, number):
    """Notes this attempt, then waits until a part is tried again."""
    _note(folder, number)
    while len(attempts(folder)) == len({part for part, _ in attempts(folder)}):
        time.sleep(0.01)
    return number


def end_at_first_attempt(folder, number):
    """Ends as a download does at SIGTERM."""
    if not attempts(folder):
        _note(folder, number)
        raise KeyboardInterrupt
    return number


def die_at_two(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def attempts(folder):
    """Returns (part, process) of all attempts noted."""
    return [tuple(map(int, path.name.split("."))) for path in Path(folder).glob("*.*")]


def wait_for_attempts(folder, *, count):
    """Returns all attempts once there are so many."""
    while len(found := attempts(folder)) < count:
        time.sleep(0.01)
    return found


def _note(folder, number):
    Path(folder, f"{number}.{os.getpid()}").touch()
