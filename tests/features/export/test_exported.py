# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.features import FeaturesError
from mlimages_jax.features.export.exported import name_fractions, open_exported
from mlimages_jax.features.export.feature_formats import FORMATS
from tests.features.feature_sets import in_memory, write_export

NUMBERS = np.arange(36, dtype=np.float32).reshape(9, 4)


@pytest.mark.parametrize("file_format", FORMATS)
def test_images_with_errors_are_left_out_and_the_others_keep_what_is_theirs(tmp_path, file_format):
    labels = [f"{i}:1" for i in range(9)]
    errors = {0: "missing: x", 5: "corrupt: y"}
    folder = write_export(
        tmp_path / "f", NUMBERS, labels=labels, errors=errors, file_format=file_format
    )
    images = open_exported(folder, output="features")
    assert (len(images), images.without, images.width) == (7, 2, 4)
    assert images.names == [f"{i}.jpg" for i in (1, 2, 3, 4, 6, 7, 8)]
    assert images.labels == [f"{i}:1" for i in (1, 2, 3, 4, 6, 7, 8)]
    np.testing.assert_array_equal(images.rows, [1, 2, 3, 4, 6, 7, 8])
    np.testing.assert_array_equal(images.plain(slice(3, 6)), NUMBERS[[4, 6, 7]])
    few = images.select(np.array([0, 4, 6]))
    assert few.names == ["1.jpg", "6.jpg", "8.jpg"]
    assert few.labels == ["1:1", "6:1", "8:1"]
    np.testing.assert_array_equal(few.plain(np.array([2, 1])), NUMBERS[[8, 6]])
    assert images.metadata["view"] == {"size": 32}


def test_an_export_without_a_readable_image_is_refused(tmp_path):
    folder = write_export(tmp_path / "f", NUMBERS[:2], errors={0: "a", 1: "b"})
    with pytest.raises(FeaturesError, match=r"none of its 2 images.*errors\.tsv"):
        open_exported(folder, output="features")


def test_unit_vectors_worked_by_hand():
    images = in_memory([[3, 4], [0, 0], [3e30, 4e30], [3e-30, -4e-30]])
    expected = np.array([[0.6, 0.8], [0, 0], [0.6, 0.8], [0.6, -0.8]], np.float32)
    unit = images.unit(slice(None))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, expected, rtol=1e-6)
    np.testing.assert_array_equal(images.array[0], [3, 4])  # what is stored stays


def test_half_precision_is_read_as_float32(tmp_path):
    folder = write_export(tmp_path / "f", NUMBERS * 1000, dtype="float16")
    unit = open_exported(folder, output="features").unit(slice(0, 9))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)


def test_numbers_that_are_not_finite_are_named():
    array = np.ones((5, 3))
    array[3, 1] = np.inf
    images = in_memory(array).select(np.array([0, 2, 3]))
    images.plain(slice(0, 2))
    with pytest.raises(FeaturesError, match=r"memory: the features of row 3 \(3\.jpg\)"):
        images.unit(slice(0, 3))


def test_shares_of_names():
    names = [f"{i}.jpg" for i in range(4000)]
    fractions = name_fractions(names, purpose="test")
    assert 0 <= fractions.min() <= fractions.max() < 1
    for bound in (0.1, 0.5, 0.9):
        assert abs((fractions < bound).mean() - bound) < 0.03
    np.testing.assert_array_equal(fractions[::-1], name_fractions(names[::-1], purpose="test"))
    others = name_fractions(names, purpose="C")
    assert abs(np.corrcoef(fractions, others)[0, 1]) < 0.05
    # printf 'test\na.jpg' | sha256sum begins with this: a cut is the same in every version
    first = 0xCCC6A4167597 / 2**48
    assert name_fractions(["a.jpg"], purpose="test")[0] == first
