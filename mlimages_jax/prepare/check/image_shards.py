# SPDX-License-Identifier: BSD-3-Clause
"""Checks a folder of image shards: every file of records against the figures of its manifest."""

from pathlib import Path

from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.engines.ordered import map_ordered
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards.layout import ImageShardError, manifest_names
from mlimages_jax.image_shards.manifest_file import ManifestFile
from mlimages_jax.image_shards.reader import check_bytes
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.problems import Problem, ProblemList


def check_image_shards(folder: ObjectFolder, *, report: Path | None, engine: EngineOptions) -> None:
    """Reads every shard once, and prints how many there are if none has a problem.

    Raises:
        PrepareError: There are problems, which have been printed, and listed in `report`.
        OSError: The folder cannot be read.
    """
    names = manifest_names(folder)
    checker = _Checker(folder)
    with (
        ProblemList(report) as problems,
        engine.open() as opened,
        progress(len(names), what="check", unit=" shards") as bar,
    ):
        for _, problem in map_ordered(opened, checker.check, names):
            if problem is not None:
                problems.add(problem)
            bar.update()
        bar.close()  # before the last lines, which would otherwise start behind the bar
        if problems.counts:
            raise PrepareError(
                f"{problems.counts.total():,} of {len(names):,} image shards cannot be used: copy "
                "them again; or delete them and their .parquet, and run the same download again, "
                "which fetches their images"
            )
    print(f"{len(names):,} image shards: no problems")


class _Checker:
    """Checks shards, in any process."""

    def __init__(self, folder: ObjectFolder):
        self._folder = folder

    def check(self, name: str) -> Problem | None:
        """Checks the shard of a manifest; returns what is wrong with it."""
        try:
            manifest = ManifestFile(self._folder, name)
            for _ in manifest.rows():
                pass
            check_bytes(self._folder, manifest)
        except (ImageShardError, FileNotFoundError) as error:
            return Problem(name, None, "", "shard", str(error))
        return None
