# SPDX-License-Identifier: BSD-3-Clause
"""Dictionaries and label lists with random damage: read, or refused with file and reason."""

import random

import numpy as np
import pytest

from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.labels.lists import LabelListError, read_label_list, write_label_list
from tests.support import fuzzing

CLASS_LIST = (
    "category_index\tcategory_id\tindex_of_parent_category\tcategory name\n"
    "0\tn0\t-1\tanimal, caf\u00e9\n1\tn1\t0\tdog, domestic dog\n2\tn2\t1\tpoodle\n3\tn3\t-1\tcar\n"
)
LIST = "n0/a b.jpg\t3:1\t2:0.25\nhttp://x.org/1_o.jpg 1:-1\ncafe\u0301.jpg\t0\n12:30.png\t2:1e-3\n"
_PIECES = [
    b"\t", b"\n", b"\r", b"\r\n", b" ", b"  ", b"\0", b"\xff", b"\xef\xbb\xbf", b"-", b":",
    b"\\x09", b"0", b"99999999999", b"\xc3", b"\xed\xa0\x80", "\u2028\u202e".encode(), b'"', b"#",
    b"\x1b[2J", b"-1", b"1e9", b"nan",
]  # fmt: skip


def _damaged(text, draw):
    """A file after some random edits: pieces put in, cut out, doubled, lines moved, recoded."""
    data = bytearray(text.encode())
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(5)
        if kind == 0:
            data[at:at] = draw.choice(_PIECES)
        elif kind == 1:
            del data[at : at + draw.randrange(1, 9)]
        elif kind == 2:
            data[at:at] = data[at : at + draw.randrange(1, 40)]
        elif kind == 3:
            lines = data.split(b"\n")
            draw.shuffle(lines)
            data = bytearray(b"\n".join(lines))
        else:
            data = data[:at]
    if draw.random() < 0.1:
        text = data.decode("utf-8", "replace")
        data = bytearray(text.encode(draw.choice(["utf-16", "utf-8-sig", "utf-32", "utf-16-be"])))
    if draw.random() < 0.2:
        data = data.replace(b"\n", draw.choice([b"\r", b"\r\n"]))
    return bytes(data)


def _check_dictionary(path, seed):
    path.write_bytes(_damaged(CLASS_LIST, random.Random(seed)))
    try:
        hierarchy = Hierarchy.from_file(path)
    except HierarchyError as error:
        assert str(error).startswith(str(path))
        return False
    hierarchy.to_file(path)
    again = Hierarchy.from_file(path)
    assert (again.ids, again.names) == (hierarchy.ids, hierarchy.names)
    np.testing.assert_array_equal(again.parents, hierarchy.parents)
    assert len(hierarchy.roots) > 0
    return True


def _check_list(path, seed):
    path.write_bytes(_damaged(LIST, random.Random(seed)))
    try:
        rows = read_label_list(path, num_classes=4)
    except LabelListError as error:
        assert str(error).startswith(str(path))
        return False
    write_label_list(path, rows)
    for name, array in vars(read_label_list(path, num_classes=4)).items():
        np.testing.assert_array_equal(array, getattr(rows, name), err_msg=name)
    return True


CHECKS = {"dictionary.txt": _check_dictionary, "train_image_list.txt": _check_list}


@pytest.mark.parametrize("name", CHECKS)
def test_damaged_files(tmp_path, name):
    read = sum(CHECKS[name](tmp_path / name, seed) for seed in range(300))
    assert 30 < read < 270  # some of both kinds, else the damage would be none or too much


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("part", fuzzing.PARTS)
def test_ten_thousand_damaged_files(tmp_path, name, part):
    for seed in range(1000 * part, 1000 * part + 1000):
        CHECKS[name](tmp_path / name, seed)
