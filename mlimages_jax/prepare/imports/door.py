# SPDX-License-Identifier: BSD-3-Clause
"""The command `import any`: recognises data, shows how it was understood, prints what is next."""

from collections.abc import Sequence
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.files.escaping import one_line
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.building import DATA_DIR, BuildOptions, train_commands
from mlimages_jax.prepare.imports.find_coco import find_coco
from mlimages_jax.prepare.imports.find_folders import find_class_folders, find_imagenet
from mlimages_jax.prepare.imports.find_image_tables import find_image_tables
from mlimages_jax.prepare.imports.find_img2dataset import find_fetched_files
from mlimages_jax.prepare.imports.find_others import (
    explain,
    find_finished,
    find_label_list,
    find_open_images,
    find_tfrecords,
)
from mlimages_jax.prepare.imports.find_tables import find_metadata, find_tables
from mlimages_jax.prepare.imports.find_webdataset import find_webdataset
from mlimages_jax.prepare.imports.found import Found, Wish
from mlimages_jax.prepare.imports.manual_dir import MissingLabels
from mlimages_jax.prepare.imports.shell import shell_word, shell_words
from mlimages_jax.prepare.imports.table_rows import TableOptions, table_suffix
from tfds_builders.images.command import name_of

# The order matters: formats with specific marks come before those with general ones.
_SHARDS = (find_fetched_files, find_image_tables, find_webdataset)
_KINDS = (
    *_SHARDS, find_finished, find_open_images, find_tfrecords, find_coco, find_label_list,
    find_metadata, find_imagenet, find_class_folders, find_tables,
)  # fmt: skip
_PREPARE = "mlimages data"
_MAX_SKIPPED = 0.01
_WHAT_FITS = """\
Formats that were tried, in this order:
  img2dataset's output            00000.parquet and its images in 00000/, 00000.tar or itself
  images in Parquet or Arrow      data/train-00000-of-00002.parquet, save_to_disk of `datasets`;
                                  name the columns with --image-column and --label-columns
  WebDataset                      tars of cat.jpg and cat.cls, cat.json or cat.txt
  lists that a builder reads      dictionary.txt and train_image_list.txt
  Open Images                     tables with ImageID, Source, LabelName, Confidence
  COCO                            .json with images, annotations, categories; images next to them
  ImageNet                        ILSVRC/Data/CLS-LOC/..., ILSVRC2012_img_train.tar, train_images_*
  one folder per class            <class>/*.jpg, or train/<class>/*.jpg and val/<class>/*.jpg
  tables                          .csv, .tsv, .jsonl, .json, .parquet with a path and labels, also
                                  metadata.csv; name the columns with --path-column NAME and
                                  --label-columns NAME, the folder of the images with --images DIR
"""


def import_any(
    source: Positional[Path],
    /,
    *,
    output: Path | None = None,
    data_dir: str = DATA_DIR,
    dry_run: bool = False,
    lists_only: bool = False,
    images: Path | None = None,
    path_column: str | None = None,
    image_column: str | None = None,
    label_columns: tuple[str, ...] = (),
    label_separator: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    val_fraction: float | None = None,
    dictionary: Path | None = None,
    missing_labels: MissingLabels = "absent",
    max_skipped: float = _MAX_SKIPPED,
    set_name: str | None = None,
    engine: OmitArgPrefixes[EngineOptions] = EngineOptions(),
) -> None:
    """Turn a folder or file of images with labels, whatever its format, into a data set.

    It reports what it recognised and why, shows the first rows as it understood them, writes lists
    if they are needed, builds the data set, and prints the commands to train on it. It knows COCO,
    tables (CSV, JSON, Parquet, Hugging Face's metadata), sets of Hugging Face's `datasets`,
    WebDataset, what img2dataset wrote, ImageNet as Kaggle and Hugging Face pack it, and one folder
    per class:

        mlimages data import any photos --dry-run
        mlimages data import photos

    The word `any` may be left out.

    Args:
        source: a folder, or a table or COCO file.
        output: folder for the lists; default: NAME_lists in the current folder.
        data_dir: folder for data sets, on a disk or in a bucket.
        dry_run: only report what would be done.
        lists_only: do not build; print the command that would.
        images: folder of the images; default: search for it.
        path_column: column of a table with the image paths; default: detect it.
        image_column: column with the images themselves, or their suffix in a tar ("jpg"); default:
            detect it.
        label_columns: columns with the labels; default: detect them. Columns of numbers from 0 to 1
            are one label each.
        label_separator: separator between the labels of a cell; default: detect it.
        delimiter: delimiter between columns; default: detect it.
        encoding: encoding of a table that is neither UTF-8 nor UTF-16, such as cp1252.
        val_fraction: fraction of the images to use for val; default: 0.1 if the data has no splits.
        dictionary: the class list (dictionary.txt) of a table.
        missing_labels: meaning of classes that an image does not list.
        max_skipped: fraction of the rows that may be set aside; up to five always may.
        set_name: name of the data set; default: that of the folder or file.
        engine: where the files of the data set are written; the result is the same.
    """
    if not source.exists():
        raise PrepareError(f"{source}: there is no such file or folder")
    if val_fraction is not None and not 0 <= val_fraction < 1:
        raise PrepareError(f"--val-fraction {val_fraction:g} is not at least 0 and below 1")
    if images is not None and not images.is_dir():
        raise PrepareError(f"--images {images}: there is no such folder")
    if label_separator == "":
        raise PrepareError("--label-separator is empty; leave it out to detect the separator")
    name = set_name or name_of(source if source.is_dir() else source.with_suffix(""))
    wish = Wish(
        table=TableOptions(path_column, label_columns, None, label_separator, delimiter, encoding),
        class_list=dictionary,
        missing_labels=missing_labels,
        images=images,
        val_fraction=val_fraction,
        name=name,
        max_skipped=max_skipped,
        image_column=image_column,
        build_options=BuildOptions(data_dir, engine.words()),
    )
    found, notes = recognise(source, wish)
    if found is None:
        raise PrepareError("\n".join([f"{source}: not recognised", *explain(source), *notes[:20],
                                      _WHAT_FITS.rstrip()]))  # fmt: skip
    _print(found, notes)
    output = output or Path(f"{name}_lists")
    if dry_run and (found.write or found.build):
        said = [*_options(wish, output), *wish.build_options.words]
        does = "writes lists and builds" if found.write else "builds"
        print(f"Nothing was written. This command {does} the data set; images are only read:")
        print(f"  {_PREPARE} import {shell_word(source)} {shell_words(said)}")
    else:
        _write_and_build(found, wish, output, lists_only=lists_only)


