# SPDX-License-Identifier: BSD-3-Clause
"""The command `labels`: makes a label list from others: closes, merges, cleans, names files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.labels_job import Classes, LabelsJob
from mlimages_jax.prepare.outcomes import open_outcomes

_SPLITS = ("train", "val", "test")


def labels(
    lists: Positional[list[Path]],
    /,
    *,
    output: Path | None = None,
    output_dir: Path | None = None,
    dictionary: Path | None = None,
    close: bool = False,
    corrections: Path | None = None,
    unknown_classes: Literal["error", "drop"] = "error",
    from_dictionary: Path | None = None,
    merge: bool = False,
    manifests: tuple[str, ...] = (),
) -> None:
    r"""Make a label list from others: close it over ancestors, merge, clean, keep present images.

    After a download, this writes the list that the builder reads, next to OUTPUT/images:

        mlimages data labels train_urls.txt --manifests ml_images/manifest.sqlite \
            --dictionary dictionary_and_semantic_hierarchy.txt --close \
            --output ml_images/train_image_list.txt

    With --output-dir instead, one command makes the lists of all splits, and reads the manifests
    once:

        mlimages data labels train_urls.txt val_urls.txt --manifests ml_images/manifest.sqlite \
            --output-dir ml_images

    The steps run in this order, each only if asked for: classes of another class list become
    those of --dictionary; names become files; rows of one image become one row; rows are closed.
    Without --merge, the memory needed does not grow with the lists. With it, their labels are kept
    in memory: about 4 GB for the 17.6 million rows of ML-Images.

    Args:
        lists: label lists, read one after the other: an image or URL per line, then its labels,
            class:confidence.
        output: the new list, of all lists. It may be one of the lists.
        output_dir: folder for a new list of each split, train_image_list.txt and so on, of those
            lists whose names begin with train, val or test.
        dictionary: the class list (dictionary.txt) of the new list.
        close: add all ancestors of every class. A positive confidence is passed on to the
            ancestors, which get the maximum of several; -1 (unknown) and 0 (absent) are not.
        corrections: with --close, a file of other parents for some classes; `published` is the one
            in this package, for the published class list. The class list itself is not changed.
        unknown_classes: what to do with labels whose class is not in the class list. Dropped labels
            are counted by class; their rows stay, even without a label.
        from_dictionary: the class list of the input, if it is another one: a class becomes the
            class of --dictionary with the same id (column 2), or is unknown if there is none.
        merge: merge all rows with the same name. Every class gets the maximum of its confidences,
            and any known confidence replaces -1. Rows keep the order of first appearance.
        manifests: keep only images that one of these has, under the names of their files:
            manifest.sqlite files, or folders with such files or image shards, also in a bucket.
            Rows left out are counted by error.
    """
    if not lists:
        raise PrepareError("no label list given: name at least one")
    classes = _read_classes(dictionary, from_dictionary, drop=unknown_classes == "drop")
    jobs = {
        target: LabelsJob(
            lists=some, classes=classes, close=close, corrections=corrections, merge=merge
        )
        for target, some in _targets(lists, output, output_dir).items()
    }
    with open_outcomes(manifests) as opened:
        for target, job in jobs.items():
            job.run(target, opened)
            print(job.summary())
            print(f"written: {target}")


def _targets(
    lists: Sequence[Path], output: Path | None, output_dir: Path | None
) -> dict[Path, list[Path]]:
    """Returns the lists of which each new list is made."""
    if (output is None) == (output_dir is None):
        raise PrepareError("give either --output LIST, or --output-dir FOLDER for all splits")
    if output_dir is None:
        assert output is not None
        return {output: list(lists)}
    targets: dict[Path, list[Path]] = {}
    for path in lists:
        split = next((one for one in _SPLITS if path.name.startswith(one)), None)
        if split is None:
            raise PrepareError(
                f"{path}: --output-dir takes lists whose names begin with {', '.join(_SPLITS)}: "
                "rename it, or give --output"
            )
        targets.setdefault(output_dir / f"{split}_image_list.txt", []).append(path)
    output_dir.mkdir(parents=True, exist_ok=True)
    return targets


def _read_classes(class_list: Path | None, source_list: Path | None, *, drop: bool) -> Classes:
    if class_list is None:
        if source_list is not None:
            raise PrepareError("--from-dictionary maps to the classes of --dictionary: give both")
        return Classes(None, None, drop)
    target = Hierarchy.from_file(class_list)
    source = target if source_list is None else Hierarchy.from_file(source_list)
    return Classes(source, target, drop)
