# SPDX-License-Identifier: BSD-3-Clause
"""Runs all benchmarks one after the other, so that one command reproduces every table.

    python benchmarks/run_all.py --quick               # short forms, under 10 minutes in total
    python benchmarks/run_all.py --quick --only manifest growth --output tables.md
    python benchmarks/run_all.py                       # as in docs/benchmarks: hours

Runs every script of this folder and shows its command, duration and output, or why it was left out.
If a script fails or exceeds the time limit, the end of its errors is shown and the others still
run; the exit code is then 1. Short forms show that everything works and what the tables look like;
with few rounds of small sizes their ratios mean nothing.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from peers.setting import where_and_when

FOLDER = Path(__file__).resolve().parent
QUICK_LIMIT, FULL_LIMIT = 180, 3 * 3600  # seconds per command
LAST_LINES = 20  # of the errors of a script that failed
IMAGES = "images of your own: see docs/benchmarks/learning.md"
PHOTOGRAPHS = FOLDER.parents[1] / "shared/data/tencent/images"


class Form(NamedTuple):
    """The commands that run a script, and what they need.

    Attributes:
        quick: Arguments of its commands in the short form.
        full: Arguments of its commands in the full form.
        peers: Optional libraries; a row is left out for each that is missing.
        photographs: Whether it takes crops of the photographs in ../shared.
        left_out: Why the full form is not run; empty if it is.
    """

    quick: tuple[str, ...]
    full: tuple[str, ...] = ("",)
    peers: tuple[str, ...] = ()
    photographs: bool = False
    left_out: str = ""


SCRIPTS = {
    "accelerator": Form(("--quick --budget 60 --sections ceilings",), peers=("torch", "timm")),
    "builders": Form(("--count 200 --rounds 1",)),
    "checkpoints": Form(("--quick",)),
    "cooccurrence": Form(
        ("--rows 100000 --dense_rows 3000 --sample 50000",), ("--rows 17600000",)
    ),
    "device_feed": Form(("--quick",)),
    "download": Form(
        ("speed --images 500 --rounds 1", "faults --urls 1200 --kills 1"),
        ("speed", "faults --kills 20"),
        peers=("img2dataset",),
    ),
    "download_shards": Form(("--urls 1200 --parts 4 --hosts 16 --latency 0.1 --kills 1",)),
    "evaluation": Form(("--images 1000",)),
    "export": Form(("--count 32 --size 96 --rounds 1",), photographs=True),
    "extract": Form(("--count 800",)),
    "faults": Form(("--times 1 --only 'SIGTERM to one process'",)),
    "features": Form(
        ("--images 20000 --exact 20000 --queries 200",), ("",)
    ),
    "growth": Form(("--quick",)),
    "input_pipeline": Form(("--quick",), peers=("tensorflow", "torch"), photographs=True),
    "internet_scale": Form(
        ("plan --list ml-images", "rows --rows 20000", "check --urls 1000"),
        ("plan", "plan --list ml-images", "rows", "check"),
        peers=("simpy",),
    ),
    "jpeg": Form(("--quick",), photographs=True),
    "label_lists": Form(("--rows 100000",)),
    "list_statistics": Form(
        ("--rows 100000 --peer-rows 20000",), ("--rows 17609752",)
    ),
    "losses": Form(("--quick --losses weighted sigmoid",), left_out=IMAGES),
    "manifest": Form(("--rows 20000",), ("--rows 1000000",)),
    "memory": Form(("--side 2048",)),
    "onnx_speed": Form(("--quick",)),
    "read_orders": Form(("--threads 1 8 --rounds 1 --seconds 0.5 --count 256",), photographs=True),
    "rehearsal": Form(("--images 2000",)),
    "report": Form(("--quick",), peers=("playwright",)),
    "scaling": Form(
        ("--devices 8 --depth 50 --size 32 --images 4 --group_sizes 4 --modes replicated",)
    ),
    "serving": Form(("--quick",)),
    "sizes": Form(("--sizes 32 48 --steps 4",)),
    "small_sets": Form(("--quick",), peers=("torch",)),
    "suspects": Form(("--images 300 --steps 20",)),
    "soak": Form(("--steps 200 --saves 10",)),
    "start_up": Form(("--quick",)),
    "step_program": Form(("--quick",)),
    "tables": Form(("--rows 5000 --rounds 1",)),
    "train_step": Form(("--quick --rounds 2",), peers=("torch",)),
    "transfer": Form(("--quick",), left_out=IMAGES),
}  # fmt: skip


class Outcome(NamedTuple):
    """A command's exit code (None: stopped at the time limit), its seconds and its output."""

    code: int | None
    seconds: float
    output: str
    errors: str


