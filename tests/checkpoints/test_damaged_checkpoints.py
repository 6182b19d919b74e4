# SPDX-License-Identifier: BSD-3-Clause
import asyncio
import gc
import json
import random
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.checkpoints import manager, saved_step
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError
from mlimages_jax.distributed import sharding
from mlimages_jax.step import losses
from mlimages_jax.step.state import TrainState
from mlimages_jax.training import start
from tests.support import damage, two_processes
from tests.support.many_processes import Job, training
from tfds_builders import shapes

CONFIG = {"seed": 7, "learning_rate": 0.1, "imported": {}, "init_from": ""}


def _state(step: int) -> TrainState:
    rng = np.random.default_rng(step)

    def random_of(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    params = {name: {"kernel": random_of(40, 30)} for name in ("conv1", "conv2", "head")}
    return TrainState(
        step=jnp.int32(step),
        params=params,
        batch_stats={"norm": {"mean": random_of(50)}},
        opt_state=jax.tree.map(lambda leaf: random_of(*leaf.shape), params),
        class_counts=losses.initial_counts(2, 8),
    )


def _abstract(state: TrainState) -> TrainState:
    place = sharding.replicated(sharding.make_mesh())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)


ABSTRACT = _abstract(_state(0))
ALONE = sharding.replicated(sharding.make_mesh())


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("three")
    with manager.Checkpoints(workdir / "checkpoints") as saved:
        for step in (16, 32, 48):
            saved.save(_state(step), step=step, config=CONFIG)
    return workdir


@pytest.fixture
def workdir(three, tmp_path):
    return shutil.copytree(three, tmp_path / "w")


def _same(ours, theirs) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, ours, theirs)))


def _restored(workdir) -> TrainState | None:
    """As a training starts."""
    with manager.Checkpoints(workdir / "checkpoints") as saved:
        return start.restored(saved, CONFIG, ABSTRACT)


def _flips(workdir, count: int) -> tuple[int, int]:
    """How many flipped bits were found, and how many changed nothing of what was loaded."""
    step, rng, found, harmless = workdir / "checkpoints/48", random.Random(0), 0, 0
    whole = manager.load(workdir)
    for _ in range(count):
        path, bit = damage.flip_one_of(step, rng)
        try:
            assert _same(manager.load(step), whole), f"bit {bit} of {path} loaded in silence"
            assert manager.config_of(step) == CONFIG
            harmless += 1
        except DamagedCheckpointError as error:
            assert str(error).startswith(f"step 48 of {step.parent} is damaged: "), error
            found += 1
        damage.flip(path, bit)
    return found, harmless


def test_a_flipped_bit_is_found_or_changes_nothing(workdir):
    found, harmless = _flips(workdir, 40)
    assert found > 30 and found + harmless == 40


def test_one_error_is_told_where_many_arrays_are_damaged(caplog):
    """asyncio keeps silent about the arrays after the first, and about nothing else."""

    async def fail(message):
        raise ValueError(message)

    async def read():
        messages = "DATA_LOSS: Error reading shard entry", "something else"
        tasks = [asyncio.ensure_future(fail(message)) for message in messages]
        await asyncio.wait(tasks)

    with saved_step._alone():
        asyncio.run(read())
    gc.collect()
    (told,) = [one for one in caplog.records if "never retrieved" in one.message]
    assert str(told.exc_info[1]) == "something else"


# TensorStore answers on threads of its own: here the loop that waits is closed before the answer.
LATE = """
import asyncio
import tensorstore as ts
from mlimages_jax.checkpoints import saved_step

async def read(future):
    asyncio.ensure_future(wait(future))
    await asyncio.sleep(0)

async def wait(future):
    await future

class Other:
    def __del__(self):
        raise RuntimeError("of something else")

promise, future = ts.Promise.new()
with saved_step._alone():
    loop = asyncio.new_event_loop()
    waiting = loop.run_until_complete(read(future))
    loop.close()
promise.set_exception(ValueError("DATA_LOSS: Error reading shard entry"))
Other()
"""


