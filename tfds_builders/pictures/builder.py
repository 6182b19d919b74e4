# SPDX-License-Identifier: BSD-3-Clause
"""The TFDS builder of a set of pictures with labels, whatever files it comes in.

It is no `GeneratorBasedBuilder`: what such a builder generates is sorted by TFDS, through
`tf.io.gfile` once a split exceeds 1 GB. Here row i of a list goes to shard i % num_shards, shard
after shard, so that no TensorFlow is needed at any size. Every shard is a thinned copy of the
list, also where that is sorted by class. Training shuffles anyway.
"""

import abc
import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder, file_adapters, splits

from mlimages_jax.data import jpeg
from mlimages_jax.data.decode import Chroma
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList, LabelRow

from . import beam, checksums, pace, records, shards, skipped, unfinished
from .places import Places

ROWS_PER_SHARD = 4_096  # at most: some 0.13 GB at a short side of 320, 0.5 GB as pictures come


@dataclasses.dataclass(eq=False, kw_only=True)
class Config(tfds.core.BuilderConfig):
    """What is stored; each choice has a folder of its own.

    Attributes:
      labels: `released`: as in the list; `closed`: with all ancestors of every class.
      short_side: Larger pictures are shrunk to this shorter side; None: stored as they came.
      chroma: Of pictures that are encoded anew: `444`, or `420` to halve the colours' resolution,
        see `mlimages_jax.data.decode.stored_jpeg`.
      name: Derived from these if empty, e.g. `closed_320`, `released_original`,
        `released_320_chroma420`.
    """

    name: str = ""
    labels: str = "released"
    short_side: int | None = (
        320  # the smallest crop of pretraining, 70% of the area, stays over 224
    )

    chroma: Chroma = "444"

    def __post_init__(self) -> None:
        if self.chroma not in get_args(Chroma):
            raise ValueError(f"chroma={self.chroma!r} is neither '444' nor '420'")
        if self.labels not in ("released", "closed"):
            raise ValueError(f"labels={self.labels!r} is neither 'released' nor 'closed'")
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(f"short_side={self.short_side} is not a number of pixels: 1 or more")
        self.name = self.name or f"{self.labels}_{self.short_side or 'original'}"
        if self.chroma != "444" and not self.name.endswith(self.chroma):
            self.name += f"_chroma{self.chroma}"


class Content(NamedTuple):
    """What a set is made of.

    Attributes:
      hierarchy: The classes.
      lists: Names and labels of each split's pictures; none is empty.
      places: Where the pictures of each split lie.
      unlisted: The target of a class that a row does not list: 0 (it is absent) or -1 (unknown).
    """

    hierarchy: Hierarchy
    lists: Mapping[str, LabelList]
    places: Mapping[str, Places]
    unlisted: int = 0


class _Part(NamedTuple):
    """The rows of a list that go into one shard."""

    split: str
    path: Path
    rows: range


