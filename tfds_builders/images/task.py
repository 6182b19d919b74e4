# SPDX-License-Identifier: BSD-3-Clause
"""The build to do: its input, how many rows and files of each split, and their fingerprint."""

from typing import NamedTuple

import tensorflow_datasets as tfds

from mlimages_jax.data.streams import ROWS_PER_FILE

from . import fingerprint
from .config import Config
from .content import Content


class Task(NamedTuple):
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


def make_task(content: Content, option: Config, config: tfds.download.DownloadConfig) -> Task:
    """Decides the numbers of rows and files.

    Args:
        content: The input.
        option: How it is stored.
        config: What TFDS was asked for: the number of files, and a limit of the rows.
    """
    num_rows = content.num_rows(limit=config.max_examples_per_split)
    num_shards = {
        split: min(config.num_shards or default_num_shards(rows), rows)
        for split, rows in num_rows.items()
    }
    made_of = fingerprint.of(content, option, num_rows, num_shards)
    return Task(content, num_rows, num_shards, made_of)


def default_num_shards(num_rows: int) -> int:
    """Returns the smallest power of two with at most `ROWS_PER_FILE` rows per shard."""
    return 1 << max(0, (num_rows - 1) // ROWS_PER_FILE).bit_length()
