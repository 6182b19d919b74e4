# SPDX-License-Identifier: BSD-3-Clause
"""Peak memory and CPU time of decoding the largest accepted image of each format and mode.

Each image is decoded in its own process; memory counts from the level after a first, small image.
The promised limit is 3 bytes per pixel plus 100 MB (`mlimages_jax/data/images/budget.py`), and the
script fails where an image exceeds it. Images are made smaller until the header check accepts them.

    python benchmarks/memory.py
    python benchmarks/memory.py --side 2048
"""

import argparse
import io
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from peers.fresh_process import resident_bytes
from peers.setting import where_and_when
from PIL import Image

from mlimages_jax.data.images import whole_images
from mlimages_jax.data.images.budget import BYTES_BESIDE, BYTES_PER_PIXEL
from mlimages_jax.data.images.decode import (
    MAX_PIXELS,
    BadImage,
    decode,
    stored_jpeg,
    verify,
)
from mlimages_jax.data.images.header import read_header

Image.MAX_IMAGE_PIXELS = None  # the limits of this package are measured here, not Pillow's
_COMPRESSED = {".png": [cv2.IMWRITE_PNG_COMPRESSION, 1], ".tif": []}
_SIDES = {"QOI": 2048}  # Pillow encodes it in Python; larger ones are refused
_PROBES = (1024, 2048)  # sides in pixels, larger than any tile
_ON_ITS_SIDE = Image.Exif()
_ON_ITS_SIDE[0x0112] = 6  # EXIF orientation of portraits taken with a phone
_WAYS: dict[str, Callable[[bytes], object]] = {
    "decode": lambda data: decode(data, exif_orientation=True),
    "verify": verify,
    "stored_jpeg": lambda data: stored_jpeg(data, orientation="exif"),
}


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=8192, help="largest side, in pixels")
    parser.add_argument("--only", default="", help="kinds with this text in their names")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def gradient(side: int, channels: int) -> np.ndarray:
    """Returns uint8 [side, side, channels]: one gradient runs across, the others down."""
    line = np.linspace(0, 255, side).astype(np.uint8)
    image = np.empty((side, side, channels), np.uint8)
    image[:] = line[:, None, None]
    image[:, :, -1] = line
    return image


def saved(mode: str, file_format: str, **options: object) -> Callable[[int], bytes]:
    """Returns a function that encodes an image of a mode of Pillow."""

    def make(side: int) -> bytes:
        channels = 4 if mode in ("RGBA", "CMYK", "LA") else 3
        image = Image.fromarray(gradient(side, channels), "RGBA" if channels == 4 else "RGB")
        image = image.quantize(64) if mode == "P" else image.convert(mode)
        file = io.BytesIO()
        image.save(file, file_format, **options)
        return file.getvalue()

    return make


def deep(suffix: str, channels: int) -> Callable[[int], bytes]:
    """Returns a function that encodes a PNG or TIFF of 16 bits per channel."""

    def make(side: int) -> bytes:
        pixels = gradient(side, channels).astype(np.uint16) * 257
        return cv2.imencode(suffix, pixels, _COMPRESSED[suffix])[1].tobytes()

    return make


def by_masks(side: int) -> bytes:
    """Encodes a BMP of 16 bits per pixel with masks of 4 bits, alpha included."""
    words = gradient(side, 1)[:, :, 0].astype("<u2") * 257
    rows = np.pad(words, ((0, 0), (0, side % 2))).tobytes()
    head = struct.pack("<IiiHHIIiiII", 56, side, side, 1, 16, 3, len(rows), 0, 0, 0, 0)
    head += struct.pack("<IIII", 0xF00, 0xF0, 0xF, 0xF000)
    return b"BM" + struct.pack("<IHHI", 70 + len(rows), 0, 0, 70) + head + rows


