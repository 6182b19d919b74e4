# SPDX-License-Identifier: BSD-3-Clause
"""The metadata of a finished set that TFDS writes: its splits, and what readers need to know."""

from collections.abc import Mapping, Sequence

import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming, splits

from . import fingerprint
from .config import Config
from .content import Content
from .shards import WrittenShard


def fill(
    info: tfds.core.DatasetInfo,
    written: Sequence[WrittenShard],
    *,
    content: Content,
    option: Config,
    templates: Mapping[str, naming.ShardedFileTemplate],
    made_of: fingerprint.Fingerprint,
) -> None:
    """Enters splits and metadata.

    Args:
        info: What TFDS writes into the folder of the set.
        written: All shards.
        content: The input of the set.
        option: How it is stored.
        templates: How the files of each split are named.
        made_of: What `fingerprint.of` returned.
    """
    by_split = {split: [s for s in written if s.split == split] for split in content.lists}
    info.set_splits(
        splits.SplitDict(
            splits.SplitInfo(
                name=split,
                shard_lengths=[shard.num_examples for shard in parts],
                num_bytes=sum(shard.num_bytes for shard in parts),
                filename_template=templates[split],
            )
            for split, parts in by_split.items()
        )
    )
    info.metadata.clear()  # may contain that of a replaced set
    info.metadata.update(
        num_classes=len(content.hierarchy),
        max_labels=max(shard.max_labels for shard in written),
        labels=option.labels,
        short_side=option.short_side,
        chroma=option.chroma,
        orientation=option.orientation,
        unlisted=content.missing_labels,
        skipped={
            split: sum(len(shard.skipped) for shard in parts) for split, parts in by_split.items()
        },
        **{fingerprint.KEY: dict(made_of)},
    )
