# SPDX-License-Identifier: BSD-3-Clause
"""Walks the segments of a JPEG file like libjpeg: checks them before decoding, and repairs some.

Decoders only see what their library handles: 8 bits, and the processes of `_PROCESSES`. Others are
dangerous: libjpeg-turbo 3 ignores the scale of lossless files, for which callers allocate.
"""

import re
import struct

from mlimages_jax.data.images.image_types import BadImage, ImageHeader

# Each scan visits all blocks of the image: 2,646 of them in 700 kB take half a minute. Encoders
# write about ten, and those that refine every bit separately a few dozen.
MAX_SCANS = 100

_PROCESSES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # baseline, extended, progressive; arithmetic coding
_PROGRESSIVE = {0xC2, 0xCA}
_REFUSED = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical lossless",
    0xC8: "extended (JPG)", 0xCB: "lossless", 0xCD: "hierarchical", 0xCE: "hierarchical",
    0xCF: "hierarchical lossless", 0xDE: "hierarchical", 0xDF: "hierarchical", 0xF7: "JPEG-LS",
}  # fmt: skip
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
# DHT, DAC, DQT, DNL, DRI, APPn, COM: allowed before, between and after scans.
_WITH_LENGTH = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
_ZEROS = 2
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP0, _APP2, _APP14 = 0xE0, 0xE2, 0xEE

# libjpeg skips everything up to 0xFF followed by a byte that is neither a stuffed zero nor a fill
# byte. (One 0xFF suffices: `\xff+` would take quadratic time on a run of them.)
_NO_MARKER = (0x00, 0xFF)  # behind 0xFF
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_BEHIND_PIXELS = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def read_jpeg_header(data: bytes) -> ImageHeader:
    """Walks the segments (ITU-T T.81, B.1.1) up to the pixels of the first scan.

    Raises:
        BadImage: unsupported or corrupt.
        IndexError: If the file ends before.
        struct.error: If the file ends before.
    """
    at, frame = 2, 0
    while True:
        if data[at] != 0xFF or data[at + 1] in _NO_MARKER:  # without a search in the usual case
            at = _next_marker(data, at)
        marker = data[at + 1]
        if marker in _WITH_LENGTH:
            at = _end(data, at)
        elif marker in _ALONE:
            at += 2
        elif marker in _PROCESSES:
            if frame:
                raise BadImage("corrupt", f"byte {at}: the JPEG has a second frame header")
            frame, at = at, _end(data, at)
        elif marker == _SOS and frame:
            return _header(data, frame, scan=at)
        elif marker in _REFUSED:
            raise BadImage(
                "unsupported",
                f"a JPEG of the {_REFUSED[marker]} kind (marker 0x{marker:02X}): "
                "convert it to baseline JPEG or PNG",
            )
        elif marker in (_SOS, _EOI):
            raise BadImage("corrupt", f"byte {at}: pixels or the end come before the JPEG's size")
        else:
            raise BadImage("corrupt", f"byte {at}: 0x{marker:02X} starts no JPEG segment")


def _header(data: bytes, frame: int, *, scan: int) -> ImageHeader:
    """Builds the header from the offsets of the frame header and of the first scan."""
    length, bits, height, width, components = struct.unpack_from(">HBHHB", data, frame + 2)
    if bits != 8 or components not in (1, 3, 4):
        raise BadImage("unsupported", f"a JPEG of {components} components with {bits} bits each")
    if length != 8 + 3 * components:
        raise BadImage("corrupt", f"byte {frame}: a frame header of {length} bytes")
    if height == 0 and width:
        raise BadImage(
            "unsupported", "a JPEG that gives its height only after the pixels: save it again"
        )
    held = width * height if components == 4 else 0  # 4 bytes per pixel become 3 in place
    if data[frame + 1] in _PROGRESSIVE or data[scan + 4] < components:
        # All coefficients of the image, 2 bytes each, are kept until the last scan.
        sides = [data[frame + 11 + 3 * i] for i in range(components)]
        across, down = (max(1, *(side >> s & 15 for side in sides)) for s in (4, 0))
        blocks = sum((side >> 4) * (side & 15) for side in sides)
        held += 2 * width * height * blocks // (across * down)
        # Counting bytes is fast but may be too high, because thumbnails contain scans too.
        if data.count(b"\xff\xda", scan) > MAX_SCANS and _num_scans(data, scan) > MAX_SCANS:
            raise BadImage(
                "unsupported",
                f"a JPEG of {_num_scans(data, scan):,} scans, each as costly as an image: at most "
                f"{MAX_SCANS} are read; convert it to baseline JPEG",
            )
    return ImageHeader("jpeg", width, height, components, bits, held, scan)


