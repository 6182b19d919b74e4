# SPDX-License-Identifier: BSD-3-Clause
import collections
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import read_label_list, write_label_list
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.co_occurrence import predictions
from mlimages_jax.prepare.co_occurrence.command import co_occurrence
from tests.support.drawn_lists import STEADY, as_rows, hierarchies, label_lists, make_hierarchy

# 0 animal -> 1 dog -> 2 hound; 3 plant -> 4 grass; 5 sky
SIX = make_hierarchy([-1, 0, 1, -1, 3, -1])
SURE, UNSURE = 0.96, 0.95


@pytest.fixture
def folder(tmp_path) -> Path:
    SIX.to_file(tmp_path / "dictionary.txt")
    return tmp_path


def write_list(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def write_predictions(path: Path, sure: dict[str, set[int]], *, num_classes: int = 6) -> Path:
    """The classes that the model is sure of, of each image; of the others it is nearly so."""
    classes = range(num_classes)
    scores = [[SURE if j in found else UNSURE for j in classes] for found in sure.values()]
    columns = {
        "name": pa.array(list(sure), pa.string()),
        "scores": pa.array(scores, pa.list_(pa.float32(), num_classes)),
    }
    pq.write_table(pa.table(columns), path)
    return path


def run(folder: Path, capsys, *arguments: str | Path) -> tuple[str, list[list[str]], list[str]]:
    """Returns the new list, the rows of the table, the lines printed."""
    fixed = ["--dictionary", folder / "dictionary.txt", "--output", folder / "more.txt"]
    fixed += ["--pairs", folder / "pairs.tsv"]
    tyro.cli(co_occurrence, args=[str(argument) for argument in [*arguments, *fixed]])
    header, *table = (folder / "pairs.tsv").read_text().splitlines()
    assert header.count("\t") == 10
    lines = capsys.readouterr().out.splitlines()
    return (folder / "more.txt").read_text(), [row.split("\t") for row in table], lines


# Four hounds: all with dogs, three on grass, two under the sky. Two images of the sky: one with
# grass. One of grass, with sky.
LIST = (
    "h1\t2:1\nh2\t2:0.8\t1:1\nh3\t2:0.5\t4:0.75\nh4\t0:1\t1:1\t2:1\n"
    "s1\t5:1\ns2\t5:1\ng1\t4:0.25\nno\t2:0\t5:-1\n"
)
PREDICTED = {
    "h1": {1, 2, 4}, "h2": {1, 2, 4, 5}, "h4": {1, 4, 5}, "s1": {4, 5}, "s2": {5}, "g1": {5},
}  # fmt: skip


def test_worked_by_hand(folder, capsys):
    """h3 has two labels on different paths: it does not count, but gets labels."""
    source = write_list(folder / "list.txt", LIST + "h5\t2:1\n")
    file = write_predictions(folder / "p.parquet", {**PREDICTED, "h3": {4}, "h5": {1}})
    text, table, lines = run(folder, capsys, source, "--predictions", file)
    # CO(2, 4) = 3/4, CO(2, 1) = 4/4 on one path, CO(2, 5) = 2/4 and CO(5, 4) = 1/2 are not above,
    # CO(4, 5) = 1/1.
    assert table == [
        ["2", "n2", "class 2", "1", "n1", "class 1", "4", "4", "1.0000", "yes", "0"],
        ["2", "n2", "class 2", "4", "n4", "class 4", "4", "3", "0.7500", "no", "4"],
        ["4", "n4", "class 4", "5", "n5", "class 5", "1", "1", "1.0000", "no", "2"],
    ]
    assert text == (
        "h1\t2:1\t4:1\nh2\t1:1\t2:0.8\t4:0.8\nh3\t2:0.5\t4:0.75\t5:0.75\nh4\t0:1\t1:1\t2:1\t4:1\n"
        "s1\t5:1\ns2\t5:1\ng1\t4:0.25\t5:0.25\nno\t2:0\t5:-1\nh5\t2:1\t4:1\n"
    )
    assert [line.split(maxsplit=1) for line in lines] == [
        ["8", "predictions read"],
        ["0", "left out: without scores"],
        ["1", "left out: not of one class"],
        ["0", "left out: in none of the lists"],
        ["0", "left out: predicted before"],
        ["7", "images counted, of 3 classes"],
        ["0", "classes of the model are not in --dictionary: ignored"],
        ["3", "pairs of classes above the share"],
        ["1", "left out: on a common path"],
        ["9", "rows written"],
        ["6", "labels added"],
        ["written:", f"{folder / 'more.txt'}, {folder / 'pairs.tsv'}"],
    ]


def test_options_worked_by_hand(folder, capsys):
    source = write_list(folder / "list.txt", LIST)
    file = write_predictions(folder / "p.parquet", PREDICTED)  # CO(2, 4) = 3/3, CO(2, 5) = 2/3
    common = [source, "--predictions", file]
    _, table, _ = run(folder, capsys, *common, "--min-images", "3")
    assert [(row[0], row[3]) for row in table] == [("2", "1"), ("2", "4"), ("2", "5")]
    _, table, _ = run(folder, capsys, *common, "--share", "0.49")
    assert ["5", "4", "0.5000"] in [[row[0], row[3], row[8]] for row in table]
    _, table, lines = run(folder, capsys, *common, "--posterior", "0.96")
    assert table == []
    assert lines[-2].split(maxsplit=1) == ["0", "labels added"]
    text, _, _ = run(folder, capsys, *common, "--confidence", "share")
    assert text.splitlines()[:3] == [
        "h1\t2:1\t4:1\t5:0.6666667", "h2\t1:1\t2:0.8\t4:0.8\t5:0.53333336",
        "h3\t2:0.5\t4:0.75\t5:0.75",
    ]  # fmt: skip


def test_the_model_may_number_its_classes_otherwise(folder, capsys):
    model = Hierarchy(("x", "n4", "n5"), ("lamp", "grass", "sky"), np.array([-1, 0, -1]))
    model.to_file(folder / "model.txt")
    source = write_list(folder / "list.txt", LIST + "d1\t1:1\n")
    sure = {"h1": {0, 1}, "h2": {0, 1}, "h4": {0, 2}, "d1": {0}}
    file = write_predictions(folder / "p.parquet", sure, num_classes=3)
    _, table, lines = run(
        folder, capsys, source, "--predictions", file,
        "--prediction-dictionary", folder / "model.txt",
    )  # fmt: skip
    assert [[row[0], row[3], row[6], row[7]] for row in table] == [["2", "4", "3", "2"]]
    assert lines[6].split(maxsplit=1)[0] == "1"  # the lamp
    with pytest.raises(PrepareError, match=r"p\.parquet: row 0 \(h1\).*--prediction-dictionary"):
        run(folder, capsys, source, "--predictions", file)
    Hierarchy(("x", "y", "z"), ("a", "b", "c"), np.array([-1] * 3)).to_file(folder / "alien.txt")
    with pytest.raises(PrepareError, match="no id"):
        run(folder, capsys, source, "--predictions", file,
            "--prediction-dictionary", folder / "alien.txt")  # fmt: skip


def test_files_with_labels_need_no_list(folder, capsys):
    source = write_list(folder / "list.txt", "elsewhere\t2:1\n")
    scores = pa.array([[SURE], [SURE], [SURE], [], None], pa.list_(pa.float64()))
    classes = pa.array([[4], [4], [4], [], None], pa.list_(pa.int32()))
    label = pa.array([2, 2, None, 2, 2], pa.int32())
    path = folder / "p.parquet"
    pq.write_table(pa.table({"scores": scores, "classes": classes, "label": label}), path)
    text, table, lines = run(folder, capsys, source, "--predictions", path)
    assert table == [
        ["2", "n2", "class 2", "4", "n4", "class 4", "3", "2", "0.6667", "no", "1"],
    ]
    assert text == "elsewhere\t2:1\t4:1\n"
    assert [line.split()[0] for line in lines[:6]] == ["5", "1", "1", "0", "0", "3"]
    pq.write_table(pa.table({"scores": scores, "classes": classes, "label": [6] * 5}), path)
    with pytest.raises(PrepareError, match=r"p\.parquet: label 6 is not in 0\.\.5"):
        run(folder, capsys, source, "--predictions", path)


def test_an_image_counts_once(folder, capsys):
    source = write_list(folder / "list.txt", "a\t2\nb\t2\na\t5\n")
    first = write_predictions(folder / "p.parquet", {"a": {4}, "b": set()})
    again = write_predictions(folder / "q.parquet", {"a": {4}})
    twice = folder / "r.parquet"
    pq.write_table(pa.table({"name": ["b", "b"], "scores": [[0.0] * 6] * 2}), twice)
    _, table, lines = run(
        folder, capsys, source, "--predictions", first, again, twice, "--share", "0.49"
    )
    assert [row[6:9] for row in table] == [["2", "1", "0.5000"]]
    assert [line.split()[0] for line in lines[:6]] == ["5", "0", "0", "0", "3", "2"]


def test_images_that_are_in_no_list(folder, capsys):
    source = write_list(folder / "list.txt", LIST)
    file = write_predictions(folder / "p.parquet", {"h1": {4}, "x1": {4}, "x2": {4}, "h2": {4}})
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(PrepareError, match=r"2 of 4 .*x1 of .*p\.parquet.*--max-unlisted"):
        run(folder, capsys, source, "--predictions", file, "--max-unlisted", "0.49")
    assert {path.name for path in folder.iterdir()} == before
    _, table, _ = run(folder, capsys, source, "--predictions", file, "--max-unlisted", "0.5")
    assert [row[6:8] for row in table] == [["2", "2"]]


def test_no_images_at_all(folder, capsys):
    source = write_list(folder / "list.txt", LIST)
    file = write_predictions(folder / "p.parquet", {})
    with pytest.raises(PrepareError, match="none of the predicted images counts"):
        run(folder, capsys, source, "--predictions", file)
    file = write_predictions(folder / "p.parquet", {"h3": {4}, "no": {4}})
    with pytest.raises(PrepareError, match="none of the predicted images counts"):
        run(folder, capsys, source, "--predictions", file)
    empty = write_list(folder / "empty.txt", "")
    with pytest.raises(PrepareError, match="2 of 2 predicted images are in none"):
        run(folder, capsys, empty, "--predictions", file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "p"], "at least one list"),
        (["list.txt", "--predictions"], "one file of predictions"),
        (["list.txt", "--predictions", "p", "--posterior", "1"], "--posterior 1"),
        (["list.txt", "--predictions", "p", "--share", "-0.1"], r"--share -0\.1"),
    ],
)
def test_impossible_options_are_refused(folder, capsys, arguments, message):
    with pytest.raises(PrepareError, match=message):
        run(folder, capsys, *arguments)


