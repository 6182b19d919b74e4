# SPDX-License-Identifier: BSD-3-Clause
"""s3:// by pyarrow, through our folders and through `epath`, against an imitation of S3."""

import _thread
import os
import pickle
import signal
import time

import fsspec
import pytest
from etils import epath

from mlimages_jax.data.local_copies import copy_shards
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.remote import write_text
from mlimages_jax.files.s3 import ArrowS3
from tests.support import emulated_bucket

pytestmark = pytest.mark.skipif(
    not issubclass(fsspec.get_filesystem_class("s3"), ArrowS3), reason="s3fs is installed"
)


@pytest.fixture
def storage(tmp_path, monkeypatch):
    with emulated_bucket.serve("s3", tmp_path / "bucket", monkeypatch) as storage:
        yield storage


def test_a_folder_of_files(storage, tmp_path):
    folder = pickle.loads(pickle.dumps(ObjectFolder("s3://bucket/a")))
    assert folder.sizes() == {} and folder.size("x/one") is None
    with pytest.raises(FileNotFoundError):
        folder.read("x/one")
    folder.write("x/one", b"old")
    folder.write("x/one", b"new one")
    folder.write("we ird/#?ä%20.txt", b"")
    assert folder.read("x/one") == b"new one" and folder.size("x/one") == 7
    assert folder.sizes("x") == {"one": 7} and folder.sizes("we ird") == {"#?ä%20.txt": 0}
    folder.remove("x/one")
    folder.remove("x/one")
    assert folder.sizes("x") == {}


def test_empty_objects_that_stand_for_folders_are_no_files(storage):
    """pyarrow leaves them, as other programs do."""
    folder = ObjectFolder("s3://bucket/a")
    for name in ("a/", "a/b/", "a/b/c/"):
        storage.write(name, b"")
    storage.write("a/b/x", b"1")
    assert folder.sizes() == {} and folder.sizes("b") == {"x": 1}
    assert folder.size("b") is None and folder.size("b/c") is None


def test_lines_are_read_by_few_requests(storage):
    path = epath.Path("s3://bucket/lines")
    path.write_text("".join(f"{i}\n" for i in range(100)))
    requests = []
    storage.fail = lambda method, name: requests.append(method)
    with ObjectFolder("s3://bucket").open("lines") as file:
        assert [int(line) for line in file] == list(range(100))
    with path.open() as file:
        assert len(list(file)) == 100
    assert len(requests) < 10


@pytest.mark.slow
def test_a_file_in_several_parts(storage, tmp_path):
    content = os.urandom(12 << 20)  # parts have 10 MB
    (tmp_path / "big").write_bytes(content)
    folder = ObjectFolder("s3://bucket")
    folder.put(tmp_path / "big", "big")
    assert not (tmp_path / "big").exists() and folder.read("big") == content
    with folder.open("big") as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == content[-10:]
    copy_shards([epath.Path("s3://bucket/big")], tmp_path / "ssd")
    assert (tmp_path / "ssd/s3/bucket/big").read_bytes() == content


def test_paths(storage):
    path = epath.Path("s3://bucket/run/lines.txt")
    assert not path.exists()
    path.write_text("one")
    assert path.exists() and path.read_text() == "one" and path.parent.is_dir()
    assert [each.name for each in path.parent.iterdir()] == ["lines.txt"]
    assert path.stat().length == 3 and path.stat().mtime


def test_a_bucket_that_does_not_exist(storage):
    with pytest.raises(OSError, match=r"nowhere|NoSuchBucket|not exist"):
        ObjectFolder("s3://nowhere").write("x", b"1")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["write", "put", "text"])
def test_ctrl_c_never_leaves_an_object_that_is_cut_short(storage, tmp_path, method):
    """It replaced inputs.json of a build by nothing, and no shard of it was usable any more."""
    folder = ObjectFolder("s3://bucket")
    folder.write("x", b"old")
    (tmp_path / "new").write_bytes(b"new")
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(http_method, name):
        if http_method == "POST" and not interrupted:
            interrupted.append(name)
            _thread.interrupt_main()
            time.sleep(0.5)  # so that this process is told before the answer arrives

    interrupted = []
    write = {
        "write": lambda: folder.write("x", b"new"),
        "put": lambda: folder.put(tmp_path / "new", "x"),
        "text": lambda: write_text("s3://bucket/x", "new"),
    }
    storage.fail = interrupt
    try:
        with pytest.raises(KeyboardInterrupt):
            write[method]()
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert interrupted and folder.read("x") == b"new"


def test_an_endpoint_that_is_no_url_is_refused(storage, monkeypatch):
    """Without http:// it was ignored, and requests went to Amazon."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", storage.url.removeprefix("http://"))
    ArrowS3.clear_instance_cache()
    with pytest.raises(OSError, match="AWS_ENDPOINT_URL must begin with http"):
        ObjectFolder("s3://bucket")
