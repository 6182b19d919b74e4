# SPDX-License-Identifier: BSD-3-Clause
import itertools

import pytest

from mlimages_jax.settings import flatten
from mlimages_jax.training import recipe
from tests.support.small_run import load_config


def _config(**changes):
    return load_config("tagger", **{"data.folder": "x", **changes})


def _setting(images=5_000, platform="gpu", devices=1, *, single_label=False, colours=0):
    return recipe.Setting(images, platform, devices, single_label, colours)


@pytest.mark.parametrize(
    ("images", "platform", "size", "blocks", "dtype"),
    [
        (19_999, "gpu", 224, (2, 2, 2, 2), "bfloat16"),
        (20_000, "tpu", 224, (3, 4, 6, 3), "bfloat16"),
        (200_000, "gpu", 224, (3, 4, 23, 3), "bfloat16"),
        (10, "cpu", 48, (1, 1, 1), "float32"),
        (10**6, "cpu", 48, (1, 1, 1), "float32"),
    ],
)
def test_the_table(images, platform, size, blocks, dtype):
    chosen = recipe.choose(_config(), _setting(images, platform))
    assert chosen["image_size"] == size and chosen["model.stage_sizes"] == blocks
    assert chosen["model.dtype"] == dtype


def test_the_labels_decide_the_loss():
    assert recipe.choose(_config(), _setting())["loss.name"] == "asymmetric"
    assert recipe.choose(_config(), _setting(single_label=True))["loss.name"] == "softmax"


def test_hues_are_left_alone_where_classes_are_colours():
    def hue(colours, **given):
        return recipe.choose(_config(**given), _setting(colours=colours))["augmentation.hue"]

    assert [hue(colours) for colours in (0, 1, 2, 7)] == [0.2, 0.2, 0.0, 0.0]
    assert hue(7, **{"augmentation.hue": 0.1}) == 0.1
    assert hue(0, **{"augmentation.hue": 0.0}) == 0.0


def test_what_is_given_is_not_chosen():
    given = {
        "image_size": 96,
        "batch_size": 12,
        "model.dtype": "float32",
        "model.stage_sizes": (1, 2),
        "loss.name": "sigmoid",
    }
    chosen = recipe.choose(_config(**given), _setting())
    assert chosen | given == chosen
    assert chosen["group_size"] == 12


def test_another_number_of_stages_has_widths_to_match():
    chosen = recipe.choose(_config(**{"model.stage_sizes": (1, 2)}), _setting())
    assert chosen["model.stage_widths"] == (256, 512)
    small = recipe.choose(_config(**{"model.stage_sizes": (1,) * 4}), _setting(platform="cpu"))
    assert small["model.stage_widths"] == (128, 256, 512, 1024)
    given = {"model.stage_sizes": (1, 2), "model.stage_widths": (8, 8)}
    assert recipe.choose(_config(**given), _setting())["model.stage_widths"] == (8, 8)


def test_the_network_of_a_checkpoint_is_kept():
    chosen = recipe.choose(_config(init_from="/somewhere"), _setting())
    assert not any(name.startswith("model.stage") for name in chosen)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_batches_have_whole_groups_on_every_device(platform):
    for images, devices in itertools.product((2, 50, 600, 10**5), (1, 2, 6, 8, 64)):
        chosen = recipe.choose(_config(), _setting(images, platform, devices))
        batch, group = chosen["batch_size"], chosen["group_size"]
        assert batch % devices == 0 and batch % group == 0, (images, devices, batch, group)
        # At least 8 updates an epoch, as far as every device has an image.
        assert batch <= max(images // 8, 8, devices)


def test_epochs_by_hand():
    assert [recipe.epochs_for(n) for n in (10, 1_000, 4_000, 100_000, 10**7)] == [
        100, 100, 50, 10, 10,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "in_time", "steps"),
    [
        ({}, None, 3_125),  # 50 epochs of 62.5 batches
        ({"epochs": 2}, None, 125),
        ({"epochs": 2}, 100, 100),
        ({"epochs": 2}, 1_000, 125),
        ({}, 10_000, 10_000),
        ({}, 0, 1),
        ({"total_steps": 7}, 100, 7),
    ],
)
def test_the_length_by_hand(given, in_time, steps):
    length = recipe.length(_config(**given), images=4_000, batch_size=64, steps_in_time=in_time)
    assert length == steps


def test_the_average_reaches_over_a_twentieth_of_the_run():
    assert recipe.ema_decay(2_000) == pytest.approx(0.99)
    assert recipe.ema_decay(1) == 0.0
    assert recipe.ema_decay(10**9) == 0.9999


def test_long_runs_have_rand_augment():
    operations = [
        recipe.augmentation(epochs)["augmentation.rand_augment"] for epochs in (1, 200, 201, 10**4)
    ]
    assert operations == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"loss.name": "sigmoid"}, "val/mAP"),
        ({"loss.name": "sigmoid", "optimizer.ema_decay": 0.9}, "val_averaged/mAP"),
        ({"loss.name": "softmax", "optimizer.ema_decay": 0.9}, "val_averaged/top1"),
        ({"loss.name": "sigmoid", "evaluation.splits": ()}, ""),
        ({"loss.name": "sigmoid", "evaluate_every": 0}, ""),
        ({"loss.name": "sigmoid", "evaluation.sizes": (64, 96)}, ""),
    ],
)
def test_the_best_checkpoint_is_that_of_the_weights_in_use(changes, metric):
    assert recipe.best_metric(flatten(_config(**{"optimizer.ema_decay": 0.0, **changes}))) == metric
