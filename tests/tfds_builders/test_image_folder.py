# SPDX-License-Identifier: BSD-3-Clause
"""Folders of images as people have them: ImageNet's as others pack it, and classes of one's own."""

import gzip
import random
from pathlib import Path

import pytest

from mlimages_jax.labels.hierarchy import Hierarchy
from tests.support import fuzzing, image_files, imagenet_archives
from tests.tfds_builders.built_set import records
from tfds_builders import image_folder, imagenet
from tfds_builders.image_folder import __main__ as command
from tfds_builders.imagenet import classes, manual_files
from tfds_builders.imagenet.listing import list_images
from tfds_builders.imagenet.own_classes import OwnImages, class_folder

TENCH, SHARK = "n01440764", "n01484850"
IMAGE = image_files.jpeg(image_files.quadrants())


def _write(folder: Path, *names: str, data: bytes | None = None) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(IMAGE if data is None else data)


def _listed(folder: Path, split: str, *, subset: bool = True) -> dict[str, str]:
    listing = list_images(manual_files.find_source(folder, split), subset=subset)
    return dict(zip(listing.names, listing.classes, strict=True))


# ---------- ImageNet


@pytest.fixture
def kaggle(tmp_path) -> Path:
    root = tmp_path / "kaggle"
    images = root / "ILSVRC" / "Data" / "CLS-LOC"
    _write(images, f"train/{TENCH}/{TENCH}_1.JPEG", f"train/{SHARK}/{SHARK}_2.JPEG")
    _write(images, "val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG")
    _write(images, "test/ILSVRC2012_test_00000001.JPEG")
    _write(root / "ILSVRC", "ImageSets/CLS-LOC/val.txt", "Annotations/CLS-LOC/val/a.xml", data=b"-")
    (root / "LOC_val_solution.csv").write_text(
        "\ufeffImageId,PredictionString\r\n"
        f"ILSVRC2012_val_00000002,{TENCH} 85 1 499 272 {TENCH} 1 2 3 4 \r\n"
        f"ILSVRC2012_val_00000001,{SHARK} 1 2 3 4 \r\n",
        encoding="utf-8",
    )
    (root / "LOC_synset_mapping.txt").write_text(f"\ufeff{TENCH} tench, Tinca\n{SHARK} shark\n")
    (root / "LOC_train_solution.csv").write_text("ImageId,PredictionString\n")
    return root


@pytest.mark.parametrize("below", ["", "ILSVRC", "ILSVRC/Data/CLS-LOC"])
def test_kaggle_from_each_of_its_folders(kaggle, below):
    folder = kaggle / below
    assert _listed(folder, "train") == {
        f"{TENCH}/{TENCH}_1.JPEG": TENCH, f"{SHARK}/{SHARK}_2.JPEG": SHARK,
    }  # fmt: skip
    assert _listed(folder, "val") == {
        "ILSVRC2012_val_00000001.JPEG": SHARK, "ILSVRC2012_val_00000002.JPEG": TENCH,
    }  # fmt: skip
    assert classes.read_names(folder) == {TENCH: "tench, Tinca", SHARK: "shark"}


def test_kaggle_to_records(kaggle, tmp_path):
    folder = imagenet.build(kaggle, tmp_path / "data")
    hierarchy = Hierarchy.from_file(folder / "dictionary.txt")
    assert hierarchy.names == ("tench, Tinca", "shark")
    assert {e["name"]: e["labels"] for e in records(folder, "val")} == {
        "ILSVRC2012_val_00000001.JPEG": [1], "ILSVRC2012_val_00000002.JPEG": [0],
    }  # fmt: skip


TRUTHS = {
    manual_files.TRUTH: f"{SHARK}\n{TENCH}\n",
    "synset_labels.txt": f"\ufeff{SHARK}\r\n{TENCH}\r\n",
    "imagenet_2012_validation_synset_labels.txt": f"{SHARK}\n{TENCH}",
    manual_files.SOLUTION: "ImageId,PredictionString\nILSVRC2012_val_00000001,"
    f"{SHARK} 1\nILSVRC2012_val_00000002,{TENCH} 1\n",
    manual_files.TINY_TRUTH: f"ILSVRC2012_val_00000001.JPEG\t{SHARK}\t0\t0\t1\t1\n"
    f"ILSVRC2012_val_00000002.JPEG\t{TENCH}\t0\t0\t1\t1\n",
}


