# SPDX-License-Identifier: BSD-3-Clause
"""The command `duplicates`: groups of images that are nearly the same, as a table.

Where the default threshold comes from: 250 of 935 small real drawings and photographs (half of them
below 147 pixels) were changed and compared with themselves, with 1,280 features of another network
trained on ImageNet (EfficientNet-Lite0 at 224 pixels). Share that reaches the threshold:

    threshold                            0.97   0.95   0.93   0.90   0.85
    JPEG again, quality 75                77%    94%    98%   100%   100%
    JPEG again, quality 30                 5%    29%    59%    85%    95%
    5% of each side cut off               46%    90%    98%    99%   100%
    10% of each side cut off               8%    40%    72%    92%    99%
    15% brighter                          81%    92%    96%    98%    99%
    mirrored                              68%    96%    99%   100%   100%
    half the size, below 75 pixels         0%     5%    21%    46%    80%
    pairs of different ones, of 436,645      4      7     14     40    143

The different ones that are found first are letters p and q, and an image coloured anew. Averaged
over ten crops, of 50 images, all are found at 0.95 that are encoded again (75), cut by 5% or
mirrored (median similarity 0.986, 0.987 and 0.996), and 16% of those of half the size.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from mlimages_jax.features import FeaturesError, results
from mlimages_jax.features.duplicates.search import PAIRS_AT_ONCE, DuplicateSearch, Recall
from mlimages_jax.features.export.exported import Exported, open_exported
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import tsv_row

_COLUMNS = ("group", "name", "similarity", "size", "row")
_SHOWN = (1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.9, 0.8)  # similarities that are counted


def duplicates(
    folder: Positional[Path],
    /,
    *,
    output: Path,
    threshold: float = 0.95,
    approximate: bool = False,
    buckets: int = 0,
    memberships: int = 2,
    check: int = 4_096,
    width: int = 256,
    features: str = "features",
    scratch: Path | None = None,
) -> None:
    """Find groups of images that are nearly the same, by the cosine similarity of features.

        mlimages features duplicates FEATURES --output duplicates.tsv

    The table has a line an image, tab-separated, the largest groups first:

        group       its number, from 1
        name        of the image
        similarity  to the first image of the group, whose own is 1
        size        of the group, in images
        row         of the export

    Images that reach the threshold are in one group, and so are those connected through others:
    in a large group the similarity to the first may be lower. Copies that are encoded again, cut a
    little or made brighter are found; smaller ones, if enough is left to see. Features of ten_crop
    find more of them. Mirrored copies are found too, by ten_crop as well as any: a network trained
    with both directions hardly tells them apart, so look at the images where left and right
    matter. At 0.95 different images are rare in a group (letters p and q); at 0.9 they are less
    so, and nine of ten copies are found that are badly encoded or cut by a tenth.

    Comparing all n images takes n x n x (width + 1) operations, on the accelerator if there is
    one. At 50 billion a second, as on two processor cores, 100,000 images take a minute, a
    million an hour and a half, and all 17.6 million of ML-Images 18 days; at 40,000 billion these
    take half an hour. --approximate takes one or two hours for them on two cores, besides reading
    the features, and says which share of the pairs it found.

    Args:
        folder: features, best exported with --config.format=npy: images are looked up singly.
        output: the table.
        threshold: least similarity.
        approximate: compare only images in the same of --buckets.
        buckets: of k-means; 0: twice the square root of the number of images.
        memberships: buckets of each image; more find more.
        check: images that are compared with all, to measure what --approximate finds; 0: none.
        width: numbers of the short vectors that are compared first.
        features: which output of the export.
        scratch: a folder for 4 x (width + 1) bytes an image, for a while; left out, that of the
            table.
    """
    if not 0 < threshold <= 1:
        raise FeaturesError(f"--threshold {threshold}: give a number above 0, up to 1")
    if min(buckets, check) < 0 or min(memberships, width) < 1:
        raise FeaturesError("--buckets and --check are from 0, --memberships and --width from 1")
    results.check_place(output)
    images = open_exported(folder, output=features)
    with tempfile.TemporaryDirectory(dir=scratch or output.absolute().parent) as place:
        search = DuplicateSearch(
            images, threshold=threshold, scratch=Path(place) / "bounds.npy", width=width
        )
        recall = None
        if approximate:
            count = buckets or 2 * round(len(images) ** 0.5)
            search.compare_in_buckets(count, memberships=memberships)
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
    """Writes a line for each image of the groups.

    Returns:
        Similarities to the first of each group, of the others, float64 [m].
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
    """Counts, one a line."""
    members = sum(map(len, groups))
    lines = [
        (len(images), "images"),
        (images.without, "images left out: unreadable"),
        (len(groups), "groups"),
        (members, "images in groups"),
        (members - len(groups), "images to remove, if one of each group stays"),
        (identical, "  of these with exactly the features of another"),
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
    share = f" ({recall.found / recall.pairs:.2%})" if recall.pairs else ""
    return (
        f"{text}\nof {recall.images:,} images drawn, compared with all: {recall.found:,} of "
        f"{recall.pairs:,} pairs are in one group{share}"
    )


def _pieces(groups: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers of groups and their members, as many as are compared at once."""
    numbers = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    members = np.concatenate([np.empty(0, np.int64), *groups])
    for start in range(0, len(members), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        yield numbers[part], members[part]
