# SPDX-License-Identifier: BSD-3-Clause
"""Rows of a label list to one ArrayRecord file: read, verify, shrink, write.

A shard is the unit of work, whether shards are written here one after the other or by Apache Beam
on many machines. It depends on nothing but its rows and their picture files, so the result is the
same for any number of threads and machines.
"""

import concurrent.futures
import dataclasses
import os
import pickle
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from mlimages_jax.data.decode import BadPicture, StoredPicture, stored_jpeg
from mlimages_jax.labels.lists import LabelRow

from .skipped import Skipped


class Shard(NamedTuple):
    """What is to be written.

    Attributes:
      split: The split's name.
      path: The ArrayRecord file.
      rows: Names and labels; the names are relative to the folder of pictures.
    """

    split: str
    path: Path
    rows: Sequence[LabelRow]


class WrittenShard(NamedTuple):
    """What was written.

    Attributes:
      split: The split's name.
      path: The ArrayRecord file.
      num_examples: Records in it.
      num_bytes: Their size.
      max_labels: The largest number of labels of a record.
      skipped: The rows that have no record.
    """

    split: str
    path: Path
    num_examples: int
    num_bytes: int
    max_labels: int
    skipped: list[Skipped]


@dataclasses.dataclass(frozen=True)
class ShardWriter:
    """Writes shards.

    Attributes:
      images: The folder of pictures.
      short_side: Shrink pictures to this shorter side; None: store them as they came.
      num_workers: Threads that read and verify pictures.
    """

    images: Path
    short_side: int | None
    num_workers: int

    def write(self, shard: Shard) -> WrittenShard:
        """Write one ArrayRecord file of single-record groups.

        The file appears under its name only when it is complete, so that a second attempt at the
        same shard, at the same time on another machine, does no harm.
        """
        skipped = []
        num_examples = num_bytes = max_labels = 0
        unfinished = shard.path.with_name(f"unfinished-{uuid.uuid4().hex}")
        writer = ArrayRecordWriter(os.fspath(unfinished), "group_size:1")
        for row, picture in self._pictures(shard.rows):
            if isinstance(picture, BadPicture):
                skipped.append(Skipped(shard.split, row.name, picture.reason, str(picture)))
                continue
            record = _record(row, picture)
            writer.write(record)
            num_examples += 1
            num_bytes += len(record)
            max_labels = max(max_labels, len(row.classes))
        writer.close()
        unfinished.replace(shard.path)
        return WrittenShard(shard.split, shard.path, num_examples, num_bytes, max_labels, skipped)

    def _pictures(
        self, rows: Sequence[LabelRow]
    ) -> Iterator[tuple[LabelRow, StoredPicture | BadPicture]]:
        """Verify in threads (the decoders release the lock), in the order of the rows."""
        with concurrent.futures.ThreadPoolExecutor(self.num_workers) as pool:
            yield from zip(rows, pool.map(self._picture, rows), strict=True)

    def _picture(self, row: LabelRow) -> StoredPicture | BadPicture:
        path = self.images / row.name
        try:
            return stored_jpeg(path.read_bytes(), short_side=self.short_side)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return BadPicture("missing", f"there is no file {path}")
        except BadPicture as bad:
            return bad


def write_with_beam(
    write: Callable[[Shard], WrittenShard],
    shards: Iterable[Shard],
    *,
    scratch: Path,
    runner: Any,
    options: Any,
) -> list[WrittenShard]:
    """Write every shard as one element of an Apache Beam pipeline.

    The rows (1.3 GB of labels for ML-Images) would not fit into the description of the pipeline, so
    each shard's rows travel in a file.

    Args:
      write: `ShardWriter.write`.
      shards: In any order.
      scratch: A new folder for these files. All machines must see it under this name, and the
        folders of pictures and of the data set too.
      runner: A Beam runner or its name; None: what `options` say.
      options: Beam's `PipelineOptions`, or None.
    """
    import apache_beam as beam  # the extra `beam`; nothing else needs it

    scratch.mkdir()
    staged = []
    for number, shard in enumerate(shards):
        staged.append(os.fspath(scratch / f"{number:05d}"))
        Path(staged[-1]).write_bytes(pickle.dumps(shard))

    def write_staged(path: str) -> WrittenShard:
        return write(pickle.loads(Path(path).read_bytes()))

    def save(written: list[WrittenShard], path: str) -> None:
        Path(path).write_bytes(pickle.dumps(written))

    results = scratch / "written"
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        _ = (
            pipeline
            | "Shards" >> beam.Create(staged)
            | "Spread" >> beam.Reshuffle()
            | "Write" >> beam.Map(write_staged)
            | "Gather" >> beam.combiners.ToList()
            | "Save" >> beam.Map(save, os.fspath(results))
        )
    written = pickle.loads(results.read_bytes())
    shutil.rmtree(scratch)
    return sorted(written, key=lambda shard: shard.path)


def _record(row: LabelRow, picture: StoredPicture) -> bytes:
    """A tf.train.Example as TFDS writes it, but with its features in a fixed order."""
    features = {
        "image": _bytes(picture.jpeg),
        "name": _bytes(row.name.encode()),
        "labels": _integers(row.classes.tolist()),
        "confidences": tf_feature_pb2.Feature(
            float_list=tf_feature_pb2.FloatList(value=row.confidences.tolist())
        ),
        "height": _integers([picture.height]),
        "width": _integers([picture.width]),
    }
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _bytes(value: bytes) -> tf_feature_pb2.Feature:
    return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))


def _integers(values: list[int]) -> tf_feature_pb2.Feature:
    return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=values))
