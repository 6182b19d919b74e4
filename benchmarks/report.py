# SPDX-License-Identifier: BSD-3-Clause
"""Size of the report of a run on all classes, and the time until its page answers.

    python benchmarks/report.py
    python benchmarks/report.py --quick

Writes the workdir of a training on 11,166 classes with drawn numbers, makes its report, and opens
it in the system's Chromium, on a screen and on a phone. Interactive is when a click has opened the
root of the class tree. Without Chromium only the file is measured.
"""

import argparse
import importlib.util
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from peers.generated_run import NUM_CLASSES, write_run
from peers.opened_page import Opened, measured
from peers.setting import where_and_when

from mlimages_jax.report.command import report

SCREENS = {"desktop": (1280, 800), "phone": (360, 740)}  # pixels


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="500 classes, opened once")
    parser.add_argument("--classes", type=int, default=NUM_CLASSES)
    parser.add_argument("--rounds", type=int, default=5, help="how often the page is opened")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.classes, arguments.rounds = 500, 1
    with tempfile.TemporaryDirectory() as folder:
        workdir = write_run(Path(folder, "run"), num_classes=arguments.classes)
        begin = time.perf_counter()
        report(str(workdir))
        seconds = time.perf_counter() - begin
        file = workdir / "report.html"
        megabytes = f"{file.stat().st_size / 1e6:.1f} MB"
        print(
            f"\n{where_and_when()}\n\n{arguments.classes:,} classes: {megabytes}, {seconds:.1f} s\n"
        )
        browser = shutil.which("chromium")
        if not browser or not importlib.util.find_spec("playwright"):
            print("Without Chromium or playwright: pip install playwright, apt install chromium")
            return
        print("| screen | interactive, s | main thread, CPU s | all charts, s | layout shift |")
        print("|:--|--:|--:|--:|--:|")
        for name, size in SCREENS.items():
            one = _median(file, browser, size, rounds=arguments.rounds)
            numbers = " | ".join(f"{value:.2f}" for value in one[:3])
            print(f"| {name} | {numbers} | {one.layout_shift:.3f} |", flush=True)


def _median(file: Path, browser: str, size: tuple[int, int], *, rounds: int) -> Opened:
    """Returns the median of opening the file in a browser that has just started."""
    from playwright.sync_api import sync_playwright

    opened = []
    with sync_playwright() as playwright:
        for _ in range(rounds):
            started = playwright.chromium.launch(executable_path=browser, args=["--disable-gpu"])
            page = started.new_page(viewport={"width": size[0], "height": size[1]})
            opened.append(measured(page, file))
            started.close()
    return Opened(*map(statistics.median, zip(*opened, strict=True)))


if __name__ == "__main__":
    main()
