# SPDX-License-Identifier: BSD-3-Clause
"""A person's folder: good and broken images, other files, a sub-folder, hidden things."""

from pathlib import Path

from tests.support import image_files

FILES = {
    "IMG_1.JPG": image_files.GOOD["colour"],
    "broken.jpg": image_files.BAD["truncated jpeg"][0],
    "notes.jpg": lambda: b"these are notes",
    "old.bmp": image_files.BAD["psd"][0],
    "print.jpeg": image_files.GOOD["cmyk"],
    "upright.jpg": image_files.GOOD["rotated by EXIF"],
    "holiday/beach photo.png": image_files.GOOD["16-bit png"],
    "holiday/small.gif": image_files.GOOD["gif named .JPEG"],
}
NAMES = sorted(FILES)
ERRORS = {
    "broken.jpg": "truncated: libjpeg:",
    "notes.jpg": "not_an_image: neither JPEG",
    "old.bmp": "unsupported: a PSD file",
}  # and how their errors begin
OTHERS = ("notes.txt", "holiday/todo.TXT", "README", ".hidden.jpg", ".thumbs/IMG_1.JPG")


def contents() -> list[bytes]:
    """Of the images, in the order of their names."""
    return [FILES[name]() for name in NAMES]


def write_folder(folder: Path) -> None:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data())
    for name in OTHERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image_files.jpeg(image_files.quadrants()))
