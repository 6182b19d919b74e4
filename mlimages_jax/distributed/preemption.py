# SPDX-License-Identifier: BSD-3-Clause
"""Records stop requests (SIGTERM, SIGHUP, Ctrl-C), which the tasks obey at a safe point.

Schedulers send SIGTERM before they take a machine away; SIGHUP comes from a lost ssh connection or
a closed terminal. This module does not import jax, so that signals are caught from the program's
first line on.
"""

import contextlib
import os
import signal
import stat
from types import FrameType

from absl import logging

EXIT_CODE = 75  # EX_TEMPFAIL in sysexits.h: run the same command again

_received: list[int] = []


class Preempted(Exception):  # noqa: N818  # not an error
    """The program was asked to stop.

    Attributes:
        agreed: Whether all processes stop at the same point; otherwise only this process knows.
    """

    def __init__(self, *, agreed: bool = False):
        super().__init__("asked to stop")
        self.agreed = agreed


def watch() -> None:
    """Installs handlers that record SIGTERM, SIGHUP and Ctrl-C instead of ending the program.

    A second Ctrl-C ends the program immediately; repeats of the other signals have no effect. Under
    nohup, which starts programs with SIGHUP ignored, SIGHUP stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # nohup works by leaving SIGHUP ignored; a handler would undo that.
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        signal.signal(number, _notice)


def received() -> bool:
    """Returns whether this process was asked to stop."""
    return bool(_received)


def check() -> None:
    """Stops the task if requested; call it only where there is nothing to save.

    Raises:
        Preempted: This process was asked to stop.
    """
    if received():
        raise Preempted()


def _notice(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGHUP:
        _leave_lost_terminal()
    if not _received:
        again = "; press Ctrl-C again to end it at once" if number == signal.SIGINT else ""
        logging.warning("%s: stopping at the next safe point%s", signal.Signals(number).name, again)
    _received.append(number)
    if number == signal.SIGINT:
        # Users must be able to end a program that hangs. SIGTERM is not reset: schedulers repeat
        # it, which must not interrupt the save that the first one asked for.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _leave_lost_terminal() -> None:
    """Redirects output from a lost terminal to /dev/null.

    Writing to it fails with EIO and would end the program before it has saved a checkpoint. A
    terminal that was closed is still a character device, but `isatty` is false.
    """
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # closed by the parent process
            is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
            if is_device and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
