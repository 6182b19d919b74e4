# SPDX-License-Identifier: BSD-3-Clause
"""Archives by strangers: nothing leaves the folder of images, and nothing but an error ends it."""

import contextlib
import gzip
import io
import os
import random
import tarfile
import zlib
from pathlib import Path

import pytest

from mlimages_jax.data import archives
from mlimages_jax.data.archives import Archive, ArchiveError, DamagedArchiveError, is_tar
from mlimages_jax.image_shards.outcome import OK
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.extract.command import extract
from mlimages_jax.prepare.manifest import Manifest
from tests.support import fuzzing, image_files, imagenet_archives

JPEG = image_files.jpeg(image_files.quadrants())
PARTS = [
    "..", ".", "", "...", "a", "b", "images", "manifest.sqlite", "...tar", "..tar", ".tar", "a.tar",
    "b.tar", "C:", "a\\..\\b", "\\", "\0", "\udcff", "\u202e", "\x85", "\n", "x" * 99, "x" * 300,
    "é", "~", "CON", "a.JPEG", "out", "outside", "link",
]  # fmt: skip
TYPES = [
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
    tarfile.DIRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"Z", b"\0", b"g", b"x", b"L", b"K",
]  # fmt: skip
FORMATS = [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def odd_name(generator: random.Random) -> str:
    name = "/".join(generator.choices(PARTS, k=generator.randint(1, 4)))
    return generator.choice(["", "", "", "/", "../", "./"]) + name


def odd_tar(generator: random.Random, *, depth: int = 0) -> bytes:
    """Members with odd names, kinds, links and extensions, and tars within."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=generator.choice(FORMATS)) as tar:
        for _ in range(generator.randint(0, 5)):
            header = tarfile.TarInfo(odd_name(generator))
            content = JPEG if generator.random() < 0.5 else generator.randbytes(9)
            if header.name.endswith(".tar") and depth < 2:
                content = odd_tar(generator, depth=depth + 1)
            header.size = len(content)
            if generator.random() < 0.3:
                header.type = generator.choice(TYPES)
                header.linkname = generator.choice(["/etc/passwd", "..", "../../outside", "a"])
            if generator.random() < 0.2:
                key = generator.choice(["path", "size", "linkpath", "GNU.sparse.name", "charset"])
                header.pax_headers = {key: generator.choice(["-1", "9" * 40, "../x", "nan", ""])}
            with contextlib.suppress(UnicodeError, ValueError):  # tarfile cannot write all of them
                tar.addfile(header, io.BytesIO(content) if header.isreg() else None)
    return file.getvalue()


def damaged(data: bytes, generator: random.Random) -> bytes:
    """Some bytes are others, in headers whose sums are right again, and the end may be missing."""
    changed = bytearray(data)
    for _ in range(generator.randint(0, 3)):
        block = generator.randrange(0, max(len(data), 512), 512)
        at = block + generator.choice([0, 0, 100, 124, 130, 156, 157, 257, 345, 500])
        changed[at : at + 2] = generator.randbytes(2)
        header = changed[block : block + 512]
        header[148:156] = b" " * 8
        changed[block + 148 : block + 156] = b"%06o\0 " % sum(header)
    if generator.random() < 0.2:
        del changed[generator.randrange(len(changed) + 1) :]
    if generator.random() < 0.3:
        packed = gzip.compress(bytes(changed), 1)
        return packed[: generator.choice([len(packed), generator.randrange(len(packed))])]
    return bytes(changed)


def walk(path: Path) -> None:
    """Reads all that there is; only ArchiveError may come of it."""
    with Archive(path) as archive:
        for entry in archive.entries(on_error=lambda error: None):
            inside = [entry]
            if is_tar(entry):
                archives.folder_of(entry)
                inside = archive.entries(within=entry, on_error=lambda error: None)
            for member in inside:
                assert not {"", ".", ".."} & set(member.name.split("/"))
                with contextlib.suppress(ArchiveError):
                    archive.read(member)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def check_case(folder: Path, number: int) -> None:
    generator = random.Random(number)
    path = folder / "a.tar"
    path.write_bytes(damaged(odd_tar(generator), generator))
    with contextlib.suppress(ArchiveError):
        walk(path)
    if number % 5:  # taking the images out costs more
        return
    case = folder / str(number)
    (case / "outside").mkdir(parents=True)
    (case / "out/images").mkdir(parents=True)
    (case / "out/images/link").symlink_to(case / "outside")
    with contextlib.suppress(PrepareError):
        extract((path,), everything=True, output=case / "out", workers=1)
    assert files(case / "outside") == set()
    assert {name for name in files(case) if not name.startswith("out/images")} <= {
        "outside", "out", "out/manifest.lock", "out/manifest.sqlite", "out/finished_tars.tsv",
    }, number  # fmt: skip
    if (case / "out/manifest.sqlite").exists():
        with Manifest(case / "out/manifest.sqlite", readonly=True) as manifest:
            assert all(row.error != "internal" for row in manifest), number
            assert all((case / "out/images" / row.file).is_file()
                       for row in manifest if row.status == OK)  # fmt: skip


@pytest.mark.parametrize("numbers", [range(200)])
def test_odd_archives(tmp_path, numbers):
    for number in numbers:
        check_case(tmp_path, number)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_odd_archives_thoroughly(tmp_path):
    test_odd_archives(tmp_path, range(1000, 1000 + fuzzing.fraction(10_000)))


def test_what_stands_between_a_long_name_and_its_member(tmp_path):
    """A long link (K) after a long name (L), and records of all members (g), as git writes them."""
    name = "d/" + "n" * 150 + ".JPEG"
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, len(name) + 1
    long_link = tarfile.TarInfo("././@LongLink")
    long_link.type, long_link.size = tarfile.GNUTYPE_LONGLINK, 5
    for_all = tarfile.TarInfo("pax_global_header")
    for_all.type, for_all.size = tarfile.XGLTYPE, 15
    member = tarfile.TarInfo("cut short")
    member.size = len(JPEG)
    blocks = b""
    for header, data in ((for_all, b"15 comment=abc\n"), (long_name, name.encode() + b"\0"),
                         (long_link, b"link\0"), (member, JPEG)):  # fmt: skip
        blocks += header.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)
    (tmp_path / "a.tar").write_bytes(blocks + bytes(1024))
    errors: list[ArchiveError] = []
    (found,) = archives.members(tmp_path / "a.tar", on_error=errors.append)
    assert found.name == name and archives.read(tmp_path / "a.tar", found) == JPEG
    assert not errors


@pytest.mark.parametrize("where", ["before", "within", "behind"])
def test_a_few_bytes_that_unpack_to_very_many(tmp_path, monkeypatch, where):
    monkeypatch.setattr(archives, "_UNPACKED_BYTES", 2**20)
    zeros = bytes(2**24)
    contents = {"1.JPEG": JPEG, "2.JPEG": JPEG, "3.JPEG": JPEG}
    place = {"before": 0, "within": 1, "behind": 3}[where]
    pairs = [*contents.items()]
    if where != "behind":
        pairs.insert(place, ("zeros", zeros))
    data = imagenet_archives.tar(dict(pairs)) + (zeros if where == "behind" else b"")
    listed = tmp_path / "a.txt"
    listed.write_text("".join(f"{name}\t1:1\n" for name in contents))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(data, 9))
    most = 0
    read = gzip.GzipFile.read

    def watched(self, size=-1):
        nonlocal most
        found = read(self, size)
        most = max(most, self.tell())
        return found

    monkeypatch.setattr(gzip.GzipFile, "read", watched)
    with pytest.raises(PrepareError, match=r"damaged: .* bytes unpack to more than"):
        extract((path,), lists=(listed,), output=tmp_path / "out")
    assert most < 2**23
    assert len(list((tmp_path / "out/images").rglob("*.JPEG"))) == place


def test_a_disk_that_cannot_read_a_place_costs_one_inner_tar(tmp_path, monkeypatch):
    synsets = {f"n{i}": {f"n{i}_1.JPEG": JPEG} for i in range(3)}
    path = imagenet_archives.write_nested(tmp_path / "a.tar", synsets)
    with Archive(path) as archive:
        _, second, _ = archive.entries()
    go_to = Archive._go_to

    def bad_sector(self, offset, where):
        if offset == second.offset:
            raise OSError(5, "Input/output error")
        go_to(self, offset, where)

    monkeypatch.setattr(Archive, "_go_to", bad_sector)
    with pytest.raises(PrepareError, match=r"n1\.tar: .*Input/output error"):
        extract((path,), everything=True, output=tmp_path / "out")
    assert len(list((tmp_path / "out/images").rglob("*.JPEG"))) == 2


def test_gzip_that_is_damaged_in_the_middle_is_damage(tmp_path):
    path = imagenet_archives.write_nested(
        tmp_path / "a.tar.gz", {"n1": {"a": os.urandom(99_999)}}, compress=True
    )
    data = bytearray(path.read_bytes())
    data[50_000:50_100] = bytes(100)
    path.write_bytes(data)
    with Archive(path) as archive, pytest.raises((DamagedArchiveError, zlib.error)):
        list(archive.entries())
