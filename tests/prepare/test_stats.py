# SPDX-License-Identifier: BSD-3-Clause
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.labels import lists
from mlimages_jax.labels.hierarchy import HierarchyError
from mlimages_jax.labels.lists import LabelListError
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.stats import figures
from mlimages_jax.prepare.stats.command import stats
from tests.support import image_files
from tests.support.five_classes import CLASS_LIST
from tfds_builders import ml_images

TRAIN = """\
a.jpg\t2:0.9\t4:1
b.jpg\t1:1\t0:0.5
c.jpg\t3:-1\t4:0
d.jpg
e.jpg\t4
"""
VAL = "a.jpg\t0:1\t1:1\n"
FILES = [
    "per_class.tsv", "images_per_class.png", "images_per_class.svg", "statistics.json",
    "tags_per_image.png", "tags_per_image.svg",
]  # fmt: skip


@pytest.fixture
def manual_dir(tmp_path) -> Path:
    folder = tmp_path / "manual"
    (folder / "images").mkdir(parents=True)
    (folder / "dictionary.txt").write_text(CLASS_LIST)
    (folder / "train_image_list.txt").write_text(TRAIN)
    (folder / "val_image_list.txt").write_text(VAL)
    for name in "abcde":
        (folder / f"images/{name}.jpg").write_bytes(image_files.jpeg(image_files.quadrants()))
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """The figures become empty files, which is quicker."""
    monkeypatch.setattr(figures, "save", lambda figure, path, *, kind: path.write_bytes(b""))


def of_lists(manual_dir: Path, *splits: str, **options) -> None:
    paths = tuple(manual_dir / f"{split}_image_list.txt" for split in splits)
    stats(paths, dictionary=manual_dir / "dictionary.txt", **options)


def numbers_of(folder: Path, *, but: tuple[str, ...] = ()) -> dict:
    numbers = json.loads((folder / "statistics.json").read_text())
    return {key: value for key, value in numbers.items() if key not in but}


def test_the_table(manual_dir, capsys):
    of_lists(manual_dir, "train", "val", threshold=1)
    out = capsys.readouterr().out
    shown = re.findall(r"^ *(\S.*?) {2,}([\d.,]+)(?: {2,}(\S.*))?$", out, re.MULTILINE)
    values = {name: (value, remark) for name, value, remark in shown}
    assert len(values) > 30
    assert values["images"] == ("6", "")
    assert values[str(manual_dir / "train_image_list.txt")] == ("5", "")
    assert values[str(manual_dir / "val_image_list.txt")] == ("1", "")
    assert values["with a repeated name"] == ("1", "")
    assert values["without tags"] == ("2", "")
    assert values["classes"] == ("5", "")
    assert values["with images"] == ("4", "")
    assert values["trainable"] == ("3", "more than 1 images")
    assert values["labels"] == ("9", "")
    assert values["certain (1)"] == ("5", "55.6%")
    assert values["soft (between 0 and 1)"] == ("2", "22.2%")
    assert values["absent (0)"] == values["unknown (-1)"] == ("1", "11.1%")
    assert values["0.9"] == ("1", "11.1% ####")
    assert values["tags"] == ("7", "certain and soft labels")
    assert values["2"] == ("3", "50.0% ####################")  # images with two tags
    assert values["rows not closed over ancestors"] == ("3", "50.0%")
    assert values["that lack a tag's ancestor"] == ("2", "33.3%")
    assert values["tags that closing would add"] == ("4", "")
    assert values["depth, maximum"] == ("2", "edges from the root")
    assert values["depth, mean over tags"] == ("0.86", "")  # 6 edges, 7 tags
    assert "records" not in out


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_workers_count_the_same(manual_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lists, "_CHUNK_BYTES", 32)  # so that a list has several blocks
    built = ml_images.build(manual_dir, tmp_path / "data", allow_shared=True, num_shards=3)
    path = next(built.glob("*train*-00001-*"))
    path.write_bytes(path.read_bytes()[:-100])
    capsys.readouterr()
    told = []
    for workers in None, 2:
        engine = EngineOptions("local", workers=workers)
        of_lists(manual_dir, "train", "val", engine=engine, output_dir=tmp_path / f"lists{workers}")
        stats(dataset=built, engine=engine, output_dir=tmp_path / f"set{workers}")
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] and "unreadable" in told[0]
    for name in "lists", "set":
        one, two = (tmp_path / f"{name}{workers}" for workers in (None, 2))
        assert numbers_of(one) == numbers_of(two)
        assert (one / "per_class.tsv").read_bytes() == (two / "per_class.tsv").read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_many_confidences_and_tags_are_cut_in_the_table_only(tmp_path, capsys):
    rows = [f"{i}.jpg " + " ".join(f"{c}:{(c + 1) / 100}" for c in range(i)) for i in range(31)]
    rows.append(f"last{rows[-1]}")
    (tmp_path / "list.txt").write_text("\n".join(rows))
    classes = [f"{i}\tn{i}\t-1\tclass {i}\n" for i in range(30)]
    (tmp_path / "dictionary.txt").write_text(CLASS_LIST.splitlines()[0] + "\n" + "".join(classes))
    paths = (tmp_path / "list.txt",)
    stats(paths, dictionary=tmp_path / "dictionary.txt", output_dir=tmp_path / "out")
    out = capsys.readouterr().out
    assert re.search(r"\n  20 or more +12 +37\.5%", out)
    # Class c has 31 - c of the 495 labels; the 18 classes from 12 on 19 + 18 + ... + 2 = 189.
    assert re.search(r"\n  18 others +189 +38\.2%", out)
    numbers = numbers_of(tmp_path / "out")
    assert len(numbers["confidences"]) == 30
    assert len(numbers["tags_per_image"]["histogram"]) == 31


