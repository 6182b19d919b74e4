# SPDX-License-Identifier: BSD-3-Clause
"""The TFDS builder of a set of images with labels, independent of the files it comes in.

It is not a `GeneratorBasedBuilder`: TFDS sorts what such a builder generates, through `tf.io.gfile`
once a split exceeds 1 GB. Here row i of a list goes to shard i % num_shards, and shards are written
one by one, so TensorFlow is not needed at any size. Every shard is a sample of the complete list,
even if the list is sorted by class; training shuffles anyway.
"""

import abc
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import dataset_builder, file_adapters, splits
from tensorflow_datasets.core.utils import py_utils

from mlimages_jax.data.images import jpeg
from mlimages_jax.engines.options import EngineOptions

from . import (
    checksums,
    fingerprint,
    records,
    replacement,
    report,
    shards,
    skipped,
    unfinished,
)
from .content import Content
from .parts import Part, PartWriter

ROWS_PER_SHARD = 4_096  # maximum: about 0.13 GB at a short side of 320, 0.5 GB at original size


class _Task(NamedTuple):
    """The build to do now.

    Attributes:
        content: The input.
        num_rows: Number of rows to use of each split.
        num_shards: Number of files of each split.
        made_of: The fingerprint of all of this.
    """

    content: Content
    num_rows: dict[str, int]
    num_shards: dict[str, int]
    made_of: dict[str, str]


