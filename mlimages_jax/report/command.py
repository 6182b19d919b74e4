# SPDX-License-Identifier: BSD-3-Clause
"""The command `mlimages report`."""

from etils import epath
from tyro.conf import Positional

from mlimages_jax.files import paths
from mlimages_jax.files.remote import write_text
from mlimages_jax.report.content import ReportError
from mlimages_jax.report.run_files import read_run


def report(
    workdir: Positional[str], /, *, compare: str | None = None, output: str | None = None
) -> None:
    """Show a run as one HTML file: curves, classes, images, and where the time went.

        mlimages report workdirs/quickstart
        mlimages report workdirs/mine --compare workdirs/other --output both.html

    The file contains all it needs, opens from the disk without a network, and can be sent to
    others. It reads files only: the model is not run, and the training may still be running.
    Sections whose numbers are missing say which command writes them.

    Args:
        workdir: workdir of a training, of `mlimages evaluate`, or of `mlimages suspects`.
        compare: another workdir, for curves and classes side by side.
        output: the file; default: report.html in the workdir.
    """
    runs = [read_run(one) for one in (workdir, compare) if one is not None]
    try:
        from mlimages_jax.report.page import html  # its libraries are those of the extra
        from mlimages_jax.report.run_page import run_page
    except ModuleNotFoundError as error:
        raise ReportError(f"{error}: pip install -e '.[report]' in the clone") from error
    path = epath.Path(paths.expanded(output)) if output else runs[0].folder / "report.html"
    text = html(run_page(runs))
    write_text(path, text)
    print(f"{path}: {len(text.encode()) / 1e6:.1f} MB")
