# SPDX-License-Identifier: BSD-3-Clause
import collections
import json
import statistics as plain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList, iter_label_list, read_label_list
from mlimages_jax.labels.statistics import ListStatistics
from tests.support import fuzzing

# animal > dog > poodle; vehicle > car; animal > feline > cat, whose parent has the larger index
HIERARCHY = Hierarchy(
    ids=tuple(f"n{i}" for i in range(7)),
    names=("animal", "dog", "poodle", "vehicle", "car", "cat", "cat"),
    parents=np.array([-1, 0, 1, -1, 3, 6, 0]),
)
ROWS = """\
a.jpg 2:1 1:1 0:1
b.jpg 0:1 2:0.9
c.jpg 1:1 0:0.8
d.jpg 5:0.5 6:-1 0:0
e.jpg 3:-1 4:0
f.jpg
a.jpg 4:1
g.jpg 2:1 5:0.333
"""


def read(folder: Path, text: str) -> LabelList:
    path = folder / "list.txt"
    path.write_text(text)
    return read_label_list(path, num_classes=len(HIERARCHY))


def count(hierarchy: Hierarchy, *parts: LabelList) -> ListStatistics:
    statistics = ListStatistics(hierarchy)
    for part in parts:
        statistics.update(part)
    return statistics


def test_every_number_worked_by_hand(tmp_path):
    statistics = count(HIERARCHY, read(tmp_path, ROWS))
    assert statistics.labels.tolist() == [
        [0, 0, 0, 1, 0, 0, 1],  # unknown
        [1, 0, 0, 0, 1, 0, 0],  # absent
        [1, 0, 1, 0, 0, 2, 0],  # soft
        [2, 2, 2, 0, 1, 0, 0],  # certain
    ]
    assert statistics.images_per_class.tolist() == [3, 2, 3, 0, 1, 2, 0]
    assert statistics.tags.tolist() == [2, 2, 3, 1, 0, 0, 0, 0]
    # b and g: the poodle; c: the dog, surer than the animal; the second a: the car; d and g: cats
    assert statistics.orphans.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert statistics.compute(trainable_above=2) == {
        "images": {"total": 8, "without_tags": 2, "repeated_names": 1},
        "classes": {"total": 7, "with_images": 5, "trainable": 2, "trainable_above": 2},
        "labels": {"total": 15, "certain": 7, "soft": 4, "absent": 2, "unknown": 2},
        "confidences": {"-1": 2, "0": 2, "0.333": 1, "0.5": 1, "0.8": 1, "0.9": 1, "1": 7},
        "tags_per_image": {
            "total": 11,
            "mean": 11 / 8,
            "median": 1.5,
            "max": 3,
            "histogram": {"0": 2, "1": 2, "2": 3, "3": 1},
        },
        "images_per_class": {
            "mean": 11 / 7,
            "min": 0,
            "max": 3,
            "quantiles": {"0.05": 0, "0.25": 0.5, "0.5": 2, "0.75": 2.5, "0.95": 3},
        },
        "closure": {
            "rows_not_closed": 5,  # b, c, d, the second a, g
            "rows_lacking_an_ancestor": 4,  # c only has a weak one
            "tags_to_add": 7,  # b: dog; d: feline, animal; a: vehicle; g: dog, animal, feline
            "tags_without_parent": 6,
        },
        "hierarchy": {
            "roots": 2,
            "leaves": 3,
            "max_depth": 2,
            "mean_depth": 1,
            "classes_by_depth": {"0": 2, "1": 3, "2": 2},
            "repeated_names": 1,
        },
        "depth_of_tags": {"mean": 13 / 11, "histogram": {"0": 3, "1": 3, "2": 5}},
    }


def test_numbers_are_ready_for_json(tmp_path):
    numbers = count(HIERARCHY, read(tmp_path, ROWS)).compute()
    assert json.loads(json.dumps(numbers)) == numbers


@pytest.mark.parametrize("row", ["", "a", "a 3:-1 4:0"])
def test_a_list_without_tags(tmp_path, row):
    statistics = count(HIERARCHY, read(tmp_path, f"x\n{row}\n"))
    numbers = statistics.compute()
    assert numbers["images"]["without_tags"] == numbers["images"]["total"] == 1 + bool(row)
    assert numbers["depth_of_tags"] == {"mean": None, "histogram": {}}
    assert numbers["tags_per_image"]["histogram"] == {"0": 1 + bool(row)}


def test_nothing_has_no_statistics(tmp_path):
    statistics = count(HIERARCHY, read(tmp_path, "\n \n"))
    with pytest.raises(ValueError, match="no rows were counted"):
        statistics.compute()


def test_kinds_go_by_the_exact_confidence_and_only_its_count_is_rounded(tmp_path):
    numbers = count(HIERARCHY, read(tmp_path, "a 0:0.9999\nb 0:0.0001 1:0.0004999")).compute()
    assert numbers["labels"]["soft"] == numbers["labels"]["total"] == 3
    assert numbers["confidences"] == {"0": 2, "1": 1}


@st.composite
def forests(draw: st.DrawFn) -> Hierarchy:
    """Up to twelve classes in a random order, so that parents stand before or after children."""
    size = draw(st.integers(1, 12))
    parents = [draw(st.integers(-1, i - 1)) for i in range(size)]
    place = draw(st.permutations(range(size)))
    shuffled = np.full(size, -1)
    for i, parent in enumerate(parents):
        shuffled[place[i]] = -1 if parent < 0 else place[parent]
    return Hierarchy(tuple(f"n{i}" for i in range(size)), ("name",) * size, shuffled)


