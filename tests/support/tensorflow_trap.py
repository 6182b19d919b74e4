# SPDX-License-Identifier: BSD-3-Clause
"""A TensorFlow that is installed and must not be imported."""

from pathlib import Path

_CODE = """\
import traceback

traceback.print_stack()
raise AssertionError("TensorFlow was imported; the lines above say by whom")
"""


def lay(folder: Path) -> Path:
    """Writes a package `tensorflow` that fails loudly; put the folder returned on PYTHONPATH."""
    package = folder / "with_tensorflow" / "tensorflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_CODE)
    return package.parent
