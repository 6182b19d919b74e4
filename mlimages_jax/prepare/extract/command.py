# SPDX-License-Identifier: BSD-3-Clause
"""The command that takes the images of lists out of ImageNet's archives."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm
from tyro.conf import Positional

from mlimages_jax.data.archives import Archive, ArchiveError
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.extract.extraction import Extraction
from mlimages_jax.prepare.extract.finished_tars import FinishedTars
from mlimages_jax.prepare.extract.wanted import MISSING, Everything, ListedNames, Wanted
from mlimages_jax.prepare.locking import alone
from mlimages_jax.prepare.manifest import Image, Manifest
from mlimages_jax.prepare.recorder import Recorder
from mlimages_jax.prepare.storing import writing

_ROWS = 1000  # written together


def extract(
    archives: Positional[tuple[Path, ...]],
    /,
    *,
    output: Path,
    lists: tuple[Path, ...] = (),
    everything: Annotated[bool, tyro.conf.arg(name="all")] = False,
    short_side: int | None = None,
    workers: int = min(8, os.cpu_count() or 1),
) -> None:
    r"""Takes the images that lists name out of ImageNet's archives.

    The archives stay as they are and are not unpacked: fall11_whole.tar or winter21_whole.tar.gz
    (a tar of one tar per synset), ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar.

        mlimages data extract fall11_whole.tar \
            --lists train_image_id.txt val_image_id.txt --output ml_images --short-side 320

    An image is found by its file name, in whatever folder, checked by decoding it, and stored as
    ml_images/images/<name in the list>. ml_images/manifest.sqlite says what became of each name;
    those that no archive holds get the error "missing", which is normal: no release of ImageNet has
    all images of the others.

    An archive that is cut or damaged is an error in the end; what could be read of it is kept.

    Start the same command again after an interruption, and it goes on. Give further archives or
    lists later, and what is not there yet is taken. `coverage` shows what is there and what is not.

    Args:
        archives: tar files as ImageNet distributes them, compressed with gzip or not.
        output: folder for images/ and manifest.sqlite; made if it is not there.
        lists: label lists with names such as n04310904/n04310904_8388.JPEG.
        everything: instead of lists: all images, under their names in the archives.
        short_side: shrink larger images to this shorter side in pixels, as JPEG; 320 is enough
            for training at 224. Images that are there stay as they are.
        workers: threads that decode.
    """
    _check_arguments(archives, lists, everything=everything, short_side=short_side)
    images = output / "images"
    with writing(images):
        images.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone(output / "manifest.lock"))
        manifest = stack.enter_context(Manifest(output / "manifest.sqlite"))
        wanted: Wanted
        if everything:
            wanted = Everything(manifest, images)
        else:
            wanted = stack.enter_context(ListedNames(lists, folder=output))
        finished = FinishedTars(output / "finished_tars.tsv", fingerprint=wanted.fingerprint)
        if isinstance(wanted, ListedNames) and _recall(wanted, manifest, images):
            finished.forget()  # any tar may hold the files that are gone
        recorder = Recorder(manifest, images, max_copies=0)
        extraction = stack.enter_context(
            Extraction(
                wanted, recorder, finished, output=output, short_side=short_side, workers=workers
            )
        )
        damage = []
        for path in archives:
            tally = extraction.take(path)
            print(tally, flush=True)
            damage += [tally.damage] if tally.damage else []
        if isinstance(wanted, ListedNames):
            _record_missing(wanted, recorder, archives, damage)
            print(_summary(wanted, output))
    if damage:
        raise PrepareError(
            f"{len(damage)} of {len(archives)} archives are damaged: {'; '.join(damage)}. What "
            "could be read is stored and recorded; the same command takes the rest out of a "
            "sound copy"
        )


def _check_arguments(
    archives: Sequence[Path], lists: Sequence[Path], *, everything: bool, short_side: int | None
) -> None:
    """Refuses before hours of work what can be seen now."""
    if not archives:
        raise PrepareError("no archive: give one or more tar files")
    if everything == bool(lists):
        raise PrepareError("give either --lists LIST... or --all")
    if short_side is not None and short_side < 1:
        raise PrepareError(f"--short-side {short_side}: give a number of pixels, such as 320")
    for path in archives:
        try:
            with Archive(path) as archive:
                next(archive.entries(on_error=lambda error: None), None)
        except ArchiveError as error:
            raise PrepareError(f"{error}; give archives as ImageNet distributes them") from error


def _recall(wanted: ListedNames, manifest: Manifest, images: Path) -> int:
    """Tells `wanted` what earlier runs did; returns how many of their files are gone."""
    if not len(manifest):
        return 0
    with progress(len(manifest), what=manifest.path.name, unit=" rows") as bar:
        return wanted.recall(_counted(manifest, bar), images)


def _counted(images: Iterable[Image], bar: tqdm) -> Iterator[Image]:
    for image in images:
        yield image
        bar.update()


def _record_missing(
    wanted: ListedNames, recorder: Recorder, archives: Sequence[Path], damage: Sequence[str]
) -> None:
    message = f"in none of {', '.join(path.name for path in archives)}"
    if damage:
        message += f", of which {len(damage)} cannot be read to the end"
    for name in wanted.missing():
        recorder.fail(name, MISSING, message)
        if len(recorder.pending) >= _ROWS:
            recorder.flush()
    recorder.flush()


def _summary(wanted: ListedNames, output: Path) -> str:
    counts = ", ".join(f"{count:,} {state}" for state, count in wanted.count().items())
    return f"{output}: of {len(wanted):,} names {counts}"
