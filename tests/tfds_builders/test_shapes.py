# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import read_label_list
from tests.tfds_builders.built_set import write_manual_dir
from tfds_builders import shapes
from tfds_builders.shapes import drawing
from tfds_builders.shapes.classes import HIERARCHY, INDEX
from tfds_builders.shapes.scene import Background, Scene, Thing, compose, tags

# Colours as a person would measure them, in degrees; the drawing has its own table.
HUES = {
    "red": (-10, 10), "orange": (15, 40), "yellow": (45, 70), "green": (100, 150),
    "turquoise": (165, 195), "blue": (205, 240), "violet": (265, 300),
}  # fmt: skip


def a_thing(shape: str = "square", **changes) -> Thing:
    thing = Thing(shape, "red", "large", False, (1.0, 0.0, 0.0), 0.5, 0.5, 0.25, 0.0)
    return dataclasses.replace(thing, **changes)


def a_scene(*things: Thing, pattern: str | None = None) -> Scene:
    return Scene(Background(pattern, (0.5, 0.5, 0.5), (0.7, 0.7, 0.7), 0.2, 0.0), things)


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return shapes.draw(tmp_path_factory.mktemp("shapes"), num_train=300, num_val=20)


def test_hierarchy_has_four_trees():
    assert len(HIERARCHY) == 40
    assert HIERARCHY.roots.tolist() == [0, 1, 2, 3]
    assert set(HIERARCHY.depth.tolist()) == {0, 1, 2, 3}
    names = [HIERARCHY.names[i] for i in [INDEX["disc"], *HIERARCHY.ancestors(INDEX["disc"])]]
    assert names[0] == "disc, disk, circle"
    assert {name.split(",")[0] for name in names[1:]} == {"round figure", "curved figure", "shape"}


def test_tags_of_a_scene_worked_out_by_hand():
    pale_hidden_disc = a_thing("disc", color="orange", pale=True)
    scene = a_scene(pale_hidden_disc, a_thing("square"), pattern="grid")
    found = tags(scene, [0.2, 0.0])
    soft = {"disc": 0.8, "round figure": 0.8, "curved figure": 0.8, "orange": 0.9}
    sure = ["shape", "polygon", "convex polygon", "square", "color", "chromatic color"]
    sure += ["warm color", "red", "size", "large", "pattern", "lined pattern", "grid"]
    assert found == soft | dict.fromkeys(sure, 1.0)


def test_an_object_between_the_sizes_leaves_them_unknown():
    between = a_thing(size="in between")
    only, with_small = a_scene(between), a_scene(between, a_thing(size="small"))
    assert (tags(only, [0])["large"], tags(only, [0])["small"]) == (-1, -1)
    found = tags(with_small, [0, 0])
    assert (found["size"], found["large"], found["small"]) == (1, -1, 1)


def test_hidden_fraction_of_two_squares_half_over_each_other():
    side = 0.25 * math.sqrt(2)
    left = a_thing(x=0.4)
    right = dataclasses.replace(left, x=0.4 + side / 2)
    _, hidden = drawing.paint(a_scene(left, right), size=96)
    assert hidden == pytest.approx([0.5, 0], abs=0.05)  # the dark line makes both a little wider


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("disc", math.pi * 0.95**2),
        ("ring", math.pi * (1 - 0.52**2)),
        ("heart", 180 * math.pi / 16**2),
        ("triangle", 3 * math.sqrt(3) / 4),
        ("square", 2.0),
        ("star", 10 * 0.42 * math.sin(math.pi / 5) / 2),
        ("cross", 2 * 1.9 * 0.6 - 0.6**2),
        ("arrow", 1.05 * 0.48 + 0.95 * 1.44 / 2),
        ("hourglass", 0.75 * (1.32 + 0.24)),
    ],
)
def test_areas_by_formula_at_any_angle(shape, area):
    for angle in (0, 1):
        fill, _ = drawing._object(a_thing(shape, angle=angle), size=256)
        assert fill.sum() / (0.25 * 256) ** 2 == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize(
    ("pattern", "fraction"), [("stripes", 0.5), ("checks", 0.5), ("grid", 0.36)]
)
def test_fraction_of_the_second_tone(pattern, fraction):
    pixels, _ = drawing.paint(a_scene(pattern=pattern), size=80)  # five whole periods
    assert (pixels.mean() - 127.5) / (0.2 * 255) == pytest.approx(fraction, abs=0.04)