@pytest.mark.parametrize("file", TRUTHS)
@pytest.mark.parametrize("packed", [False, True])
def test_ground_truth_beside_images_without_folders(tmp_path, file, packed):
    names = [f"ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2)]
    if packed:
        path = tmp_path / manual_files.ARCHIVES["val"]
        imagenet_archives.write_flat(path, dict.fromkeys(names, IMAGE))
    else:
        _write(tmp_path / "val", *names)
        (tmp_path / "val" / "Thumbs.db").write_bytes(b"-")
    (tmp_path / file).write_text(TRUTHS[file], encoding="utf-8")
    assert _listed(tmp_path, "val", subset=False) == dict(zip(names, (SHARK, TENCH), strict=True))


def test_ground_truth_of_other_images_is_refused(tmp_path):
    _write(tmp_path, "val/a_1.JPEG", "val/a_2.JPEG")
    (tmp_path / manual_files.SOLUTION).write_text(TRUTHS[manual_files.SOLUTION])
    with pytest.raises(ValueError, match=r"names none of the images of .*val, such as a_1.JPEG"):
        _listed(tmp_path, "val")
    (tmp_path / manual_files.SOLUTION).write_text("ImageId,PredictionString\na_1,dog 1\n")
    with pytest.raises(
        ValueError, match=r"LOC_val_solution\.csv:2: .* is not a file and a WordNet id"
    ):
        _listed(tmp_path, "val")


def test_tiny_imagenet(tmp_path):
    _write(tmp_path, f"train/{TENCH}/images/{TENCH}_0.JPEG", f"train/{SHARK}/images/{SHARK}_0.JPEG")
    _write(tmp_path, f"train/{TENCH}/{TENCH}_boxes.txt", data=b"-")
    _write(tmp_path, "val/images/val_0.JPEG", "val/images/val_1.JPEG")
    text = f"val_0.JPEG\t{SHARK}\t0\t32\t44\t62\nval_1.JPEG\t{TENCH}\t0\t0\t1\t1\n"
    (tmp_path / "val/val_annotations.txt").write_text(text)
    (tmp_path / "words.txt").write_text(f"n00001740\tentity\n{TENCH}\ttench, Tinca\n")
    assert set(_listed(tmp_path, "train").values()) == {TENCH, SHARK}
    assert _listed(tmp_path, "val") == {"images/val_0.JPEG": SHARK, "images/val_1.JPEG": TENCH}
    assert classes.read_names(tmp_path)[TENCH] == "tench, Tinca"


def test_hugging_face_archives_with_the_class_in_the_name(tmp_path):
    images = [image_files.jpeg(image_files.noise(32, 32 + i)) for i in range(5)]
    names = [f"{TENCH}_{i}_{TENCH}.JPEG" for i in range(2)] + [f"{SHARK}_7_{SHARK}.JPEG"]
    for part, chosen in enumerate((names[:1], names[1:])):
        files = {name: images[names.index(name)] for name in chosen}
        data = imagenet_archives.tar(files)
        (tmp_path / f"train_images_{part}.tar.gz").write_bytes(gzip.compress(data))
    data = imagenet_archives.tar({f"ILSVRC2012_val_00000001_{SHARK}.JPEG": images[4]})
    (tmp_path / "val_images.tar.gz").write_bytes(gzip.compress(data))
    (tmp_path / "test_images.tar.gz").write_bytes(gzip.compress(data))
    folder = imagenet.build(tmp_path, tmp_path / "data", subset=True)
    assert {e["name"]: (e["labels"], e["image"]) for e in records(folder, "train")} == {
        names[0]: ([0], images[0]), names[1]: ([0], images[1]), names[2]: ([1], images[2]),
    }  # fmt: skip
    assert [e["image"] for e in records(folder, "val")] == [images[4]]
    assert (tmp_path / "train_images_1.tar").is_file()
    assert _listed(tmp_path, "train") == dict(zip(names, (TENCH, TENCH, SHARK), strict=True))


def test_a_copy_of_hugging_faces_repository(tmp_path):
    for name in (f"{TENCH}_1_{TENCH}.JPEG", f"{SHARK}_2_{SHARK}.JPEG"):
        number = int(name.split("_")[1]) - 1
        path = tmp_path / f"data/train_images_{number}.tar.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(imagenet_archives.tar({name: IMAGE})))
    assert manual_files.find_splits(tmp_path) == ("train",)
    assert set(_listed(tmp_path, "train").values()) == {TENCH, SHARK}
    _write(tmp_path / "mine", "data/1.jpg", "info/2.jpg")  # such a folder may be a class, too
    assert manual_files.find_splits(tmp_path / "mine") == ()


def test_a_damaged_compressed_archive_is_named(tmp_path):
    data = gzip.compress(imagenet_archives.tar({f"{TENCH}_1_{TENCH}.JPEG": IMAGE}))
    (tmp_path / "train_images_0.tar.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"train_images_0\.tar\.gz cannot be uncompressed"):
        _listed(tmp_path, "train")
    assert not list(tmp_path.glob("*.tar*unfinished")) and not list(tmp_path.glob("*.tar"))


# ---------- classes of one's own


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "val"), ("Train", "Valid"), ("training", "validation"), ("TRAIN", "VALIDATION")],
)
def test_splits_are_found_whatever_their_case(tmp_path, train, val):
    _write(tmp_path, f"{train}/cat/1.jpg", f"{train}/big dog/2.jpg", f"{val}/cat/3.jpg")
    _write(tmp_path, "Test/cat/4.jpg")
    found = OwnImages(tmp_path, splits=None, val_fraction=None)
    assert {split: dict(zip(one.names, one.classes, strict=True))
            for split, one in found.listings.items()} == {
        "train": {"cat/1.jpg": "cat", "big dog/2.jpg": "big dog"},
        "val": {"cat/3.jpg": "cat"},
        "test": {"cat/4.jpg": "cat"},
    }  # fmt: skip
    assert list(OwnImages(tmp_path, splits=["val"], val_fraction=None).listings) == ["val"]


