# SPDX-License-Identifier: BSD-3-Clause
"""What a built data set is, wherever it lies: told apart by what its builder wrote about it.

Of a split: its files, their records and their SHA-256 (checksums.txt; sets of earlier builders have
none, and are told apart by the numbers of records and bytes). Of the set: its classes and what the
labels mean. No file of records is read.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from mlimages_jax.data.dataset import DataSet

CLASSES = "classes"  # the key of what all splits share


def fingerprint(data: DataSet, splits: Iterable[str]) -> dict[str, str]:
    """Digests of the classes and of some splits, by name; the same in any folder.

    Raises:
        DataSetError: the set lacks a split.
    """
    shared = [data.num_classes, data.max_labels, data.unlisted, data.dictionary.read_text()]
    info = json.loads((data.folder / "dataset_info.json").read_text())
    sizes = {entry["name"]: str(entry.get("numBytes", "")) for entry in info["splits"]}
    checksums = _checksums(data)
    parts = {CLASSES: _digest(shared)}
    for split in splits:
        shards = [
            [shard.number, shard.num_records, checksums.get(shard.path.name, "")]
            for shard in data.shards_of(split)
        ]
        parts[split] = _digest([sizes.get(split, ""), shards])
    return parts


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The parts that both name and that are not the same."""
    return sorted(name for name in before.keys() & now.keys() if before[name] != now[name])


def _checksums(data: DataSet) -> dict[str, str]:
    """SHA-256 by file name, of lines as sha256sum writes them."""
    try:
        text = (data.folder / "checksums.txt").read_text()
    except FileNotFoundError:
        return {}
    pairs = (line.split(maxsplit=1) for line in text.splitlines())
    return {pair[1].lstrip("*"): pair[0] for pair in pairs if len(pair) == 2}


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
