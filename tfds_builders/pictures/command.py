# SPDX-License-Identifier: BSD-3-Clause
"""The command lines of the builders: flags they share, and how a build ends."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging


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
        help="resolution of the colours of shrunk pictures; 420: half, which makes files a fifth"
        " smaller and reading faster (default: 444)")  # fmt: skip
    add("--max_skipped", type=float, default=0.01,
        help="share of unusable pictures that is allowed (default: 0.01)")  # fmt: skip
    add("--num_workers", type=int, help="threads (default: one a core)")
    add("--beam", metavar="OPTIONS", nargs="?", const="", help="use Apache Beam, with options"
        " such as runner=DirectRunner,direct_num_workers=8")  # fmt: skip
    add("--overwrite", action="store_true", help="build anew where a finished set exists")
    return result


def run(build: Callable[..., Path], options: argparse.Namespace, **own: Any) -> None:
    """Build, and print the folder; what a person can mend ends with a line, not a traceback.

    Args:
      build: Takes the shared flags by name, and `own`.
      options: What `parser` made of the command line.
      own: Arguments of this builder alone.
    """
    logging.set_verbosity(logging.INFO)
    beam = options.beam
    try:
        folder = build(
            options.manual_dir,
            options.data_dir,
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
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the finished shards", file=sys.stderr)
        sys.exit(130)
    print(folder)