@pytest.mark.slow
def test_arrays_that_are_read_after_the_error_are_not_told():
    # In a program of its own, as pytest replaces the hook.
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert "of something else" in ended.stderr
    assert "Event loop is closed" not in ended.stderr


@pytest.mark.slow
def test_none_of_two_hundred_flipped_bits_loads_in_silence(workdir):
    found, harmless = _flips(workdir, 200)
    print(f"{found} found, {harmless} in what nobody reads")
    assert found > 150


def test_which_array_is_named(workdir):
    step = workdir / "checkpoints/48"
    digests = json.loads((step / "digests/0.json").read_text().splitlines()[1])["arrays"]
    assert set(digests) > {"params/conv1/kernel", "batch_stats/norm/mean", "step"}
    names = set()
    path = damage.largest(step)
    for byte in range(100, path.stat().st_size, 2000):
        damage.flip(path, 8 * byte)
        with pytest.raises(DamagedCheckpointError) as error:
            manager.load(step)
        damage.flip(path, 8 * byte)
        names |= {name for name in digests if name and name in str(error.value)}
    assert len(names) >= 5


@pytest.mark.parametrize("kind", damage.KINDS)
def test_every_reader_names_the_damaged_step(workdir, kind):
    damage.KINDS[kind](workdir / "checkpoints/48")
    place = sharding.replicated(sharding.make_mesh())
    for read in (
        lambda: manager.load(workdir),
        lambda: manager.load_weights(workdir, place),
        lambda: manager.restore_weights(workdir, ABSTRACT),
    ):
        with pytest.raises(DamagedCheckpointError) as error:
            read()
        assert str(error.value).startswith(f"step 48 of {workdir}/checkpoints is damaged: ")
        assert "\n" not in str(error.value)
    assert manager.load(workdir / "checkpoints/32")["step"] == 32


@pytest.mark.parametrize("kind", damage.KINDS)
def test_a_training_goes_back_to_the_newest_that_is_whole(workdir, kind, caplog):
    damage.KINDS[kind](workdir / "checkpoints/48")
    state = _restored(workdir)
    assert _same(state, _state(32))
    assert f"step 48 of {workdir}/checkpoints is damaged: " in caplog.text
    assert "to 48.damaged: resuming from step 32, 16 steps will be repeated" in caplog.text
    names = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert names == {"16", "32", "48.damaged"}
    with manager.Checkpoints(workdir / "checkpoints") as saved:  # and goes on
        saved.save(_state(48), step=48, config=CONFIG)
    assert _same(_restored(workdir), _state(48))


def test_one_after_the_other_is_set_aside_and_none_is_overwritten(workdir):
    folder = workdir / "checkpoints"
    (folder / "48.damaged").write_text("of an earlier time")
    for step in (48, 32):
        damage.zero(damage.largest(folder / f"{step}"))
    assert _same(_restored(workdir), _state(16))
    assert (folder / "48.damaged").read_text() == "of an earlier time"
    assert (folder / "48.damaged.2/state").is_dir() and (folder / "32.damaged/state").is_dir()


def test_without_a_whole_one_a_training_does_not_begin_anew(workdir):
    folder = workdir / "checkpoints"
    for step, kind in ((16, "empty folder"), (32, "arrays zeroed"), (48, "manifest deleted")):
        damage.KINDS[kind](folder / f"{step}")
    for _ in range(2):  # nor at the next start
        with pytest.raises(
            DamagedCheckpointError, match=r"all checkpoints in .* are damaged: 16.dam"
        ):
            _restored(workdir)
    shutil.rmtree(folder)
    assert _restored(workdir) is None


def test_what_is_no_step_is_left_alone(workdir):
    folder = workdir / "checkpoints"
    for name in ("notes.txt", "048", "٤٨", "48.damaged", "4 8", "-1", ".DS_Store"):
        (folder / name).mkdir()
    left = folder / "64.orbax-checkpoint-tmp"
    left.mkdir()
    (folder / "999").symlink_to(folder / "nowhere")
    assert [step.name for step in manager.find(workdir)] == ["16", "32", "48", "999"]
    assert _same(_restored(workdir), _state(48))
    assert (folder / "notes.txt").exists() and (folder / "048").exists()
    assert not left.exists()


