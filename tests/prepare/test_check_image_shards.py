# SPDX-License-Identifier: BSD-3-Clause
"""`data check` of image shards: what changed since they were written is found and named."""

import fsspec
import pytest

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards import reader
from mlimages_jax.image_shards.reader import RecordPlace, ShardFolder
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.check.command import check
from tests.support.image_shards import content_of, failed, ok, write


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    place = tmp_path / "set" if request.param == "disk" else f"memory://{tmp_path.name}"
    for stem in ("a-0", "a-1", "a-2"):
        write(place, tmp_path, [ok(f"{stem} {i}") for i in range(3)] + [failed("x")], stem=stem)
    write(place, tmp_path, [failed("y")], stem="a-3")  # without images
    yield ObjectFolder(place)
    if request.param == "bucket":
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def changed(folder, name, *, at):
    """Changes one byte of a file."""
    data = bytearray(folder.read(name))
    data[at] ^= 1
    folder.write(name, bytes(data))


def test_intact_shards(folder, capsys):
    check(folder.place)
    assert capsys.readouterr().out.splitlines()[-1] == "4 image shards: no problems"


def test_what_changed_is_named(folder, tmp_path, capsys):
    changed(folder, "shards/a-0.array_record", at=40_000)  # where ArrayRecord has only padding
    folder.write("shards/a-1.array_record", folder.read("shards/a-1.array_record")[:-1])
    folder.remove("shards/a-2.array_record")
    folder.write("shards/a-3.parquet", b"none")
    with pytest.raises(PrepareError, match="4 of 4 image shards cannot be used"):
        check(folder.place, report=tmp_path / "report.tsv")
    lines = (tmp_path / "report.tsv").read_text().splitlines()[1:]
    for line, name, word in zip(
        lines,
        ("a-0", "a-1", "a-2", "a-3"),
        ("CRC-32C", "131,071 bytes instead of 131,072", "a-2.array_record", "not the intact"),
        strict=True,
    ):
        assert line.startswith(f"shards/{name}.parquet\t") and word in line
    assert lines[0].count("copy it again from where it was written")


def test_options_of_built_sets_are_refused(folder):
    with pytest.raises(PrepareError, match="omit --splits"):
        check(folder.place, sample=3)


def test_bytes_that_change_on_the_way_are_copied_again(tmp_path, monkeypatch, caplog):
    """Of a store that ArrayRecord cannot read, files are copied; here the first copy is damaged."""
    place = f"memory://{tmp_path.name}"
    write(place, tmp_path, [ok(str(i)) for i in range(3)])
    (manifest,) = ShardFolder(place).manifests
    path = ObjectFolder(place).path(manifest.records)
    monkeypatch.setattr(reader, "_readers", reader._Readers())
    monkeypatch.setattr(reader, "_copies", [])
    copy_to, copies = ObjectFolder.copy_to, []

    def flipping(self, name, target):
        copy_to(self, name, target)
        copies.append(target)
        if len(copies) == 1:
            changed(ObjectFolder(target.parent), target.name, at=40_000)

    monkeypatch.setattr(ObjectFolder, "copy_to", flipping)
    assert RecordPlace(path, 1).read() == ("1", content_of("1"))
    assert len(copies) == 2 and not caplog.records
    changed(ObjectFolder(place), manifest.records, at=40_000)  # now in the bucket itself
    monkeypatch.setattr(reader, "_readers", reader._Readers())
    monkeypatch.setattr(reader, "_copies", [])
    assert RecordPlace(path, 1).read() == ("1", content_of("1"))
    assert len(copies) == 4 and "bytes have changed" in caplog.text
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
