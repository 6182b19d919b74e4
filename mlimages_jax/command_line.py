# SPDX-License-Identifier: BSD-3-Clause
"""Runs programs with several commands: lists of commands, help and exit codes.

A command is given as "module:function" and imported only when it runs: a list of commands reads the
first lines of the docstrings from the source, because imports of jax take seconds. Arguments of the
function become options, and its docstring becomes the help.
"""

import ast
import importlib
import importlib.util
import inspect
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from tyro.extras import SubcommandApp

from mlimages_jax import renamed_flags
from mlimages_jax.distributed import exit_codes
from mlimages_jax.files import paths
from mlimages_jax.files.escaping import several_lines

HELP = ("-h", "--help")


class Group(NamedTuple):
    """Group of commands.

    Attributes:
        description: Sentence for the list of commands, then more text for the group's own help.
        commands: Commands ("module:function") and groups, by name.
    """

    description: str
    commands: "Mapping[str, str | Group]"


def run(command: str | Group, words: Sequence[str], *, program: str, mistyped_code: int = 2) -> Any:
    """Runs the command that the command line names.

    Args:
        command: Command, as "module:function", or a group.
        words: Command line without the name of the program.
        program: Name of the program, for the help.
        mistyped_code: Exit code for a command line that cannot be parsed.

    Returns:
        What the command returns.

    Raises:
        SystemExit: 0 after the help; 1 after a user error; `mistyped_code`; 130 after Ctrl-C; 141
            if the reader of the output is gone.
    """
    return with_errors(
        lambda: _dispatch(command, list(words), program), mistyped_code=mistyped_code
    )


def load(place: str) -> Callable[..., Any]:
    """Imports the function of a command."""
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def first_line(place: str) -> str:
    """Returns the first line of a command's docstring without importing its module."""
    module, _, name = place.partition(":")
    root, *parts = module.split(".")
    spec = importlib.util.find_spec(root)  # for a submodule it would import the parent packages
    assert spec and spec.origin, place
    path = Path(spec.origin).parent.joinpath(*parts).with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    raise AttributeError(f"{path} has no function {name}")


def whole(group: Group) -> SubcommandApp:
    """Returns all commands of a group with all their options, for shell completion."""
    app = SubcommandApp()
    for name, command in group.commands.items():
        if isinstance(command, Group):
            app.command(whole(command), name=name, help=_summary(command))
        else:
            app.command(name=name, help=first_line(command))(load(command))
    return app


def _dispatch(command: str | Group, words: list[str], program: str) -> Any:
    """Descends into groups while the words name them, and runs the command or prints a list."""
    if isinstance(command, str):
        arguments = paths.plain_words(renamed_flags.replaced(words, command=command))
        function = load(command)
        return tyro.cli(function, prog=program, args=arguments, description=_description(function))
    if words and words[0] in command.commands:
        return _dispatch(command.commands[words[0]], words[1:], f"{program} {words[0]}")
    # Without a command or with an unknown one, tyro lists the commands.
    words = words if words and words[0] not in HELP else ["--help"]
    app = SubcommandApp()
    for name, one in command.commands.items():
        app.command(name=name, help=_summary(one))(_nothing)
    return app.cli(args=words, prog=program, description=command.description)


def _nothing() -> None:
    """Placeholder for a command in a list, where only its name and summary matter."""


def _description(function: Callable[..., Any]) -> str:
    """Returns the docstring without its sections; tyro itself would lose the indentation."""
    text = inspect.getdoc(function) or ""
    return re.split(r"\n(?:Args|Returns|Raises):\n", text)[0].rstrip()


def _summary(command: str | Group) -> str:
    if isinstance(command, Group):
        return command.description.partition("\n")[0]
    return first_line(command)


def with_errors(body: Callable[[], Any], *, mistyped_code: int = 2) -> Any:
    """Runs a function like `run`: user errors become one line instead of a traceback."""
    try:
        try:
            return body()
        finally:
            sys.stdout.flush()  # here, where BrokenPipeError is caught, not at exit
    except BrokenPipeError:  # e.g. `| head`; /dev/null takes what is still buffered
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # 128 + SIGPIPE, as shells report it
    except SystemExit as end:
        if end.code == 2:  # of argparse and tyro
            sys.exit(mistyped_code)
        raise
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT
    except Exception as error:
        # SQLite reports a full disk or a locked file by an OperationalError, not an OSError.
        if isinstance(error, OSError | sqlite3.OperationalError) or exit_codes.is_ours(error):
            sys.exit(several_lines(f"error: {exit_codes.text_of(error)}"))
        raise
