# SPDX-License-Identifier: BSD-3-Clause
"""Images out of archives: what is taken, what is said about the rest, and after a kill."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tyro

from mlimages_jax.data.archives import Archive, Member
from mlimages_jax.data.images.decode import read_header, stored_jpeg
from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.labels.lists import LabelListError
from mlimages_jax.prepare import PrepareError, recorder, storing
from mlimages_jax.prepare.byte_budget import ByteBudget
from mlimages_jax.prepare.extract import extraction, selection
from mlimages_jax.prepare.extract.command import extract
from mlimages_jax.prepare.locking import alone
from mlimages_jax.prepare.manifest import Manifest
from mlimages_jax.prepare.storing import StorageError
from tests.support import image_files, imagenet_archives

COLOUR, GREY = image_files.jpeg(image_files.quadrants()), image_files.grey_jpeg()
BLOBS = image_files.jpeg(image_files.noise())
GOOD = {
    "n01440764": {"n01440764_18.JPEG": COLOUR, "n01440764_36.JPEG": GREY},
    "n01443537": {
        "n01443537_2.JPEG": image_files.GOOD["cmyk"](),
        "n01443537_7.JPEG": image_files.GOOD["png named .JPEG"](),
        "n01443537_9.JPEG": BLOBS,
    },
}
BAD = {
    "n00000009_1.JPEG": (image_files.truncated(BLOBS), "truncated"),
    "n00000009_2.JPEG": (image_files.HTML, "not_an_image"),
    "n00000009_3.JPEG": (b"See README\n", "not_an_image"),
    "n00000009_4.JPEG": (b"", "empty"),
    "n00000009_5.JPEG": (image_files.jpeg_bomb(), "too_large"),
}


def names(synsets: imagenet_archives.Synsets) -> list[str]:
    return [f"{synset}/{name}" for synset, files in synsets.items() for name in files]


def write_list(path: Path, rows: list[str]) -> Path:
    path.write_text("".join(f"{row}\t{i % 5}:1\t7:0.9\n" for i, row in enumerate(rows)))
    return path


def rows_of(output: Path) -> dict[str, Image]:
    with Manifest(output / "manifest.sqlite", readonly=True) as manifest:
        return {image.name: image for image in manifest}


def files_of(output: Path) -> dict[str, bytes]:
    images = output / "images"
    return {
        str(path.relative_to(images)): path.read_bytes()
        for path in images.rglob("*")
        if path.is_file()
    }


def check_agreement(output: Path) -> None:
    """Every OK row has its file, every file its OK row, and hashes and sizes are right."""
    rows = {row.file: row for row in rows_of(output).values() if row.status == OK}
    files = files_of(output)
    assert rows.keys() == files.keys()
    for file, data in files.items():
        assert (rows[file].file_sha256 or rows[file].sha256) == hashlib.sha256(data).digest()
        assert (rows[file].width, rows[file].height) == read_header(data)[1:3]
    assert not (output / "extracting").exists()


@pytest.mark.parametrize(
    ("folder", "compress"), [("", False), ("winter21_whole/", False), ("", True), ("x/", True)]
)
def test_listed_images_come_out_byte_for_byte_and_nothing_else(tmp_path, capsys, folder, compress):
    archive = imagenet_archives.write_nested(
        tmp_path / "whole.tar", GOOD, folder=folder, compress=compress
    )
    listed = [name for name in names(GOOD) if not name.endswith("_36.JPEG")]
    one = write_list(tmp_path / "train.txt", listed[:2])
    two = write_list(tmp_path / "val.txt", listed[1:])
    extract((archive,), lists=(one, two), output=tmp_path / "out")
    flat = {
        f"{synset}/{name}": data for synset, files in GOOD.items() for name, data in files.items()
    }
    assert files_of(tmp_path / "out") == {name: flat[name] for name in listed}
    check_agreement(tmp_path / "out")
    for name, row in rows_of(tmp_path / "out").items():
        assert row.source == "whole.tar" and row.num_bytes == len(flat[name])
        assert abs(row.time - time.time()) < 60
    printed = capsys.readouterr().out
    assert "5 files; 2 inner tars" in printed and "stored 4 in" in printed
    assert "of 4 names 4 present, 0 failed, 0 missing" in printed


def test_flat_archive_and_names_with_another_folder(tmp_path):
    files = {f"ILSVRC2012_val_{i:08}.JPEG": COLOUR for i in (1, 2, 3)}
    archive = imagenet_archives.write_flat(tmp_path / "val.tar", files)
    rows = write_list(tmp_path / "a.txt", [f"my val/{name}" for name in files][:2])
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert sorted(files_of(tmp_path / "out")) == [
        "my val/ILSVRC2012_val_00000001.JPEG", "my val/ILSVRC2012_val_00000002.JPEG",
    ]  # fmt: skip


def test_bad_images_are_rows_and_missing_ones_too(tmp_path, capsys):
    synsets = {**GOOD, "n00000009": {name: data for name, (data, _) in BAD.items()}}
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", synsets)
    rows = write_list(tmp_path / "a.txt", [*names(synsets), "n00000009/n00000009_77.JPEG"])
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    check_agreement(tmp_path / "out")
    found = rows_of(tmp_path / "out")
    assert {name for name, row in found.items() if row.status == OK} == set(names(GOOD))
    for name, (data, error) in BAD.items():
        row = found[f"n00000009/{name}"]
        assert (row.status, row.error, row.file) == (FAILED, error, None)
        assert row.message and row.source == "whole.tar"
        assert (row.num_bytes, row.sha256) == (len(data), hashlib.sha256(data).digest())
    missing = found["n00000009/n00000009_77.JPEG"]
    assert (missing.error, missing.source) == ("missing", None)
    assert missing.message == "in none of whole.tar"
    printed = capsys.readouterr().out
    assert "failed: 2 not_an_image, 1 truncated, 1 empty, 1 too_large" in printed
    assert "of 11 names 5 present, 5 failed, 1 missing" in printed


def test_shrinks_on_arrival(tmp_path):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", names(GOOD))
    extract((archive,), lists=(rows,), output=tmp_path / "out", short_side=16)
    check_agreement(tmp_path / "out")
    found, files = rows_of(tmp_path / "out"), files_of(tmp_path / "out")
    for synset, images in GOOD.items():
        for name, data in images.items():
            row = found[f"{synset}/{name}"]
            assert files[row.name] == stored_jpeg(data, short_side=16).jpeg
            assert row.sha256 == hashlib.sha256(data).digest()
            assert min(row.width, row.height) == 16


def test_hostile_and_broken_archives(tmp_path, capsys):
    good = imagenet_archives.tar(GOOD["n01440764"])
    hostile = {"../../evil.JPEG": COLOUR, "n00000005_1.JPEG": COLOUR}
    outer = {
        "n00000004.tar": b"garbage" * 500,
        "n00000005.tar": imagenet_archives.tar(hostile),
        "n01440764.tar": good,
        "n01443537.tar": imagenet_archives.tar(GOOD["n01443537"]),
    }
    data = imagenet_archives.tar(outer)
    archive = tmp_path / "cut.tar"
    archive.write_bytes(data[: data.index(b"n01443537_7.JPEG") + 520])
    rows = write_list(
        tmp_path / "a.txt", [*names(GOOD), "n00000005/n00000005_1.JPEG", "n00000005/evil.JPEG"]
    )
    with pytest.raises(PrepareError, match=r"1 of 1 archives are damaged: .*cut\.tar.*intact copy"):
        extract((archive,), lists=(rows,), output=tmp_path / "out")
    check_agreement(tmp_path / "out")
    ok = {name for name, row in rows_of(tmp_path / "out").items() if row.status == OK}
    assert ok == {
        "n01440764/n01440764_18.JPEG", "n01440764/n01440764_36.JPEG",
        "n01443537/n01443537_2.JPEG", "n00000005/n00000005_1.JPEG",
    }  # fmt: skip
    assert not list(tmp_path.parent.glob("evil*")) and not list(tmp_path.glob("evil*"))
    printed = capsys.readouterr().out
    for problem in ("n00000004.tar: corrupt", "'../../evil.JPEG'", "truncated"):
        assert problem in printed
    # A better copy of the archive brings the rest; one of its tars stays garbage.
    archive.write_bytes(data)
    with pytest.raises(PrepareError, match=r"n00000004\.tar: corrupt"):
        extract((archive,), lists=(rows,), output=tmp_path / "out")
    check_agreement(tmp_path / "out")
    ok = {name for name, row in rows_of(tmp_path / "out").items() if row.status == OK}
    assert ok == {*names(GOOD), "n00000005/n00000005_1.JPEG"}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("where", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("everything", [False, True])
def test_a_cut_archive_is_an_error_and_what_it_holds_is_kept(
    tmp_path, capsys, compress, where, everything
):
    sound = imagenet_archives.write_nested(tmp_path / "b.tar", {"n5": {"n5_1.JPEG": COLOUR}})
    cut = imagenet_archives.write_nested(tmp_path / "a.tar", GOOD, compress=compress)
    whole = cut.read_bytes()
    end = len(whole) if compress else len(whole.rstrip(b"\0"))
    cut.write_bytes(whole[: int(end * where)])
    rows = write_list(tmp_path / "a.txt", [*names(GOOD), "n5/n5_1.JPEG"])
    options = {"everything": True} if everything else {"lists": (rows,)}
    with pytest.raises(PrepareError, match=r"1 of 2 archives are damaged: .*a\.tar.*What could be"):
        extract((cut, sound), output=tmp_path / "out", **options)
    check_agreement(tmp_path / "out")
    found = rows_of(tmp_path / "out")
    assert found["n5/n5_1.JPEG"].status == OK  # of the archive behind the broken one
    assert "a.tar: 0 files" in capsys.readouterr().out or len(found) > 1
    if not everything:
        missing = [row.message for row in found.values() if row.error == "missing"]
        assert all("cannot be read to the end" in message for message in missing)
        assert missing or compress  # whose last bytes may be those of the end


def test_members_in_memory_are_bounded_in_bytes(tmp_path, monkeypatch):
    """What is compressed is read ahead of the workers, yet not more than they can hold."""
    monkeypatch.setattr(extraction, "_HELD_BYTES", 40_000)
    files = {f"{i}.JPEG": COLOUR + b"\0" * 9_000 for i in range(40)} | {"large": bytes(90_000)}
    archive = imagenet_archives.write_nested(tmp_path / "a.tar.gz", {"n1": files}, compress=True)
    held, most, read = [], [], Archive.read

    def watched_read(self, member):
        held.append(member.size)
        most.append(sum(held))
        return read(self, member)

    def slow_store(*arguments, **options):
        time.sleep(0.01)
        return storing.store(*arguments, **options)

    give = ByteBudget.give
    monkeypatch.setattr(Archive, "read", watched_read)
    monkeypatch.setattr(recorder, "store", slow_store)
    monkeypatch.setattr(
        ByteBudget, "give", lambda self, size: (held.remove(size), give(self, size))
    )
    extract((archive,), everything=True, output=tmp_path / "out", workers=2)
    assert len(files_of(tmp_path / "out")) == 40
    assert 20_000 < max(most) <= 90_000 and not held
    assert max(size for size in most if size != 90_000) <= 40_000


def test_any_error_of_one_member_is_its_row(tmp_path, monkeypatch):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", names(GOOD))

    def odd_store(unfinished, path, **options):
        if path.name == "n01440764_18.JPEG":
            raise RuntimeError("what\nnobody \udcff foresaw")
        if path.name == "n01443537_2.JPEG":
            raise StorageError("denied") from PermissionError(errno.EACCES, "denied", str(path))
        return storing.store(unfinished, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "store", odd_store)
        extract((archive,), lists=(rows,), output=tmp_path / "out")
    found = rows_of(tmp_path / "out")
    row = found["n01440764/n01440764_18.JPEG"]
    assert row.error == "internal"
    assert row.message.startswith(r"RuntimeError: what\nnobody \udcff foresaw (test_extract.py:")
    assert found["n01443537/n01443537_2.JPEG"].error == "storage"
    assert len(files_of(tmp_path / "out")) == 3
    extract((archive,), lists=(rows,), output=tmp_path / "again")
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert len(files_of(tmp_path / "out")) == 3  # its tar counts as finished, as for bad images


def test_many_internal_errors_end_it(tmp_path, monkeypatch):
    files = {f"{i}.JPEG": COLOUR for i in range(150)}
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", {"n1": files})

    def broken(*_, **__):
        raise RuntimeError("always")

    monkeypatch.setattr(recorder, "store", broken)
    with pytest.raises(PrepareError, match=r"100 of them in a row, the last one n1/99\.JPEG: Runt"):
        extract((archive,), everything=True, output=tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 100


def test_a_rerun_reads_nothing_that_is_there(tmp_path, capsys, monkeypatch):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", [*names(GOOD), "n5/n5_1.JPEG"])
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    before = rows_of(tmp_path / "out")
    monkeypatch.setattr(extraction, "_read", None)  # whoever reads an image fails
    capsys.readouterr()
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert rows_of(tmp_path / "out") == before
    printed = capsys.readouterr().out
    assert "0 files; 0 inner tars, and 2 finished before" in printed
    assert "of 6 names 5 present, 0 failed, 1 missing" in printed
    # Another list is another job, yet what is there stays as it is.
    more = write_list(tmp_path / "b.txt", ["n5/n5_2.JPEG"])
    extract((archive,), lists=(rows, more), output=tmp_path / "out")
    assert "5 files; 2 inner tars" in capsys.readouterr().out
    assert rows_of(tmp_path / "out").items() > before.items()


def test_files_that_were_deleted_come_again(tmp_path):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", names(GOOD))
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    files = files_of(tmp_path / "out")
    (tmp_path / "out/images/n01443537/n01443537_2.JPEG").unlink()
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert files_of(tmp_path / "out") == files
    check_agreement(tmp_path / "out")


def test_a_corrupt_inner_tar_is_entered_again_when_it_has_been_mended(tmp_path):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", names(GOOD))
    whole = bytearray(archive.read_bytes())
    at = whole.index(b"n01443537_7.JPEG")
    whole[at] ^= 1
    archive.write_bytes(whole)
    with pytest.raises(PrepareError, match=r"n01443537\.tar: corrupt"):
        extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert len(files_of(tmp_path / "out")) == 3
    whole[at] ^= 1
    archive.write_bytes(whole)
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert len(files_of(tmp_path / "out")) == 5
    check_agreement(tmp_path / "out")


def test_an_image_that_could_not_be_read_is_tried_again(tmp_path, monkeypatch):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", names(GOOD))
    read = Archive.read

    def bad_sector(self: Archive, member: Member) -> bytes:
        if member.name == "n01440764_18.JPEG":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(self, member)

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "read", bad_sector)
        extract((archive,), lists=(rows,), output=tmp_path / "out")
    row = rows_of(tmp_path / "out")["n01440764/n01440764_18.JPEG"]
    assert (row.status, row.error) == (FAILED, "unreadable") and "Input/output" in str(row.message)
    assert len(files_of(tmp_path / "out")) == 4
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert len(files_of(tmp_path / "out")) == 5
    check_agreement(tmp_path / "out")


def test_the_same_images_under_other_names_are_another_job(tmp_path):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    for folder in ("one", "two"):
        rows = write_list(tmp_path / f"{folder}.txt", [f"{folder}/{name}" for name in names(GOOD)])
        extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert len(files_of(tmp_path / "out")) == 10
    check_agreement(tmp_path / "out")


def test_names_whose_hashes_collide_are_told_apart(tmp_path, monkeypatch):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    wanted_names = names(GOOD)[1:]
    rows = write_list(tmp_path / "a.txt", [*wanted_names, *wanted_names])
    monkeypatch.setattr(selection, "_digest", lambda name: bytes(8))
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert sorted(files_of(tmp_path / "out")) == sorted(wanted_names)


def test_what_is_compressed_is_read_in_order_by_one_thread(tmp_path, monkeypatch):
    synsets = {**GOOD, "n00000009": {name: data for name, (data, _) in BAD.items()}}
    archive = imagenet_archives.write_nested(tmp_path / "a.tar.gz", synsets, compress=True)
    rows = write_list(tmp_path / "a.txt", names(synsets))
    read, readers = Archive.read, []

    def watched(self: Archive, member: Member) -> bytes:
        readers.append(threading.current_thread())
        return read(self, member)

    monkeypatch.setattr(Archive, "read", watched)
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert readers == [threading.main_thread()] * 10
    check_agreement(tmp_path / "out")


def test_a_file_without_a_row_does_not_stay_where_its_image_is_bad(tmp_path):
    """As a kill between the two may leave it, if the next archive has the image broken."""
    synsets = {"n9": {"n9_2.JPEG": image_files.HTML}}
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", synsets)
    left = tmp_path / "out/images/n9/n9_2.JPEG"
    left.parent.mkdir(parents=True)
    left.write_bytes(COLOUR)
    rows = write_list(tmp_path / "a.txt", names(synsets))
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    check_agreement(tmp_path / "out")


def test_a_second_archive_brings_what_the_first_did_not_have_or_had_broken(tmp_path):
    broken = {"n01440764": {"n01440764_18.JPEG": COLOUR[:-9], "n01440764_36.JPEG": GREY}}
    first = imagenet_archives.write_nested(tmp_path / "fall11_whole.tar", broken)
    second = imagenet_archives.write_nested(tmp_path / "winter21_whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", names(GOOD))
    extract((first, second), lists=(rows,), output=tmp_path / "at once")
    extract((first,), lists=(rows,), output=tmp_path / "later")
    errors = [row.error for row in rows_of(tmp_path / "later").values()]
    assert sorted(map(str, errors)) == ["None", *["missing"] * 3, "truncated"]
    extract((second,), lists=(rows,), output=tmp_path / "later")
    for output in (tmp_path / "at once", tmp_path / "later"):
        check_agreement(output)
        sources = {name: row.source for name, row in rows_of(output).items()}
        assert sources == dict.fromkeys(names(GOOD), "winter21_whole.tar") | {
            "n01440764/n01440764_36.JPEG": "fall11_whole.tar"
        }


def test_the_second_copy_counts_only_if_the_first_is_bad(tmp_path):
    flat = {"a/1.JPEG": image_files.HTML, "b/1.JPEG": COLOUR, "c/1.JPEG": GREY}
    padding = {f"p/p{i}.JPEG": b"" for i in range(1000)}  # more than the workers look ahead
    files = {"a/1.JPEG": flat["a/1.JPEG"], **padding, "b/1.JPEG": COLOUR, "c/1.JPEG": GREY}
    archive = imagenet_archives.write_flat(tmp_path / "val.tar", files)
    rows = write_list(tmp_path / "a.txt", ["x/1.JPEG", *padding])
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert files_of(tmp_path / "out") == {"x/1.JPEG": COLOUR}
    check_agreement(tmp_path / "out")


def test_everything_takes_all_members_under_their_names(tmp_path, capsys):
    synsets = {**GOOD, "n00000009": {"n00000009_2.JPEG": image_files.HTML}}
    archive = imagenet_archives.write_nested(tmp_path / "train.tar", synsets)
    for expected in ("stored 5", "stored 0"):
        extract((archive,), everything=True, output=tmp_path / "out")
        assert expected in capsys.readouterr().out
        assert sorted(files_of(tmp_path / "out")) == sorted(names(GOOD))
        assert rows_of(tmp_path / "out")["n00000009/n00000009_2.JPEG"].error == "not_an_image"
        check_agreement(tmp_path / "out")
    (tmp_path / "out/finished_tars.tsv").unlink()
    extract((archive,), everything=True, output=tmp_path / "out")
    assert "stored 0" in capsys.readouterr().out


def test_everything_survives_names_that_are_file_and_folder(tmp_path):
    files = {"a": COLOUR, "a/b": COLOUR, "c/d": GREY, "c": GREY}
    archive = imagenet_archives.write_flat(tmp_path / "a.tar", files)
    extract((archive,), everything=True, output=tmp_path / "out", workers=1)
    assert sorted(files_of(tmp_path / "out")) == ["a", "c/d"]
    check_agreement(tmp_path / "out")
    assert rows_of(tmp_path / "out")["a/b"].error == "name_clash"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("../../evil.JPEG", "is not a safe file name"),
        ("/etc/evil.JPEG", "is not a safe file name"),
        ("a//b.JPEG", "is not a safe file name"),
        ("a/./b.JPEG", "is not a safe file name"),
        ("a\\b.JPEG", "is not a safe file name"),
        ("n/" + "e" * 254, "is not a safe file name"),
        ("https://farm1.staticflickr.com/1/2_o.jpg", "fetch URLs with `download`"),
    ],
)
def test_unsafe_names_in_lists_are_refused_with_their_line(tmp_path, row, what):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", [*names(GOOD), row, "n1/n1_1.JPEG"])
    with pytest.raises(PrepareError, match=rf"a\.txt:6: .*{what}"):
        extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert files_of(tmp_path / "out") == {}


def test_no_inner_tar_leads_out_of_the_folder(tmp_path, capsys):
    inner = {"evil.JPEG": COLOUR, "images/evil.JPEG": COLOUR}
    outer = {name: imagenet_archives.tar(inner) for name in ("...tar", "a/...tar", "..tar")}
    archive = imagenet_archives.write_flat(tmp_path / "a.tar", outer | {"good.JPEG": GREY})
    extract((archive,), everything=True, output=tmp_path / "out")
    assert not list(tmp_path.rglob("evil*"))
    assert files_of(tmp_path / "out") == {"good.JPEG": GREY}
    assert capsys.readouterr().out.count(": skipped '") == 3


def test_a_link_below_the_images_leads_nowhere_else(tmp_path):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    (tmp_path / "out/images").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/images/n01440764").symlink_to(tmp_path / "elsewhere")
    rows = write_list(tmp_path / "a.txt", names(GOOD))
    for options in ({"lists": (rows,)}, {"everything": True}):
        extract((archive,), output=tmp_path / "out", **options)
        assert not list((tmp_path / "elsewhere").iterdir())
        found = rows_of(tmp_path / "out")
        assert found["n01440764/n01440764_18.JPEG"].error == "unsafe_name"
        assert found["n01443537/n01443537_2.JPEG"].status == OK


@pytest.mark.parametrize("file", ["/etc/hosts", "../out/manifest.lock", "n1/../../../x", "n1", "."])
def test_a_manifest_by_others_leads_nowhere_else(tmp_path, file):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", names(GOOD))
    (tmp_path / "out").mkdir()
    (name, *_) = names(GOOD)
    with Manifest(tmp_path / "out/manifest.sqlite") as manifest:
        manifest.put([Image(name=name, status=OK, time=0.0, file=file)])
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert len(files_of(tmp_path / "out")) == 5  # the row counted for nothing
    check_agreement(tmp_path / "out")


@pytest.mark.parametrize("row", ["..a.JPEG", "a../b.JPEG", "a/...", ".hidden/b", "-r"])
def test_odd_names_are_fine(tmp_path, row):
    archive = imagenet_archives.write_flat(tmp_path / "a.tar", {row: COLOUR})
    extract((archive,), lists=(write_list(tmp_path / "a.txt", [row]),), output=tmp_path / "out")
    assert files_of(tmp_path / "out") == {row: COLOUR}


def test_what_is_wrong_from_the_start_is_said_at_the_start(tmp_path):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", names(GOOD))
    page = tmp_path / "page.tar"
    page.write_bytes(image_files.HTML * 20)
    twice = write_list(tmp_path / "twice.txt", ["a/1.JPEG", "b/1.JPEG"])
    bad = tmp_path / "bad.txt"
    bad.write_text("a.JPEG\t1:1\nb.JPEG\tx\n")
    a_file = tmp_path / "file"
    a_file.touch()
    out = tmp_path / "out"
    for archives, lists, options, error, message in (
        ((archive, page), (rows,), {}, PrepareError, r"page\.tar: corrupt at byte 0.*Is it a tar"),
        ((), (rows,), {}, PrepareError, "no archive"),
        ((archive,), (), {}, PrepareError, "either --lists"),
        ((archive,), (rows,), {"everything": True}, PrepareError, "either --lists"),
        ((archive,), (rows,), {"short_side": 0}, PrepareError, "--short-side 0"),
        ((archive,), (twice,), {}, PrepareError, r"a/1\.JPEG and b/1\.JPEG"),
        ((archive,), (bad,), {}, LabelListError, r"bad\.txt:2"),
        ((tmp_path / "no.tar",), (rows,), {}, FileNotFoundError, r"no\.tar"),
        ((archive,), (tmp_path / "no.txt",), {}, FileNotFoundError, r"no\.txt"),
        (
            (archive,),
            (rows,),
            {"output": a_file / "out"},
            PrepareError,
            r"file/out.*Not a directory",
        ),
    ):
        with pytest.raises(error, match=message):
            extract(archives, lists=lists, **({"output": out} | options))
    assert not any(out.rglob("*.JPEG"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_no_more_ends_the_job_with_a_true_manifest(tmp_path, monkeypatch, code):
    synsets = {f"n{i:08}": {f"n{i:08}_{j}.JPEG": COLOUR for j in range(10)} for i in range(60)}
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", synsets)
    rows = write_list(tmp_path / "a.txt", names(synsets))
    write_bytes, written = Path.write_bytes, []

    def full(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) > 350:
            raise OSError(code, os.strerror(code), str(path))
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(PrepareError, match=rf"{os.strerror(code)}.*run the same command again"):
            extract((archive,), lists=(rows,), output=tmp_path / "out")
    found = rows_of(tmp_path / "out")
    assert 0 < len(found) <= 350 and all(row.status == OK for row in found.values())
    assert found.keys() <= files_of(tmp_path / "out").keys()
    extract((archive,), lists=(rows,), output=tmp_path / "out")
    assert sorted(files_of(tmp_path / "out")) == sorted(names(synsets))
    check_agreement(tmp_path / "out")


def test_two_jobs_do_not_share_a_folder(tmp_path):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", names(GOOD))
    (tmp_path / "out").mkdir()
    with (
        alone(tmp_path / "out/manifest.lock"),
        pytest.raises(PrepareError, match="another job writes here"),
    ):
        extract((archive,), lists=(rows,), output=tmp_path / "out")


def test_command_line(tmp_path, capsys):
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", GOOD)
    rows = write_list(tmp_path / "a.txt", names(GOOD))
    out = tmp_path / "out"
    tyro.cli(extract, args=[str(archive), "--lists", str(rows), "--output", str(out)])
    assert len(files_of(out)) == 5
    tyro.cli(extract, args=[str(archive), "--all", "--output", str(tmp_path / "all")])
    assert len(files_of(tmp_path / "all")) == 5
    with pytest.raises(SystemExit):
        tyro.cli(extract, args=["--help"])
    assert "fall11_whole.tar" in capsys.readouterr().out


JOB = """
import sys
from pathlib import Path
from mlimages_jax.prepare.extract.command import extract
archive, rows, output = map(Path, sys.argv[1:])
extract((archive,), lists=(rows,), output=output, short_side=16, workers=2)
"""


def kill_at(images: int, *arguments: Path) -> None:
    """Starts a job in the last of `arguments`, and kills it when it has so many images."""
    command = [sys.executable, "-c", JOB, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        while sum(1 for _ in arguments[-1].glob("images/*/*")) < images:
            assert job.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        job.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("compress", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_started_again(tmp_path, compress):
    synsets = {f"n{i:08}": {f"n{i:08}_{j}.JPEG": BLOBS for j in range(30)} for i in range(30)}
    synsets["n00000003"]["n00000003_1.JPEG"] = image_files.HTML
    archive = imagenet_archives.write_nested(tmp_path / "whole.tar", synsets, compress=compress)
    rows = write_list(tmp_path / "a.txt", [*names(synsets), "n1/n1_1.JPEG"])
    out = tmp_path / "out"
    for images in (1, 350):
        kill_at(images, archive, rows, out)
        ok = {name for name, row in rows_of(out).items() if row.status == OK}
        assert ok <= files_of(out).keys()  # no row is ever without its file
    extract((archive,), lists=(rows,), output=out, short_side=16)
    check_agreement(out)
    found = rows_of(out)
    assert {name for name, row in found.items() if row.status == FAILED} == {
        "n00000003/n00000003_1.JPEG", "n1/n1_1.JPEG",
    }  # fmt: skip
    assert len(found) == 901


def test_real_images_in_the_original_nesting(tmp_path, stamps_dir):
    """Two hundred stamps, whose first word is their synset."""
    real = {}
    for path in sorted((stamps_dir / "images").iterdir())[::5]:
        synset = path.name.split("_")[0]
        real.setdefault(synset, {})[path.name] = path.read_bytes()
    archive = imagenet_archives.write_nested(tmp_path / "fall11_whole.tar", real)
    lists = tuple(stamps_dir / f"{split}_image_list.txt" for split in ("train", "val"))
    extract((archive,), lists=lists, output=tmp_path / "out")
    check_agreement(tmp_path / "out")
    found = rows_of(tmp_path / "out")
    rows = [line.split("\t")[0] for path in lists for line in path.read_text().splitlines()]
    taken = {name: data for files in real.values() for name, data in files.items()}
    assert files_of(tmp_path / "out") == {name: taken[name] for name in rows if name in taken}
    assert {name for name, row in found.items() if row.error == "missing"} == {*rows} - {*taken}
