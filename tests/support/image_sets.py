# SPDX-License-Identifier: BSD-3-Clause
"""Sets of images in the files of other tools, small and real: Parquet, Arrow, tars, img2dataset."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import read_label_list
from tests.support import image_files, imagenet_archives

NAMES = ["tench, Tinca tinca", "dog", "cat > tabby"]  # of classes, with separators in them
CLASS_LABEL = {"names": NAMES, "_type": "ClassLabel"}
FEATURES = {"image": {"_type": "Image"}, "label": CLASS_LABEL}
IMAGE_TYPE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def images(count: int, *, first: int = 0) -> list[bytes]:
    """JPEG files, all different."""
    numbers = range(first, first + count)
    return [image_files.jpeg(image_files.noise(16 + i % 7, 17 + i)) for i in numbers]


def table(
    cells: Sequence[bytes | Mapping | None], *, features: object = FEATURES, **columns: Sequence
) -> pyarrow.Table:
    """A table as `datasets` makes it, its features in the metadata of the schema."""
    whole = [{"bytes": one, "path": None} if isinstance(one, bytes) else one for one in cells]
    made = pyarrow.table({"image": pyarrow.array(whole, IMAGE_TYPE), **columns})
    if features is None:
        return made
    return made.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def write_parquet(path: Path, content: pyarrow.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(content, path, row_group_size=3)
    return path


def write_arrow(path: Path, content: pyarrow.Table) -> Path:
    """The stream of `datasets`, in two batches or more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.ipc.new_stream(path, content.schema) as stream:
        stream.write_table(content, max_chunksize=max(1, len(content) // 2))
    return path


def write_saved(folder: Path, parts: Sequence[pyarrow.Table]) -> Path:
    """A set as `Dataset.save_to_disk` leaves it."""
    names = [f"data-{i:05}-of-{len(parts):05}.arrow" for i in range(len(parts))]
    for name, content in zip(names, parts, strict=True):
        write_arrow(folder / name, content)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


def write_tar(path: Path, samples: Mapping[str, bytes | str | int | Mapping | list]) -> Path:
    """A tar of WebDataset; what is neither bytes nor text becomes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    members = {
        name: one if isinstance(one, bytes)
        else (one if isinstance(one, str) else json.dumps(one)).encode()
        for name, one in samples.items()
    }  # fmt: skip
    path.write_bytes(imagenet_archives.tar(members))
    return path


def fetched(keys: Sequence[str], statuses: Sequence[str], labels: Sequence[list[str]]) -> dict:
    """The columns of a table of img2dataset."""
    return {
        "url": [f"http://127.0.0.1/{key}" for key in keys],
        "labels": list(labels),
        "key": list(keys),
        "status": list(statuses),
        "error_message": [None if one == "success" else "HTTP Error 404" for one in statuses],
    }


def rows_of(output: Path, split: str) -> dict[str, list[str]]:
    """Names and labels in a list that an import wrote."""
    ids = Hierarchy.from_file(output / "dictionary.txt").ids
    rows = read_label_list(output / f"{split}_image_list.txt", num_classes=len(ids))
    return {row.name: [ids[one] for one in row.classes] for row in rows}
