# SPDX-License-Identifier: BSD-3-Clause
"""The TFDS builder of ML-Images, and of every set of pictures that comes with the same files.

It is no `GeneratorBasedBuilder`: what such a builder generates is sorted by TFDS, through
`tf.io.gfile` once a split exceeds 1 GB. Here row i of a list goes to shard i % num_shards, shard
after shard, so that no TensorFlow is needed at any size. Every shard is a thinned copy of the
list, also where that is sorted by class. Training shuffles anyway.
"""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import dataset_builder, file_adapters, splits

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList, LabelRow, read_label_list

from . import manual_files, shards, skipped

ROWS_PER_SHARD = 4_096  # at most: some 0.13 GB at a short side of 320, 0.5 GB as pictures come


@dataclasses.dataclass(eq=False, kw_only=True)
class Config(tfds.core.BuilderConfig):
    """What is stored; each choice has a folder of its own.

    Attributes:
      labels: `released`: as in the list; `closed`: with all ancestors of every class.
      short_side: Larger pictures are shrunk to this shorter side; None: stored as they came.
      name: Derived from the two if empty, e.g. `closed_320`, `released_original`.
    """

    name: str = ""
    labels: str = "released"
    short_side: int | None = (
        320  # the smallest crop of pretraining, 70% of the area, stays over 224
    )

    def __post_init__(self) -> None:
        if self.labels not in ("released", "closed"):
            raise ValueError(f"labels={self.labels!r} is neither 'released' nor 'closed'")
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(f"short_side={self.short_side} is not a number of pixels: 1 or more")
        self.name = self.name or f"{self.labels}_{self.short_side or 'original'}"


class Builder(dataset_builder.FileReaderBuilder):
    """Writes ArrayRecord files, `dictionary.txt`, `skipped.tsv` and TFDS's metadata.

    Attributes:
      max_skipped: Share of a split's rows that may have no usable picture.
      num_workers: Threads (of each Beam worker).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "The first."}
    # One, because `tfds build` without --config builds all of them.
    BUILDER_CONFIGS: ClassVar[list[Config]] = [Config()]
    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_files.LAYOUT

    def __init__(
        self,
        *,
        name: str | None = None,
        max_skipped: float = 0.01,
        num_workers: int | None = None,
        **kwargs: Any,
    ):
        if name is not None:
            if not name.isidentifier():
                raise ValueError(f"name={name!r}: use letters, digits and underscores only")
            self.name = name  # TFDS has it on the class
        self.max_skipped = max_skipped
        self.num_workers = num_workers or os.cpu_count() or 1
        super().__init__(**{"file_format": "array_record"} | kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "name": tfds.features.Text(doc="the picture's name in the list"),
                    "labels": tfds.features.Tensor(shape=(None,), dtype=np.int32),
                    "confidences": tfds.features.Tensor(
                        shape=(None,), dtype=np.float32, doc="-1 unknown, else 0 to 1"
                    ),
                    "height": tfds.features.Scalar(np.int32, doc="of the stored picture"),
                    "width": tfds.features.Scalar(np.int32, doc="of the stored picture"),
                }
            ),
            homepage="https://github.com/Tencent/tencent-ml-images",
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _manual_dir(self, dl_manager: tfds.download.DownloadManager) -> Path:
        """The folder described in `manual_files.LAYOUT`; a subclass may make it first."""
        return Path(dl_manager.manual_dir)

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> None:
        """TFDS calls this with `data_path` in a temporary folder, which it renames on success."""
        if self.info.file_format != file_adapters.FileFormat.ARRAY_RECORD:
            raise ValueError(f"file_format={self.info.file_format}: only array_record is written")
        folder = Path(self.data_path)
        files = manual_files.find_manual_files(self._manual_dir(dl_manager))
        hierarchy = Hierarchy.from_file(files.dictionary)
        lists = {
            split: read_label_list(path, num_classes=len(hierarchy))
            for split, path in files.lists.items()
        }
        num_rows = _num_rows(lists, limit=download_config.max_examples_per_split)
        plan = self._plan(lists, num_rows, hierarchy, num_shards=download_config.num_shards)
        writer = shards.ShardWriter(files.images, self.builder_config.short_side, self.num_workers)
        written = []
        for shard in _write(writer, plan, download_config, scratch=folder / "beam"):
            written.append(shard)
            self._check_skipped(written, num_rows)
        hierarchy.to_file(folder / "dictionary.txt")
        skipped.write_list(
            folder / "skipped.tsv", (bad for shard in written for bad in shard.skipped)
        )
        self._set_metadata(written, num_rows, num_classes=len(hierarchy))
        self._failed_list.unlink(missing_ok=True)  # of an earlier attempt

    def _plan(
        self,
        lists: Mapping[str, LabelList],
        num_rows: Mapping[str, int],
        hierarchy: Hierarchy,
        *,
        num_shards: int | None,
    ) -> Iterator[shards.Shard]:
        closes = self.builder_config.labels == "closed"
        for split, rows in lists.items():
            count = min(num_shards or _default_num_shards(num_rows[split]), num_rows[split])
            paths = self._get_filename_template(split).sharded_filepaths(count)
            for index, path in enumerate(paths):
                part = [rows[i] for i in range(index, num_rows[split], count)]
                if closes:
                    part = [
                        LabelRow(row.name, *hierarchy.close(row.classes, row.confidences))
                        for row in part
                    ]
                yield shards.Shard(split, Path(path), part)

    def _check_skipped(
        self, written: list[shards.WrittenShard], num_rows: Mapping[str, int]
    ) -> None:
        split = written[-1].split
        skipped.check_share(
            [bad for shard in written if shard.split == split for bad in shard.skipped],
            split=split,
            num_rows=num_rows[split],
            max_skipped=self.max_skipped,
            path=self._failed_list,
        )

    @property
    def _failed_list(self) -> Path:
        """Outside of the temporary folder, which TFDS removes when a build fails."""
        return Path(self.data_path).parent / f"{self.version}.skipped.tsv"

    def _set_metadata(
        self,
        written: list[shards.WrittenShard],
        num_rows: Mapping[str, int],
        *,
        num_classes: int,
    ) -> None:
        by_split = {split: [s for s in written if s.split == split] for split in num_rows}
        self.info.set_splits(
            splits.SplitDict(
                splits.SplitInfo(
                    name=split,
                    shard_lengths=[shard.num_examples for shard in parts],
                    num_bytes=sum(shard.num_bytes for shard in parts),
                    filename_template=self._get_filename_template(split),
                )
                for split, parts in by_split.items()
            )
        )
        self.info.metadata.update(
            num_classes=num_classes,
            max_labels=max(shard.max_labels for shard in written),
            labels=self.builder_config.labels,
            short_side=self.builder_config.short_side,
            skipped={
                split: sum(len(shard.skipped) for shard in parts)
                for split, parts in by_split.items()
            },
        )


def build(
    manual_dir: str | Path,
    data_dir: str | Path,
    *,
    name: str = "ml_images",
    labels: str = "released",
    short_side: int | None = 320,
    num_shards: int | None = None,
    max_skipped: float = 0.01,
    num_workers: int | None = None,
    beam_options: list[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Build a data set from the files described in `manual_files.LAYOUT`.

    Args:
      manual_dir: Holds these files.
      data_dir: Holds data sets; this one goes to data_dir/name/<labels>_<short_side>/1.0.0.
      name: Of the data set.
      labels: `released` or `closed`, see `Config`.
      short_side: In pixels or None, see `Config`.
      num_shards: Files of each split; None: a power of two with at most `ROWS_PER_SHARD` pictures.
      max_skipped: Share of a split's rows that may have no usable picture.
      num_workers: Threads; None: one a core. Without influence on the result.
      beam_options: Flags of an Apache Beam pipeline which does the work, e.g.
        ["--runner=DirectRunner"]; None: this process does it.
      overwrite: Build anew where a finished set exists; otherwise that one is returned.

    Returns:
      The folder that holds the finished data set.

    Raises:
      FileNotFoundError: A file is missing from `manual_dir`.
      ValueError: A bad option or row of a file, or too many unusable pictures.
    """
    manual_files.find_manual_files(Path(manual_dir))  # before anything is created
    config = Config(labels=labels, short_side=short_side)
    builder = Builder(
        name=name,
        max_skipped=max_skipped,
        num_workers=num_workers,
        config=Builder.builder_configs.get(config.name, config),
        data_dir=os.fspath(data_dir),
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=os.fspath(manual_dir),
            num_shards=num_shards,
            beam_options=None if beam_options is None else _pipeline_options(beam_options),
            try_download_gcs=False,
            download_mode=(
                tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
                if overwrite
                else tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
            ),
        )
    )
    return Path(builder.data_path)