@pytest.mark.usefixtures("undrawn")
def test_the_files(manual_dir, tmp_path):
    of_lists(manual_dir, "train", output_dir=tmp_path / "new/out")
    assert sorted(path.name for path in (tmp_path / "new/out").iterdir()) == sorted(FILES)
    table = (tmp_path / "new/out/per_class.tsv").read_text()
    assert [line.split("\t") for line in table.splitlines()] == [
        ["class", "wordnet_id", "name", "depth", "images", "certain", "soft", "absent",
         "unknown", "without_parent"],
        ["0", "n0", "animal", "0", "1", "0", "1", "0", "0", "0"],
        ["1", "n1", "dog, domestic dog", "1", "1", "1", "0", "0", "0", "1"],
        ["2", "n2", "poodle", "2", "1", "0", "1", "0", "0", "1"],
        ["3", "n3", "vehicle", "0", "0", "0", "0", "0", "1", "0"],
        ["4", "n4", "car", "1", "2", "2", "0", "1", "0", "2"],
    ]  # fmt: skip
    numbers = numbers_of(tmp_path / "new/out")
    assert numbers["sources"] == {str(manual_dir / "train_image_list.txt"): 5}
    assert numbers["classes"] == {
        "total": 5, "with_images": 4, "trainable": 0, "trainable_above": 100,
    }  # fmt: skip


@pytest.mark.usefixtures("undrawn")
def test_a_built_set_has_the_numbers_of_its_lists(manual_dir, tmp_path):
    folder = ml_images.build(manual_dir, tmp_path / "data", allow_shared=True, num_shards=2)
    of_lists(manual_dir, "train", output_dir=tmp_path / "list")
    stats(dataset=folder, split="train", output_dir=tmp_path / "set")
    assert numbers_of(tmp_path / "set")["sources"] == {"train": 5}
    compare(tmp_path / "list", tmp_path / "set")
    of_lists(manual_dir, "train", "val", output_dir=tmp_path / "list")
    stats(dataset=folder, output_dir=tmp_path / "set")
    assert numbers_of(tmp_path / "set")["sources"] == {"train": 5, "val": 1}
    compare(tmp_path / "list", tmp_path / "set")


