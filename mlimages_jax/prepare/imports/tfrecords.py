# SPDX-License-Identifier: BSD-3-Clause
"""The command `import tfrecords`: the original's .tfrecords as images and a label list."""

import functools
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm
from tyro.conf import Positional

from mlimages_jax.data.images.decode import BadImage, verify
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.safe_paths import UnsafeNameError, inside
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.manual_dir import (
    CLASS_LIST,
    IMAGES,
    LIST_SUFFIX,
    check_split,
    write_manual_dir,
)
from mlimages_jax.prepare.imports.original_examples import (
    OTHER_CLASSES,
    Example,
    UnusableRecordError,
    parse_example,
)
from mlimages_jax.prepare.imports.tfrecord import TFRecord, TFRecordError, read_tfrecords
from mlimages_jax.prepare.problems import Problem, ProblemList
from mlimages_jax.prepare.threads import in_threads

RENAMED = "renamed"  # the only problem whose record is still imported


def convert(
    files: list[Path],
    folder: Path,
    problems: ProblemList,
    *,
    split: str,
    hierarchy: Hierarchy,
    threshold_keep: float = 0.0,
    workers: int | None = None,
) -> int:
    """Imports files in order; returns the number of rows of the list.

    Args:
        files: Uncompressed TFRecord files.
        folder: The `manual_dir` of a builder.
        problems: Receives every record that is left out or renamed.
        split: Split to write a list of.
        hierarchy: Hierarchy of the labels.
        threshold_keep: As for `parse_example`.
        workers: Number of threads that verify images; None: one per core. Does not change the
            result.

    Raises:
        PrepareError: A label has another hierarchy, or no record is usable. No list is written.
        OSError: A file cannot be read, or the disk is full. No list is written.
    """
    parse = functools.partial(
        _usable_example, num_classes=len(hierarchy), threshold_keep=threshold_keep
    )
    rows = 0
    with (
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
        _progress(files) as bar,
        write_manual_dir(folder, hierarchy, missing_labels="absent") as writer,
    ):
        for (path, record), future in in_threads(pool, parse, _records(files, bar)):
            try:
                example = future.result()
                name = add_image(folder / IMAGES, example.row.name, example.image)
            except UnusableRecordError as bad:
                # At the first record, this means the wrong dictionary rather than damage.
                if bad.reason == OTHER_CLASSES and not rows:
                    raise PrepareError(f"{path}: record {record.number}: {bad}") from bad
                problem = Problem(str(path), record.number, bad.name, bad.reason, str(bad))
                problems.add(problem)
                continue
            if name != example.row.name:
                message = f"another image has this name; this one was named {name}"
                problems.add(Problem(str(path), record.number, example.row.name, RENAMED, message))
            writer.write(split, [example.row._replace(name=name)])
            rows += 1
        if not rows:
            raise PrepareError(
                f"no record is usable ({problems.summary()}); {problems.path} lists them. "
                "Are these .tfrecords of the original code?"
            )
    return rows


def add_image(images: Path, name: str, data: bytes) -> str:
    """Stores an image in a folder, atomically, and returns its name.

    If a different image has this name, a hash of the content is appended to the name. So the same
    records in the same order give the same names, and images stored by an earlier run are not
    written again.

    Raises:
        UnusableRecordError: The name is that of a folder, or needs a folder where a file is.
        OSError: The disk is full or fails.
    """
    try:
        path = inside(images, name)
        if path.exists() and path.read_bytes() != data:
            path = path.with_stem(f"{path.stem}-{hashlib.sha256(data).hexdigest()[:16]}")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with complete_file(path) as unfinished:
                unfinished.write_bytes(data)
    except UnsafeNameError as error:
        raise UnusableRecordError("name", str(error), name) from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        message = f"the same name is used for a file and a folder: {error}"
        raise UnusableRecordError("name", message, name) from error
    return path.relative_to(images).as_posix()


