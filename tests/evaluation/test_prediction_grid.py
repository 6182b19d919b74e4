# SPDX-License-Identifier: BSD-3-Clause
import types

import numpy as np
import pytest
from PIL import Image

from mlimages_jax.evaluation.prediction_grid import Legend, save_grid, specific_classes
from mlimages_jax.evaluation.shown_classes import predicted_classes
from mlimages_jax.labels.hierarchy import Hierarchy
from tests.support import bucket

TREE = Hierarchy(
    ids=("a", "b", "c", "d"),
    names=("animal", "dog", "puppy", "stone"),
    parents=np.array([-1, 0, 1, -1], np.int32),
)
GREEN, RED, ORANGE = (0, 125, 60), (205, 30, 30), (176, 96, 0)


def images(count: int, side: int = 64) -> np.ndarray:
    """Blue squares of one brightness each."""
    images = np.zeros((count, side, side, 3), np.uint8)
    images[..., 2] = 100 + np.arange(count)[:, None, None]
    return images


def grid_of(tmp_path, *args, **kwargs) -> np.ndarray:
    return np.asarray(Image.open(save_grid(tmp_path / "new" / "grid.png", *args, **kwargs)))


def count(pixels: np.ndarray, color: tuple[int, int, int]) -> int:
    return int(np.all(pixels == color, axis=-1).sum())


def below_legend(pixels: np.ndarray, *, lines: int) -> np.ndarray:
    return pixels[12 + 18 * lines :]


def test_hits_false_alarms_and_misses_have_their_colours(tmp_path):
    # Capitals have strokes wide enough for pixels of the colour itself.
    pixels = grid_of(
        tmp_path,
        images(3),
        true_tags=[["TILE"], ["LIFT"], ["FEET"]],
        predicted_tags=[[("TILE", 0.9, True)], [("FEET", 0.4, False), ("LIFT", 0.3, True)], []],
    )
    legend, rest = pixels[:30], below_legend(pixels, lines=1)
    assert all(count(legend, colour) > 0 for colour in (GREEN, RED, ORANGE))
    left, middle, right = np.split(rest[:, : 3 * (pixels.shape[1] // 3)], 3, axis=1)
    for part, expected in ((left, {GREEN}), (middle, {GREEN, RED}), (right, {ORANGE})):
        assert {c for c in (GREEN, RED, ORANGE) if count(part, c) > 0} == expected


def test_a_legend_says_what_its_signs_mean_and_leaves_out_the_others(tmp_path):
    tags = {"true_tags": [[]] * 3, "predicted_tags": [[("dog", 0.9, False)]] * 3}
    usual = grid_of(tmp_path, images(3), **tags)
    own = grid_of(tmp_path, images(3), **tags, legend=Legend(false_alarm="NOT GIVEN"))
    assert [count(own[:30], colour) > 0 for colour in (GREEN, RED, ORANGE)] == [False, True, False]
    assert np.array_equal(own[30:], usual[30:])


@pytest.mark.parametrize(("side", "shown"), [(64, 192), (96, 192), (224, 224)])
def test_small_images_are_enlarged_by_whole_numbers(tmp_path, side, shown):
    pixels = grid_of(tmp_path, images(3, side), true_tags=[[]] * 3, predicted_tags=[[]] * 3)
    for index in range(3):
        assert count(pixels, (0, 0, 100 + index)) == shown**2
    assert pixels.shape[1] == 3 * shown + 4 * 12


def test_images_run_along_the_rows(tmp_path):
    tags = [["a"], ["a", "b", "c", "d"], [], [], ["a"]]
    pixels = grid_of(tmp_path, images(5), true_tags=tags, predicted_tags=[[]] * 5, columns=2)
    corners = [
        np.argwhere(np.all(pixels == (0, 0, 100 + index), axis=-1))[0].tolist()
        for index in range(5)
    ]
    first_row = 12 + 3 * 18 + 12  # below a legend of three lines
    second_row = first_row + 192 + 24 + 18 * 4  # the longest caption has four lines
    third_row = second_row + 192 + 24
    assert corners == [
        [first_row, 12],
        [first_row, 216],
        [second_row, 12],
        [second_row, 216],
        [third_row, 12],
    ]


def test_long_names_are_cut_but_their_scores_are_not(tmp_path):
    """What follows a name too long is as wide as the image and ends like the short name's."""
    long_name = "great white shark, white shark, man-eater, man-eating shark"
    pixels = grid_of(
        tmp_path, images(2), true_tags=[[], []], predicted_tags=[[(long_name, 0.37, False)], []]
    )
    red = np.argwhere(np.all(below_legend(pixels, lines=3) == RED, axis=-1))
    assert 12 + 192 - 25 < red[:, 1].max() <= 12 + 192
    other = grid_of(
        tmp_path, images(2), true_tags=[[], []], predicted_tags=[[(long_name, 0.88, False)], []]
    )
    changed = np.argwhere(np.any(pixels != other, axis=-1))
    assert changed[:, 1].min() > 12 + 192 - 40  # only the digits at the end


@pytest.mark.parametrize(
    ("arrays", "tags", "columns", "message"),
    [
        (images(2).astype(np.float32), 2, 6, r"float32 \(2, 64, 64, 3\)"),
        (images(2)[0], 2, 6, r"uint8 \(64, 64, 3\)"),
        (images(0), 0, 6, r"uint8 \(0, 64, 64, 3\)"),
        (images(2), 3, 6, "2 images, 3 true_tags and 3 predicted_tags"),
        (images(2), 2, 0, "columns=0"),
    ],
)
def test_wrong_arguments(tmp_path, arrays, tags, columns, message):
    with pytest.raises(ValueError, match=message):
        save_grid(
            tmp_path / "grid.png",
            arrays,
            true_tags=[[]] * tags,
            predicted_tags=[[]] * tags,
            columns=columns,
        )


def test_a_grid_may_lie_in_a_bucket(tmp_path):
    with bucket.in_folder(tmp_path) as place:
        save_grid(place / "run/grid.png", images(1), true_tags=[[]], predicted_tags=[[]])
    assert Image.open(tmp_path / "run/grid.png").width == 192 + 2 * 12


def test_ancestors_of_a_shown_tag_are_left_out():
    shown = specific_classes(np.array([0.9, 0.8, 0.7, 0.1]), TREE, count=2)
    assert shown == [2, 3]
    shown = specific_classes(np.array([0.9, 0.8, 0.1, 0.2]), TREE, count=3)
    assert shown == [1, 3, 2], "an unlikely child does not hide its parent"


def test_a_class_is_predicted_from_its_own_threshold_on():
    record = types.SimpleNamespace(labels=np.array([0, 2, 3]), confidences=np.array([1, 0.4, -1.0]))
    scores = np.array([0.9, 0.3, 0.2, 0.7], np.float32)

    def shown(limits):
        limits = None if limits is None else np.array(limits)
        return [(i, true) for i, _, true in predicted_classes(record, scores, TREE, limits=limits)]

    assert shown([0.5, 0.5, 0.5, 0.8]) == [(0, True)]
    assert shown([0.5, 0.1, 0.1, 0.7]) == [(3, False), (2, True)]  # the puppy implies the others
    assert shown([0.95, 0.3, 0.5, 0.8]) == [(1, False)]
    assert shown([0.95, 0.5, 0.5, 0.8]) == []
    assert shown(None) == [(0, True)]  # one class per image