def test_a_missing_folder_is_named_before_the_work(folder, capsys):
    arguments = ["list.txt", "--predictions", "p", "--dictionary", folder / "dictionary.txt"]
    arguments += ["--output", folder / "more.txt", "--pairs", folder / "no" / "pairs.tsv"]
    with pytest.raises(PrepareError, match=r"pairs\.tsv: there is no such folder"):
        tyro.cli(co_occurrence, args=[str(argument) for argument in arguments])


def add_plainly(hierarchy, rows, predicted, *, share, min_images, times_fraction):
    """The oracle: rows and pairs, by dictionaries and loops."""
    ancestors = [set(hierarchy.ancestors(c).tolist()) for c in range(len(hierarchy))]
    class_of: dict[str, int | None] = {}
    for name, labels in rows:
        positive = {c for c, confidence in labels.items() if confidence > 0}
        lowest = [c for c in positive if positive <= {c} | ancestors[c]]
        class_of.setdefault(name, lowest[0] if lowest else None)
    images, both = collections.Counter(), collections.Counter()
    for name, found in predicted.items():
        label = class_of[name]
        if label is not None:
            images[label] += 1
            both.update((label, j) for j in found)
    factors = {}
    for (i, j), count in both.items():
        apart = i != j and i not in ancestors[j] and j not in ancestors[i]
        if apart and images[i] >= min_images and count / images[i] > share:
            factors[i, j] = count / images[i] if times_fraction else 1.0
    more = []
    for name, labels in rows:
        row = dict(labels)
        for (i, j), factor in factors.items():
            if labels.get(i, 0) > 0:
                row[j] = max(row.get(j, -1), float(np.float32(labels[i] * factor)))
        more.append((name, row))
    return more, {pair: (images[pair[0]], both[pair]) for pair in factors}


