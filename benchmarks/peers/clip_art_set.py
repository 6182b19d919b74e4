# SPDX-License-Identifier: BSD-3-Clause
"""Writes the set `clip art` of small_sets.py, from Debian's packages of the Open Clip Art Library.

    apt-get download openclipart-png openclipart-svg     # version 0.18, public domain
    for package in openclipart-*.deb; do dpkg -x $package clip; done
    python benchmarks/peers/clip_art_set.py clip FOLDER

FOLDER gets dictionary.txt and the two lists in the format of ML-Images, and `images`, a link. A
class is a folder of the library, below the class of its parent folder, or a keyword of the
drawings. Folders of generated drawings are left out, and so are classes of few images.
"""

import hashlib
import sys
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

GENERATED = ("shapes/stars", "special/gradients", "unsorted")  # 1,378 stars differ by an angle only
FEWEST = 10  # images of a class
SUBJECTS = "{http://purl.org/dc/elements/1.1/}subject"
ITEM = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"


def keywords(svg: Path) -> set[str]:
    """Returns the keywords of a drawing, in lower case with spaces."""
    items = (i for s in ElementTree.parse(svg).iter(SUBJECTS) for i in s.iter(ITEM))
    found = {" ".join((i.text or "").lower().replace("_", " ").split()) for i in items}
    return found - {"", "unsorted"}


def folders(image: PurePosixPath) -> list[str]:
    """Returns the folders of an image, from the top, each with its whole path."""
    return [str(parent) for parent in reversed(image.parents[:-1])]


def read(root: Path) -> dict[PurePosixPath, set[str]]:
    """Returns the labels of each PNG: whole paths of folders, and keywords that name none."""
    labels: dict[PurePosixPath, set[str]] = {}
    for png in sorted((root / "png").rglob("*.png")):
        name = PurePosixPath(png.relative_to(root / "png"))
        svg = (root / "svg" / name).with_suffix(".svg")
        if png.is_symlink() or not svg.exists() or str(name).startswith(GENERATED):
            continue
        inside = folders(name)
        labels[name] = set(inside) | {
            word for word in keywords(svg)
            if word not in {PurePosixPath(f).name.replace("_", " ") for f in inside}
        }  # fmt: skip
    return labels


def main() -> None:
    """Writes the set."""
    root = (Path(sys.argv[1]) / "usr/share/openclipart").resolve()
    output = Path(sys.argv[2])
    output.mkdir(parents=True)
    labels = read(root)
    counts = Counter(label for each in labels.values() for label in each)
    # A folder has at least the images of its sub-folders, so that a class's parent is a class.
    classes = sorted((label for label, n in counts.items() if n >= FEWEST), key=lambda c: (
        c.count("/"), c))  # fmt: skip
    index = {label: i for i, label in enumerate(classes)}
    with (output / "dictionary.txt").open("w") as file:
        print("category_index\tcategory_id\tindex_of_parent_category\tcategory name", file=file)
        for label, i in index.items():
            name = PurePosixPath(label).name
            identifier = f"c{zlib.crc32(label.encode()):08x}"
            print(i, identifier, index.get(str(PurePosixPath(label).parent), -1), name,
                  sep="\t", file=file)  # fmt: skip
    rows: dict[str, list[str]] = {"train": [], "val": []}
    for image, each in labels.items():
        known = sorted(index[label] for label in each if label in index)
        if known:
            val = hashlib.sha256(str(image).encode()).digest()[0] % 4 == 0
            row = "\t".join([str(image), *(f"{i}:1" for i in known)])
            rows["val" if val else "train"].append(row)
    for split, lines in rows.items():
        (output / f"{split}_image_list.txt").write_text("\n".join(lines) + "\n")
    (output / "images").symlink_to(root / "png")


if __name__ == "__main__":
    main()
