# SPDX-License-Identifier: BSD-3-Clause
"""Opens the manifests of any number of jobs, of either kind, to look names up in them."""

import contextlib
import posixpath
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from tqdm import tqdm

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.remote import is_remote
from mlimages_jax.image_shards import repeated
from mlimages_jax.image_shards.index import ALL_NAMES, Index, NameSlice
from mlimages_jax.image_shards.layout import MANIFEST, SHARDS, manifest_names
from mlimages_jax.image_shards.manifest_file import ManifestFile
from mlimages_jax.image_shards.outcome import Image
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.manifest import Manifest

_SQLITE = "manifest*.sqlite"  # in a folder: those of `download --shard i/n` too
_DIRECTLY = 8  # SQLite files that are asked themselves; more of them are read into an index
_WHAT = (
    "give manifest.sqlite files, or folders that `mlimages data download` or `extract` wrote, on a "
    "disk or in a bucket"
)


class Outcomes(Protocol):
    """Rows of manifests by name."""

    def get(self, names: Sequence[str]) -> dict[str, Image]:
        """Returns the rows of some names; names without a row are left out."""
        ...


class _Found(NamedTuple):
    """SQLite files, and folders of image shards with the names of their manifests."""

    files: list[Path]
    shards: list[tuple[ObjectFolder, list[str]]]


@contextlib.contextmanager
def open_outcomes(
    places: Sequence[str | Path], *, names: NameSlice = ALL_NAMES
) -> Iterator[list[Outcomes]]:
    """Opens manifests until the block ends.

    Memory: 24 bytes a row of image shards, and of SQLite files if there are many; see `Index`.

    Args:
        places: SQLite files, Parquet manifests of image shards, and folders of either, also as
            URLs such as gs://bucket/ml_images.
        names: The names that will be asked for; rows of others need no memory.

    Raises:
        PrepareError: A place has no manifest.
        FileNotFoundError: A file is missing.
        ImageShardError: A manifest is damaged. `ManifestError` for SQLite files.
    """
    found = _find(places)
    with contextlib.ExitStack() as stack:
        opened: list[Outcomes] = []
        few = len(found.files) <= _DIRECTLY
        if few:
            opened += [stack.enter_context(Manifest(path, readonly=True)) for path in found.files]
        if found.shards or not few:
            rows = _rows(found._replace(files=[] if few else found.files), names)
            opened.append(stack.enter_context(Index(rows)))
        yield opened


def _find(places: Sequence[str | Path]) -> _Found:
    files: list[Path] = []
    shards: dict[str, list[str]] = {}  # folder -> manifests
    for place in map(str, places):
        if place.endswith(MANIFEST):
            folder, name = _folder_of(place)
            shards.setdefault(folder, []).append(name)
        elif is_remote(place) or Path(place).is_dir():
            here = [] if is_remote(place) else sorted(Path(place).glob(_SQLITE))
            names = manifest_names(ObjectFolder(place))
            if not here and not names:
                raise PrepareError(f"{place}: no manifest in this folder; {_WHAT}")
            files += here
            shards.setdefault(place, []).extend(names)
        else:
            files.append(Path(place))
    return _Found(files, [(ObjectFolder(folder), names) for folder, names in shards.items()])


def _folder_of(manifest: str) -> tuple[str, str]:
    """Returns the folder of image shards that a manifest belongs to, and its name there."""
    parent, name = posixpath.split(manifest)
    folder, last = posixpath.split(parent)
    if last != SHARDS:
        raise PrepareError(f"{manifest}: a Parquet file, but not in a folder {SHARDS}/; {_WHAT}")
    return folder or ".", f"{SHARDS}/{name}"


def _rows(found: _Found, names: NameSlice) -> Iterator[Image]:
    for path in found.files:
        with Manifest(path, readonly=True) as manifest:
            yield from (image for image in manifest if names.mask([image.name])[0])
    for folder, manifests in found.shards:
        contents = repeated.read(folder)
        if manifests and not contents.judged and names.number == 0:  # said once
            note = "no run here came to its end: placeholders under many names count as images"
            tqdm.write(f"{folder}: {note}", file=sys.stderr)
        for name in manifests:
            for row in ManifestFile(folder, name).rows(names):
                yield contents.effective(row.image)