@STEADY
@given(st.data())
def test_equals_plain_python(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    hierarchy = data.draw(hierarchies(max_classes=6))
    label_list = data.draw(label_lists(len(hierarchy), max_rows=12).filter(len))
    classes = st.sets(st.integers(0, len(hierarchy) - 1))
    names = [row.name for row in label_list]
    sure = data.draw(st.dictionaries(st.sampled_from(names), classes))
    share, min_images = data.draw(st.sampled_from([0.0, 0.3, 0.5])), data.draw(st.integers(1, 2))
    confidence = data.draw(st.sampled_from(["label", "share"]))
    more, pairs = add_plainly(
        hierarchy, as_rows(label_list), sure,
        share=share, min_images=min_images, times_fraction=confidence == "share",
    )  # fmt: skip
    hierarchy.to_file(folder / "dictionary.txt")
    write_label_list(folder / "list.txt", label_list)
    write_predictions(folder / "p.parquet", sure, num_classes=len(hierarchy))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "_VALUES_AT_ONCE", data.draw(st.integers(1, 30)))
        try:
            co_occurrence(
                [folder / "list.txt"],
                predictions=[folder / "p.parquet"],
                dictionary=folder / "dictionary.txt",
                output=folder / "more.txt",
                pairs=folder / "pairs.tsv",
                share=share,
                min_images=min_images,
                confidence=confidence,
            )
        except PrepareError as error:
            assert "none of the predicted images counts" in str(error)
            assert not pairs
            return
    assert as_rows(read_label_list(folder / "more.txt", num_classes=len(hierarchy))) == more
    table = [line.split("\t") for line in (folder / "pairs.tsv").read_text().splitlines()[1:]]
    written = {
        (int(row[0]), int(row[3])): (int(row[6]), int(row[7])) for row in table if row[9] == "no"
    }
    assert written == pairs


