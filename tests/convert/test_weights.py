# SPDX-License-Identifier: BSD-3-Clause
import jax
import numpy as np
import pytest

from mlimages_jax.checkpoints import manager
from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.weights import (
    complete_folder,
    flat,
    new_folder,
    probability_rule,
    read_weights,
    write_workdir,
)
from mlimages_jax.distributed import sharding
from mlimages_jax.step import losses
from mlimages_jax.step.state import TrainState


@pytest.mark.parametrize("tail", ["", "checkpoints", "checkpoints/11"])
def test_saved_weights_are_a_checkpoint_like_any_other(workdir, weights, tail):
    path = workdir / tail
    assert manager.resolve(path) == workdir / "checkpoints" / "11"
    tree = manager.load(path)
    for name in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, tree[name], weights[name])
    assert tree["opt_state"] is None
    config = manager.config_of(path)
    assert config["loss"] == {"name": "weighted", "weighted": {"positive_weight": 4.0}}
    assert config["image_size"] == 24


def test_a_run_starts_from_saved_weights(workdir, weights):
    place = sharding.replicated(sharding.make_mesh())
    state = TrainState(np.zeros((), np.int32), opt_state=None, class_counts=None, **weights)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)
    restored = manager.restore_weights(workdir, abstract)
    jax.tree.map(np.testing.assert_array_equal, restored, weights)
    assert all(leaf.sharding == place for leaf in jax.tree.leaves(restored))


def test_a_workdir_with_a_checkpoint_is_not_overwritten(workdir, weights, tmp_path):
    with pytest.raises(ConvertError, match=r"checkpoints/11 already exists: give another"):
        write_workdir(workdir, flat(weights), step=12, config={})
    write_workdir(tmp_path, flat(weights), step=12, config={"a": 1})  # an empty folder may be
    assert manager.config_of(tmp_path) == {"a": 1}


def test_reading_gives_names_and_what_is_known(workdir, weights):
    read, arrays = read_weights(workdir)
    assert read.step == 11
    assert read.usage().image_size == 24
    assert next(iter(arrays)) == "params/stem/kernel"
    assert list(arrays)[-1] == "params/head/bias"
    ours = arrays["batch_stats/stage1_block1/norm2/var"]
    np.testing.assert_array_equal(ours, weights["batch_stats"]["stage1_block1"]["norm2"]["var"])


def test_averaged_weights_are_preferred(weights, tmp_path):
    ema = jax.tree.map(lambda leaf: leaf + 1, weights)
    state = TrainState(np.array(4, np.int32), opt_state=None, class_counts=None, ema=ema, **weights)
    with manager.Checkpoints(tmp_path) as saved:
        saved.save(state, step=4, config={})
    name = "batch_stats/final_norm/mean"
    for prefer_ema, added in ((True, 1), (False, 0)):
        array = read_weights(tmp_path, ema=prefer_ema)[1][name]
        np.testing.assert_array_equal(array, flat(weights)[name] + np.float32(added))
    np.testing.assert_array_equal(read_weights(tmp_path)[1][name], flat(ema)[name])


def test_a_checkpoint_of_something_else_is_refused(tmp_path, weights):
    arrays = {**flat(weights), "params/extra/kernel": np.zeros(1, np.float32)}
    write_workdir(tmp_path, arrays, step=0, config={})
    with pytest.raises(ConvertError, match="params/extra/kernel: not part of the network"):
        read_weights(tmp_path)


def test_counts_are_written(tmp_path, weights):
    counts = losses.initial_counts(2, 5)
    folder = write_workdir(tmp_path, flat(weights), step=9, config={}, class_counts=counts)
    assert folder == tmp_path / "checkpoints" / "9"
    assert manager.load(folder)["class_counts"]["negative"].shape == (2, 5)


@pytest.mark.parametrize(
    ("loss", "logit", "probability"),
    [
        ({"name": "weighted", "weighted": {"positive_weight": 12.0}}, np.log(12.0), 0.5),
        ({"name": "sigmoid", "weighted": {"positive_weight": 12.0}}, 0.0, 0.5),
        ({"name": "asymmetric"}, np.log(3.0), 0.75),
    ],
)
def test_the_rule_of_probabilities_can_be_computed(loss, logit, probability):
    rule = probability_rule({"loss": loss}).partition(",")[0]
    formula = rule.replace("12 exp", "12 * exp")
    assert eval(formula, {"exp": np.exp, "logit": logit}) == pytest.approx(probability)


def test_other_rules_are_words():
    assert probability_rule({"loss": {"name": "softmax"}}).startswith("softmax(logits)")
    assert probability_rule({}).startswith("unknown")


def test_a_folder_with_something_in_it_is_not_taken(tmp_path):
    assert new_folder(tmp_path / "a" / "b").is_dir()
    new_folder(tmp_path / "a" / "b")
    for taken in (tmp_path / "a", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(ConvertError, match="already exists"):
            new_folder(taken)


def test_a_folder_is_complete_or_empty(tmp_path):
    path = tmp_path / "exported"
    with pytest.raises(OSError, match="disk"), complete_folder(path) as folder:
        (folder / "half").touch()
        raise OSError("disk")
    assert not list(path.iterdir())
    (tmp_path / "exported.unfinished").mkdir()  # as a killed process leaves it
    (tmp_path / "exported.unfinished/half").touch()
    with complete_folder(path) as folder:
        assert not list(path.iterdir())
        (folder / "all").touch()
    assert [file.name for file in path.iterdir()] == ["all"]
    assert [file.name for file in tmp_path.iterdir()] == ["exported"]
    with pytest.raises(ConvertError, match="already exists"), complete_folder(path):
        pass
