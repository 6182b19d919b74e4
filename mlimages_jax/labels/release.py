# SPDX-License-Identifier: BSD-3-Clause
"""Facts about the published ML-Images: its counts, and the errors in its dictionary.

The counts are those of the release's README (github.com/Tencent/tencent-ml-images). Passages of
that text that are commented out have others - 18,019,881 URLs, 17,659,752 URLs, 10,756,941 images
of ImageNet: the first is from an older version; the others count the 50,000 images that ImageNet's
part contributes to validation as training images.
"""

import hashlib
from typing import NamedTuple

from mlimages_jax.labels.corrections import PUBLISHED, correct, read_corrections
from mlimages_jax.labels.hierarchy import Hierarchy

CLASSES = 11_166  # 10,032 from ImageNet and 1,134 only in Open Images
TRAINABLE = 10_505  # classes with more than 100 training images
# SHA-256 of ids and parents; the SHA-256 of the published file itself is 4271c1bd49405c14...
CLASS_LIST_DIGEST = "dceb5047bf66ad98f1fa9322352554d6d1ae2ed7d90c61a65222ae0cf834340f"


class PublishedList(NamedTuple):
    """A list of the release.

    Attributes:
        what: Description of its content.
        rows: Number of its rows.
    """

    what: str
    rows: int


LISTS = (
    PublishedList("training, all", 17_609_752),
    PublishedList("training, the part from ImageNet", 10_706_941),
    PublishedList("training, the part from Open Images", 6_902_811),
    PublishedList("validation, all", 88_739),
    PublishedList("validation, the part from ImageNet", 50_000),
    PublishedList("validation, the part from Open Images", 38_739),
)


def class_list_digest(hierarchy: Hierarchy) -> str:
    """Returns the SHA-256 of ids and parents in hexadecimal: equal for every copy of a file."""
    pairs = zip(hierarchy.ids, hierarchy.parents.tolist(), strict=True)
    text = "".join(f"{id_}\t{parent}\n" for id_, parent in pairs)
    return hashlib.sha256(text.encode()).hexdigest()


def is_published(hierarchy: Hierarchy) -> bool:
    """Returns whether these are the classes of the release, with their published parents."""
    return len(hierarchy) == CLASSES and class_list_digest(hierarchy) == CLASS_LIST_DIGEST


def known_faults(hierarchy: Hierarchy) -> list[str]:
    """Describes the errors of the published dictionary; returns nothing for any other one.

    The first three are those of the release's issue 69.
    """
    if not is_published(hierarchy):
        return []
    moved = correct(hierarchy, read_corrections(PUBLISHED)).applied
    return [
        "pet (n01318894) is a leaf and a child of animal: WordNet has no kinds of pets either, but "
        "calls a pet a domesticated animal. The corrections put it below domestic animal.",
        "livestock, stock, farm animal (n01887474) is a leaf below placental mammal, as in "
        "WordNet. Cattle, sheep and poultry have other parents, and a class can have only one. Not "
        "corrected: images of them do not get this label.",
        "domestic animal (n01317541) has only the children head, stray and feeder, which mean a "
        "single animal, a stray one, and one being fattened. In WordNet dog and domestic cat are "
        "below it too; here they have their other parent. Not corrected.",
        f"{moved - 1:,} more classes are below a distant ancestor although a closer one, by "
        "WordNet, is a class too: cheeseburger is below sandwich, and hamburger is a leaf. The "
        "corrections put them below the closer one.",
    ]
