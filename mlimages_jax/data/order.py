# SPDX-License-Identifier: BSD-3-Clause
"""Which image is in which row of which training batch, on any number of processes.

The training set is a number of streams, each shuffled in itself and repeated without end. A global
batch has as many groups of rows as there are streams, and group g comes from stream g, in order.
One stream of all images is the order `global`. A stream for every group of `group_size` rows is
the order `streams`: a process needs the streams of its own rows only, so that it can read fewer
files, or keep them.

In both, a row is a function of (seed, batch size, number of streams, step) and of the files: not of
the number of processes or threads, nor of what was read before.
"""

import dataclasses

import grain

ENDLESS = 2**50  # rows; grain's own endless repeat overflows when it is batched
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: multiples are far apart modulo 2^32 (Knuth, 6.4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows(grain.transforms.DatasetSelectionMap):
    """Where the rows of a process come from, counted over all its batches.

    Attributes:
        batch_size: rows of a global batch.
        num_streams: S.
        process_index: of this process; its rows follow those of the processes before it.
        process_count: of the job.
        first_image: images that were taken before row 0, from all streams alike.

    Raises:
        ValueError: with the numbers, when streams or processes do not divide the batch, or streams
            the images taken before.
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
        """The rows of every global batch that are this process's."""
        size = self.batch_size // self.process_count
        return range(self.process_index * size, (self.process_index + 1) * size)

    @property
    def streams(self) -> range:
        """The streams that these rows come from; two processes may share one."""
        group = self.batch_size // self.num_streams
        return range(self.in_batch.start // group, (self.in_batch.stop - 1) // group + 1)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> tuple[int, int]:
        """Of row `index` of this process: the place in `streams`, and the position in the stream.

        A position counts on from epoch to epoch.
        """
        step, row = divmod(index, len(self.in_batch))
        group, place = divmod(self.in_batch[row], self.batch_size // self.num_streams)
        taken = self.first_image + step * self.batch_size
        return group - self.streams.start, taken // self.num_streams + place


def seed_of(stream: int, seed: int) -> int:
    """The seed of a stream, in [0, 2^32); stream 0 has the seed of the training."""
    return (seed + stream * _GOLDEN) % 2**32