def test_arrays_in_one_anothers_place_are_found(workdir, tmp_path):
    """Each of them is whole: only their names say that they are wrong."""
    state = _state(48)
    params = {**state.params, "conv1": state.params["conv2"], "conv2": state.params["conv1"]}
    with manager.Checkpoints(tmp_path / "swapped") as saved:
        saved.save(state.replace(params=params), step=48, config=CONFIG)
    step = workdir / "checkpoints/48"
    shutil.rmtree(step / "state")
    shutil.copytree(tmp_path / "swapped/48/state", step / "state")
    with pytest.raises(DamagedCheckpointError, match=r"params/conv1/kernel .*nor do 1 others"):
        manager.load(step)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("_CHECKPOINT_METADATA", '"learning_rate": 0.1', '"learning_rate": 0.3', "configuration"),
        ("state/_METADATA", "conv1", "conv9", "conv"),
    ],
)
def test_a_changed_description_is_damage_and_no_other_configuration(
    workdir, file, old, new, message
):
    path = workdir / "checkpoints/48" / file
    path.write_text(path.read_text().replace(old, new))
    with (
        manager.Checkpoints(workdir / "checkpoints") as saved,
        pytest.raises(DamagedCheckpointError, match=message),
    ):
        saved.config_of(48)
        saved.restore(ABSTRACT, step=48)
    assert _same(_restored(workdir), _state(32))


def test_arrays_of_the_host_are_digested_too(workdir, tmp_path):
    state = jax.tree.map(np.asarray, _state(5))
    with manager.Checkpoints(tmp_path / "host") as saved:
        saved.save(state, step=5, config=CONFIG)
    assert _same(manager.load(tmp_path / "host")["params"], state.params)
    damage.zero(damage.largest(tmp_path / "host/5"))
    with pytest.raises(DamagedCheckpointError):
        manager.load(tmp_path / "host")


@pytest.mark.parametrize("digested", [True, False])
@pytest.mark.parametrize(("number", "goes_on_from"), [(50, 32), (40, 32), (8, 32), (0, 32)])
def test_a_step_under_another_number_is_not_taken_for_that(
    workdir, number, goes_on_from, digested, caplog
):
    """A training went on from 48, and never saved step 50, since there was one."""
    folder = workdir / "checkpoints"
    if not digested:
        damage.forget_digests(folder / "48")
    (folder / "48").rename(folder / f"{number}")
    for read in (manager.load, lambda path: manager.load_weights(path, ALONE)):
        with pytest.raises(DamagedCheckpointError, match=f"step {number} of .* contains step 48"):
            read(folder / f"{number}")
    shutil.rmtree(folder / "16")
    if number < goes_on_from:
        shutil.rmtree(folder / "32")
        with pytest.raises(DamagedCheckpointError, match=f"{number}.damaged"):
            _restored(workdir)
    else:
        assert _restored(workdir).step == goes_on_from
        assert f"Moved to {number}.damaged" in caplog.text


def test_a_checkpoint_without_digests_loads_as_ever(workdir, caplog):
    damage.forget_digests(workdir / "checkpoints/48")
    assert manager.load(workdir)["step"] == 48
    assert _same(_restored(workdir), _state(48))
    assert "damaged" not in caplog.text


def test_a_step_that_went_meanwhile_is_no_damage(workdir, monkeypatch):
    monkeypatch.setattr(
        saved_step.ocp, "load", lambda folder, abstract: shutil.rmtree(folder) or {}["state"]
    )
    with pytest.raises(saved_step.VanishedCheckpointError, match=r"step 48 of .* does not exist"):
        manager.load(workdir)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "no"),
        MemoryError(),
        ValueError("UNAVAILABLE: try again"),
        OSError(5, ""),
    ],
)
def test_what_passes_is_not_called_damage(workdir, monkeypatch, error):
    def fail(folder, abstract):
        raise error

    monkeypatch.setattr(saved_step.ocp, "load", fail)
    damaged = isinstance(error, OSError) and error.errno == 5  # the disk cannot read it
    with pytest.raises(DamagedCheckpointError if damaged else type(error)):
        manager.load(workdir)


