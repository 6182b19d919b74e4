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
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from tensorflow_datasets.core import dataset_builder, file_adapters
from tensorflow_datasets.core.utils import py_utils

from mlimages_jax.data.images import jpeg
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.remote import is_remote
from mlimages_jax.files.scratch import TemporaryFolder

from . import (
    checksums,
    fingerprint,
    metadata,
    records,
    replacement,
    report,
    shards,
    skipped,
    unfinished,
)
from .bucket import BucketSet
from .content import Content
from .parts import Part, PartWriter, ShardStore
from .task import Task, make_task

_MANGLED = re.compile(r"(gs|s3|az|hf):/(?!/)")
_TO_REPLACE = (
    "A set in a bucket cannot be replaced at once: give another --name to build a second set, or "
    "delete this one first."
)


class ImageBuilder(dataset_builder.FileReaderBuilder):
    """Writes ArrayRecord files, `dictionary.txt`, `skipped.tsv` and TFDS's metadata.

    If `data_dir` is a URL of a bucket, TFDS sees a temporary folder, in which it writes the
    metadata: its own way to object storage renames folders, which costs a copy of every file.

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
        data_dir = kwargs.get("data_dir")
        if data_dir is not None and _MANGLED.match(os.fspath(data_dir)):
            raise ValueError(f"data_dir={data_dir}: pathlib removed a slash; give URLs as text")
        self._bucket: ObjectFolder | None = None
        if data_dir is not None and is_remote(data_dir):
            self._bucket = ObjectFolder(data_dir)
            self._scratch = TemporaryFolder(prefix="metadata_")  # until self is gone
            kwargs["data_dir"] = self._scratch.name
        super().__init__(**{"file_format": "array_record"} | kwargs)

    @property
    def place(self) -> Path:
        """The folder of the set; in a bucket an `epath.Path`, which has the same methods."""
        target = self.in_bucket
        return Path(self.data_path) if target is None else cast(Path, epath.Path(str(target)))

    @property
    def in_bucket(self) -> BucketSet | None:
        """The place of the set, if that is a bucket."""
        if self._bucket is None:
            return None
        name, config = str(self.name), str(self.builder_config.name)
        return BucketSet(ObjectFolder(self._bucket.path(f"{name}/{config}")), str(self.version))

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
            OtherBuildError: A bucket has shards of a build with other inputs.
            FileExistsError: Its folder contains something else.
            ValueError: Another file format than array_record is wanted, or Apache Beam; or a set in
                a bucket should be overwritten.
        """
        config = download_config or tfds.download.DownloadConfig()
        if config.beam_runner is not None or config.beam_options is not None:
            raise ValueError("these builders use no Apache Beam: engine=EngineOptions('ray') does")
        if self.info.file_format != file_adapters.FileFormat.ARRAY_RECORD:
            raise ValueError(f"file_format={self.info.file_format}: only array_record is written")
        if (target := self.in_bucket) is not None:
            self._build_in_bucket(target, config, download_dir=download_dir, **kwargs)
            return
        folder = Path(self.data_path)
        finished = self._is_finished(folder) and not config.download_mode.overwrite_dataset
        if not finished:
            self._task = self._plan(config, download_dir)
            self._build(folder, config, download_dir=download_dir, **kwargs)
            return
        if self.HAS_INPUT:
            _check(folder, self._plan(config, download_dir).made_of)
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
    ) -> Task:
        """Reads and checks the input before anything is written."""
        if self.builder_config.restart_markers and not jpeg.is_compiled():
            raise ValueError(
                "restart_markers: the compiled decoder, which writes them, was not built: install "
                "gcc and libjpeg-turbo's headers (libjpeg-dev), then this package again"
            )
        content = self._content(
            self._make_download_manager(download_dir=download_dir, download_config=config)
        )
        return make_task(content, self.builder_config, config)

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

    def _build_in_bucket(
        self, target: BucketSet, config: tfds.download.DownloadConfig, **kwargs: Any
    ) -> None:
        """Builds shard by shard, unless the set is finished, see `bucket`."""
        finished = target.is_finished()
        if finished and config.download_mode.overwrite_dataset:
            raise ValueError(f"{target} already exists. {_TO_REPLACE}")
        self._task = task = self._plan(config, kwargs["download_dir"])
        if finished:
            if self.HAS_INPUT:
                text = target.read("metadata.json")
                fingerprint.check(str(target), text, task.made_of, advice=_TO_REPLACE)
            logging.info("%s already exists with this content: nothing to do", target)
            target.tidy()  # left by a kill at the very end
            return
        logging.info(
            "%s", report.beginning(str(target), task.content, task.num_rows, self.builder_config)
        )
        super().download_and_prepare(download_config=config, **kwargs)
        files = {path.name: path for path in Path(self.data_path).iterdir()}
        target.finish(self._written, files, self._inputs)
        logging.info("%s", report.end(str(target), self.info))

    def _is_finished_by_now(self, folder: Path) -> bool:
        """Returns whether another process finished the set while this one read its input."""
        if not (folder / "dataset_info.json").exists():
            return False
        if self.HAS_INPUT:
            _check(folder, self._task.made_of)
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
        content, num_rows, _, made_of = self._task
        folder, target = Path(self.data_path), self.in_bucket
        written = self._written = (
            self._write_shards(target, Path()) if target else self._shards_on_disk(folder)
        )
        bad = [one for shard in written for one in shard.skipped]
        list_of_skipped = f"{self.version}.skipped.tsv"
        beside = target.parent if target else ObjectFolder(self._beside("").parent)
        skipped.check_skipped(
            bad, num_rows, max_skipped=self.max_skipped, folder=beside, file=list_of_skipped
        )
        if not target:
            paths = [self._beside(".unfinished") / shard.file for shard in written]
            unfinished.put_into(folder, dict(zip(paths, written, strict=True)))
        content.hierarchy.to_file(folder / "dictionary.txt")
        (folder / "skipped.tsv").write_text(skipped.as_table(bad), encoding="utf-8")
        checksums.write(folder / "checksums.txt", {shard.file: shard.sha256 for shard in written})
        metadata.fill(
            self.info, written, content=content, option=self.builder_config, made_of=made_of,
            templates={split: self._get_filename_template(split) for split in content.lists},
        )  # fmt: skip
        beside.remove(list_of_skipped)  # left by an earlier attempt

    def _shards_on_disk(self, folder: Path) -> list[shards.WrittenShard]:
        """Writes all shards that are not complete, next to TFDS's temporary folder."""
        waiting = self._beside(".unfinished")
        final = waiting.with_name(str(self.version))
        unfinished.remove_attempts(folder, names=(final.name, replacement.new(final).name))
        return self._write_shards(unfinished.OnDisk(waiting), waiting)

    def _write_shards(self, store: ShardStore, folder: Path) -> list[shards.WrittenShard]:
        content, num_rows, num_shards, made_of = self._task
        parts = list(self._parts(num_rows, num_shards, folder))
        images = unfinished.of_images(made_of)
        # In this order: a kill before `begin` must leave the earlier time for the next attempt.
        writer = self._part_writer(content, store)
        if (time := store.other_images_since(images)) is not None:
            writer.remove_changed(parts, time)
        rows = {part.split: part.rows for part in parts}
        inputs = fingerprint.of_shards(
            content, self.builder_config, made_of,
            version=str(self.version), verified=self.verified, rows=rows,
        )  # fmt: skip
        self._inputs = inputs | images
        store.begin(self._inputs)
        return writer.write(parts)

    def _parts(
        self, num_rows: Mapping[str, int], num_shards: Mapping[str, int], folder: Path
    ) -> Iterator[Part]:
        for split, rows in num_rows.items():
            count = num_shards[split]
            paths = self._get_filename_template(split).sharded_filepaths(count)
            for index, path in enumerate(paths):
                yield Part(split, folder / path.name, range(index, rows, count))

    def _part_writer(self, content: Content, store: ShardStore) -> PartWriter:
        option = self.builder_config
        # `check` decodes images that are stored as they are, the slowest part of such a build.
        writer = shards.ShardWriter(
            option.short_side, content.hierarchy if option.labels == "closed" else None,
            check=not self.verified, chroma=option.chroma, orientation=option.orientation,
            restart_markers=option.restart_markers,
        )  # fmt: skip
        return PartWriter(writer, content, store, self.engine, self.threads)

    def _beside(self, suffix: str) -> Path:
        """Returns a path outside of the temporary folder, which TFDS deletes if a build fails."""
        return Path(self.data_path).parent / f"{self.version}{suffix}"


def _check(folder: Path, made_of: fingerprint.Fingerprint) -> None:
    """Refuses a finished set on a disk that was built from something else."""
    text = (folder / "metadata.json").read_text(encoding="utf-8")
    fingerprint.check(folder, text, made_of)
