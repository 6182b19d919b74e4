# SPDX-License-Identifier: BSD-3-Clause
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.checkpoints import compatibility, manager
from mlimages_jax.distributed import sharding
from mlimages_jax.step import losses
from mlimages_jax.step.state import TrainState
from tests.support import bucket

ROOT = Path(__file__).resolve().parents[2]


def _state(value: int, classes: int = 8, *, averaged: bool = False) -> TrainState:
    params = {
        "stem": {"kernel": jnp.full(5, float(value))},
        "head": {"kernel": jnp.full((4, classes), float(value)), "bias": jnp.zeros(classes)},
    }
    return TrainState(
        step=jnp.int32(value),
        params=params,
        batch_stats={"norm": {"mean": jnp.full(3, float(value))}},
        opt_state=jax.tree.map(jnp.zeros_like, params),
        class_counts=losses.initial_counts(2, classes),
        ema={
            "params": jax.tree.map(lambda leaf: leaf + 100, params),
            "batch_stats": {"norm": {"mean": jnp.full(3, value + 100.0)}},
        }
        if averaged
        else None,
    )


def _abstract(state: TrainState, place=None) -> TrainState:
    place = place or sharding.replicated(sharding.make_mesh())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)


def _saved(folder, steps, **kwargs):
    with manager.Checkpoints(folder, **kwargs) as saved:
        for step in steps:
            saved.save(_state(step), step=step, config={"seed": step})


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    _saved(tmp_path / "c", [1, 2])
    with manager.Checkpoints(tmp_path / "c") as saved:
        assert saved.steps == [1, 2]
        assert saved.config_of(2) == {"seed": 2}
        latest, first = (
            saved.restore(_abstract(_state(0))),
            saved.restore(_abstract(_state(0)), step=1),
        )
    for step, restored in ((2, latest), (1, first)):
        assert jax.tree.structure(restored) == jax.tree.structure(_state(step))
        jax.tree.map(np.testing.assert_array_equal, restored, _state(step))


def test_latest_and_every_mth_are_kept(tmp_path):
    _saved(tmp_path / "c", range(1, 8), keep_latest=2, keep_every=3)
    with manager.Checkpoints(tmp_path / "c") as saved:
        assert saved.steps == [3, 6, 7]
    assert manager.latest_step(tmp_path / "c") == 7


def test_a_checkpoint_restores_onto_another_mesh(tmp_path):
    _saved(tmp_path / "c", [1])
    place = sharding.by_example(sharding.make_mesh(jax.devices()[:4]))
    abstract = _abstract(_state(0))
    kernel = jax.ShapeDtypeStruct((4, 8), jnp.float32, sharding=place)
    head = {**abstract.params["head"], "kernel": kernel}
    abstract = abstract.replace(params={**abstract.params, "head": head})
    with manager.Checkpoints(tmp_path / "c") as saved:
        restored = saved.restore(abstract)
    assert restored.params["head"]["kernel"].sharding == place
    np.testing.assert_array_equal(restored.params["head"]["kernel"], np.ones((4, 8)))


def test_another_shape_or_name_is_listed_and_nothing_is_restored(tmp_path):
    _saved(tmp_path / "c", [1])
    other = _state(0, classes=9)
    other = other.replace(params={**other.params, "extra": jnp.zeros(2)}, batch_stats={})
    with manager.Checkpoints(tmp_path / "c") as saved:
        with pytest.raises(compatibility.CheckpointMismatchError) as error:
            saved.restore(_abstract(other))
        with pytest.raises(FileNotFoundError, match=r"has no step 5; it has \[1\]"):
            saved.restore(_abstract(_state(0)), step=5)
    message = str(error.value)
    assert "params/head/kernel: checkpoint float32[4, 8], configuration float32[4, 9]" in message
    assert "params/extra: not in the checkpoint" in message
    assert "batch_stats/norm/mean: only in the checkpoint" in message


@pytest.mark.parametrize("tail", ["", "checkpoints", "checkpoints/2"])
def test_weights_come_from_a_workdir_a_folder_or_a_step(tmp_path, tail):
    _saved(tmp_path / "checkpoints", [1, 2])
    weights = manager.restore_weights(tmp_path / tail, _abstract(_state(0)))
    np.testing.assert_array_equal(weights["params"]["head"]["kernel"], np.full((4, 8), 2.0))
    np.testing.assert_array_equal(weights["batch_stats"]["norm"]["mean"], np.full(3, 2.0))