def test_an_image_depends_on_seed_split_and_index_only(drawn, tmp_path):
    fewer = files_of(shapes.draw(tmp_path / "fewer", num_train=12, num_val=4))
    again = files_of(drawn)
    assert all(again[name] == fewer[name] for name in fewer if name.endswith("jpg"))
    assert again["train_image_list.txt"].startswith(fewer["train_image_list.txt"])
    other = files_of(shapes.draw(tmp_path / "other", num_train=12, num_val=4, seed=1))
    assert not any(other[name] == fewer[name] for name in fewer if name.endswith("jpg"))
    assert fewer["images/train_000000.jpg"] != fewer["images/val_000000.jpg"]


def test_files_are_those_of_a_user_of_ml_images(drawn):
    assert Hierarchy.from_file(drawn / "dictionary.txt").names == HIERARCHY.names
    for split, count in {"train": 300, "val": 20}.items():
        rows = read_label_list(drawn / f"{split}_image_list.txt", num_classes=40)
        assert [row.name for row in rows] == [f"{split}_{i:06d}.jpg" for i in range(count)]
        for row in rows:
            header = simplejpeg.decode_jpeg_header((drawn / "images" / row.name).read_bytes())
            assert header[:2] == (96, 96)
    assert len({path.read_bytes() for path in (drawn / "images").iterdir()}) == 320


def test_rows_are_closed_over_ancestors(drawn):
    for row in read_label_list(drawn / "train_image_list.txt", num_classes=40):
        closed, _ = HIERARCHY.close(row.classes, row.confidences)
        assert set(closed.tolist()) == set(row.classes.tolist())


def test_color_tags_agree_with_the_pixels(drawn):
    seen = Counter()
    for row in read_label_list(drawn / "train_image_list.txt", num_classes=40):
        pixels = simplejpeg.decode_jpeg((drawn / "images" / row.name).read_bytes())
        found = colors_in(pixels)
        assert found == {key for key in [*HUES, "white", "black"] if INDEX[key] in row.classes}
        seen.update(found)
    assert set(seen) == {*HUES, "white", "black"}


def colors_in(pixels: np.ndarray) -> set[str]:
    """Colours that fill more than half a percent of an image."""
    hue, saturation, value = cv2.split(
        cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    )
    vivid = (saturation > 0.45) & (value > 0.85)
    fractions = {
        key: (vivid & ((hue - low) % 360 < high - low)).mean() for key, (low, high) in HUES.items()
    }
    fractions["white"] = ((saturation < 0.06) & (value > 0.92)).mean()
    black = (value < 0.12).astype(np.uint8)  # as are the lines, which are up to 4 pixels wide
    fractions["black"] = cv2.erode(black, np.ones((5, 5), np.uint8)).mean()
    return {key for key, fraction in fractions.items() if fraction > 0.005}


def test_size_tags_agree_with_the_pixels():
    for index in range(150):
        scene = compose(0, "train", index)
        for thing in scene.things:
            alone = a_scene(dataclasses.replace(thing, x=0.5, y=0.5))
            pixels, _ = drawing.paint(alone, size=96)
            touched = np.argwhere(np.any(pixels != 128, axis=-1))  # rint(127.5) is even
            _, radius = cv2.minEnclosingCircle(touched.astype(np.float32))
            expected = {"small": (14, 21), "in between": (19, 25.5), "large": (23, 32)}[thing.size]
            assert expected[0] < radius < expected[1]


