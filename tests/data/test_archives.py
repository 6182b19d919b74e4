# SPDX-License-Identifier: BSD-3-Clause
"""Reading archives: against the tarfile module, whole, cut anywhere, damaged and hostile."""

import functools
import gzip
import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlimages_jax.data.archives import (
    MAX_MEMBER_BYTES,
    Archive,
    ArchiveError,
    folder_of,
    is_tar,
    members,
    read,
)
from tests.support import imagenet_archives

SYNSETS = {
    "n01440764": {"n01440764_18.JPEG": b"fish" * 200, "n01440764_36.JPEG": b""},
    "n01443537": {"n01443537_2.JPEG": b"goldfish", "n01443537_3.JPEG": b"\0" * 1024},
}
FLAT = {
    f"{synset}/{name}": data for synset, files in SYNSETS.items() for name, data in files.items()
}


def contents(path: Path, **options) -> dict[str, bytes]:
    return {member.name: read(path, member) for member in members(path, **options)}


def with_member(change, name: str = "n1_1.JPEG", data: bytes = b"x") -> bytes:
    """A tar of a file, of one more that `change` makes unusable, and of a third."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for header, content in (
            (tarfile.TarInfo("first.JPEG"), b"1"),
            (tarfile.TarInfo(name), data),
            (tarfile.TarInfo("last.JPEG"), b"9"),
        ):
            header.size = len(content)
            if header.name == name:
                change(header)
            archive.addfile(header, io.BytesIO(content) if header.isreg() else None)
    return file.getvalue()


def unended_gzip(data: bytes) -> bytes:
    """All of `data`, compressed, without what marks the end."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb") as packer:
        packer.write(data)
        packer.flush()
        return file.getvalue()


def stream(path: Path, *, on_error=None):
    """Yields names and functions that read, for any archive, in its order."""
    with Archive(path) as archive:
        for entry in archive.entries(on_error=on_error):
            inside = archive.entries(within=entry, on_error=on_error) if is_tar(entry) else [entry]
            folder = f"{folder_of(entry)}/" if is_tar(entry) else ""
            for member in inside:
                yield folder + member.name, functools.partial(archive.read, member)


def unchanged(header: tarfile.TarInfo) -> None:
    del header


@pytest.mark.parametrize("folder", ["", "winter21_whole/", "./"])
def test_inner_tars_become_folders_and_images_have_places_in_the_outer_file(tmp_path, folder):
    path = imagenet_archives.write_nested(tmp_path / "train.tar", SYNSETS, folder=folder)
    assert contents(path) == FLAT
    whole = path.read_bytes()
    for member in members(path):
        data = FLAT[member.name]
        assert whole[member.offset : member.offset + member.size] == data
    assert {name: get() for name, get in stream(path)} == FLAT


def test_flat_archive_keeps_its_names(tmp_path):
    files = {f"ILSVRC2012_val_{i:08}.JPEG": bytes([i]) * i for i in range(1, 30)}
    path = imagenet_archives.write_flat(tmp_path / "val.tar", files)
    assert contents(path) == files
    path = imagenet_archives.write_flat(tmp_path / "val.tar", {f"val/{n}": files[n] for n in files})
    assert contents(path) == {f"val/{name}": data for name, data in files.items()}


def test_compressed_archive_is_a_stream_whatever_its_name(tmp_path):
    path = imagenet_archives.write_nested(tmp_path / "whole.tar", SYNSETS, compress=True)
    assert {name: get() for name, get in stream(path)} == FLAT
    assert [name for name, _ in stream(path)] == list(FLAT)  # without reading them
    with pytest.raises(ArchiveError, match=r"whole\.tar: compressed; decompress it with gunzip"):
        list(members(path))


def test_any_thread_may_read_while_another_walks(tmp_path):
    synsets = {
        f"n{i:08}": {f"n{i:08}_{j}.JPEG": os.urandom(999) for j in range(50)} for i in range(9)
    }
    path = imagenet_archives.write_nested(tmp_path / "train.tar", synsets)
    with Archive(path) as archive, path.open("rb") as file, ThreadPoolExecutor(8) as pool:
        found = {
            member.name: (pool.submit(archive.read, member), pool.submit(read, file, member))
            for tar in archive.entries()
            for member in archive.entries(within=tar)
        }
        for files in synsets.values():
            for name, data in files.items():
                assert [future.result() for future in found[name]] == [data, data]
        assert file.tell() == 0


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path, tar_format):
    files = {
        "a" * 60 + "/" + "b" * 130 + ".JPEG": b"long",
        "Größe 1.JPEG": b"umlaut",
        "c": b"short",
    }
    path = tmp_path / "long.tar"
    path.write_bytes(imagenet_archives.tar(files, tar_format=tar_format))
    assert contents(path) == files