class PictureBuilder(dataset_builder.FileReaderBuilder):
    """Writes ArrayRecord files, `dictionary.txt`, `skipped.tsv` and TFDS's metadata.

    Attributes:
      max_skipped: Share of a split's rows that may have no usable picture.
      num_workers: Threads (of each Beam worker).
      verified: Pictures that are stored as they came need not be decoded as a check.
    """

    HOMEPAGE = ""

    def __init__(
        self,
        *,
        name: str | None = None,
        max_skipped: float = 0.01,
        num_workers: int | None = None,
        verified: bool = False,
        **kwargs: Any,
    ):
        if name is not None:
            if not name.isidentifier():
                raise ValueError(f"name={name!r}: use letters, digits and underscores only")
            self.name = name  # TFDS has it on the class
        self.max_skipped = max_skipped
        self.num_workers = num_workers or os.cpu_count() or 1
        self.verified = verified
        super().__init__(**{"file_format": "array_record"} | kwargs)

    @abc.abstractmethod
    def _content(self, dl_manager: tfds.download.DownloadManager) -> Content:
        """Finds and checks what the set is made of."""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=records.features(),
            homepage=self.HOMEPAGE,
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """As in TFDS; finished shards of an attempt that failed or was killed are used again."""
        folder = self._beside(".unfinished")
        super().download_and_prepare(**kwargs)
        unfinished.remove(folder)

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> None:
        """TFDS calls this with `data_path` in a temporary folder, which it renames on success."""
        if self.info.file_format != file_adapters.FileFormat.ARRAY_RECORD:
            raise ValueError(f"file_format={self.info.file_format}: only array_record is written")
        content = self._content(dl_manager)
        num_rows = _num_rows(content.lists, limit=download_config.max_examples_per_split)
        folder, waiting = Path(self.data_path), self._beside(".unfinished")
        with unfinished.locked(waiting):
            unfinished.remove_attempts(folder)
            parts = list(self._parts(num_rows, waiting, num_shards=download_config.num_shards))
            unfinished.begin(waiting, self._inputs(content, parts))
            written = self._write(content, parts, num_rows, download_config)
            unfinished.put_into(folder, [part.path for part in parts])
        content.hierarchy.to_file(folder / "dictionary.txt")
        skipped.write_list(
            folder / "skipped.tsv", (bad for shard in written for bad in shard.skipped)
        )
        checksums.write(folder / "checksums.txt", {shard.file: shard.sha256 for shard in written})
        self._set_metadata(written, content)
        self._beside(".skipped.tsv").unlink(missing_ok=True)  # of an earlier attempt

    def _parts(
        self, num_rows: Mapping[str, int], folder: Path, *, num_shards: int | None
    ) -> Iterator[_Part]:
        for split, rows in num_rows.items():
            count = min(num_shards or default_num_shards(rows), rows)
            paths = self._get_filename_template(split).sharded_filepaths(count)
            for index, path in enumerate(paths):
                yield _Part(split, folder / path.name, range(index, rows, count))

    def _inputs(self, content: Content, parts: Sequence[_Part]) -> dict[str, str]:
        """All that the bytes of the shards depend on."""
        rows = {part.split: part.rows for part in parts}
        return {
            "version": str(self.version),
            "labels": self.builder_config.labels,
            "short_side": str(self.builder_config.short_side),
            "verified": str(self.verified),
            "chroma": self.builder_config.chroma,
            "progressive files": "rewritten" if jpeg.is_compiled() else "kept",
            **{f"shards of {split}": f"{one.step}, {one.stop} rows" for split, one in rows.items()},
            **{
                f"pictures of {split}": places.fingerprint()
                for split, places in content.places.items()
            },
            **unfinished.fingerprint(content.hierarchy, content.lists),
        }

    def _write(
        self,
        content: Content,
        parts: Sequence[_Part],
        num_rows: Mapping[str, int],
        download_config: tfds.download.DownloadConfig,
    ) -> list[shards.WrittenShard]:
        """Writes what earlier attempts did not; returns all shards in the order of `parts`."""
        writer = shards.ShardWriter(
            self.builder_config.short_side, self.num_workers,
            check=not self.verified, chroma=self.builder_config.chroma,
        )  # fmt: skip
        finished = {part.path: self._finished(writer, content, part) for part in parts}
        left = [part for part in parts if finished[part.path] is None]
        runner, options = download_config.beam_runner, download_config.beam_options
        if left and (runner is not None or options is not None):
            beam.write(
                functools.partial(unfinished.write, writer),
                (self._shard(content, part) for part in left),
                scratch=parts[0].path.with_name("beam"), runner=runner, options=options,
            )  # fmt: skip
            finished |= {part.path: unfinished.load(part.path) for part in left}
        progress = pace.Pace(sum(len(part.rows) for part in left))
        bad: dict[str, list[skipped.Skipped]] = {split: [] for split in num_rows}
        written = []
        for part in parts:
            shard = finished[part.path]
            if shard is None:
                shard = unfinished.write(writer, self._shard(content, part))
                progress.log(part.path.name, len(part.rows), len(shard.skipped))
            written.append(shard)
            bad[part.split] += shard.skipped
            self._check_skipped(bad[part.split], part.split, num_rows[part.split])
        return written

    def _finished(
        self, writer: shards.ShardWriter, content: Content, part: _Part
    ) -> shards.WrittenShard | None:
        """The shard of an earlier attempt, unless a picture that it skipped is usable by now."""
        written = unfinished.load(part.path)
        if written is None or not written.skipped:
            return written
        names = {bad.name for bad in written.skipped}
        shard = self._shard(content, part)
        pairs = zip(shard.rows, shard.places, strict=True)
        changed = any(writer.usable(*pair) for pair in pairs if pair[0].name in names)
        return None if changed else written

    def _shard(self, content: Content, part: _Part) -> shards.Shard:
        rows = [content.lists[part.split][i] for i in part.rows]
        places = content.places[part.split]
        where = [places.place(i, row.name) for i, row in zip(part.rows, rows, strict=True)]
        if self.builder_config.labels == "closed":
            close = content.hierarchy.close
            rows = [LabelRow(row.name, *close(row.classes, row.confidences)) for row in rows]
        return shards.Shard(part.split, part.path, rows, where)

    def _check_skipped(self, bad: Sequence[skipped.Skipped], split: str, num_rows: int) -> None:
        skipped.check_share(
            bad,
            split=split,
            num_rows=num_rows,
            max_skipped=self.max_skipped,
            path=self._beside(".skipped.tsv"),
        )

    def _beside(self, suffix: str) -> Path:
        """Outside of the temporary folder, which TFDS removes when a build fails."""
        return Path(self.data_path).parent / f"{self.version}{suffix}"

    def _set_metadata(self, written: Sequence[shards.WrittenShard], content: Content) -> None:
        by_split = {split: [s for s in written if s.split == split] for split in content.lists}
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
            num_classes=len(content.hierarchy),
            max_labels=max(shard.max_labels for shard in written),
            labels=self.builder_config.labels,
            short_side=self.builder_config.short_side,
            chroma=self.builder_config.chroma,
            unlisted=content.unlisted,
            skipped={
                split: sum(len(shard.skipped) for shard in parts)
                for split, parts in by_split.items()
            },
        )