def test_averaged_weights_are_preferred(tmp_path):
    with manager.Checkpoints(tmp_path / "checkpoints") as saved:
        saved.save(_state(3, averaged=True), step=3, config={})
    place = sharding.replicated(sharding.make_mesh())
    abstract = _abstract(_state(0, averaged=True))
    for weights in (
        manager.restore_weights(tmp_path, abstract),
        manager.restore_weights(tmp_path, _abstract(_state(0))),
        manager.load_weights(tmp_path, place),
    ):
        np.testing.assert_array_equal(weights["params"]["head"]["kernel"], np.full((4, 8), 103.0))
        np.testing.assert_array_equal(weights["batch_stats"]["norm"]["mean"], np.full(3, 103.0))
    with pytest.warns(DeprecationWarning, match=r"averaged=\.\.\.\) is now ema="):
        raw = manager.load_weights(tmp_path, place, averaged=False)
    jax.tree.map(
        np.testing.assert_array_equal, raw, manager.load_weights(tmp_path, place, ema=False)
    )
    np.testing.assert_array_equal(raw["params"]["head"]["kernel"], np.full((4, 8), 3.0))
    with manager.Checkpoints(tmp_path / "checkpoints") as saved:
        restored = saved.restore(abstract)
    jax.tree.map(np.testing.assert_array_equal, restored, _state(3, averaged=True))


def test_a_head_for_other_classes_is_left_out(tmp_path):
    _saved(tmp_path / "checkpoints", [1])
    weights = manager.restore_weights(tmp_path, _abstract(_state(0, classes=9)))
    assert list(weights["params"]) == ["stem"]
    np.testing.assert_array_equal(weights["batch_stats"]["norm"]["mean"], np.ones(3))


def test_weights_of_another_network_are_refused(tmp_path):
    _saved(tmp_path / "checkpoints", [1])
    other = _abstract(_state(0, classes=9)).replace(
        batch_stats={"norm": {"mean": jax.ShapeDtypeStruct((5,), jnp.float32)}}
    )
    with pytest.raises(
        compatibility.CheckpointMismatchError,
        match=r"batch_stats/norm/mean: checkpoint float32\[3\], configuration float32\[5\]",
    ):
        manager.restore_weights(tmp_path, other)
    with pytest.raises(FileNotFoundError, match="contains no checkpoint"):
        manager.restore_weights(tmp_path / "nothing", _abstract(_state(0)))


def test_another_depth_is_named_in_three_lines(tmp_path):
    def deep(blocks):
        block = {f"conv{i}": {"kernel": jnp.ones(2)} for i in range(30)}
        tree = {f"stage0_block{i}": block for i in range(blocks)}
        return _state(0).replace(params=tree, opt_state=None)

    with manager.Checkpoints(tmp_path / "checkpoints") as saved:
        saved.save(deep(2), step=1, config={})
    with pytest.raises(compatibility.CheckpointMismatchError) as error:
        manager.restore_weights(tmp_path, _abstract(deep(4)))
    message = str(error.value)
    assert "its stages have (2,) blocks, the configuration's model.stage_sizes are (4,)" in message
    assert "params/stage0_block2/conv0/kernel: not in the checkpoint" in message
    assert "; 60 are missing; such as" in message.replace("arrays 60", "arrays; 60")
    assert len(message.splitlines()) == 3 and "--config.model=init_from" in message


def test_every_step_is_found_oldest_first(tmp_path):
    assert manager.find(tmp_path / "nothing") == []
    _saved(tmp_path / "checkpoints", [2, 10, 9], keep_latest=5)
    found = manager.find(tmp_path)
    assert [int(folder.name) for folder in found] == [2, 9, 10]
    assert manager.find(tmp_path / "checkpoints" / "9") == [found[1]]
    assert manager.config_of(found[1]) == {"seed": 9}


def test_a_workdir_may_have_a_number_as_its_name(tmp_path):
    _saved(tmp_path / "224" / "checkpoints", [1, 3])
    assert manager.resolve(tmp_path / "224") == tmp_path / "224" / "checkpoints" / "3"
    assert manager.load(tmp_path / "224")["step"] == 3


