# SPDX-License-Identifier: BSD-3-Clause
"""Decides which image is in which row of which training batch, on any number of processes.

The training set is split into streams, each of which is shuffled and repeated on its own. A global
batch has as many groups of rows as there are streams; group g comes from stream g, in order. A
single stream of all images is the order `global`. One stream per group of `group_size` rows is the
order `streams`: a process needs only the streams of its own rows, so it reads fewer files and can
keep copies of them.

In both, a row depends only on (seed, batch size, number of streams, step) and on the files: not on
the number of processes or threads, nor on what was read before.
"""

import dataclasses

import grain

ENDLESS = 2**50  # rows; batching Grain's own endless repeat overflows
GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: multiples are far apart modulo 2^32 (Knuth, 6.4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessRows(grain.transforms.DatasetSelectionMap):
    """Maps the rows of a process, counted over all its batches, to images of the streams.

    Attributes:
        batch_size: Global batch size.
        num_streams: Number of streams, S.
        process_index: Index of this process; its rows follow those of lower processes.
        process_count: Number of processes.
        first_image: Number of images used before row 0, equally many from all streams.

    Raises:
        ValueError: If the batch size is not divisible by the processes or streams, or
            `first_image` not by the streams; the message has the numbers.
    """

    batch_size: int
    num_streams: int = 1
    process_index: int = 0
    process_count: int = 1
    first_image: int = 0

    def __post_init__(self) -> None:
        batch = f"batch_size={self.batch_size}"
        if self.batch_size % self.process_count:
            raise ValueError(f"{batch} is not divisible by {self.process_count} processes")
        if self.batch_size % self.num_streams:
            raise ValueError(f"{batch} is not divisible by {self.num_streams} streams")
        if self.first_image % self.num_streams:
            raise ValueError(
                f"first_image={self.first_image} is not divisible by {self.num_streams} streams"
            )

    @property
    def in_batch(self) -> range:
        """Rows of every global batch that belong to this process."""
        size = self.batch_size // self.process_count
        return range(self.process_index * size, (self.process_index + 1) * size)

    @property
    def streams(self) -> range:
        """Streams that these rows come from; two processes may share one."""
        group = self.batch_size // self.num_streams
        return range(self.in_batch.start // group, (self.in_batch.stop - 1) // group + 1)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> tuple[int, int]:
        """Returns the stream, as an index into `streams`, and the position in it.

        Positions continue from epoch to epoch.
        """
        step, row = divmod(index, len(self.in_batch))
        group, offset = divmod(self.in_batch[row], self.batch_size // self.num_streams)
        # Every batch takes equally many images from each stream, so all streams are equally far.
        used = self.first_image + step * self.batch_size
        return group - self.streams.start, used // self.num_streams + offset


def seed_of(stream: int, seed: int) -> int:
    """Returns the seed of a stream, in [0, 2^32); stream 0 has the seed of the training run."""
    return (seed + stream * GOLDEN) % 2**32
