# SPDX-License-Identifier: BSD-3-Clause
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from mlimages_jax import settings
from mlimages_jax.checkpoints import manager
from mlimages_jax.data.class_priors import class_priors
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.distributed import sharding, workdir_lock
from mlimages_jax.evaluation import examples_file
from mlimages_jax.files import text_files
from mlimages_jax.monitoring import training_log
from mlimages_jax.settings import build
from mlimages_jax.step import steps
from mlimages_jax.step.state import TrainState
from mlimages_jax.training import out_of_memory, start, train
from mlimages_jax.training.run import set_up
from tests.support.small_run import ROOT, flags, load_config, small_config
from tfds_builders import shapes

pytestmark = pytest.mark.usefixtures("no_figures")
SHORT = {"evaluation.splits": (), "checkpoint.every": 8}  # for what happens before and in between


@pytest.fixture(scope="module")
def uninterrupted(drawn, no_figures, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, jax.device_get(train.train(small_config(drawn), workdir))


def _assert_equal(ours: TrainState, theirs: TrainState, **tolerance):
    compare = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    jax.tree.map(lambda a, b: compare(a, b, **tolerance), ours, theirs)


def test_a_run_leaves_everything_a_person_looks_for(uninterrupted):
    workdir, state = uninterrupted
    assert state.step == 8
    assert manager.latest_step(workdir / "checkpoints") == 8
    assert json.loads((workdir / "config.json").read_text())["batch_size"] == 16
    assert manager.config_of(workdir)["orientation"] == "exif"  # as the set's
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 8]
    assert rows[0]["training/bad_images_per_step"] == 0
    assert {"training/loss", "training/images_per_second", "training/input_wait"} <= rows[0].keys()
    assert 0 <= rows[-1]["val/mAP"] < 1  # missing labels are negatives
    assert rows[-1]["val/examples"] == 20
    assert Image.open(workdir / "predictions.png").width > 500
    examples = examples_file.read(
        workdir / "examples.json", num_classes=state.params["head"]["bias"].size
    )
    assert len(examples) == 20 and all(one.true and one.predicted for one in examples)
    assert '"devices": "' in (workdir / "goodput.jsonl").read_text()
    table = (workdir / "per_class.tsv").read_text().splitlines()
    assert len(table) == 1 + state.params["head"]["bias"].size
    column = table[0].split("\t").index("train_positives")
    assert sum(int(line.split("\t")[column]) for line in table[1:]) >= 64
    values = json.loads((workdir / "metrics.json").read_text())
    assert values["step"] == 8 and values["mAP_depth_1"] > 0
    assert list((workdir / "events").glob("events*"))


def test_stopping_and_starting_again_changes_no_bit(drawn, uninterrupted, tmp_path):
    for total_steps in (3, 5, 8):
        state = train.train(small_config(drawn, total_steps=total_steps, **SHORT), tmp_path)
    _assert_equal(jax.device_get(state), uninterrupted[1])