def compare(a: Path, b: Path) -> None:
    assert numbers_of(a, but=("sources",)) == numbers_of(b, but=("sources",))
    for name in FILES:
        if name != "statistics.json":
            assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_stamps_from_lists_and_from_a_built_set(stamps_dir, tmp_path):
    folder = ml_images.build(stamps_dir, tmp_path / "data", short_side=32, num_shards=3)
    stats(dataset=folder, output_dir=tmp_path / "set", threshold=10)
    of_lists(stamps_dir, "train", "val", output_dir=tmp_path / "list", threshold=10)
    compare(tmp_path / "list", tmp_path / "set")
    numbers = numbers_of(tmp_path / "set")
    assert numbers["images"] == {"total": 1018, "without_tags": 0, "repeated_names": 83}
    assert numbers["closure"]["rows_not_closed"] == 0
    closed = ml_images.build(stamps_dir, tmp_path / "data", short_side=32, labels="closed")
    stats(dataset=closed, output_dir=tmp_path / "closed", threshold=10)
    assert numbers_of(tmp_path / "closed") == numbers


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_record_and_a_missing_file_are_counted_and_named(manual_dir, tmp_path, capsys):
    folder = ml_images.build(manual_dir, tmp_path / "data", allow_shared=True, num_shards=2)
    first, second = sorted(folder.glob("*train.array_record*"))  # rows 0, 2, 4 and 1, 3
    data = bytearray(first.read_bytes())
    at = data.index(b"c.jpg")  # the name of the second record
    data[at] ^= 255
    first.write_bytes(data)
    stats(dataset=folder, split="train", output_dir=tmp_path / "out")
    out = capsys.readouterr().out
    assert re.search(rf"{first.name} record 1: unreadable: .*hash", out)
    assert re.search(r"\nrecords not counted +1 ", out)
    second.unlink()
    stats(dataset=folder, split="train", output_dir=tmp_path / "out")
    out = capsys.readouterr().out
    assert re.search(rf"{second.name}: unreadable: .*No such file", out)
    assert re.search(r"\nrecords not counted +3 ", out)
    assert numbers_of(tmp_path / "out")["records_not_counted"] == 3
    assert numbers_of(tmp_path / "out")["images"]["total"] == 2  # a and e


def test_a_record_of_another_hierarchy_is_not_counted(manual_dir, tmp_path, capsys):
    folder = ml_images.build(manual_dir, tmp_path / "data", allow_shared=True)
    dictionary = (folder / "dictionary.txt").read_text()
    (folder / "dictionary.txt").write_text(dictionary.replace("4\tn4\t3\tcar\n", ""))
    stats(dataset=folder, split="train")
    out = capsys.readouterr().out
    assert "record 0: unreadable: class 4 is out of range 0..3" in out
    assert re.search(r"\nrecords not counted +3 ", out)  # a, c and e


def test_a_truncated_set_is_refused_when_nothing_is_left(manual_dir, tmp_path, capsys):
    folder = ml_images.build(manual_dir, tmp_path / "data", allow_shared=True)
    (shard,) = folder.glob("*val.array_record*")
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(PrepareError, match="val: no rows to count"):
        stats(dataset=folder, split="val")
    assert f"{shard.name}: " in capsys.readouterr().out


def test_what_the_first_figure_shows():
    images = np.array([3, 0, 250, 101, 100, 7])
    figure = figures.images_per_class(images, trainable_above=100)
    (axes,) = figure.axes
    curve, limit = axes.lines
    assert curve.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert curve.get_ydata().tolist() == [250, 101, 100, 7, 3]
    assert list(limit.get_ydata()) == [100, 100]
    assert axes.get_yscale() == "log"
    assert axes.get_xlim()[1] == 7  # the class without an image has its place too
    assert axes.get_ylim()[0] < 1 < 250 < axes.get_ylim()[1]
    assert labels(figure) == [
        "Classes, most frequent first", "Images per class",
        "2 of 6 classes\nhave more than 100 images",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("largest", "scale", "label"),
    [
        (9_999, 1, "Images"),
        (10_000, 1000, "Images (thousands)"),
        (2_000_000, 1_000_000, "Images (millions)"),
    ],
)
def test_what_the_second_figure_shows(largest, scale, label):
    histogram = np.array([5, 0, largest, 9, 0, 0])
    figure = figures.tags_per_image(histogram)
    (axes,) = figure.axes
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches]
    np.testing.assert_allclose(bars, [(0, 5 / scale), (1, 0), (2, largest / scale), (3, 9 / scale)])
    (mean,) = axes.lines
    expected = (2 * largest + 27) / (largest + 14)
    np.testing.assert_allclose(mean.get_xdata(), [expected, expected])
    assert labels(figure) == ["Tags per image", label, f"mean {expected:.1f}"]


def labels(figure: Figure) -> list[str]:
    (axes,) = figure.axes
    legend = axes.get_legend()
    return [axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in legend.texts)]


@pytest.mark.parametrize("images", [[0, 0], [1], [1_000_000] * 3])
def test_figures_of_odd_sets_can_be_drawn(tmp_path, images):
    figure = figures.images_per_class(np.array(images), trainable_above=100)
    figures.save(figure, tmp_path / "a", kind="png")
    figures.save(figures.tags_per_image(np.array([3, 0])), tmp_path / "b", kind="png")
    assert (tmp_path / "a").stat().st_size > 5_000 < (tmp_path / "b").stat().st_size