def test_two_folders_of_one_split_are_refused(tmp_path):
    _write(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg")
    with pytest.raises(ValueError, match=r"both .*val and .*valid exist"):
        OwnImages(tmp_path, splits=None, val_fraction=None)


def _divided(folder: Path, fraction: float | None = None) -> dict[str, set[str]]:
    found = OwnImages(folder, splits=None, val_fraction=fraction)
    return {split: set(one.names) for split, one in found.listings.items()}


def test_a_share_for_validation_by_content(tmp_path):
    for i in range(200):
        _write(tmp_path, f"{'cat' if i % 2 else 'dog'}/{i}.jpg", data=b"%d" % (i // 4 * 2 + i % 2))
    sides = _divided(tmp_path)
    assert sides["train"] | sides["val"] == {
        f"{'cat' if i % 2 else 'dog'}/{i}.jpg" for i in range(200)
    }
    assert 5 <= len(sides["val"]) <= 40
    by_content = {split: {(tmp_path / name).read_bytes() for name in names}
                  for split, names in sides.items()}  # fmt: skip
    assert not by_content["train"] & by_content["val"]
    assert sides["val"] <= _divided(tmp_path, 0.5)["val"]  # a larger share adds some
    (tmp_path / "cat" / "1.jpg").rename(tmp_path / "cat" / "renamed.jpg")
    again = _divided(tmp_path)
    assert {name.replace("renamed", "1") for name in again["val"]} == sides["val"]


def test_every_class_keeps_something_to_train_on(tmp_path):
    for one in range(30):
        for i in range(1 + one % 3):
            _write(tmp_path, f"{one:02}/{i}.jpg", data=b"%d %d" % (one, i))
    for fraction in (0.01, 0.5, 0.99):
        sides = _divided(tmp_path, fraction)
        assert {name.split("/")[0] for name in sides["train"]} == {f"{i:02}" for i in range(30)}
        assert sides["val"]


def test_a_content_in_two_classes_stays_on_one_side(tmp_path):
    _write(tmp_path, "a/1.jpg", "b/2.jpg", data=b"same")
    _write(tmp_path, "a/3.jpg", data=b"other")
    sides = _divided(tmp_path, 0.5)
    assert {"a/1.jpg", "b/2.jpg"} <= sides["train"] and sides["val"] == {"a/3.jpg"}
    (tmp_path / "a/3.jpg").unlink()
    with pytest.raises(ValueError, match="no class has two different images"):
        _divided(tmp_path, 0.5)


@pytest.mark.parametrize("inside", ["", "data", "a/data"])
def test_the_set_is_not_put_among_its_classes(tmp_path, inside):
    source = tmp_path / "mine"
    _write(source, "a/1.jpg", "b/2.jpg")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"is in .*mine, where each folder is a class"):
        image_folder.build(source, source / inside, name="mine")
    assert sorted(tmp_path.rglob("*")) == before
    source.rename(tmp_path / "train")
    with pytest.raises(ValueError, match=r"is in .*train, where each folder is a class"):
        image_folder.build(tmp_path, tmp_path / "train" / inside, name="mine")
    image_folder.build(tmp_path, tmp_path / "data", name="mine")  # beside them it may be


def test_val_fraction_beside_folders_of_splits(tmp_path):
    for i in range(20):
        _write(tmp_path, f"train/a/{i}.jpg", data=b"%d" % i)
    assert list(_divided(tmp_path)) == ["train"]
    assert sorted(_divided(tmp_path, 0.2)) == ["train", "val"]
    _write(tmp_path, "val/a/1.jpg")
    with pytest.raises(ValueError, match=r"exists, so val_fraction=0\.2 has no effect"):
        _divided(tmp_path, 0.2)
    with pytest.raises(ValueError, match="val_fraction=1 is not at least 0 and below 1"):
        _divided(tmp_path, 1)


def test_what_is_no_image_is_passed_over(tmp_path, caplog):
    _write(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "train/stray.jpg")
    _write(tmp_path, "train/cat/Thumbs.db", "train/dog/._2.jpg", "train/cat/1.xml", data=b"-")
    _write(tmp_path, "train/__MACOSX/cat/1.jpg", "train/.ipynb_checkpoints/1.jpg")
    assert _listed(tmp_path, "train") == {"cat/1.jpg": "cat", "dog/2.jpg": "dog"}


def test_folders_in_folders_that_archives_make(tmp_path):
    _write(tmp_path, "pets/pets/cat/1.jpg", "pets/pets/dog/2.jpg")
    assert class_folder(tmp_path) == tmp_path / "pets" / "pets"
    _write(tmp_path / "one", "cat/1.jpg")
    assert class_folder(tmp_path / "one") == tmp_path / "one"
    _write(tmp_path / "flat", "1.jpg")
    assert class_folder(tmp_path / "flat") is None


@pytest.mark.parametrize("build", [image_folder.build, imagenet.build])
def test_one_folder_a_class_to_records(tmp_path, build):
    for i in range(12):
        data = image_files.jpeg(image_files.noise(32, 33 + i))
        _write(tmp_path / "pets", f"{'Katze' if i % 2 else 'Hünd'}/{i}.jpg", data=data)
    folder = build(tmp_path / "pets", tmp_path / "data", name="pets", val_fraction=0.3)
    assert Hierarchy.from_file(folder / "dictionary.txt").ids == ("Hünd", "Katze")
    counts = {split: len(records(folder, split)) for split in ("train", "val")}
    assert sum(counts.values()) == 12 and min(counts.values()) >= 1


def test_the_command(tmp_path, capsys):
    for i in range(6):
        _write(tmp_path / "my pets", f"{'a' if i % 2 else 'b'}/{i}.jpg",
               data=image_files.jpeg(image_files.noise(32, 33 + i)))  # fmt: skip
    command.main(["--manual_dir", str(tmp_path / "my pets"), "--data_dir", str(tmp_path / "data")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "data/my_pets/original/1.0.0")
    with pytest.raises(SystemExit, match="no folders with images"):
        command.main(["--manual_dir", str(tmp_path / "no"), "--data_dir", str(tmp_path / "data")])


# ---------- whatever a folder holds


PARTS = [
    "train", "val", "Valid", "test", "cat", "dog", "images", "__MACOSX", ".git", "n01440764",
    "e\u0301", "\u00e9", "a  b", "12:30", "x\ty", "caf\udce9", "ILSVRC", "Data", "CLS-LOC",
]  # fmt: skip
FILES = [
    "1.jpg", "2.JPEG", "Thumbs.db", "._1.jpg", "a.xml", "n01440764_1.JPEG", "no suffix",
         "val_annotations.txt", "LOC_val_solution.csv", "dictionary.txt", "train_images_0.tar.gz",
         "ILSVRC2012_img_val.tar", "x\ny.jpg", "caf\udce9.jpg", "words.txt",
]  # fmt: skip
DATA = [IMAGE, b"", b"-", b"a\tb\n", b"\xff\xfe\x00", gzip.compress(b"-")]


def _random_tree(folder: Path, random_: random.Random) -> None:
    for _ in range(random_.randint(0, 8)):
        parts = [random_.choice(PARTS) for _ in range(random_.randint(0, 3))]
        path = folder.joinpath(*parts, random_.choice(FILES))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(random_.choice(DATA))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue


def _assert_no_tree_crashes(folder: Path, seed: int) -> None:
    folder.mkdir()
    random_ = random.Random(seed)
    _random_tree(folder, random_)
    fraction = random_.choice([None, None, 0.3])
    try:
        found = OwnImages(folder, splits=None, val_fraction=fraction)
    except (ValueError, OSError) as error:
        assert str(error), seed
        return
    for listing in found.listings.values():
        assert len(listing.names) == len(listing.classes) > 0


def test_no_tree_crashes(tmp_path):
    for seed in range(300):
        _assert_no_tree_crashes(tmp_path / str(seed), seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", fuzzing.PARTS)
def test_ten_thousand_trees(tmp_path, part):
    for seed in range(1000 * part, 1000 * part + 1000):
        _assert_no_tree_crashes(tmp_path / str(seed), seed)