def _num_rows(lists: Mapping[str, LabelList], *, limit: int | None) -> dict[str, int]:
    """Rows used of each split: TFDS's max_examples_per_split cuts them off."""
    for split, rows in lists.items():
        if not len(rows):
            raise ValueError(
                f"{split}{manual_files.LIST_SUFFIX} has no rows: add some or remove it"
            )
    return {
        split: len(rows) if limit is None else min(limit, len(rows))
        for split, rows in lists.items()
    }


def _default_num_shards(num_rows: int) -> int:
    """The smallest power of two with at most `ROWS_PER_SHARD` rows a shard."""
    return 1 << max(0, (num_rows - 1) // ROWS_PER_SHARD).bit_length()


def _write(
    writer: shards.ShardWriter,
    plan: Iterator[shards.Shard],
    download_config: tfds.download.DownloadConfig,
    *,
    scratch: Path,
) -> Iterator[shards.WrittenShard]:
    runner, options = download_config.beam_runner, download_config.beam_options
    if runner is not None or options is not None:
        yield from shards.write_with_beam(
            writer.write, plan, scratch=scratch, runner=runner, options=options
        )
        return
    for shard in plan:
        start = time.monotonic()
        written = writer.write(shard)
        rate = len(shard.rows) / (time.monotonic() - start)
        bad = len(written.skipped)
        logging.info("%s: %d skipped, %.0f pictures/s", shard.path.name, bad, rate)
        yield written


def _pipeline_options(flags: list[str]) -> Any:
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        message = (
            "Apache Beam is not installed: pip install 'mlimages-jax[beam]' in a venv of its own"
        )
        raise ImportError(message) from error
    return PipelineOptions(flags)