@pytest.mark.slow
def test_training_goes_on_with_other_devices_and_another_sharding(
    drawn, uninterrupted, tmp_path, monkeypatch
):
    config = small_config(drawn, **{"sharding.min_size": 64}, **SHORT)
    meshes = {count: sharding.make_mesh(jax.devices()[:count]) for count in (2, 4, 8)}
    for total_steps, devices, mode in ((2, 4, "full"), (5, 2, "optimizer"), (8, 8, "replicated")):
        monkeypatch.setattr(sharding, "make_mesh", lambda devices=devices: meshes[devices])
        changes = {"total_steps": total_steps, "sharding.name": mode}
        state = train.train(settings.replaced(config, changes), tmp_path)
    _assert_equal(jax.device_get(state), uninterrupted[1], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_reading_in_worker_processes_changes_no_bit(drawn, uninterrupted, tmp_path):
    for total_steps, num_workers in ((3, 2), (8, 0)):
        changes = {"total_steps": total_steps, "input.num_workers": num_workers}
        state = train.train(small_config(drawn, **changes, **SHORT), tmp_path)
    _assert_equal(jax.device_get(state), uninterrupted[1])


def test_a_run_does_not_go_on_with_images_of_another_orientation(drawn, tmp_path):
    """Nor does one of an earlier release, whose sets were as stored, with a set of this one."""
    folder = shutil.copytree(drawn, tmp_path / "data")
    metadata = json.loads((folder / "metadata.json").read_text())
    del metadata["orientation"]
    (folder / "metadata.json").write_text(json.dumps(metadata))
    train.train(small_config(folder, total_steps=1, **SHORT), tmp_path / "run")
    assert manager.config_of(tmp_path / "run")["orientation"] == "stored"
    with pytest.raises(build.ConfigError, match="orientation: 'stored' in the checkpoint, 'ex"):
        train.train(small_config(drawn, total_steps=3, **SHORT), tmp_path / "run")


@pytest.mark.parametrize("saved", [{}, {"orientation": "stored"}, {"imported": {}}])
def test_checkpoints_that_say_nothing_were_trained_on_images_as_stored(saved):
    start.check_same_training(saved, {"orientation": "stored"})
    if "imported" in saved:  # another program's: nobody knows
        start.check_same_training(saved, {"orientation": "exif"})
    else:
        with pytest.raises(build.ConfigError, match="orientation"):
            start.check_same_training(saved, {"orientation": "exif"})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "lamb", "lion"])
def test_other_optimizers_resume_in_other_parts_too(drawn, tmp_path, name):
    """Bit for bit; in another number of parts to rounding, which the signs of Lion magnify."""
    changes = {"total_steps": 8, "schedule.one_cycle.total_steps": 8,
               "schedule.one_cycle.warmup_steps": 3}  # fmt: skip
    config = small_config(
        drawn, **{"optimizer.name": name, "optimizer.clip_norm": 1.0, "loss.prior_bias": True,
                  "schedule.name": "one_cycle", "schedule.one_cycle.learning_rate": 1e-3}, **changes
    )  # fmt: skip
    whole = jax.device_get(train.train(config, tmp_path / "whole"))
    for total_steps in (3, 8):
        changes |= {"total_steps": total_steps}
        parts = train.train(settings.replaced(config, changes), tmp_path / "parts")
    _assert_equal(jax.device_get(parts), whole)
    if name == "adamw":
        states = {}
        # Divided in one go, after a restart, and after one that divides no more.
        runs = {"go": [(8, 2)], "same": [(3, 2), (8, 2)], "other": [(3, 2), (8, 1)]}
        for folder, starts in runs.items():
            for total_steps, accumulate in starts:
                changes |= {"total_steps": total_steps, "accumulate": accumulate}
                state = train.train(settings.replaced(config, changes), tmp_path / folder)
            states[folder] = jax.device_get(state)
        _assert_equal(states["same"], states["go"])
        for state in states.values():
            _assert_equal(state, whole, atol=1e-5, rtol=1e-4)


def test_weights_from_frequencies_reach_the_training(drawn, tmp_path, caplog):
    caplog.set_level("INFO")
    changes = {"loss.name": "sigmoid", "loss.positive_weight": "frequency"}
    run = set_up(small_config(drawn, **changes), tmp_path, started=None)
    expected = build.frequency_weights(class_priors(DataSet.open(drawn), "train"), limit=20.0)
    np.testing.assert_array_equal(run.training.loss.keywords["positive_weights"], expected)
    assert expected.max() > 2 * expected.min()
    assert "present labels have the weights absent / present of their classes" in caplog.text


@pytest.mark.slow
def test_a_bias_from_frequencies_starts_at_their_entropy(drawn, tmp_path):
    data = DataSet.open(drawn)
    priors = class_priors(data, "train")
    changes = SHORT | {"loss.name": "sigmoid", "total_steps": 1, "log_every": 1,
                       "schedule.cosine.learning_rate": 0.0}  # fmt: skip
    first = {}
    for prior_bias in (False, True):
        workdir = tmp_path / str(prior_bias)
        config = small_config(drawn, **changes, **{"loss.prior_bias": prior_bias})
        state = jax.device_get(train.train(config, workdir))
        first[prior_bias] = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[0])
    np.testing.assert_allclose(
        state.params["head"]["bias"], np.log(priors / (1 - priors)), rtol=1e-6
    )
    entropy = -(priors * np.log(priors) + (1 - priors) * np.log(1 - priors)).sum()
    assert abs(first[True]["training/loss"] - entropy) < 0.1 * entropy
    assert first[False]["training/loss"] > 0.6 * len(priors)  # about C log 2


