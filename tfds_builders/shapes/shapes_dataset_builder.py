# SPDX-License-Identifier: BSD-3-Clause
"""The TFDS builder of the drawn images: it draws the files, then ml_images builds from them."""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from mlimages_jax.files.scratch import TemporaryFolder
from tfds_builders.ml_images import ml_images_dataset_builder
from tfds_builders.shapes.files import NUM_TRAIN, NUM_VAL, SIZE, check, draw


@dataclasses.dataclass(eq=False, kw_only=True)
class Config(ml_images_dataset_builder.Config):
    """The numbers of `draw`; other numbers have their own folder.

    Attributes:
        num_train: Number of images of the split "train".
        num_val: Number of images of the split "val".
        size: Side of an image in pixels.
        seed: Another seed gives other images.
    """

    name: str = dataclasses.field(default="", init=False)
    labels: str = dataclasses.field(default="released", init=False)  # drawn closed over ancestors
    short_side: int | None = dataclasses.field(default=None, init=False)
    num_train: int = NUM_TRAIN
    num_val: int = NUM_VAL
    size: int = SIZE
    seed: int = 0

    def __post_init__(self) -> None:
        check(num_train=self.num_train, num_val=self.num_val, size=self.size, seed=self.seed)
        self.name = f"{self.num_train}_{self.num_val}_{self.size}px_seed{self.seed}"
        super().__post_init__()


class Builder(ml_images_dataset_builder.Builder):
    """Draws the files before it builds.

    Attributes:
        files_dir: Folder for the drawn files; None: in TFDS's folder of downloads.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[ml_images_dataset_builder.Config]] = [Config()]
    MANUAL_DOWNLOAD_INSTRUCTIONS = ""  # nothing to download
    HAS_INPUT = False  # the numbers in a set's name determine it

    def __init__(self, *, files_dir: Path | None = None, **kwargs: Any):
        self.files_dir = files_dir
        super().__init__(**kwargs)

    def _manual_dir(self, dl_manager: tfds.download.DownloadManager) -> Path:
        config = self.builder_config
        return draw(
            self.files_dir or Path(dl_manager.download_dir) / f"shapes_{config.name}",
            num_train=config.num_train,
            num_val=config.num_val,
            size=config.size,
            seed=config.seed,
        )


def build(
    data_dir: str | Path,
    *,
    num_train: int = NUM_TRAIN,
    num_val: int = NUM_VAL,
    size: int = SIZE,
    seed: int = 0,
    keep_files: str | Path | None = None,
) -> Path:
    """Draws the images and builds a TFDS data set from them, unless it already exists.

    Args:
        data_dir: Folder of data sets; this one goes to data_dir/shapes/4000_500_96px_seed0/1.0.0,
            or the corresponding name for other numbers.
        num_train: As for `Config`.
        num_val: As for `Config`.
        size: As for `Config`.
        seed: As for `Config`.
        keep_files: Folder for the drawn files; None: a temporary one, which is deleted.

    Returns:
        The folder of the finished data set; in a bucket an `epath.Path`.

    Raises:
        ValueError: A number is out of range.
    """
    config = Config(num_train=num_train, num_val=num_val, size=size, seed=seed)
    with _folder(keep_files) as files_dir:
        builder = Builder(
            config=Builder.builder_configs.get(config.name, config),
            data_dir=os.fspath(data_dir),
            files_dir=files_dir,
        )
        builder.download_and_prepare()
    return builder.place


@contextmanager
def _folder(keep_files: str | Path | None) -> Iterator[Path]:
    if keep_files is not None:
        yield Path(keep_files)
        return
    with TemporaryFolder(prefix="shapes-") as name:
        yield Path(name)
