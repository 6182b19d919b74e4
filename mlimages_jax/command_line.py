# SPDX-License-Identifier: BSD-3-Clause
"""Programs of several commands: their list, their help, and how they end."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from tyro.extras import SubcommandApp

from mlimages_jax.files import paths
from mlimages_jax.files.escaping import several_lines


def group(commands: Mapping[str, Callable[..., None]], words: Sequence[str]) -> SubcommandApp:
    """Commands by name; asked for their list, each says only the first line of its help.

    Args:
        commands: their arguments and docstrings become options and help.
        words: what a person typed behind the name of the program.
    """
    is_list = not words or words[0] in ("-h", "--help")
    app = SubcommandApp()
    for name, command in commands.items():
        first_line = (command.__doc__ or "").partition("\n")[0]
        app.command(name=name, help=first_line if is_list else None)(command)
    return app


def run(
    app: SubcommandApp,
    words: Sequence[str],
    *,
    program: str,
    description: str | None,
    mendable: Sequence[type[Exception]],
) -> None:
    """Runs one command.

    Args:
        app: from `group`.
        words: what a person typed behind the name of the program.
        program: its name, for the help.
        description: above the list of commands.
        mendable: errors that a person can mend, besides OSError: they end with a line instead of a
            traceback.

    Raises:
        SystemExit: 1 after an error; 2 for a mistyped command; 130 after Ctrl-C; 141 where nobody
            reads the output any more.
    """
    told: tuple[type[Exception], ...] = (OSError, paths.PathError, *mendable)
    try:
        app.cli(args=paths.plain_words(words), prog=program, description=description)
    except BrokenPipeError:  # `| head` has seen enough; what is left to print has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except told as error:
        sys.exit(several_lines(f"error: {error}"))
    except KeyboardInterrupt:
        sys.exit(130)
