# SPDX-License-Identifier: BSD-3-Clause
import subprocess
import sys

import pytest

from mlimages_jax.files import open_files

_INFINITE = -1  # RLIM_INFINITY of Linux and macOS, as the system's calls show it


class Limits:
    """Stands for `resource`: the limits of a process, and what it asks for."""

    RLIM_INFINITY = _INFINITE
    RLIMIT_NOFILE = 7

    def __init__(self, soft, hard, *, refused):
        self.limits, self.refused = (soft, hard), refused

    def getrlimit(self, _):
        return self.limits

    def setrlimit(self, _, limits):
        if self.refused:
            raise ValueError("above what the system allows")
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "refused", "allowed"),
    [
        (1_024, 4_096, False, 4_096),
        (1_024, 1 << 20, False, 12_288),
        (1_024, _INFINITE, False, 12_288),
        (256, _INFINITE, True, 256),
        (20_000, 1 << 20, False, 20_000),
        (_INFINITE, _INFINITE, False, sys.maxsize),
        (50, 50, False, 50),
    ],
)
def test_the_limit_is_raised_as_far_as_it_goes(monkeypatch, soft, hard, refused, allowed):
    limits = Limits(soft, hard, refused=refused)
    monkeypatch.setattr(open_files, "resource", limits)
    assert open_files.allow(12_288) == allowed
    assert limits.limits == (soft if soft == _INFINITE else allowed, hard)


def test_without_such_limits_any_number_is_allowed(monkeypatch):
    monkeypatch.setattr(open_files, "resource", None)
    assert open_files.allow(10**6) == sys.maxsize


def test_more_files_can_be_opened_afterwards():
    program = """
import os, resource
from mlimages_jax.files import open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 80))
print(open_files.allow(60))
kept = [os.dup(1) for _ in range(50)]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("60\n", "")
