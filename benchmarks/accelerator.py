# SPDX-License-Identifier: BSD-3-Clause
"""Question: how fast does this project run on one accelerator, and where does the time go?

    python benchmarks/accelerator.py --budget 480 --output results
    python benchmarks/accelerator.py --sections step kernels
    python benchmarks/accelerator.py --quick            # every section in small, on a CPU

The most valuable sections run first, each in its own process, until the budget (in seconds) is
spent. A section that fails or times out loses only its own result. Tables are printed as they are
made and appended to results.json and tables.md in --output. Sections share compiled programs
through --cache. Nothing is downloaded; PyTorch and timm are skipped where they are not installed.
--golden is the folder with the reference numbers of the original code, if you have it.
"""

import argparse
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from accelerator_sections import ENVIRONMENT, Section, Settings

REPOSITORY = Path(__file__).resolve().parents[1]
SHORTEST = 5  # seconds; with less left, starting a section is not worthwhile


Measure = Callable[[Settings], Iterator[Section]]
# Most valuable first: the budget may run out.
NAMES = (
    "ceilings", "step", "kernels", "ideas", "numerics", "torch", "quickstart", "pretraining",
    "batches", "from_a_cpu", "flags", "networks",
)  # fmt: skip


def measurement(name: str) -> Measure:
    """Returns the function of a section; only the process that runs it imports its libraries."""
    from accelerator_sections import ceilings, kernels, numerics, steps, trainings

    functions: tuple[Measure, ...] = (
        ceilings.measure, steps.ours, kernels.measure, steps.by_idea, numerics.measure,
        steps.torch, trainings.quickstart, trainings.pretraining, steps.by_batch,
        trainings.from_a_cpu, steps.by_flag, steps.by_network,
    )  # fmt: skip
    return dict(zip(NAMES, functions, strict=True))[name]


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=float, default=480, help="seconds for all sections")
    parser.add_argument("--longest", type=float, default=250, help="seconds for one section")
    parser.add_argument("--output", type=Path, default=Path("accelerator_results"))
    parser.add_argument("--cache", type=Path, help="compiled programs; default: temporary")
    parser.add_argument("--golden", type=Path, default=REPOSITORY.parent / "shared" / "golden")
    parser.add_argument("--sections", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--depth", type=int, choices=(50, 101), default=101)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 512, 1024])
    parser.add_argument("--classes", type=int, default=11_166)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--steps", type=int, default=20, help="per round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="a small network and few steps")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        small = {"depth": 50, "size": 64, "batch": 4, "batches": [2, 8], "classes": 100}
        vars(arguments).update(small, dtype="float32", steps=2, rounds=2)
    return arguments


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Returns the settings that every section receives."""
    values = {name: getattr(arguments, name) for name in Settings._fields}
    values["batches"] = tuple(arguments.batches)
    values["output"] = str(arguments.output)
    values["golden"] = str(arguments.golden) if arguments.golden.is_dir() else None
    return Settings(**values)


def run_child(arguments: argparse.Namespace) -> None:
    """Runs one section in this process and saves what it has found after every result."""
    path = arguments.output / f"{arguments.child}.json"
    for section in measurement(arguments.child)(settings_of(arguments)):
        new = path.with_suffix(".new")
        new.write_text(json.dumps(section._asdict()), encoding="utf-8")
        new.replace(path)


def run_section(name: str, *, seconds: float, environment: dict[str, str], folder: Path) -> Section:
    """Runs one section in its own process; an incomplete table ends with the reason.

    Args:
        name: One of `NAMES`.
        seconds: Time limit, after which the process is killed.
        environment: Environment variables of the process.
        folder: Where the log and the result are written.
    """
    path, log = folder / f"{name}.json", folder / f"{name}.log"
    path.unlink(missing_ok=True)
    command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(timeout=seconds)
            reason = f"it exited with code {code}" if code else ""
        except subprocess.TimeoutExpired:
            reason = f"it was stopped after {seconds:.0f} s"
        finally:
            _end(process)
    found = Section("", {})
    if path.exists():
        found = Section(**json.loads(path.read_text(encoding="utf-8")))
    if reason:
        lines = log.read_text(errors="replace").splitlines()[-12:]
        explanation = "\n".join(["```", f"incomplete: {reason}", *lines, "```"])
        found = found._replace(table=f"{found.table}\n\n{explanation}")
    return found


def _end(process: subprocess.Popen[Any]) -> None:
    """Kills a section and its children, which would otherwise keep the device's memory."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_all(arguments: argparse.Namespace, environment: dict[str, str]) -> None:
    """Runs the sections within the budget and saves the results after each."""
    start = time.monotonic()
    results: dict[str, Any] = {"date": str(datetime.date.today()), "sections": {}}
    with (arguments.output / "tables.md").open("w", encoding="utf-8") as tables:
        for name in arguments.sections:
            begun = time.monotonic()
            left = arguments.budget - (begun - start)
            if left < SHORTEST:
                print(f"## {name}: no time left", flush=True)
                continue
            seconds = min(left, arguments.longest)
            found = run_section(
                name, seconds=seconds, environment=environment, folder=arguments.output
            )
            text = f"## {name} ({time.monotonic() - begun:.0f} s)\n\n{found.table}\n"
            print(text, flush=True)
            print(text, file=tables, flush=True)
            results["sections"][name] = found.values
            (arguments.output / "results.json").write_text(json.dumps(results, indent=1))


def main() -> None:
    """Runs all sections, or in a child process the one it was started for."""
    arguments = parse_arguments()
    if arguments.child:
        run_child(arguments)
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        cache = {"JAX_COMPILATION_CACHE_DIR": str(arguments.cache or temporary)}
        run_all(arguments, os.environ | ENVIRONMENT | cache)


if __name__ == "__main__":
    main()
