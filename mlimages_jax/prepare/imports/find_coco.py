# SPDX-License-Identifier: BSD-3-Clause
"""Recognises COCO instances: a single file, or the files of all splits in a folder."""

import collections
import gzip
import re
import zlib
from pathlib import Path
from typing import IO, cast

from mlimages_jax.files.counting import counted
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.building import Build
from mlimages_jax.prepare.imports.coco import locate_images, write_coco
from mlimages_jax.prepare.imports.coco_file import Instances
from mlimages_jax.prepare.imports.found import SHOWN_ROWS, Found, Wish, files_below, split_of
from mlimages_jax.prepare.imports.set_aside import SetAside
from mlimages_jax.prepare.imports.table_rows import table_suffix
from mlimages_jax.prepare.imports.text_lines import detect

_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_SNIFFED_BYTES = 1 << 16
# Prefixes of COCO files about the same images that have other annotations, or none.
_OTHERS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info", "densepose")
_SPLIT_OR_YEAR = re.compile(r"(train|val(id(ation)?)?|test|dev|[0-9]+)")


def find_coco(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for COCO files.

    Args:
        source: A file, or a folder to search.
        wish: The user's options.
        notes: Receives notes on files that were examined but not used.

    Raises:
        PrepareError: A file that looks like COCO cannot be read, or too much of it is unusable.
    """
    top = source if source.is_dir() else source.parent
    paths = _files(source, notes)
    if not paths:
        return None
    aside = SetAside(wish.max_skipped)
    instances = {split: Instances(path, aside) for split, path in paths.items()}
    aside.check()
    around = [wish.images] if wish.images else [top] if source.is_dir() else None
    located = locate_images(instances, around=around)
    namers = located.namers()
    rows = []
    for (split, part), name_of in zip(instances.items(), namers, strict=True):
        for image in list(part.images.values())[:SHOWN_ROWS]:
            try:
                name = name_of(image.file)
            except ValueError as error:
                name = f"({error})"
            rows.append(f"{split}: {name} -> {', '.join(sorted(image.shown)) or 'no category'}")
    counts = [f"{split}: {counted(len(part.images), 'image')} in {part.path}"
              for split, part in instances.items()]  # fmt: skip
    first = next(iter(instances.values()))
    counts.append(counted(len(first.categories), "category"))
    for split, root in zip(instances, located.roots, strict=True):
        where = "none of its images was found; give their folder with --images"
        if root is not None:
            folder = root.folder / root.prefix
            looked_for = counted(root.looked_for, "image")
            where = f"looked for {looked_for}, found {root.found:,} in {folder}"
        counts.append(f"{split}: {where}")

    def write(output: Path) -> Build | None:
        return write_coco(
            instances, located, aside=aside, output=output, closed=False, template=None,
            name=wish.name, build_options=wish.build_options,
        )  # fmt: skip

    why = [f"{path} has images, annotations and categories" for path in paths.values()]
    return Found("COCO instances", why, rows, counts, write=write, aside=aside)


def _files(source: Path, notes: list[str]) -> dict[str, Path]:
    """Returns the file of each split."""
    if source.is_file():
        is_one = table_suffix(source) == ".json" and _looks_like_coco(source)
        return {split_of(source, source.parent) or "train": source} if is_one else {}
    files = []
    for path in files_below(source, depth=2):
        try:
            if table_suffix(path) == ".json" and _looks_like_coco(path):
                files.append(path)
        except PrepareError as error:  # a stray file must not hide the others
            notes.append(str(error))
    families: dict[str, list[Path]] = {}
    for path in files:
        name = path.name.lower().removesuffix(".gz").removesuffix(".json")
        family = _SPLIT_OR_YEAR.sub("", name).strip("_-. ")
        families.setdefault(family, []).append(path)
    if not families:
        return {}
    chosen = min(families, key=_rank)
    result: dict[str, Path] = {}
    for path in families[chosen]:
        split = split_of(path, source) or "train"
        if result.setdefault(split, path) != path:
            notes.append(f"{path}: {result[split]} is used for {split}; import it by itself")
    notes += [f"{path}: not used, because {chosen or 'other'} files are; import it by itself"
              for family, others in families.items() if family != chosen
              for path in others]  # fmt: skip
    return dict(sorted(result.items(), key=lambda item: ("train", "val", "test").index(item[0])))


def _rank(family: str) -> tuple[bool, bool, str]:
    """Sorts instances first, and files without object categories last."""
    return family.startswith(_OTHERS), not family.startswith("instances"), family


def _looks_like_coco(path: Path) -> bool:
    """Checks for COCO's keys near the start and the end, which may be gigabytes apart."""
    try:
        packed, _ = detect(path)
        with cast(IO[bytes], gzip.GzipFile(path)) if packed else path.open("rb") as file:
            start = file.read(_SNIFFED_BYTES)
            if packed:  # has to be read to find its end
                blocks = iter(lambda: file.read(_SNIFFED_BYTES), b"")
                end = b"".join(collections.deque(blocks, maxlen=2))
            else:
                file.seek(max(0, path.stat().st_size - _SNIFFED_BYTES))
                end = file.read(_SNIFFED_BYTES)
    except (EOFError, zlib.error) as error:
        raise PrepareError(
            f"{path}: cannot be decompressed ({error}); download it again"
        ) from error
    except OSError as error:
        raise PrepareError(f"{path}: {error.strerror or error}") from error
    text = (start + end).replace(b"\0", b"")  # makes UTF-16 and UTF-32 readable too
    return text.lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t").startswith(b"{") and (
        sum(key in text for key in _KEYS) >= 2
    )
