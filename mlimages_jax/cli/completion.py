# SPDX-License-Identifier: BSD-3-Clause
"""The command that prints shell completion scripts."""

from typing import Literal

from tyro.conf import Positional

from mlimages_jax import command_line


def completion(shell: Positional[Literal["bash", "zsh", "fish"]], /) -> None:
    """Print a script that completes commands and options in your shell.

        mlimages completion bash >> ~/.bashrc
        mlimages completion zsh > ~/.zfunc/_mlimages
        mlimages completion fish > ~/.config/fish/completions/mlimages.fish

    For zsh the folder has to be in fpath: `fpath+=~/.zfunc` before `compinit` in ~/.zshrc. It works
    from the next shell on.

    Args:
        shell: the shell to print the script for.
    """
    from mlimages_jax.cli.front import COMMANDS, PROGRAM  # imports this module

    command_line.whole(COMMANDS).cli(args=["--tyro-print-completion", shell], prog=PROGRAM)