def test_pax_size_is_the_size(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a", "b"):
            header = tarfile.TarInfo(name)
            header.size, header.pax_headers = 600, {"size": "600", "comment": "x" * 900}
            archive.addfile(header, io.BytesIO(name.encode() * 600))
    data = bytearray(file.getvalue())
    for at in range(0, len(data), 512):  # the plain field says 0, as for files of over 8 GB
        if data[at : at + 2] in (b"a\0", b"b\0"):
            data[at + 124 : at + 136] = b"00000000000\0"
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    (tmp_path / "pax.tar").write_bytes(data)
    assert contents(tmp_path / "pax.tar") == {"a": b"a" * 600, "b": b"b" * 600}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../../evil.JPEG", "not safe"),
        ("n1/../../evil.JPEG", "not safe"),
        ("/etc/evil.JPEG", "not safe"),
        ("a\\..\\evil.JPEG", "not safe"),
        ("evil\n.JPEG", "not safe"),
        (".", "not safe"),
        ("...tar", "'..' is not safe"),
        ("a/...tar", "'..' is not safe"),
        ("..tar", "'.' is not safe"),
        (".tar", "'' is not safe"),
        ("C:/evil.JPEG", "not safe"),
        ("e" * 256, "longer than 255 bytes"),
        ("first.JPEG", "same name"),
        ("./first.JPEG", "same name"),
    ],
)
def test_hostile_names_are_left_out_and_reported(tmp_path, name, why):
    path = tmp_path / "hostile.tar"
    path.write_bytes(with_member(unchanged, name))
    errors: list[ArchiveError] = []
    assert contents(path, on_error=errors.append) == {"first.JPEG": b"1", "last.JPEG": b"9"}
    (error,) = errors
    assert str(path) in str(error) and "at byte" in str(error) and why in str(error)
    with pytest.raises(ArchiveError, match=why):
        list(members(path))


def test_name_that_is_no_utf_8(tmp_path):
    path = tmp_path / "latin.tar"
    path.write_bytes(with_member(unchanged, "Gr\udcf6\udcdfe.JPEG"))
    errors: list[ArchiveError] = []
    assert list(contents(path, on_error=errors.append)) == ["first.JPEG", "last.JPEG"]
    assert "not UTF-8" in str(errors[0])
    str(errors[0]).encode()  # and the message can be printed


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_are_left_out(tmp_path, kind):
    def change(header: tarfile.TarInfo) -> None:
        header.type, header.linkname, header.size = kind, "/etc/passwd", 0

    path = tmp_path / "links.tar"
    path.write_bytes(with_member(change))
    errors: list[ArchiveError] = []
    assert list(contents(path, on_error=errors.append)) == ["first.JPEG", "last.JPEG"]
    assert "neither a file nor a folder" in str(errors[0])


def test_folders_are_no_problem(tmp_path):
    def change(header: tarfile.TarInfo) -> None:
        header.type, header.size = tarfile.DIRTYPE, 0

    (tmp_path / "a.tar").write_bytes(with_member(change, "folder"))
    assert list(contents(tmp_path / "a.tar")) == ["first.JPEG", "last.JPEG"]


def test_corrupt_inner_tar_is_skipped_and_the_next_is_read(tmp_path):
    good = imagenet_archives.tar(SYNSETS["n01440764"])
    damaged = bytearray(good)
    damaged[1536 + 10] ^= 1  # in the second header
    inner = {
        "n01.tar": b"<html>no tar</html>" * 100,
        "n02.tar": bytes(damaged),
        "n03.tar": good[:1536],
        "n04.tar": b"",
        "n05.tar": good,
    }
    path = tmp_path / "train.tar"
    path.write_bytes(imagenet_archives.tar(inner))
    errors: list[ArchiveError] = []
    found = contents(path, on_error=errors.append)
    first, second = SYNSETS["n01440764"]
    assert list(found) == [f"n02/{first}", f"n03/{first}", f"n05/{first}", f"n05/{second}"]
    for error, tar, what in zip(
        errors,
        ["n01", "n02", "n03", "n04"],
        ["corrupt at byte 512,", "corrupt at byte", "truncated", "truncated"],
        strict=True,
    ):
        assert f"{path}: {tar}.tar: {what}" in str(error)
    with pytest.raises(ArchiveError, match=r"n01\.tar"):
        list(members(path))