SHARDED = """
import pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from mlimages_jax.checkpoints import array_digests, manager, saved_step
from mlimages_jax.distributed import sharding
from mlimages_jax.training import start
from mlimages_jax.step.state import TrainState

folder = pathlib.Path({folder!r})
mesh = sharding.make_mesh()
place = sharding.by_example(mesh)
values = np.arange(64, dtype=np.float32).reshape(8, 8)
columns = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "data"))

def put(array, where):
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])

def state(step):
    return TrainState(
        step=put(np.int32(step), sharding.replicated(mesh)),
        params={{"rows": put(values + step, place), "columns": put(values - step, columns)}},
        batch_stats={{"whole": put(values, sharding.replicated(mesh))}},
        opt_state=None, class_counts=None,
    )

abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0)
)
with manager.Checkpoints(folder) as saved:
    for step in (1, 2, 3):
        saved.save(state(step), step=step, config={{"imported": {{}}, "init_from": ""}})
    saved._wait()
    restored = saved.restore(abstract)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(state(3))):
        assert ours.sharding == theirs.sharding
        for mine, other in zip(ours.addressable_shards, theirs.addressable_shards):
            np.testing.assert_array_equal(mine.data, other.data)
    if jax.process_index() == 1:  # the only one that sees damage, in step 3
        whole = array_digests.verify
        def verify(arrays, digests):
            if int(arrays["step"]) == 3:
                raise array_digests.DigestError("seen by process 1 alone")
            whole(arrays, digests)
        array_digests.verify = verify
    restored = start.restored(saved, {{"imported": {{}}, "init_from": ""}}, abstract)
    assert int(restored.step) == 2, restored.step
    assert saved.steps == [1, 2], saved.steps
"""


@pytest.mark.slow
def test_processes_digest_their_pieces_and_agree_on_what_is_damaged(tmp_path):
    two_processes.run(SHARDED.format(folder=str(tmp_path / "c")))
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names == ["1", "2", "3.damaged"]
    assert {path.name for path in (tmp_path / "c/2/digests").iterdir()} > {"0.json", "1.json"}
    tree = manager.load(tmp_path / "c/2")  # on one process, whole
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_array_equal(tree["params"]["columns"], values - 2)
    (tmp_path / "c/2/digests/1.json").unlink()
    with pytest.raises(DamagedCheckpointError, match="checksums are missing"):
        manager.load(tmp_path / "c/2")


@pytest.mark.slow
def test_a_run_goes_back_ends_in_the_same_bits_and_with_1_when_none_is_left(tmp_path):
    drawn = shapes.build(tmp_path / "data", num_train=32, num_val=16, size=32)
    workdir, logs = tmp_path / "w", tmp_path / "logs"
    command = training(workdir, drawn)
    with Job(logs, command, count=2, devices=2) as job:
        assert job.wait(seconds=600) == [0, 0], job.output()
    whole, folder = manager.load(workdir), workdir / "checkpoints"
    damage.zero(damage.largest(folder / "8"))
    (folder / "48").mkdir()
    with Job(logs, command, count=2, devices=2) as job:
        assert job.wait(seconds=600) == [0, 0], job.output()
        assert "Moved to 48.damaged" in job.output()
        assert "Moved to 8.damaged: resuming from step 6, 2 steps will be repeated" in job.output()
    assert _same(manager.load(workdir), whole)
    for step in (6, 8):
        damage.truncate(damage.largest(folder / f"{step}"))
    with Job(logs, command) as job:
        assert job.wait(seconds=600) == [1], job.output()
        assert f"error: all checkpoints in {folder} are damaged" in job.output()
        assert "Traceback" not in job.output()