@pytest.fixture(scope="module")
def class_counts() -> dict[str, np.ndarray]:
    """Images of each class in the default data set."""
    counts = {}
    for split, images in {"train": 4000, "val": 500}.items():
        counter: Counter[str] = Counter()
        for index in range(images):
            scene = compose(0, split, index)
            found = tags(scene, [0.0] * len(scene.things))
            counter.update(key for key, confidence in found.items() if confidence > 0)
        counts[split] = np.array([counter[key] for key in INDEX])
    return counts


@pytest.mark.slow
def test_classes_have_a_long_tail_but_enough_images(class_counts):
    train, val = class_counts["train"], class_counts["val"]
    assert (train.max(), train.min()) == (train[INDEX["shape"]], train[INDEX["turquoise"]])
    assert (train.max(), train.min()) == (3855, 102)  # as the README says
    assert np.median(train) < train.max() / 4
    assert val.min() >= 10


def test_objects_stand_upright_and_off_the_border():
    scenes = [compose(0, "train", index) for index in range(500)]
    assert Counter(len(scene.things) for scene in scenes).keys() == {0, 1, 2, 3}
    for thing in (thing for scene in scenes for thing in scene.things):
        assert abs(thing.angle) <= math.radians(10)
        for centre in (thing.x, thing.y):
            assert 0.08 <= centre - thing.radius < centre + thing.radius <= 0.92


def test_built_set_has_the_drawn_images(tmp_path):
    kept = tmp_path / "kept"
    folder = shapes.build(tmp_path / "data", num_train=24, num_val=6, keep_files=kept)
    builder = tfds.builder_from_directory(folder)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 24,
        "val": 6,
    }
    rows = {row.name: row for row in read_label_list(kept / "val_image_list.txt", num_classes=40)}
    for example in builder.as_data_source(
        split="val", decoders={"image": tfds.decode.SkipDecoding()}
    ):
        row = rows.pop(example["name"].decode())
        np.testing.assert_array_equal(example["labels"], row.classes)
        np.testing.assert_array_equal(example["confidences"], row.confidences)
    assert not rows


def test_building_again_does_nothing(tmp_path):
    folder = shapes.build(tmp_path, num_train=6, num_val=3)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert shapes.build(tmp_path, num_train=6, num_val=3) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_other_numbers_have_another_folder(tmp_path):
    folders = {
        shapes.build(tmp_path, num_train=3, num_val=1, **numbers)
        for numbers in ({}, {"size": 32}, {"seed": 1})
    }
    assert {folder.parent.name for folder in folders} == {
        "3_1_96px_seed0",
        "3_1_32px_seed0",
        "3_1_96px_seed1",
    }


def test_command_line_prints_the_folder(tmp_path):
    arguments = [f"--data_dir={tmp_path}", "--num_train=3", "--num_val=1", "--size=32"]
    done = subprocess.run(
        [sys.executable, "-m", "tfds_builders.shapes", *arguments],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert Path(done.stdout.splitlines()[-1]) == tmp_path / "shapes/3_1_32px_seed0/1.0.0"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"num_train": 0}, "num_train=0"), ({"size": 8}, "size=8"), ({"seed": -1}, "seed=-1")],
)
def test_numbers_out_of_range(tmp_path, wrong, message):
    for function in (shapes.draw, shapes.build):
        with pytest.raises(ValueError, match=message):
            function(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_a_persons_folder_is_not_drawn_over(tmp_path):
    write_manual_dir(tmp_path / "mine")
    before = (tmp_path / "mine/train_image_list.txt").read_bytes()
    with pytest.raises(ValueError, match=r"dictionary\.txt has other classes"):
        shapes.build(tmp_path / "data", num_train=2, num_val=1, keep_files=tmp_path / "mine")
    assert (tmp_path / "mine/train_image_list.txt").read_bytes() == before