def test_a_bias_from_frequencies_by_hand():
    def of(name, **changes):
        section = load_config("quickstart", **{"loss.name": name, **changes}).loss
        return build.prior_logits(section, np.array([0.5, 0.2]))

    np.testing.assert_allclose(of("sigmoid"), [0, math.log(0.25)], atol=1e-6)
    weighted = of("weighted", **{"loss.weighted.positive_weight": 12.0})
    np.testing.assert_allclose(weighted, [math.log(12), math.log(3)], rtol=1e-6)
    np.testing.assert_allclose(of("softmax"), np.log([5 / 7, 2 / 7]), rtol=1e-6)


@pytest.mark.slow
def test_compiling_alone_leaves_the_workdir_to_the_run(drawn, uninterrupted, tmp_path):
    state = train.train(small_config(drawn, compile_only=True, total_steps=8), tmp_path)
    assert int(state.step) == 0
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"goodput.jsonl"}
    # A workdir with checkpoints accepts it too: nothing of the result depends on it.
    assert int(train.train(small_config(drawn, compile_only=True), uninterrupted[0]).step) == 8


@pytest.mark.slow
@pytest.mark.usefixtures("children_compile_quickly")
def test_the_next_start_finds_what_was_compiled_alone(drawn, tmp_path):
    only = _command(tmp_path, drawn, **{"compile_only": True})
    environment = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    subprocess.run(only, cwd=ROOT, env=environment, check=True)
    programs = set((tmp_path / "compilation_cache").iterdir())
    assert any("train_step" in path.name for path in programs)
    assert not list((tmp_path / "checkpoints").iterdir())
    again = _command(tmp_path, drawn, **{"total_steps": 2})
    subprocess.run(again, cwd=ROOT, env=environment, check=True)
    new = set((tmp_path / "compilation_cache").iterdir()) - programs
    assert not any("train_step" in path.name for path in new)


def test_what_the_data_set_says_of_missing_labels_reaches_training(drawn, tmp_path):
    """The drawn images list present classes only: without the others there is no negative."""
    folder = shutil.copytree(drawn, tmp_path / "data")
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | {"unlisted": -1}))
    changes = {"loss.name": "sigmoid", "total_steps": 2, "checkpoint.every": 2}
    state = train.train(small_config(folder, **changes), tmp_path / "workdir")
    bias = jax.device_get(state.params["head"]["bias"])
    assert (bias >= 0).all()  # nothing has ever pulled a class down
    assert bias.any()
    rows = (tmp_path / "workdir" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["val/mAP"] == 1


def test_a_finished_run_is_left_alone(drawn, uninterrupted):
    workdir, before = uninterrupted
    _assert_equal(jax.device_get(train.train(small_config(drawn, **SHORT), workdir)), before)


def test_another_process_never_reads_half_of_the_kept_files(drawn, tmp_path):
    """All processes compare the classes in a workdir, while process 0 writes them again."""
    data = DataSet.open(drawn)
    start.keep_in_workdir(epath.Path(tmp_path), {"batch_size": 16}, data)
    for name in ("dictionary.txt", "config.json"):
        with (tmp_path / name).open() as reader:  # begins before, ends after
            start.keep_in_workdir(epath.Path(tmp_path), {"batch_size": 16}, data)
            written_over = os.fstat(reader.fileno()).st_ino == (tmp_path / name).stat().st_ino
        assert not written_over, name


def test_kept_classes_that_are_no_text_are_named(drawn, tmp_path):
    (tmp_path / "dictionary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(text_files.TextFileError, match=r"dictionary\.txt"):
        start.keep_in_workdir(epath.Path(tmp_path), {"batch_size": 16}, DataSet.open(drawn))


def test_init_from_takes_parameters_and_nothing_else(drawn, uninterrupted, tmp_path):
    workdir, before = uninterrupted
    config = small_config(drawn, init_from=str(workdir), total_steps=0, **SHORT)
    state = jax.device_get(train.train(config, tmp_path))
    _assert_equal(state.params, before.params)
    _assert_equal(state.batch_stats, before.batch_stats)
    assert state.step == 0
    assert not state.class_counts.positive.any()
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.opt_state))


