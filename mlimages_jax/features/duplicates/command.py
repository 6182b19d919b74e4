# SPDX-License-Identifier: BSD-3-Clause
"""The command `duplicates`: writes a table of groups of near-duplicate images.

Source of the default threshold: 250 of 935 small real drawings and photographs (half of them below
147 pixels) were modified and compared with the originals, using 1,280 features of another network
trained on ImageNet (EfficientNet-Lite0 at 224 pixels). Fraction that reaches the threshold:

    threshold                            0.97   0.95   0.93   0.90   0.85
    JPEG at quality 75                    77%    94%    98%   100%   100%
    JPEG at quality 30                     5%    29%    59%    85%    95%
    5% cropped from each side             46%    90%    98%    99%   100%
    10% cropped from each side             8%    40%    72%    92%    99%
    15% brighter                          81%    92%    96%    98%    99%
    mirrored                              68%    96%    99%   100%   100%
    half the size, below 75 pixels         0%     5%    21%    46%    80%
    different pairs, of 436,645              4      7     14     40    143

The first different pairs found are the letters p and q, and a recoloured image. With features
averaged over ten crops, of 50 images, at 0.95 all are found that were re-encoded (quality 75),
cropped by 5% or mirrored (median similarity 0.986, 0.987 and 0.996), and 16% of those at half the
size.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from tyro.conf import Positional

from mlimages_jax.features import FeaturesError, results
from mlimages_jax.features.duplicates.search import PAIRS_AT_ONCE, DuplicateSearch, Recall
from mlimages_jax.features.export.exported import Exported, open_exported
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import tsv_row

_COLUMNS = ("group", "name", "similarity", "size", "row")
_SHOWN = (1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.9, 0.8)  # lower edges of the similarity counts


def duplicates(
    folder: Positional[str],  # not Path, which makes one slash of the two in a URL
    /,
    *,
    output: Path,
    threshold: float = 0.95,
    index: Literal["exact", "ivf"] = "exact",
    lists: int = 0,
    probes: int = 4,
    check: int = 4_096,
    width: int = 256,
    features: str = "features",
    scratch: Path | None = None,
) -> None:
    """Find groups of near-duplicate images by the cosine similarity of their features.

        mlimages features duplicates features --output duplicates.tsv

    The table has one tab-separated line per image, largest groups first:

        group       number of the group, from 1
        name        name of the image
        similarity  to the first image of the group, which itself has 1
        size        number of images in the group
        row         row of the image in the export

    Images that reach the threshold are in one group, and so are images connected through others:
    in a large group the similarity to the first may be lower. The search finds copies that were
    re-encoded, slightly cropped or made brighter, and smaller ones if enough detail is left.
    Features of ten_crop find more of them. Mirrored copies are found too, with any features: a
    network trained with random flips hardly distinguishes them, so review the groups if left and
    right matter. At 0.95 different images are rare in a group (letters p and q). At 0.9 they are
    less rare, but nine of ten copies are found that were strongly compressed or cropped by a tenth.

    Comparing all n images takes n x n x (width + 1) operations, on the accelerator if there is
    one. At 50 billion per second, as on two CPU cores, 100,000 images take a minute, a million an
    hour and a half, and all 17.6 million of ML-Images 18 days; at 40,000 billion per second these
    take half an hour. For them there is --index=ivf (extra `index`), which compares an image only
    with those in the --probes lists, of all --lists, that are nearest to it, and reports the
    fraction of the pairs that it found: docs/benchmarks/features.md has times, memory and recall.

    Args:
        folder: folder of `mlimages export`, on a disk or in a bucket; best with --format=npy,
            because single rows are read.
        output: file for the table.
        threshold: minimum similarity.
        index: exact compares all images with all, ivf only those in nearby lists.
        lists: number of lists; 0: twice the square root of the number of images.
        probes: number of lists that an image is compared with; more of them find more pairs.
        check: number of images compared with all others to measure the recall of --index=ivf; 0:
            none.
        width: length of the short vectors that are compared first.
        features: name of the export's output to use.
        scratch: folder for a temporary file of 4 x (width + 1) bytes per image; default: the
            folder of the table.
    """
    if not 0 < threshold <= 1:
        raise FeaturesError(f"--threshold {threshold}: give a number above 0, up to 1")
    if min(lists, check) < 0 or min(probes, width) < 1:
        raise FeaturesError("--lists and --check must be at least 0, --probes and --width 1")
    results.check_place(output)
    images = open_exported(folder, output=features)
    with tempfile.TemporaryDirectory(dir=scratch or output.absolute().parent) as temporary:
        search = DuplicateSearch(
            images, threshold=threshold, scratch=Path(temporary) / "bounds.npy", width=width
        )
        recall = None
        if index == "ivf":
            search.compare_in_lists(lists, probes=probes)
            recall = search.recall(check) if check else None
        else:
            search.compare_all()
    groups = search.groups.members()
    with complete_file(output) as unfinished:
        similarities = write_table(unfinished, groups, images, search)
    print(summary(images, groups, similarities, identical=search.identical, recall=recall))
    print(f"written: {output}")


def write_table(
    path: Path, groups: list[np.ndarray], images: Exported, search: DuplicateSearch
) -> np.ndarray:
    """Writes one line for each image of the groups.

    Returns:
        Similarities of all other images to the first of their group, float64 [m].
    """
    similarities = [np.empty(0)]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(tsv_row(_COLUMNS))
        for numbers, members in _pieces(groups):
            firsts = np.array([groups[number][0] for number in numbers.tolist()])
            similarity = search.similarity(firsts, members)
            similarities.append(similarity[members != firsts])
            columns = numbers + 1, members, similarity
            for number, member, value in zip(*(c.tolist() for c in columns), strict=True):
                size = len(groups[number - 1])
                name, row = images.names[member], images.rows[member]
                file.write(tsv_row([number, name, f"{value:.4f}", size, row]))
    return np.concatenate(similarities)


def summary(
    images: Exported,
    groups: list[np.ndarray],
    similarities: np.ndarray,
    *,
    identical: int,
    recall: Recall | None,
) -> str:
    """Formats the counts, one per line.

    Args:
        images: The export.
        groups: Groups of positions, int64 [n] each.
        similarities: Those of `write_table`, float64 [m].
        identical: Number of images with exactly the features of another.
        recall: Fraction of the pairs that an approximate search found; None if it was exact.
    """
    members = sum(map(len, groups))
    lines = [
        (len(images), "images"),
        (images.without, "images skipped: unreadable"),
        (len(groups), "groups"),
        (members, "images in groups"),
        (members - len(groups), "images to remove, to keep one of each group"),
        (identical, "  of these with exactly the same features as another"),
    ]
    above = np.inf
    for least in _SHOWN:
        count = int(((similarities >= least) & (similarities < above)).sum())
        above = least
        if count:
            lines.append((count, f"  similarity to the first from {least:g}"))
    if len(similarities) and (lower := int((similarities < above).sum())):
        lines.append((lower, f"  similarity to the first below {above:g}"))
    text = "\n".join(f"{count:>14,} {what}" for count, what in lines)
    if recall is None:
        return text
    fraction = f" ({recall.found / recall.pairs:.2%})" if recall.pairs else ""
    return (
        f"{text}\nof {recall.images:,} random images compared with all others: {recall.found:,} of "
        f"{recall.pairs:,} pairs are in one group{fraction}"
    )


def _pieces(groups: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields group numbers and members, as many as are compared at once."""
    numbers = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    members = np.concatenate([np.empty(0, np.int64), *groups])
    for start in range(0, len(members), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        yield numbers[part], members[part]
