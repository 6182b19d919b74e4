# SPDX-License-Identifier: BSD-3-Clause
"""The folder in which finished shards wait for the others and survive a killed build.

TFDS builds in a folder with a random name and deletes it if a build fails. Shards are therefore
written next to it, into `1.0.0.unfinished`, each with a JSON file that describes it, and moved into
the data set at the end. `inputs.json` states what they were made from: an attempt with other inputs
cannot use them.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from absl import logging
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.core import constants

from mlimages_jax.data.images.same_software import releases

from .shards import UNFINISHED, ShardPlan, ShardWriter, WrittenShard
from .skipped import Skipped

_INPUTS = "inputs.json"
_LOCK = "lock"
IMAGES = "image files of "  # prefix of inputs that not every shard depends on

Inputs = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class OnDisk:
    """The store of the shards of a set on a disk; may be pickled.

    Attributes:
        folder: The folder in which they wait.
    """

    folder: Path

    def other_images_since(self, images: Inputs) -> float | None:
        """Returns when the last attempt began if its image files differ."""
        return other_images_since(self.folder, images)

    def begin(self, inputs: Inputs) -> None:
        """Empties the folder unless an earlier attempt had the same inputs."""
        begin(self.folder, inputs)

    def write(self, writer: ShardWriter, shard: ShardPlan) -> WrittenShard:
        """Writes a shard, see `write` of this module."""
        return write(writer, shard)

    def load(self, path: Path) -> WrittenShard | None:
        """Returns a finished shard, see `load` of this module."""
        return load(path)

    def discard(self, path: Path) -> None:
        """Removes a shard, which is then written again."""
        path.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes of this machine out of the folder, which is created if missing.

    Raises:
        BlockingIOError: Another build of this data set is running.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / _LOCK).open("w")  # the system releases the lock if we are killed
        except FileNotFoundError:  # another process finished and deleted the folder
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                message = (
                    f"another process is building this data set in {folder}: wait for it, or stop"
                )
                raise BlockingIOError(error.errno, f"{message} it") from error
            if not _is_at(lock, folder / _LOCK):
                continue
            yield
            return


def _is_at(file: IO[str], path: Path) -> bool:
    """Returns whether an open file still has its name; a lock on a deleted file is useless."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def other_images_since(folder: Path, images: Inputs) -> float | None:
    """Returns when the last attempt began if its image files differ; None if they do not.

    Args:
        folder: The folder with its shards.
        images: Digests of the files as they are now, part of the inputs of `begin`.
    """
    try:
        earlier = {**json.loads((folder / _INPUTS).read_bytes())}
        began = (folder / _INPUTS).stat().st_mtime
    except (FileNotFoundError, TypeError, ValueError):  # `begin` will discard the shards
        return None
    return None if images.items() <= earlier.items() else began


def of_images(made_of: Inputs) -> dict[str, str]:
    """Returns the digests of image files among all that a set is made of."""
    return {name: value for name, value in made_of.items() if name.startswith(IMAGES)}


def begin(folder: Path, inputs: Inputs) -> None:
    """Prepares the folder: empty, unless an earlier attempt had the same inputs.

    Differences in image files do not matter here: the caller removes the affected shards.
    """
    reason = _why_useless(folder, inputs)
    if reason:
        logging.warning("%s: %s. Starting from scratch.", folder, reason)
    for path in folder.iterdir():
        if path.is_dir():  # left by version 0.2.0 with Beam
            shutil.rmtree(path)
        elif path.name != _LOCK and (reason or path.name.startswith(UNFINISHED)):
            path.unlink()
    _write(folder / _INPUTS, dict(inputs))


def write(writer: ShardWriter, shard: ShardPlan) -> WrittenShard:
    """Writes a shard, then the note that it is complete.

    Raises:
        OSError: The shard cannot be written, e.g. on a full disk; says what is kept and what to do.
    """
    try:
        written = writer.write(shard)
        _write(_note(shard.path), written._asdict())
    except OSError as error:
        raise OSError(
            f"{shard.path} cannot be written ({error}). Finished shards are kept in"
            f" {shard.path.parent}: fix the problem, then run the same command again to resume."
        ) from error
    return written


def load(path: Path) -> WrittenShard | None:
    """Returns the shard written to `path`, or None if it is not complete.

    Size and number of records are compared with the note: a file gets its name only after its end
    was written, so they differ only after a crash of the machine.
    """
    try:
        shard = parse_note(_note(path).read_bytes())
        _check(path, shard)
    except FileNotFoundError:
        return None
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        logging.warning("%s is damaged (%s) and is written again", path, error)
        return None
    return shard


def parse_note(data: bytes) -> WrittenShard:
    """Returns the shard that a note describes; raises KeyError, TypeError or ValueError."""
    noted = json.loads(data)
    return WrittenShard(**noted | {"skipped": [Skipped(*row) for row in noted["skipped"]]})


def put_into(folder: Path, shards: Mapping[Path, WrittenShard]) -> None:
    """Links the files into `folder`, so that nothing is lost if TFDS deletes it.

    If the file system does not support hard links, the files are moved.

    Raises:
        OSError: A file is not what was written.
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
                f"{path.name} was written, but now has {error}: check the disk, then run the same"
                " command again"
            ) from error


def remove(folder: Path) -> None:
    """Deletes the folder once the data set is complete."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def remove_attempts(folder: Path, *, names: Iterable[str]) -> None:
    """Deletes TFDS's temporary folders of killed attempts.

    Args:
        folder: The folder of this attempt, `incomplete.<six characters>_<name>`.
        names: Names of the finished folder and of its replacement.
    """
    for name in names:
        for other in folder.parent.glob(f"{constants.INCOMPLETE_PREFIX}??????_{name}"):
            if other.name != folder.name:
                shutil.rmtree(other)


def software() -> str:
    """Returns the releases of the packages that write the bytes, as a part of `Inputs`."""
    return ", ".join(f"{name} {release}" for name, release in releases().items())


def _why_useless(folder: Path, inputs: Inputs) -> str | None:
    """Returns why the shards in the folder cannot be used; None if they can, or there are none."""
    try:
        earlier = {**json.loads((folder / _INPUTS).read_bytes())}
    except FileNotFoundError:
        return None if {path.name for path in folder.iterdir()} <= {_LOCK} else "no inputs.json"
    except (TypeError, ValueError):
        return f"{_INPUTS} is damaged"
    names = differing(earlier, inputs)
    if not names:
        return None
    return (
        f"the earlier attempt had other inputs ({', '.join(names)}), so its shards cannot be reused"
    )


def differing(earlier: Inputs, inputs: Inputs) -> list[str]:
    """Returns the names of the inputs that differ, without those of image files."""
    return sorted(
        name
        for name in {*earlier, *inputs}
        if earlier.get(name) != inputs.get(name) and not name.startswith(IMAGES)
    )


def _check(path: Path, shard: WrittenShard) -> None:
    """Compares a file with its note; raises ValueError, or RuntimeError from ArrayRecord."""
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
    """Writes a JSON file atomically."""
    unfinished = path.with_name(f"{UNFINISHED}{path.name}")
    unfinished.write_text(json.dumps(values), encoding="utf-8")
    unfinished.replace(path)
