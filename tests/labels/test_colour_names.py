# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.labels.colour_names import colours_among
from tfds_builders.shapes import classes


@pytest.mark.parametrize(
    "name",
    ["red", "Green", "yellow, yellowness", "color: dark blue", "colour_pink", "rouge, red",
     "red-orange", "light blue"],
)  # fmt: skip
def test_a_name_or_synonym_that_is_a_colour(name):
    assert colours_among(["dog", name]) == [name]


@pytest.mark.parametrize(
    "name",
    ["red wine", "blue jay", "evergreen", "", "color, colour, hue", "coloured", "dark", "white",
     "orangery, orange house", "2", "green_house"],
)  # fmt: skip
def test_a_name_that_has_one_but_is_none(name):
    assert colours_among([name]) == []


def test_those_of_the_drawn_set():
    found = [name.split(",")[0] for name in colours_among(classes.HIERARCHY.names)]
    assert found == ["red", "orange", "yellow", "green", "turquoise", "blue", "violet"]
