# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.data.folds import Fold, Subset


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("records", [0, 1, 10, 1_000])
def test_every_record_is_in_one_fold_and_folds_are_of_a_size(count, records):
    masks = np.stack([Fold(number, count).mask(records) for number in range(count)])
    assert (masks.sum(0) == 1).all()
    sizes = masks.sum(1)
    assert sizes.max() - sizes.min() <= 2


def test_neighbours_are_in_different_folds():
    fold = np.argmax([Fold(number, 3).mask(300) for number in range(3)], axis=0)
    assert (fold[1:] != fold[:-1]).mean() > 0.9


def test_a_subset_reads_the_chosen_records_and_names_them_as_the_whole():
    class Named(list):
        def name_of(self, index):
            return f"the {index}th"

    records = Named([b"a", b"b", b"c", b"d"])
    subset = Subset(records, np.array([True, False, False, True]))
    assert [subset[i] for i in range(len(subset))] == [b"a", b"d"]
    assert subset.name_of(1) == "the 3th"
    assert Subset([b"a", b"b"], np.array([False, True])).name_of(0) == "record 1"
