# SPDX-License-Identifier: BSD-3-Clause
"""ImageNet's archives and folders of classes to records: small ones, bad ones, and the stamps."""

import collections
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from mlimages_jax.data.images.decode import decode
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import read_label_list
from tests.support import image_files, imagenet_archives
from tests.tfds_builders.built_set import REPOSITORY, WITHOUT_TENSORFLOW, records
from tfds_builders import imagenet
from tfds_builders.imagenet import __main__ as command
from tfds_builders.imagenet import classes, imagenet_dataset_builder, manual_files
from tfds_builders.images import unfinished

TENCH, SHARK, OSTRICH = "n01440764", "n01484850", "n01518878"
TRAIN = {
    SHARK: {f"{SHARK}_7.JPEG": image_files.jpeg(image_files.quadrants())},
    TENCH: {
        f"{TENCH}_1.JPEG": image_files.GOOD["cmyk"](),
        f"{TENCH}_2.JPEG": image_files.GOOD["png named .JPEG"](),
    },
    OSTRICH: {f"{OSTRICH}_3.JPEG": image_files.grey_jpeg()},
}
VAL = {
    f"ILSVRC2012_val_{number:08d}.JPEG": image_files.jpeg(image_files.noise(32, 32 + number))
    for number in (2, 1, 3)  # the width tells the number
}
TRUTH = [OSTRICH, TENCH, OSTRICH]
NUMBERS = {OSTRICH: 1, SHARK: 2, TENCH: 3}  # another order than that of the ids
NAMES = {TENCH: "tench, Tinca tinca", SHARK: "great white shark, white shark", OSTRICH: "ostrich"}


@pytest.fixture
def manual_dir(tmp_path) -> Path:
    folder = tmp_path / "manual"
    folder.mkdir()
    imagenet_archives.write_nested(folder / "ILSVRC2012_img_train.tar", TRAIN)
    imagenet_archives.write_flat(folder / "ILSVRC2012_img_val.tar", VAL)
    (folder / manual_files.TRUTH).write_text("\n".join(TRUTH) + "\n")
    return folder


