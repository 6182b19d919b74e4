# SPDX-License-Identifier: BSD-3-Clause
"""--config=FILE[:VARIANT] and --config.NAME=VALUE: from the command line to settings.

Every mistake becomes a ConfigError of one line. An override may have any value that its rule
allows, regardless of the type in the file: a fraction instead of a number of steps, 0 for "off".
The last override of a name counts, also for tuples.
"""

import ast
import inspect
import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from mlimages_jax.files import shipped
from mlimages_jax.models.depths import STAGE_SIZES, STAGE_WIDTHS, STEM_KERNEL, STEM_WIDTH
from mlimages_jax.settings.compound_rules import Open, Several
from mlimages_jax.settings.fields import Values, flatten
from mlimages_jax.settings.help_text import help_text
from mlimages_jax.settings.judge import ConfigError, nearest_setting, table_of
from mlimages_jax.settings.renamed import new_name, with_new_names
from mlimages_jax.settings.resolve import parse
from mlimages_jax.settings.rules import Choice, Flag, Rule, Text, nearest, shown
from mlimages_jax.settings.tasks import Settings

_OVERRIDE = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)
_FAILURES = (Exception, SystemExit)  # a config that calls sys.exit must not set our exit code
_BOOLS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False, "none": None}


class Override(NamedTuple):
    """A setting given on the command line.

    Attributes:
        name: Dotted name.
        text: Value as typed; None if there was none.
    """

    name: str
    text: str | None


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[Override]]:
    """Separates the overrides from the rest of the command line, including flag files.

    A value follows "=" or is the next word; --noconfig.NAME means False.
    """
    words = flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False)
    others: list[str] = []
    overrides: list[Override] = []
    while words:
        word = words.pop(0)
        if word == "--":
            return [*others, word, *words], overrides
        if not (match := _OVERRIDE.fullmatch(word)):
            others.append(word)
            continue
        no, name, text = match.groups()
        if no:
            text = "false"
        elif text is None and words and not re.match(r"--?[a-z]", words[0]):
            # A dash before a letter starts an option, but "-1" is a value.
            text = words.pop(0)
        overrides.append(Override(name.replace("-", "_"), text))
    return others, overrides


def load(
    argument: str, changes: Mapping[str, Any] | None = None, *, workdir: str | None = None
) -> Settings:
    """Loads the settings of a config file, for programs and notebooks.

    Args:
        argument: FILE or FILE:VARIANT.
        changes: Changed values by dotted name: {"data.folder": "data/mine/1.0.0"}.
        workdir: Where the task will run; if given, local paths must exist, see `judge.check`.

    Raises:
        ConfigError: The file cannot be run, or a setting is invalid.
    """
    changes = with_new_names(changes or {}, where="the configuration")
    return parse(_of_file(argument) | changes, workdir=workdir)


def read_config(
    argument: str, overrides: Sequence[Override] = (), *, workdir: str | None = None
) -> Settings:
    """Runs a config file, applies the overrides and validates the result.

    Args:
        argument: FILE or FILE:VARIANT; NAME and configs/NAME.py also stand for a file of the
            package, if the current folder has no such file.
        overrides: Overrides in order; the last one of a name counts.
        workdir: Where the task will run; if given, local paths must exist, see `judge.check`.

    Raises:
        ConfigError: The file, variant or a name does not exist (the message suggests a similar
            one), the file cannot be run (the message gives the line), or settings are invalid.
        PathError: A path starts with the home folder of an unknown user.
    """
    return parse(_overridden(_of_file(argument), overrides), workdir=workdir)


def answer_help(words: Sequence[str], overrides: Sequence[Override]) -> None:
    """Prints every setting and exits with 0 if --config.help is among the overrides.

    Args:
        words: Command line, which may contain --config=FILE[:VARIANT].
        overrides: Values to show instead of those in the file.

    Raises:
        SystemExit: With 0 after the help, or with a message if the file cannot be read.
    """
    others = [override for override in overrides if override.name != "help"]
    if len(others) == len(overrides):
        return
    # The file follows "=" or is the next word.
    found = re.search(r"^--?config[=\n](.*)$", "\n".join(words), re.MULTILINE)
    try:
        values = _overridden(_of_file(found[1]), others) if found else {}
        print(help_text(values, title=found[1] if found else ""))
    except ConfigError as error:
        sys.exit(f"error: {error}")
    sys.exit(0)


def _of_file(argument: str) -> Values:
    """Returns the values of a config file by their current names."""
    path, colon, variant = argument.partition(":")
    path = str(_found(Path(path)))
    get_config = _get_config(Path(path))
    takes_variant = bool(inspect.signature(get_config).parameters)
    if colon and not takes_variant:
        raise ConfigError(f"--config={argument}: {path} has no variants; omit ':{variant}'")
    variants = get_config.__globals__.get("VARIANTS", ())
    if colon and variants and variant not in variants:
        raise ConfigError(
            f"--config={argument}: {variant!r} is none of the variants {', '.join(variants)}"
            f"{nearest(variant, variants)}"
        )
    return with_new_names(_values(path, get_config, (variant,) if colon else ()), where=path)


def _overridden(values: Values, overrides: Sequence[Override]) -> Values:
    """Returns the values with the overrides applied.

    Raises:
        ConfigError: Names are misspelt; lists all of them.
    """
    values = dict(values)
    # All overrides are tried, so that all misspelt names are reported at once.
    if lines := [told for override in overrides if (told := _put(values, override))]:
        raise ConfigError("\n".join(lines))
    return values


