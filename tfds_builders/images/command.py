# SPDX-License-Identifier: BSD-3-Clause
"""The command lines of the builders: shared options, and how a build ends."""

import dataclasses
import inspect
import logging as std_logging
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from absl import logging

from mlimages_jax import command_line
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.files.escaping import several_lines
from mlimages_jax.files.remote import is_remote

from . import skipped


@dataclasses.dataclass(frozen=True)
class Shared:
    """Options that every builder has.

    Attributes:
        manual_dir: folder with the files described above.
        data_dir: folder for data sets, on a disk or in a bucket: gs://bucket/name or
            s3://bucket/name.
        num_shards: number of files per split; default: by the number of images. For the order
            streams, `mlimages plan` says how many.
        chroma: chroma subsampling of shrunk images. 420 halves the resolution of the colours, which
            makes files a fifth smaller and faster to read.
        restart_markers: rewrite JPEG files, without loss, such that a crop is decoded without what
            is above and beside it; for finetuning on images of the original size.
        max_skipped: maximum fraction of unusable images in a split. With the default, five images
            are always allowed.
        engine: where the files are written; the result is the same.
        threads: number of threads of each process; default: one per core in all, with Ray one.
        overwrite: rebuild a finished set; the old one stays until the new one is complete.
    """

    manual_dir: Path
    data_dir: str
    num_shards: Annotated[int | None, command_line.optional("INT")] = None
    chroma: Literal["444", "420"] = "444"
    restart_markers: bool = False
    max_skipped: float = skipped.MAX_SKIPPED
    engine: EngineOptions = EngineOptions()
    threads: Annotated[int | None, command_line.optional("INT")] = None
    overwrite: bool = False


def main(place: str, arguments: Sequence[str] | None, *, program: str) -> None:
    """Runs the command of a builder, see `command_line.run`."""
    command_line.run(place, arguments or sys.argv[1:], program=program)


def with_layout(command: Callable[..., Path], layout: str) -> str:
    """Returns a docstring in which {layout} is replaced by the description of `manual_dir`."""
    doc = inspect.getdoc(command) or ""
    return doc.replace("{layout}", layout.rstrip())


def run(
    build: Callable[..., Path],
    options: Shared,
    *,
    name: str | None,
    is_published: Callable[[Path], bool],
    published_name: str,
    **own: Any,
) -> Path:
    """Builds a set and prints its folder; errors that users can fix are one line, no traceback.

    Args:
        build: Function called with the shared options by name, and with `own`.
        options: Options of every builder.
        name: Name of the set; None derives it, see `published_name`.
        is_published: Returns whether a `manual_dir` has the published files.
        published_name: Default name for the published files; others are named after their folder.
        own: Options of this builder only.

    Returns:
        The folder of the set.
    """
    logging.set_verbosity(logging.INFO)
    logging.get_absl_logger().addFilter(_is_ours)
    try:
        named = name or is_published(options.manual_dir)
        name = name or (published_name if named else name_of(options.manual_dir))
        earlier = Path(options.data_dir, published_name)
        if not named and not is_remote(options.data_dir) and earlier.exists():
            logging.info(
                "the set is named %s, after its folder; %s exists too: --name=%s selects it",
                name, earlier, published_name,
            )  # fmt: skip
        folder = build(
            options.manual_dir,
            options.data_dir,
            name=name,
            chroma=options.chroma,
            restart_markers=options.restart_markers,
            num_shards=options.num_shards,
            max_skipped=options.max_skipped,
            engine=options.engine,
            threads=options.threads,
            overwrite=options.overwrite,
            **own,
        )
    except (ImportError, OSError, ValueError) as error:
        sys.exit(several_lines(f"error: {error}"))
    except KeyboardInterrupt:
        print("interrupted: run the same command to resume from finished shards", file=sys.stderr)
        sys.exit(130)
    print(folder)
    return folder


def name_of(folder: Path) -> str:
    """Returns the name of a folder with underscores in place of special characters."""
    plain = unicodedata.normalize("NFKD", folder.expanduser().resolve().name)
    name = re.sub("[^A-Za-z0-9]+", "_", plain.encode("ascii", "ignore").decode()).strip("_")
    return name if name[:1].isalpha() else f"set_{name}".rstrip("_")


def _is_ours(line: std_logging.LogRecord) -> bool:
    """Returns whether to keep a log line; TFDS's are about settings that the commands choose."""
    return line.levelno >= std_logging.ERROR or "tensorflow_datasets" not in line.pathname
