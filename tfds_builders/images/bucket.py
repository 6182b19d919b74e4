# SPDX-License-Identifier: BSD-3-Clause
"""A set that is built into a bucket, shard by shard.

    1.0.0.unfinished/inputs.json        what the shards are made from; begins a build
    1.0.0/*.array_record-*              the shards, each complete or absent
    1.0.0.unfinished/<shard>.json       a note that a shard is complete
    1.0.0/dataset_info.json             written last: before, this is no data set

A bucket has no renames, links or locks: shards are uploaded to their place at once, and a build
with other inputs is refused instead of replacing them. Two builds with the same inputs write the
same bytes, so they do no harm to each other.
"""

import concurrent.futures
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

from mlimages_jax.files.object_folder import ObjectFolder

from . import unfinished
from .shards import ShardPlan, ShardWriter, WrittenShard

_INPUTS = "inputs.json"
_INFO = "dataset_info.json"
_CLOCK_ERROR = 60.0  # seconds that the clocks of two machines may differ by
_THREADS = 32  # requests at a time


class OtherBuildError(ValueError):
    """The folder has shards of a build with other inputs; the message says which and what to do."""


class _Attempt(NamedTuple):
    """What inputs.json states.

    Attributes:
        inputs: What the shards are made from.
        began: Time of the latest start, in seconds since 1970.
    """

    inputs: dict[str, str]
    began: float


@dataclasses.dataclass(frozen=True)
class BucketSet:
    """The place of one set in a bucket, and the store of its shards; may be pickled.

    Attributes:
        parent: The folder of its versions, such as gs://bucket/sets/ml_images/released_320.
        version: Name of its folder in there.
    """

    parent: ObjectFolder
    version: str

    def __str__(self) -> str:
        return self.parent.path(self.version)

    @property
    def waiting(self) -> str:
        """Name of the folder of inputs and notes."""
        return f"{self.version}.unfinished"

    def is_finished(self) -> bool:
        """Returns whether the set is complete.

        Raises:
            FileExistsError: Its folder contains something else.
        """
        files = self.parent.sizes(self.version)
        if _INFO in files:
            return True
        if files and self._earlier() is None:
            raise FileExistsError(
                f"{self} exists, but is neither a finished data set ({_INFO} is missing) nor a "
                f"begun one ({self.waiting}/{_INPUTS} is missing): delete it, or give another "
                "--name"
            )
        return False

    def read(self, name: str) -> str:
        """Returns the text of a file of the set."""
        return self.parent.read(f"{self.version}/{name}").decode()

    def other_images_since(self, images: unfinished.Inputs) -> float | None:
        """Returns when the last attempt began if its image files differ, see `unfinished`."""
        earlier = self._earlier()
        if earlier is None or images.items() <= earlier.inputs.items():
            return None
        return earlier.began - _CLOCK_ERROR

    def begin(self, inputs: unfinished.Inputs) -> None:
        """States what the shards are made from; those of an earlier attempt are used.

        Raises:
            OtherBuildError: They were made from something else.
        """
        self._refuse_others(inputs)
        attempt = _Attempt(dict(inputs), time.time())
        data = json.dumps(attempt._asdict()).encode()
        self.parent.write(f"{self.waiting}/{_INPUTS}", data)

    def write(self, writer: ShardWriter, shard: ShardPlan) -> WrittenShard:
        """Writes a shard into `TMPDIR`, uploads it, and then the note that it is complete.

        Raises:
            OSError: One of these failed; says what is kept and what to do.
        """
        name = shard.path.name
        try:
            with self.parent.creating(f"{self.version}/{name}") as path:
                written = writer.write(shard._replace(path=path))
            note = json.dumps(written._asdict()).encode()
            self.parent.write(self._note(name), note)
        except OSError as error:
            raise OSError(
                f"{self}/{name} cannot be written ({error}). Finished shards are kept there: fix "
                "the problem, then run the same command again to resume."
            ) from error
        return written

    def load(self, path: Path) -> WrittenShard | None:
        """Returns the shard of this name, or None if it is not complete.

        Objects are written completely or not at all, so it suffices to compare their size.
        """
        try:
            shard = unfinished.parse_note(self.parent.read(self._note(path.name)))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            logging.warning("%s is damaged (%s): its shard is written again", path.name, error)
            return None
        size = self.parent.size(f"{self.version}/{path.name}")
        if size != shard.file_bytes:
            found = "missing" if size is None else f"{size:,} bytes instead of {shard.file_bytes:,}"
            logging.warning("%s/%s is %s, and is written again", self, path.name, found)
            return None
        return shard

    def discard(self, path: Path) -> None:
        """Forgets a shard, which is then written again."""
        self.parent.remove(self._note(path.name))

    def finish(
        self, written: Sequence[WrittenShard], files: Mapping[str, Path], inputs: unfinished.Inputs
    ) -> None:
        """Checks that all shards are there, and makes them a data set.

        Args:
            written: The shards.
            files: Local paths of the other files of the set, by name.
            inputs: What the shards are made from.

        Raises:
            OSError: A shard is not what was written, or a file cannot be uploaded.
            OtherBuildError: Another build with other inputs began at the same time.
        """
        self._refuse_others(inputs)
        found = self.parent.sizes(self.version)
        for shard in written:
            if found.get(shard.file) != shard.file_bytes:
                raise OSError(
                    f"{self}/{shard.file} was written, but now has {found.get(shard.file)} bytes "
                    f"instead of {shard.file_bytes}: run the same command again"
                )
        for name in sorted(files, key=lambda name: (name == _INFO, name)):
            self.parent.put(files[name], f"{self.version}/{name}")
        self.tidy()

    def tidy(self) -> None:
        """Removes the inputs and notes of a finished set."""
        notes = [f"{self.waiting}/{name}" for name in self.parent.sizes(self.waiting)]
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self.parent.remove, notes))

    def _refuse_others(self, inputs: unfinished.Inputs) -> None:
        earlier = self._earlier()
        if earlier and (names := unfinished.differing(earlier.inputs, inputs)):
            raise OtherBuildError(
                f"{self} has shards of another build, with other inputs ({', '.join(names)}): "
                f"repeat that build, give another --name, or delete {self} and "
                f"{self.parent.path(self.waiting)} to start from scratch"
            )

    def _earlier(self) -> _Attempt | None:
        """Returns what the latest attempt stated; None if there was none."""
        name = f"{self.waiting}/{_INPUTS}"
        try:
            values = json.loads(self.parent.read(name))
            return _Attempt({**values["inputs"]}, float(values["began"]))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise OtherBuildError(
                f"{self.parent.path(name)} is damaged ({error}), so it is unknown what the shards "
                f"of {self} are made from: delete both folders to start from scratch"
            ) from error

    def _note(self, name: str) -> str:
        return f"{self.waiting}/{name}.json"
