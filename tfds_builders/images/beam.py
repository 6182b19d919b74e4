# SPDX-License-Identifier: BSD-3-Clause
"""Writes shards on many machines with Apache Beam, an optional dependency imported when used."""

import os
import pickle
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .shards import ShardPlan


def pipeline_options(flags: list[str]) -> Any:
    """Returns Beam's `PipelineOptions` for flags such as --runner=DirectRunner.

    Raises:
        ImportError: Beam is not installed; the message says how to install it.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        message = "Apache Beam is not installed: pip install -e '.[beam]' in a venv of its own"
        raise ImportError(message) from error
    return PipelineOptions(flags)


def write(
    write_shard: Callable[[ShardPlan], object],
    shards: Iterable[ShardPlan],
    *,
    scratch: Path,
    runner: Any,
    options: Any,
) -> None:
    """Writes every shard as one element of an Apache Beam pipeline.

    The rows (1.3 GB of labels for ML-Images) are too large for the description of the pipeline, so
    each shard's rows are passed in a file.

    Args:
        write_shard: Writes a shard and leaves its result in files.
        shards: The shards, in any order.
        scratch: A new folder for the files of rows. All machines must see it under this name, and
            the folders of images and of the data set too.
        runner: A Beam runner or its name; None: as in `options`.
        options: Beam's `PipelineOptions`, or None.
    """
    import apache_beam as beam

    scratch.mkdir()
    staged = []
    for number, shard in enumerate(shards):
        staged.append(os.fspath(scratch / f"{number:05d}"))
        Path(staged[-1]).write_bytes(pickle.dumps(shard))

    def write_staged(path: str) -> None:
        write_shard(pickle.loads(Path(path).read_bytes()))

    with beam.Pipeline(runner=runner, options=options) as pipeline:
        _ = (
            pipeline
            | "Shards" >> beam.Create(staged)
            # Otherwise runners fuse the steps, and one worker writes all shards.
            | "Spread" >> beam.Reshuffle()
            | "Write" >> beam.Map(write_staged)
        )
    shutil.rmtree(scratch)