def _write_and_build(found: Found, wish: Wish, output: Path, *, lists_only: bool) -> None:
    """Does what is next for what was found, as far as that is possible."""
    build = found.write(output) if found.write else found.build
    if found.build:
        build = found.build.with_options(wish.build_options)
    if build and not lists_only:
        print(f"Building, as this command does:\n  {build.command()}", flush=True)
        folder = build.run()
        _print_commands("Train a tagger on it, and tag images:", train_commands(folder, wish.name))
    elif not found.write:  # which has printed what is next
        commands = [build.command()] if build else found.commands
        _print_commands("Nothing needs to be written. Next:", commands)


def _print_commands(title: str, commands: Sequence[str]) -> None:
    print("\n".join([title, *(f"  {command}" for command in commands)]))


def recognise(source: Path, wish: Wish) -> tuple[Found | None, list[str]]:
    """Detects the format of a folder or file.

    Args:
        source: The folder or file.
        wish: The user's options.

    Returns:
        What was found, or None, and notes on files that were examined but not used.

    Raises:
        PrepareError: The format was recognised, but the data cannot be read.
    """
    notes: list[str] = []
    # Options for tables mean that this is one. A .json file may still be COCO with --images.
    has_said = wish.table.path_column or wish.table.label_columns or wish.images
    kinds = (*_SHARDS, find_tables, *_KINDS) if has_said and not _is_json(source) else _KINDS
    for find in kinds:
        found = find(source, wish, notes)
        if found is not None:
            return found, notes
    return None, notes


def _options(wish: Wish, output: Path) -> list[str]:
    """Returns the options that repeat the user's choices."""
    table, data_dir = wish.table, wish.build_options.data_dir
    pairs = {
        "--output": str(output),
        "--data-dir": None if data_dir == DATA_DIR else data_dir,
        "--images": wish.images and str(wish.images),
        "--path-column": table.path_column,
        "--image-column": wish.image_column,
        "--label-separator": table.label_separator,
        "--delimiter": table.delimiter,
        "--encoding": table.encoding,
        "--val-fraction": None if wish.val_fraction is None else f"{wish.val_fraction:g}",
        "--dictionary": wish.class_list and str(wish.class_list),
        "--missing-labels": wish.missing_labels if wish.missing_labels != "absent" else None,
        "--max-skipped": f"{wish.max_skipped:g}" if wish.max_skipped != _MAX_SKIPPED else None,
        "--set-name": wish.name,
    }
    words = [word for option, value in pairs.items() if value for word in (option, value)]
    return words + (["--label-columns", *table.label_columns] if table.label_columns else [])


def _is_json(source: Path) -> bool:
    return table_suffix(source) == ".json"


def _print(found: Found, notes: list[str]) -> None:
    print(f"This is {found.kind}:" if found.kind[:2] == "a " else f"Recognised {found.kind}:")
    for title, lines in (
        ("", found.why), ("First rows:", found.rows), ("Counts:", found.counts),
        ("Not used:", notes[:10]),
    ):  # fmt: skip
        if lines:
            print("\n".join([*([title] if title else []), *(f"  {one_line(x)}" for x in lines)]))
    if found.aside is not None and found.aside.count:
        print(found.aside.summary())
