# SPDX-License-Identifier: BSD-3-Clause
"""The commands that start a training on other machines, which run the scripts of launch/.

The scripts validate their options themselves, so arguments are passed on unchanged.
"""

import inspect
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mlimages_jax.command_line import HELP
from mlimages_jax.files import shipped


def gpu(*words: str) -> NoReturn:
    """Train on GPU hosts that are reachable by ssh, or on this one.

        mlimages launch gpu --dry-run --hosts=a,b -- --config=pretrain --workdir=/shared/run

    It stays in the foreground and restarts all hosts when one fails.
    """
    script = _script("gpu.sh")
    _show_help(gpu, words, usage_of=script)
    _become("bash", script, *words)


def tpu_vm(*words: str) -> NoReturn:
    r"""Train on Cloud TPU VMs, one slice or several.

        mlimages launch tpu-vm --dry-run create --name=run --zone=us-central1-a --spot \
            --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite

    docs/launch.md explains it step by step.
    """
    script = _script("tpu_vm.sh")
    _show_help(tpu_vm, words, usage_of=script)
    if "--dry-run" in words[:1] and len(words) > 1:  # the script expects its command first
        words = (words[1], words[0], *words[2:])
    _become("bash", script, *words)


def slurm(*words: str) -> NoReturn:
    """Train under SLURM.

        mlimages launch slurm --dry-run --nodes=4 -- --config=pretrain --workdir=/shared/run

    Options before -- are sbatch's and override those in the script. Submit from the folder of the
    repository, where the job finds launch/ and .venv.
    """
    script = _script("slurm.sh")
    _show_help(slurm, words)
    is_dry = "--dry-run" in words[:1]
    words = words[1:] if is_dry else words
    options, arguments = _split(words)
    if not arguments:
        sys.exit("error: slurm needs -- --config=... --workdir=...")
    if not is_dry:
        if not shutil.which("sbatch"):
            sys.exit("error: sbatch is not installed here; --dry-run shows what would be run")
        _become("sbatch", *options, script, *arguments)
    print(" ".join(["sbatch", *options, "launch/slurm.sh", "..."]), "# on every node:", flush=True)
    os.chdir(Path(script).parents[1])  # the script looks for launch/ here
    _become("bash", script, "--dry-run", *arguments)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the words before "--" and those after it."""
    at = list(words).index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def _script(name: str) -> str:
    return str(shipped.folder("launch", holding=name) / name)


def _show_help(command: object, words: Sequence[str], *, usage_of: str | None = None) -> None:
    """Prints the help with the options of the script and exits, if the words ask for it."""
    options, _ = _split(words)
    # Only before "--": the --help of the training is not ours. No options at all need help too.
    if options and not set(options) & {*HELP, "help"}:
        return
    print(inspect.getdoc(command))
    if usage_of:
        usage = subprocess.run(["bash", usage_of, "--help"], capture_output=True, text=True)
        name = Path(usage_of).name
        door = f"mlimages launch {Path(name).stem.replace('_', '-')}"
        print("\n" + usage.stdout.rstrip().replace(f"launch/{name}", door))
    sys.exit(0)


def _become(program: str, *arguments: str) -> NoReturn:
    """Replaces this process, so that signals and the exit code are the program's own."""
    # Python ignores SIGPIPE, and a shell script would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(program, [program, *arguments])
