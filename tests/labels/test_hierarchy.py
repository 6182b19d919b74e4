# SPDX-License-Identifier: BSD-3-Clause
import collections
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlimages_jax.labels import word_list
from mlimages_jax.labels.hierarchy import HEADER, Hierarchy, HierarchyError
from mlimages_jax.labels.lists import read_label_list
from tests.support import fuzzing

# animal(3) -> dog(1) -> {puppy(0), hound(4)}; plant(2): a parent may come after its child.
PARENTS = [1, 3, -1, -1, 1]
ROWS = (
    "0\tn0\t1\tpuppy\n1\tn1\t3\tdog, Canis\n2\tn2\t-1\tplant\n3\tn3\t-1\tanimal\n4\tn4\t1\thound\n"
)


@pytest.fixture
def small() -> Hierarchy:
    names = ("puppy", "dog, Canis", "plant", "animal", "hound")
    return Hierarchy(("n0", "n1", "n2", "n3", "n4"), names, np.array(PARENTS))


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "dictionary.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_reads_a_file_worked_by_hand(tmp_path, small):
    hierarchy = Hierarchy.from_file(write(tmp_path, f"{HEADER}\n{ROWS}"))
    assert hierarchy.ids == small.ids
    assert hierarchy.names == small.names
    assert hierarchy.parents.dtype == np.int32
    np.testing.assert_array_equal(hierarchy.parents, PARENTS)


def test_relations_worked_by_hand(small):
    assert len(small) == 5
    assert small.index("n4") == 4
    np.testing.assert_array_equal(small.ancestors(0), [1, 3])
    np.testing.assert_array_equal(small.ancestors(3), [])
    np.testing.assert_array_equal(small.children(1), [0, 4])
    np.testing.assert_array_equal(small.children(2), [])
    np.testing.assert_array_equal(small.depth, [2, 1, 0, 0, 2])
    np.testing.assert_array_equal(small.roots, [2, 3])
    np.testing.assert_array_equal(small.leaves, [0, 2, 4])
    expected = [[0, 1, 3], [1, 3, -1], [2, -1, -1], [3, -1, -1], [4, 1, 3]]
    np.testing.assert_array_equal(small.paths(), expected)
    for array in (small.depth, small.roots, small.leaves, small.paths(), small.ancestors(0)):
        assert array.dtype == np.int32


def test_arrays_cannot_be_changed_behind_the_caches(small):
    for array in (small.parents, small.paths()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, {}),
        ({0: 0.8}, {0: 0.8, 1: 0.8, 3: 0.8}),
        ({0: 0.8, 4: 0.9}, {0: 0.8, 1: 0.9, 3: 0.9, 4: 0.9}),  # the larger of two children
        ({0: 0.5, 1: 0.7, 3: 0.1}, {0: 0.5, 1: 0.7, 3: 0.7}),  # its own value, if that is larger
        ({4: -1}, {4: -1}),  # unknown stays where it is
        ({4: 0}, {4: 0}),  # no hound: nothing about dogs
        ({4: 0.6, 1: -1, 3: -1}, {1: 0.6, 3: 0.6, 4: 0.6}),  # known beats unknown
        ({4: 0, 1: -1}, {1: -1, 4: 0}),
        ({2: 1, 1: 0.3}, {1: 0.3, 2: 1, 3: 0.3}),
    ],
)
def test_close_worked_by_hand(small, labels, expected):
    classes, confidences = small.close(np.array(list(labels)), np.array(list(labels.values())))
    assert (classes.dtype, confidences.dtype) == (np.int32, np.float32)
    assert classes.tolist() == sorted(expected)
    np.testing.assert_allclose(confidences, [expected[c] for c in sorted(expected)], rtol=1e-7)


def test_close_takes_the_maximum_of_repeated_classes(small):
    classes, confidences = small.close(np.array([2, 2, 2]), np.array([0, 1, -1]))
    assert (classes.tolist(), confidences.tolist()) == ([2], [1])