@st.composite
def lists(draw: st.DrawFn) -> tuple[Hierarchy, list[tuple[str, list[int], list[float]]]]:
    hierarchy = draw(forests())
    confidence = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 1.0])
    labels = st.dictionaries(st.integers(0, len(hierarchy) - 1), confidence)
    name = st.text("abc", min_size=1, max_size=2)
    rows = draw(st.lists(st.tuples(name, labels), min_size=1, max_size=12))
    return hierarchy, [(name, list(row), list(row.values())) for name, row in rows]


def oracle(hierarchy: Hierarchy, rows: LabelList) -> dict[str, object]:
    """Plain Python, one label after the other, and `Hierarchy.close` for closure."""
    tags, images, orphans = [], collections.Counter(), collections.Counter()
    open_rows = lacking = to_add = 0
    for _, classes, confidences in rows:
        row = dict(zip(classes.tolist(), confidences.tolist(), strict=True))
        positive = {c for c, value in row.items() if value > 0}
        closed = dict(zip(*hierarchy.close(classes, confidences), strict=True))
        added = sum(value > 0 and c not in positive for c, value in closed.items())
        open_rows += closed != row
        lacking += added > 0
        to_add += added
        tags.append(len(positive))
        images.update(positive)
        for c in positive:
            parent = int(hierarchy.parents[c])
            orphans[c] += parent >= 0 and row.get(parent, 0) < row[c]
    names = [row.name for row in rows]
    return {
        "tags": (len(tags), sum(tags), plain.median(tags), max(tags), collections.Counter(tags)),
        "images": [images[c] for c in range(len(hierarchy))],
        "orphans": [orphans[c] for c in range(len(hierarchy))],
        "closure": [open_rows, lacking, to_add],
        "confidences": collections.Counter(rows.confidences.tolist()),
        "repeated": len(names) - len(set(names)),
        "depths": sum(hierarchy.depth[c] * count for c, count in images.items()),
    }


def as_oracle(statistics: ListStatistics) -> dict[str, object]:
    numbers = statistics.compute()
    tags = numbers["tags_per_image"]
    histogram = {int(number): count for number, count in tags["histogram"].items()}
    total, images = tags["total"], numbers["images"]["total"]
    assert tags["mean"] == total / images
    return {
        "tags": (images, total, tags["median"], tags["max"], histogram),
        "images": statistics.images_per_class.tolist(),
        "orphans": statistics.orphans.tolist(),
        "closure": statistics.closure.tolist(),
        "confidences": {float(value): n for value, n in numbers["confidences"].items()},
        "repeated": numbers["images"]["repeated_names"],
        "depths": round((numbers["depth_of_tags"]["mean"] or 0) * total),
    }


def check_with_the_oracle(case: tuple[Hierarchy, list]) -> None:
    hierarchy, rows = case
    label_list = LabelList.from_rows(rows, num_classes=len(hierarchy))
    assert as_oracle(count(hierarchy, label_list)) == oracle(hierarchy, label_list)


@given(lists())
def test_any_list_as_plain_python_counts_it(case):
    check_with_the_oracle(case)


@pytest.mark.slow
@settings(max_examples=fuzzing.fraction(2_000), deadline=None)
@given(lists())
def test_many_lists_as_plain_python_counts_them(case):
    check_with_the_oracle(case)


@given(lists(), st.integers(0, 12))
def test_parts_add_up_to_the_whole(case, cut):
    hierarchy, rows = case
    classes = len(hierarchy)
    whole = count(hierarchy, LabelList.from_rows(rows, num_classes=classes))
    parts = [LabelList.from_rows(r, num_classes=classes) for r in (rows[:cut], rows[cut:])]
    assert count(hierarchy, *parts).compute() == whole.compute()
    elsewhere = count(hierarchy, parts[1])
    sums = elsewhere.sums()
    elsewhere.update(parts[0])  # of no concern to the sums taken before
    gathered = count(hierarchy, parts[0])
    gathered.add_sums(sums)
    assert gathered.compute() == whole.compute()


def test_the_published_hierarchy_and_list(tencent_dir, golden_dir):
    golden = json.loads((golden_dir / "dictionary_stats.json").read_text())
    hierarchy = Hierarchy.from_file(tencent_dir / "dictionary_and_semantic_hierarchy.txt")
    statistics = ListStatistics(hierarchy)
    for part in iter_label_list(tencent_dir / "train_im_list_tiny.txt", num_classes=11_166):
        statistics.update(part)
    numbers = statistics.compute()
    described = numbers["hierarchy"]
    assert described["max_depth"] == golden["max_edges_root_to_leaf (README: 16)"]
    mean = golden["mean_edges_over_all_categories (README: 7.47)"]
    assert described["mean_depth"] == pytest.approx(mean, rel=1e-12)
    assert described["leaves"] == golden["leaves"]
    assert described["roots"] == len(golden["roots"])
    assert described["repeated_names"] == golden["repeated_category_names"]
    assert numbers["closure"] == {
        "rows_not_closed": 70,
        "rows_lacking_an_ancestor": 65,
        "tags_to_add": 276,
        "tags_without_parent": 110,
    }
    assert numbers["tags_per_image"]["mean"] == 8.27
