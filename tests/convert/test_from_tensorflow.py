# SPDX-License-Identifier: BSD-3-Clause
"""From the original's checkpoints and back, and what both networks compute."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlimages_jax
from mlimages_jax.checkpoints import manager
from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.from_tensorflow import from_tensorflow
from mlimages_jax.convert.tensorflow_checkpoint import TensorFlowCheckpoint, write_checkpoint
from mlimages_jax.convert.to_tensorflow import to_tensorflow
from mlimages_jax.distributed import sharding
from mlimages_jax.models.architecture import network_of
from mlimages_jax.settings import build, restart
from mlimages_jax.step import optimizers
from mlimages_jax.step.state import TrainState, abstract_state
from mlimages_jax.training import train
from tests.support import original_checkpoint, reference
from tests.support.small_run import small_config
from tfds_builders import shapes

FILES = (".index", ".data-00000-of-00001")
FIX_BLOCK = ("stages_1", "global_pool", "logits")


def _imported(folder: Path, variables: dict[str, np.ndarray], **options) -> Path:
    write_checkpoint(folder / "tf" / "model.ckpt", variables)
    from_tensorflow(checkpoint=folder / "tf", output=folder / "w", **options)
    return folder / "w"


def _assert_holds(tree, variables: dict[str, np.ndarray]) -> None:
    for name in original_checkpoint.network():
        ours = reference.look_up(tree, reference.our_path(name))
        np.testing.assert_array_equal(ours, variables[name], err_msg=name)


def _assert_same_files(ours: Path, theirs: Path) -> None:
    for end in FILES:
        assert Path(f"{ours}{end}").read_bytes() == Path(f"{theirs}{end}").read_bytes(), end


def test_the_network_arrives_bit_for_bit(tmp_path, capsys):
    variables = original_checkpoint.values(original_checkpoint.network())
    workdir = _imported(tmp_path, variables)
    tree = manager.load(workdir)
    _assert_holds(tree, variables)
    assert (tree["step"], tree["opt_state"], tree["class_counts"]) == (0, None, None)
    assert manager.config_of(workdir) == {
        "loss": {"name": "softmax"},
        "image_size": 224,
        "imported": {"format": "tensorflow", "file": str(tmp_path / "tf" / "model.ckpt")},
    }
    said = capsys.readouterr().out
    assert "(1, 2) blocks in its stages, 5 classes" in said
    assert "loss: softmax, because its classes are not those of ML-Images" in said
    assert f"--config.init_from={workdir}" in said


def test_the_classes_are_kept_beside_the_network(tmp_path):
    variables = original_checkpoint.values(original_checkpoint.network())
    classes = tmp_path / "classes.txt"
    classes.write_text("".join(f"{i}\tname\t{'abcde'[i]}\n" for i in range(5)))
    workdir = _imported(tmp_path, variables, dictionary=classes)
    assert mlimages_jax.load(workdir).hierarchy.names[2] == "name c"
    classes.write_text("0\tname\n")
    with pytest.raises(ConvertError, match="names 1 classes but the checkpoint has 5"):
        from_tensorflow(checkpoint=tmp_path / "tf", output=tmp_path / "v", dictionary=classes)
    assert not (tmp_path / "v").exists()


@pytest.mark.slow
def test_all_of_a_training_arrives_and_goes_back(tmp_path):
    variables = original_checkpoint.of_train_py()
    workdir = _imported(tmp_path, variables, training_state=True, count_groups=3, image_size=64)
    assert manager.resolve(workdir) == workdir / "checkpoints" / "7"
    tree = manager.load(workdir)
    _assert_holds(tree, variables)
    assert tree["step"] == 7
    assert tree["step"].dtype == jnp.int32
    for ours, theirs in (("positive", "Variable"), ("negative", "Variable_1")):
        np.testing.assert_array_equal(tree["class_counts"][ours], [variables[theirs]] * 3)
    velocities = tree["opt_state"][1]["trace"]
    for name in original_checkpoint.slots():
        path = reference.our_path(name.removesuffix("/Momentum"))[1:]
        np.testing.assert_array_equal(reference.look_up(velocities, path), variables[name])
    config = manager.config_of(workdir)
    assert config["loss"] == {"name": "weighted", "weighted": {"positive_weight": 12.0}}
    assert config["image_size"] == 64

    to_tensorflow(checkpoint=workdir, output=tmp_path / "back" / "m", training_state=True)
    _assert_same_files(tmp_path / "back" / "m", tmp_path / "tf" / "model.ckpt")
    to_tensorflow(checkpoint=workdir, output=tmp_path / "bare" / "m")
    found = TensorFlowCheckpoint(tmp_path / "bare").entries.keys()
    assert found == original_checkpoint.network().keys()


@pytest.mark.slow
def test_the_state_fits_the_optimizer(tmp_path):
    """Restored by the structure that a run of ours would have, whole and with frozen parts."""
    workdir = _imported(tmp_path, original_checkpoint.of_train_py(), training_state=True)
    params = _params(workdir)
    optimizer = _sgd(params, None)
    state = _restored(workdir, optimizer, count_groups=128)
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(optimizer.init(params))
    assert np.abs(state.opt_state[1].trace["head"]["bias"]).sum() > 0


@pytest.mark.slow
def test_frozen_variables_have_no_velocity(tmp_path):
    variables = original_checkpoint.of_finetune_py(trained=FIX_BLOCK)
    workdir = _imported(tmp_path, variables, training_state=True)
    ours = ("stage1", "final_norm", "head")
    trained = jax.tree_util.tree_map_with_path(
        lambda path, _: float(path[0].key.startswith(ours)), _params(workdir)
    )
    optimizer = _sgd(_params(workdir), trained)
    state = _restored(workdir, optimizer, count_groups=None)
    structure = jax.tree.structure(optimizer.init(_params(workdir)))
    assert jax.tree.structure(state.opt_state) == structure
    velocities = state.opt_state[1].inner_state.trace
    assert len(jax.tree.leaves(velocities)) == len(original_checkpoint.slots(trained=FIX_BLOCK))
    np.testing.assert_array_equal(
        velocities["head"]["bias"], variables["logits/dense/bias/Momentum"]
    )
    assert state.class_counts is None
    assert manager.config_of(workdir)["loss"] == {"name": "softmax"}
    to_tensorflow(checkpoint=workdir, output=tmp_path / "back" / "m", training_state=True)
    _assert_same_files(tmp_path / "back" / "m", tmp_path / "tf" / "model.ckpt")


def _sgd(params, factors):
    decay = optimizers.decay_factors(params, weight_decay=1e-4)
    return optimizers.sgd_momentum(momentum=0.9, decay=decay, factors=factors)


def _params(workdir: Path):
    return manager.load(workdir)["params"]


def _restored(workdir: Path, optimizer, *, count_groups):
    abstract = abstract_state(
        network_of(_params(workdir)),
        optimizer,
        image_size=16,
        count_groups=count_groups,
        mesh=sharding.make_mesh(jax.devices()[:1]),
    )
    with manager.Checkpoints(workdir / "checkpoints") as saved:
        return saved.restore(abstract)


@pytest.mark.parametrize(
    ("classes", "extra", "choice", "loss", "reason"),
    [
        (5, {}, "auto", "softmax", "not those of ML-Images"),
        (11_166, {}, "auto", "weighted", "as many classes as ML-Images"),
        (11_166, {"global_step": ()}, "auto", "weighted", "as many classes as ML-Images"),
        (5, {"global_step": ()}, "auto", "softmax", "not those of ML-Images"),
        (5, {"Variable": (5,), "Variable_1": (5,)}, "auto", "weighted", "class counts of train.py"),
        (5, {"Variable": (5,), "Variable_1": (5,)}, "softmax", "softmax", "--loss says so"),
        (5, {}, "weighted", "weighted", "--loss says so"),
    ],
)
def test_the_loss_is_told_by_what_the_file_holds(
    tmp_path, capsys, classes, extra, choice, loss, reason
):
    variables = original_checkpoint.values({**original_checkpoint.network(classes), **extra})
    workdir = _imported(tmp_path, variables, loss=choice)
    assert f"loss: {loss}, because " in (said := capsys.readouterr().out)
    assert reason in said
    assert manager.config_of(workdir)["loss"]["name"] == loss


def test_what_does_not_fit_is_listed_by_its_name_in_the_file(tmp_path):
    variables = original_checkpoint.of_train_py()
    del variables["stages_1_block_1/conv2_b2/conv2d/kernel"], variables["Variable_1"]
    variables["stages_0_block_0/conv1_b1_bn/batch_normalization/gamma"] = np.zeros(3, np.float32)
    variables["logits/dense/bias/Momentum"] = np.zeros(6, np.float32)
    variables["global_step"] = np.zeros((), np.float32)
    variables["beta1_power"] = variables["stem/ema"] = np.zeros(1, np.float32)
    variables["global_pool/bn/batch_normalization/moving_mean/Momentum"] = np.zeros(16, np.float32)
    with pytest.raises(ConvertError) as error:
        _imported(tmp_path, variables)
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        "Variable_1: missing",
        "beta1_power: not part of the network",
        "global_pool/bn/batch_normalization/moving_mean/Momentum: not part of the network",
        "global_step: float32[] instead of int64[]",
        "logits/dense/bias/Momentum: float32[6] instead of float32[5]",
        "stages_0_block_0/conv1_b1_bn/batch_normalization/gamma: float32[3] instead of float32[4]",
        "stages_1_block_1/conv2_b2/conv2d/kernel: missing",
        "stem/ema: not part of the network",
    ]
    assert not (tmp_path / "w").exists()


def test_other_variables_are_left_out_on_demand(tmp_path, capsys):
    network = original_checkpoint.values(original_checkpoint.network())
    workdir = _imported(
        tmp_path, {**network, "beta1_power": np.zeros(1, np.float32)}, ignore_extra=True
    )
    _assert_holds(manager.load(workdir), network)
    assert "skipped: beta1_power" in capsys.readouterr().out


def test_a_training_before_its_first_step_goes_on_too(tmp_path):
    start = {"global_step": np.array(0, np.int64)}
    workdir = _imported(tmp_path, original_checkpoint.of_train_py() | start, training_state=True)
    assert manager.load(workdir)["step"] == 0


@pytest.mark.slow
def test_velocities_go_with_the_weights_that_were_trained_and_counts_with_the_first_group(
    tmp_path,
):
    variables = original_checkpoint.of_train_py()
    tree = manager.load(_imported(tmp_path, variables, training_state=True, count_groups=3))
    weights = {name: tree[name] for name in ("params", "batch_stats")}
    tree.pop("averages", None)
    state = TrainState(**tree, ema=jax.tree.map(jnp.zeros_like, weights))
    first = jnp.array([[0.0], [1], [2]])  # added to the counts of each group
    state = state.replace(class_counts=jax.tree.map(lambda x: x + first, state.class_counts))
    with manager.Checkpoints(tmp_path / "averaged") as saved:
        saved.save(state, step=7, config={})
    to_tensorflow(checkpoint=tmp_path / "averaged", output=tmp_path / "m", training_state=True)
    _assert_same_files(tmp_path / "m", tmp_path / "tf" / "model.ckpt")
    to_tensorflow(checkpoint=tmp_path / "averaged", output=tmp_path / "bare" / "m")
    assert not TensorFlowCheckpoint(tmp_path / "bare").read("logits/dense/bias").any()


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("global_step", "has no global_step"),
        ("Momentum", "has no velocities"),
        ("Variable", "has no class counts"),
    ],
)
def test_a_training_that_cannot_go_on_is_refused(tmp_path, without, message):
    everything = original_checkpoint.of_train_py()
    variables = {name: array for name, array in everything.items() if without not in name}
    with pytest.raises(ConvertError, match=f"{message}, which .*omit --training-state"):
        _imported(tmp_path, variables, training_state=True, loss="weighted")


def test_other_networks_and_earlier_results_are_refused(tmp_path):
    with pytest.raises(ConvertError, match=r"no block of a residual network; it contains conv/w, "):
        _imported(tmp_path / "other", {"conv/w": np.zeros(1, np.float32)})
    network = original_checkpoint.values(original_checkpoint.network())
    workdir = _imported(tmp_path, network)
    with pytest.raises(ConvertError, match="checkpoints/0 already exists"):
        from_tensorflow(checkpoint=tmp_path / "tf", output=workdir)
    with pytest.raises(ConvertError, match="has no velocities of SGD"):
        to_tensorflow(checkpoint=workdir, output=tmp_path / "m", training_state=True)


def test_only_what_is_known_of_an_imported_checkpoint_is_compared(tmp_path):
    workdir = _imported(tmp_path, original_checkpoint.of_train_py(), image_size=32)
    known = manager.config_of(workdir)
    fitting = {"loss.weighted.positive_weight": 12.0, "batch_size": 64}
    restart.check_unchanged(known, restart.values(small_config(tmp_path, **fitting)))
    for name, value in (("loss.name", "sigmoid"), ("image_size", 48)):
        other = small_config(tmp_path, **(fitting | {name: value}))
        with pytest.raises(build.ConfigError, match=f"{name}: .*{value}"):
            restart.check_unchanged(known, restart.values(other))


@pytest.mark.slow
def test_a_run_goes_on_through_the_originals_format_as_if_it_had_not_stopped(tmp_path):
    """Four steps, out and in again, four more; with the class counts of one group."""
    data = shapes.build(tmp_path / "data", num_train=64, num_val=20, size=48)
    changes = {"loss.weighted.group_size": 16, "loss.weighted.positive_weight": 12.0}
    whole = train.train(small_config(data, **changes), tmp_path / "whole")
    train.train(small_config(data, **changes, total_steps=4), tmp_path / "half")
    prefix = tmp_path / "tf" / "model.ckpt-4"
    to_tensorflow(checkpoint=tmp_path / "half", output=prefix, training_state=True)
    options = {"training_state": True, "count_groups": 1, "image_size": 32}
    from_tensorflow(checkpoint=prefix, output=tmp_path / "again", **options)
    state = train.train(small_config(data, **changes), tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(whole))


def _forward(workdir: Path, images: np.ndarray):
    tree = manager.load(workdir)
    variables = {name: tree[name] for name in ("params", "batch_stats")}
    return jax.jit(network_of(tree["params"]).apply)(variables, images)


CASES = [
    "resnet50_c1000_64_seed0", "resnet50_c11166_64_seed0", "resnet101_c1000_64_seed0",
    "resnet101_c11166_224_seed0",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["here", "tensorflow"])
@pytest.mark.parametrize("name", CASES)
def test_the_imported_network_computes_what_the_original_computes(
    golden_dir, tmp_path, capsys, name, writer
):
    numbers = np.load(golden_dir / f"forward_{name}.npz")
    size, classes = int(numbers["resnet_size"]), int(numbers["class_num"])
    prefix = tmp_path / "released" / "resnet.ckpt"
    if writer == "tensorflow":
        pytest.importorskip("tensorflow")
        script = [sys.executable, golden_dir / "make_tf_checkpoint.py", prefix]
        sizes = ["--resnet_size", str(size), "--class_num", str(classes)]
        subprocess.run([*script, *sizes], check=True, stdout=subprocess.PIPE)
    else:
        value = reference.detweights(golden_dir).det_value
        names = reference.variable_names(golden_dir, size, classes)
        write_checkpoint(prefix, {name: value(name, shape) for name, shape in names})
    from_tensorflow(checkpoint=prefix, output=tmp_path / "w")
    shape = (int(numbers[key]) for key in ("seed", "n", "height", "width"))
    logits, features = _forward(tmp_path / "w", reference.input_images(*shape))
    shown = numbers["logits"]
    np.testing.assert_allclose(features, numbers["feat"], atol=1e-4)
    np.testing.assert_allclose(logits[:, : shown.shape[1]], shown, atol=3e-5)
    np.testing.assert_array_equal(logits.argmax(1), numbers["logits_argmax"])
    assert f"ResNet-{size}, {classes:,} classes" in capsys.readouterr().out
    is_weighted = manager.config_of(tmp_path / "w")["loss"]["name"] == "weighted"
    assert is_weighted == (classes == 11_166)
