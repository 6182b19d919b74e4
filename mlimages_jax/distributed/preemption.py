# SPDX-License-Identifier: BSD-3-Clause
"""SIGTERM, with which schedulers announce that a machine goes: noticed here, acted on by the tasks.

So is SIGHUP, by which a lost ssh or a closed terminal announces itself. Knows no jax, so that a
signal is noticed from the first line of the program on.
"""

import contextlib
import os
import signal
import stat
from types import FrameType

from absl import logging

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: start the same command again

_received: list[int] = []


class Preempted(Exception):  # noqa: N818  # not an error
    """The program was asked to end.

    Attributes:
        agreed: all processes end at this same moment; otherwise only this one knows of it.
    """

    def __init__(self, *, agreed: bool = False):
        super().__init__("asked to end")
        self.agreed = agreed


def watch() -> None:
    """From now on SIGTERM, SIGHUP and Ctrl-C are noticed instead of ending the program.

    A second Ctrl-C ends it at once; any number of the others is as one. Under nohup, which starts
    programs with SIGHUP ignored, it stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        signal.signal(number, _notice)


def received() -> bool:
    """Whether this process was asked to end."""
    return bool(_received)


def check() -> None:
    """Ends the task where what was done so far is stored, or nothing was.

    Raises:
        Preempted: when this process was asked to end.
    """
    if received():
        raise Preempted()


def _notice(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGHUP:
        _leave_lost_terminal()
    if not _received:
        again = "; Ctrl-C again ends it at once" if number == signal.SIGINT else ""
        logging.warning("%s: going to stop%s", signal.Signals(number).name, again)
    _received.append(number)
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _leave_lost_terminal() -> None:
    """Points output that went to a terminal which is gone to nowhere.

    Writing there fails (EIO) and would end the program before it has saved. A terminal that hung up
    is still a character device, but no terminal any more.
    """
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # closed by whoever started the program
            is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
            if is_device and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
