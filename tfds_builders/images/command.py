# SPDX-License-Identifier: BSD-3-Clause
"""The command lines of the builders: shared options, and how a build ends."""

import dataclasses
import inspect
import itertools
import logging as std_logging
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from absl import logging

from mlimages_jax import command_line
from mlimages_jax.files.escaping import several_lines

from . import skipped


@dataclasses.dataclass(frozen=True)
class Shared:
    """Options that every builder has.

    Attributes:
      manual_dir: The files described above.
      data_dir: Where data sets go.
      num_shards: Files of each split.
      chroma: Resolution of the colours of shrunk images; 420: half, which makes files a fifth
        smaller and reading faster.
      max_skipped: Share of a split's images that may be unusable; five images always may.
      num_workers: Threads; by default one a core.
      beam: Use Apache Beam, with options such as runner=DirectRunner,direct_num_workers=8.
      overwrite: Build again where a finished set exists, which stays until the new one is complete.
    """

    manual_dir: Path
    data_dir: Path
    num_shards: int | None = None
    chroma: Literal["444", "420"] = "444"
    max_skipped: float = skipped.MAX_SKIPPED
    num_workers: int | None = None
    beam: str | None = None
    overwrite: bool = False


def main(place: str, arguments: Sequence[str] | None, *, program: str) -> None:
    """Runs the command of a builder, see `command_line.run`; --beam needs no options."""
    words = [
        "--beam=" if word == "--beam" and following.startswith("-") else word
        for word, following in itertools.pairwise([*(arguments or sys.argv[1:]), "-"])
    ]
    command_line.run(place, words, program=program)


def with_layout(command: Callable[..., None], layout: str) -> str:
    """A docstring with the description of `manual_dir` in the place of {layout}."""
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
) -> None:
    """Build, and print the folder; errors that the user can fix are one line, not a traceback.

    Args:
      build: Takes the shared flags by name, and `own`.
      options: Those that all builders have.
      name: Of the set; None: as `published_name` says.
      is_published: Whether a `manual_dir` holds the published files, which have a name.
      published_name: That name; other sets are called as their folder where --name does not say.
      own: Arguments of this builder alone.
    """
    logging.set_verbosity(logging.INFO)
    logging.get_absl_logger().addFilter(_is_ours)
    beam = options.beam
    try:
        named = name or is_published(options.manual_dir)
        name = name or (published_name if named else name_of(options.manual_dir))
        if not named and (earlier := options.data_dir / published_name).exists():
            logging.info(
                "the set is called %s, as its folder; %s has another: give --name=%s to use that",
                name, earlier, published_name,
            )  # fmt: skip
        folder = build(
            options.manual_dir,
            options.data_dir,
            name=name,
            chroma=options.chroma,
            num_shards=options.num_shards,
            max_skipped=options.max_skipped,
            num_workers=options.num_workers,
            beam_options=None
            if beam is None
            else [f"--{flag}" for flag in beam.split(",") if flag],
            overwrite=options.overwrite,
            **own,
        )
    except (ImportError, OSError, ValueError) as error:
        sys.exit(several_lines(f"error: {error}"))
    except KeyboardInterrupt:
        print("interrupted: run the same command to resume from finished shards", file=sys.stderr)
        sys.exit(130)
    print(folder)


def name_of(folder: Path) -> str:
    """Return a name for the set of a folder: its own, with underscores for special characters."""
    plain = unicodedata.normalize("NFKD", folder.expanduser().resolve().name)
    name = re.sub("[^A-Za-z0-9]+", "_", plain.encode("ascii", "ignore").decode()).strip("_")
    return name if name[:1].isalpha() else f"set_{name}".rstrip("_")


def _is_ours(line: std_logging.LogRecord) -> bool:
    """Return whether to keep a log line; TFDS's are about settings that the commands make."""
    return line.levelno >= std_logging.ERROR or "tensorflow_datasets" not in line.pathname