@pytest.fixture
def own_dir(tmp_path) -> Path:
    """Images in a folder a class."""
    folder = tmp_path / "own"
    for name in ("train/cat/1.jpg", "train/cat/my cat.jpg", "train/big dog/1.jpg", "val/cat/2.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image_files.jpeg(image_files.quadrants()))
    (folder / "train/cat/.DS_Store").write_bytes(b"not an image")
    return folder


def write_kit(folder: Path) -> Path:
    """A development kit with 3 classes that have images, and one that stands above them."""
    fields = ["ILSVRC2012_ID", "WNID", "words", "num_children"]
    rows = [(NUMBERS[one], one, name, 0) for one, name in NAMES.items()]
    rows.append((1001, "n00001740", "entity", 3))
    table = np.array(rows, dtype=[(name, object) for name in fields])
    file = io.BytesIO()
    scipy.io.savemat(file, {"synsets": table.reshape(-1, 1)})
    truth = "".join(f"{NUMBERS[one]}\n" for one in TRUTH)
    root = "ILSVRC2012_devkit_t12"
    files = {f"{root}/readme.txt": b"-", f"{root}/data/meta.mat": file.getvalue()}
    files[f"{root}/data/{manual_files.TRUTH}"] = truth.encode()
    path = folder / manual_files.DEVKIT
    path.write_bytes(imagenet_archives.tar(files))  # tarfile finds out whether it is compressed
    return path


def truth_of(folder: Path, split: str) -> dict[str, str]:
    """Class id by image, of the built set; one class an image."""
    ids = Hierarchy.from_file(folder / "dictionary.txt").ids
    examples = records(folder, split)
    assert all(example["confidences"] == [1.0] for example in examples)
    return {example["name"]: ids[label] for example in examples for label in example["labels"]}


TRAIN_TRUTH = {f"{one}/{name}": one for one, files in TRAIN.items() for name in files}
VAL_TRUTH = {f"ILSVRC2012_val_{i:08d}.JPEG": one for i, one in enumerate(TRUTH, start=1)}


def test_archives_to_records(manual_dir, tmp_path):
    folder = imagenet.build(manual_dir, tmp_path / "data", subset=True)
    assert folder == tmp_path / "data/imagenet/original/1.0.0"
    assert truth_of(folder, "train") == TRAIN_TRUTH
    assert truth_of(folder, "val") == VAL_TRUTH
    hierarchy = Hierarchy.from_file(folder / "dictionary.txt")
    assert hierarchy.ids == hierarchy.names == (TENCH, SHARK, OSTRICH)  # by WordNet id
    assert hierarchy.parents.tolist() == [-1] * 3
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata.pop("inputs")["list of train"].startswith("4 images [")
    assert metadata == {
        "num_classes": 3, "max_labels": 1, "labels": "released", "short_side": None,
        "chroma": "444", "orientation": "stored", "unlisted": 0, "skipped": {"train": 0, "val": 0},
    }  # fmt: skip


def test_images_are_those_of_the_archives(manual_dir, tmp_path):
    folder = imagenet.build(manual_dir, tmp_path / "data", subset=True)
    images = {example["name"]: example["image"] for example in records(folder, "val")}
    assert images == VAL  # byte for byte
    images = {example["name"]: example["image"] for example in records(folder, "train")}
    assert images[f"{SHARK}/{SHARK}_7.JPEG"] == TRAIN[SHARK][f"{SHARK}_7.JPEG"]
    for name in (f"{TENCH}/{TENCH}_1.JPEG", f"{TENCH}/{TENCH}_2.JPEG"):  # CMYK; a PNG
        assert images[name].startswith(b"\xff\xd8\xff")
        error = np.abs(decode(images[name]).astype(int) - image_files.quadrants())
        assert error.max() < 20
    source = tfds.builder_from_directory(folder).as_data_source(split="train")
    assert [example["labels"].tolist() for example in source] == [[1], [0], [0], [2]]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_a_cut_archive_is_an_error_also_of_a_subset(manual_dir, tmp_path, split, where):
    archive = manual_dir / f"ILSVRC2012_img_{split}.tar"
    whole = archive.read_bytes().rstrip(b"\0")
    archive.write_bytes(whole[: int(len(whole) * where)])
    with pytest.raises(ValueError, match=r"contains \d images of .*the last.*: truncated"):
        imagenet.build(manual_dir, tmp_path / "data", subset=True)
    assert not list((tmp_path / "data").rglob("*.array_record"))


def test_classes_of_the_development_kit(manual_dir, tmp_path):
    (manual_dir / manual_files.TRUTH).unlink()
    write_kit(manual_dir)
    folder = imagenet.build(manual_dir, tmp_path / "data", subset=True)
    assert truth_of(folder, "val") == VAL_TRUTH
    assert Hierarchy.from_file(folder / "dictionary.txt").names == tuple(NAMES.values())


def test_numbers_need_the_development_kit(manual_dir, tmp_path):
    numbers = "".join(f"{NUMBERS[one]}\n" for one in TRUTH)
    (manual_dir / manual_files.TRUTH).write_text(numbers)
    with pytest.raises(ValueError, match=r"not the order of their ids: put ILSVRC2012_devkit"):
        imagenet.build(manual_dir, tmp_path / "data", subset=True)
    write_kit(manual_dir)
    folder = imagenet.build(manual_dir, tmp_path / "data", subset=True)
    assert truth_of(folder, "val") == VAL_TRUTH
    (manual_dir / manual_files.TRUTH).write_text("1\n2\n1001\n")
    with pytest.raises(ValueError, match=r"no class in .* has the number 1001"):
        classes.read_truth(manual_dir / manual_files.TRUTH)


def test_validation_archive_with_folders(manual_dir, tmp_path):
    (manual_dir / manual_files.TRUTH).unlink()
    files = {f"val/{one}/{name}": VAL[name] for name, one in VAL_TRUTH.items()}
    imagenet_archives.write_flat(manual_dir / "ILSVRC2012_img_val.tar", files)
    folder = imagenet.build(manual_dir, tmp_path / "data", subset=True)
    assert truth_of(folder, "val") == {f"val/{one}/{name}": one for name, one in VAL_TRUTH.items()}


@pytest.mark.parametrize("file", ["dictionary.txt", "LOC_synset_mapping.txt"])
def test_names_of_classes(manual_dir, tmp_path, file):
    known = {one: name for one, name in NAMES.items() if one != SHARK} | {"n09999999": "more"}
    if file == "dictionary.txt":
        Hierarchy(tuple(known), tuple(known.values()), np.array([-1, 0, 0])).to_file(
            manual_dir / file
        )
    else:
        (manual_dir / file).write_text("".join(f"{one} {name}\n" for one, name in known.items()))
    folder = imagenet.build(manual_dir, tmp_path / "data", subset=True)
    hierarchy = Hierarchy.from_file(folder / "dictionary.txt")
    assert hierarchy.names == ("tench, Tinca tinca", SHARK, "ostrich")
    assert hierarchy.parents.tolist() == [-1] * 3


def test_folders_of_own_classes(own_dir, tmp_path):
    folder = imagenet.build(own_dir, tmp_path / "data", name="pets", short_side=16)
    assert folder == tmp_path / "data/pets/short_side_16/1.0.0"
    expected = {"cat/1.jpg": "cat", "cat/my cat.jpg": "cat", "big dog/1.jpg": "big dog"}
    assert truth_of(folder, "train") == expected
    assert truth_of(folder, "val") == {"cat/2.jpg": "cat"}
    assert [example["height"] for example in records(folder, "val")] == [16]


def test_one_split_alone(manual_dir, tmp_path):
    (manual_dir / "ILSVRC2012_img_train.tar").unlink()
    folder = imagenet.build(manual_dir, tmp_path / "data", splits=["val"], subset=True)
    assert truth_of(folder, "val") == VAL_TRUTH
    assert not list(folder.glob("*train*"))


def test_stamps_as_imagenet(stamps_dir, tmp_path):
    """In an archive, each under its first class, and unpacked: the same records."""
    synsets: dict[str, dict[str, bytes]] = collections.defaultdict(dict)
    for row in read_label_list(stamps_dir / "train_image_list.txt", num_classes=109):
        synset = f"n{row.classes[0]:08d}"
        synsets[synset][row.name] = (stamps_dir / "images" / row.name).read_bytes()
        (tmp_path / "folders/train" / synset).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders/train" / synset / row.name).write_bytes(synsets[synset][row.name])
    (tmp_path / "archives").mkdir()
    path = tmp_path / "archives/ILSVRC2012_img_train.tar"
    imagenet_archives.write_nested(path, synsets)
    built = [
        imagenet.build(tmp_path / kind, tmp_path / "data", name=kind, subset=True,
                       splits=["train"], num_shards=4)
        for kind in ("archives", "folders")
    ]  # fmt: skip
    images = [{e["name"]: (e["image"], e["labels"]) for e in records(f, "train")} for f in built]
    assert images[0] == images[1]
    assert len(images[0]) == sum(map(len, synsets.values())) > 700
    assert all(image == synsets[name.split("/")[0]][name.split("/")[1]]
               for name, (image, _) in images[0].items())  # fmt: skip


def test_counts_are_verified(manual_dir, tmp_path):
    message = r"holds 4 images of 3 classes, ImageNet's has 1,281,167 of 1,000.*--subset"
    with pytest.raises(ValueError, match=message):
        imagenet.build(manual_dir, tmp_path / "data")
    with pytest.raises(ValueError, match="holds 3 images of 2 classes, ImageNet's has 50,000"):
        imagenet.build(manual_dir, tmp_path / "data", splits=["val"])


def test_a_set_with_the_right_counts_needs_no_switch(manual_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet_dataset_builder, "NUM_CLASSES", 3)
    monkeypatch.setattr(imagenet_dataset_builder, "NUM_IMAGES", {"train": 4, "val": 3})
    (manual_dir / manual_files.TRUTH).write_text("\n".join([OSTRICH, TENCH, SHARK]))
    folder = imagenet.build(manual_dir, tmp_path / "data")
    assert len(records(folder, "train")) == 4
    assert len(records(folder, "val")) == 3


def test_a_wrong_archive(manual_dir, tmp_path):
    train, val = (manual_dir / f"ILSVRC2012_img_{split}.tar" for split in ("train", "val"))
    kept = train.read_bytes()
    train.write_bytes(val.read_bytes())
    with pytest.raises(ValueError, match=r"img_train\.tar: nothing gives the class of ILSVRC2012"):
        imagenet.build(manual_dir, tmp_path / "data", subset=True)
    train.write_bytes(b"<html>" * 200)
    with pytest.raises(ValueError, match=r"img_train\.tar: .* tar"):
        imagenet.build(manual_dir, tmp_path / "data", subset=True)
    train.write_bytes(bytes(10_240))
    with pytest.raises(ValueError, match="no image in it"):
        imagenet.build(manual_dir, tmp_path / "data", subset=True)
    train.write_bytes(kept)
    imagenet_archives.write_flat(val, {"a.JPEG": image_files.grey_jpeg()})
    with pytest.raises(ValueError, match=r"a\.JPEG has no number"):
        imagenet.build(manual_dir, tmp_path / "data", subset=True)
    imagenet_archives.write_flat(val, {"a_1.JPEG": b"", "b_1.JPEG": b""})
    with pytest.raises(ValueError, match=r"a_1\.JPEG and b_1\.JPEG have the same number"):
        imagenet.build(manual_dir, tmp_path / "data", subset=True)
    (manual_dir / manual_files.TRUTH).unlink()
    with pytest.raises(ValueError, match=r"the class of a_1\.JPEG: put ILSVRC2012_devkit"):
        imagenet.build(manual_dir, tmp_path / "data", subset=True)
    assert not list((tmp_path / "data").rglob("1.0.0*"))


def test_an_archive_with_less_than_all_is_told_by_its_count(manual_dir, tmp_path):
    path = manual_dir / "ILSVRC2012_img_train.tar"
    imagenet_archives.write_nested(path, {SHARK: TRAIN[SHARK]})
    with pytest.raises(ValueError, match=r"img_train\.tar holds [0-3] images? of"):
        imagenet.build(manual_dir, tmp_path / "data")
    folder = imagenet.build(manual_dir, tmp_path / "data", splits=["train"], subset=True)
    found = truth_of(folder, "train")
    assert 0 < len(found) < len(TRAIN_TRUTH)
    assert found.items() <= TRAIN_TRUTH.items()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*TRUTH, TENCH], "has classes of 4 images, .* contains 3 images"),
        (TRUTH[:2], "has classes of 2 images, .* with numbers up to 3"),
        ([*TRUTH[:2], "tench"], f"{manual_files.TRUTH}:3: 'tench' is not a WordNet id"),
        ([], "is empty"),
    ],
)
def test_a_labels_file_of_another_length_or_kind(manual_dir, tmp_path, lines, message):
    (manual_dir / manual_files.TRUTH).write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(ValueError, match=message):
        imagenet.build(manual_dir, tmp_path / "data", splits=["val"])


