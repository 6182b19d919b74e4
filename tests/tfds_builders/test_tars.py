# SPDX-License-Identifier: BSD-3-Clause
"""Images inside of tars in the folder of images: found by name, read in place."""

import os
import tarfile

import pytest

from mlimages_jax.labels.lists import LabelList
from tests.support import image_files, imagenet_archives
from tests.support.five_classes import CLASS_LIST
from tests.tfds_builders.built_set import records
from tfds_builders import ml_images
from tfds_builders.images.tars import find_images
from tfds_builders.ml_images import __main__ as command

IMAGES = {f"{i}.jpg": image_files.jpeg(image_files.noise(32, 40 + i)) for i in range(4)}


def lists_of(**rows: list[str]) -> dict[str, LabelList]:
    return {
        split: LabelList.from_rows(((name, [0], [1.0]) for name in names), num_classes=5)
        for split, names in rows.items()
    }


@pytest.fixture
def manual_dir(tmp_path):
    """Two tars and a file; train and val share one of the tars."""
    folder = tmp_path / "manual"
    (folder / "images/below.tar").mkdir(parents=True)  # a folder, whatever its name says
    (folder / "dictionary.txt").write_text(CLASS_LIST)
    (folder / "train_image_list.txt").write_text(
        "a.tar/0.jpg\t0\nb/c.tar/in/2.jpg\t1\nplain.jpg\t2\nbelow.tar/x.jpg\t3\n"
    )
    (folder / "val_image_list.txt").write_text("a.tar/odd \\x20name.jpg\t4\n")
    images = folder / "images"
    (images / "a.tar").write_bytes(
        imagenet_archives.tar({"0.jpg": IMAGES["0.jpg"], "odd  name.jpg": IMAGES["1.jpg"]})
    )
    (images / "b").mkdir()
    (images / "b/c.tar").write_bytes(imagenet_archives.tar({"./in/2.jpg": IMAGES["2.jpg"]}))
    (images / "plain.jpg").write_bytes(IMAGES["3.jpg"])
    (images / "below.tar/x.jpg").write_bytes(IMAGES["3.jpg"])
    return folder


def test_images_come_out_of_tars_as_they_are(manual_dir, tmp_path):
    folder = ml_images.build(manual_dir, tmp_path / "data", short_side=None)
    found = {one["name"]: (one["image"], one["labels"]) for one in records(folder, "train")}
    assert found == {
        "a.tar/0.jpg": (IMAGES["0.jpg"], [0]),
        "b/c.tar/in/2.jpg": (IMAGES["2.jpg"], [1]),
        "plain.jpg": (IMAGES["3.jpg"], [2]),
        "below.tar/x.jpg": (IMAGES["3.jpg"], [3]),
    }
    (val,) = records(folder, "val")
    assert (val["image"], val["labels"]) == (IMAGES["1.jpg"], [4])


def test_a_finished_set_is_kept_until_a_tar_changes(manual_dir, tmp_path, capsys):
    words = [f"--manual-dir={manual_dir}", f"--data-dir={tmp_path / 'data'}", "--name=mine"]
    command.main(words)
    command.main(words)
    assert len(set(capsys.readouterr().out.split())) == 1
    tar = manual_dir / "images/a.tar"
    os.utime(tar, ns=(1, 1))
    with pytest.raises(SystemExit, match="source of train: differs"):
        command.main(words)


def test_what_a_tar_lacks_is_missing(manual_dir, tmp_path):
    rows = "a.tar/0.jpg\t0\na.tar/absent.jpg\t0\na.tar/link.jpg\t0\nc.tar/1.jpg\t0\n"
    (manual_dir / "train_image_list.txt").write_text(rows)
    with tarfile.open(manual_dir / "images/a.tar", "a") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    folder = ml_images.build(manual_dir, tmp_path / "data")
    assert [one["name"] for one in records(folder, "train")] == ["a.tar/0.jpg"]
    lines = (folder / "skipped.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[1:3] for line in lines] == [
        ["a.tar/absent.jpg", "missing"], ["a.tar/link.jpg", "missing"], ["c.tar/1.jpg", "missing"],
    ]  # fmt: skip
    assert "a.tar has no member absent.jpg" in lines[0]


def test_a_name_never_leads_out_of_the_folder(manual_dir, tmp_path):
    (tmp_path / "secret.tar").write_bytes(imagenet_archives.tar({"1.jpg": IMAGES["1.jpg"]}))
    (manual_dir / "images/out").symlink_to(tmp_path)
    names = ["../../secret.tar/1.jpg", f"{tmp_path}/secret.tar/1.jpg", "out/secret.tar/1.jpg"]
    places = find_images(manual_dir / "images", lists_of(train=names))["train"]
    for i, name in enumerate(names):
        with pytest.raises(OSError, match=r"Not a directory|no such file"):
            places.place(i, name).read()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no tar" * 200, "Is it a tar"), (b"\x1f\x8b\x08" + bytes(600), "decompress it with gunzip")],
)
def test_what_is_no_tar_is_said(manual_dir, tmp_path, content, message):
    (manual_dir / "images/a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=rf"images/a\.tar: .*{message}"):
        ml_images.build(manual_dir, tmp_path / "data")


def test_lists_without_tars_are_not_searched(manual_dir, monkeypatch):
    monkeypatch.setattr(LabelList, "__getitem__", None)
    lists = lists_of(train=["a.jpg", "tar/b.jpg"])
    assert find_images(manual_dir / "images", lists)["train"].path == manual_dir / "images"
