# SPDX-License-Identifier: BSD-3-Clause
"""What img2dataset leaves, in each of its formats: what came is a row, the rest is counted."""

import functools
import json

import pyarrow
import pytest

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.door import import_any
from tests.support import image_sets
from tests.support.image_sets import fetched, rows_of, write_tar
from tests.tfds_builders.built_set import records

import_lists = functools.partial(import_any, lists_only=True, val_fraction=0)
# (key, whether it came, labels) of two shards
SHARDS = {
    "00000": [("000000000", True, ["dog", "cat"]), ("000000001", False, ["dog"]),
              ("000000002", True, ["cat"])],
    "00001": [("000010000", True, []), ("000010001", False, ["dog"])],
}  # fmt: skip
MEANT = {key: labels for rows in SHARDS.values() for key, came, labels in rows if came}
DATA = dict(zip(MEANT, image_sets.images(3), strict=True))


def write(folder, kind: str) -> None:
    """The folder of img2dataset after two shards."""
    for shard, rows in SHARDS.items():
        keys, came, labels = zip(*rows, strict=True)
        statuses = ["success" if one else "failed_to_download" for one in came]
        columns = fetched(keys, statuses, labels)
        stats = {"count": len(rows), "successes": sum(came), "failed_to_resize": 0,
                 "failed_to_download": len(rows) - sum(came), "status_dict": {}}  # fmt: skip
        if kind == "parquet":
            columns["jpg"] = pyarrow.array([DATA.get(key) for key in keys], pyarrow.binary())
        image_sets.write_parquet(folder / f"{shard}.parquet", pyarrow.table(columns))
        (folder / f"{shard}_stats.json").write_text(json.dumps(stats))
        if kind == "files":
            (folder / shard).mkdir()
            for key in DATA.keys() & {*keys}:
                (folder / shard / f"{key}.jpg").write_bytes(DATA[key])
                (folder / shard / f"{key}.json").write_text("{}")
                (folder / shard / f"{key}.txt").write_text("a caption")
        if kind == "webdataset":
            write_tar(folder / f"{shard}.tar", {
                name: content for key, one in zip(keys, labels, strict=True) if key in DATA
                for name, content in ((f"{key}.jpg", DATA[key]), (f"{key}.txt", f"caption {key}"),
                                      (f"{key}.json", {"labels": one, "status": "success"}))
            })  # fmt: skip


@pytest.mark.parametrize("kind", ["files", "webdataset", "parquet"])
def test_what_came_is_built_and_the_rest_counted(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "got", kind)
    import_any(tmp_path / "got", val_fraction=0)
    folder = tmp_path / "data/got/released_320/1.0.0"
    ids = ("cat", "dog")
    built = {
        one["image"]: sorted(ids[i] for i in one["labels"]) for one in records(folder, "train")
    }
    assert built == {DATA[key]: sorted(labels) for key, labels in MEANT.items()}
    said = capsys.readouterr().out
    assert "img2dataset's counts: 5 addresses, 3 images, 2 not downloaded, 0 not resized" in said
    left_out = "left out: 2 addresses without an image (2 failed_to_download)"
    assert (left_out in said) == (kind != "webdataset")  # whose tars do not know of them
    assert not (tmp_path / "got_lists/set_aside.tsv").exists()


def test_images_that_are_files_stay_where_they_are(tmp_path):
    write(tmp_path / "got", "files")
    import_lists(tmp_path / "got", output=tmp_path / "out")
    assert rows_of(tmp_path / "out", "train") == {
        "00000/000000000.jpg": ["dog", "cat"], "00000/000000002.jpg": ["cat"],
        "00001/000010000.jpg": [],
    }  # fmt: skip
    assert (tmp_path / "out/images").resolve() == tmp_path / "got"


def test_columns_can_be_chosen_and_unfinished_shards_are_said(tmp_path, capsys):
    write(tmp_path / "got", "files")
    (tmp_path / "got/00001_stats.json").write_text("{")
    import_lists(tmp_path / "got", output=tmp_path / "out", label_columns=("status",))
    assert rows_of(tmp_path / "out", "train")["00001/000010000.jpg"] == ["success"]
    assert "; 1 shard without counts: img2dataset did not finish there" in capsys.readouterr().out


def test_keys_cannot_lead_out_of_the_folder(tmp_path):
    write(tmp_path / "got", "files")
    columns = fetched(["../../secret", "000000000", None], ["success"] * 3, [["x"], ["dog"], ["y"]])
    image_sets.write_parquet(tmp_path / "got/00000.parquet", pyarrow.table(columns))
    import_lists(tmp_path / "got", output=tmp_path / "out")
    names = {*rows_of(tmp_path / "out", "train")}
    assert names == {"00000/000000000.jpg", "00001/000010000.jpg"}
    aside = (tmp_path / "out/set_aside.tsv").read_text()
    assert "leads out of its folder" in aside and "has no key" in aside


def test_tables_without_images_are_said(tmp_path):
    write(tmp_path / "got", "files")
    for path in (tmp_path / "got").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(PrepareError, match="there is no image beside the tables of img2dataset"):
        import_lists(tmp_path / "got", output=tmp_path / "out")
