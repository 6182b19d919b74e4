# SPDX-License-Identifier: BSD-3-Clause
"""Coverage and label lists from any mix of manifests: files, folders, image shards, buckets."""

import fsspec
import pytest

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards import layout, repeated
from mlimages_jax.image_shards.layout import ImageShardError
from mlimages_jax.image_shards.outcome import FAILED, OK
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.coverage import coverage
from mlimages_jax.prepare.label_lists import labels
from mlimages_jax.prepare.manifest import Manifest
from mlimages_jax.prepare.outcomes import open_outcomes
from tests.support.image_shards import failed, ok, write


def put(path, *images):
    path.parent.mkdir(exist_ok=True)
    with Manifest(path) as manifest:
        manifest.put(images)


def statuses(places, names):
    with open_outcomes(places) as opened:
        found = {}
        for one in opened:
            found |= {
                name: image.status
                for name, image in one.get(names).items()
                if found.get(name) != OK
            }
        return [found.get(name) for name in names]


def test_any_mix_of_manifests(tmp_path):
    """Two machines' files in one folder each, shards on a disk and in a bucket, some of both."""
    put(tmp_path / "a/manifest-00000-of-00002.sqlite", ok("1"), failed("2"))
    put(tmp_path / "a/manifest-00001-of-00002.sqlite", ok("3"))
    put(tmp_path / "b.sqlite", failed("1"), ok("4"))
    write(tmp_path / "a", tmp_path, [ok("2"), failed("3")], stem="a-0")
    write(tmp_path / "a", tmp_path, [failed("5"), ok("6")], stem="a-1")
    bucket = f"memory://{tmp_path.name}/set"
    write(bucket, tmp_path, [ok("5"), failed("7")])
    names = list("12345678")
    assert statuses([tmp_path / "a", tmp_path / "b.sqlite", bucket], names) == [
        OK, OK, OK, OK, OK, OK, FAILED, None,
    ]  # fmt: skip
    parquet = tmp_path / "a/shards/a-1.parquet"
    assert statuses([str(parquet)], ["2", "5", "6"]) == [None, FAILED, OK]
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_many_files_give_what_few_give(tmp_path):
    paths = [tmp_path / f"{i}.sqlite" for i in range(12)]
    for i, path in enumerate(paths):
        put(path, ok(f"image {i}"), failed(f"image {i + 1}"), failed("all"))
    names = [f"image {i}" for i in range(14)] + ["all"]
    expected = [OK] * 12 + [FAILED, None, FAILED]
    assert statuses(paths, names) == expected
    assert statuses(paths[:6], names)[:7] == [OK] * 6 + [FAILED]


def test_places_without_a_manifest(tmp_path):
    with pytest.raises(PrepareError, match="no manifest in this folder; give"):
        statuses([tmp_path], [])
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(PrepareError, match="not in a folder shards/"):
        statuses([tmp_path / "table.parquet"], [])
    with pytest.raises(FileNotFoundError, match="there is no such manifest"):
        statuses([tmp_path / "manifest.sqlite"], [])
    write(tmp_path, tmp_path, [ok("1")])
    (tmp_path / "shards/a-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImageShardError, match="not the intact manifest"):
        statuses([tmp_path], [])


def test_lists_and_coverage_of_shards(tmp_path, capsys):
    place = tmp_path / "set"
    images = [ok("u1"), ok("u2", b"gone"), ok("u3", b"gone"), failed("u4")]
    write(place, tmp_path, images, contents={"u2": b"gone", "u3": b"gone"})
    (tmp_path / "list.txt").write_text("u4 1:1\nu1 0:1\nu2 1:1\nu5 1:1\nu3 0:1\n")
    coverage((tmp_path / "list.txt",), manifests=(str(place),))
    printed = capsys.readouterr()
    assert (
        "count as images" in printed.err and "present                             " in printed.out
    )
    assert printed.out.splitlines()[1].split() == ["present", "3", "60.00%"]
    repeated.judge(ObjectFolder(place), layout.manifest_names(ObjectFolder(place)), max_copies=2)
    coverage((tmp_path / "list.txt",), manifests=(str(place),))
    printed = capsys.readouterr()
    counts = {line[:30].strip(): int(line.split()[-2]) for line in printed.out.splitlines()[1:]}
    assert counts["failed"] == 3 and counts["placeholder"] == 2 and counts["not tried"] == 1
    labels([tmp_path / "list.txt"], output=tmp_path / "new.txt", manifests=(str(place),))
    assert (tmp_path / "new.txt").read_text().split() == ["u1.jpg", "0:1"]
