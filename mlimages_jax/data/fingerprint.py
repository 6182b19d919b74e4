# SPDX-License-Identifier: BSD-3-Clause
"""Identifies a built data set independently of its folder, by what its builder recorded.

For a split these are its files, their numbers of records and SHA-256 (from checksums.txt; sets of
older builders have none, and are identified by numbers of records and bytes). For the set they are
its classes and the meaning of its labels. No record file is read.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from mlimages_jax.data.dataset import DataSet

CLASSES = "classes"  # key of the digest that all splits share


def fingerprint(data: DataSet, splits: Iterable[str]) -> dict[str, str]:
    """Returns digests of the classes and of some splits, by name; the same in any folder.

    Raises:
        DataSetError: If the set does not have a split.
    """
    shared = [data.num_classes, data.max_labels, data.missing_labels, data.class_list.read_text()]
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
    """Returns the names of the parts that both have but that differ."""
    return sorted(name for name in before.keys() & now.keys() if before[name] != now[name])


def _checksums(data: DataSet) -> dict[str, str]:
    """Reads SHA-256 by file name from lines in sha256sum's format."""
    try:
        text = (data.folder / "checksums.txt").read_text()
    except FileNotFoundError:
        return {}
    pairs = (line.split(maxsplit=1) for line in text.splitlines())
    # sha256sum marks files read in binary mode with an asterisk before the name.
    return {pair[1].lstrip("*"): pair[0] for pair in pairs if len(pair) == 2}


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
