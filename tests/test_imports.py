# SPDX-License-Identifier: BSD-3-Clause
"""What importing the package costs and needs; who may import whom stands in pyproject.toml."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_configs_import_nothing_of_ours():
    for path in (ROOT / "configs").glob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        modules = [node.module for node in tree if isinstance(node, ast.ImportFrom)]
        assert modules == ["ml_collections"], path


def test_one_module_touches_the_private_part_of_jax():
    """Its tests say for every version of jax whether it still fits."""
    texts = {path: path.read_text() for path in (ROOT / "mlimages_jax").rglob("*.py")}
    found = {
        path.name
        for path, text in texts.items()
        if "_src" in text and any(map(_is_private, ast.walk(ast.parse(text))))
    }
    assert found == {"coordination.py"}


def _is_private(node):
    name = node.module if isinstance(node, ast.ImportFrom) else ""
    if isinstance(node, ast.Attribute):
        name = ast.unparse(node)
    return (name or "").startswith("jax._src")


def test_importing_the_package_loads_neither_jax_nor_tensorflow():
    code = (
        "import sys, mlimages_jax; "
        "print([name for name in ('jax', 'flax', 'tensorflow', 'tensorflow_datasets', 'grain') "
        "if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


@pytest.mark.slow
def test_training_runs_without_tensorflow_installed():
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'tensorflow': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import mlimages_jax.main, mlimages_jax.training.train, mlimages_jax.training.quickstart"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
