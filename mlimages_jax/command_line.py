# SPDX-License-Identifier: BSD-3-Clause
"""Runs programs with several commands: lists of commands, help and exit codes.

A command is given as "module:function" and imported only when it runs: a list of commands reads the
first lines of the docstrings from the source, because imports of jax take seconds. Arguments of the
function become options, and its docstring becomes the help.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import os
import re
import shutil
import sqlite3
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro
from tyro.conf import arg
from tyro.extras import SubcommandApp

from mlimages_jax import renamed_flags
from mlimages_jax.distributed import exit_codes
from mlimages_jax.files import paths
from mlimages_jax.files.escaping import several_lines

HELP = ("-h", "--help")
_WIDTH = 100  # of the help's text, at most


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
            app.command(name=name, help=first_line(command))(readable(load(command)))
    return app


def _dispatch(command: str | Group, words: list[str], program: str) -> Any:
    """Descends into groups while the words name them, and runs the command or prints a list."""
    if isinstance(command, str):
        arguments = paths.plain_words(renamed_flags.replaced(words, command=command))
        function = load(command)
        _print_description(_description(function), words)
        return tyro.cli(readable(function), prog=program, args=arguments, description="")
    if words and words[0] in command.commands:
        return _dispatch(command.commands[words[0]], words[1:], f"{program} {words[0]}")
    # Without a command or with an unknown one, tyro lists the commands.
    words = words if words and words[0] not in HELP else ["--help"]
    app = SubcommandApp()
    for name, one in command.commands.items():
        app.command(name=name, help=_summary(one))(_nothing)
    _print_description(command.description, words)
    return app.cli(args=words, prog=program, description="")


def _nothing() -> None:
    """Placeholder for a command in a list, where only its name and summary matter."""


def readable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that tyro lists like a manual does.

    An option that may be left out has the name of its type, without None and without a default of
    nothing. A positional argument has its own name. An entry of the docstring is one paragraph.

    Args:
        function: Function of a command.
    """
    types_of = typing.get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=_listed(parameter, types_of[name]))
        for name, parameter in signature.parameters.items()
    ]

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    del call.__wrapped__  # tyro would read that one's parameters
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # no stub has it
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    call.__doc__ = _with_long_lines(inspect.getdoc(function) or "")
    return call


def optional(placeholder: str) -> Any:
    """Returns the annotation of a field that may be left out; for parameters `readable` does it.

    Args:
        placeholder: How its values are written, such as INT.
    """
    return arg(metavar=placeholder, help_behavior_hint="")


def _listed(parameter: inspect.Parameter, kind: Any) -> Any:
    """Returns the type of a parameter with the placeholder and the default to list."""
    plain = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    placeholder = None
    if parameter.kind is parameter.POSITIONAL_ONLY and typing.get_origin(plain) is not Literal:
        placeholder = parameter.name.upper().replace("_", "-")
        if typing.get_origin(plain) in (tuple, list):
            placeholder = f"{placeholder} ..."
        if parameter.default is not parameter.empty:
            placeholder = f"[{placeholder}]"
    elif typing.get_origin(plain) in (typing.Union, types.UnionType):
        placeholder = _placeholder(
            [each for each in typing.get_args(plain) if each is not type(None)]
        )
    is_nothing = parameter.default in (None, "", ()) or "..." in (placeholder or "")
    hint = "" if is_nothing else None
    return Annotated[kind, arg(metavar=placeholder, help_behavior_hint=hint)]


def _placeholder(kinds: Sequence[Any]) -> str | None:
    """Returns how values of a type are written, such as PATH or {a,b}; None leaves it to tyro."""
    if len(kinds) != 1:
        return None
    if typing.get_origin(kinds[0]) is Literal:
        return f"{{{','.join(map(str, typing.get_args(kinds[0])))}}}"
    return kinds[0].__name__.upper() if isinstance(kinds[0], type) else None


def _with_long_lines(doc: str) -> str:
    """Returns a docstring whose arguments have a line each: tyro keeps the breaks of the source."""
    before, title, entries = doc.partition("\nArgs:\n")
    indent = len(entries) - len(entries.lstrip(" "))
    return before + title + re.sub(rf"\n {{{indent + 1},}}(?=\S)", " ", entries)


def _print_description(text: str, words: Sequence[str]) -> None:
    """Prints what a command does above its usage, if its help is asked for.

    tyro neither wraps lines nor keeps paragraphs.
    """
    if not set(HELP).intersection(words):
        return
    width = min(_WIDTH, shutil.get_terminal_size().columns)
    paragraphs = [
        paragraph
        if re.search("^ ", paragraph, re.MULTILINE)
        else textwrap.fill(paragraph, width, break_long_words=False, break_on_hyphens=False)
        for paragraph in text.strip().split("\n\n")
    ]
    print("\n\n".join(paragraphs), end="\n\n")


def _description(function: Callable[..., Any]) -> str:
    """Returns the docstring without its sections."""
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
