# SPDX-License-Identifier: BSD-3-Clause
"""The folder in which finished shards wait for the others, and survive a build that is killed.

TFDS builds in a folder with a random name and removes it when a build fails. Shards are therefore
written beside it, into `1.0.0.unfinished`, each with a line of JSON that says what is in it, and
put into the data set at the end. `inputs.json` there says from what they were made: an attempt with
other inputs cannot use them.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from absl import logging
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.core import constants

from .shards import UNFINISHED, Shard, ShardWriter, WrittenShard
from .skipped import Skipped

_INPUTS = "inputs.json"
_LOCK = "lock"
IMAGES = "image files of "  # begins the names of inputs that shards do not depend on one and all
# Another release of these may write other bytes.
_WRITERS = ("array-record", "opencv-python-headless", "pillow", "simplejpeg")

Inputs = Mapping[str, str]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine out of the folder, which is made if it is absent.

    Raises:
      BlockingIOError: Another build of this data set is running.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / _LOCK).open("w")  # which the system lets go when we are killed
        except FileNotFoundError:  # another process finished, and removed the folder
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                message = f"another process builds this data set in {folder}: wait for it, or end"
                raise BlockingIOError(error.errno, f"{message} it") from error
            if not _is_at(lock, folder / _LOCK):
                continue
            yield
            return


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file still has its name; one that was removed locks nobody out."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def other_images_since(folder: Path, images: Inputs) -> float | None:
    """When the last attempt began, if the files of its images were others; None: they were not.

    Args:
      folder: With its shards.
      images: Digests of the files as they are now, part of the inputs of `begin`.
    """
    try:
        earlier = {**json.loads((folder / _INPUTS).read_bytes())}
        began = (folder / _INPUTS).stat().st_mtime
    except (FileNotFoundError, TypeError, ValueError):  # then no shard can be used
        return None
    return None if images.items() <= earlier.items() else began


def begin(folder: Path, inputs: Inputs) -> None:
    """Make the folder ready: empty, unless an earlier attempt had the same inputs.

    Other files of images do not matter here: it is for the caller to remove their shards.
    """
    reason = _why_useless(folder, inputs)
    if reason:
        logging.warning("%s: %s. Starting anew.", folder, reason)
    for path in folder.iterdir():
        if path.is_dir():  # of Beam
            shutil.rmtree(path)
        elif path.name != _LOCK and (reason or path.name.startswith(UNFINISHED)):
            path.unlink()
    _write(folder / _INPUTS, dict(inputs))


def write(writer: ShardWriter, shard: Shard) -> WrittenShard:
    """Write a shard, then the note that it is complete.

    Raises:
      OSError: The disk is full, say; tells what is left and what to do.
    """
    try:
        written = writer.write(shard)
        _write(_note(shard.path), written._asdict())
    except (OSError, RuntimeError) as error:  # the latter comes from ArrayRecord
        raise OSError(
            f"{shard.path} cannot be written ({error}). The shards that are finished stay in"
            f" {shard.path.parent}: mend that, and the same command goes on from them."
        ) from error
    return written


def load(path: Path) -> WrittenShard | None:
    """What was written to `path`; None if that is not complete.

    The size and the number of records are compared with what was noted: a file gets its name
    only after its end was written, so they differ only after a failure of the whole machine.
    """
    try:
        noted = json.loads(_note(path).read_bytes())
        shard = WrittenShard(**noted | {"skipped": [Skipped(*row) for row in noted["skipped"]]})
        _check(path, shard)
    except FileNotFoundError:
        return None
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        logging.warning("%s is damaged (%s) and written again", path, error)
        return None
    return shard


def put_into(folder: Path, shards: Mapping[Path, WrittenShard]) -> None:
    """Give the files a second name in `folder`, so that nothing is lost if TFDS removes that.

    Where the file system cannot do that, they move there.

    Raises:
      OSError: What lies there is not what was written.
    """
    for path, written in shards.items():
        try:
            os.link(path, folder / path.name)
        except OSError:
            path.replace(folder / path.name)
        try:
            _check(folder / path.name, written)
        except (RuntimeError, ValueError) as error:
            raise OSError(
                f"{path.name} was written, and now it has {error}: look after the disk, then start"
                " the same command again"
            ) from error


def remove(folder: Path) -> None:
    """Remove the folder when the data set is complete."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def remove_attempts(folder: Path, *, names: Iterable[str]) -> None:
    """Remove TFDS's temporary folders of attempts that were killed.

    Args:
      folder: That of this attempt, `incomplete.<six characters>_<name>`.
      names: Those of the finished folder, and of the one that is to replace it.
    """
    for name in names:
        for other in folder.parent.glob(f"{constants.INCOMPLETE_PREFIX}??????_{name}"):
            if other.name != folder.name:
                shutil.rmtree(other)


def software() -> str:
    """The releases of what writes the bytes, as a part of `Inputs`."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _WRITERS)


def _why_useless(folder: Path, inputs: Inputs) -> str | None:
    """Why the shards in the folder cannot be used; None if they can, or if there is nothing."""
    try:
        earlier = {**json.loads((folder / _INPUTS).read_bytes())}
    except FileNotFoundError:
        return None if {path.name for path in folder.iterdir()} <= {_LOCK} else "no inputs.json"
    except (TypeError, ValueError):
        return f"{_INPUTS} is damaged"
    names = sorted(
        name
        for name in earlier | dict(inputs)
        if earlier.get(name) != inputs.get(name) and not name.startswith(IMAGES)
    )
    if not names:
        return None
    return f"the earlier attempt had other inputs ({', '.join(names)}), its shards are useless now"


def _check(path: Path, shard: WrittenShard) -> None:
    """Raises ValueError or ArrayRecord's RuntimeError where a file is not what was noted."""
    if path.stat().st_size != shard.file_bytes:
        raise ValueError(f"{path.stat().st_size} bytes instead of {shard.file_bytes}")
    count = _num_records(path)
    if count != shard.num_examples:
        raise ValueError(f"{count} records instead of {shard.num_examples}")


def _num_records(path: Path) -> int:
    reader = ArrayRecordReader(os.fspath(path))
    try:
        return reader.num_records()
    finally:
        reader.close()


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write(path: Path, values: dict[str, object]) -> None:
    """Under its name only when it is complete."""
    unfinished = path.with_name(f"{UNFINISHED}{path.name}")
    unfinished.write_text(json.dumps(values), encoding="utf-8")
    unfinished.replace(path)
