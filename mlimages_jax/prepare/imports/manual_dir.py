# SPDX-License-Identifier: BSD-3-Clause
"""The folder that `tfds_builders.ml_images` builds from: classes, lists, what is not listed.

    dictionary.txt            the classes, see `labels.hierarchy`
    <split>_image_list.txt    the images of a split and their labels, see `labels.lists`
    unlisted.txt              one word: what a class is that an image does not list
    images/                   the images, which somebody else puts there

The list names classes by their place in the dictionary. So the files of one folder belong together,
and a list never stands beside a dictionary that is not its own, wherever a job is killed.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from mlimages_jax.files.counting import counted
from mlimages_jax.files.escaping import one_line
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelListWriter, LabelRow
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports import full_disk
from mlimages_jax.prepare.imports.shell import shell_word

Unlisted = Literal["absent", "unknown"]

DICTIONARY = "dictionary.txt"
UNLISTED = "unlisted.txt"
IMAGES = "images"
LIST_SUFFIX = "_image_list.txt"
_SPLIT = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")


class ManualDirWriter:
    """Writes lists, each under a temporary name; made by `write_manual_dir`.

    Attributes:
        images: of each split, so far.
    """

    def __init__(self, folder: Path, files: contextlib.ExitStack):
        self._folder = folder
        self._files = files
        self._lists: dict[str, LabelListWriter] = {}
        self.images: Counter[str] = Counter()

    def write(self, split: str, rows: Iterable[LabelRow]) -> None:
        """Appends rows, which `list_rows.check_row` would accept, to the list of a split.

        Raises:
            PrepareError: the split has an impossible name.
        """
        if split not in self._lists:
            check_split(split)
            path = self._folder / f"{split}{LIST_SUFFIX}"
            self._lists[split] = self._files.enter_context(LabelListWriter(path))
            self.images[split] = 0
        self._lists[split].write(self._counted(split, rows))

    def flush(self) -> None:
        """All rows are on the disk afterwards, still under the temporary names."""
        for one in self._lists.values():
            one.flush()

    def _counted(self, split: str, rows: Iterable[LabelRow]) -> Iterator[LabelRow]:
        for row in rows:
            self.images[split] += 1
            yield row


@contextlib.contextmanager
def write_manual_dir(
    folder: Path, hierarchy: Hierarchy, *, unlisted: Unlisted, images: Path | None = None
) -> Iterator[ManualDirWriter]:
    """Gives a writer for the lists; afterwards all files take their names, or none does.

    Args:
        folder: is made if it is not there. Lists of the splits that are written are replaced.
        hierarchy: the classes of the lists.
        unlisted: what a class is that an image does not list.
        images: the folder that holds the images, if it is known.

    Raises:
        PrepareError: no images came, or the folder holds lists of other splits with another
            dictionary, other images, or another word about unlisted classes, or its disk is full.
        OSError: the folder cannot be written to.
    """
    with full_disk.names_folder(folder), contextlib.ExitStack() as files:
        folder.mkdir(parents=True, exist_ok=True)
        writer = ManualDirWriter(folder, files)
        yield writer
        if not writer.images.total():
            raise PrepareError(f"{folder}: no images came, so there is nothing to write")
        dictionary, word = (folder / f"{name}.unfinished" for name in (DICTIONARY, UNLISTED))
        files.callback(dictionary.unlink, missing_ok=True)
        files.callback(word.unlink, missing_ok=True)
        hierarchy.to_file(dictionary)
        word.write_text(f"{unlisted}\n")
        _refuse_a_mixture(folder, set(writer.images), dictionary, word)
        _refuse_other_images(folder, set(writer.images), images)
        writer.flush()  # a disk that is full says so while the old lists are still there
        if _differs(dictionary, folder / DICTIONARY) or _differs(word, folder / UNLISTED):
            for split in writer.images:
                (folder / f"{split}{LIST_SUFFIX}").unlink(missing_ok=True)  # of another dictionary
        dictionary.replace(folder / DICTIONARY)
        word.replace(folder / UNLISTED)


def check_split(split: str) -> None:
    """Checks the name of a split.

    Raises:
        PrepareError: it cannot be one.
    """
    if split == "all" or not _SPLIT.fullmatch(split):
        raise PrepareError(
            f"{split!r} cannot be the name of a split: begin with a letter and use letters, digits "
            "and underscores only, and not the word 'all'"
        )


def link_images(folder: Path, images: Path | None) -> bool:
    """Makes images/ of an import a link to the folder that holds them.

    A link of an earlier import is replaced, since the lists are new too; a folder stays.

    Args:
        folder: that was written.
        images: the folder; None: nobody knows.

    Returns:
        Whether images/ leads to that folder now.
    """
    link = folder / IMAGES
    if images is None:
        return False
    if link.is_dir() and link.resolve() == images.resolve():
        return True
    if link.is_symlink() or not link.exists():
        new = folder / f"{IMAGES}.unfinished"
        with contextlib.suppress(OSError):  # file systems without links; then a person is told
            new.unlink(missing_ok=True)
            new.symlink_to(images.absolute(), target_is_directory=True)
            new.replace(link)
            return True
    return False


def what_came_and_what_is_next(
    folder: Path,
    hierarchy: Hierarchy,
    writer: ManualDirWriter,
    *,
    unlisted: Unlisted,
    name: str = "mine",
    is_linked: bool = False,
    are_urls: bool = False,
) -> str:
    """The last lines that an import prints: counts, and commands that can be copied.

    Args:
        folder: that was written.
        hierarchy: its classes.
        writer: of its lists.
        unlisted: what a class is that an image does not list.
        name: of the data set to build.
        is_linked: images/ is there already.
        are_urls: the lists hold addresses: the images are to be downloaded first.
    """
    lines = [f"{split}: {counted(count, 'image')}" for split, count in writer.images.items()]
    lines.append(
        f"{counted(len(hierarchy), 'class')}, {len(hierarchy.roots):,} of them at the top, at most "
        f"{counted(int(hierarchy.depth.max()), 'edge')} deep; a class that an image does not list "
        f"is {unlisted}"
    )
    if are_urls:
        return "\n".join([*lines, *_download_first(folder, list(writer.images), name)])
    if is_linked:
        lines.append(f"{one_line(str(folder / IMAGES))} leads to the images. Build:")
    elif (folder / IMAGES).exists():
        lines.append(
            f"{one_line(str(folder / IMAGES))} already exists and was left alone. See that it "
            "holds the images of these lists, and build:"
        )
    else:
        lines.append(f"Put the images, or a link to their folder, to {folder / IMAGES} and build:")
    return "\n".join([*lines, f"  {build_command(folder, name)}"])


def build_command(folder: Path, name: str) -> str:
    """The command that builds a set from a folder, for a shell."""
    return (
        f"mlimages data build ml-images --manual-dir={shell_word(folder)} "
        f"--data-dir=data --name={shell_word(name)}"
    )


def _download_first(folder: Path, splits: list[str], name: str) -> list[str]:
    """What to do with lists of addresses: fetch, list what came, build."""
    target = folder.with_name(f"{folder.name}_images")
    quoted, there = shell_word(folder), shell_word(target)
    prepare = "mlimages data"
    lists = " ".join(f"{quoted}/{split}{LIST_SUFFIX}" for split in splits)
    return [
        "The paths are addresses. Download the images, list those that came, and build:",
        f"  {prepare} download {lists} --output {there} --short-side 320",
        f"  cp {quoted}/{DICTIONARY} {quoted}/{UNLISTED} {there}/",
        *(
            f"  {prepare} labels {quoted}/{split}{LIST_SUFFIX} --manifests {there}/manifest.sqlite "
            f"--dictionary {there}/{DICTIONARY} --output {there}/{split}{LIST_SUFFIX}"
            for split in splits
        ),
        f"  {build_command(target, name)}",
    ]


def _differs(new: Path, old: Path) -> bool:
    return not old.exists() or new.read_bytes() != old.read_bytes()


def _refuse_a_mixture(folder: Path, splits: set[str], dictionary: Path, word: Path) -> None:
    """Lists that stay need the dictionary and the word that they came with."""
    kept = _kept(folder, splits)
    if not kept:
        return
    for new, name, default in ((dictionary, DICTIONARY, b""), (word, UNLISTED, b"absent")):
        old = folder / name
        before = old.read_bytes() if old.exists() else default
        if before.split() != new.read_bytes().split():
            raise PrepareError(
                f"{old}: differs from what this import writes, and belongs to the lists of "
                f"{', '.join(sorted(kept))} in the same folder: import all splits in one command, "
                "or choose another --output"
            )


def _refuse_other_images(folder: Path, splits: set[str], images: Path | None) -> None:
    """Lists that stay need the images that they came with."""
    link = folder / IMAGES
    if images is None or not (link.is_symlink() or link.exists()):
        return
    kept = _kept(folder, splits)
    if kept and link.resolve() != images.resolve():
        raise PrepareError(
            f"{link}: leads to {link.resolve()}, where the images of {', '.join(sorted(kept))} "
            f"are, and those of this import are in {images}: import all splits in one command, or "
            "choose another --output"
        )


def _kept(folder: Path, splits: set[str]) -> set[str]:
    """Splits whose lists an import of others leaves."""
    return {path.name.removesuffix(LIST_SUFFIX) for path in folder.glob(f"*{LIST_SUFFIX}")} - splits