def test_a_validation_archive_may_be_a_part_only_if_so_said(manual_dir, tmp_path):
    files = {name: data for name, data in VAL.items() if "1." not in name}
    imagenet_archives.write_flat(manual_dir / "ILSVRC2012_img_val.tar", files)
    folder = imagenet.build(manual_dir, tmp_path / "data", subset=True)
    assert truth_of(folder, "val") == {name: VAL_TRUTH[name] for name in sorted(files)}


def test_a_class_that_training_lacks(manual_dir, own_dir, tmp_path):
    synsets = {one: files for one, files in TRAIN.items() if one != OSTRICH}
    imagenet_archives.write_nested(manual_dir / "ILSVRC2012_img_train.tar", synsets)
    message = rf"1 class of .*img_val.tar, such as '{OSTRICH}', is missing from .*img_train.tar"
    with pytest.raises(ValueError, match=message):
        imagenet.build(manual_dir, tmp_path / "data", subset=True)
    (own_dir / "val/bird").mkdir()
    (own_dir / "val/bird/1.jpg").write_bytes(image_files.grey_jpeg())
    with pytest.raises(ValueError, match=r"1 class of .*val, such as 'bird', is missing from"):
        imagenet.build(own_dir, tmp_path / "data")


def test_folders_that_are_not_one_a_class(own_dir, tmp_path):
    (own_dir / "train/empty").mkdir()
    with pytest.raises(ValueError, match="the class empty has no images"):
        imagenet.build(own_dir, tmp_path / "data")
    (own_dir / "train/empty/more").mkdir()
    (own_dir / "train/bare").mkdir()
    with pytest.raises(ValueError, match=r"the classes bare, empty have no images.* remove them"):
        imagenet.build(own_dir, tmp_path / "data")
    (own_dir / "train/bare").rmdir()
    (own_dir / "train/empty/more").rmdir()
    (own_dir / "train/empty").rmdir()
    (own_dir / "train/a.jpg").write_bytes(b"")
    (own_dir / "train/readme.txt").write_bytes(b"")
    folder = imagenet.build(own_dir, tmp_path / "data")  # passed over, and counted in the log
    assert len(truth_of(folder, "train")) == 3