def network(name: str) -> Values:
    """Returns the settings under `model` for the name of a network, such as "resnet50".

    For "init_from" they are left open, to be read from the checkpoint that a run starts from.

    Raises:
        ConfigError: The name is unknown.
    """
    names = {f"resnet{depth}": sizes for depth, sizes in STAGE_SIZES.items()}
    if name == "init_from":
        return {"stage_sizes": (), "stage_widths": (), "stem_width": 0, "stem_kernel": 0}
    if name not in names:
        told = nearest(name, names)
        if name in ("resnet18", "resnet34"):
            told = " (18 and 34 use a different block)"
        raise ConfigError(
            f"model={name!r} is none of {', '.join([*names, 'init_from'])}{told}; for other sizes "
            "set model.stage_sizes, stage_widths, stem_width and stem_kernel"
        )
    return {
        "stage_sizes": names[name],
        "stage_widths": STAGE_WIDTHS,
        "stem_width": STEM_WIDTH,
        "stem_kernel": STEM_KERNEL,
    }


def _found(path: Path) -> Path:
    """Returns the file for a name: in the current folder, or else in the package."""
    is_name = path.parent == Path() and not path.suffix and not path.exists()
    file = Path("configs", f"{path}.py") if is_name else path
    packaged = _packaged() / file.name
    # A file of the user's takes precedence over ours of the same name.
    is_ours = file.parent == Path("configs") and not file.exists() and packaged.is_file()
    return packaged if is_ours else file


def _packaged() -> Path:
    return shipped.folder("configs", holding="pretrain.py")


def _get_config(path: Path) -> Any:
    """Returns the function get_config of a file.

    Raises:
        ConfigError: There is no such file, or it has no such function.
    """
    if not path.is_file():
        folders = [folder for folder in (path.parent, Path("configs")) if folder.is_dir()]
        found = {file.as_posix() for folder in folders for file in folder.glob("*.py")}
        found |= {f"configs/{file.name}" for file in _packaged().glob("*.py")}
        what = "this is a folder" if path.is_dir() else "there is no such file"
        near = nearest(path, sorted(found - {path.as_posix()}))
        raise ConfigError(f"--config={path}: {what}{near}")
    try:
        # Not imported: a module would be cached, and would need a name that no other has.
        function = runpy.run_path(str(path)).get("get_config")
    except _FAILURES as error:
        raise _of_the_file(path, error) from error
    if not callable(function):
        raise ConfigError(f"{path} has no function get_config: see configs/pretrain.py")
    return function


def _values(path: str, get_config: Any, arguments: Sequence[str]) -> Values:
    """Returns the values of a config file; `task` is "train" if it is not set.

    Raises:
        ConfigError: The file cannot be run, or does not return a ConfigDict.
    """
    try:
        config = get_config(*arguments)
        if isinstance(config, ConfigDict):
            # In this block, because to_dict raises for required placeholders without a value.
            return {"task": "train"} | flatten(config.to_dict())
    except _FAILURES as error:
        raise _of_the_file(Path(path), error) from error
    raise ConfigError(f"{path}: get_config() returns {shown(config)} instead of a ConfigDict")


def _of_the_file(path: Path, error: BaseException) -> ConfigError:
    """Returns the error with the line of the user's file where it happened."""
    lines = [error.lineno] if isinstance(error, SyntaxError) and error.lineno else []
    trace = error.__traceback__
    # The innermost frame of this file: the error itself may come from a library that it calls.
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    text = str(error).partition("\n")[0]
    return ConfigError(f"{where}: {type(error).__name__}: {text}")


def _put(values: Values, override: Override) -> str | None:
    """Sets a value by name; returns an error message if the name is wrong or a value is missing."""
    name, text = new_name(override.name, where="--config"), override.text
    table = table_of(values)
    known = {*table, *values}  # unknown names in the file are reported later
    if name == "model" and "model.stage_sizes" in table and text is not None:
        try:
            values |= {f"model.{field}": value for field, value in network(text).items()}
        except ConfigError as error:
            return f"--config.{error}"
        return None
    fields = sorted(field for field in known if field.startswith(f"{name}."))
    if fields:
        return f"--config.{name} is a section: set one of its fields, such as --config.{fields[0]}"
    if name not in known:
        return f"--config.{name}: there is no such setting{nearest_setting(name, known)}"
    rule = table[name].rule if name in table else Rule()
    if text is None and not isinstance(rule, Flag):
        return f"--config.{name}: give a value, --config.{name}=..."
    values[name] = _parsed("true" if text is None else text, rule)
    return None


def _parsed(text: str, rule: Rule) -> Any:
    """Parses a text as a Python literal; other texts are returned for the rule to validate."""
    if isinstance(rule, Open):
        rule = rule.rule
    if isinstance(rule, Text | Choice):
        return text
    if isinstance(rule, Flag):
        return _BOOLS.get(text.lower(), text)
    try:
        value = ast.literal_eval(text.strip())
    # literal_eval raises the last two for long or deeply nested texts.
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if isinstance(value, dict):  # would become a section, or disappear if empty
        return text
    # --config.evaluation.sizes=224 stands for a tuple of one.
    alone = isinstance(rule, Several) and not isinstance(value, tuple | list)
    return (value,) if alone else value
