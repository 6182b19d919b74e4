# SPDX-License-Identifier: BSD-3-Clause
"""A person's folder: good and broken pictures, other files, a sub-folder, hidden things."""

from pathlib import Path

from tests.support import picture_files

FILES = {
    "IMG_1.JPG": picture_files.GOOD["colour"],
    "broken.jpg": picture_files.BAD["truncated jpeg"][0],
    "notes.jpg": lambda: b"these are notes",
    "old.bmp": picture_files.BAD["psd"][0],
    "print.jpeg": picture_files.GOOD["cmyk"],
    "upright.jpg": picture_files.GOOD["rotated by EXIF"],
    "holiday/beach photo.png": picture_files.GOOD["16-bit png"],
    "holiday/small.gif": picture_files.GOOD["gif named .JPEG"],
}
NAMES = sorted(FILES)
ERRORS = {
    "broken.jpg": "truncated: libjpeg:",
    "notes.jpg": "not_an_image: neither JPEG",
    "old.bmp": "unsupported: a PSD file",
}  # and how their errors begin
OTHERS = ("notes.txt", "holiday/todo.TXT", "README", ".hidden.jpg", ".thumbs/IMG_1.JPG")


def contents() -> list[bytes]:
    """Of the pictures, in the order of their names."""
    return [FILES[name]() for name in NAMES]


def write_folder(folder: Path) -> None:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data())
    for name in OTHERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture_files.jpeg(picture_files.quadrants()))
