# SPDX-License-Identifier: BSD-3-Clause
"""The command `extract`: extracts the images named in lists from ImageNet's archives."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm
from tyro.conf import Positional

from mlimages_jax.command_line import optional
from mlimages_jax.data.archives import Archive, ArchiveError
from mlimages_jax.engines.options import EngineName, open_engine
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.remote import is_remote
from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.extract.extraction import Extraction
from mlimages_jax.prepare.extract.finished_tars import FinishedTars
from mlimages_jax.prepare.extract.selection import MISSING, Everything, ListedNames, Selection
from mlimages_jax.prepare.locking import alone
from mlimages_jax.prepare.manifest import Manifest
from mlimages_jax.prepare.recorder import Recorder
from mlimages_jax.prepare.storing import writing

_ROWS = 1000  # rows of one write
_MOST_THREADS = 8  # unless more are asked for: one thread reads for all of them


def extract(
    archives: Positional[tuple[Path, ...]],
    /,
    *,
    output: str,
    lists: tuple[Path, ...] = (),
    everything: Annotated[bool, tyro.conf.arg(name="all")] = False,
    short_side: int | None = None,
    shards: Annotated[int | None, optional("INT")] = None,
    workers: Annotated[int | None, optional("INT")] = None,
    engine: EngineName = "local",
) -> None:
    r"""Extract the images named in lists from ImageNet's archives.

    The archives are neither changed nor unpacked: fall11_whole.tar or winter21_whole.tar.gz
    (a tar of one tar per synset), ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar.

        mlimages data extract fall11_whole.tar \
            --lists train_image_id.txt val_image_id.txt --output ml_images --short-side 320

    An image is found by its file name, in any folder, verified by decoding it, and stored as
    ml_images/images/<name in the list>. ml_images/manifest.sqlite records the outcome of each
    name. Names in no archive get the error "missing". That is normal: no release of ImageNet
    contains all images of the others.

    With --shards N the images go into image shards instead, also in a bucket, as with `download`:
    the inner tars (or files) of the archives are divided into N parts, which --workers processes
    do, on this machine or on a cluster.

    Truncated and damaged archives are reported as an error at the end; what could be read of them
    is kept.

    After an interruption, run the same command again to resume. Add archives or lists later, and
    only the images that are still missing are extracted. `coverage` shows what is present.

    Args:
        archives: tar files as ImageNet distributes them, also compressed with gzip.
        output: folder for images/ and manifest.sqlite; created if missing. With --shards it may be
            in a bucket: gs://bucket/name or s3://bucket/name.
        lists: label lists with names such as n04310904/n04310904_8388.JPEG.
        everything: instead of lists: all images, under their names in the archives.
        short_side: shrink larger images to this short side in pixels, as JPEG; 320 is enough for
            training at 224. Images extracted earlier are not changed.
        shards: write image shards, in this many parts; several for each worker. Every part reads a
            compressed archive from its beginning.
        workers: number of threads that decode; default: one per core, up to 8. With --shards,
            number of worker processes; default: local works in this process, ray on every core of
            the cluster.
        engine: with --shards: local works on this machine; ray on a Ray cluster, the one of
            RAY_ADDRESS or the one that `ray start` started here.
    """
    _check_arguments(archives, lists, everything=everything, short_side=short_side)
    if shards is not None:
        if shards < 1:
            raise PrepareError(f"--shards {shards}: give a number of parts, such as 64")
        # Half a second that extractions into files need not wait.
        from mlimages_jax.prepare.extract.shard_extraction import ShardExtraction

        job = ShardExtraction(
            archives=archives,
            lists=lists,
            folder=ObjectFolder(output),
            parts=shards,
            short_side=short_side,
        )
        with open_engine(engine, workers=workers) as opened:
            tallies = job.run(opened)
        print(*tallies, _counted_shards(output), sep="\n", flush=True)
        damage = [tally.damage for tally in tallies if tally.damage]
    elif engine != "local":
        raise PrepareError(f"--engine={engine} divides image shards: give --shards too")
    elif is_remote(output):
        raise PrepareError(f"{output}: files and their manifest need a disk; give --shards too")
    else:
        threads = workers or min(_MOST_THREADS, os.cpu_count() or 1)
        damage = _into_files(archives, lists, Path(output), short_side=short_side, threads=threads)
    if damage:
        raise PrepareError(
            f"{len(damage)} of {len(archives)} archives are damaged: {'; '.join(damage)}. What "
            "could be read is stored and recorded; run the same command on an intact copy to "
            "extract the rest"
        )


def _into_files(
    archives: Sequence[Path],
    lists: Sequence[Path],
    output: Path,
    *,
    short_side: int | None,
    threads: int,
) -> list[str]:
    """Extracts into files and a manifest; returns what is damaged. Without lists, all images."""
    images = output / "images"
    with writing(images):
        images.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone(output / "manifest.lock"))
        manifest = stack.enter_context(Manifest(output / "manifest.sqlite"))
        selection: Selection
        if not lists:
            selection = Everything(manifest, images)
        else:
            selection = stack.enter_context(ListedNames(lists, folder=output))
        recorder = Recorder(manifest, images, max_copies=0)
        finished = FinishedTars(
            output / "finished_tars.tsv",
            fingerprint=selection.fingerprint,
            flush=recorder.flush,
        )
        if isinstance(selection, ListedNames) and _recall(selection, manifest, images):
            finished.forget()  # the deleted files may come from any tar
        extraction = stack.enter_context(
            Extraction(
                selection,
                recorder,
                finished,
                scratch=output / "extracting",
                short_side=short_side,
                workers=threads,
            )
        )
        damage = []
        for path in archives:
            tally = extraction.take(path)
            print(tally, flush=True)
            damage += [tally.damage] if tally.damage else []
        if isinstance(selection, ListedNames):
            _record_missing(selection, recorder, archives, damage)
            print(_summary(selection, output))
    return damage


def _check_arguments(
    archives: Sequence[Path], lists: Sequence[Path], *, everything: bool, short_side: int | None
) -> None:
    """Fails on bad arguments now rather than after hours of work."""
    if not archives:
        raise PrepareError("no archive given: name one or more tar files")
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


def _recall(selection: ListedNames, manifest: Manifest, images: Path) -> int:
    """Applies the rows of earlier runs; returns how many of their files were deleted since."""
    if not len(manifest):
        return 0
    with progress(len(manifest), what=manifest.path.name, unit=" rows") as bar:
        return selection.recall(_counted(manifest, bar), images)


def _counted(images: Iterable[Image], bar: tqdm) -> Iterator[Image]:
    for image in images:
        yield image
        bar.update()


def _record_missing(
    selection: ListedNames, recorder: Recorder, archives: Sequence[Path], damage: Sequence[str]
) -> None:
    message = f"in none of {', '.join(path.name for path in archives)}"
    if damage:
        message += f", of which {len(damage)} cannot be read to the end"
    for name in selection.missing():
        recorder.fail(name, MISSING, message)
        if len(recorder.pending) >= _ROWS:
            recorder.flush()
    recorder.flush()


def _counted_shards(output: str) -> str:
    from mlimages_jax.image_shards.counts import count_outcomes
    from mlimages_jax.image_shards.reader import ShardFolder

    outcomes, _ = count_outcomes(ShardFolder(output))
    counts = {OK: 0, MISSING: 0, FAILED: 0}
    for (status, _, error), count in outcomes.items():
        counts[MISSING if error == MISSING else status] += count
    return (
        f"{output}: of {outcomes.total():,} names {counts[OK]:,} present, "
        f"{counts[FAILED]:,} failed, {counts[MISSING]:,} missing"
    )


def _summary(selection: ListedNames, output: Path) -> str:
    counts = ", ".join(f"{count:,} {state}" for state, count in selection.count().items())
    return f"{output}: of {len(selection):,} names {counts}"
