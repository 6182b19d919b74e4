# SPDX-License-Identifier: BSD-3-Clause
"""Writes the folder that `tfds_builders.ml_images` builds from: classes, lists, missing labels.

    dictionary.txt            the classes, see `labels.hierarchy`
    <split>_image_list.txt    the images of a split and their labels, see `labels.lists`
    unlisted.txt              one word: the meaning of classes that an image does not list
    images/                   the images, which are put there by someone else

Lists refer to classes by their position in the dictionary. So the files of one folder belong
together, and no kill at any moment leaves a list next to a dictionary that is not its own.
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
from mlimages_jax.prepare.imports.building import NO_OPTIONS, Build, BuildOptions
from mlimages_jax.prepare.imports.shell import shell_word

MissingLabels = Literal["absent", "unknown"]

CLASS_LIST = "dictionary.txt"
MISSING_LABELS = "unlisted.txt"
IMAGES = "images"
LIST_SUFFIX = "_image_list.txt"
_SPLIT = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")


class ManualDirWriter:
    """Writes lists under temporary names; created by `write_manual_dir`.

    Attributes:
        images: Number of images written so far, by split.
    """

    def __init__(self, folder: Path, files: contextlib.ExitStack):
        self._folder = folder
        self._files = files
        self._lists: dict[str, LabelListWriter] = {}
        self.images: Counter[str] = Counter()

    def write(self, split: str, rows: Iterable[LabelRow]) -> None:
        """Appends rows, which must pass `list_rows.check_row`, to the list of a split.

        Raises:
            PrepareError: The name of the split is invalid.
        """
        if split not in self._lists:
            check_split(split)
            path = self._folder / f"{split}{LIST_SUFFIX}"
            self._lists[split] = self._files.enter_context(LabelListWriter(path))
            self.images[split] = 0
        self._lists[split].write(self._counted(split, rows))

    def flush(self) -> None:
        """Writes all rows to disk, still under the temporary names."""
        for one in self._lists.values():
            one.flush()

    def _counted(self, split: str, rows: Iterable[LabelRow]) -> Iterator[LabelRow]:
        for row in rows:
            self.images[split] += 1
            yield row


@contextlib.contextmanager
def write_manual_dir(
    folder: Path, hierarchy: Hierarchy, *, missing_labels: MissingLabels, images: Path | None = None
) -> Iterator[ManualDirWriter]:
    """Yields a writer for the lists; at the end all files get their final names, or none does.

    Args:
        folder: Created if missing. Lists of the splits that are written are replaced.
        hierarchy: The classes of the lists.
        missing_labels: Meaning of classes that an image does not list.
        images: The folder of the images, if known.

    Raises:
        PrepareError: No images were written, the disk is full, or the folder contains lists of
            other splits with another dictionary, other images, or another meaning of missing
            labels.
        OSError: The folder cannot be written to.
    """
    with full_disk.names_folder(folder), contextlib.ExitStack() as files:
        folder.mkdir(parents=True, exist_ok=True)
        writer = ManualDirWriter(folder, files)
        yield writer
        if not writer.images.total():
            raise PrepareError(f"{folder}: no images were found, so there is nothing to write")
        class_list, word = (folder / f"{name}.unfinished" for name in (CLASS_LIST, MISSING_LABELS))
        # Callbacks run in reverse order: these first, then the lists get their names.
        files.callback(class_list.unlink, missing_ok=True)
        files.callback(word.unlink, missing_ok=True)
        hierarchy.to_file(class_list)
        word.write_text(f"{missing_labels}\n")
        _refuse_a_mixture(folder, set(writer.images), class_list, word)
        _refuse_other_images(folder, set(writer.images), images)
        writer.flush()  # a full disk must fail here, while the old lists are still in place
        if _differs(class_list, folder / CLASS_LIST) or _differs(word, folder / MISSING_LABELS):
            for split in writer.images:
                # Lists of the old dictionary go first: none may be read with the new one.
                (folder / f"{split}{LIST_SUFFIX}").unlink(missing_ok=True)
        class_list.replace(folder / CLASS_LIST)
        word.replace(folder / MISSING_LABELS)


def check_split(split: str) -> None:
    """Checks the name of a split.

    Raises:
        PrepareError: The name is invalid.
    """
    if split == "all" or not _SPLIT.fullmatch(split):
        raise PrepareError(
            f"{split!r} cannot be the name of a split: start with a letter, use only letters, "
            "digits and underscores, and do not use 'all'"
        )


def link_images(folder: Path, images: Path | None) -> bool:
    """Makes images/ of an import a link to the folder of the images.

    A link of an earlier import is replaced, since the lists are new too; a folder is kept.

    Args:
        folder: The folder that was written.
        images: The folder of the images; None if unknown.

    Returns:
        Whether images/ now leads to that folder.
    """
    link = folder / IMAGES
    if images is None:
        return False
    if link.is_dir() and link.resolve() == images.resolve():
        return True
    if link.is_symlink() or not link.exists():
        new = folder / f"{IMAGES}.unfinished"
        with contextlib.suppress(OSError):  # no links on this file system; the user is told instead
            new.unlink(missing_ok=True)
            new.symlink_to(images.absolute(), target_is_directory=True)
            new.replace(link)
            return True
    return False


def what_came_and_what_is_next(
    build: Build,
    hierarchy: Hierarchy,
    writer: ManualDirWriter,
    *,
    missing_labels: MissingLabels,
    is_linked: bool = False,
    are_urls: bool = False,
) -> str:
    """Returns the last lines an import prints: counts, and commands to copy.

    Args:
        build: The build of the folder that was written.
        hierarchy: Its classes.
        writer: The writer of its lists.
        missing_labels: Meaning of classes that an image does not list.
        is_linked: Whether images/ is already in place.
        are_urls: Whether the lists contain URLs, so the images must be downloaded first.
    """
    folder = build.manual_dir
    lines = [f"{split}: {counted(count, 'image')}" for split, count in writer.images.items()]
    lines.append(
        f"{counted(len(hierarchy), 'class')}, {len(hierarchy.roots):,} of them at the top, at most "
        f"{counted(int(hierarchy.depth.max()), 'edge')} deep; classes that an image does not list "
        f"are {missing_labels}"
    )
    if are_urls:
        return "\n".join([*lines, *_download_first(build, list(writer.images))])
    if is_linked:
        lines.append(f"{one_line(str(folder / IMAGES))} leads to the images. Build:")
    elif (folder / IMAGES).exists():
        lines.append(
            f"{one_line(str(folder / IMAGES))} already exists and was not changed. Check that it "
            "contains the images of these lists, and build:"
        )
    else:
        lines.append(f"Put the images, or a link to them, into {folder / IMAGES} and build:")
    return "\n".join([*lines, f"  {build.command()}"])


def build_of(
    folder: Path, name: str, hierarchy: Hierarchy, options: BuildOptions = NO_OPTIONS
) -> Build:
    """Returns the build of a folder that an import wrote; a hierarchy is used for its labels."""
    closed = ("--labels=closed",) if hierarchy.depth.max(initial=0) else ()
    return Build("ml-images", folder, name, closed).with_options(options)


def _download_first(build: Build, splits: list[str]) -> list[str]:
    """Returns the commands for lists of URLs: download, list the images downloaded, build."""
    folder = build.manual_dir
    target = folder.with_name(f"{folder.name}_images")
    quoted, there = shell_word(folder), shell_word(target)
    prepare = "mlimages data"
    lists = " ".join(f"{quoted}/{split}{LIST_SUFFIX}" for split in splits)
    return [
        "The paths are URLs. Download the images, list those downloaded, and build:",
        f"  {prepare} download {lists} --output {there} --short-side 320",
        f"  cp {quoted}/{CLASS_LIST} {quoted}/{MISSING_LABELS} {there}/",
        *(
            f"  {prepare} labels {quoted}/{split}{LIST_SUFFIX} --manifests {there}/manifest.sqlite "
            f"--dictionary {there}/{CLASS_LIST} --output {there}/{split}{LIST_SUFFIX}"
            for split in splits
        ),
        f"  {build._replace(manual_dir=target).command()}",
    ]


def _differs(new: Path, old: Path) -> bool:
    return not old.exists() or new.read_bytes() != old.read_bytes()


def _refuse_a_mixture(folder: Path, splits: set[str], class_list: Path, word: Path) -> None:
    """Fails if lists of other splits would stay next to a dictionary that is not theirs."""
    kept = _kept(folder, splits)
    if not kept:
        return
    for new, name, default in ((class_list, CLASS_LIST, b""), (word, MISSING_LABELS, b"absent")):
        old = folder / name
        before = old.read_bytes() if old.exists() else default
        if before.split() != new.read_bytes().split():
            raise PrepareError(
                f"{old}: differs from what this import would write, and belongs to the lists of "
                f"{', '.join(sorted(kept))} in the same folder: import all splits in one command, "
                "or choose another --output"
            )


def _refuse_other_images(folder: Path, splits: set[str], images: Path | None) -> None:
    """Fails if lists of other splits would stay next to images that are not theirs."""
    link = folder / IMAGES
    if images is None or not (link.is_symlink() or link.exists()):
        return
    kept = _kept(folder, splits)
    if kept and link.resolve() != images.resolve():
        raise PrepareError(
            f"{link}: leads to {link.resolve()}, to the images of {', '.join(sorted(kept))}; "
            f"those of this import are in {images}: import all splits in one command, or choose "
            "another --output"
        )


def _kept(folder: Path, splits: set[str]) -> set[str]:
    """Returns the other splits with a list in the folder."""
    return {path.name.removesuffix(LIST_SUFFIX) for path in folder.glob(f"*{LIST_SUFFIX}")} - splits
