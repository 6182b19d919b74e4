# SPDX-License-Identifier: BSD-3-Clause
import os
import signal

import pytest

from mlimages_jax.plan import PlanError, check


def crash(*_):
    os.kill(os.getpid(), signal.SIGSEGV)


def refuse(*_):
    raise PlanError("check='v5e:3x3': no such topology")


@pytest.mark.slow
def test_a_compiler_that_crashes_is_an_error_and_not_the_end(monkeypatch):
    monkeypatch.setattr(check, "_compiled", crash)
    with pytest.raises(PlanError, match=r"check='v6e:2x2': the compiler crashed"):
        check.check(None, None, "v6e:2x2", num_classes=2)


@pytest.mark.slow
def test_what_the_compiler_says_arrives(monkeypatch):
    monkeypatch.setattr(check, "_compiled", refuse)
    with pytest.raises(PlanError, match=r"no such topology"):
        check.check(None, None, "v5e:3x3", num_classes=2)