class ImageBuilder(dataset_builder.FileReaderBuilder):
    """Writes ArrayRecord files, `dictionary.txt`, `skipped.tsv` and TFDS's metadata.

    Attributes:
        max_skipped: Fraction of a split's rows that may lack a usable image, see `skipped.allowed`.
        engine: What writes the shards: this process, several, or many machines.
        threads: Number of threads of each process; None: all cores, divided among the processes.
        verified: Whether images that keep their bytes need not be decoded as a check.
    """

    HOMEPAGE = ""
    # Whether the input of a finished set may differ although its name and options are the same.
    HAS_INPUT: ClassVar[bool] = True

    def __init__(
        self,
        *,
        name: str | None = None,
        max_skipped: float = skipped.MAX_SKIPPED,
        engine: EngineOptions = EngineOptions(),
        threads: int | None = None,
        verified: bool = False,
        **kwargs: Any,
    ):
        if name is not None:
            if not name.isidentifier():
                raise ValueError(f"name={name!r}: use letters, digits and underscores only")
            self.name = name  # TFDS sets it on the class; here every instance has its own
        if not 0 <= max_skipped <= 1:
            raise ValueError(f"max_skipped={max_skipped:g} is not between 0 and 1")
        if threads is not None and threads < 1:
            raise ValueError(f"threads={threads} is not a number of threads: 1 or more")
        self.max_skipped = max_skipped
        self.engine = engine
        self.threads = threads
        self.verified = verified
        super().__init__(**{"file_format": "array_record"} | kwargs)

    @abc.abstractmethod
    def _content(self, dl_manager: tfds.download.DownloadManager) -> Content:
        """Finds and checks the input of the set."""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=records.features(),
            homepage=self.HOMEPAGE,
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # readers then keep the order of the rows
        )

    def download_and_prepare(
        self,
        *,
        download_dir: str | os.PathLike[str] | None = None,
        download_config: tfds.download.DownloadConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Builds as TFDS does, but never loses a finished set or reuses one of other input.

        Finished shards of an attempt that failed or was killed are reused. Overwriting builds next
        to the finished set, which stays in place until the new one is complete.

        Raises:
            StaleSetError: The set is finished, but was built from other input or with other
                options.
            FileExistsError: Its folder contains something else.
            ValueError: Another file format than array_record is wanted, or Apache Beam.
        """
        config = download_config or tfds.download.DownloadConfig()
        if config.beam_runner is not None or config.beam_options is not None:
            raise ValueError("these builders use no Apache Beam: engine=EngineOptions('ray') does")
        if self.info.file_format != file_adapters.FileFormat.ARRAY_RECORD:
            raise ValueError(f"file_format={self.info.file_format}: only array_record is written")
        folder = Path(self.data_path)
        finished = self._is_finished(folder) and not config.download_mode.overwrite_dataset
        if not finished:
            self._task = self._plan(config, download_dir)
            self._build(folder, config, download_dir=download_dir, **kwargs)
            return
        if self.HAS_INPUT:
            fingerprint.check(folder, self._plan(config, download_dir).made_of)
        logging.info("%s already exists with this content: nothing to do", folder)
        if (waiting := self._beside(".unfinished")).exists():  # left by a kill at the very end
            with contextlib.suppress(BlockingIOError), unfinished.locked(waiting):
                unfinished.remove(waiting)

    def _is_finished(self, folder: Path) -> bool:
        """Returns whether the set exists, after completing a replacement that was killed."""
        if replacement.interrupted(folder):
            with unfinished.locked(self._beside(".unfinished")):
                replacement.recover(folder)
            self.info.read_from_directory(folder)
        if folder.exists() and not (folder / "dataset_info.json").exists():
            raise FileExistsError(
                f"{folder} exists, but is not a finished data set (dataset_info.json is missing):"
                " move it elsewhere, or give another --name"
            )
        return folder.exists()

    def _plan(
        self,
        config: tfds.download.DownloadConfig,
        download_dir: str | os.PathLike[str] | None,
    ) -> _Task:
        """Reads and checks the input before anything is written."""
        if self.builder_config.restart_markers and not jpeg.is_compiled():
            raise ValueError(
                "restart_markers: the compiled decoder, which writes them, was not built: install "
                "gcc and libjpeg-turbo's headers (libjpeg-dev), then this package again"
            )
        content = self._content(
            self._make_download_manager(download_dir=download_dir, download_config=config)
        )
        num_rows = content.num_rows(limit=config.max_examples_per_split)
        num_shards = {
            split: min(config.num_shards or default_num_shards(rows), rows)
            for split, rows in num_rows.items()
        }
        made_of = fingerprint.of(content, self.builder_config, num_rows, num_shards)
        return _Task(content, num_rows, num_shards, made_of)

    def _build(self, folder: Path, config: tfds.download.DownloadConfig, **kwargs: Any) -> None:
        """Builds under the set's own name, or next to a finished set, which it then replaces."""
        waiting = self._beside(".unfinished")
        with unfinished.locked(waiting):
            if not config.download_mode.overwrite_dataset and self._is_finished_by_now(folder):
                unfinished.remove(waiting)
                return
            task = self._task
            logging.info(
                "%s", report.beginning(folder, task.content, task.num_rows, self.builder_config)
            )
            target = replacement.new(folder) if folder.exists() else folder
            # TFDS would delete the finished set first if it knew of the overwriting.
            config = config.replace(download_mode=tfds.GenerateMode.REUSE_DATASET_IF_EXISTS)
            with py_utils.temporary_assignment(self, "_data_dir", os.fspath(target)):
                super().download_and_prepare(download_config=config, **kwargs)
            if target != folder:
                replacement.swap(folder)
                self.info.update_data_dir(self.data_dir)
            unfinished.remove(waiting)
        logging.info("%s", report.end(folder, self.info))

    def _is_finished_by_now(self, folder: Path) -> bool:
        """Returns whether another process finished the set while this one read its input."""
        if not (folder / "dataset_info.json").exists():
            return False
        if self.HAS_INPUT:
            fingerprint.check(folder, self._task.made_of)
        self.info.read_from_directory(folder)
        logging.info("%s is complete: another process has just built it", folder)
        return True

    def _log_download_bytes(self) -> None:
        """Suppresses TFDS's message that it downloads a set of unknown size."""

    def _log_download_done(self) -> None:
        """Suppresses TFDS's message, see `_log_download_bytes`."""

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> None:
        """Builds in `data_path`, for TFDS a temporary folder, which it renames on success."""
        content, num_rows, num_shards, made_of = self._task
        folder, waiting = Path(self.data_path), self._beside(".unfinished")
        final = waiting.with_name(str(self.version))
        unfinished.remove_attempts(folder, names=(final.name, replacement.new(final).name))
        parts = list(self._parts(num_rows, num_shards, waiting))
        images = {
            name: value for name, value in made_of.items() if name.startswith(unfinished.IMAGES)
        }
        # In this order: a kill before `begin` must leave the earlier time for the next attempt.
        writer = self._part_writer(content)
        if (time := unfinished.other_images_since(waiting, images)) is not None:
            writer.remove_changed(parts, time)
        unfinished.begin(waiting, self._inputs(content, parts, made_of) | images)
        written = writer.write(parts)
        bad = [one for shard in written for one in shard.skipped]
        skipped.check_skipped(
            bad, num_rows, max_skipped=self.max_skipped, path=self._beside(".skipped.tsv")
        )
        unfinished.put_into(
            folder, {part.path: shard for part, shard in zip(parts, written, strict=True)}
        )
        content.hierarchy.to_file(folder / "dictionary.txt")
        skipped.write_list(folder / "skipped.tsv", bad)
        checksums.write(folder / "checksums.txt", {shard.file: shard.sha256 for shard in written})
        self._set_metadata(written, content, made_of)
        self._beside(".skipped.tsv").unlink(missing_ok=True)  # left by an earlier attempt

    def _parts(
        self, num_rows: Mapping[str, int], num_shards: Mapping[str, int], folder: Path
    ) -> Iterator[Part]:
        for split, rows in num_rows.items():
            count = num_shards[split]
            paths = self._get_filename_template(split).sharded_filepaths(count)
            for index, path in enumerate(paths):
                yield Part(split, folder / path.name, range(index, rows, count))

    def _part_writer(self, content: Content) -> PartWriter:
        option = self.builder_config
        # `check` decodes images that are stored as they are, the slowest part of such a build.
        writer = shards.ShardWriter(
            option.short_side, content.hierarchy if option.labels == "closed" else None,
            check=not self.verified, chroma=option.chroma, orientation=option.orientation,
            restart_markers=option.restart_markers,
        )  # fmt: skip
        return PartWriter(writer, content, self.engine, self.threads)

    def _inputs(
        self, content: Content, parts: Sequence[Part], made_of: Mapping[str, str]
    ) -> dict[str, str]:
        """Returns everything that the bytes of the shards depend on."""
        rows = {part.split: part.rows for part in parts}
        return {
            "version": str(self.version),
            "labels": self.builder_config.labels,
            "short_side": str(self.builder_config.short_side),
            "verified": str(self.verified),
            "chroma": self.builder_config.chroma,
            "orientation": self.builder_config.orientation,
            "restart markers": str(self.builder_config.restart_markers),
            "progressive files": "rewritten" if jpeg.is_compiled() else "kept",
            **{f"shards of {split}": f"{one.step}, {one.stop} rows" for split, one in rows.items()},
            **{
                f"images of {split}": places.fingerprint()
                for split, places in content.places.items()
            },
            "classes": made_of["classes"],
            "software": unfinished.software(),
            **{f"rows of {split}": made_of[f"list of {split}"] for split in content.lists},
        }

    def _beside(self, suffix: str) -> Path:
        """Returns a path outside of the temporary folder, which TFDS deletes if a build fails."""
        return Path(self.data_path).parent / f"{self.version}{suffix}"

    def _set_metadata(
        self,
        written: Sequence[shards.WrittenShard],
        content: Content,
        made_of: Mapping[str, str],
    ) -> None:
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
        self.info.metadata.clear()  # may contain that of a replaced set
        self.info.metadata.update(
            num_classes=len(content.hierarchy),
            max_labels=max(shard.max_labels for shard in written),
            labels=self.builder_config.labels,
            short_side=self.builder_config.short_side,
            chroma=self.builder_config.chroma,
            orientation=self.builder_config.orientation,
            unlisted=content.missing_labels,
            skipped={
                split: sum(len(shard.skipped) for shard in parts)
                for split, parts in by_split.items()
            },
            **{fingerprint.KEY: dict(made_of)},
        )


def default_num_shards(num_rows: int) -> int:
    """Returns the smallest power of two with at most `ROWS_PER_SHARD` rows per shard."""
    return 1 << max(0, (num_rows - 1) // ROWS_PER_SHARD).bit_length()