def import_tfrecords(
    files: Positional[list[Path]],
    /,
    *,
    output: Path,
    split: str,
    dictionary: Path | None = None,
    threshold_keep: float = 0.0,
    workers: int | None = None,
    overwrite: bool = False,
) -> None:
    r"""Turn .tfrecords of the original into the files that the builder reads, without TensorFlow.

    The records contain `name`, `image` (a JPEG file) and `label`: as many float32 values as there
    are classes, or one class as an integer. OUTPUT gets

        images/<name>                the images, byte for byte, each decoded once as a check
        <split>_image_list.txt       names and sparse labels, without zeros; -1 is unknown
        <split>_import_problems.tsv  records left out, with reasons; and renamed images
        dictionary.txt               the classes

    and can then be built:

        mlimages data import tfrecords records/*.tfrecords \
            --output my_set --split train --dictionary dictionary_and_semantic_hierarchy.txt
        mlimages data build ml-images --manual-dir=my_set --data-dir=data

    Damaged records are skipped. After an interruption, run the same command again: stored images
    are kept, and the list is written once it is complete.

    Args:
        files: uncompressed .tfrecords, all of the split, in the order that the list will have.
        output: folder for images and lists; it may contain other splits.
        split: name of the split, such as train or val.
        dictionary: the class list of the labels; default: dictionary.txt in OUTPUT.
        threshold_keep: drop positive labels of dense vectors below this confidence.
        workers: number of threads that decode; default: one per core.
        overwrite: replace the list of this split.
    """
    if not files:
        raise PrepareError("no files given: name one or more .tfrecords")
    check_split(split)
    label_list = output / f"{split}{LIST_SUFFIX}"
    if label_list.exists() and not overwrite:
        raise PrepareError(
            f"{label_list} exists: pass all files of a split to one command, use another --split, "
            "or replace the list with --overwrite"
        )
    hierarchy = _hierarchy(dictionary, output)
    output.mkdir(parents=True, exist_ok=True)
    with ProblemList(output / f"{split}_import_problems.tsv") as problems:
        rows = convert(
            files,
            output,
            problems,
            split=split,
            hierarchy=hierarchy,
            threshold_keep=threshold_keep,
            workers=workers,
        )
    print(_summary(rows, label_list, problems))


def _summary(rows: int, label_list: Path, problems: ProblemList) -> str:
    lines = [f"{rows:,} records are in {label_list}"]
    renamed = problems.counts.pop(RENAMED, 0)
    if renamed:
        lines.append(f"{renamed:,} images were renamed: {problems.path}")
    if problems.counts:
        count = problems.counts.total()
        lines.append(f"{count:,} records were left out ({problems.summary()}): {problems.path}")
    return "\n".join(lines)


def _hierarchy(class_list: Path | None, output: Path) -> Hierarchy:
    if class_list is None:
        class_list = output / CLASS_LIST
        if not class_list.exists():
            raise PrepareError(
                f"{class_list} is missing: give --dictionary, the class list of the labels"
            )
    return Hierarchy.from_file(class_list)


def _progress(files: list[Path]) -> tqdm:
    total = sum(path.stat().st_size for path in files)
    return progress(total >> 20, what="tfrecords", unit=" MB")


def _records(files: list[Path], bar: tqdm) -> Iterator[tuple[Path, TFRecord | TFRecordError]]:
    passed = 0
    for path in files:
        for record in read_tfrecords(path):
            bar.update((passed + record.offset >> 20) - bar.n)
            yield path, record
        passed += path.stat().st_size
    bar.update((passed >> 20) - bar.n)


def _usable_example(
    source: tuple[Path, TFRecord | TFRecordError], *, num_classes: int, threshold_keep: float
) -> Example:
    """Parses a record and decodes its image; raises UnusableRecordError if either fails."""
    _, record = source
    if isinstance(record, TFRecordError):
        raise UnusableRecordError("damaged", f"byte {record.offset}: {record.message}")
    example = parse_example(record.data, num_classes=num_classes, threshold_keep=threshold_keep)
    try:
        verify(example.image)
    except BadImage as bad:
        raise UnusableRecordError(bad.reason, str(bad), example.row.name) from bad
    return example
