# SPDX-License-Identifier: BSD-3-Clause
import importlib.metadata
import platform
import subprocess
import sys

import mlimages_jax
from mlimages_jax.cli import front


def test_versions_of_what_is_installed(monkeypatch):
    found = mlimages_jax.versions()
    assert found["mlimages_jax"] == mlimages_jax.__version__
    assert found["python"] == platform.python_version()
    assert found["jax"] == importlib.metadata.version("jax")

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert list(mlimages_jax.versions()) == ["mlimages_jax", "python", "system"]


def test_the_command_prints_them(capsys):
    front.main(["versions"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["mlimages_jax"] == mlimages_jax.__version__ and "numpy" in lines


def test_no_library_is_imported():
    code = (
        "import sys, mlimages_jax as mli; "
        "assert mli.versions()['python'] and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
