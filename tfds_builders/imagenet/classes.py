# SPDX-License-Identifier: BSD-3-Clause
"""The classes: their order, their names, and the class of each validation image."""

import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.io

from mlimages_jax.files import text_files
from mlimages_jax.labels.hierarchy import Hierarchy

from . import manual_files

_KIT_META = "data/meta.mat"
_KIT_TRUTH = f"data/{manual_files.TRUTH}"
_MAPPINGS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
_WORDNET_ID = re.compile(r"n[0-9]{8}")


def flat_hierarchy(ids: Iterable[str], names: Mapping[str, str]) -> Hierarchy:
    """Returns classes without parents, sorted by id; a class without a name is named by its id."""
    ordered = tuple(sorted(set(ids)))
    return Hierarchy(
        ordered,
        tuple(names.get(one, one) for one in ordered),
        np.full(len(ordered), -1, np.int32),
    )


def read_names(manual_dir: Path) -> dict[str, str]:
    """Returns full names by class id, from the first file of `manual_files.LAYOUT` with names.

    Raises:
        ValueError: A line of that file is not a class and a name.
    """
    folders = manual_files.around(manual_dir)
    if class_list := manual_files.first_of(folders, ["dictionary.txt"]):
        hierarchy = Hierarchy.from_file(class_list)
        return dict(zip(hierarchy.ids, hierarchy.names, strict=True))
    if mapping := manual_files.first_of(folders, _MAPPINGS):
        return _read_mapping(mapping)
    kit = manual_files.first_of(folders, [manual_files.DEVKIT])
    return dict(_read_kit(kit).values()) if kit else {}


def read_truth_by_name(path: Path) -> dict[str, str] | None:
    """Returns class ids by image name without suffix; None if the file goes by number.

    Raises:
        ValueError: A line is not a name and a class.
    """
    if path.name == manual_files.DEVKIT:
        return None
    lines = text_files.read_text(path).splitlines()
    # The ground truth of the kit is one class a line, for images 1, 2, ...: no name to look up.
    parse = _parse_solution if path.name == manual_files.SOLUTION else _parse_named
    start = 1 if path.name == manual_files.SOLUTION else 0
    if parse is _parse_named and all(len(line.split()) < 2 for line in lines):
        return None
    truth = {}
    for number, line in enumerate(lines[start:], start=start + 1):
        if line.strip():
            name, one = parse(line)
            if not _WORDNET_ID.fullmatch(one):
                raise ValueError(
                    f"{path}:{number}: {line[:80]!r} is not a file and a WordNet id (n01440764)"
                )
            truth[PurePosixPath(name).stem] = one
    if not truth:
        raise ValueError(f"{path} is empty: download it again")
    return truth


def _parse_solution(line: str) -> tuple[str, str]:
    """Parses a line such as ILSVRC2012_val_00048981,n03995372 85 1 499 272."""
    name, _, boxes = line.partition(",")
    return name.strip(), (boxes.split() or [""])[0]


def _parse_named(line: str) -> tuple[str, str]:
    """Parses a line such as val_0.JPEG, n03444034 and a box, separated by tabs or spaces."""
    name, one, *_ = [*line.split("\t" if "\t" in line else None), ""]
    return name.strip(), one.strip()


def read_truth(path: Path) -> list[str]:
    """Returns the class ids of validation images 1, 2, ...

    Args:
        path: The text file, with WordNet ids or numbers, or the development kit.

    Raises:
        ValueError: A line is neither, or has a number, and the kit that defines it is missing.
    """
    if path.name == manual_files.DEVKIT:
        text = _read_member(path, _KIT_TRUTH).decode()
        kit = path
    else:
        text = text_files.read_text(path)
        kit = path.with_name(manual_files.DEVKIT)
    words = text.split()
    if not words:
        raise ValueError(f"{path} is empty: download it again")
    if not all(word.isdecimal() for word in words):
        return _checked_ids(path, text.splitlines())
    if not kit.is_file():
        raise ValueError(
            f"{path} numbers the classes as the development kit does, which is not the order of"
            f" their ids: put {kit.name} next to it, or write WordNet ids (n01440764)"
        )
    ids = {number: one for number, (one, _) in _read_kit(kit).items()}
    unknown = [word for word in words if int(word) not in ids]
    if unknown:
        raise ValueError(f"{path}: no class in {kit.name} has the number {unknown[0]}")
    return [ids[int(word)] for word in words]


def _checked_ids(path: Path, lines: list[str]) -> list[str]:
    for number, line in enumerate(lines, start=1):
        if not _WORDNET_ID.fullmatch(line.strip()):
            raise ValueError(f"{path}:{number}: {line[:80]!r} is not a WordNet id (n01440764)")
    return [line.strip() for line in lines]


def _read_mapping(path: Path) -> dict[str, str]:
    names = {}
    for number, line in enumerate(text_files.read_text(path).splitlines(), start=1):
        one, _, name = line.strip().partition("\t" if "\t" in line else " ")
        if line.strip() and not name.strip():
            raise ValueError(f"{path}:{number}: {line[:80]!r} is not a class id and a name")
        if one:
            names[one] = name.strip()
    return names


def _read_kit(path: Path) -> dict[int, tuple[str, str]]:
    """Returns id and name, by number, of the kit's classes with images: those without children.

    Raises:
        ValueError: It is not the development kit.
    """
    content = _read_member(path, _KIT_META)
    try:
        synsets = np.ravel(scipy.io.loadmat(io.BytesIO(content), squeeze_me=True)["synsets"])
        return {
            int(synset["ILSVRC2012_ID"]): (str(synset["WNID"]), str(synset["words"]))
            for synset in synsets
            if synset["num_children"] == 0  # 1,000 of 1,860; the others are their ancestors
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {_KIT_META} has no table of synsets ({error})") from error


def _read_member(path: Path, end: str) -> bytes:
    """Reads the file of the kit whose name ends with `end`."""
    try:
        with tarfile.open(path) as kit:
            for member in kit:
                file = kit.extractfile(member) if member.name.endswith(end) else None
                if file is not None:
                    return file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable tar file: download it again") from error
    raise ValueError(f"{path}: there is no {end} in it; it should be {manual_files.DEVKIT}")
