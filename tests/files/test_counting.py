# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.files.counting import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "image", "1 image"), (0, "image", "0 images"), (1234, "row", "1,234 rows"),
        (2, "class", "2 classes"), (1, "category", "1 category"), (3, "category", "3 categories"),
        (2, "different label", "2 different labels"),
    ],
)  # fmt: skip
def test_numbers_in_sentences(number, noun, text):
    assert counted(number, noun) == text