def test_a_changed_configuration_is_refused_by_name(drawn, uninterrupted):
    workdir, _ = uninterrupted
    config = small_config(drawn, seed=1, **{"loss.weighted.positive_weight": 3.0})
    with pytest.raises(build.ConfigError) as error:
        train.train(config, workdir)
    assert "seed: 0 in the checkpoint, 1 now" in str(error.value)
    assert "loss.weighted.positive_weight: 4.0 in the checkpoint, 3.0 now" in str(error.value)


@pytest.mark.slow
def test_another_data_set_is_refused_by_name_unless_one_insists(drawn, uninterrupted, tmp_path):
    workdir = shutil.copytree(uninterrupted[0], tmp_path / "workdir")
    other = shapes.build(tmp_path / "other", num_train=64, num_val=20, size=48, seed=7)
    with pytest.raises(build.ConfigError) as error:
        train.train(small_config(other), workdir)
    assert f"the data set in {other} is not the one" in str(error.value)
    assert "train, val differ" in str(error.value)
    assert str(drawn) in str(error.value)
    changes = {"total_steps": 9, **SHORT}
    state = train.train(small_config(other, **changes, **{"data.allow_change": True}), workdir)
    assert state.step == 9
    train.train(small_config(other, **changes), workdir)  # from here on it is the run's own


def test_the_same_set_in_another_folder_is_the_same(drawn, uninterrupted, tmp_path):
    workdir, before = uninterrupted
    moved = shutil.copytree(drawn, tmp_path / "moved" / "1.0.0")
    _assert_equal(jax.device_get(train.train(small_config(moved, **SHORT), workdir)), before)


def test_a_checkpoint_that_does_not_say_its_set_is_accepted(caplog):
    start.check_same_set({"seed": 0}, {"data_set": {"train": "1"}, "data": {}})


def test_a_home_folder_is_one_place(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train.train(small_config(drawn, total_steps=1, log_every=1, **SHORT), "~/w/")
    assert manager.latest_step(tmp_path / "w" / "checkpoints") == 1
    assert (tmp_path / "w" / "metrics.jsonl").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.slow
def test_two_trainings_do_not_share_a_workdir(drawn, tmp_path):
    begin = "from mlimages_jax.distributed import workdir_lock\nimport sys\n"
    begin += "with workdir_lock.held(sys.argv[1], task='train'):\n  print(1, flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", begin, tmp_path], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout.readline()
    with pytest.raises(workdir_lock.WorkdirInUseError, match=f"in use by process {other.pid}"):
        train.train(small_config(drawn), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
    other.communicate(b"\n")
    assert train.train(small_config(drawn, total_steps=1, **SHORT), tmp_path).step == 1


def test_no_memory_left_names_the_batch_and_what_helps(drawn, tmp_path, monkeypatch):
    def full(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    monkeypatch.setattr(train, "compile_step", full)
    with pytest.raises(out_of_memory.OutOfMemoryError) as error:
        train.train(small_config(drawn), tmp_path)
    for part in (
        "Out of memory allocating 1 bytes", "batch_size=16 is 2 images per device at 32 px",
        "unchanged: 0.00 GB per device", "half the batch:", "--config.model.remat=True:",
        "--config.sharding.name=full:",
    ):  # fmt: skip
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 12}, "batch_size=12 is not divisible by 8 devices"),
        ({"group_size": 3}, "batch_size=16 is not divisible by group_size=3"),
        (
            {"loss.weighted.group_size": 5},
            "batch_size=16 is not divisible by loss.weighted.group_size=5",
        ),
        ({"loss.name": "hinge"}, "loss.name='hinge' is none of"),
        ({"schedule.name": "linera"}, "schedule.name='linera' is none of"),
        ({"model.dtype": "float16"}, "dtype='float16' is none of"),
        ({"evaluation.views": ("zoom",)}, "evaluation.views=.* has 'zoom'"),
    ],
)
def test_a_configuration_that_cannot_run_is_refused(drawn, tmp_path, changes, message):
    with pytest.raises(build.ConfigError, match=message):
        train.train(small_config(drawn, **changes), tmp_path)


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_and_names_the_last_checkpoint(drawn, tmp_path, monkeypatch):
    original = steps.train_step

    def breaks(state, batch, **kwargs):
        state, metrics = original(state, batch, **kwargs)
        broken = jax.numpy.where(state.step > 5, jax.numpy.nan, 1.0)
        return state, {**metrics, "loss": metrics["loss"] * broken}

    monkeypatch.setattr(steps, "train_step", breaks)
    with pytest.raises(training_log.NonFiniteError, match=r"loss nan.*checkpoints/4"):
        train.train(small_config(drawn, **{"checkpoint.every": 4}), tmp_path)
    assert manager.latest_step(tmp_path / "checkpoints") == 4


