# SPDX-License-Identifier: BSD-3-Clause
"""Image files as other people's folders hold them: each row of the table of odd files, and kinds.

The table lies beside the repository (../shared/data/odd); every kind in it is made here as well.
"""

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
import simplejpeg
from PIL import Image

from mlimages_jax.data.images import jpeg, png_chunks
from mlimages_jax.data.images.decode import (
    BadImage,
    CropBox,
    decode,
    decode_box,
    read_header,
    stored_jpeg,
    verify,
)
from tests.support import image_files

ODD = Path(__file__).resolve().parents[4] / "shared/data/odd"
needs_odd = pytest.mark.skipif(not ODD.is_dir(), reason="../shared/data/odd is not there")


@pytest.fixture(params=["compiled", "without"])
def each_way(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(jpeg, "_jpeg", None)
    elif not jpeg.is_compiled():
        pytest.skip("built without a C compiler or libjpeg-turbo's headers")


def _table() -> list[tuple[str, str]]:
    """(file, right outcome) of each row."""
    if not ODD.is_dir():
        return []
    text = (ODD / "README.md").read_text()
    rows = [
        line.split("|")[1:-1]
        for line in text.splitlines()
        if re.match(r"\| \w+\.\w+|\| \w+,", line)
    ]
    pairs = [(name.strip(), row[2].strip()) for row in rows for name in row[0].split(",")]
    assert {name for name, _ in pairs} == {p.name for p in ODD.iterdir()} - {"README.md"}
    return pairs


def _as_base(name: str, data: bytes, pixels: np.ndarray) -> None:
    """Pillow's pixels of the file, or where Pillow refuses it those of its neighbour."""
    if name == "grey16.png":  # Pillow cuts values over 255 off: the high byte is meant
        expected = np.repeat((np.asarray(Image.open(io.BytesIO(data))) >> 8)[..., None], 3, axis=2)
    elif name == "png_long_text.png":
        pieces = png_chunks.pixels_only(data).pieces
        expected = np.asarray(Image.open(io.BytesIO(b"".join(pieces))).convert("RGB"))
    else:
        if name == "no_end_marker.jpg":
            data += b"\xff\xd9"
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    difference = np.abs(pixels.astype(int) - expected)
    assert difference.max() <= (2 if name.endswith("avif") else 0)


@needs_odd
@pytest.mark.parametrize(
    ("name", "outcome"),
    [pytest.param(*row, marks=pytest.mark.slow if "8192" in row[0] else ()) for row in _table()],
)
def test_each_row_of_the_table_holds(name, outcome, each_way, request):
    if "8192" in name and "without" in request.node.name:
        pytest.skip("no JPEG: it takes the same way")
    data = (ODD / name).read_bytes()
    if outcome.startswith(("as base", "one rule")) or "as base" in outcome:
        header, pixels = verify(data), decode(data)
        assert pixels.shape == (48, 64, 3) == (header.height, header.width, 3)
        _as_base(name, data, pixels)
        box = CropBox(5, 6, 30, 40)
        np.testing.assert_array_equal(decode_box(data, box, size=30), pixels[5:35, 6:46])
        stored = stored_jpeg(data, sequential=True)
        assert np.abs(decode(stored.jpeg).astype(int) - pixels).mean() < 3
    else:
        large = "8192" in name  # see also the memory below
        for function in (verify,) if large else (verify, decode, stored_jpeg):
            _told_as_the_table_says(function, name, data, outcome)


def _told_as_the_table_says(function, name: str, data: bytes, outcome: str) -> None:
    try:
        function(data)
    except BadImage as bad:
        if "unsupported" in outcome:
            assert bad.reason == "unsupported" and "lossless" in str(bad)
        elif "too_large" in outcome:
            assert bad.reason == "too_large"
    else:
        assert "unsupported" not in outcome, name


_PEAK = """
import sys
from pathlib import Path
import cv2
import numpy as np
from mlimages_jax.data.images.decode import BadImage, decode, stored_jpeg
cv2.setNumThreads(1)

def status(key):
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split(key + ":")[1].split()[0])

decode(Path(sys.argv[1]).read_bytes())  # what a first image loads stays
data = Path(sys.argv[2]).read_bytes()
before = status("VmRSS")
try:
    dict(decode=decode, stored_jpeg=stored_jpeg)[sys.argv[3]](data)
except BadImage as bad:
    assert bad.reason == "too_large", bad
print(status("VmHWM") - before)
"""


@needs_odd
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")
@pytest.mark.parametrize("way", ["decode", "stored_jpeg"])
@pytest.mark.parametrize("name", [n for n, outcome in _table() if "bytes a pixel" in outcome])
def test_the_table_s_memory(name, way):
    command = [sys.executable, "-c", _PEAK, ODD / "png_long_text.png", ODD / name, way]
    peak = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert peak < 3 * 8192 * 8192 + 100e6


# The gate


def _with_frame(marker: int, *, bits: int = 8) -> bytes:
    data = bytearray(image_files.jpeg(image_files.noise()))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    return bytes(data)


REFUSED = [marker for marker in range(0xC3, 0xD0) if marker not in (0xC4, 0xC9, 0xCA, 0xCC)]
_EVERY_WAY = """
import sys
import numpy as np
from mlimages_jax.data.images import jpeg
from mlimages_jax.inference import user_images
from mlimages_jax.data.images.decode import *
from mlimages_jax.data.images.header import ImageHeader
from mlimages_jax.data.images.views import EvaluationView, TrainingView
data = sys.stdin.buffer.read()
if sys.argv[1] == "without":
    jpeg._jpeg = None
generator = np.random.default_rng(0)
ways = [
    verify, decode, stored_jpeg, jpeg.sequential, read_header, user_images.pixels,
    lambda data: decode(data, min_height=4, min_width=4, exif_orientation=True),
    lambda data: decode_box(data, CropBox(0, 0, 32, 32), size=4),
    lambda data: stored_jpeg(data, short_side=8, orientation="exif"),
    lambda data: TrainingView(8)(data, generator), lambda data: EvaluationView(8)(data),
]
if sys.argv[1] == "without":
    ways.remove(jpeg.sequential)
for way in ways:
    try:
        way(data)
    except BadImage as bad:
        assert bad.reason == "unsupported", (way, bad)
    else:
        raise SystemExit(f"{way} has let it pass")
"""


@pytest.mark.parametrize("way", ["compiled", "without"])
def test_no_way_leads_around_the_gate(way):
    """In a process of its own: without the gate this corrupts memory."""
    if way == "compiled" and not jpeg.is_compiled():
        pytest.skip("built without a C compiler or libjpeg-turbo's headers")
    run = subprocess.run([sys.executable, "-c", _EVERY_WAY, way], input=_with_frame(0xC3))
    assert run.returncode == 0


@pytest.mark.parametrize("marker", REFUSED)
def test_other_processes_are_unsupported(marker):
    with pytest.raises(BadImage, match=f"0x{marker:02X}") as caught:
        read_header(_with_frame(marker))
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("bits", [2, 7, 9, 12, 16])
def test_other_depths_are_unsupported(bits):
    with pytest.raises(BadImage, match=f"{bits} bits"):
        read_header(_with_frame(0xC1, bits=bits))


def _parts() -> tuple[bytes, bytes, bytes]:
    """A JPEG before, in and behind its frame header."""
    data = image_files.jpeg(image_files.noise())
    at = data.index(b"\xff\xc0")
    end = at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return data[:at], data[at:end], data[end:]


HIDDEN = {
    "behind stray bytes": lambda a, f, b: a + b"\0\1\xff\0xyz" + f + b,
    "behind fill bytes": lambda a, f, b: a + b"\xff" * 9 + f + b,
    "behind an empty segment": lambda a, f, b: a + b"\xff\xe5\0\0" + f + b,
    "behind a restart": lambda a, f, b: a + b"\xff\xd3\xff\x01" + f + b,
    "as the second": lambda a, f, b: a + f.replace(b"\xff\xc3", b"\xff\xc0", 1) + f + b,
    "behind a thumbnail": lambda a, f, b: a + _segment(0xE1, image_files.grey_jpeg()) + f + b,
}


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


@pytest.mark.parametrize("kind", HIDDEN)
def test_the_gate_sees_what_libjpeg_sees(kind):
    before, frame, behind = _parts()
    with pytest.raises(BadImage) as caught:
        read_header(HIDDEN[kind](before, b"\xff\xc3" + frame[2:], behind))
    assert caught.value.reason == "unsupported"
    if kind != "as the second":
        assert read_header(HIDDEN[kind](before, frame, behind)).width == 96


def test_two_frames_two_starts_and_a_late_height():
    before, frame, behind = _parts()
    cases = {
        before + frame + frame + behind: "corrupt",
        before + b"\xff\xd8" + frame + behind: "corrupt",
        before + frame[:5] + b"\0\0" + frame[7:] + behind: "unsupported",  # DNL tells it
        before + behind: "corrupt",
        before + frame[:3] + b"\x0b" + frame[4:] + behind: "corrupt",
    }
    for data, reason in cases.items():
        with pytest.raises(BadImage) as caught:
            decode(data)
        assert caught.value.reason == reason


# Scans


def _many_scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    data = image_files.by_pillow("JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + b"\xff\xd9"


def test_scans_are_counted_before_decoding():
    for function in (read_header, verify, decode, stored_jpeg):
        with pytest.raises(BadImage, match=r"2,\d\d\d scans.* at most 100") as caught:
            function(_many_scans(2_646))
        assert caught.value.reason == "unsupported"
    # Scans of thumbnails do not count.
    data = image_files.by_pillow("JPEG", progressive=True)
    thumbnails = b"".join(_segment(0xE1, b"\xff\xda" * 20) for _ in range(9))
    np.testing.assert_array_equal(decode(data[:2] + thumbnails + data[2:]), decode(data))
    at = data.rindex(b"\xff\xda")
    assert read_header(data[:at] + thumbnails + data[at:]).width == 64


# What viewers open


def _faulty(data: bytes) -> dict[str, bytes]:
    quantisation = data.index(b"\xff\xdb")
    scan = data.index(b"\xff\xda")
    icc = _segment(0xE2, b"ICC_PROFILE\0\x09\x02" + bytes(60))
    return {
        "stray bytes": data[:quantisation] + b"abc" + data[quantisation:],
        "stray bytes first": data[:2] + b"\0\0\xff\0" + data[2:],
        "stray bytes before the scan": data[:scan] + bytes(7) + data[scan:],
        "damaged profile": data[:quantisation] + icc + data[quantisation:],
        "zeros before the end": data[:-2] + bytes(258) + b"\xff\xd9",
        "zeros at the end": data[:-2] + bytes(30),
        "no end": data[:-2],
        "half an end": data[:-1],
        "fill bytes before the end": data[:-2] + b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xd9",
        "text behind the end": data + b"<html>",
        "no end and a second file": data[:-2] + data if b"\xff\xc2" not in data else data,
        "unknown JFIF": data.replace(b"JFIF\0\1", b"JFIF\0\7"),
    }


@pytest.mark.parametrize("progressive", [False, True])
def test_harmless_faults_of_jpegs_change_no_pixel(progressive, each_way):
    image = Image.fromarray(image_files.noise())
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, progressive=progressive)
    data = file.getvalue()
    expected = decode(data)
    for kind, faulty in _faulty(data).items():
        np.testing.assert_array_equal(decode(faulty), expected, err_msg=kind)
        part = decode_box(faulty, CropBox(7, 9, 40, 50), size=40)
        np.testing.assert_array_equal(part, expected[7:47, 9:59], err_msg=kind)
        verify(faulty)
        stored = stored_jpeg(faulty, sequential=True).jpeg
        simplejpeg.decode_jpeg(stored, strict=True)
        np.testing.assert_array_equal(decode(stored), expected, err_msg=kind)
        np.testing.assert_array_equal(decode(jpeg.sequential(faulty)), expected, err_msg=kind)


def test_missing_rows_are_truncated():
    data = image_files.jpeg(image_files.noise())
    for cut in (30, 100, 400):
        for end in (b"", b"\0" * 300, b"\xff"):
            with pytest.raises(BadImage) as caught:
                verify(data[:-cut] + end)
            assert caught.value.reason == "truncated"
    # A progressive file without its last scans decodes without a warning, to a poorer image.
    data = image_files.by_pillow("JPEG", progressive=True)
    with pytest.raises(BadImage) as caught:
        decode(data[: data.rindex(b"\xff\xda")])
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("extra", ["zTXt", "iTXt", "tEXt", "iCCP", "acTL", "fdAT"])
def test_chunks_beside_the_pixels_are_never_unpacked(extra):
    data = image_files.noisy_png()
    content = b"key\0\0" + zlib.compress(bytes(30_000_000))
    chunk = png_chunks._chunk(extra.encode(), content)
    faulty = data[:33] + chunk + data[33:]
    np.testing.assert_array_equal(decode(faulty), image_files.noise())
    assert decode(faulty, exif_orientation=True).shape == (64, 96, 3)


def test_a_png_may_end_behind_its_pixels():
    data = image_files.noisy_png()
    for end in (12, 14, 16):  # IEND, and parts of the last checksum
        np.testing.assert_array_equal(decode(data[:-end]), image_files.noise())
    with pytest.raises(BadImage) as caught:
        decode(data[:-60])
    assert caught.value.reason == "truncated"


def _deep_png(colour: int, pixels: np.ndarray, key: bytes, *extra: bytes) -> bytes:
    """A PNG of 16 bits: colour type, big-endian rows, the content of tRNS, further chunks."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *[(b"acTL", e) for e in extra], (b"tRNS", key)]
    body = [png_chunks._chunk(*chunk) for chunk in [*chunks, (b"IDAT", zlib.compress(rows))]]
    return png_chunks.SIGNATURE + b"".join(body) + png_chunks._chunk(b"IEND", b"")


def test_transparent_levels_of_16_bits_are_compared_in_full():
    grey = np.array([[0x1234, 0x1235, 0xFF00]])
    found = decode(_deep_png(0, grey, b"\x12\x34", struct.pack(">II", 2, 0)))
    assert found[0, :, 0].tolist() == [255, 0x12, 0xFF]
    colours = np.array([[[0x1234, 5, 6], [0x1235, 5, 6]]])
    found = decode(_deep_png(2, colours, b"\x12\x34\0\5\0\6"))
    assert found.tolist() == [[[255, 255, 255], [0x12, 0, 0]]]


@pytest.mark.parametrize(("bits", "level"), [(1, 1), (2, 2), (4, 11), (8, 77)])
def test_transparent_levels_of_few_bits(bits, level):
    row = np.array([0, level], np.uint8)
    packed = np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].reshape(-1)).tobytes()
    header = struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", struct.pack(">H", level))]
    chunks += [(b"IDAT", zlib.compress(b"\0" + packed)), (b"IEND", b"")]
    data = png_chunks.SIGNATURE + b"".join(png_chunks._chunk(*chunk) for chunk in chunks)
    assert decode(data)[0].tolist() == [[0, 0, 0], [255, 255, 255]]


OTHERS = {
    "TIFF": {}, "BMP": {}, "PPM": {}, "ICO": {"sizes": [(64, 32)]}, "JPEG2000": {}, "QOI": {},
    "AVIF": {"subsampling": "4:4:4"},
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_formats_that_viewers_open_are_read(kind):
    data = image_files.by_pillow(kind, **OTHERS[kind])
    expected = image_files.quadrants()
    if kind == "ICO":  # icons are square
        with Image.open(io.BytesIO(data)) as icon:
            expected = np.asarray(icon.convert("RGB"))
    found = decode(data)
    assert np.abs(found.astype(int) - expected).max() <= (8 if kind == "AVIF" else 2)
    assert verify(data).format == kind.lower()
    assert stored_jpeg(data, short_side=16).height == 16


PILLOW_13 = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="Pillow before 13 does not have it"
)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", pytest.param("YCbCr", marks=PILLOW_13), "I;16"],
)
def test_modes_of_tiff(mode):
    if mode == "I;16":
        levels = (image_files.quadrants()[:, :, 0].astype(np.uint16) << 8) + 9
        image, expected = Image.fromarray(levels), np.repeat((levels >> 8)[..., None], 3, axis=2)
    else:
        image = Image.fromarray(image_files.quadrants()).convert(mode)
        expected = np.asarray(image.convert("RGB"))
    for compression in (None, "tiff_lzw") if mode != "1" else (None, "group4"):
        file = io.BytesIO()
        image.save(file, "TIFF", compression=compression)
        found = decode(file.getvalue()).astype(int)
        assert np.abs(found - expected).max() <= 2


@PILLOW_13
def test_grey_with_premultiplied_transparency():
    grey = np.full((8, 8), 100, np.uint8)
    layers = np.stack([grey, np.full_like(grey, 200)], axis=2)
    file = io.BytesIO()
    Image.fromarray(layers, "LA").save(file, "TIFF")
    data = bytearray(file.getvalue())
    at = data.index(struct.pack("<HHI", 338, 3, 1)) + 8
    data[at] = 1  # ExtraSamples: associated alpha
    expected = round(100 * 255 / 200) * 200 / 255 + 255 * 55 / 255
    assert np.abs(decode(bytes(data)).astype(int) - expected).max() <= 1


def test_lengths_in_icons_are_not_trusted():
    data = bytearray(image_files.by_pillow("ICO", sizes=[(64, 32)]))
    expected = decode(bytes(data))
    struct.pack_into("<I", data, 14, 8)
    np.testing.assert_array_equal(decode(bytes(data)), expected)


def _icon(*images: bytes, bits: int = 0) -> bytes:
    """An icon of headless BMPs of 32 pixels a side."""
    data, at = struct.pack("<HHH", 0, 1, len(images)), 6 + 16 * len(images)
    for image in images:
        side = struct.unpack_from("<i", image, 4)[0]
        data += struct.pack("<BBBBHHII", side, side, 16, 0, 0, bits, len(image), at)
        at += len(image)
    return data + b"".join(images)


def _headless(side: int, *, bits: int, alpha: int = 0) -> bytes:
    """Red on the left; the right is out of its mask."""
    head = struct.pack("<IiiHHIIiiII", 40, side, 2 * side, 1, bits, 0, 0, 0, 0, 0, 0)
    mask = (b"\0" * (side // 16) + b"\xff" * (side // 16)).ljust(-(-side // 32) * 4, b"\0") * side
    if bits == 32:
        return head + bytes((0, 0, 255, alpha)) * side * side + mask
    palette = bytes((0, 0, 255, 0)) + bytes(4 * 15)
    return head + palette + bytes(side // 2 * side) + mask


@pytest.mark.parametrize("bits", [4, 32])
def test_the_mask_of_an_icon_is_its_own_where_others_follow(bits):
    images = [_headless(32, bits=bits), _headless(16, bits=bits)]
    found = decode(_icon(*images))
    assert found.shape == (32, 32, 3)
    assert (found[:, :16] == [255, 0, 0]).all() and (found[:, 16:] == 255).all()
    np.testing.assert_array_equal(decode(_icon(*images[::-1])), found)


def test_the_alpha_of_an_icon_counts_where_it_has_some():
    found = decode(_icon(_headless(32, bits=32, alpha=255), bits=32))
    assert (found == [255, 0, 0]).all()


def test_a_gif_is_as_large_as_its_first_frame():
    data = bytearray(image_files.by_pillow("GIF"))
    frame = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    data[13 + 3 * 2 ** ((data[10] & 7) + 1) : frame] = b"!\xfe\3abc\1d\0"  # a comment
    frame = data.index(b"\1d\0,") + 3
    struct.pack_into("<HH", data, 6, 1, 1)
    assert read_header(bytes(data))[1:3] == (64, 32)
    assert decode(bytes(data)).shape == (32, 64, 3)
    struct.pack_into("<HH", data, frame + 5, 65_535, 65_535)
    for way in (decode, verify, stored_jpeg):  # before the decoder gets memory
        with pytest.raises(BadImage, match="65535 x 65535 pixels are more") as caught:
            way(bytes(data))
        assert caught.value.reason == "too_large"


def test_an_avif_of_twelve_bits_is_called_so():
    data = bytearray(image_files.by_pillow("AVIF"))
    data[data.index(b"av1C") + 6] |= 0x60
    with pytest.raises(BadImage, match="12 bits") as caught:
        decode(bytes(data))
    assert caught.value.reason == "unsupported"


def test_tiffs_that_pillow_does_not_know_are_unsupported():
    floats = bytearray(image_files.by_pillow("TIFF"))
    at = floats.index(struct.pack("<HHI", 262, 3, 1)) + 8
    floats[at] = 8  # CIELab of 3 channels, but signed as in the next line
    struct.pack_into("<H", floats, at, 32845)  # LogLuv
    with pytest.raises(BadImage, match="convert it to RGB") as caught:
        decode(bytes(floats))
    assert caught.value.reason == "unsupported"
    with pytest.raises(BadImage, match=r"BigTIFF.*convert it to") as caught:
        decode(b"MM\0+\0\x08" + bytes(40))
    assert caught.value.reason == "unsupported"


def test_places_far_away_are_behind_the_end():
    data = b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**64 - 8) + bytes(40)
    with pytest.raises(BadImage) as caught:
        read_header(data)
    assert caught.value.reason == "truncated"


def test_messages_say_what_to_do():
    bmp = bytearray(image_files.by_pillow("BMP"))
    struct.pack_into("<H", bmp, 28, 2)  # bits a pixel
    with pytest.raises(BadImage, match="convert it to JPEG or PNG"):
        decode(bytes(bmp))
    struct.pack_into("<i", bmp, 18, -96)
    with pytest.raises(BadImage, match="a BMP of -96 x") as caught:
        decode(bytes(bmp))
    assert caught.value.reason == "corrupt"
    lzw = bytearray(image_files.by_pillow("TIFF", compression="tiff_lzw"))
    lzw[8:40] = bytes(range(32))
    with pytest.raises(BadImage, match=r"damaged|cut|ends"):
        decode(bytes(lzw))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_tiffs_are_turned_only_when_asked(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = image_files.by_pillow("TIFF", exif=exif)
    np.testing.assert_array_equal(decode(data), image_files.quadrants())
    upright = decode(data, exif_orientation=True)
    jpeg_upright = decode(image_files.exif_jpeg(orientation), exif_orientation=True)
    assert np.abs(upright.astype(int) - jpeg_upright).max() <= 8


NAMED = {
    "PSD": b"8BPS\0\1" + bytes(20), "PDF": b"%PDF-1.7\n", "SVG": b'<?xml version="1"?>\n<svg x="">',
    "EPS": b"%!PS-Adobe-3.0 EPSF", "JPEG XL": b"\xff\x0a\0\0", "ZIP": b"PK\3\4" + bytes(26),
    "RAW": b"FUJIFILMCCD-RAW ", "video": b"\0\0\0\x18ftypmp42" + bytes(12),
    "DIB": struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 24, 0, 192, 0, 0, 0, 0) + bytes(192),
    "ANI": b"RIFF\0\1\0\0ACONLIST", "WMF": b"\1\0\x09\0\0\3" + bytes(20),
    "PICT": bytes(522) + b"\0\x11\2\xff\x0c\0", "XWD": b"\0\0\0\x6e\0\0\0\7\0\0\0\2" + bytes(9),
    "FLIF": b"FLIF31\x0f\x0f", "DPX": b"SDPX\0\0\x20\0", "VIFF": b"\xab\1\1\3" + bytes(20),
    "Utah RLE": b"R\xcc\0\0\0\0F\0.\0", "NIfTI": bytes(344) + b"n+1\0", "IM": b"Image type: RGB",
    "TGA": bytes((0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 9, 0, 1, 0)) + bytes(18),
    "a TGA": bytes((30, 1, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0, 9, 0, 9, 0, 8, 0)) + bytes(18),
    "Pixar": b"\x80\xe8\0\0\1\0" + bytes(500),
    "PostScript": b"%!\n%%BoundingBox", "DICOM": b"\x08\0\5\0CS\x0a\0ISO_IR",
    "EXR": b"v/1\1\2\0\0\0", "JPEG-LS": _segment(0xD8, b"")[:2] + _segment(0xF7, bytes(9)),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_what_stays_refused_is_called_by_its_name(name):
    with pytest.raises(BadImage, match=rf"{name}.*convert it to") as caught:
        decode(NAMED[name])
    assert caught.value.reason == "unsupported"


def test_lists_of_names_are_no_images():
    for text in (b"BMW/1.jpg\n", b"P5 a.jpg", b"II*.jpg", b"the wide photo.jpg", b"soft ftyp.jpg"):
        with pytest.raises(BadImage) as caught:
            read_header(text * 9)
        assert caught.value.reason == "not_an_image"


def test_messages_are_the_same_in_every_run():
    bad = [image_files.truncated(image_files.by_pillow(kind)) for kind in ("GIF", "TIFF", "BMP")]
    bad += [b"GIF89a\1\0\1\0", image_files.flipped(image_files.deep_png(), seed=1)]
    bad += [image_files.by_pillow("AVIF")[:300], image_files.by_pillow("JPEG2000")[:150]]
    for data in bad:
        texts = set()
        for _ in range(2):
            with pytest.raises(BadImage) as caught:
                decode(data)
            texts.add(str(caught.value))
            keep = [os.urandom(1000) for _ in range(50)]  # other addresses
        assert len(texts) == 1 and " 0x" not in texts.pop() and keep