def test_the_classes_of_a_run_lie_in_its_workdir(tmp_path):
    _saved(tmp_path / "checkpoints", [1])
    assert manager.classes_of(tmp_path) is None
    (tmp_path / "dictionary.txt").write_text("classes")
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "1"):
        assert manager.classes_of(path).read_text() == "classes"


def test_leftovers_of_a_killed_save_are_removed(tmp_path):
    _saved(tmp_path / "c", [1])
    left = tmp_path / "c" / "2.orbax-checkpoint-tmp-123"
    left.mkdir()
    (left / "half").write_text("x")
    with manager.Checkpoints(tmp_path / "c") as saved:
        assert saved.steps == [1]
    assert manager.latest_step(tmp_path / "c") == 1


def test_a_save_in_a_bucket_counts_from_its_mark_on(tmp_path):
    """There it has its name from the beginning; a killed one stays until the next start."""
    _saved(tmp_path / "run/checkpoints", [1, 2])
    mark = tmp_path / "run/checkpoints/2/commit_success.txt"
    mark.unlink()
    with bucket.in_folder(tmp_path) as place:
        assert [found.name for found in manager.find(place / "run")] == ["1"]
        mark.touch()
        assert [found.name for found in manager.find(place / "run")] == ["1", "2"]


def test_a_checkpoint_loads_without_knowing_the_run(tmp_path):
    _saved(tmp_path / "checkpoints", [3])
    tree = manager.load(tmp_path)
    assert tree["step"] == 3
    np.testing.assert_array_equal(tree["params"]["head"]["kernel"], np.full((4, 8), 3.0))


def test_a_relative_path_is_one_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _saved("run/checkpoints", [1, 2])
    assert manager.load("run")["step"] == 2
    with manager.Checkpoints("run/checkpoints") as saved:
        assert saved.restore(_abstract(_state(0))).step == 2


SOAK = """
import sys, threading
from pathlib import Path
import jax.numpy as jnp
from mlimages_jax.checkpoints import manager
from tests.checkpoints.test_manager import _state

def look():
    status = Path("/proc/self/status").read_text()
    megabytes = int(status.partition("VmRSS:")[2].split()[0]) // 1024
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), megabytes

state, seen = _state(1), []
with manager.Checkpoints(sys.argv[1], keep_latest=2) as saved:
    for step in range(int(sys.argv[2])):
        saved.save(state, step=step, config={})
        seen.append(look())
settled, rest = seen[len(seen) // 5], seen[len(seen) // 5 + 1 :]
print("settled at", settled, "then", [max(column) for column in zip(*rest)])
assert max(fds for fds, _, _ in rest) <= settled[0] + 12, rest
assert max(threads for _, threads, _ in rest) <= settled[1] + 10, rest
assert max(megabytes for _, _, megabytes in rest) <= settled[2] + 40, rest
"""


def _in_process(code, *arguments, timeout=600):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    begin = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    return done, time.monotonic() - begin


@pytest.mark.slow
def test_saves_leave_no_descriptor_thread_or_memory_behind(tmp_path):
    done, _ = _in_process(SOAK, tmp_path / "c", 300)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


FAILING = """
import resource, shutil, sys
from pathlib import Path
from mlimages_jax.checkpoints import manager
from tests.checkpoints.test_manager import _state

folder = Path(sys.argv[1])
try:
    with manager.Checkpoints(folder) as saved:
        saved.save(_state(1), step=1, config={})
        saved._wait()
        if sys.argv[2] == "no folder":
            shutil.rmtree(folder)
            folder.write_text("a file")
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        saved.save(_state(2), step=2, config={})
except manager.CheckpointWriteError as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no folder", "no room"])
def test_a_save_that_fails_does_not_hold_the_process(tmp_path, kind):
    """Orbax's threads waited 300 s for a folder that could not be made."""
    done, seconds = _in_process(FAILING, tmp_path / "c", kind, timeout=200)
    assert done.returncode == 1, done.stderr[-3000:]
    assert f"a checkpoint could not be written to {tmp_path}/c" in done.stdout
    assert seconds < 100, seconds


def test_a_save_that_cannot_begin_is_not_waited_for(tmp_path):
    state = _state(1).replace(opt_state=object())
    with pytest.raises((TypeError, ValueError, AttributeError)):  # noqa: SIM117
        with manager.Checkpoints(tmp_path / "c") as saved:
            saved.save(state, step=1, config={})