def _command(workdir, folder, **changes):
    return [
        sys.executable, "-m", "mlimages_jax.main", "--config=configs/quickstart.py",
        f"--workdir={workdir}", *flags(folder, **changes),
    ]  # fmt: skip


def test_missing_data_is_explained_in_seconds(tmp_path):
    command = [
        sys.executable, "-m", "mlimages_jax.main", "--config=configs/pretrain.py",
        f"--workdir={tmp_path}", "--config.data.folder=nowhere/ml_images/released_320/1.0.0",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    for part in (
        "train_image_list.txt",
        "images/",
        "mlimages data build ml-images",
        "--data-dir=data",
    ):
        assert part in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("children_compile_quickly")
def test_killed_at_any_moment_the_run_ends_with_the_same_bits(drawn, tmp_path):
    """SIGKILL while saving, then at four random moments after a logged step; each restarted.

    The images grow on the way.
    """
    moments = random.Random(0)
    changes = {"total_steps": 60, "checkpoint.every": 6, "schedule.cosine.total_steps": 60}
    changes["resize"] = ((27, 40, 16),)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(_command(whole, drawn, **changes), cwd=ROOT, check=True, stdout=subprocess.PIPE)

    def start():
        return subprocess.Popen(
            _command(killed, drawn, **changes),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def saving() -> bool:
        return any((killed / "checkpoints").glob("*orbax-checkpoint-tmp*"))

    def logged() -> int:
        path = killed / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    kills = 0
    for attempt in range(5):
        process = start()
        before, wait = logged(), moments.uniform(0.0, 0.5)
        while process.poll() is None:
            if saving() if attempt == 0 else logged() > before:
                time.sleep(0 if attempt == 0 else wait)
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    subprocess.run(_command(killed, drawn, **changes), cwd=ROOT, check=True, stdout=subprocess.PIPE)
    assert kills >= 4, "the run was over before it could be killed"

    ours, theirs = (manager.load(workdir) for workdir in (killed, whole))
    assert ours["step"] == 60
    _assert_equal(ours, theirs)


@pytest.mark.parametrize(("name", "variant"), [("pretrain", "released"), ("pretrain", "paper")])
def test_published_configurations_are_the_published_numbers(name, variant):
    config = load_config(name, variant)
    assert config.total_steps == 257_955
    assert config.batch_size // config.group_size == 128
    model = build.model(config, num_classes=11_166)
    assert model.stage_sizes == (3, 4, 23, 3)
    schedule = build.schedule(config)
    rates = [float(schedule(step)) for step in (0, 4_400, 35_200, 110_001)]
    np.testing.assert_allclose(rates, [0.01, 0.01297, 0.08, 0.008], rtol=1e-5)
    loss, groups = build.loss(config)
    assert groups == 128
    assert loss.keywords["variant"] == variant


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="is none of the variants released, paper"):
        load_config("pretrain", "fast")
