# SPDX-License-Identifier: BSD-3-Clause
"""Recognises data that needs another command, and explains how to convert other data."""

from collections import Counter
from pathlib import Path

from mlimages_jax.data.image_folders import list_images
from mlimages_jax.files.counting import counted
from mlimages_jax.image_shards.layout import SHARDS
from mlimages_jax.labels.lists import ANY_CLASS, LabelListError, iter_label_list
from mlimages_jax.prepare.imports.building import Build, train_commands
from mlimages_jax.prepare.imports.delimited import find_format
from mlimages_jax.prepare.imports.found import SHOWN_ROWS, Found, Wish, files_below
from mlimages_jax.prepare.imports.image_roots import is_url
from mlimages_jax.prepare.imports.manual_dir import CLASS_LIST, IMAGES, LIST_SUFFIX
from mlimages_jax.prepare.imports.shell import shell_word
from mlimages_jax.prepare.imports.table_rows import DELIMITED, table_suffix
from mlimages_jax.prepare.imports.text_lines import refuse_binary

_PREPARE = "mlimages data"
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_CLASS_LISTS = (CLASS_LIST, "dictionary_and_semantic_hierarchy.txt")


def find_finished(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for the output of an earlier import or of a builder."""
    if not source.is_dir():
        return None
    if (source / "dataset_info.json").is_file():
        above = source.resolve().parents  # DATA_DIR/NAME/VARIANT/VERSION
        name = above[1].name if len(above) > 1 else ""
        return Found("a built data set", [f"{source / 'dataset_info.json'} exists"],
                     commands=train_commands(source, name or wish.name))  # fmt: skip
    lists = sorted(source.glob(f"*{LIST_SUFFIX}"))
    if lists and any((source / name).is_file() for name in _CLASS_LISTS):
        has_images = any((source / name).is_dir() for name in (IMAGES, SHARDS))
        missing = "" if has_images else "; put the images into images/"
        why = [f"it has {', '.join(path.name for path in lists)} and the classes{missing}"]
        build = Build("ml-images", source, wish.name)
        if missing:
            command = build.with_options(wish.build_options).command()
            return Found("lists that the builder reads", why, commands=[command])
        return Found("lists that the builder reads", why, build=build)
    return None


def find_label_list(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for a list in the release's format: names or URLs, and class:confidence."""
    if not source.is_file() or source.suffix.lower() not in (".txt", ".lst", ""):
        return None
    try:
        part = next(iter(iter_label_list(source, num_classes=ANY_CLASS)), None)
    except (LabelListError, OSError):
        return None
    if part is None or not len(part) or not part.max_labels:
        return None
    rows = [part[i] for i in range(min(SHOWN_ROWS, len(part)))]
    shown = [f"{row.name} -> classes {row.classes.tolist()}" for row in rows]
    quoted = shell_word(source)
    if is_url(rows[0].name):
        command = f"{_PREPARE} download {quoted} --output {wish.name} --short-side 320"
        kind = "a list of URLs and labels, in the format of the ML-Images release"
    else:
        command = f"{_PREPARE} stats {quoted} --dictionary DICTIONARY --output-dir statistics"
        kind = "a label list: store it as train_image_list.txt next to dictionary.txt and images/"
    return Found(kind, [f"{source}: a name and class:confidence on each line"], shown,
                 commands=[command])  # fmt: skip


def find_open_images(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for Open Images' tables of image-level labels."""
    paths = [source] if source.is_file() else list(files_below(source, depth=1))
    tables = [path for path in paths if _is_of_open_images(path)]
    if not tables:
        return None
    command = (
        f"{_PREPARE} import open-images --output {wish.name}_lists --descriptions "
        f"class-descriptions.csv --train {' '.join(shell_word(p) for p in tables)}"
    )
    why = [f"{path} has ImageID, Source, LabelName and Confidence" for path in tables]
    return Found("image-level labels of Open Images", why, commands=[command])


def find_tfrecords(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for TFRecord files of the original code."""
    paths = [source] if source.is_file() else list(files_below(source, depth=1))
    records = [path for path in paths if "tfrecord" in path.name.lower()]
    if not records:
        return None
    command = (
        f"{_PREPARE} import tfrecords {shell_word(source)} --output {wish.name}_lists "
        "--split train --dictionary dictionary_and_semantic_hierarchy.txt"
    )
    return Found("TensorFlow records", [f"{records[0]}"], commands=[command])


def explain(source: Path) -> list[str]:
    """Describes a folder or file that was not recognised, and how to convert it."""
    if source.is_file():
        if source.suffix.lower() in _ARCHIVES:
            return [f"{source} is an archive: unpack it, and give the folder"]
        with source.open("rb") as file:
            refuse_binary(source, file.read(64))
        return [f"{source} is not one of the tables, COCO files and lists below"]
    files = list(files_below(source, depth=2))
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in files)
    images, _ = list_images(source)
    some = ", ".join(f"{n:,} {kind}" for kind, n in suffixes.most_common(5)) or "none"
    lines = [f"it contains {counted(len(images), 'image')}; files of its upper folders: {some}"]
    if any(path.suffix.lower() in (".yaml", ".yml") for path in files) and suffixes[".txt"] > 1:
        lines.append("it looks like YOLO: export it as COCO from the tool that made it")
    if suffixes[".xml"] > 1:
        lines.append("it looks like Pascal VOC: convert its XML files to COCO, or to a table")
    if books := [path for path in files if path.suffix.lower() in (".xlsx", ".xls", ".ods")]:
        lines.append(f"{books[0].name} is a spreadsheet: save it as CSV in UTF-8")
    if any(path.suffix.lower() in (".zip", ".tar", ".gz") for path in files) and not images:
        lines.append(
            "it contains archives: unpack them first; of WebDataset's only undo the compression, "
            "with gunzip"
        )
    return lines


def _is_of_open_images(path: Path) -> bool:
    if table_suffix(path) not in DELIMITED:
        return False
    try:
        columns = set(find_format(path).columns)
    except (ValueError, OSError):
        return False
    return {"ImageID", "LabelName", "Confidence"} <= columns
