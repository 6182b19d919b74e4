# SPDX-License-Identifier: BSD-3-Clause
"""Executes the notebooks from a clean kernel, so that what is committed is what they really print.

`python notebooks/execute.py` does so with all of them, in place; names choose some.
"""

import argparse
import base64
import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
NAMES = ("load_params.ipynb", "finetune_your_own.ipynb", "data_statistics.ipynb")
TIMEOUT = 600  # seconds, for one cell
LARGEST = 400_000  # bytes of a committed notebook


class OwnInterpreter(KernelSpecManager):
    """Starts kernels in the interpreter that runs this, whatever is installed for the user."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """One kernel for every name."""
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
        )


def read(path: Path) -> NotebookNode:
    """A notebook file."""
    return nbformat.read(path, as_version=4)


def execute(notebook: NotebookNode, *, folder: Path, environment: Mapping[str, str]) -> None:
    """Executes a notebook in place, cell by cell, in a kernel of its own.

    Args:
        notebook: its outputs are replaced.
        folder: where the kernel starts.
        environment: variables of the kernel, beside those it needs anyway.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell has failed, with its traceback.
    """
    notebook.metadata.pop("executed", None)
    with tempfile.TemporaryDirectory(prefix="ipython_") as settings:  # nobody's own start-up files
        variables = {**environment, "PYTHONPATH": str(ROOT), "IPYTHONDIR": settings}
        manager = AsyncKernelManager(
            kernel_spec_manager=OwnInterpreter(),
            transport="ipc",  # files instead of ports
            ip=str(Path(settings) / "kernel"),
        )
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=TIMEOUT,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env=variables, cwd=str(folder), cleanup_kc=True)
    notebook.metadata["executed"] = source_digest(notebook)


def source_digest(notebook: NotebookNode) -> str:
    """Of the sources of all code cells: the outputs belong to these."""
    sources = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(sources.encode()).hexdigest()


def images(notebook: NotebookNode) -> list[int]:
    """The positions of the cells that have put out an image."""
    return [
        number
        for number, cell in enumerate(notebook.cells)
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))
    ]


def use_palettes(notebook: NotebookNode) -> None:
    """Gives every image a palette of 256 colours, which takes a fifth of the bytes."""
    for number in images(notebook):
        for output in notebook.cells[number].outputs:
            if "image/png" in output.get("data", {}):
                image = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
                file = io.BytesIO()
                few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)
                few.save(file, format="PNG", optimize=True)
                output.data["image/png"] = base64.b64encode(file.getvalue()).decode()


def main() -> None:
    """Executes the named notebooks, or all, and writes them with their outputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help="files in this folder")
    for name in parser.parse_args().names:
        notebook = read(FOLDER / name)
        # Nobody's own images and lists shall be committed: the variables are left out.
        own = {key: value for key, value in os.environ.items() if not key.startswith("MLIMAGES_")}
        execute(notebook, folder=FOLDER, environment=own)
        use_palettes(notebook)
        text = nbformat.writes(notebook)
        for path in (str(ROOT), str(Path.home()), tempfile.gettempdir()):
            if path in text:
                sys.exit(f"error: {name} prints {path}: print relative paths only")
        if len(text) > LARGEST:
            sys.exit(f"error: {name} has {len(text):,} bytes of {LARGEST:,}: draw smaller figures")
        nbformat.write(notebook, FOLDER / name)
        print(f"{name}: {len(text):,} bytes, images in cells {images(notebook)}")


if __name__ == "__main__":
    main()
