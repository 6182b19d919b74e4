# SPDX-License-Identifier: BSD-3-Clause
"""The command lines of the builders: flags they share, and how a build ends."""

import argparse
import logging as std_logging
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from mlimages_jax.files import paths
from mlimages_jax.files.escaping import several_lines

from . import skipped


def parser(name: str, *, description: str, layout: str) -> argparse.ArgumentParser:
    """A parser of the flags that every builder has.

    Args:
      name: Of the module, for the usage line.
      description: The first paragraph of the help.
      layout: What `manual_dir` holds; the last.
    """
    result = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=description,
        epilog=layout,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("--manual_dir", type=Path, required=True, help="the files described below")
    add("--data_dir", type=Path, required=True, help="where data sets go")
    add("--num_shards", type=int, help="files of each split")
    add("--chroma", choices=["444", "420"], default="444",
        help="resolution of the colours of shrunk images; 420: half, which makes files a fifth"
        " smaller and reading faster (default: 444)")  # fmt: skip
    add("--max_skipped", type=float, default=skipped.SHARE,
        help="share of a split's images that may be unusable (default: 0.01, or five images where"
        " these are more)")  # fmt: skip
    add("--num_workers", type=int, help="threads (default: one a core)")
    add("--beam", metavar="OPTIONS", nargs="?", const="", help="use Apache Beam, with options"
        " such as runner=DirectRunner,direct_num_workers=8")  # fmt: skip
    add("--overwrite", action="store_true", help="build anew where a finished set exists, which"
        " stays until the new one is complete")  # fmt: skip
    return result


def words(arguments: Sequence[str] | None) -> list[str]:
    """What was typed, with ~ replaced: a shell leaves that of `--data_dir=~/data` alone.

    Raises:
      SystemExit: For a home folder that is not known.
    """
    try:
        return paths.plain_words(sys.argv[1:] if arguments is None else arguments)
    except paths.PathError as error:
        sys.exit(several_lines(f"error: {error}"))


def run(
    build: Callable[..., Path],
    options: argparse.Namespace,
    *,
    is_published: Callable[[Path], bool],
    published_name: str,
    **own: Any,
) -> None:
    """Build, and print the folder; what a person can mend ends with a line, not a traceback.

    Args:
      build: Takes the shared flags by name, and `own`.
      options: What `parser` made of the command line.
      is_published: Whether a `manual_dir` holds the published files, which have a name.
      published_name: That name; other sets are called as their folder where --name does not say.
      own: Arguments of this builder alone.
    """
    logging.set_verbosity(logging.INFO)
    logging.get_absl_logger().addFilter(_is_ours)
    beam = options.beam
    try:
        named = options.name or is_published(options.manual_dir)
        name = options.name or (published_name if named else name_of(options.manual_dir))
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
        print("interrupted: the same command goes on from the finished shards", file=sys.stderr)
        sys.exit(130)
    print(folder)


def name_of(folder: Path) -> str:
    """A name for the set of a folder: its own, with underscores for all but letters and digits."""
    plain = unicodedata.normalize("NFKD", folder.expanduser().resolve().name)
    name = re.sub("[^A-Za-z0-9]+", "_", plain.encode("ascii", "ignore").decode()).strip("_")
    return name if name[:1].isalpha() else f"set_{name}".rstrip("_")


def _is_ours(line: std_logging.LogRecord) -> bool:
    """Leaves out what TFDS tells on the way: it is about settings that these commands make."""
    return line.levelno >= std_logging.ERROR or "tensorflow_datasets" not in line.pathname
