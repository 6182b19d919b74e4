# SPDX-License-Identifier: BSD-3-Clause
"""The build of a data set that follows an import: as a command to print, or run at once."""

from pathlib import Path
from typing import Literal, NamedTuple

from mlimages_jax import command_line
from mlimages_jax.prepare.imports.shell import shell_word, shell_words

DATA_DIR = "data"


class BuildOptions(NamedTuple):
    """What the user of an import has said about the build that follows.

    Attributes:
        data_dir: Folder for data sets.
        words: Other options, as words of a command line.
    """

    data_dir: str = DATA_DIR
    words: tuple[str, ...] = ()


NO_OPTIONS = BuildOptions()


class Build(NamedTuple):
    """A build of a data set.

    Attributes:
        builder: The command after `mlimages data build`.
        manual_dir: Folder that it reads.
        name: Name of the data set.
        options: Other options.
        data_dir: Folder for data sets.
    """

    builder: Literal["ml-images", "image-folder", "imagenet"]
    manual_dir: Path
    name: str
    options: tuple[str, ...] = ()
    data_dir: str = DATA_DIR

    def with_options(self, more: BuildOptions) -> "Build":
        """Returns the same build with what the user has said about it."""
        return self._replace(options=(*self.options, *more.words), data_dir=more.data_dir)

    def command(self) -> str:
        """Returns the shell command."""
        return f"mlimages data build {self.builder} {shell_words(self._words())}"

    def run(self) -> Path:
        """Builds the set, or finds it finished, and returns its folder.

        Raises:
            SystemExit: The set cannot be built; with the message for the user.
        """
        module = self.builder.replace("-", "_")
        return command_line.run(
            f"tfds_builders.{module}.command:build_{module}",
            self._words(),
            program=f"mlimages data build {self.builder}",
        )

    def _words(self) -> list[str]:
        named = {"manual-dir": self.manual_dir, "data-dir": self.data_dir, "name": self.name}
        return [*(f"--{option}={value}" for option, value in named.items()), *self.options]


def train_commands(folder: Path, name: str) -> list[str]:
    """Returns the commands after a build: train a tagger, and use it."""
    workdir = f"workdirs/{shell_word(name)}"
    return [
        f"mlimages train --config=tagger --data={shell_word(folder)} --workdir={workdir}",
        f"mlimages tag IMAGES --checkpoint={workdir} --output=tags.csv",
    ]