def test_stamps_get_the_labels_that_a_drawn_model_sees(stamps_dir, tmp_path, capsys):
    """All images of hats are said to show birds, too."""
    hierarchy = Hierarchy.from_file(stamps_dir / "dictionary.txt")
    source = stamps_dir / "train_image_list.txt"
    rows = read_label_list(source, num_classes=len(hierarchy))
    hats, birds = (hierarchy.names.index(name) for name in ("hats", "birds"))
    sure = {row.name: {birds} if hats in row.classes else set() for row in rows}
    file = write_predictions(tmp_path / "p.parquet", sure, num_classes=len(hierarchy))
    hierarchy.to_file(tmp_path / "dictionary.txt")
    _, table, _ = run(tmp_path, capsys, source, "--predictions", file)
    assert [(row[2], row[5]) for row in table if row[9] == "no"] == [("hats", "birds")]
    written = read_label_list(tmp_path / "more.txt", num_classes=len(hierarchy))
    for row, old in zip(written, rows, strict=True):
        expected = {*old.classes.tolist(), *([birds] if hats in old.classes else [])}
        assert row.classes.tolist() == sorted(expected)


@pytest.mark.slow
def test_workers_count_the_same(folder, capsys):
    """An image that was predicted before does not count, whoever reads its rows first."""
    source = write_list(folder / "list.txt", LIST)
    path = write_predictions(folder / "p.parquet", PREDICTED)
    again = write_predictions(folder / "q.parquet", {"h1": {5}, "h2": {0}, "h4": {3}})
    for file in path, again:
        pq.write_table(pq.read_table(file), file, row_group_size=2)
    options = [source, "--predictions", path, again, "--share", "0.1"]
    one = run(folder, capsys, *options)
    assert any("predicted before" in line and "3" in line for line in one[2])
    assert run(folder, capsys, *options, "--workers", "2") == one