def test_a_missing_split_is_named(own_dir, tmp_path):
    for path in [*(own_dir / "val").rglob("*.jpg"), own_dir / "val/cat", own_dir / "val"]:
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(FileNotFoundError, match=r"split val: neither ILSVRC2012_img_val\.tar nor"):
        imagenet.build(own_dir, tmp_path / "data")
    folder = imagenet.build(own_dir, tmp_path / "data", splits=["train"])
    assert len(records(folder, "train")) == 3
    assert not (tmp_path / "data/imagenet/original/1.0.0.unfinished").exists()


def test_wrong_options(manual_dir, tmp_path):
    with pytest.raises(ValueError, match="splits='test': give train, val, or train,val"):
        imagenet.build(manual_dir, tmp_path, splits=["test"])
    with pytest.raises(ValueError, match="short_side=-1 is not"):
        imagenet.build(manual_dir, tmp_path, short_side=-1)
    (manual_dir / "train").mkdir()
    with pytest.raises(ValueError, match=r"both .*img_train\.tar and .*/train exist"):
        imagenet.build(manual_dir, tmp_path)


def test_kits_that_are_none(manual_dir):
    kit = write_kit(manual_dir)
    with tarfile.open(kit, "w") as archive:
        archive.addfile(tarfile.TarInfo("ILSVRC2012_devkit_t12/readme.txt"))
    with pytest.raises(ValueError, match=re.escape("there is no data/meta.mat in it")):
        classes.read_names(manual_dir)
    kit.write_bytes(imagenet_archives.tar({"x/data/meta.mat": b"MATLAB?" * 40}))
    with pytest.raises(ValueError, match=r"has no table of synsets"):
        classes.read_names(manual_dir)
    kit.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="is not a readable tar file: download it again"):
        classes.read_names(manual_dir)
    (manual_dir / "LOC_synset_mapping.txt").write_text("n01440764 tench\nn01484850\n")
    with pytest.raises(ValueError, match=r"mapping\.txt:2: 'n01484850' is not a class id"):
        classes.read_names(manual_dir)


