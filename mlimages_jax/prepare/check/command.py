# SPDX-License-Identifier: BSD-3-Clause
"""The command `check`: reads a built data set back and reports bad files and records."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from etils import epath
from tyro.conf import OmitArgPrefixes, Positional, arg

from mlimages_jax.data.dataset import Shard
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.engines.ordered import map_ordered
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards.layout import manifest_names
from mlimages_jax.labels.lists import read_label_list
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.built_set import BuiltSet, read_checksums, read_skipped
from mlimages_jax.prepare.check.image_shards import check_image_shards
from mlimages_jax.prepare.check.listed_rows import ListedRows
from mlimages_jax.prepare.check.record import RecordRules
from mlimages_jax.prepare.check.shard import CheckPart, ShardChecker
from mlimages_jax.prepare.problems import ProblemList
from mlimages_jax.prepare.release_report import Held, release_report

_SEED = 0  # fixed, so that every run samples the same records


def check(
    folder: Positional[str],
    /,
    *,
    splits: tuple[str, ...] = (),
    sample: int | None = None,
    hashes: bool = False,
    label_list: Annotated[Path | None, arg(name="list")] = None,
    report: Path | None = None,
    threads: int | None = None,
    engine: OmitArgPrefixes[EngineOptions] = EngineOptions(),
) -> None:
    """Read a data set or image shards back and check them: hashes, records, labels, images.

    All of it, or a sample:

        mlimages data check data/ml_images/released_320/1.0.0
        mlimages data check data/ml_images/released_320/1.0.0 --sample 10000

    Every file of a set in a bucket is copied to TMPDIR while it is checked, one for each worker. A
    sample of gs:// is read where it is.

    Checks that every file exists, with the number of records in dataset_info.json and the SHA-256
    in checksums.txt; that every record can be read and every image decodes to its end, in the size
    that the record states; that labels are classes of the dictionary, none of them twice, no more
    than metadata.json states, with confidences of -1 or 0 to 1, and closed over ancestors if the
    set was built so. Exits with code 1 if it finds a problem.

    A folder of image shards, as `download --shards` writes it, may be in a bucket: every file is
    read once, and its size and CRC-32C are compared with those of its manifest.

        mlimages data check gs://bucket/ml_images --workers 8

    Problems are counted by kind:

        missing_shard, stray_file     a file is missing, or does not belong to the set
        hash, count                   a file's SHA-256 or number of records is wrong
        unreadable                    ArrayRecord cannot read it: bytes have changed on disk
        record, name, labels          a record's format, name or labels are wrong
        image, size                   an image does not decode, or has another size
        list                          the record differs from its row of --list
        metadata                      the metadata files do not agree
        shard                         an image shard is incomplete or damaged

    Args:
        folder: folder or URL of a built data set, with dataset_info.json, or of image shards.
        splits: splits to check; default: all.
        sample: check this many records, the same ones in every run, instead of all.
        hashes: with --sample, check the SHA-256 of all files too.
        label_list: the list that the split was built from: compare names and labels. Name the split
            with --splits. The list is kept in memory.
        report: file for a tab-separated table of all problems; the first 20 are always printed.
        threads: number of threads of each process; default: one per core in all, with Ray one.
        engine: where the files are checked; the result is the same.
    """
    if sample is not None and sample < 1:
        raise PrepareError(f"--sample {sample}: give a number of records, or omit it for all")
    if manifest_names(ObjectFolder(folder)):
        if splits or sample or label_list:
            raise PrepareError("of image shards all is checked: omit --splits, --sample, --list")
        check_image_shards(ObjectFolder(folder), report=report, engine=engine)
        return
    built = BuiltSet.open(epath.Path(folder))
    shards = built.shards_of(splits)
    listed = None if label_list is None else _listed(built, splits, label_list)
    checksums = read_checksums(built.folder) if hashes or sample is None else None
    if checksums is None and sample is None:
        print("There is no checksums.txt (older builders wrote none): hashes are not checked.")
    if report_of_release := _beside_the_release(built):
        print(f"{report_of_release}\n")
    total = sum(shard.num_records for shard in shards)
    with (
        ProblemList(report) as problems,
        engine.open() as opened,
        progress(min(sample or total, total), what="check", unit=" records") as bar,
    ):
        for problem in built.problems(checksums):
            problems.add(problem)
        checker = ShardChecker(_rules(built), checksums, threads or opened.threads)
        # In order, so that the table does not depend on the number of workers.
        for _, found in map_ordered(opened, checker.check, _plan(shards, sample, listed)):
            for problem in found.problems:
                problems.add(problem)
            bar.update(found.num_records)
        bar.close()  # before the last lines, which would otherwise start behind the bar
        what = f"{bar.n:,} records of {len(shards):,} shards"
        if problems.counts:
            place = "" if report is None else f"; {report} lists them"
            raise PrepareError(
                f"{problems.counts.total():,} problems in {what}: {problems.summary()}{place}"
            )
    print(f"{what}: no problems")


def _plan(
    shards: list[Shard], sample: int | None, listed: ListedRows | None
) -> Iterator[CheckPart]:
    """Yields what to check of every file."""
    for shard, numbers in _numbers(shards, sample):
        rows = None
        if listed is not None and (numbers is None or len(numbers)):
            rows = listed.of_shard(shard.number)
        yield CheckPart(shard, numbers, rows)


def _numbers(
    shards: list[Shard], sample: int | None
) -> Iterator[tuple[Shard, Sequence[int] | None]]:
    """Yields every shard and the numbers of the records to check; None: all."""
    if sample is None:
        yield from ((shard, None) for shard in shards)
        return
    starts = np.cumsum([0, *(shard.num_records for shard in shards)])
    chosen = np.random.default_rng(_SEED).choice(
        starts[-1], size=min(sample, int(starts[-1])), replace=False, shuffle=False
    )
    # Sorted, so that every file is opened once and read from front to back.
    chosen.sort()
    for shard, start, stop in zip(shards, starts[:-1], starts[1:], strict=True):
        numbers = chosen[slice(*np.searchsorted(chosen, [start, stop]))] - start
        yield shard, numbers.tolist()


def _beside_the_release(built: BuiltSet) -> str:
    """Compares the records and skipped images of each split with the published counts."""
    if built.hierarchy is None:
        return ""
    counts = {
        split: sum(shard.num_records for shard in shards) + built.skipped.get(split, 0)
        for split, shards in built.shards.items()
    }
    return release_report(built.hierarchy, [Held(*pair) for pair in counts.items()])


def _rules(built: BuiltSet) -> RecordRules:
    return RecordRules(
        num_classes=built.num_classes,
        max_labels=built.max_labels,
        short_side=built.short_side,
        closed_over=built.hierarchy if built.closed else None,
    )


def _listed(built: BuiltSet, splits: Sequence[str], label_list: Path) -> ListedRows:
    names = splits or tuple(built.shards)
    if len(names) != 1:
        raise PrepareError("--list is the list of one split: name the split with --splits")
    split = names[0]
    return ListedRows(
        read_label_list(label_list, num_classes=built.num_classes),
        num_shards=len(built.shards[split]),
        skipped=frozenset(name for of, name in read_skipped(built.folder) if of == split),
        closed_over=built.hierarchy if built.closed else None,
    )
