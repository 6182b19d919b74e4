# SPDX-License-Identifier: BSD-3-Clause
"""The builder on a handful of images, on bad ones, and on the stamps; read back in every way."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds

from mlimages_jax.data.images import jpeg, same_software
from mlimages_jax.data.images.decode import decode
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import read_label_list
from tests.support import image_files
from tests.tfds_builders.built_set import (
    REPOSITORY,
    TRAIN,
    WITHOUT_TENSORFLOW,
    records,
    write_manual_dir,
)
from tfds_builders import ml_images
from tfds_builders.images.places import FilePlace
from tfds_builders.images.task import default_num_shards
from tfds_builders.ml_images import __main__ as command


@pytest.fixture
def manual_dir(tmp_path) -> Path:
    return write_manual_dir(tmp_path / "manual")


def labels_of(folder: Path, split: str) -> dict[str, dict[int, float]]:
    return {
        example["name"]: dict(
            zip(example["labels"], np.round(example["confidences"], 3).tolist(), strict=True)
        )
        for example in records(folder, split)
    }


def test_the_set_holds_the_rows_of_the_lists(manual_dir, tmp_path):
    folder = ml_images.build(manual_dir, tmp_path / "data", short_side=None)
    assert folder == tmp_path / "data/ml_images/released_original/1.0.0"
    train = records(folder, "train")
    assert [example["name"] for example in train] == [row.split("\t")[0] for row in TRAIN]
    assert labels_of(folder, "train") == {
        "a/red.jpg": {2: 0.9, 4: 1.0},
        "grey.jpg": {1: 1.0, 0: 0.5},
        "cmyk.jpg": {3: -1.0},
        "none.jpg": {},
        "deep.png": {4: 1.0},
    }
    assert labels_of(folder, "val") == {"b/red.jpg": {0: 1.0}}
    assert train[0]["image"] == (manual_dir / "images/a/red.jpg").read_bytes()  # a clean JPEG
    assert [(e["height"], e["width"]) for e in train] == [(32, 64)] * 3 + [(64, 96), (32, 64)]
    error = np.abs(decode(train[4]["image"]).astype(int) - image_files.quadrants())
    assert error.max() < 10  # the 16-bit PNG, now a JPEG


def test_what_lies_beside_the_records(manual_dir, tmp_path):
    folder = ml_images.build(manual_dir, tmp_path / "data", short_side=None)
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata.pop("inputs")["missing labels"] == "absent"
    assert metadata == {
        "num_classes": 5,
        "max_labels": 2,
        "labels": "released",
        "short_side": None,
        "chroma": "444",
        "orientation": "exif",
        "unlisted": 0,
        "skipped": {"train": 0, "val": 0},
    }
    assert Hierarchy.from_file(folder / "dictionary.txt").names[1] == "dog, domestic dog"
    assert (folder / "skipped.tsv").read_text() == "split\tname\treason\tmessage\n"


def test_checksums_are_those_of_sha256sum(manual_dir, tmp_path):
    folder = ml_images.build(manual_dir, tmp_path / "data", num_shards=2)
    lines = (folder / "checksums.txt").read_text().splitlines()
    names = sorted(path.name for path in folder.glob("*.array_record-*"))
    expected = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]
    assert lines == [f"{digest}  {name}" for digest, name in zip(expected, names, strict=True)]
    if shutil.which("sha256sum"):
        check = ["sha256sum", "--strict", "-c", "checksums.txt"]
        subprocess.run(check, cwd=folder, check=True)


@pytest.mark.parametrize(("text", "target"), [("absent", 0), ("unknown\n", -1)])
def test_what_unlisted_classes_are(manual_dir, tmp_path, text, target):
    (manual_dir / "unlisted.txt").write_text(text)
    folder = ml_images.build(manual_dir, tmp_path / "data")
    assert json.loads((folder / "metadata.json").read_text())["unlisted"] == target


@pytest.mark.parametrize("text", ["", "maybe", "absent unknown", "Absent"])
def test_another_word_for_unlisted_classes(manual_dir, tmp_path, text):
    (manual_dir / "unlisted.txt").write_text(text)
    message = rf"manual/unlisted\.txt: {text!r} is not one of absent or unknown"
    with pytest.raises(ValueError, match=message):
        ml_images.build(manual_dir, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_tfds_reads_the_same(manual_dir, tmp_path):
    folder = ml_images.build(manual_dir, tmp_path / "data", name="mine", short_side=16)
    builder = tfds.builder_from_directory(folder)
    assert (builder.info.name, builder.info.config_name) == ("mine", "released_16")
    assert builder.info.metadata["num_classes"] == 5
    raw = records(folder, "train")
    source = builder.as_data_source(split="train")
    assert len(source) == len(raw) == builder.info.splits["train"].num_examples
    for example, expected in zip(source, raw, strict=True):
        assert example["name"].decode() == expected["name"]
        assert example["image"].shape == (16, expected["width"], 3)
        assert example["labels"].dtype == np.int32
        np.testing.assert_array_equal(example["labels"], expected["labels"])
        np.testing.assert_array_equal(example["confidences"], np.float32(expected["confidences"]))
        assert (example["height"], example["width"]) == (expected["height"], expected["width"])


def test_closed_labels_hold_all_ancestors(manual_dir, tmp_path):
    folder = ml_images.build(manual_dir, tmp_path / "data", labels="closed")
    assert folder.parent.name == "closed_320"
    assert labels_of(folder, "train") == {
        "a/red.jpg": {0: 0.9, 1: 0.9, 2: 0.9, 3: 1.0, 4: 1.0},
        "grey.jpg": {0: 1.0, 1: 1.0},
        "cmyk.jpg": {3: -1.0},
        "none.jpg": {},
        "deep.png": {3: 1.0, 4: 1.0},
    }
    assert json.loads((folder / "metadata.json").read_text())["max_labels"] == 5


def test_rows_are_dealt_to_the_shards(manual_dir, tmp_path):
    folder = ml_images.build(manual_dir, tmp_path / "data", num_shards=2)
    names = [row.split("\t")[0] for row in TRAIN]
    assert [example["name"] for example in records(folder, "train")] == names[::2] + names[1::2]
    assert tfds.builder_from_directory(folder).info.splits["train"].shard_lengths == [3, 2]
    assert len(list(folder.glob("*-val.array_record-*"))) == 1  # one row


@pytest.mark.parametrize(
    ("rows", "shards"),
    [(1, 1), (4_096, 1), (4_097, 2), (8_193, 4), (88_739, 32), (17_609_752, 8_192)],
)
def test_default_number_of_shards(rows, shards):
    assert default_num_shards(rows) == shards


def test_every_byte_is_the_same_again(stamps_dir, tmp_path):
    (tmp_path / "images").symlink_to(stamps_dir / "images")
    for name in ("dictionary.txt", "val_image_list.txt"):
        (tmp_path / name).write_bytes((stamps_dir / name).read_bytes())
    folder = ml_images.build(tmp_path, tmp_path / "here", short_side=64, num_shards=3, threads=1)
    flags = [f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'there'}", "--short_side=64",
             "--num_shards=3", "--threads=5", "--name=ml_images"]  # fmt: skip
    module = [sys.executable, "-m", "tfds_builders.ml_images"]
    subprocess.run(module + flags, cwd=REPOSITORY, check=True)
    files = [path for path in folder.iterdir() if path.is_file()]
    assert len(files) == 3 + 6
    for path in files:
        other = tmp_path / "there" / path.relative_to(tmp_path / "here")
        assert other.read_bytes() == path.read_bytes(), path.name


def test_stamps(stamps_dir, tmp_path):
    folder = ml_images.build(stamps_dir, tmp_path, name="stamps", short_side=None)
    hierarchy = Hierarchy.from_file(folder / "dictionary.txt")
    assert len(hierarchy) == 109
    for split, count in (("train", 822), ("val", 196)):
        rows = read_label_list(stamps_dir / f"{split}_image_list.txt", num_classes=109)
        examples = records(folder, split)
        assert len(examples) == len(rows) == count
        for example, row in zip(examples, rows, strict=True):
            assert example["name"] == row.name
            assert example["labels"] == row.classes.tolist()
            assert example["image"] == (stamps_dir / "images" / row.name).read_bytes()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ENOSPC])
def test_what_the_machine_lacks_ends_a_build_and_is_no_fault_of_an_image(
    manual_dir, tmp_path, monkeypatch, number
):
    """It was recorded, and a build that went on from there did not read the image again."""
    undisturbed = ml_images.build(manual_dir, tmp_path / "undisturbed")

    def fail(place):
        raise OSError(number, os.strerror(number), place.name)

    with monkeypatch.context() as patched, pytest.raises(OSError, match=os.strerror(number)):
        patched.setattr(FilePlace, "read", fail)
        ml_images.build(manual_dir, tmp_path / "data", max_skipped=0.9)
    folder = ml_images.build(manual_dir, tmp_path / "data")
    assert [one["image"] for one in records(folder, "train")] == [
        one["image"] for one in records(undisturbed, "train")
    ]


def test_bad_images_are_listed(manual_dir, tmp_path):
    long = "x" * 300  # no file system takes it
    rows = ["absent.jpg\t0", "a\t1", f"{long}\t1"]  # the second is a folder
    expected = [("absent.jpg", "missing"), ("a", "missing"), (long, "unreadable")]
    for number, (make, reason) in enumerate(image_files.BAD.values()):
        (manual_dir / "images" / f"{number}.JPEG").write_bytes(make())
        rows.append(f"{number}.JPEG\t2:1")
        expected.append((f"{number}.JPEG", reason))
    (manual_dir / "train_image_list.txt").write_text("\n".join(TRAIN + rows))
    folder = ml_images.build(manual_dir, tmp_path / "data", max_skipped=0.9)
    lines = (folder / "skipped.tsv").read_text().splitlines()
    fields = [line.split("\t") for line in lines]
    assert fields[0] == ["split", "name", "reason", "message"]
    assert [(split, name, reason) for split, name, reason, _ in fields[1:]] == [
        ("train", *pair) for pair in expected
    ]
    assert all(message for *_, message in fields)
    assert len(records(folder, "train")) == len(TRAIN)
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["skipped"] == {"train": len(expected), "val": 0}


def test_too_many_bad_images_are_an_error(manual_dir, tmp_path):
    (manual_dir / "images/grey.jpg").write_bytes(image_files.HTML)
    (manual_dir / "images/cmyk.jpg").unlink()
    with pytest.raises(ValueError, match=r"2 of 5 images are unusable \(1 not_an_image") as error:
        ml_images.build(manual_dir, tmp_path / "data", max_skipped=0.39)
    left = list((tmp_path / "data/ml_images/released_320").iterdir())
    assert sorted(path.name for path in left) == ["1.0.0.skipped.tsv", "1.0.0.unfinished"]
    left.sort()
    assert str(left[0]) in str(error.value)
    assert "cmyk.jpg\tmissing" in left[0].read_text()

    folder = ml_images.build(manual_dir, tmp_path / "data", max_skipped=0.4)
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]  # the old list is gone


def test_verified_images_are_not_decoded_again(manual_dir, tmp_path):
    once = ml_images.build(manual_dir, tmp_path / "a", short_side=None, num_shards=1)
    again = ml_images.build(
        manual_dir, tmp_path / "b", short_side=None, num_shards=1, verified=True
    )
    assert (once / "checksums.txt").read_text() == (again / "checksums.txt").read_text()
    broken = image_files.truncated(image_files.jpeg(image_files.noise()))
    (manual_dir / "images/none.jpg").write_bytes(broken)
    flags = [
        f"--manual_dir={manual_dir}",
        "--short_side=0",
        "--max_skipped=0.3",
        "--name=ml_images",
    ]
    for number, extra in enumerate(([], ["--verified"])):
        command.main([*flags, f"--data_dir={tmp_path / str(number)}", *extra])
    checked, trusted = (
        records(tmp_path / name / "ml_images/released_original/1.0.0", "train") for name in "01"
    )
    assert len(checked) == 4  # cmyk.jpg and deep.png are decoded in any case
    assert [example["image"] for example in trusted if example["name"] == "none.jpg"] == [broken]


@pytest.mark.skipif(not jpeg.is_compiled(), reason="built without libjpeg-turbo's headers")
def test_progressive_images_are_stored_sequentially(manual_dir, tmp_path):
    data = image_files.GOOD["progressive"]()
    (manual_dir / "images/a/red.jpg").write_bytes(data)
    for name, verified in (("checked", False), ("trusted", True)):
        folder = ml_images.build(
            manual_dir, tmp_path / name, short_side=None, num_shards=1, verified=verified
        )
        stored = records(folder, "train")[0]["image"]
        assert stored != data and stored == jpeg.sequential(data)
        np.testing.assert_array_equal(decode(stored), decode(data))


def test_shrunk_images_with_halved_colours(manual_dir, tmp_path):
    flags = [f"--manual_dir={manual_dir}", f"--data_dir={tmp_path}", "--short_side=16"]
    command.main(flags)
    command.main([*flags, "--chroma=420"])
    whole, halved = (
        records(tmp_path / f"manual/{name}/1.0.0", "train")[0]["image"]
        for name in ("released_16", "released_16_chroma420")
    )
    assert simplejpeg.decode_jpeg_header(whole)[2:] == ("YCbCr", "444")
    assert simplejpeg.decode_jpeg_header(halved)[2:] == ("YCbCr", "420")
    with pytest.raises(ValueError, match="chroma='411' is neither '444' nor '420'"):
        ml_images.build(manual_dir, tmp_path, chroma="411")


@pytest.mark.skipif(not jpeg.is_compiled(), reason="built without libjpeg-turbo's headers")
def test_all_files_get_restart_markers(manual_dir, tmp_path):
    flags = [f"--manual_dir={manual_dir}", f"--data_dir={tmp_path}", "--short_side=16"]
    for extra in ([], ["--restart_markers"], ["--restart_markers", "--short_side=0"]):
        command.main([*flags, *extra])
    plain, marked, original = (
        [each["image"] for each in records(tmp_path / f"manual/released_{name}/1.0.0", "train")]
        for name in ("16", "16_restart", "original_restart")
    )
    assert len(plain) == len(marked) == len(original) == len(TRAIN)
    for each, other in zip(plain, marked, strict=True):
        np.testing.assert_array_equal(decode(each), decode(other))
    assert not any(b"\xff\xdd" in each for each in plain)
    for each in marked + original:
        assert b"\xff\xdd" in each and jpeg.sequential(each, restart_markers=True) is each


def test_restart_markers_need_the_compiled_decoder(manual_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(jpeg, "_jpeg", None)
    with pytest.raises(ValueError, match="the compiled decoder, which writes them, was not built"):
        ml_images.build(manual_dir, tmp_path / "data", restart_markers=True)


def test_a_worker_that_would_write_other_bytes_is_refused(manual_dir, tmp_path, monkeypatch):
    there = {**same_software.installed(), "pillow": "0.1"}
    monkeypatch.setattr(same_software, "installed", lambda: there)
    with pytest.raises(same_software.OtherSoftwareError, match=r"pillow: 0\.1, there "):
        ml_images.build(manual_dir, tmp_path / "data")


def test_a_split_without_any_image_is_an_error(manual_dir, tmp_path):
    (manual_dir / "images/b/red.jpg").unlink()
    with pytest.raises(ValueError, match=r"split val: 1 of 1 images are unusable \(1 missing\)"):
        ml_images.build(manual_dir, tmp_path / "data", max_skipped=1)


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (["dictionary.txt"], "the class list, dictionary.txt or dictionary_and_semantic"),
        (["train_image_list.txt", "val_image_list.txt"], "a label list, train_image_list.txt or"),
        (["images"], "the folder of images, images/ or shards/, is not in"),
    ],
)
def test_missing_files_are_named_and_described(manual_dir, tmp_path, remove, message):
    for name in remove:
        (manual_dir / name).rename(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=message) as error:
        ml_images.build(manual_dir, tmp_path / "data")
    assert str(manual_dir) in str(error.value)
    assert "One image per line" in str(error.value)
    assert not (tmp_path / "data").exists()


def test_wrong_options_and_lists(manual_dir, tmp_path):
    with pytest.raises(ValueError, match="labels='all' is neither"):
        ml_images.build(manual_dir, tmp_path, labels="all")
    with pytest.raises(ValueError, match="short_side=0 is not a number of pixels"):
        ml_images.build(manual_dir, tmp_path, short_side=0)
    with pytest.raises(ValueError, match="name='my set'"):
        ml_images.build(manual_dir, tmp_path, name="my set")
    (manual_dir / "val_image_list.txt").write_text("a/red.jpg\t5:1\n")
    with pytest.raises(ValueError, match=r"val_image_list\.txt:1"):
        ml_images.build(manual_dir, tmp_path)
    (manual_dir / "val_image_list.txt").write_text("")
    with pytest.raises(ValueError, match="has no rows"):
        ml_images.build(manual_dir, tmp_path)
    (manual_dir / "val_image_list.txt").rename(manual_dir / "val-2_image_list.txt")
    with pytest.raises(ValueError, match="'val-2' cannot be the name of a split"):
        ml_images.build(manual_dir, tmp_path)


def test_images_of_train_in_val_are_refused(manual_dir, tmp_path):
    (manual_dir / "val_image_list.txt").write_text("new.jpg\t1\na/red.jpg\t0:1\ngrey.jpg\t1\n")
    message = r"val_image_list\.txt: 2 images, such as a/red\.jpg, are in train and in val"
    with pytest.raises(ValueError, match=message + r".*--allow-shared"):
        ml_images.build(manual_dir, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.array_record*"))
    (manual_dir / "images/new.jpg").write_bytes(image_files.grey_jpeg())
    assert ml_images.build(manual_dir, tmp_path / "data", allow_shared=True).is_dir()


def test_lists_that_are_meant_to_overlap_and_names_twice_in_one_are_said(
    manual_dir, tmp_path, caplog
):
    train = (manual_dir / "train_image_list.txt").read_text()
    (manual_dir / "trainval_image_list.txt").write_text(train + "b/red.jpg\t0\ngrey.jpg\t3\n")
    caplog.set_level("WARNING")
    folder = ml_images.build(manual_dir, tmp_path / "data")
    assert len(records(folder, "trainval")) == 7
    said = caplog.text
    assert "trainval_image_list.txt: 1 row has the name of an earlier row" in said
    assert "5 images, such as a/red.jpg, are in train and in trainval" in said
    assert "1 image, such as b/red.jpg, is in trainval and in val" in said


def test_no_size_needs_tensorflow(manual_dir, tmp_path):
    # Where TFDS sorts, a split over MAX_MEM_BUFFER_SIZE (1 GB) is written through TensorFlow: the
    # first half shows that the lowered limit bites, the second that it does not concern us.
    script = f"""