def test_close_refuses_what_it_cannot_index(small):
    with pytest.raises(IndexError, match=r"0\.\.4"):
        small.close(np.array([-1]), np.array([1.0]))
    with pytest.raises(IndexError, match=r"0\.\.4"):
        small.close(np.array([5]), np.array([1.0]))
    with pytest.raises(ValueError, match="differ"):
        small.close(np.array([1, 2]), np.array([1.0]))


def test_look_ups_that_fail_say_why(small):
    with pytest.raises(KeyError, match=r"n99.*5 ids.*n0"):
        small.index("n99")
    for bad in (-1, 5):
        with pytest.raises(IndexError, match=r"0\.\.4"):
            small.ancestors(bad)
        with pytest.raises(IndexError, match=r"0\.\.4"):
            small.children(bad)


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ("0\tn0\t-1\n", 2, "3 columns instead of 4"),
        ("0\tn0\t-1\ta\tb\n", 2, "5 columns"),
        ("0\tn0\t-1\ta\n2\tn2\t-1\tb\n", 3, "'2' instead of 1"),
        ("1\tn1\t-1\ta\n", 2, "'1' instead of 0"),
        ("x\tn1\t-1\ta\n", 2, "'x' instead of 0"),
        ("0\tn0\t1.0\ta\n", 2, "parent '1.0' is not an index"),
        ("0\tn0\t-1\ta\n1\tn1\t2\tb\n", 3, "parent 2 does not exist"),
        ("0\tn0\t-2\ta\n", 2, "parent -2 does not exist"),
        ("0\tn0\t-1\ta\n\n1\tn0\t0\tb\n", 4, "'n0' is already class 0"),
        ("0\tn0\t0\ta\n", 2, "0 -> 0;"),
        (
            "0\tn0\t-1\tz\n1\tn1\t3\ta\n2\tn2\t1\tb\n3\tn3\t2\tc\n4\tn4\t3\td\n",
            3,
            "1 -> 3 -> 2 -> 1",
        ),
        ("0\t\t-1\ta\n", 2, "empty"),
        ("0\tn0\t-1\t \n", 2, "empty"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, rows, line, message):
    path = write(tmp_path, f"{HEADER}\n{rows}")
    with pytest.raises(HierarchyError) as caught:
        Hierarchy.from_file(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROWS, ":1: the header is"),
        ("", "no classes"),
        (HEADER, "no classes"),
        (f"{HEADER}\n0\tn0\t-1\tcaf\xe9\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(HierarchyError) as caught:
        Hierarchy.from_file(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_the_file_of_imagenet_2012_has_words_between_its_tabs(tmp_path):
    hierarchy = Hierarchy.from_file(write(tmp_path, "0\ttench\tTinca\n1\tgreat\twhite\tshark\n"))
    assert hierarchy.names == ("tench Tinca", "great white shark")
    assert hierarchy.ids == ("class0", "class1")
    assert hierarchy.parents.tolist() == [-1, -1]
    with pytest.raises(HierarchyError, match=":2: index '2' instead of 1"):
        Hierarchy.from_file(write(tmp_path, "0\ttench\n2\tgreat\twhite\n"))


def imagenet_words(change=lambda name: name):
    """The released list by hand: quotes where an apostrophe was lost, tabs for commas."""
    lines = Path(word_list.__file__).with_name("imagenet2012.tsv").read_text().splitlines()
    rows = []
    for index, line in enumerate(line for line in lines if line[0] != "#"):
        name = change(line.split("\t")[1])
        name = f'"{name}"'.replace("'", "") if "'" in name else name
        rows.append("\t".join([str(index), *name.replace(",", "").split()]))
    return "\n".join(rows)


def test_the_classes_of_imagenet_2012_are_known_by_their_words(tmp_path):
    hierarchy = Hierarchy.from_file(write(tmp_path, imagenet_words()))
    assert hierarchy.ids[:2] == ("n01440764", "n01443537") and hierarchy.ids[-1] == "n15075141"
    assert list(hierarchy.ids) == sorted(hierarchy.ids) and len(set(hierarchy.ids)) == 1_000
    assert hierarchy.names[2].startswith("great white shark, white shark, man-eater")
    assert hierarchy.names[607] == "jack-o'-lantern" and not hierarchy.has_made_up_ids
    hierarchy.to_file(tmp_path / "ours.txt")
    assert Hierarchy.from_file(tmp_path / "ours.txt").ids == hierarchy.ids


def test_a_list_that_was_rewritten_with_made_up_ids_is_known_too(tmp_path):
    rows = (line.split("\t", 1) for line in imagenet_words().splitlines())
    rows = [f"{i}\tclass{i}\t-1\t{words.replace(chr(9), ' ')}" for i, words in rows]
    hierarchy = Hierarchy.from_file(write(tmp_path, "\n".join([HEADER, *rows])))
    assert hierarchy.ids[0] == "n01440764" and hierarchy.names[0] == "tench, Tinca tinca"


def test_other_words_keep_their_made_up_ids(tmp_path):
    text = imagenet_words(lambda name: name.replace("goldfish", "silverfish"))
    hierarchy = Hierarchy.from_file(write(tmp_path, text))
    assert hierarchy.ids[:2] == ("class0", "class1") and hierarchy.has_made_up_ids


def test_folders_called_class0_are_no_list_of_words():
    names = ("class0", "class1")
    assert not Hierarchy(names, names, np.array([-1, -1])).has_made_up_ids
    assert Hierarchy(names, ("a", "b"), np.array([-1, -1])).has_made_up_ids


def test_the_released_file_of_imagenet_2012(tencent_dir):
    path = tencent_dir / "imagenet2012_dictionary.txt"
    hierarchy = Hierarchy.from_file(path)
    assert (len(hierarchy), hierarchy.ids[0]) == (1_000, "n01440764")
    assert hierarchy.names[2].startswith("great white shark, white shark, ")
    assert path.read_text().splitlines() == imagenet_words().splitlines()


def test_windows_files_are_fine(tmp_path):
    text = f"\ufeff{HEADER}\n{ROWS}\n".replace("\n", "\r\n")
    assert Hierarchy.from_file(write(tmp_path, text)).names[1] == "dog, Canis"


def test_a_hierarchy_made_by_hand_is_checked_too():
    with pytest.raises(HierarchyError, match="class 1: parent 7"):
        Hierarchy(("a", "b"), ("a", "b"), np.array([-1, 7]))
    with pytest.raises(HierarchyError, match="class 0: a tab"):
        Hierarchy(("a",), ("a\tb",), np.array([-1]))
    with pytest.raises(HierarchyError, match="2 ids, 1 names"):
        Hierarchy(("a", "b"), ("a",), np.array([-1, -1]))


TEXTS = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\t\r\n"), min_size=1
)


@given(data=st.data(), count=st.integers(1, 12))
def test_any_forest_survives_the_file_and_any_graph_gives_a_forest_or_an_error(
    tmp_path_factory, data, count
):
    texts = TEXTS.filter(str.strip)
    ids = data.draw(st.lists(texts, min_size=count, max_size=count, unique=True))
    names = data.draw(st.lists(texts, min_size=count, max_size=count))
    parents = data.draw(st.lists(st.integers(-1, count - 1), min_size=count, max_size=count))

    def climbs_for_ever(i: int) -> bool:
        steps = 0
        while i != -1 and steps <= count:
            i, steps = parents[i], steps + 1
        return i != -1

    if any(climbs_for_ever(i) for i in range(count)):
        with pytest.raises(HierarchyError, match="cycle"):
            Hierarchy(tuple(ids), tuple(names), np.array(parents))
        return
    hierarchy = Hierarchy(tuple(ids), tuple(names), np.array(parents))
    path = tmp_path_factory.getbasetemp() / "forest.txt"
    hierarchy.to_file(path)
    read = Hierarchy.from_file(path)
    assert (read.ids, read.names) == (hierarchy.ids, hierarchy.names)
    np.testing.assert_array_equal(read.parents, parents)


def test_the_published_hierarchy(tencent_dir, golden_dir, tmp_path):
    source = tencent_dir / "dictionary_and_semantic_hierarchy.txt"
    hierarchy = Hierarchy.from_file(source)
    golden = json.loads((golden_dir / "dictionary_stats.json").read_text())
    assert len(hierarchy) == golden["categories"]
    roots = {str(root): hierarchy.names[root] for root in hierarchy.roots}
    assert roots == golden["roots"]
    assert hierarchy.depth.max() == golden["max_edges_root_to_leaf (README: 16)"]
    mean = golden["mean_edges_over_all_categories (README: 7.47)"]
    assert hierarchy.depth.mean() == pytest.approx(mean, abs=1e-12)
    assert hierarchy.paths().shape[1] == golden["max_nodes_on_path"]
    assert len(hierarchy.leaves) == golden["leaves"]
    later = np.flatnonzero(hierarchy.parents > np.arange(len(hierarchy)))
    pairs = [[int(child), int(hierarchy.parents[child])] for child in later]
    assert pairs == golden["parents_with_larger_index_than_child [child, parent]"]
    uses = collections.Counter(hierarchy.names).values()
    assert sum(count > 1 for count in uses) == golden["repeated_category_names"]
    hierarchy.to_file(tmp_path / "copy.txt")
    assert (tmp_path / "copy.txt").read_bytes() == source.read_bytes()


def test_65_of_the_100_published_rows_are_not_closed(tencent_dir):
    hierarchy = Hierarchy.from_file(tencent_dir / "dictionary_and_semantic_hierarchy.txt")
    rows = read_label_list(tencent_dir / "train_im_list_tiny.txt", num_classes=len(hierarchy))
    grown = 0
    for row in rows:
        classes, confidences = hierarchy.close(row.classes, row.confidences)
        grown += len(classes) > len(row.classes)
        again = hierarchy.close(classes, confidences)
        np.testing.assert_array_equal(again, (classes, confidences))  # closed is closed
        parents = hierarchy.parents[classes]
        assert set(parents[parents >= 0]) <= set(classes)
    assert grown == 65


def test_the_stamps_hierarchy(stamps_dir):
    hierarchy = Hierarchy.from_file(stamps_dir / "dictionary.txt")
    assert len(hierarchy) == 109
    assert "animals" in [hierarchy.names[root] for root in hierarchy.roots]


FIELDS = st.sampled_from(["0", "1", "-1", "n1", "dog", "", " ", "\ufeff", "9" * 12])
ODD_ROWS = st.lists(FIELDS, max_size=5).map("\t".join)
PARENT = st.integers(-1, 4)
FILES = st.builds(
    lambda parents, odd: "\n".join(
        [HEADER, *(f"{i}\tn{i}\t{parent}\tname {i}" for i, parent in enumerate(parents)), *odd]
    ).encode(),
    st.lists(PARENT, max_size=5),
    st.lists(ODD_ROWS, max_size=1),
)


def check_any_bytes(folder, data):
    """A class list is a forest that can be written and read again, or is refused by its name."""
    path = folder / "categories.txt"
    path.write_bytes(data)
    try:
        hierarchy = Hierarchy.from_file(path)
    except HierarchyError as error:
        assert str(error).startswith(str(path))
        return
    assert (hierarchy.depth <= len(hierarchy)).all() and len(hierarchy.roots)
    hierarchy.to_file(folder / "again.txt")
    again = Hierarchy.from_file(folder / "again.txt")
    assert (again.ids, again.names) == (hierarchy.ids, hierarchy.names)
    np.testing.assert_array_equal(again.parents, hierarchy.parents)


@given(FILES | st.binary(max_size=80))
def test_any_bytes_are_a_forest_or_refused(tmp_path_factory, data):
    check_any_bytes(tmp_path_factory.getbasetemp(), data)


@pytest.mark.slow
@settings(max_examples=fuzzing.fraction(10_000), deadline=None)
@given(FILES | st.binary(max_size=80))
def test_any_bytes_are_a_forest_or_refused_thoroughly(tmp_path_factory, data):
    check_any_bytes(tmp_path_factory.getbasetemp(), data)