def test_the_command(manual_dir, tmp_path, capsys):
    flags = [f"--manual_dir={manual_dir}", f"--data_dir={tmp_path}"]
    command.main([*flags, "--short_side=16", "--subset", "--num_shards=2", "--splits=train"])
    folder = tmp_path / "imagenet/short_side_16/1.0.0"
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    assert len(list(folder.glob("imagenet-train.array_record-*-of-00002"))) == 2
    with pytest.raises(SystemExit, match="error: split train: neither"):
        command.main(["--manual_dir", str(tmp_path), "--data_dir", str(tmp_path)])


@pytest.mark.parametrize(
    "engine", [EngineOptions(), pytest.param(EngineOptions(workers=2), marks=pytest.mark.slow)]
)
def test_every_byte_is_the_same_again(manual_dir, tmp_path, engine):
    options = {"subset": True, "num_shards": 2}
    one = imagenet.build(manual_dir, tmp_path / "one", threads=1, **options)
    other = imagenet.build(manual_dir, tmp_path / "other", threads=5, engine=engine, **options)
    assert [path.read_bytes() for path in sorted(one.iterdir())] == [
        path.read_bytes() for path in sorted(other.iterdir())
    ]


def test_goes_on_only_with_the_same_archive(manual_dir, tmp_path, monkeypatch):
    archive = manual_dir / "ILSVRC2012_img_train.tar"
    write, written = unfinished.write, []

    def write_or_fail(writer, shard):
        written.append(shard.path.name)
        if shard.split == "val":
            raise OSError("the cable")
        return write(writer, shard)

    def names_written() -> list[str]:
        written.clear()
        with pytest.raises(OSError, match="the cable"):
            imagenet.build(manual_dir, tmp_path / "data", subset=True, threads=1)
        return [name.split(".")[0] for name in written]

    monkeypatch.setattr(unfinished, "write", write_or_fail)
    assert names_written() == ["imagenet-train", "imagenet-val"]
    assert names_written() == ["imagenet-val"]
    os.utime(archive, ns=(0, 0))
    assert names_written() == ["imagenet-train", "imagenet-val"]


def test_needs_no_tensorflow(manual_dir, tmp_path):
    script = f"""
from tfds_builders import imagenet
imagenet.build({str(manual_dir)!r}, {str(tmp_path / "data")!r}, subset=True)
"""
    subprocess.run([sys.executable, "-c", WITHOUT_TENSORFLOW + script], cwd=REPOSITORY, check=True)
    assert len(records(tmp_path / "data/imagenet/original/1.0.0", "train")) == 4