from tensorflow_datasets.core import shuffle
shuffle.MAX_MEM_BUFFER_SIZE = 0
try:
    shuffle.Shuffler({str(tmp_path)!r}, hash_salt="train").add(1, b"record")
    raise SystemExit("TFDS spilled without TensorFlow: this test proves nothing any more")
except ImportError:
    pass
from tfds_builders import ml_images
ml_images.build({str(manual_dir)!r}, {str(tmp_path / "data")!r})
"""
    subprocess.run([sys.executable, "-c", WITHOUT_TENSORFLOW + script], cwd=REPOSITORY, check=True)
    assert len(records(tmp_path / "data/ml_images/released_320/1.0.0", "train")) == len(TRAIN)


def test_tfds_build_finds_the_builder(manual_dir, tmp_path):
    # `tfds build` itself: the front of the `tfds` command imports TensorFlow for another command.
    script = f"""
from tensorflow_datasets.scripts.cli import build, cli_utils
arguments = ["tfds", "--manual_dir={manual_dir}", "--data_dir={tmp_path}", "--num_shards=2",
             "--config", '{{"labels": "closed", "short_side": null}}']
cli_utils.make_flags_parser(build.Args, description="")(arguments).execute()
"""
    folder = REPOSITORY / "tfds_builders/ml_images"
    subprocess.run([sys.executable, "-c", WITHOUT_TENSORFLOW + script], cwd=folder, check=True)
    built = tmp_path / "ml_images/closed_original/1.0.0"
    assert len(list(built.glob("*-train.array_record-*"))) == 2
    assert len(records(built, "train")) == len(TRAIN)


def test_a_builder_of_its_own_makes_its_files_first(manual_dir, tmp_path):
    class Builder(ml_images.Builder, skip_registration=True):
        name = "drawn"
        pkg_dir_path = ml_images.Builder.pkg_dir_path

        def _manual_dir(self, dl_manager):
            return manual_dir

    builder = Builder(data_dir=tmp_path)
    builder.download_and_prepare()
    assert len(records(Path(builder.data_path), "train")) == len(TRAIN)


def test_the_command(manual_dir, tmp_path, capsys):
    published = manual_dir / "dictionary_and_semantic_hierarchy.txt"
    (manual_dir / "dictionary.txt").rename(published)
    flags = [f"--manual_dir={manual_dir}", f"--data_dir={tmp_path}", "--name=mine"]
    command.main([*flags, "--short_side=0", "--labels=closed", "--num_shards=2"])
    folder = tmp_path / "mine/closed_original/1.0.0"
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    assert len(list(folder.glob("mine-train.array_record-*-of-00002"))) == 2
    with pytest.raises(SystemExit, match=r"error: the class list, dictionary.txt or"):
        command.main(["--manual_dir", str(tmp_path), "--data_dir", str(tmp_path)])


def test_beam_is_answered_with_what_to_use_instead(manual_dir, tmp_path):
    folders = [f"--manual-dir={manual_dir}", f"--data-dir={tmp_path}"]
    for flag in "--beam", "--beam=runner=DirectRunner":
        with pytest.raises(SystemExit, match=r"--workers=8 .* --engine=ray"):
            command.main([*folders, flag])
    options = tfds.download.DownloadConfig(manual_dir=manual_dir, beam_runner="DirectRunner")
    with pytest.raises(ValueError, match="EngineOptions"):
        ml_images.Builder(data_dir=tmp_path).download_and_prepare(download_config=options)