def test_inner_tar_without_an_end_mark_does_not_run_into_the_next(tmp_path):
    inner = {
        f"{synset}.tar": imagenet_archives.tar(files)[: 512 * 4]
        for synset, files in {"n1": {"a": b"1", "b": b"2"}, "n2": {"c": b"3", "d": b"4"}}.items()
    }
    path = tmp_path / "train.tar"
    path.write_bytes(imagenet_archives.tar(inner))
    errors: list[ArchiveError] = []
    assert list(contents(path, on_error=errors.append)) == ["n1/a", "n1/b", "n2/c", "n2/d"]
    assert len(errors) == 2


@pytest.mark.parametrize("compress", [False, True])
def test_truncated_anywhere_gives_all_that_is_complete_and_an_error(tmp_path, compress):
    whole = imagenet_archives.write_nested(tmp_path / "whole.tar", SYNSETS).read_bytes()
    places = {
        member.name: member.offset + member.size for member in members(tmp_path / "whole.tar")
    }
    path = tmp_path / "cut.tar"
    for end in [*range(1, len(whole) - 10_000, 211), 512, 1024, 1536]:
        path.write_bytes(unended_gzip(whole[:end]) if compress else whole[:end])
        errors: list[ArchiveError] = []
        if end < 512:
            with pytest.raises(ArchiveError, match=r"Is it a tar\?"):
                list(stream(path, on_error=errors.append))
            continue
        found = {}
        for name, get in stream(path, on_error=errors.append):
            try:
                found[name] = get()
            except ArchiveError as error:
                errors.append(error)
        assert found == {name: FLAT[name] for name, stop in places.items() if stop <= end}
        assert errors and all(str(path) in str(error) for error in errors)


def test_what_is_no_tar_is_refused_even_when_errors_are_collected(tmp_path):
    for data in (
        b"",
        b"short",
        b"<!DOCTYPE html>" * 100,
        gzip.compress(b"no tar" * 200),
        b"\x1f\x8b",
    ):
        path = tmp_path / "page.tar"
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match=r"page\.tar"):
            list(stream(path, on_error=lambda error: None))


def test_damaged_compression(tmp_path):
    path = imagenet_archives.write_nested(
        tmp_path / "a.tar.gz", {"n1": {"n1_1.JPEG": os.urandom(99_999)}}, compress=True
    )
    data = bytearray(path.read_bytes())
    data[-4] ^= 255  # the length that the compressor noted
    path.write_bytes(data)
    errors: list[ArchiveError] = []
    assert [name for name, _ in stream(path, on_error=errors.append)] == ["n1/n1_1.JPEG"]
    assert f"{path}: cannot be decompressed" in str(errors[0])
    data[50_000:50_100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(ArchiveError):
        for _, get in stream(path):
            get()


@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"\x80" + b"\0" * 6 + b"\xff" * 5]
)
def test_absurd_sizes_end_the_walk(tmp_path, size):
    data = bytearray(imagenet_archives.tar({"a": b"1", "b": b"2"}))
    data[1024 + 124 : 1024 + 136] = size
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    (tmp_path / "a.tar").write_bytes(data)
    errors: list[ArchiveError] = []
    assert contents(tmp_path / "a.tar", on_error=errors.append) == {"a": b"1"}
    assert len(errors) == 1


def test_reading_refuses_what_is_too_large_or_gone(tmp_path):
    path = imagenet_archives.write_flat(tmp_path / "a.tar", {"a": b"1" * 600})
    (member,) = members(path)
    with pytest.raises(ArchiveError, match=r"a has 268,435,457 bytes"):
        read(path, member._replace(size=MAX_MEMBER_BYTES + 1))
    os.truncate(path, 900)
    with pytest.raises(ArchiveError, match="truncated within a"):
        read(path, member)


@settings(max_examples=60, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 14_000), st.integers(1, 255)), max_size=6))
def test_flipped_bytes_never_give_wrong_places_or_other_errors(tmp_path_factory, flips):
    folder = tmp_path_factory.mktemp("flips")
    path = imagenet_archives.write_nested(folder / "train.tar", SYNSETS)
    data = bytearray(path.read_bytes())
    for at, mask in flips:
        data[at % len(data)] ^= mask
    path.write_bytes(data)
    try:
        for member in members(path, on_error=lambda error: None):
            assert 0 <= member.offset <= member.offset + member.size <= len(data)
            assert not member.name.startswith("/") and ".." not in member.name.split("/")
            assert len(read(path, member)) == member.size
    except ArchiveError as error:
        assert "Is it a tar?" in str(error)
