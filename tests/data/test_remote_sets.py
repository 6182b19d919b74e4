# SPDX-License-Identifier: BSD-3-Clause
"""Sets on object storage, read and copied from an imitation of it on this machine."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from mlimages_jax.data.dataset import DataSet, Shard
from mlimages_jax.data.records import DataSetError
from mlimages_jax.data.streams import assign
from tests.support import object_storage, record_files

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = (3, 3, 2, 2)
SET = "gs://bucket/sets/grey/1.0.0"


@pytest.fixture
def storage(tmp_path):
    record_files.write_set(tmp_path / "bucket/sets/grey/1.0.0", LENGTHS)
    with object_storage.serve(tmp_path / "bucket") as storage:
        yield storage


def _run(storage, code: str, *arguments: str) -> list[str]:
    """Runs Python with gs:// led to the imitation."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=storage.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


def _reads(storage) -> list[int]:
    """The numbers of the files of records that were read."""
    return sorted(int(name.split("-")[-3]) for name in storage.reads if "array_record" in name)


def _expected(storage, stream: int) -> list[str]:
    """Names of the records of one of two streams."""
    starts = [sum(LENGTHS[:number]) for number in range(len(LENGTHS))]
    files = assign(LENGTHS, 2)[stream]
    return [f"{i}.jpg" for n in files for i in range(starts[n], starts[n] + LENGTHS[n])]


def test_array_record_reads_a_bucket_by_itself(storage):
    code = (
        "import sys; from mlimages_jax.data.records import Records, parse_record\n"
        "print(*(parse_record(data).name for data in Records([sys.argv[1] + '[0:2]'])))"
    )
    path = f"{SET}/grey-train.array_record-00003-of-00004"
    assert _run(storage, code, path) == ["8.jpg", "9.jpg"]


NAMES = """
import sys
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import parse_record
data = DataSet.open(sys.argv[1], copy_to=sys.argv[2])
(records,) = data.streams("train", count=2, served=[1])
print(*(parse_record(record).name for record in records))
"""
needs_gcsfs = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None, reason="gcsfs is not installed (the extra gcs)"
)


@needs_gcsfs
def test_a_set_in_a_bucket_is_read_where_it_is(storage):
    assert _run(storage, NAMES, SET, "") == _expected(storage, 1)
    assert _reads(storage) == assign(LENGTHS, 2)[1]


@pytest.mark.slow
@needs_gcsfs
def test_a_set_in_a_bucket_is_copied_once(storage, tmp_path):
    for _ in range(2):
        assert _run(storage, NAMES, SET, str(tmp_path / "ssd")) == _expected(storage, 1)
    assert _reads(storage) == assign(LENGTHS, 2)[1]
    reads = [count for name, count in storage.reads.items() if "array_record" in name]
    assert reads == [1] * 2, "the second start copies nothing"
    copies = sorted((tmp_path / "ssd/gs/bucket/sets/grey/1.0.0").iterdir())
    assert [int(path.name.split("-")[-3]) for path in copies] == assign(LENGTHS, 2)[1]


@pytest.mark.slow
@needs_gcsfs
def test_a_file_missing_from_a_bucket_is_named(storage):
    (storage.folder / "sets/grey/1.0.0/grey-train.array_record-00001-of-00004").unlink()
    code = NAMES.replace("(records,) = ", "try: ").replace(
        "print(*(parse_record(record).name for record in records))",
        "except Exception as error: print(type(error).__name__, error)",
    )
    answer = " ".join(_run(storage, code, SET, ""))
    missing = f"{SET}/grey-train.array_record-00001-of-00004 is missing"
    assert answer.startswith(f"DataSetError {missing}")


def test_storage_that_only_copies_can_be_read_from_says_so(monkeypatch):
    folder = epath.Path("s3://bucket/grey/1.0.0")
    shards = {"train": [Shard("train", 0, folder / "x", 3)]}
    monkeypatch.setattr(DataSet, "shards", lambda self: shards)
    with pytest.raises(DataSetError, match=r"from s3:// directly: set config\.data\.copy_to"):
        DataSet(folder, num_classes=3, max_labels=1, missing_labels=0.0).records("train")


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_what_reads_buckets_is_named_where_it_is_not_installed():
    with pytest.raises(DataSetError, match=r"gcsfs.*pip install -e '\.\[gcs\]'"):
        DataSet.open(SET)
