# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.step.stages import Stage, make_stages


def test_stages_follow_each_other_in_steps_and_images():
    stages = make_stages(
        image_size=224, batch_size=256, total_steps=10, resize=((4, 299, 128), (9, 331, 64))
    )
    assert stages == [
        Stage(0, 4, 224, 256, 0),
        Stage(4, 9, 299, 128, 1024),
        Stage(9, 10, 331, 64, 1024 + 640),
    ]


@pytest.mark.parametrize("total_steps", [3, 4])
def test_what_begins_after_the_end_is_left_out(total_steps):
    (only,) = make_stages(
        image_size=224, batch_size=256, total_steps=total_steps, resize=((4, 299, 128),)
    )
    assert only == Stage(0, total_steps, 224, 256, 0)


def test_a_training_of_no_step_has_a_stage():
    assert make_stages(image_size=8, batch_size=2, total_steps=0) == [Stage(0, 0, 8, 2, 0)]


@pytest.mark.parametrize(
    ("resize", "message"),
    [
        (((5, 299),), "from step, image size, batch size"),
        (((5, 299, 0),), "from step, image size, batch size"),
        (((0, 299, 128),), "from step, image size, batch size"),
        (((5, 299, 128), (5, 331, 64)), r"must increase: \[5, 5\]"),
        (((6, 299, 128), (5, 331, 64)), r"must increase: \[6, 5\]"),
    ],
)
def test_a_wrong_entry_is_named(resize, message):
    with pytest.raises(ValueError, match=message):
        make_stages(image_size=224, batch_size=256, total_steps=10, resize=resize)
