# SPDX-License-Identifier: BSD-3-Clause
from mlimages_jax.evaluation.known_results import known_result

KEY = {"split": "val", "size": 224, "protocol": "central", "weights": "a1", "labels": ""}
ROW = {**KEY, "step": 3, "checkpoint": "w/checkpoints/3", "mAP": 0.5}


def test_a_result_is_known_wherever_its_checkpoint_is_now():
    assert known_result([ROW], KEY, step=3) is ROW


def test_another_step_view_or_setting_is_computed():
    assert known_result([ROW], KEY, step=4) is None
    for change in ({"size": 299}, {"protocol": "whole"}, {"weights": "b2"}, {"dtype": "bfloat16"}):
        assert known_result([ROW], KEY | change, step=3) is None, change


def test_a_result_whose_tables_were_overwritten_is_computed_again():
    other = ROW | {"labels": "real.json"}  # in the same folder of tables
    assert known_result([ROW, other], KEY, step=3) is None
    assert known_result([ROW, other], KEY | {"labels": "real.json"}, step=3) is other
    assert known_result([ROW, other, ROW], KEY, step=3) is ROW