KINDS: dict[str, Callable[[int], bytes]] = {
    "JPEG, 4:4:4": saved("RGB", "JPEG", subsampling=0),
    "JPEG, 4:2:0": saved("RGB", "JPEG", subsampling=2),
    "JPEG, 4:2:0, on its side": saved("RGB", "JPEG", subsampling=2, exif=_ON_ITS_SIDE),
    "JPEG, grey": saved("L", "JPEG"),
    "JPEG, CMYK": saved("CMYK", "JPEG"),
    "JPEG, progressive, 4:4:4": saved("RGB", "JPEG", subsampling=0, progressive=True),
    "JPEG, progressive, 4:2:0": saved("RGB", "JPEG", subsampling=2, progressive=True),
    "JPEG, progressive, grey": saved("L", "JPEG", progressive=True),
    "PNG, 1 bit": saved("1", "PNG"),
    "PNG, grey": saved("L", "PNG", compress_level=1),
    "PNG, grey with alpha": saved("LA", "PNG", compress_level=1),
    "PNG, palette": saved("P", "PNG"),
    "PNG, palette with transparency": saved("P", "PNG", transparency=3),
    "PNG, RGB": saved("RGB", "PNG", compress_level=1),
    "PNG, RGBA": saved("RGBA", "PNG", compress_level=1),
    "PNG, grey, 16 bits": deep(".png", 1),
    "PNG, RGB, 16 bits": deep(".png", 3),
    "PNG, RGBA, 16 bits": deep(".png", 4),
    "GIF": saved("P", "GIF"),
    "WebP, lossy": saved("RGB", "WEBP", method=0),
    "WebP, lossy with alpha": saved("RGBA", "WEBP", method=0),
    "WebP, lossless": saved("RGB", "WEBP", lossless=True, method=0),
    "WebP, lossless with alpha": saved("RGBA", "WEBP", lossless=True, method=0),
    "TIFF, RGB, plain": saved("RGB", "TIFF"),
    "TIFF, RGB, LZW": saved("RGB", "TIFF", compression="tiff_lzw"),
    "TIFF, RGBA, deflate": saved("RGBA", "TIFF", compression="tiff_deflate"),
    "TIFF, CMYK": saved("CMYK", "TIFF", compression="tiff_lzw"),
    "TIFF, JPEG inside": saved("RGB", "TIFF", compression="jpeg"),
    "TIFF, grey, 16 bits": deep(".tif", 1),
    "TIFF, fax": saved("1", "TIFF", compression="group4"),
    "BMP": saved("RGB", "BMP"),
    "BMP, masks": by_masks,
    "PPM": saved("RGB", "PPM"),
    "AVIF": saved("RGB", "AVIF", speed=10),
    "AVIF, with alpha": saved("RGBA", "AVIF", speed=10),
    "AVIF, 4:4:4": saved("RGB", "AVIF", speed=10, subsampling="4:4:4"),
    "JPEG 2000": saved("RGB", "JPEG2000", quality_layers=[60]),
    "JPEG 2000, tiles": saved("RGB", "JPEG2000", quality_layers=[60], tile_size=(512, 512)),
    "QOI": saved("RGB", "QOI"),
}


def measure(path: Path, way: str) -> None:
    """Prints the additional peak bytes and CPU seconds; call it in a fresh process."""
    import time

    cv2.setNumThreads(1)  # figures must not depend on the number of cores
    data = path.read_bytes()
    # The first image loads the libraries' code and tables, which no later one pays for again.
    decode(path.with_suffix(".small").read_bytes())
    before, start = resident_bytes("VmRSS"), time.process_time()
    # Writing 5 resets VmHWM (proc(5)): the peak of earlier work may exceed the current level.
    Path("/proc/self/clear_refs").write_text("5")
    _WAYS[way](data)
    print(resident_bytes("VmHWM") - before, time.process_time() - start)


def passes(data: bytes) -> bool:
    """Returns whether the header check accepts the image."""
    try:
        header = read_header(data)
        whole_images.check_size(header.width, header.height, max_pixels=MAX_PIXELS)
        whole_images.needed(header)
    except BadImage as bad:
        if bad.reason != "too_large":
            raise
        return False
    return True


def largest(make: Callable[[int], bytes], side: int) -> tuple[bytes, int]:
    """Returns the largest accepted square and its side, trying sides a twentieth smaller each time.

    Memory grows in proportion to the pixels, apart from tiles. Two small images therefore predict
    where to begin, since encoding the largest ones takes minutes.
    """
    held = {probe: read_header(make(probe)).held for probe in _PROBES}
    small, large = _PROBES
    slope = (held[large] - held[small]) / (large**2 - small**2)
    passing = (BYTES_BESIDE - held[small] + slope * small**2) / max(slope, 1e-9)
    while side > 1.06 * max(passing, 1) ** 0.5:
        side = round(side * 0.95)
    while not passes(data := make(side)):
        side = round(side * 0.95)
    return data, side


def main() -> None:
    """Measures every kind of image and prints the table."""
    arguments = parse_arguments()
    if arguments.measure:
        measure(Path(arguments.measure[0]), arguments.measure[1])
        return
    print(f"{where_and_when()}\n")
    print("| image | megapixels | decode MB | verify MB | store MB | allowed | CPU s |")
    print("|:--|---:|---:|---:|---:|---:|---:|")
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, make in KINDS.items():
            if arguments.only.lower() not in kind.lower():
                continue
            path = Path(folder) / "image"
            path.with_suffix(".small").write_bytes(make(64))
            data, side = largest(make, min(arguments.side, _SIDES.get(kind, arguments.side)))
            path.write_bytes(data)
            rows = [_run(path, way) for way in _WAYS]
            allowed = BYTES_PER_PIXEL * side * side + BYTES_BESIDE
            broken += [kind] if max(peak for peak, _ in rows) > allowed else []
            peaks = " | ".join(f"{peak / 1e6:,.0f}" for peak, _ in rows)
            cpu = rows[0][1]
            print(f"| {kind} | {side**2 / 1e6:.1f} | {peaks} | {allowed / 1e6:,.0f} | {cpu:.1f} |")
    if broken:
        raise SystemExit(f"over the memory limit: {', '.join(broken)}")


def _run(path: Path, way: str) -> tuple[int, float]:
    command = [sys.executable, __file__, "--measure", str(path), way]
    peak, cpu = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(peak), float(cpu)


if __name__ == "__main__":
    main()
