# SPDX-License-Identifier: BSD-3-Clause
"""The figures of the notebooks: what is where in them, in numbers and texts."""

import io

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from mlimages_jax.inference import figures
from mlimages_jax.inference.tagging import Tag
from mlimages_jax.labels.hierarchy import Hierarchy

RED = np.full((20, 40, 3), (255, 0, 0), np.uint8)
BLUE = np.full((60, 30, 3), (0, 0, 255), np.uint8)


def _texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def _pixels(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def _fraction(pixels, color):
    return (np.abs(pixels - color).max(axis=-1) < 8).mean()


def _tag(name, score, *above):
    return Tag(0, "x1", name, score, (*above, name))


def test_tagged_images_show_score_name_and_path():
    tags = [[_tag("poodle, poodle dog", 0.87, "animal, beast", "dog")], [_tag("ball", 0.25)]]
    figure = figures.tagged_images([RED, BLUE], tags)
    texts = _texts(figure)
    assert "poodle, poodle dog" in texts
    assert "animal > dog > poodle" in texts
    assert {"0.87", "0.25"} <= set(texts)
    assert texts.count("ball") == 1  # a root has no path to show
    pixels = _pixels(figure)
    assert _fraction(pixels, (255, 0, 0)) > 0.01
    assert _fraction(pixels, (0, 0, 255)) > 0.01


def test_long_paths_lose_their_middle():
    names = [f"a rather long class name {step}" for step in range(12)]
    figure = figures.tagged_images([RED], [[_tag(names[-1], 0.5, *names[:-1])]])
    path = next(text for text in _texts(figure) if " > ... > " in text)
    assert path.startswith(names[0])
    assert path.endswith(names[-1])
    assert len(path) <= 90


def test_an_image_without_tags_is_shown():
    assert _fraction(_pixels(figures.tagged_images([RED], [[]])), (255, 0, 0)) > 0.01


def test_image_grid_keeps_proportions_and_wraps_captions():
    figure = figures.image_grid([RED, BLUE], ["word " * 12, "$b_1$\nc"], columns=3)
    texts = _texts(figure)
    assert "$b_1$\nc" in texts
    assert next(text for text in texts if "word" in text).count("\n") >= 1
    shown = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]
    red, blue = ((image != 255).any(axis=-1).mean() for image in shown)
    assert red == pytest.approx(0.5, abs=0.01)  # 20 x 40 in a white square
    assert blue == pytest.approx(0.5, abs=0.01)
    assert len(figure.axes) == 3


def test_filters_are_grey_at_zero_and_full_at_their_largest_weight():
    kernel = np.zeros((3, 3, 3, 5), np.float32)
    kernel[0, 0, 0, 1], kernel[2, 2, 1, 1] = 4.0, -2.0
    figure = figures.filter_grid(kernel, columns=4)
    images = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]
    assert len(images) == 5
    np.testing.assert_allclose(images[0], 0.5)
    np.testing.assert_allclose(images[1][0, 0], (1.0, 0.5, 0.5))
    np.testing.assert_allclose(images[1][2, 2], (0.5, 0.25, 0.5))


def test_similarities_are_cosines():
    figure = figures.similarity_table(np.array([[3.0, 0.0], [1.0, 1.0]]), [RED, BLUE])
    assert _texts(figure).count("0.71") == 2
    assert _texts(figure).count("1.00") == 2
    assert len(figure.axes[0].get_images()) == 1 + 2 * 2


def test_confusions_show_the_classes_with_most_mistakes():
    counts = np.diag([9, 9, 9, 9])
    counts[0, 2] = 5
    names = ["ant, emmet", "bee", "cat", "dog"]
    texts = _texts(figures.confusion_table(counts, names, most=2))
    assert {"ant", "cat", "5"} <= set(texts)
    assert not {"bee", "dog"} & set(texts)


def test_bars_say_how_many_are_left_out():
    texts = _texts(figures.bars({"a": 1200, "b": 0, "c": 3}, label="images", most=2))
    assert "images (1 more rows not shown)" in texts
    assert {"a", "b", "1,200"} <= set(texts)
    assert "c" not in texts


def test_outline_goes_down_by_numbers():
    ids, names = tuple("vwxyz"), ("thing, object", "beast", "dog", "cat", "tool")
    hierarchy = Hierarchy(ids, names, np.array([-1, 0, 1, 1, 0]))
    lines = figures.outline(hierarchy, np.array([7, 3, 1, 2, 4]), most=1)
    found = [(len(line) - len(line.lstrip()), line.split()) for line in lines]
    assert found == [
        (0, ["thing", "7"]),
        (3, ["tool", "4"]),
        (3, ["...", "1", "more"]),
    ]
    assert [line.split()[0] for line in figures.outline(
        hierarchy, np.array([7, 3, 1, 2, 4]), depth=2
    )] == ["thing", "tool", "beast", "cat", "dog"]  # fmt: skip


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.image_grid([], []), "0 images"),
        (lambda: figures.tagged_images([RED], []), "1 images but 0"),
        (lambda: figures.similarity_table(np.zeros((2, 3)), [RED]), "1 images but 2"),
        (lambda: figures.filter_grid(np.zeros((3, 3, 4, 2))), r"\[K, K, 3, N\]"),
        (lambda: figures.confusion_table(np.zeros((2, 3)), ["a", "b"]), r"\[2, 2\]"),
        (lambda: figures.bars({}, label="x"), "no values"),
    ],
)
def test_what_does_not_fit_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
