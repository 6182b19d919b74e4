# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.features import FeaturesError
from mlimages_jax.features.evaluate.labelled import read_label_file, read_labels, with_labels
from mlimages_jax.files.text_files import TextFileError
from tests.features.feature_sets import in_memory


def labelled(*labels, names=None):
    return in_memory(np.ones((len(labels), 2)), labels=list(labels), names=names)


def test_numbers_with_confidences():
    (labels,) = read_labels([labelled("2:1\t0:0.5", "1", "3:0 2:-1 0:0.75")])
    assert (len(labels), labels.num_classes) == (3, 4)
    expected = [[0.5, 0, 1, 0], [0, 1, 0, 0], [0.75, 0, -1, 0]]
    np.testing.assert_array_equal(labels.targets(np.arange(3), missing_labels=0), expected)
    unknown = [[0.75, -1, -1, 0], [0.5, -1, 1, -1]]
    np.testing.assert_array_equal(labels.targets(np.array([2, 0]), missing_labels=-1), unknown)
    np.testing.assert_array_equal(
        labels.matrix(labels.confidences > 0).toarray(), [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    )
    few = labels.select(np.array([2, 2, 1]))
    np.testing.assert_array_equal(
        few.targets(np.arange(3), missing_labels=0), np.array(expected)[[2, 2, 1]]
    )
    assert not labels.one_each()


def test_one_class_each_is_one_label_of_confidence_1():
    assert read_labels([labelled("2:1", "0")])[0].one_each()
    assert not read_labels([labelled("2:1", "0:0.9")])[0].one_each()
    assert not read_labels([labelled("2:1", "0:1 1:1")])[0].one_each()


def test_two_sets_have_the_same_classes():
    train, test = read_labels([labelled("1", "0"), labelled("4")])
    assert train.num_classes == test.num_classes == 5


def test_words_are_classes_in_alphabetical_order():
    train, test = read_labels([labelled("great white shark", "cat", "7"), labelled("dog", "cat")])
    assert train.num_classes == test.num_classes == 4  # 7, cat, dog, great white shark
    np.testing.assert_array_equal(train.indices, [3, 1, 0])
    np.testing.assert_array_equal(test.indices, [2, 1])
    assert train.one_each()
    assert test.one_each()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat", "'cat' is not a label"),
        ("1:2", "confidence 2.0 of class 1"),
        ("1:1\t1:0", "occurs twice"),
        ("100000", "above 100,000"),
    ],
)
def test_a_wrong_label_is_named_with_its_image(text, message):
    with pytest.raises(FeaturesError, match=rf"memory: the labels of 1\.jpg.*{message}"):
        read_labels([labelled("0:1", text)])


def test_labels_from_a_file(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_bytes("\ufeffa b.jpg\tcat\r\n\nc.jpg\t dog \nc.jpg\tdog\nother.jpg\tx\n".encode())
    assert read_label_file(path) == {"a b.jpg": "cat", "c.jpg": "dog", "other.jpg": "x"}
    images = labelled("0:1", "0:1", "0:1", names=["c.jpg", "new.jpg", "a b.jpg"])
    found = with_labels(images, path)
    assert found.names == ["c.jpg", "a b.jpg"]
    assert found.labels == ["dog", "cat"]
    np.testing.assert_array_equal(found.rows, [0, 2])


def test_images_without_labels_are_left_out():
    assert with_labels(labelled("", "3:1", ""), None).names == ["1.jpg"]


def test_no_labels_at_all(tmp_path):
    with pytest.raises(FeaturesError, match="memory has no labels: give --labels"):
        with_labels(labelled("", ""), None)
    path = tmp_path / "labels.tsv"
    path.write_text("x/0.jpg\tcat\n")
    with pytest.raises(FeaturesError, match=r"'0\.jpg' there, but like 'x/0\.jpg' in the file"):
        with_labels(labelled("", ""), path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tcat\nb cat\n", ":2: write a name, a tab"),
        ("a\tcat\n\tcat\n", ":2: write a name"),
        ("a\tcat\nb\tdog\na\tdog\n", ":3: a has other labels"),
    ],
)
def test_a_wrong_line_of_a_label_file_is_named(tmp_path, text, message):
    path = tmp_path / "labels.tsv"
    path.write_text(text)
    with pytest.raises(FeaturesError, match=rf"labels\.tsv{message}"):
        read_label_file(path)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_label_file_of_another_system(tmp_path, line_end):
    """With a mark, other line ends, and names and classes composed otherwise than in the export."""
    path = tmp_path / "labels.tsv"
    lines = ["\ufeffcafe\u0301.jpg\tcafe\u0301", "b.jpg\tcaf\xe9"]
    path.write_bytes(line_end.join(lines).encode())
    found = with_labels(labelled("", "", "", names=["caf\xe9.jpg", "b.jpg", "c.jpg"]), path)
    assert found.names == ["caf\xe9.jpg", "b.jpg"]
    assert read_labels([found])[0].num_classes == 1
    path.write_bytes("a.jpg\tcat\n".encode("utf-16"))
    with pytest.raises(TextFileError, match=r"labels\.tsv: the file is UTF-16 text"):
        read_label_file(path)
