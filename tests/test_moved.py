# SPDX-License-Identifier: BSD-3-Clause
"""What was public in version 0.1 is found at its old place, and is the object of the new one."""

import importlib
import subprocess
import sys
import warnings

import pytest

from mlimages_jax import moved
from tests.support.small_run import ROOT

# One line a module of version 0.1: the names that people could import from it.
FORMER = dict(
    line.split(": ") for line in (ROOT / "tests/support/former/names.txt").read_text().splitlines()
)


def test_every_row_of_the_tables_is_held_by_a_name():
    assert set(FORMER) == {*moved.MODULES, *moved.NAMES} - {"prepare.progress"}
    for module, renamed in moved.RENAMED.items():
        assert renamed.keys() <= set(FORMER[module].split())


@pytest.mark.parametrize("module", FORMER)
def test_names_of_before_are_the_objects_of_now(module):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sys.modules.pop(f"mlimages_jax.{module}", None)
        old = importlib.import_module(f"mlimages_jax.{module}")
        found = {name: getattr(old, name) for name in FORMER[module].split()}
    own = moved.NAMES.get(module, {})
    places = {*moved.MODULES.get(module, ()), *own.values()}
    for name, value in found.items():
        new = moved.present_name(name, module=module)
        at = [own[name]] if name in own else places
        objects = [getattr(importlib.import_module(f"mlimages_jax.{one}"), new, None) for one in at]
        assert any(value is one for one in objects), name
    texts = [str(one.message) for one in told if one.category is DeprecationWarning]
    assert all(any(place in text for text in texts) for place in places)


def test_a_name_that_never_was_is_an_attribute_error():
    for module in ("losses", "metrics"):
        with pytest.raises(AttributeError, match="has no attribute 'never'"):
            _ = importlib.import_module(f"mlimages_jax.{module}").never
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mlimages_jax.never")


@pytest.mark.slow
def test_the_warning_names_the_line_of_the_user():
    code = "from mlimages_jax.losses import weighted_loss"
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert "<string>:1: DeprecationWarning: mlimages_jax.losses is now in" in done.stderr
    assert "mlimages_jax.step.losses" in done.stderr


def test_keywords_of_before_are_accepted_with_a_warning():
    @moved.renamed_keywords(old="new", gone="here")
    def function(*, new=0, here=0):
        return new, here

    with pytest.warns(DeprecationWarning, match=r"function\(old=\.\.\.\) is now new=") as told:
        assert function(old=3, here=1) == (3, 1)
    assert told[0].filename == __file__
    with pytest.raises(TypeError, match="got new and old, its old name"):
        function(old=3, new=4)
    with pytest.raises(TypeError, match="never"):
        function(never=1)


def test_a_method_of_before_warns():
    class Kind:
        @moved.renamed_method("crop")
        def cut(self, image):
            return image

    with pytest.warns(DeprecationWarning, match="cut is now crop") as told:
        assert Kind().cut(3) == 3
    assert told[0].filename == __file__
