# SPDX-License-Identifier: BSD-3-Clause
"""Sets from image shards: the same files as from single images, whatever is where."""

import pickle
import shutil

import fsspec
import pytest

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards import layout, repeated
from mlimages_jax.labels.lists import LabelList
from tests.support import image_files
from tests.support.image_shards import failed, ok, write
from tests.tfds_builders.built_set import records, write_manual_dir
from tfds_builders import ml_images
from tfds_builders.images.image_shards import find_in_shards
from tfds_builders.images.places import Folder
from tfds_builders.ml_images import __main__ as command


@pytest.fixture
def manual_dir(tmp_path):
    return write_manual_dir(tmp_path / "manual")


def put(place, tmp_path, folder, names, stem="a-0"):
    """Moves images into a shard; in the manifest the name is a URL, as after a download."""
    contents, images = {}, []
    for name in names:
        path = folder / "images" / name
        contents[f"http://{name}"] = path.read_bytes()
        images.append(ok(f"http://{name}", path.read_bytes(), file=name))
        path.unlink()
    write(place, tmp_path, [*images, failed("http://gone")], stem, contents)


def checksums(folder):
    names = ("checksums.txt", "skipped.tsv", "dictionary.txt")
    return [(folder / name).read_bytes() for name in names]


@pytest.mark.parametrize("short_side", [None, 24])
def test_a_set_from_shards_equals_that_from_files(manual_dir, tmp_path, short_side):
    expected = ml_images.build(manual_dir, tmp_path / "files", short_side=short_side)
    bucket = f"memory://{tmp_path.name}/set"
    put(manual_dir, tmp_path, manual_dir, ["a/red.jpg", "cmyk.jpg"])
    put(manual_dir, tmp_path, manual_dir, ["deep.png"], stem="a-1")
    put(bucket, tmp_path, manual_dir, ["b/red.jpg", "none.jpg"])  # and grey.jpg is a file
    found = ml_images.build(
        manual_dir, tmp_path / "shards", short_side=short_side, image_shards=[bucket]
    )
    assert checksums(found) == checksums(expected)
    assert len(records(found, "train")) == 5
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_without_a_folder_of_images(manual_dir, tmp_path, capsys):
    names = ["a/red.jpg", "b/red.jpg", "grey.jpg", "cmyk.jpg", "none.jpg", "deep.png"]
    put(tmp_path / "set", tmp_path, manual_dir, names)
    shutil.rmtree(manual_dir / "images")
    words = [f"--manual-dir={manual_dir}", f"--data-dir={tmp_path / 'data'}", "--name=mine"]
    with pytest.raises(SystemExit, match="images/ or shards/, is not in"):
        command.main(words)
    words += ["--image-shards", str(tmp_path / "set"), "--verified"]
    command.main(words)
    command.main(words)
    assert len(set(capsys.readouterr().out.split())) == 1
    write(tmp_path / "set", tmp_path, [ok("other")], stem="b-0")
    with pytest.raises(SystemExit, match="source of train: differs"):
        command.main(words)


def test_images_that_are_nowhere_are_told_before_the_build(manual_dir, tmp_path):
    put(tmp_path / "set", tmp_path, manual_dir, ["a/red.jpg", "deep.png", "none.jpg"])
    shutil.rmtree(manual_dir / "images")
    with pytest.raises(ValueError, match=r"split train: 2 of 5 .* --image-shards"):
        ml_images.build(
            manual_dir, tmp_path / "data", max_skipped=0.1, image_shards=[str(tmp_path / "set")]
        )
    assert not list(tmp_path.glob("data/**/*.array_record*"))


def test_shards_of_an_unfinished_run_are_noted(manual_dir, tmp_path, caplog):
    put(manual_dir, tmp_path, manual_dir, ["grey.jpg"])
    ml_images.build(manual_dir, tmp_path / "data", short_side=24)
    assert f"{manual_dir}: no run here came to its end" in caplog.text
    folder = ObjectFolder(manual_dir)
    repeated.judge(folder, layout.manifest_names(folder), max_copies=9)
    caplog.clear()
    ml_images.build(manual_dir, tmp_path / "data", short_side=24)
    assert "no run here" not in caplog.text


def test_what_counts_of_several_rows(tmp_path):
    """The latest image of a name, and no placeholder."""
    place = tmp_path / "set"
    images = [ok("new", b"1", time=1.0), ok("old", b"2", time=9.0), ok("gone", b"x"), ok("g", b"x")]
    write(place, tmp_path, images, contents={"new": b"1", "old": b"2", "gone": b"x", "g": b"x"})
    again = [ok("new", b"3", time=2.0), ok("old", b"4", time=8.0), failed("old", time=99.0)]
    write(place, tmp_path, again, "b-0", contents={"new": b"3", "old": b"4"})
    folder = ObjectFolder(place)
    repeated.judge(folder, layout.manifest_names(folder), max_copies=2)
    names = ["old.jpg", "gone.jpg", "new.jpg", "absent.jpg", "old.jpg"]
    rows = LabelList.from_rows(((name, [0], [1.0]) for name in names), num_classes=5)
    lists = {"train": rows}
    places = find_in_shards([str(place)], lists, {"train": Folder(tmp_path)})["train"]
    assert [places.place(i, names[i]).read() for i in (0, 2, 4)] == [b"2", b"3", b"2"]
    for i in (1, 3):
        with pytest.raises(FileNotFoundError):
            places.place(i, names[i]).read()
    assert pickle.loads(pickle.dumps(places.place(0, names[0]))).read() == b"2"


def test_no_label_gets_the_image_of_another_shard(tmp_path):
    """Small files of records all have the same size."""
    place = tmp_path / "set"
    for stem in "ab":
        write(place, tmp_path, [ok(stem)], f"{stem}-0")
    a, b = place / "shards/a-0.array_record", place / "shards/b-0.array_record"
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    rows = LabelList.from_rows([("a.jpg", [0], [1.0]), ("b.jpg", [0], [1.0])], num_classes=1)
    places = find_in_shards([str(place)], {"train": rows}, {"train": Folder(tmp_path)})["train"]
    with pytest.raises(OSError, match=r"a-0\.array_record is another image \('b'\)"):
        places.place(0, "a.jpg").read()
    assert places.place(1, "b.jpg").read() == b"image b" and len(data) == b.stat().st_size


def test_damage_in_a_shard_is_a_skipped_image(manual_dir, tmp_path):
    names = ["a/red.jpg", "grey.jpg", "cmyk.jpg", "none.jpg", "deep.png"]
    data = image_files.jpeg(image_files.quadrants())
    put(manual_dir, tmp_path, manual_dir, names)
    path = manual_dir / "shards/a-0.array_record"
    content = path.read_bytes()
    place = content.index(data) + 100
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    folder = ml_images.build(manual_dir, tmp_path / "data", max_skipped=0.5)
    (line,) = (folder / "skipped.tsv").read_text().splitlines()[1:]
    assert line.split("\t")[1:3] == ["a/red.jpg", "unreadable"]
    assert "record 0 of" in line and "copy it again" in line
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"a-0\.array_record: .* bytes instead of"):
        ml_images.build(manual_dir, tmp_path / "data")