def _next_marker(data: bytes, at: int) -> int:
    found = _MARKER.search(data, at)
    if found is None:
        raise IndexError("no further marker")
    return found.start()


def _end(data: bytes, at: int) -> int:
    """Returns the end of a segment; a length below its own size counts as empty, as in libjpeg."""
    length = data[at + 2] << 8 | data[at + 3]
    return at + 2 + length if length > 2 else at + 4


def _num_scans(data: bytes, at: int) -> int:
    scans = 0
    while found := _MARKER_BEHIND_PIXELS.search(data, at):
        at, marker = found.end(), found.group()[1]
        if marker in (_SOI, _EOI):
            break
        scans += marker == _SOS
        if marker in _WITH_LENGTH and at + 2 <= len(data):
            at = _end(data, found.start())
    return scans


def repaired(data: bytes) -> bytes | None:
    """Removes what libjpeg warns about although every pixel is intact.

    Removed: bytes that belong to no segment, zeros after the pixels, colour profiles (unused here),
    and everything after an only scan. Corrected: JFIF versions, Adobe colour transforms and scan
    parameters that no decoder knows. Added: a missing end marker, if every scan that the image
    needs has begun; the decoder finds out whether its pixels are complete.

    Returns:
        The file to decode instead, or None if there is nothing to repair.
    """
    try:
        header = read_jpeg_header(data)
        result = _rewritten(data, header)
    except (BadImage, IndexError, struct.error):
        return None
    return None if result is None or result == data else result


def _rewritten(data: bytes, header: ImageHeader) -> bytes | None:
    parts, at = [data[:2]], 2
    scans: list[bytes] = []
    frame, whole = b"", False  # whether the first scan has all components, and no other may follow
    between = {_SOS, *_ALONE, *_WITH_LENGTH}
    while True:
        found = _MARKER.search(data, at)
        marker = data[found.start() + 1] if found else None
        if marker == _EOI:
            break
        if found is None or (scans and (whole or marker not in between)):
            if not _is_complete(frame, scans):
                return None
            break
        start = found.start()
        at = start + 2 if marker in _ALONE else _end(data, start)
        if at > len(data):
            raise IndexError("the last segment is truncated")
        if marker == _SOS:
            scan = _sound_scan(data[start:at], frame)
            pixels, at = _pixels(data, at)
            scans.append(scan)
            whole = frame[1] not in _PROGRESSIVE and len(scan) == 8 + 2 * header.components
            parts += [scan, pixels]
        elif marker not in _ALONE:
            segment = _sound_segment(data[start:at], header)
            frame = segment if marker in _PROCESSES else frame
            parts.append(segment)
    return b"".join([*parts, b"\xff\xd9"])


def _pixels(data: bytes, at: int) -> tuple[bytes, int]:
    """Returns the entropy-coded bytes of a scan without zeros after them, and their end."""
    found = _MARKER_BEHIND_PIXELS.search(data, at)
    end = found.start() if found else len(data)
    filled = data[at:end].rstrip(b"\xff")  # fill bytes, or half a marker
    pixels = filled.rstrip(b"\0")
    # The first zero may belong to a stuffed 0xFF, another to the pixels: these cause no warning.
    return pixels + bytes(min(len(filled) - len(pixels), _ZEROS)), end


def _sound_segment(segment: bytes, header: ImageHeader) -> bytes:
    marker, content = segment[1], segment[4:]
    if marker == _APP2 and content.startswith(b"ICC_PROFILE\0"):
        return b""
    if marker == _APP0 and content.startswith(b"JFIF\0") and content[5:6] != b"\1":
        return segment[:9] + b"\1\1" + segment[11:]
    if marker == _APP14 and content.startswith(b"Adobe") and len(content) >= 12:
        known = (0, 1) if header.components == 3 else (0, 2)
        if content[11] not in known:  # what libjpeg then assumes: YCbCr or YCCK
            return segment[:15] + bytes([known[1]]) + segment[16:]
    return segment


def _sound_scan(scan: bytes, frame: bytes) -> bytes:
    """Corrects a sequential scan, which has all coefficients, whatever its header says."""
    return scan if frame[1] in _PROGRESSIVE else scan[:-3] + b"\0\x3f\0"


def _is_complete(frame: bytes, scans: list[bytes]) -> bool:
    """Returns whether there is a scan for the last bit of each coefficient."""
    # Pairs of component id and coefficient in zigzag order. A sequential scan says 0 to 63.
    missing = {(frame[10 + 3 * i], k) for i in range(frame[9]) for k in range(64)}
    for scan in scans:
        first, last, bits = scan[-3:]
        if bits & 15 == 0:  # point transform: the number of bits that later scans add
            components = scan[5:-3:2]
            missing -= {(c, k) for c in components for k in range(first, last + 1)}
    return not missing
