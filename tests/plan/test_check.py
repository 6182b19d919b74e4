# SPDX-License-Identifier: BSD-3-Clause
import contextlib
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import jax
import psutil
import pytest

from mlimages_jax.plan import PlanError, check, chips, estimate
from tests.support.small_run import load_config


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


OUTLIVED = """
import os, time
from mlimages_jax.plan import check

def outlive(*_):
    parent = os.getppid()
    print(os.getpid(), flush=True)
    while os.getppid() == parent:
        time.sleep(0.01)

if __name__ == "__main__":
    check._compiled = outlive
    check.check(None, None, "v5e:2x2", num_classes=2)
"""


@pytest.mark.slow
def test_the_compiling_process_ends_after_one_that_was_killed(tmp_path):
    script = tmp_path / "outlived.py"
    script.write_text(OUTLIVED)
    command = [sys.executable, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        try:
            child.wait(timeout=60)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "RESOURCE_EXHAUSTED: 40G of 15.75G hbm\nmore",
            "memory of a chip: .* 15.75G hbm. G",
        ),
        ("INTERNAL: cannot be lowered\nmore", "check='cpu': INTERNAL: cannot be lowered$"),
    ],
)
def test_what_cannot_be_compiled_is_told_in_a_line(monkeypatch, message, told):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError(message)

    config = load_config("pretrain")
    plan = estimate.make_plan(config, chip=chips.find("v5e"), devices=1, num_classes=9)
    monkeypatch.setattr(check, "training_step", lambda *_, **__: SimpleNamespace(compile=fail))
    with pytest.raises(PlanError, match=told):
        check.check(config, plan, "cpu", num_classes=9)
