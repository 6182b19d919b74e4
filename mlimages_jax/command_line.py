# SPDX-License-Identifier: BSD-3-Clause
"""Programs of several commands: their list, their help, and how they end.

A command is named by its place, "module:function", and imported when it is used: a list of commands
reads only the first lines of their docstrings, from the source. Its arguments become options, its
docstring the help.
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
    """Commands under one name.

    Attributes:
        description: a sentence for the list of commands, then anything for the group's own help.
        commands: places and further groups, by name.
    """

    description: str
    commands: "Mapping[str, str | Group]"


def run(command: str | Group, words: Sequence[str], *, program: str, mistyped_code: int = 2) -> Any:
    """Runs the command that the words name.

    Args:
        command: a place or a group.
        words: what a person typed behind the name of the program.
        program: that name, for the help.
        mistyped_code: the exit code for a command line that cannot be parsed.

    Returns:
        What the command returns.

    Raises:
        SystemExit: 0 after the help; 1 after an error that a person can fix; `mistyped_code`; 130
            after Ctrl-C; 141 where nobody reads the output any more.
    """
    return with_errors(
        lambda: _dispatch(command, list(words), program), mistyped_code=mistyped_code
    )


def load(place: str) -> Callable[..., Any]:
    """The function at a place."""
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def first_line(place: str) -> str:
    """The first line of a command's docstring, without importing its module."""
    module, _, name = place.partition(":")
    root, *parts = module.split(".")
    spec = importlib.util.find_spec(root)  # of a module further down it would import the packages
    assert spec and spec.origin, place
    path = Path(spec.origin).parent.joinpath(*parts).with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    raise AttributeError(f"{path} has no function {name}")


def whole(group: Group) -> SubcommandApp:
    """All commands of a group with all their options, for the completion of shells."""
    app = SubcommandApp()
    for name, command in group.commands.items():
        if isinstance(command, Group):
            app.command(whole(command), name=name, help=_summary(command))
        else:
            app.command(name=name, help=first_line(command))(load(command))
    return app


def _dispatch(command: str | Group, words: list[str], program: str) -> Any:
    """Walks down the groups as far as the words name commands, and runs what it arrives at."""
    if isinstance(command, str):
        arguments = paths.plain_words(renamed_flags.replaced(words, command=command))
        function = load(command)
        return tyro.cli(function, prog=program, args=arguments, description=_description(function))
    if words and words[0] in command.commands:
        return _dispatch(command.commands[words[0]], words[1:], f"{program} {words[0]}")
    # The list, or a word that is no command: tyro says which ones there are.
    words = words if words and words[0] not in HELP else ["--help"]
    app = SubcommandApp()
    for name, one in command.commands.items():
        app.command(name=name, help=_summary(one))(_nothing)
    return app.cli(args=words, prog=program, description=command.description)


def _nothing() -> None:
    """Stands for a command in a list."""


def _description(function: Callable[..., Any]) -> str:
    """The docstring without its sections, in its own lines: tyro would lose indentation."""
    text = inspect.getdoc(function) or ""
    return re.split(r"\n(?:Args|Returns|Raises):\n", text)[0].rstrip()


def _summary(command: str | Group) -> str:
    if isinstance(command, Group):
        return command.description.partition("\n")[0]
    return first_line(command)


def with_errors(body: Callable[[], Any], *, mistyped_code: int = 2) -> Any:
    """As `run`: turns what a person can fix into a line instead of a traceback."""
    try:
        try:
            return body()
        finally:
            sys.stdout.flush()  # here, where it may fail, and not when Python ends
    except BrokenPipeError:  # `| head` has seen enough; what is left to print has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except SystemExit as end:
        if end.code == 2:
            sys.exit(mistyped_code)
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, OSError | sqlite3.OperationalError) or exit_codes.is_ours(error):
            sys.exit(several_lines(f"error: {error}"))
        raise
