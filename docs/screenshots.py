# SPDX-License-Identifier: BSD-3-Clause
"""Makes the pictures of the README and the documents, docs/images/*.png, from the quickstart's run.

    mlimages train --config=quickstart --workdir=workdirs/quickstart
    python docs/screenshots.py workdirs/quickstart

It needs Playwright and a Chromium, as the tests of pages do (CONTRIBUTING.md), and about a minute.
"""

import argparse
import contextlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import parse_record

PICTURES = Path(__file__).resolve().parent / "images"
PHOTOS = 60
DROPPED = 6  # of the photos, which the demo page tags
DESKTOP = {"width": 1200, "height": 760}  # pixels
COLOURS = 128  # of a picture, which is a third as large then
MLIMAGES = (sys.executable, "-m", "mlimages_jax")


def main() -> None:
    """Makes all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("workdir", type=Path, help="of the quickstart, after its end")
    workdir = parser.parse_args().workdir
    _save(Image.open(workdir / "predictions.png"), "quickstart_predictions")
    with tempfile.TemporaryDirectory() as temporary, _browser() as page:
        folder = Path(temporary)
        _write_photos(workdir, folder / "photos")
        checkpoint = f"--checkpoint={workdir}"
        _run("export", folder / "photos", checkpoint, f"--output={folder / 'features'}")
        _run(
            "tag", folder / "photos", checkpoint, f"--output={folder / 'tags.csv'}",
            f"--html={folder / 'tags.html'}",
        )  # fmt: skip
        _picture_of_sheet(page, folder / "tags.html")
        _run("report", workdir, f"--output={folder / 'report.html'}")
        page.goto((folder / "report.html").as_uri() + "#frequency")
        page.locator("html[data-ready]").wait_for()  # all charts are drawn
        _take(page, "report")
        with _server(workdir, folder / "features") as address:
            _picture_of_demo(page, address, sorted((folder / "photos").iterdir())[:DROPPED])


def _write_photos(workdir: Path, folder: Path) -> None:
    """Writes validation images of the quickstart's data set as files."""
    (info,) = workdir.glob("data/shapes/*/*/dataset_info.json")
    records = DataSet.open(info.parent).records("val")
    folder.mkdir()
    for position in range(PHOTOS):
        (folder / f"{position:03d}.jpg").write_bytes(parse_record(records[position]).jpeg)


def _run(*words: str | Path) -> None:
    subprocess.run([*MLIMAGES, *map(str, words)], check=True)


def _picture_of_sheet(page: Page, sheet: Path) -> None:
    page.goto(sheet.as_uri())
    page.locator("#order").select_option("doubt")
    page.locator("article img").first.wait_for()
    _take(page, "tag_sheet")


def _picture_of_demo(page: Page, address: str, photos: list[Path]) -> None:
    page.goto(address)
    page.get_by_text(re.compile("classes, images of")).wait_for()
    page.locator("#files").set_input_files(photos)
    page.get_by_text(f"{len(photos)} images tagged").wait_for()
    _take(page, "serve")


def _take(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")
    _save(Image.open(io.BytesIO(page.screenshot())), name)


def _save(image: Image.Image, name: str) -> None:
    image.convert("RGB").quantize(COLOURS).save(PICTURES / f"{name}.png", optimize=True)
    print(f"docs/images/{name}.png")


@contextlib.contextmanager
def _browser() -> Iterator[Page]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise SystemExit("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        options: dict[str, Any] = {"viewport": DESKTOP, "color_scheme": "light"}
        yield browser.new_page(**options)
        browser.close()


@contextlib.contextmanager
def _server(workdir: Path, features: Path) -> Iterator[str]:
    """Yields the address of a server that is ready."""
    words = ["serve", str(workdir), f"--features={features}", "--port=0", "--max-batch=8"]
    with subprocess.Popen([*MLIMAGES, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            address = ""
            for line in process.stdout:
                address = address or "".join(re.findall(r"http://[\d.:]+", line))
                if line.startswith("ready: "):
                    break
            yield address
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