def test_figures_are_sharp_images_and_drawings_with_letters(manual_dir, tmp_path):
    of_lists(manual_dir, "train", output_dir=tmp_path)
    for name, label in (("images_per_class", "Images per class"), ("tags_per_image", "mean")):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.width == 1360  # 3.4 inches, 400 dots each
            assert (0xD5, 0x5E, 0x00) in {colour[:3] for _, colour in image.getcolors(1 << 20)}
        root = ElementTree.parse(tmp_path / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert any(label in text for text in texts), texts


def test_the_command_loads_matplotlib_only_to_draw():
    code = "import sys, mlimages_jax.prepare.stats.command; print('matplotlib' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either label lists or --dataset"),
        ({"lists": True, "dataset": "x"}, "give either label lists or --dataset"),
        ({"lists": True}, "--dictionary FILE"),
        ({"lists": True, "dictionary": "dictionary.txt", "split": "val"}, "--split is for"),
        ({"dataset": "x", "dictionary": "dictionary.txt"}, "has its own dictionary"),
        ({"lists": True, "dictionary": "dictionary.txt", "threshold": 0}, "--threshold 0"),
    ],
)
def test_options_that_do_not_go_together(manual_dir, options, message):
    paths = (manual_dir / "train_image_list.txt",) if options.pop("lists", False) else ()
    for name in ("dictionary", "dataset"):
        if name in options:
            options[name] = manual_dir / options[name]
    with pytest.raises(PrepareError, match=message):
        stats(paths, **options)


@pytest.mark.parametrize("text", ["", "\n  \n"])
def test_an_empty_list(manual_dir, text):
    (manual_dir / "train_image_list.txt").write_text(text)
    with pytest.raises(PrepareError, match=r"train_image_list\.txt: no rows to count"):
        of_lists(manual_dir, "train")


def test_a_list_of_another_hierarchy(manual_dir):
    (manual_dir / "val_image_list.txt").write_text("a.jpg 1\nb.jpg 5:1\n")
    with pytest.raises(LabelListError, match=r"val_image_list\.txt:2: .*another hierarchy"):
        of_lists(manual_dir, "train", "val")


def test_files_that_are_not_what_they_should_be(manual_dir, tmp_path):
    paths = (manual_dir / "train_image_list.txt",)
    with pytest.raises(FileNotFoundError, match="none"):
        stats((manual_dir / "none.txt",), dictionary=manual_dir / "dictionary.txt")
    with pytest.raises(HierarchyError, match="header"):
        stats(paths, dictionary=manual_dir / "train_image_list.txt")
    with pytest.raises(FileNotFoundError, match="is not a built data set"):
        stats(dataset=manual_dir)
    folder = ml_images.build(manual_dir, tmp_path / "data", allow_shared=True)
    with pytest.raises(PrepareError, match="no split 'test'"):
        stats(dataset=folder, split="test")
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(PrepareError, match=r"dataset_info\.json"):
        stats(dataset=folder)


def test_an_output_folder_that_cannot_be_is_found_out_first(manual_dir, capsys):
    with pytest.raises(PrepareError, match=r"dictionary\.txt: .*--output-dir"):
        of_lists(manual_dir, "train", output_dir=manual_dir / "dictionary.txt")
    assert capsys.readouterr().out == ""


def test_a_full_disk_leaves_the_files_of_an_earlier_run(manual_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "save", lambda figure, path, *, kind: path.write_bytes(b"whole"))
    of_lists(manual_dir, "train", output_dir=tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def write(figure: Figure, path: Path, *, kind: str) -> None:
        path.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures, "save", write)
    with pytest.raises(PrepareError, match=r"images_per_class\.png: No space left"):
        of_lists(manual_dir, "train", output_dir=tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_published_list(tencent_dir, capsys):
    dictionary = tencent_dir / "dictionary_and_semantic_hierarchy.txt"
    stats((tencent_dir / "train_urls_tiny.txt",), dictionary=dictionary)
    out = capsys.readouterr().out
    assert re.search(r"\nrows not closed over ancestors +70 ", out)
    assert re.search(r"\n  that lack a tag's ancestor +65 ", out)
    assert re.search(r"\n  depth, mean over classes +7\.47\n", out)
