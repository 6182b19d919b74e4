# SPDX-License-Identifier: BSD-3-Clause
"""Names of file formats that are recognised but not supported, for helpful messages."""

import re

# (offset, bytes, name) of images.
_IMAGES: list[tuple[int, bytes, str]] = [
    (0, b"8BPS\0", "a PSD file"),
    (0, b"%PDF-", "a PDF file"),
    (0, b"%!PS", "a PostScript (EPS) file"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (0, b"\xff\x0a", "a JPEG XL file"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file"),
    (0, b"II\xbc\x01", "a JPEG XR file"),
    (0, b"v/1\x01", "an OpenEXR file"),
    (0, b"#?RADIANCE", "a Radiance HDR file"),
    (0, b"#?RGBE", "a Radiance HDR file"),
    (0, b"gimp xcf", "a GIMP (XCF) file"),
    (0, b"icns\0", "an ICNS file"),
    (0, b"DDS |\0\0\0", "a DDS file"),
    (0, b"AT&TFORM", "a DjVu file"),
    (0, b"SIMPLE  =", "a FITS file"),
    (8, b"ACON", "an animated cursor (ANI)"),
    (0, b"\x01\0\x09\0\0\x03", "a WMF file"),
    (522, b"\0\x11\x02\xff", "a PICT file"),
    (522, b"\x11\x01", "a PICT file"),
    (10, b"\0\x11\x02\xff\x0c\0", "a PICT file"),
    (0, b"R\xcc", "a Utah RLE file"),
    (0, b"\xab\x01", "a VIFF file"),
    (4, b"\0\0\0\x07\0\0\0", "an XWD file"),
    (0, b"FLIF", "a FLIF file"),
    (0, b"Image type: ", "an IM file"),
    (0, b"SDPX", "a DPX file"),
    (0, b"XPDS", "a DPX file"),
    (0, b"\x80\x2a\x5f\xd7", "a Cineon file"),
    (344, b"n+1\0", "a NIfTI file"),
    (344, b"ni1\0", "a NIfTI file"),
    (0, b"\x5c\x01\0\0", "the header of an Analyze or NIfTI file"),
    (0, b"\0\0\x01\x5c", "the header of an Analyze or NIfTI file"),
    (0, b"\x0e\x03\x13\x01", "an HDF4 file"),
    (0, b"%!\n", "a PostScript (EPS) file"),
    (0, b"%!\r", "a PostScript (EPS) file"),
    (0, b"\x89HDF\r\n", "an HDF5 file"),
    (0, b"CDF\x01", "a NetCDF file"),
    (0, b"\x01\xda\x00", "an SGI file"),
    (0, b"\x01\xda\x01", "an SGI file"),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster file"),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF file"),
    (0, b"farbfeld", "a farbfeld file"),
    (0, b"n\xc3\xafE", "an NIE file"),
    (0, b"FTEX", "an FTEX texture"),
    (0, b"DanM", "an MSP file"),
    (0, b"LinS", "an MSP file"),
    (20, b"GIMP", "a GIMP brush"),
    (2048, b"PCD_", "a Photo CD file"),
    (0, b"/* XPM", "an XPM file"),
    (0, b"#define ", "an XBM file"),
    (0, b"BPG\xfb", "a BPG file"),
    (0, b"\x0a\x05\x01", "a PCX file"),
    (0, b"\x0a\x03\x01", "a PCX file"),
    (0, b"\x0a\x02\x01", "a PCX file"),
    (0, b"\xb1\x68\xde\x3a", "a DCX file"),
    (0, b"\x80\xe8\0\0", "a Pixar file"),
    (0, b"BLP1\0\0\0\0", "a BLP file"),
    (0, b"BLP2\1\0\0\0", "a BLP file"),
    (0, b"\x8bJNG\r\n\x1a\n", "a JNG file"),
    (0, b"\x8aMNG\r\n\x1a\n", "an MNG file"),
    (0, b"P7\n", "a PAM file"),
    (0, b"PF\n", "a PFM file"),
    (0, b"Pf\n", "a PFM file"),
    (0, b"P7 332", "an XV thumbnail"),
    (40, b" EMF", "an EMF file"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\x08\0\x05\0CS", "a DICOM file"),
    (0, b"\0\x08\0\x05CS", "a DICOM file"),
    (25, b"ARECOYK", "a camera's RAW file (Kyocera)"),
    (0, b"IIRO\x08\0\0\0", "a camera's RAW file (ORF)"),
    (0, b"IIRS\x08\0\0\0", "a camera's RAW file (ORF)"),
    (0, b"MMOR\0\0\0\x08", "a camera's RAW file (ORF)"),
    (0, b"IIU\0", "a camera's RAW file (RW2)"),
    (0, b"FUJIFILMCCD-RAW", "a camera's RAW file (RAF)"),
    (0, b"FOVb", "a camera's RAW file (X3F)"),
    (0, b"\0MRM", "a camera's RAW file (MRW)"),
    (6, b"HEAPCCDR", "a camera's RAW file (CRW)"),
    (4, b"ftypcrx ", "a camera's RAW file (CR3)"),
    (4, b"\x11\xaf", "an FLI animation"),
    (4, b"\x12\xaf", "an FLC animation"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office or FlashPix file"),
]
_OTHERS: list[tuple[int, bytes, str]] = [
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (8, b"AVI LIST", "an AVI video"),
    (8, b"WAVEfmt ", "a WAV file"),
    (36, b"acsp", "a colour profile (ICC)"),
    (0, b"OggS", "an Ogg file"),
    (0, b"FLV\x01", "a Flash video"),
    (0, b"\0\0\x01\xba", "an MPEG video"),
    (0, b"\0\0\x01\xb3", "an MPEG video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file"),
    (0, b"ID3\x02", "an MP3 file"),
    (0, b"ID3\x03", "an MP3 file"),
    (0, b"ID3\x04", "an MP3 file"),
    (0, b"fLaC", "a FLAC file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"PK\x05\x06", "a ZIP archive"),
    (0, b"\x1f\x8b\x08", "a gzip file"),
    (4, b"1AY&SY", "a bzip2 file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\x93NUMPY", "a NumPy array"),
]
_SVG = re.compile(
    rb"(?:<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE svg[^>\[]*(?:\[[^\]]*\]\s*)?>|\s)*<(?:\w+:)?svg[\s>]",
    re.S,
)
_HTML = re.compile(
    rb"(?:<\?xml[^>]*>|<!--.*?-->|\s)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_VIDEO = re.compile(rb"\0...(?:ftyp|moov|mdat|wide|free|skip|pnot)", re.S)
_OS2 = re.compile(rb"(?:BA|CI|CP|IC|PT)[\x0c-\xff]\0\0\0", re.S)
_DIB = re.compile(rb"\x28\0\0\0.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0[\0-\x06]\0\0\0", re.S)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TGA_END = b"TRUEVISION-XFILE.\0"


def recognised(data: bytes) -> str | None:
    """Names a recognised but unsupported format, such as "a PSD file"; None if it is unknown."""
    for place, magic, name in _IMAGES + _OTHERS:
        if data.startswith(magic, place):
            return name
    if _VIDEO.match(data):
        return "a video (MP4, QuickTime)"
    if _SVG.match(data[:4096].removeprefix(_BYTE_ORDER_MARK)):
        return "an SVG drawing"
    if _DIB.match(data):
        return "a BMP without the header of a file (DIB)"
    if _OS2.match(data):
        return "an icon of OS/2"
    return "a TGA file" if data.endswith(_TGA_END) or _is_tga(data) else None


def _is_tga(data: bytes) -> bool:
    """Detects TGA, which has no magic, by consistent colour map, kind, size and depth."""
    if len(data) < 18 or not any(data[12:14]) or not any(data[14:16]):
        return False
    plain = data[1] == 0 and data[2] in (2, 3, 10, 11) and not any(data[3:8])
    mapped = data[1] == 1 and data[2] in (1, 9) and data[7] in (8, 15, 16, 24, 32)
    return (plain or mapped) and data[16] in (1, 8, 15, 16, 24, 32) and data[17] < 64


def is_no_image(data: bytes) -> bool:
    """Returns whether the first bytes are those of an archive, a video or the like."""
    known = any(data.startswith(magic, place) for place, magic, _ in _OTHERS)
    return known or bool(_VIDEO.match(data))


def is_html(data: bytes) -> bool:
    """Returns whether a file is a web page, as servers send instead of a deleted image."""
    return bool(_HTML.match(data[:4096].removeprefix(_BYTE_ORDER_MARK)))
