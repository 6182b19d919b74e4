# SPDX-License-Identifier: BSD-3-Clause
"""configs/finetune.py from archives in ImageNet's form to numbers, cut down to seconds."""

import json
import logging
import shutil

import jax
import numpy as np
import pytest

from mlimages_jax import settings
from mlimages_jax.checkpoints import compatibility, manager
from mlimages_jax.data import records
from mlimages_jax.settings import build
from mlimages_jax.training import train
from tests.conftest import SHARED
from tests.support import imagenet_shaped
from tests.support.small_run import SMALL_FINETUNING, load_config, small_config, small_finetuning
from tfds_builders import shapes

STAMPS = SHARED / "data" / "stamps"
NETWORK = {key: SMALL_FINETUNING[key] for key in SMALL_FINETUNING if key.startswith("model.")}
SHORT = {"evaluation.splits": (), "checkpoint.every": 8}  # for what happens before and in between
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def imagenet_set(tmp_path_factory):
    """Of real images where they are at hand."""
    stamps = STAMPS if STAMPS.is_dir() else None
    return imagenet_shaped.build(tmp_path_factory.mktemp("imagenet"), stamps)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return imagenet_shaped.build(tmp_path_factory.mktemp("imagenet"), None)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A workdir of two steps on the drawn set with its 40 classes."""
    folder = shapes.build(tmp_path_factory.mktemp("data"), num_train=32, num_val=16, size=48)
    workdir = tmp_path_factory.mktemp("pretrained")
    changes = NETWORK | SHORT | {"total_steps": 2, "optimizer.ema_decay": 0.5}
    config = small_config(folder, **changes)
    train.train(config, workdir)
    return workdir


def _rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _weights(workdir, **kwargs):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.device_get(manager.load_weights(workdir, place, **kwargs))


def _equal(ours, theirs):
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a, b), ours, theirs)))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["299", "224", "224to299", "scratch", "modern"])
def test_every_variant_runs(imagenet_set, pretrained, variant, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    start = "" if variant == "scratch" else str(pretrained)
    sizes = {"224": [32], "299": [48], "224to299": [32, 48]}.get(variant, [32])
    evaluated = (32, 48) if variant == "modern" else tuple(sizes)
    changes = {"checkpoint.every": 8, "evaluation.sizes": evaluated, "init_from": start}
    config = small_finetuning(imagenet_set, variant, **changes)
    state = train.train(config, tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    compiled = [int(text.split()[4]) for text in messages if text.startswith("compiled the step")]
    assert compiled == sizes
    kinds = ("", "_averaged") if variant == "modern" else ("",)
    for size in evaluated:
        split = f"val_central_{size}" if len(evaluated) > 1 else "val"
        for kind in kinds:
            values = [row for row in _rows(tmp_path) if f"{split}{kind}/top1" in row]
            assert values[-1]["step"] == 8
            assert 0 <= values[-1][f"{split}{kind}/top1"] <= 1
            assert values[-1][f"{split}{kind}/examples"] == 20
    assert state.params["head"]["bias"].shape == (5,)
    start = _weights(pretrained)["params"]
    stays = _equal(start["stage1_block0"], jax.device_get(state.params["stage1_block0"]))
    assert stays == (variant not in ("scratch", "modern"))
    assert not _equal(start["stage2_block0"], jax.device_get(state.params["stage2_block0"]))
    for name in ("per_class.tsv", "confusion.tsv", "reliability.png", "predictions.png"):
        assert (tmp_path / name).exists()
    assert (tmp_path / "dictionary.txt").read_text() == (
        imagenet_set / "dictionary.txt"
    ).read_text()


@pytest.fixture(scope="module")
def progressive(built, pretrained, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("progressive")
    config = small_finetuning(built, "224to299", init_from=str(pretrained), **SHORT)
    return workdir, jax.device_get(train.train(config, workdir))


@pytest.mark.slow
def test_log_lines_go_on_across_the_change_of_size(progressive):
    rows = [row for row in _rows(progressive[0]) if "training/loss" in row]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert all(0 <= row["training/input_wait"] <= 1 for row in rows)
    assert all(row["training/bad_images_per_step"] == 0 for row in rows)


@pytest.mark.slow
def test_resuming_around_the_change_of_size_changes_no_bit(
    built, pretrained, progressive, tmp_path
):
    for total_steps in (3, 4, 6, 8):
        changes = SHORT | {"init_from": str(pretrained), "total_steps": total_steps}
        config = small_finetuning(built, "224to299", **changes)
        state = train.train(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), progressive[1])


@pytest.mark.slow
def test_a_change_to_the_same_size_changes_nothing(built, tmp_path):
    """The second stage goes on with the very next image."""
    states = [
        jax.device_get(
            train.train(small_finetuning(built, "scratch", **changes, **SHORT), tmp_path / f"{i}")
        )
        for i, changes in enumerate(({}, {"resize": ((3, 32, 16),)}))
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_another_batch_size_after_the_change_resumes_too(built, tmp_path):
    changes = SHORT | {"resize": ((3, 32, 8), (5, 32, 16))}
    whole = train.train(small_finetuning(built, "scratch", **changes), tmp_path / "whole")
    for total_steps in (4, 8):
        config = small_finetuning(built, "scratch", total_steps=total_steps, **changes)
        state = train.train(config, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(whole))


@pytest.mark.slow
def test_it_begins_with_the_averages_of_the_other_run(built, pretrained, tmp_path):
    changes = SHORT | {"init_from": str(pretrained), "total_steps": 0, "optimizer.ema_decay": 0.5}
    state = jax.device_get(train.train(small_finetuning(built, "224", **changes), tmp_path))
    averaged, raw = _weights(pretrained), _weights(pretrained, ema=False)
    assert _equal(state.params["stage0_block0"], averaged["params"]["stage0_block0"])
    assert not _equal(state.params["stage0_block0"], raw["params"]["stage0_block0"])
    assert _equal(state.batch_stats, averaged["batch_stats"])
    assert _equal(state.ema, state.weights), "its own EMA starts there too"
    assert not state.params["head"]["bias"].any()


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_the_classifier_stays_for_the_same_classes_only(built, progressive, tmp_path, same):
    """As many classes are not the same classes: the class lists of both tell."""
    workdir, before = progressive
    classes = (workdir / "dictionary.txt").read_text()
    run = tmp_path / "run"
    shutil.copytree(workdir, run)
    if not same:
        (run / "dictionary.txt").write_text(classes.replace("n00000001", "n00000009"))
    config = small_finetuning(built, "224", init_from=str(run), total_steps=0, **SHORT)
    state = jax.device_get(train.train(config, tmp_path / "w"))
    assert _equal(state.params["head"], before.params["head"]) == same
    assert _equal(state.params["stem"], before.params["stem"])


@pytest.mark.slow
def test_the_classifier_of_classes_without_ids_stays(built, progressive, tmp_path, caplog):
    workdir, before = progressive
    run = tmp_path / "run"
    shutil.copytree(workdir, run)
    (run / "dictionary.txt").write_text("".join(f"{i}\tword\tof\n" for i in range(5)))
    config = small_finetuning(built, "224", init_from=str(run), total_steps=0, **SHORT)
    state = jax.device_get(train.train(config, tmp_path / "w"))
    assert _equal(state.params["head"], before.params["head"])
    assert "by number only: both lists have 5" in caplog.text


@pytest.mark.slow
def test_several_labels_an_image_are_another_loss(pretrained, tmp_path):
    folder = shapes.build(tmp_path / "data", num_train=32, num_val=16, size=48)
    changes = {"init_from": str(pretrained), "total_steps": 2, "evaluation.sizes": ()}
    with pytest.raises(build.ConfigError, match=r"softmax.*has up to \d+: use --config.loss"):
        train.train(small_finetuning(folder, "224", **changes), tmp_path / "w")
    config = small_finetuning(folder, "224", **changes, **{"loss.name": "sigmoid"})
    train.train(config, tmp_path / "w")
    assert _rows(tmp_path / "w")[-1]["val/mAP"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.freeze": ("stage7_*",)}, "'stage7_\\*' matches no parameter"),
        ({"optimizer.lr_multipliers": (("head/*", 0.0),)}, "factor is a number, above 0"),
        ({"optimizer.lr_multipliers": ("head/*",)}, r"give a tuple of \(pattern, factor\) tuples"),
        ({"resize": ((4, 48),)}, "from step, image size, batch size"),
        ({"resize": ((4, 48, 20),), "group_size": 4}, "20 is not divisible by 8 devices"),
        ({"resize": ((4, 48, 24),), "group_size": 16}, "24 is not divisible by group_size=16"),
        ({"resize": ((4, 48, 32),), "loss.name": "weighted"}, "batch size in config.resize must"),
        ({"augmentation.rand_augment": 2, "augmentation.magnitude": 11.0}, "at most 10"),
        ({"evaluation.views": ()}, r"views=\(\): give 1 or more"),
        ({"loss.softmax.label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"augmentation.cutmix": -1.0}, "cutmix=-1.0: give a number, 0 or more"),
        ({"augmentation.mixup": 0.2, "group_size": 1}, "group_size=1 has only one"),
    ],
)
def test_what_cannot_run_is_refused_before_the_first_step(built, tmp_path, changes, message):
    with pytest.raises(build.ConfigError, match=message):
        train.train(small_finetuning(built, "scratch", **changes), tmp_path)


@pytest.mark.slow
def test_another_depth_is_named(built, pretrained, tmp_path):
    changes = {"model.stage_sizes": (1, 2, 1), "init_from": str(pretrained)}
    with pytest.raises(
        compatibility.CheckpointMismatchError, match=r"\(1, 1, 1\) blocks.*\(1, 2, 1\)"
    ):
        train.train(small_finetuning(built, "224", **changes), tmp_path)


@pytest.mark.slow
def test_a_network_that_is_left_open_is_that_of_the_checkpoint(built, pretrained, tmp_path):
    left = {"model.stage_sizes": (), "model.stage_widths": (), "model.stem_width": 0}
    changes = SHORT | {"init_from": str(pretrained), "total_steps": 1}
    config = small_finetuning(built, "224", **changes, **left)
    state = train.train(config, tmp_path / "w")
    params = _weights(pretrained)["params"]
    assert state.params["stem"]["kernel"].shape == params["stem"]["kernel"].shape
    kept = json.loads((tmp_path / "w/config.json").read_text())["model"]
    assert (kept["stage_sizes"], kept["stage_widths"]) == ([1, 1, 1], [16, 32, 32])
    gone = {"init_from": str(tmp_path / "gone"), "total_steps": 0}
    config = settings.replaced(config, gone)  # a restart has its own checkpoint
    with pytest.raises(build.ConfigError, match="init_from"):
        train.train(config, tmp_path / "w")  # another start than the checkpoint's, not a network
    given = small_finetuning(built, "224", **changes)
    train.train(given, tmp_path / "w")  # the same sizes by hand


@pytest.mark.slow
def test_what_does_not_fit_is_said_in_three_lines(built, pretrained, tmp_path):
    changes = {"model.stage_widths": (64, 32, 32), "model.stem_kernel": 7, "model.stem_width": 64}
    config = small_finetuning(built, "224", init_from=str(pretrained), **changes)
    with pytest.raises(compatibility.CheckpointMismatchError) as error:
        train.train(config, tmp_path)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "its stages are (16, 32, 32) wide" in lines[0] and "stem is 8 wide" in lines[0]
    assert "stem's kernel is 3, the configuration's model.stem_kernel are 7" in lines[0]
    assert "--config.model=init_from" in lines[1] and "have another shape or dtype" in lines[2]


@pytest.mark.slow
def test_a_set_without_validation_split_is_named(built, tmp_path):
    config = small_finetuning(built, "scratch", **{"evaluation.splits": ("test",)})
    with pytest.raises(records.DataSetError, match=r"no split 'test'; it has \['train', 'val'\]"):
        train.train(config, tmp_path)
    config = small_finetuning(built, "scratch", **{"evaluation.splits": ()}, total_steps=2)
    train.train(config, tmp_path)
    assert manager.latest_step(tmp_path / "checkpoints") == 2
    assert not (tmp_path / "per_class.tsv").exists()


@pytest.mark.slow
def test_a_workdir_keeps_its_classes(built, progressive, pretrained):
    workdir, _ = progressive
    config = small_finetuning(built, "224to299", init_from=str(pretrained), **SHORT)
    kept = (workdir / "dictionary.txt").read_text()
    (workdir / "dictionary.txt").write_text(kept.replace("n00000001", "n00000009"))
    with pytest.raises(build.ConfigError, match="different classes"):
        train.train(config, workdir)
    words = "".join(f"{i}\tword\tof\n" for i in range(5))  # as an import brings them
    (workdir / "dictionary.txt").write_text(words)
    train.train(config, workdir)
    assert (workdir / "dictionary.txt").read_text() == kept


def test_the_published_recipes_are_the_published_numbers():
    config = load_config("finetune", "224to299")
    schedule = build.schedule(config)
    rates = [float(schedule(step)) for step in (0, 149_999, 150_000, 300_000, 599_999)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 1e-3, 1e-4], rtol=1e-5)
    assert [stage[:4] for stage in build.stages(config)] == [
        (0, 300_000, 224, 256),
        (300_000, 600_000, 299, 256),
    ]
    assert config.optimizer.norm_weight_decay == 0.1 * config.optimizer.weight_decay
    with pytest.raises(
        ValueError, match="none of the variants 224, 224to299, 299, scratch, modern"
    ):
        load_config("finetune", "256")
