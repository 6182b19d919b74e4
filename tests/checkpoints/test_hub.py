# SPDX-License-Identifier: BSD-3-Clause
"""Models on a Hub that runs on this machine."""

import jax
import numpy as np
import pytest

import mlimages_jax as mli
from mlimages_jax.checkpoints import hub, loading, places, safetensors
from mlimages_jax.checkpoints.hub import Address, HubError
from mlimages_jax.checkpoints.saved_step import abstract_tree
from mlimages_jax.convert.safetensors_file import from_safetensors, to_safetensors
from mlimages_jax.inference.pretrained import ModelError
from mlimages_jax.step.state import TrainState
from tests.support import hub_server, small_model

NAME = "someone/five-classes"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "w"
    return small_model.save(folder, small_model.imported("weighted"))


@pytest.fixture(scope="module")
def content(workdir):
    path = workdir.parent / "model.safetensors"
    to_safetensors(checkpoint=str(workdir), output=path)
    return path.read_bytes()


@pytest.fixture
def served(local_hub, content):
    commit = local_hub.commit(NAME, {hub.FILE: content})
    return local_hub, commit


def test_a_model_of_the_hub_computes_what_its_workdir_does(served, workdir):
    ours, theirs = mli.load(workdir), mli.load(f"hf://{NAME}")
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    np.testing.assert_array_equal(ours.logits(image), theirs.logits(image))
    assert ours.tag(image) == theirs.tag(image)
    assert f"hf://{NAME}@{served[1]} (step 7)" in str(theirs), "pinned to the commit"


def test_a_revision_is_an_older_version(served, workdir):
    local_hub, first = served
    local_hub.commit(NAME, {hub.FILE: b"of another program"})
    assert mli.load(f"hf://{NAME}@{first}").network.num_classes == 5
    with pytest.raises(safetensors.WeightsFileError, match="not a safetensors file"):
        mli.load(f"hf://{NAME}")


def test_a_broken_connection_is_resumed(served, content, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1_000)
    local_hub, commit = served
    local_hub.break_after = 6_000
    path, pinned = hub.download(Address(NAME))
    assert path.read_bytes() == content
    assert local_hub.ranges == [None, "bytes=6000-"]
    assert pinned == Address(NAME, commit)


def test_other_bytes_than_the_hub_reports_are_refused_and_not_kept(served, content):
    local_hub, _ = served
    local_hub.sent = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(HubError, match=r"is not the file that the Hub reports .* run this again"):
        hub.download(Address(NAME))
    local_hub.sent = None
    assert hub.download(Address(NAME))[0].read_bytes() == content


def test_the_cache_serves_without_a_connection(served, content, monkeypatch):
    local_hub, commit = served
    path, _ = hub.download(Address(NAME))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(local_hub.requests)
    assert hub.download(Address(NAME)) == (path, Address(NAME, commit))
    assert hub.download(Address(NAME, commit))[0] == path
    with pytest.raises(HubError, match=r"not in the cache .* HF_HUB_OFFLINE"):
        hub.download(Address("someone/else"))
    assert len(local_hub.requests) == asked


def test_errors_say_what_to_do(served, monkeypatch):
    local_hub, _ = served
    with pytest.raises(HubError, match="has no revision v9: give a branch"):
        mli.load(f"hf://{NAME}@v9")
    with pytest.raises(HubError, match=r"does not exist, or is private.*hf auth login"):
        mli.load("hf://someone/nothing")
    local_hub.commit("someone/empty", {"README.md": b""})
    with pytest.raises(HubError, match="has no model"):
        mli.load("hf://someone/empty")
    with pytest.raises(HubError, match="an address of the Hub is hf://user/name@revision"):
        mli.load("hf://only-a-name")
    local_hub.private.add(NAME)
    with pytest.raises(HubError, match="or is private: check the name, and log in") as caught:
        mli.load(f"hf://{NAME}")
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    assert mli.load(f"hf://{NAME}").network.num_classes == 5


def test_arrays_of_another_program_are_refused_in_one_line(served, tmp_path):
    arrays = {"params/stage0_block0/conv1/kernel": np.zeros((1, 1, 2, 2), np.float32)}
    config = {"image_size": 32, "loss": {"name": "softmax"}}
    content = safetensors.WeightsFile(arrays, 0, config, "", "", {})
    safetensors.write(tmp_path / hub.FILE, content)
    with pytest.raises(ModelError, match="classifier is missing") as caught:
        mli.load(tmp_path / hub.FILE)
    assert "\n" not in str(caught.value)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(HubError, match=r"pip install 'mlimages-jax\[hub\]'"):
        mli.load(f"hf://{NAME}")


def _abstract(tree, sharding) -> TrainState:
    described = abstract_tree(tree, sharding)
    return TrainState(None, described["params"], described["batch_stats"], None, None, None)


def test_a_training_starts_from_it(served, workdir):
    address = f"hf://{NAME}"
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    weights = loading.load_weights(workdir, sharding)
    found = loading.restore_weights(address, _abstract(weights, sharding))
    jax.tree.map(np.testing.assert_array_equal, found, weights)
    head = {"kernel": np.zeros((32, 9), np.float32), "bias": np.zeros(9, np.float32)}
    others = {**weights, "params": {**weights["params"], "head": head}}
    found = loading.restore_weights(address, _abstract(others, sharding))
    assert found["params"].keys() == weights["params"].keys() - {"head"}, "of other classes"
    assert places.classes_at(places.local(address)).names[1] == "dog, domestic dog"


def test_what_needs_a_workdir_says_how_to_get_one(served, tmp_path):
    with pytest.raises(FileNotFoundError, match="mlimages convert from-safetensors"):
        loading.load(f"hf://{NAME}")
    from_safetensors(checkpoint=f"hf://{NAME}", output=str(tmp_path / "w"))
    imported = loading.config_of(tmp_path / "w")["imported"]
    assert imported == {"format": "safetensors", "file": f"hf://{NAME}@{served[1]}"}