def scripts() -> list[str]:
    """Returns the names of the other scripts in this folder."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != Path(__file__).stem)


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="run the short forms")
    parser.add_argument("--only", nargs="+", choices=scripts(), metavar="NAME", help="of scripts")
    parser.add_argument("--limit", type=float, help="time limit per command, in seconds")
    parser.add_argument("--output", type=Path, help="file for a copy of the output")
    arguments = parser.parse_args()
    arguments.limit = arguments.limit or (QUICK_LIMIT if arguments.quick else FULL_LIMIT)
    return arguments


def reason_to_leave_out(form: Form, *, quick: bool) -> str:
    """Returns why a script is not run here; empty if it is."""
    if form.photographs and not PHOTOGRAPHS.is_dir():
        return "no photographs to take crops from; run it with --photographs FOLDER"
    return "" if quick else form.left_out


def run(command: str, *, limit: float) -> Outcome:
    """Runs a command in the parent folder; kills it with all its children at the time limit.

    Args:
        command: Shell words that follow the interpreter.
        limit: Time limit in seconds.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        begin = time.perf_counter()
        # exec replaces the shell, so that the exit code is the script's, also after a signal.
        process = subprocess.Popen(
            f"exec '{sys.executable}' {command}", shell=True, cwd=FOLDER.parent,
            stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True,
        )  # fmt: skip
        code = None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds = time.perf_counter() - begin
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read())
    return Outcome(code, seconds, *texts)


def run_script(name: str, form: Form, arguments: argparse.Namespace, tell: Callable) -> bool:
    """Runs the commands of a script; returns whether all succeeded."""
    good = True
    lacking = [peer for peer in form.peers if importlib.util.find_spec(peer) is None]
    for words in form.quick if arguments.quick else form.full:
        command = f"benchmarks/{name}.py {words}".rstrip()
        tell(f"\n## {name}\n\n    python {command}\n")
        if lacking:
            tell(f"Without {', '.join(lacking)}, not installed: its rows are left out.\n")
        outcome = run(command, limit=arguments.limit)
        tell(outcome.output.rstrip())
        if outcome.code == 0:
            tell(f"\n{outcome.seconds:.0f} s")
            continue
        good = False
        how = "stopped, too late" if outcome.code is None else f"exit code {outcome.code}"
        tell(f"\n**FAILED** after {outcome.seconds:.0f} s: {how}; the end of its errors:\n")
        tell("\n".join(f"    {line}" for line in outcome.errors.splitlines()[-LAST_LINES:]))
    return good


def run_scripts(names: Sequence[str], arguments: argparse.Namespace, tell: Callable) -> bool:
    """Runs all scripts and prints a summary; returns whether all succeeded."""
    lines, good = ["\n## In all\n", "| script | | seconds |", "|---|---|---:|"], True
    total = 0.0
    for name in names:
        begin = time.perf_counter()
        form = SCRIPTS.get(name)
        if form is None:
            tell(f"\n## {name}\n\n**FAILED**: SCRIPTS of run_all.py does not say how to run it")
            result = "failed"
        elif reason := reason_to_leave_out(form, quick=arguments.quick):
            tell(f"\n## {name}\n\nLeft out: {reason}")
            result = f"left out: {reason}"
        else:
            result = "done" if run_script(name, form, arguments, tell) else "failed"
        good &= result != "failed"
        seconds = time.perf_counter() - begin
        total += seconds
        lines.append(f"| {name} | {result} | {seconds:.0f} |")
    tell("\n".join([*lines, f"| | {'all went well' if good else 'not all'} | {total:.0f} |"]))
    return good


def main() -> None:
    """Runs the requested scripts; exits with 1 if one failed."""
    arguments = parse_arguments()
    if arguments.output:
        arguments.output.write_text("", encoding="utf-8")

    def tell(text: str) -> None:
        print(text, flush=True)
        if arguments.output:
            with arguments.output.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    tell(f"{where_and_when()}; {'short forms' if arguments.quick else 'full forms'}")
    if not run_scripts(arguments.only or scripts(), arguments, tell):
        sys.exit(1)


if __name__ == "__main__":
    main()