def prepare(
    builder: PictureBuilder,
    manual_dir: str | Path,
    *,
    num_shards: int | None,
    beam_options: list[str] | None,
    overwrite: bool,
) -> Path:
    """Build the data set if it is not there, as described at `ml_images.build`.

    Returns:
      The folder that holds the finished data set.

    Raises:
      OSError: The folder of data sets cannot be written to.
    """
    folder = Path(builder.data_path)
    if overwrite or not folder.exists():
        _check_writable(Path(builder.data_dir_root))
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=os.fspath(manual_dir),
            num_shards=num_shards,
            beam_options=None if beam_options is None else beam.pipeline_options(beam_options),
            try_download_gcs=False,
            download_mode=(
                tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
                if overwrite
                else tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
            ),
        )
    )
    return folder


def default_num_shards(num_rows: int) -> int:
    """The smallest power of two with at most `ROWS_PER_SHARD` rows a shard."""
    return 1 << max(0, (num_rows - 1) // ROWS_PER_SHARD).bit_length()


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"{error.strerror}: {folder} cannot be written to; give another data_dir"
        raise OSError(error.errno, message) from error


def _num_rows(lists: Mapping[str, LabelList], *, limit: int | None) -> dict[str, int]:
    """Rows used of each split: TFDS's max_examples_per_split cuts them off."""
    return {
        split: len(rows) if limit is None else min(limit, len(rows))
        for split, rows in lists.items()
    }
