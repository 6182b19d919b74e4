# SPDX-License-Identifier: BSD-3-Clause
"""Labels from a file of their own: both forms, names and numbers, and files that are wrong."""

import json

import numpy as np
import pytest

from mlimages_jax.data.real_labels import RealLabels
from mlimages_jax.data.records import Record, padded_labels

ENTRIES = [[3], [], [1, 0, 9], [2]]


def a_record(name: str) -> Record:
    return Record(name, b"jpeg", np.array([5, 6], np.int32), np.array([0.5, -1], np.float32))


@pytest.fixture
def written(tmp_path):
    """Reads labels back from a file with this content."""

    def write_and_read(content, *, num_classes: int = 10) -> RealLabels:
        path = tmp_path / "real.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return RealLabels.from_file(path, num_classes=num_classes)

    return write_and_read


@pytest.mark.parametrize(
    "name",
    [
        "ILSVRC2012_val_{:08d}.JPEG",
        "val/n01440764/ILSVRC2012_val_{:08d}.JPEG",
        "n01440764/ILSVRC2012_val_{:08d}_n01440764.jpg",
        "ILSVRC2012_val_00000002.JPEG/ILSVRC2012_val_{:08d}.JPEG",
    ],
)
def test_a_list_goes_by_the_number_in_the_name(written, name):
    labels = written(ENTRIES)
    assert (len(labels), labels.max_labels) == (4, 3)
    for number, entry in enumerate(ENTRIES, start=1):
        old = a_record(name.format(number))
        new = labels(old)
        assert (new.name, new.jpeg) == (old.name, old.jpeg)
        assert (new.labels.tolist(), new.confidences.tolist()) == (entry, [1.0] * len(entry))
        assert (new.labels.dtype, new.confidences.dtype) == (np.int32, np.float32)
        assert old.labels.tolist() == [5, 6]
        padded_labels(new, max_labels=labels.max_labels)


def test_an_object_goes_by_the_whole_name(written):
    labels = written({"dog/1.jpg": [3], "cat/1.jpg": [1, 2], "ILSVRC2012_val_00000001.JPEG": []})
    assert (len(labels), labels.max_labels) == (3, 2)
    assert labels(a_record("cat/1.jpg")).labels.tolist() == [1, 2]
    assert labels(a_record("dog/1.jpg")).labels.tolist() == [3]
    assert labels(a_record("ILSVRC2012_val_00000001.JPEG")).labels.tolist() == []
    for name in ("1.jpg", "val/dog/1.jpg", "ILSVRC2012_val_00000002.JPEG"):
        with pytest.raises(ValueError, match=rf"real.json has no entry '{name}'.* 'dog/1.jpg'"):
            labels(a_record(name))


def test_as_many_valid_classes_as_the_best_labelled_image(written):
    assert written([[], [], [4]]).max_labels == 1
    assert written({"a": [], "b": [1, 2, 3, 4]}).max_labels == 4


@pytest.mark.parametrize(
    "name",
    [
        "n01440764/n01440764_10026.JPEG",
        "ILSVRC2012_val_0000001.JPEG",
        "ILSVRC2012_val_000000001.JPEG",
        "my_ILSVRC2012_val_00000001.JPEG",
        "ILSVRC2012_val_00000001.JPEG/4.JPEG",
        "ILSVRC2012_test_00000001.JPEG",
        "dog/1.jpg",
    ],
)
def test_a_name_without_a_number(written, name):
    with pytest.raises(ValueError, match=rf"'{name}' is not named like .*real.json.* by name"):
        written(ENTRIES)(a_record(name))


@pytest.mark.parametrize("number", [0, 5, 50_000])
def test_a_number_beyond_the_list(written, number):
    name = f"val/ILSVRC2012_val_{number:08d}.JPEG"
    with pytest.raises(
        ValueError, match=rf"number {number} but .*real.json has entries 1 to 4: .* ano"
    ):
        written(ENTRIES)(a_record(name))


def test_every_image_of_the_split_needs_an_entry(written):
    for content in (ENTRIES, {f"{i}.jpg": [1] for i in range(4)}):
        labels = written(content)
        labels.check_length(4)
        labels.check_length(3)  # an image was skipped, or the split is a part of the set
        with pytest.raises(
            ValueError, match=r"real.json has 4 entries but the split has 50,000 images"
        ):
            labels.check_length(50_000)


@pytest.mark.parametrize("content", [b"", b"[[1], [2]", b"\x1f\x8b\x08 zipped", b"\xff\xfe\xff"])
def test_a_file_that_is_no_json(written, content):
    with pytest.raises(ValueError, match=r"real.json is not JSON \(.*\): download it again"):
        written(content)


@pytest.mark.parametrize("content", [[], {}, 3, "abc", None])
def test_a_file_without_entries(written, content):
    with pytest.raises(ValueError, match=r"real.json has no entries: it must be a list"):
        written(content)


@pytest.mark.parametrize("entry", [3, None, "3", ["3"], [3.0], [True], [[3]], {"3": 3}, {}])
def test_an_entry_that_is_no_list_of_classes(written, entry):
    with pytest.raises(ValueError, match=r"real.json, entry 2 is .* it must be a list of class"):
        written([[1], entry, [2]])
    with pytest.raises(ValueError, match=r"real.json, entry 'b' is"):
        written({"a": [1], "b": entry})


@pytest.mark.parametrize("beyond", [-1, 10, 2**40])
def test_a_class_that_does_not_exist(written, beyond):
    message = rf"real.json, entry 3 has class {beyond}, but classes are 0 to 9: is the file"
    with pytest.raises(ValueError, match=message):
        written([[1], [], [0, 9, beyond]])
    with pytest.raises(ValueError, match=rf"entry 'b' has class {beyond}"):
        written({"a": [1], "b": [beyond]})


def test_a_name_that_comes_twice(written):
    with pytest.raises(ValueError, match=r"real.json has 'a.jpg' twice: remove one"):
        written(b'{"a.jpg": [1], "b.jpg": [2], "a.jpg": [3]}')


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.json"):
        RealLabels.from_file(tmp_path / "none.json", num_classes=10)
