# SPDX-License-Identifier: BSD-3-Clause
"""The task of configs/classify.py on a person's folder, against `Model.tag`."""

import csv
import dataclasses
import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.pipeline import TooManyBadImagesError
from mlimages_jax.data.records import parse_record
from mlimages_jax.distributed import agreement, collectives, preemption
from mlimages_jax.inference import (
    pretrained,
    tag_record,
    tag_task,
    tag_update,
    watched_images,
)
from mlimages_jax.inference.image_source import ImageFiles, ImageSourceError
from mlimages_jax.settings import build
from tests.support import image_files, small_model, task_process, user_folder
from tests.support.five_classes import CLASS_LIST
from tests.support.small_run import load_config
from tfds_builders import shapes

BATCH = 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("run"), small_model.imported("weighted"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return pretrained.load(checkpoint)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A person's folder, with twenty more images in a sub-folder."""
    folder = tmp_path_factory.mktemp("images")
    user_folder.write_folder(folder)
    (folder / "noise").mkdir()
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
        (folder / "noise" / f"{i:02d}.jpg").write_bytes(image_files.jpeg(pixels))
    return folder


NAMES = sorted([*user_folder.NAMES, *(f"noise/{i:02d}.jpg" for i in range(20))])


def _values(checkpoint, images, output="", **changes):
    return {
        "checkpoint": str(checkpoint), "input": str(images), "output": str(output),
        "batch_size": BATCH, "num_threads": 2,
    } | changes  # fmt: skip


def _config(*args, **changes):
    return load_config("classify", **_values(*args, **changes))


def _classify(*args, workdir="nowhere", **changes):
    return tag_task.classify(_config(*args, **changes), workdir)


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _expected(model, folder, names, **rules):
    """Rows by `Model.tag`, one image at a time; None for an error."""
    return [
        None if name in user_folder.ERRORS else model.tag(folder / name, **rules)[0]
        for name in names
    ]


def _check(rows, names, expected):
    assert [row["image"] for row in rows] == names
    for row, tags in zip(rows, expected, strict=True):
        if tags is None:
            assert set(row) == {"image", "error"}
            assert row["error"].startswith(user_folder.ERRORS[row["image"]])
            continue
        assert set(row) == {"image", "tags"}
        for name in ("index", "id", "name"):
            assert [tag[name] for tag in row["tags"]] == [getattr(tag, name) for tag in tags]
        assert [tuple(tag["path"]) for tag in row["tags"]] == [tag.path for tag in tags]
        scores = [tag["score"] for tag in row["tags"]]
        assert scores == pytest.approx([tag.score for tag in tags], abs=1e-5)


def test_a_persons_folder_is_tagged_in_order_with_its_errors(checkpoint, model, folder, tmp_path):
    summary = _classify(checkpoint, folder, workdir=tmp_path)
    assert summary == (tmp_path / "tags.jsonl", 28, 3)
    _check(_rows(summary.output), NAMES, _expected(model, folder, NAMES))
    made = ["tags.jsonl", "tags.jsonl.made.jsonl"]
    assert sorted(file.name for file in tmp_path.iterdir()) == made
    turned = dict(zip(NAMES, _rows(summary.output), strict=True))["upright.jpg"]
    lying = pretrained.load(checkpoint, exif_orientation=False).tag(folder / "upright.jpg")
    assert turned["tags"][0]["score"] != pytest.approx(lying[0][0].score, abs=1e-4)
    _classify(checkpoint, folder, tmp_path / "lying.jsonl", exif_orientation=False)
    (row,) = [r for r in _rows(tmp_path / "lying.jsonl") if r["image"] == "upright.jpg"]
    assert row["tags"][0]["score"] == pytest.approx(lying[0][0].score, abs=1e-5)


def test_every_format_tells_the_same(checkpoint, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = _rows(_classify(checkpoint, folder, "tags.jsonl").output)
    tagged = [(row, tag) for row in rows for tag in row.get("tags", ())]
    errors = [row for row in rows if "error" in row]

    _classify(checkpoint, folder, "tags.csv")
    with open("tags.csv", newline="") as file:  # noqa: PTH123
        lines = list(csv.DictReader(file))
    assert len(lines) == len(tagged) + len(errors) == 5 * 25 + 3
    for line, (row, tag) in zip([x for x in lines if not x["error"]], tagged, strict=True):
        assert line["image"] == row["image"] and line["path"] == " > ".join(tag["path"])
        assert [line[name] for name in ("index", "id", "name", "score")] == [
            str(tag[name]) for name in ("index", "id", "name", "score")
        ]
    assert [x["rank"] for x in lines[:5]] == list("12345")

    _classify(checkpoint, folder, "tags.parquet")
    table = pq.read_table("tags.parquet").to_pylist()
    assert [row["image"] for row in table] == NAMES
    for ours, row in zip(table, rows, strict=True):
        assert (ours["error"], ours["tags"] is None) == (row.get("error"), "error" in row)
        for tag, expected in zip(ours["tags"] or [], row.get("tags", ()), strict=True):
            assert tag == expected | {"score": pytest.approx(expected["score"], rel=1e-6)}

    output = _classify(checkpoint, folder, workdir=tmp_path, format="label_pred", top_k=2).output
    assert output == tmp_path / "tags.txt"
    expected = []
    for row in rows:
        if "error" in row:
            expected.append(f"open pic {row['image']} failed")
            continue
        expected.append(f"+++ the predictions of {row['image']} is:")
        expected += [f"{t['index']} {t['name']}: {t['score']:.3f}" for t in row["tags"][:2]]
    assert output.read_text().splitlines() == expected
    assert any("dog, domestic dog: 0." in line for line in expected)


def test_tags_by_all_rules(checkpoint, model, folder, tmp_path):
    names = [name for name in NAMES if name.startswith("noise")]
    (tmp_path / "t").write_text("n0\t0.1\n3\t0.01\n")
    rules = {"threshold": 0.05, "thresholds": tmp_path / "t", "consistent": True}
    changes = {**rules, "thresholds": str(tmp_path / "t"), "top_k": 0}
    _classify(checkpoint, folder / "noise", tmp_path / "tags.jsonl", **changes)
    expected = _expected(model, folder, names, top_k=None, **rules)
    names = [name.removeprefix("noise/") for name in names]
    _check(_rows(tmp_path / "tags.jsonl"), names, expected)
    for rule in rules:  # each of them decides
        fewer = {name: value for name, value in rules.items() if name != rule}
        assert model.tag(sorted((folder / "noise").iterdir()), None, **fewer) != expected


SOME, ALL = "n0\t0.1\n3\t0.01\n", "".join(f"{index}\t0.01\n" for index in range(5))


@pytest.mark.parametrize(
    ("loss", "changes", "most"),
    [
        ("softmax", {}, 1),
        ("softmax", {"threshold": 0.1}, 1),
        ("softmax", {"top_k": 0}, 0),
        ("weighted", {}, 5),
        ("weighted", {"threshold": 0.1}, 0),
        ("weighted", {"threshold": 0.1, "top_k": 3}, 3),
        ("weighted", {"threshold": 0.0}, 5),
        ("weighted", {"thresholds": "none"}, 5),
        ("weighted", {"thresholds": ALL}, 0),
        # Classes without a threshold would be tags of every image.
        ("weighted", {"thresholds": SOME}, 5),
        ("weighted", {"thresholds": SOME, "threshold": 0.1}, 0),
    ],
)
def test_how_many_tags_an_image_gets(checkpoint, model, folder, tmp_path, loss, changes, most):
    if changes.get("thresholds") in (SOME, ALL):
        (tmp_path / "t").write_text(changes["thresholds"])
        changes = changes | {"thresholds": str(tmp_path / "t")}
    config = _config(checkpoint, folder, **changes)
    assert tag_task._most_tags(config, dataclasses.replace(model, loss=loss)) == most


@pytest.mark.slow
def test_ten_crops_at_another_size_in_other_precision(checkpoint, folder, tmp_path):
    view = {"view.name": "ten_crop", "view.size": 24}
    _classify(checkpoint, folder / "noise", tmp_path / "a.jsonl", **view)
    other = pretrained.load(checkpoint, view="ten_crop", image_size=24)
    rows = _rows(tmp_path / "a.jsonl")
    _check(rows, [row["image"] for row in rows], other.tag(sorted((folder / "noise").iterdir())))
    _classify(checkpoint, folder / "noise", tmp_path / "b.jsonl", dtype="bfloat16", **view)
    rough = _rows(tmp_path / "b.jsonl")
    assert rough != rows
    assert [r["tags"][0]["score"] for r in rough] == pytest.approx(
        [r["tags"][0]["score"] for r in rows], abs=0.1
    )


def test_one_class_an_image_of_a_list_without_labels(folder, tmp_path):
    """Softmax; a list of paths alone, with labels, and with an image that is not there."""
    config = small_model.imported("softmax")
    other = small_model.save(tmp_path / "run", config, class_list="")
    (tmp_path / "names.txt").write_text(CLASS_LIST)
    (tmp_path / "list.txt").write_text("IMG_1.JPG\n\nnoise/03.jpg\t4\nnowhere.jpg\n")
    changes = {"images_root": str(folder), "classes": str(tmp_path / "names.txt"), "top_k": 0}
    summary = _classify(other, tmp_path / "list.txt", tmp_path / "o.jsonl", **changes)
    assert summary[1:] == (3, 1)
    rows = _rows(tmp_path / "o.jsonl")
    assert [row["image"] for row in rows] == ["IMG_1.JPG", "noise/03.jpg", "nowhere.jpg"]
    assert rows[2]["error"] == "missing: there is no such file"
    for row in rows[:2]:
        assert sum(tag["score"] for tag in row["tags"]) == pytest.approx(1)
    model = pretrained.load(other, classes=tmp_path / "names.txt")
    expected = model.classify([folder / "IMG_1.JPG", folder / "noise/03.jpg"])
    _check(rows[:2], ["IMG_1.JPG", "noise/03.jpg"], expected)
    _classify(other, tmp_path / "list.txt", tmp_path / "one.jsonl", **changes | {"top_k": -1})
    first = [row["tags"][:1] for row in rows[:2]]
    assert [row["tags"] for row in _rows(tmp_path / "one.jsonl")[:2]] == first
    with pytest.raises(
        build.ConfigError, match="consistent=True is for models with several labels"
    ):
        _classify(
            other, folder, tmp_path / "p.jsonl", consistent=True, **changes | {"images_root": ""}
        )
    with pytest.raises(build.ConfigError, match="5 classes of this checkpoint have no names"):
        _classify(other, folder, tmp_path / "p.jsonl")


def test_one_image_and_a_built_set(checkpoint, model, folder, tmp_path, monkeypatch):
    summary = _classify(checkpoint, folder / "print.jpeg", tmp_path / "one.jsonl")
    _check(_rows(summary.output), ["print.jpeg"], _expected(model, folder, ["print.jpeg"]))
    built = shapes.build(tmp_path / "data", num_train=4, num_val=10, size=48)
    given, real = [], tag_update.Predictions
    monkeypatch.setattr(
        tag_update, "Predictions", lambda *a, **k: given.append(a[1]) or real(*a, **k)
    )
    summary = _classify(checkpoint, built, tmp_path / "set.jsonl", split="val")
    assert not given[0].exif_orientation, "they stay as training sees them"
    records = [parse_record(data) for data in DataSet.open(built).records("val")]
    rows = _rows(summary.output)
    _check(rows, [r.name for r in records], model.tag([r.jpeg for r in records]))
    monkeypatch.setattr(tag_update, "Predictions", None)
    page = tmp_path / "set.html"
    again = _classify(checkpoint, built, tmp_path / "set.jsonl", split="val", html=str(page))
    assert again == summary and records[0].name in page.read_text()
    for changes in ({"watch": True}, {"sidecars": True}, {"copy_to": str(tmp_path / "by_tag")}):
        with pytest.raises(build.ConfigError, match=r"set|splits"):
            _classify(checkpoint, built, tmp_path / "set.jsonl", split="val", **changes)
    with pytest.raises(ImageSourceError, match="name one of its splits"):
        _classify(checkpoint, built, tmp_path / "s.jsonl")


def _interrupt(monkeypatch, batches):
    """The next run stops behind some batches, in the middle of a line."""
    written = []

    def append(self, rows):
        if len(written) == batches:
            self._file.write(b'{"image": "cut')
            raise KeyboardInterrupt
        written.append(rows)
        original(self, rows)

    original = tag_record.TagRecord.append
    monkeypatch.setattr(tag_record.TagRecord, "append", append)


def test_a_stopped_command_goes_on_where_it_was(checkpoint, folder, tmp_path, monkeypatch):
    whole = _classify(checkpoint, folder, tmp_path / "whole.csv")
    output = tmp_path / "tags.csv"
    _interrupt(monkeypatch, batches=2)
    with pytest.raises(KeyboardInterrupt):
        _classify(checkpoint, folder, output)
    assert not output.exists()
    monkeypatch.undo()
    with pytest.raises(build.ConfigError, match=r"top_k: 5 before, 3 now"):
        _classify(checkpoint, folder, output, top_k=3)
    read = []
    original = ImageFiles.read
    monkeypatch.setattr(
        ImageFiles, "read", lambda self, index: (read.append(index), original(self, index))[1]
    )
    summary = _classify(checkpoint, folder, output)
    assert sorted(read) == list(range(2 * BATCH, 28))
    assert summary == (output, 28, 3) and whole.errors == 3
    assert output.read_bytes() == whole.output.read_bytes()
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["tags.csv", "tags.csv.made.jsonl", "whole.csv", "whole.csv.made.jsonl"]
    read.clear()
    assert _classify(checkpoint, folder, output) == summary
    assert not read, "all of them are known"
    with pytest.raises(build.ConfigError, match=r"already exists.*top_k: 5 before, 3 now"):
        _classify(checkpoint, folder, output, top_k=3)
    assert _classify(checkpoint, folder, output, top_k=3, overwrite=True).images == 28
    assert len(output.read_text().splitlines()) == 1 + 3 * 25 + 3


def _small_folder(folder, target, *numbers):
    for number in numbers:
        target.mkdir(exist_ok=True)
        shutil.copy(folder / "noise" / f"{number:02d}.jpg", target)


def test_what_is_new_gets_the_tags_that_a_run_over_all_gives(checkpoint, folder, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    photos = tmp_path / "photos"
    _small_folder(folder, photos, 1, 2, 5)
    _classify(checkpoint, photos, tmp_path / "tags.jsonl")
    (photos / "01.jpg").unlink()
    shutil.copy(folder / "notes.jpg", photos / "00.jpg")
    _small_folder(folder, photos, 3, 9)
    summary = _classify(checkpoint, photos, tmp_path / "tags.jsonl")
    assert summary[1:] == (5, 1)
    assert "2 of 5 images are tagged already" in caplog.text
    whole = _classify(checkpoint, photos, tmp_path / "whole.jsonl").output
    for one, other in zip(_rows(summary.output), _rows(whole), strict=True):
        assert one["image"] == other["image"] and one.get("error") == other.get("error")
        scores, expected = ([tag["score"] for tag in r.get("tags", ())] for r in (one, other))
        assert scores == pytest.approx(expected, abs=1e-5)
    with pytest.raises(build.ConfigError, match=r"input: .* before"):
        _classify(checkpoint, folder / "noise", tmp_path / "tags.jsonl")


def test_watching_tags_what_appears_until_it_is_stopped(
    checkpoint, folder, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="absl")
    photos, output = tmp_path / "photos", tmp_path / "tags.jsonl"
    _small_folder(folder, photos, 1, 2)
    for path in photos.iterdir():
        os.utime(path, (0, 0))
    looks, loads, real = [], [], pretrained.load
    monkeypatch.setattr(
        tag_task.pretrained, "load", lambda *a, **k: loads.append(1) or real(*a, **k)
    )

    def wait(self):
        looks.append(sorted(row["image"] for row in _rows(output)))
        if len(looks) == 1:
            _small_folder(folder, photos, 3)
        if len(looks) == 4:
            raise preemption.Preempted

    monkeypatch.setattr(watched_images.WatchedImages, "_wait", wait)
    by_tag = tmp_path / "by_tag"
    sheet = tmp_path / "sheet.html"
    options = {
        "watch": True, "sidecars": True, "copy_to": str(by_tag), "html": str(sheet), "top_k": 1,
    }  # fmt: skip
    with pytest.raises(preemption.Preempted):
        _classify(checkpoint, photos, output, **options)
    assert looks == [["01.jpg", "02.jpg"]] * 2 + [["01.jpg", "02.jpg", "03.jpg"]] * 2
    assert len(loads) == 1
    rounds = [text for text in caplog.messages if ": tagged" in text]
    assert [text.split(": ")[1] for text in rounds] == [
        f"tagged {new} of {images} images, 0 errors; {new} sidecars written; {new} files by tag "
        f"added, 0 removed; sheet.html shows {images} images" for new, images in ((2, 2), (1, 3))
    ]  # fmt: skip
    for row in _rows(output):
        name = row["tags"][0]["name"].split(",")[0]
        assert name in (photos / f"{row['image']}.xmp").read_text()
        assert (by_tag / name / row["image"]).samefile(photos / row["image"])
    with pytest.raises(build.ConfigError, match=r"is inside .*photos, so its files"):
        _classify(checkpoint, photos, output, copy_to=str(photos / "x"))
    assert len(list(tmp_path.glob("sheet.html.thumbnails/*/*.jpg"))) == 3
    for html, message in ((photos / "x.html", "is inside"), ("x.csv", "end the name.*html")):
        with pytest.raises(build.ConfigError, match=message):
            _classify(checkpoint, photos, output, html=str(html))


@pytest.mark.parametrize("other", ["weights", "classes", "loss"])
def test_rows_of_two_networks_never_come_into_one_file(folder, tmp_path, monkeypatch, other):
    """As when a workdir is trained anew, to the same step, while a command is stopped."""
    run = small_model.save(tmp_path / "run", small_model.imported("sigmoid"))
    _interrupt(monkeypatch, batches=2)
    with pytest.raises(KeyboardInterrupt):
        _classify(run, folder, tmp_path / "tags.csv")
    monkeypatch.undo()
    shutil.rmtree(run)
    tree = small_model.weights(seed=1 if other == "weights" else 0)
    loss = small_model.imported("weighted" if other == "loss" else "sigmoid")
    small_model.save(run, loss, tree=tree)
    if other == "classes":
        dictionary = (run / "dictionary.txt").read_text()
        (run / "dictionary.txt").write_text(dictionary.replace("dog", "hound"))
    name = {"classes": "dictionary"}.get(other, other)
    with pytest.raises(build.ConfigError, match=f"{name}: .* before, .* now"):
        _classify(run, folder, tmp_path / "tags.csv")


def test_everything_was_written_but_the_file(checkpoint, folder, tmp_path, monkeypatch):
    def fail(self):
        raise OSError("no space left")

    monkeypatch.setattr(tag_record.TagRecord, "finish", fail)
    with pytest.raises(OSError, match="no space left"):
        _classify(checkpoint, folder / "noise", tmp_path / "t.csv", batch_size=16)
    monkeypatch.undo()
    assert _classify(checkpoint, folder / "noise", tmp_path / "t.csv").images == 20


def test_too_many_errors_end_it(checkpoint, folder, tmp_path):
    with pytest.raises(TooManyBadImagesError, match=r"3 images .*max_errors 2.* old\.bmp: uns"):
        _classify(checkpoint, folder, tmp_path / "t.csv", max_errors=2)
    assert _classify(checkpoint, folder, tmp_path / "t.csv", max_errors=3).errors == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "tags.json"}, r"cannot tell the format of .*tags.json"),
        ({"format": "xml"}, r"format='xml' is none of jsonl"),
        ({"output": "gs://bucket/tags.csv"}, "tags are written to a local disk"),
        ({"top_k": -2}, r"top_k=-2: give a whole number, 0 \(no limit\)"),
        ({"threshold": 1.5}, "threshold=1.5: give a number, 0 or more and at most 1"),
        ({"loss": "hinge"}, "loss='hinge' is none of"),
        ({"dtype": "int8"}, "dtype='int8' is none of float32"),
        ({"view.name": "middle"}, "name='middle' is none of"),
        ({"batch_size": 9}, "batch_size=9 is not divisible by 8 devices"),
        ({"classes": "few.txt"}, "few.txt has 1 classes"),
        ({"thresholds": "bad.txt"}, "bad.txt:1: 'n9' is neither"),
    ],
)
def test_what_cannot_be_is_named_before_an_image_is_read(
    checkpoint, folder, tmp_path, monkeypatch, changes, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.txt").write_text("".join(CLASS_LIST.splitlines(True)[:2]))
    (tmp_path / "bad.txt").write_text("n9\t0.5\n")
    monkeypatch.setattr(ImageFiles, "read", None)
    with pytest.raises(build.ConfigError, match=message):
        tag_task.classify(_config(checkpoint, folder, **changes), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_what_is_not_there(checkpoint, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="contains no checkpoint"):
        _classify(tmp_path / "nothing", folder, workdir=tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist: give a folder"):
        _classify(checkpoint, tmp_path / "nothing", workdir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"t\.txt"):
        _classify(checkpoint, folder, workdir=tmp_path, thresholds=str(tmp_path / "t.txt"))


def test_processes_that_see_other_images(checkpoint, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(collectives, "exchanged", lambda text: [text, text.upper()])
    with pytest.raises(agreement.DifferentProcessesError, match=r"images in .*, shared"):
        _classify(checkpoint, folder, workdir=tmp_path)


@pytest.mark.slow
def test_two_processes_write_what_one_does(checkpoint, folder, tmp_path):
    for i, name in enumerate(
        user_folder.ERRORS
    ):  # errors of both processes, and a last batch of one
        shutil.copy(folder / name, tmp_path / f"{i}.jpg")
    for i in range(14):
        shutil.copy(folder / "noise" / f"{i:02d}.jpg", tmp_path / f"{i + 10}.jpg")
    shutil.copy(folder / "broken.jpg", tmp_path / "15.jpg")
    alone = _classify(checkpoint, tmp_path, tmp_path / "alone.jsonl")
    values = _values(checkpoint, tmp_path, tmp_path / "together.jsonl")
    with task_process.running("classify", tmp_path, values, count=2) as children:
        for child in children:
            _, problems = child.communicate(timeout=250)
            assert child.returncode == 0, problems[-3000:]
    assert alone.images == 17 and alone.errors == 4
    ours, theirs = _rows(tmp_path / "alone.jsonl"), _rows(tmp_path / "together.jsonl")
    assert [row["image"] for row in theirs] == [row["image"] for row in ours]
    for one, other in zip(ours, theirs, strict=True):
        assert one.get("error") == other.get("error")
        for tag, same in zip(one.get("tags", ()), other.get("tags", ()), strict=True):
            assert same == tag | {"score": pytest.approx(tag["score"], abs=1e-5)}


@pytest.mark.slow
def test_photographs_of_the_original_from_its_own_list(tencent_dir, tmp_path):
    """Its list names data/images/im_k.jpg and has no second column."""
    config = small_model.imported("softmax", image_size=224)
    other = small_model.save(tmp_path / "run", config)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tencent_dir / "images")
    changes = {"images_root": str(tmp_path), "top_k": 5}
    listed = tencent_dir / "im_list_for_classification.txt"
    summary = _classify(other, listed, tmp_path / "label_pred.txt", **changes)
    assert summary[1:] == (4, 0)
    model = pretrained.load(other)
    expected = []
    for number in range(4):
        expected.append(f"+++ the predictions of data/images/im_{number}.jpg is:")
        (tags,) = model.classify(tencent_dir / "images" / f"im_{number}.jpg")
        expected += [f"{tag.index} {tag.name}: {tag.score:.3f}" for tag in tags]
    ours = summary.output.read_text().splitlines()
    assert [line.rsplit(": ", 1)[0] for line in ours] == [x.rsplit(": ", 1)[0] for x in expected]
    ours, expected = (
        [float(line.rsplit(": ", 1)[1]) for line in lines if not line.startswith("+++")]
        for lines in (ours, expected)
    )
    assert ours == pytest.approx(expected, abs=0.001)


@pytest.mark.slow
def test_small_real_images_of_a_label_list(stamps_dir, tmp_path):
    other = small_model.save(tmp_path / "run", small_model.imported("sigmoid"))
    listed = stamps_dir / "val_image_list.txt"
    changes = {"batch_size": 64, "images_root": str(stamps_dir / "images")}
    summary = _classify(other, listed, tmp_path / "tags.parquet", **changes)
    table = pq.read_table(summary.output)
    names = [line.split("\t")[0] for line in listed.read_text().splitlines()]
    assert table["image"].to_pylist() == names and len(names) == 196
    assert summary[1:] == (196, 0)
    model = pretrained.load(other)
    for i in range(0, 196, 40):
        scores = [tag["score"] for tag in table["tags"][i].as_py()]
        (tags,) = model.tag(stamps_dir / "images" / names[i])
        assert scores == pytest.approx([tag.score for tag in tags], abs=1e-5)
